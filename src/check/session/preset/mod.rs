//! What frameworks make of sessions: their cookies, their keys, the layers around their data.
//!
//! Pure, as the formats are: keys, bytes and the time come in, and what is found goes out. Whoever calls knows the
//! store. A cookie's value is given as PHP has it, that is, urldecoded.

pub(crate) mod laravel;
pub(crate) mod symfony;
pub(crate) mod wordpress;

#[cfg(test)]
mod tests;

use std::fmt::Write;

/// Bytes as PHP's `hash()` gives them: lowercase hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
