//! Whatever a client sends as a path: it is refused, or has one canonical form without dot segments,
//! control characters or a way back to another reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strangler::protocol::path::CanonicalPath;

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::parse(raw) else { return };
    let text = path.as_str();
    assert!(text.starts_with('/'));
    assert!(!text.contains(|c: char| c.is_ascii_control() || c == '\\'));
    let inner = text[1..].strip_suffix('/').unwrap_or(&text[1..]);
    assert!(inner.is_empty() || inner.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
    assert_eq!(CanonicalPath::parse(&encode(text)).as_ref(), Ok(&path));
    if let Some(bytes) = path.to_file_bytes() {
        assert_eq!(bytes.iter().filter(|byte| **byte == b'/').count(), text.matches('/').count());
        assert!(!bytes.contains(&0));
    }
});

/// Writes a canonical text as a client would send it.
fn encode(text: &str) -> String {
    let escaped = |byte| matches!(byte, b' ' | b'#' | b'?' | 0x80..);
    text.bytes().map(|byte| if escaped(byte) { format!("%{byte:02x}") } else { char::from(byte).to_string() }).collect()
}
