//! Text with escapes, as queries, cookies and addresses have it.

use super::hex;

/// What `+` stands for: a space in queries, itself in cookies, as PHP has it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Plus {
    IsSpace,
    IsPlus,
}

/// The bytes a form-encoded text stands for. As in PHP, a broken escape stands for itself.
pub(crate) fn decoded(text: &[u8], plus: Plus) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, after @ ..]) => match hex::byte(*high, *low) {
                Some(byte) => (byte, after),
                None => (b'%', behind),
            },
            (b'+', _) if plus == Plus::IsSpace => (b' ', behind),
            _ => (*first, behind),
        };
        rest = behind;
        Some(byte)
    })
}

/// The bytes of a text in which all is escaped but letters, digits and what is in `plain`.
pub(crate) fn encoded(text: &[u8], plain: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().flat_map(|byte| {
        let [high, low] = hex::digits(*byte).map(|digit| digit.to_ascii_uppercase());
        let is_plain = byte.is_ascii_alphanumeric() || plain.contains(byte);
        let (bytes, length) = if is_plain { ([*byte, 0, 0], 1) } else { ([b'%', high, low], 3) };
        bytes.into_iter().take(length)
    })
}

/// What RFC 3986 never escapes, beside letters and digits.
pub(crate) const UNRESERVED: &[u8] = b"-._~";
