//! Text with escapes, as queries and cookies have it.

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
