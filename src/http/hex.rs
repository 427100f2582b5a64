//! Hexadecimal digits, as identifiers, escapes and digests are written.

/// The byte that two digits stand for, in either case.
pub(crate) fn byte(high: u8, low: u8) -> Option<u8> {
    Some(value(high)? << 4 | value(low)?)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The two digits of a byte, in lower case.
pub(crate) fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xF].map(|value| if value < 10 { b'0' + value } else { b'a' + value - 10 })
}

/// Bytes in lower case, as PHP's `hash()` gives them.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend(digits(*byte).map(char::from));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_back_in_either_case() {
        for written in 0..=u8::MAX {
            let [high, low] = digits(written);
            assert_eq!(byte(high, low), Some(written));
            assert_eq!(byte(high.to_ascii_uppercase(), low.to_ascii_uppercase()), Some(written));
        }
        assert_eq!(text(&[0, 0xaf, 255]), "00afff");
        assert_eq!((byte(b'0', b'g'), byte(b' ', b'0')), (None, None));
    }
}
