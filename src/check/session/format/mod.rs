//! The formats in which applications keep sessions: named fields are read out of them, whole new ones written.
//!
//! Pure: bytes in, values out; no store, no clock. A session holds what an application trusts, so a doubt is never
//! settled by a guess: what is not understood to its last byte is [`Unreadable`], and PHP, whose format it is, decides.
//! Which format a session has is configured and never detected: bytes that mean one thing in `php` mean another in
//! `php_serialize`.
//!
//! Readers never recurse over PHP's data (JSON's library does, within the same bound), skip objects without building
//! anything, and copy only strings that need decoding.

mod field;
mod finder;
pub mod igbinary;
pub mod json;
pub mod php;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::field::{FieldPath, Fields, PathFault, Value, Wanted};

/// The most bytes of a session that are looked at.
pub const MAX_BYTES: usize = 1 << 20;
/// The most elements of all its arrays and objects together.
pub const MAX_ELEMENTS: usize = 100_000;
/// How deep arrays and objects may lie in one another.
pub const MAX_DEPTH: usize = 64;
/// The most elements of a list that is itself wanted.
pub const MAX_LIST: usize = 256;

/// How a session is written down: `session.serialize_handler`, or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// PHP's default: `key|value` after `key|value`, each value serialized.
    Php,
    /// One serialized array.
    PhpSerialize,
    /// Length, key, serialized value.
    PhpBinary,
    /// The extension igbinary's. It is read, not written.
    Igbinary,
}

impl Format {
    /// All of them, under the names that PHP gives them.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("json", Self::Json),
        ("php", Self::Php),
        ("php_serialize", Self::PhpSerialize),
        ("php_binary", Self::PhpBinary),
        ("igbinary", Self::Igbinary),
    ];

    /// Reads the wanted fields. Nothing at all is a session in which nothing is set.
    ///
    /// # Errors
    /// The bytes are no session of this format, go beyond a bound, or hold a wanted field in a way that only PHP can
    /// resolve: behind a reference, or as an object.
    pub fn read<'a>(self, data: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
        if data.is_empty() {
            return Ok(Fields::none(wanted));
        }
        if data.len() > MAX_BYTES {
            return Err(Unreadable("it is larger than 1 MiB"));
        }
        match self {
            Self::Json => json::read(data, wanted),
            Self::Php => php::read_keyed(data, wanted, php::take_delimited_key),
            Self::PhpBinary => php::read_keyed(data, wanted, php::take_counted_key),
            Self::PhpSerialize => php::read_array(data, wanted),
            Self::Igbinary => igbinary::read(data, wanted),
        }
    }

    /// Writes a new session. PHP reads back exactly these fields.
    ///
    /// # Errors
    /// This format has no way to write one of them.
    pub fn write(self, fields: &[(&FieldPath, Value<'_>)]) -> Result<Vec<u8>, Unwritable> {
        let tree = field::Tree::grow(fields)?;
        match self {
            Self::Json => json::write(&tree),
            Self::Php => php::write_keyed(&tree, php::put_delimited_key),
            Self::PhpBinary => php::write_keyed(&tree, php::put_counted_key),
            Self::PhpSerialize => Ok(php::write_array(&tree)),
            Self::Igbinary => Err(Unwritable("igbinary is read only: have PHP keep its sessions in another format")),
        }
    }
}

/// Why a session cannot be read: PHP has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session cannot be read: {0}")]
pub struct Unreadable(pub(crate) &'static str);

impl Unreadable {
    /// What was found, in words that hold nothing of the session.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

/// Why a session cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session cannot be written: {0}")]
pub struct Unwritable(pub(crate) &'static str);

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name))
    }
}
