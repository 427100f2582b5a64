//! The id of a request: one word that joins the client's answer, both sides' logs and ours.
//!
//! Made here, or taken from a trusted proxy if it is short and plain; what any other client sends is
//! ignored, because an id that clients choose cannot be searched for.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hex;

/// Where an id is sent and found.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken over.
const BYTES_MAX: usize = 128;

/// The trusted proxy's id, if it sent a sane one, else a new one.
pub(crate) fn of(headers: &HeaderMap, client_is_trusted: bool) -> HeaderValue {
    if client_is_trusted {
        let mut sent = headers.get_all(X_REQUEST_ID).iter();
        if let (Some(id), None) = (sent.next(), sent.next())
            && is_sane(id.as_bytes())
        {
            return id.clone();
        }
    }
    make()
}

/// A new id: 128 random bits in 32 hexadecimal digits. Unique, not secret.
pub(crate) fn make() -> HeaderValue {
    let random = fastrand::u128(..).to_be_bytes();
    let mut digits = [0; 32];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(random) {
        *pair = hex::digits(byte);
    }
    // Digits and letters always are a field value; the empty one stands for what cannot happen.
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn is_sane(id: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ids: &[&str]) -> HeaderMap {
        ids.iter().map(|id| (X_REQUEST_ID, HeaderValue::from_str(id).unwrap())).collect()
    }

    #[test]
    fn a_new_id_is_32_hexadecimal_digits_and_never_the_same() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| make()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }

    #[test]
    fn only_a_sane_id_of_a_trusted_proxy_is_taken_over() {
        assert_eq!(of(&sent(&["edge-1.a_B"]), true), "edge-1.a_B");
        assert_eq!(of(&sent(&["edge-1.a_B"]), false).len(), 32);
        for id in ["", "a b", "a\"b", &"a".repeat(129)] {
            assert_ne!(of(&sent(&[id]), true), id);
        }
        assert_eq!(of(&sent(&[&"a".repeat(128)]), true).len(), 128);
    }
}
