//! The one canonical form of a request's path, made once, right after the head was read.
//!
//! Routes, files, checks, logs and labels see this form and no other, so that a request cannot be
//! one thing to the route that lets it pass and another to the side that acts on it. The raw target
//! stays beside it, for `REQUEST_URI` and for HTTP upstreams.
//!
//! The canonical text is percent-decoded exactly once, without dot segments or empty segments, its
//! trailing slash kept. Three things stay escaped, as upper-case `%XX`, because without the escape
//! the text would be ambiguous: the percent sign, a slash inside a segment, and bytes that are not
//! UTF-8. This file refuses what programs are known to read differently; it never repairs it.

use std::borrow::Cow;
use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;

use super::hex;

/// The canonical path of a request.
#[derive(Clone)]
pub struct CanonicalPath(Text);

/// Most paths are sent in canonical form: these share the bytes of the request's target.
#[derive(Clone)]
enum Text {
    AsSent(PathAndQuery),
    Made(Box<str>),
}

/// Why a path was refused; always the client's fault (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not begin with `/`. The `*` of `OPTIONS *` is one of these: it names the server, not
    /// a resource behind it, so no route could serve it and the gateway refuses it like the others.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits behind it.
    #[error("a broken escape in the path")]
    BadEscape,
    /// A control character, raw or escaped: `%0A` before `.php` was CVE-2019-11043.
    #[error("a control character in the path")]
    Control,
    /// A backslash, raw or escaped, which some programs read as a slash.
    #[error("a backslash in the path")]
    Backslash,
    /// A raw space, `#`, `?` or byte above 0x7F, which belong escaped in a path.
    #[error("a character in the path that must be escaped")]
    Unescaped,
    /// `..` with nothing left to climb out of.
    #[error("the path climbs above the root")]
    AboveRoot,
}

impl CanonicalPath {
    /// Reads the path of a request's target; costs no allocation when it is canonical already.
    ///
    /// # Errors
    /// Refuses what no two programs read alike; see [`PathFault`].
    pub fn of(target: &Uri) -> Result<Self, PathFault> {
        let raw = target.path();
        match target.path_and_query() {
            Some(sent) if is_canonical(raw)? => Ok(Self(Text::AsSent(sent.clone()))),
            _ => Self::parse(raw),
        }
    }

    /// Reads a raw path, without query.
    ///
    /// # Errors
    /// Refuses what no two programs read alike; see [`PathFault`].
    pub fn parse(raw: &str) -> Result<Self, PathFault> {
        let text = if is_canonical(raw)? { raw.into() } else { to_text(&resolve_dots(&decode(raw)?)?) };
        Ok(Self(Text::Made(text)))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::AsSent(sent) => sent.path(),
            Text::Made(text) => text,
        }
    }

    /// The bytes the path stands for, as a file system knows them; `None` when a segment holds an
    /// escaped slash, which no file name can.
    #[must_use]
    pub fn to_file_bytes(&self) -> Option<Cow<'_, [u8]>> {
        let text = self.as_str();
        if memchr::memchr(b'%', text.as_bytes()).is_none() {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => match escaped_byte(&mut rest).ok()? {
                    b'/' => return None,
                    byte => bytes.push(byte),
                },
                byte => bytes.push(byte),
            }
        }
        Some(Cow::Owned(bytes))
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CanonicalPath").field(&self.as_str()).finish()
    }
}

impl PartialEq for CanonicalPath {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for CanonicalPath {}

/// Whether a raw path needs no work; one look at each byte. May say no to one that needs none, such
/// as `/.well-known/x`, but never yes to one that needs some.
fn is_canonical(raw: &str) -> Result<bool, PathFault> {
    if !raw.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    let mut canonical = true;
    let mut before = 0;
    for byte in raw.bytes() {
        check_raw(byte)?;
        // The escapes themselves are looked at by `decode`.
        canonical &= byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
    }
    Ok(canonical)
}

/// Refuses bytes that may not stand in a path as they are.
fn check_raw(byte: u8) -> Result<(), PathFault> {
    match byte {
        0x00..=0x1F | 0x7F => Err(PathFault::Control),
        b'\\' => Err(PathFault::Backslash),
        b' ' | b'#' | b'?' | 0x80.. => Err(PathFault::Unescaped),
        _ => Ok(()),
    }
}

/// Takes the two digits behind a `%`.
fn escaped_byte(rest: &mut impl Iterator<Item = u8>) -> Result<u8, PathFault> {
    rest.next().zip(rest.next()).and_then(|(high, low)| hex::byte(high, low)).ok_or(PathFault::BadEscape)
}

/// Decodes every escape but those of `%` and `/`. What it returns has a slash only between segments.
fn decode(raw: &str) -> Result<Vec<u8>, PathFault> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        match escaped_byte(&mut rest)? {
            0x00..=0x1F | 0x7F => return Err(PathFault::Control),
            b'\\' => return Err(PathFault::Backslash),
            b'%' => decoded.extend_from_slice(b"%25"),
            b'/' => decoded.extend_from_slice(b"%2F"),
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

/// Removes `.`, `..` and empty segments. Slashes are merged first: `/a//../b` is `/b`, as PHP's usual
/// front servers read it.
fn resolve_dots(decoded: &[u8]) -> Result<Vec<u8>, PathFault> {
    let mut resolved = Vec::with_capacity(decoded.len());
    // Where the segments kept so far begin, each at its slash.
    let mut starts = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split(|byte| *byte == b'/') {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => resolved.truncate(starts.pop().ok_or(PathFault::AboveRoot)?),
            segment => {
                starts.push(resolved.len());
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    if ends_in_slash {
        resolved.push(b'/');
    }
    Ok(resolved)
}

/// Gives the bytes their text: what is not UTF-8 goes back to being escaped.
fn to_text(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(raw: &str) -> Result<String, PathFault> {
        CanonicalPath::parse(raw).map(|path| path.to_string())
    }

    #[test]
    fn spellings_of_one_path_have_one_form() {
        for (raw, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a//../b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%20b", "/a b"),
            ("/a%3Fb%23c", "/a?b#c"),
            ("/caf%c3%a9", "/café"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(wanted), "{raw}");
        }
    }

    #[test]
    fn what_would_be_ambiguous_stays_escaped() {
        for (raw, wanted) in [
            ("/a%2fb", "/a%2Fb"),
            ("/a%252Fb", "/a%252Fb"),
            ("/100%25", "/100%25"),
            ("/%ff", "/%FF"),
            ("/%c3/%a9", "/%C3/%A9"),
            ("/%2e%2e%2fetc", "/..%2Fetc"),
            ("/%e2%82x", "/%E2%82x"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(wanted), "{raw}");
        }
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        for (raw, fault) in [
            ("", PathFault::NotAbsolute),
            ("*", PathFault::NotAbsolute),
            ("a/b", PathFault::NotAbsolute),
            ("/%", PathFault::BadEscape),
            ("/%4", PathFault::BadEscape),
            ("/%zz", PathFault::BadEscape),
            ("/%+1", PathFault::BadEscape),
            ("/%00", PathFault::Control),
            ("/a%0a.php", PathFault::Control),
            ("/%7f", PathFault::Control),
            ("/a\tb", PathFault::Control),
            ("/a\\b", PathFault::Backslash),
            ("/a%5cb", PathFault::Backslash),
            ("/café", PathFault::Unescaped),
            ("/a#b", PathFault::Unescaped),
            ("/a?b", PathFault::Unescaped),
            ("/a b", PathFault::Unescaped),
            ("/..", PathFault::AboveRoot),
            ("/a/../..", PathFault::AboveRoot),
            ("/%2e%2e/etc/passwd", PathFault::AboveRoot),
            ("//../a", PathFault::AboveRoot),
        ] {
            assert_eq!(canonical(raw), Err(fault), "{raw}");
        }
    }

    #[test]
    fn a_canonical_target_is_shared_and_any_other_is_made() {
        let plain: Uri = "/a/b?c=%00".parse().unwrap();
        let path = CanonicalPath::of(&plain).unwrap();
        assert!(matches!(path.0, Text::AsSent(_)));
        assert_eq!(path.as_str(), "/a/b");
        let escaped: Uri = "http://shop.example/%61/b?c".parse().unwrap();
        let same = CanonicalPath::of(&escaped).unwrap();
        assert!(matches!(same.0, Text::Made(_)));
        assert_eq!(path, same);
        assert_eq!(CanonicalPath::of(&"*".parse().unwrap()), Err(PathFault::NotAbsolute));
    }

    #[test]
    fn file_bytes_are_decoded_to_the_end_unless_a_slash_hides_in_a_segment() {
        let bytes = |raw| CanonicalPath::parse(raw).unwrap().to_file_bytes().map(Cow::into_owned);
        assert_eq!(bytes("/a.css"), Some(b"/a.css".to_vec()));
        assert_eq!(bytes("/100%25%ff"), Some(b"/100%\xff".to_vec()));
        assert_eq!(bytes("/a%2Fb"), None);
    }

    /// Writes a canonical text as a client would send it.
    fn encode(canonical: &str) -> String {
        let keep = |byte: u8| byte == b'%' || check_raw(byte).is_ok();
        canonical
            .bytes()
            .map(|byte| if keep(byte) { char::from(byte).into() } else { format!("%{byte:02x}") })
            .collect()
    }

    /// Paths made of what matters: separators, dots, escapes of all kinds, a few letters.
    fn raw_paths() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("/".to_owned()),
            2 => Just(".".to_owned()),
            1 => Just("%2e".to_owned()),
            1 => Just("%2f".to_owned()),
            4 => "[a-c]",
            2 => any::<u8>().prop_map(|byte| format!("%{byte:02X}")),
            1 => Just("%c3%a9".to_owned()),
            1 => "\\PC",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn canonicalising_twice_changes_nothing(raw in raw_paths()) {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                prop_assert_eq!(CanonicalPath::parse(&encode(path.as_str())), Ok(path));
            }
        }

        #[test]
        fn no_dot_segment_or_empty_segment_survives(raw in raw_paths()) {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                let inner = path.as_str().strip_prefix('/').unwrap();
                let inner = inner.strip_suffix('/').unwrap_or(inner);
                prop_assert!(inner.is_empty() || inner.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
                prop_assert!(!path.as_str().contains(|c: char| c.is_ascii_control() || c == '\\'));
            }
        }

        #[test]
        fn escaping_any_letter_or_dot_changes_nothing(raw in raw_paths(), which in any::<u32>()) {
            // Only bytes outside of escapes may be respelled.
            let mut in_escape = 0;
            let respelled: String = raw.bytes().enumerate().map(|(at, byte)| {
                if byte == b'%' { in_escape = 3; }
                in_escape = i32::max(in_escape - 1, -1);
                let respell = in_escape < 0 && matches!(byte, b'a'..=b'z' | b'.') && which >> (at % 32) & 1 == 1;
                if respell { format!("%{byte:02X}") } else { String::from_utf8_lossy(&[byte]).into_owned() }
            }).collect();
            if raw.is_ascii() {
                prop_assert_eq!(CanonicalPath::parse(&respelled), CanonicalPath::parse(&raw));
            }
        }

        #[test]
        fn no_input_panics_and_both_doors_agree(raw in ".*") {
            let parsed = CanonicalPath::parse(&raw);
            if let Ok(target) = raw.parse::<Uri>() && target.path() == raw {
                prop_assert_eq!(CanonicalPath::of(&target), parsed);
            }
        }
    }
}
