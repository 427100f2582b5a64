//! Text with escapes, as queries and cookies have it.

use super::path::hex_value;

/// What `+` stands for: a space in queries, itself in cookies, as PHP has it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Plus {
    IsSpace,
    IsPlus,
}

/// The bytes a form-encoded text stands for. As in PHP, a broken escape stands for itself.
pub(crate) fn decoded(text: &str, plus: Plus) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, after @ ..]) => match hex_value(*high).zip(hex_value(*low)) {
                Some((high, low)) => (high << 4 | low, after),
                None => (b'%', behind),
            },
            (b'+', _) if plus == Plus::IsSpace => (b' ', behind),
            _ => (*first, behind),
        };
        rest = behind;
        Some(byte)
    })
}
