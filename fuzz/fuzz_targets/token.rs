//! Whatever comes as a token: it is refused, or is of three parts that read back to the very same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strangler::protocol::jws::Unverified;

fuzz_target!(|bytes: &[u8]| {
    let Ok(token) = Unverified::parse(bytes) else { return };
    assert!(bytes.starts_with(token.message) && bytes.get(token.message.len()) == Some(&b'.'));
    assert_eq!(token.message.iter().filter(|byte| **byte == b'.').count(), 1);
    assert!(!token.signature.is_empty());
    assert!(bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')));
    if let Ok(claims) = token.claims() {
        let _ = (claims.at("sub"), claims.at("a.b.c"), claims.seconds("exp"));
        assert!(claims.seconds("exp").is_ok_and(|at| at.is_none_or(f64::is_finite)) || claims.at("exp").is_some());
    }
});
