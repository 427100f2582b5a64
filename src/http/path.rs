//! The one canonical form of a request's path, made once and used by routes, files, logs and labels.

use std::fmt;

/// The canonical path of a request. (Stub: filled in by the path work.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath(String);

/// Why a path was refused; always the client's fault (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// `%` without two hexadecimal digits behind it.
    #[error("a broken escape in the path")]
    BadEscape,
}

impl CanonicalPath {
    /// Reads the raw path of a request's target.
    ///
    /// # Errors
    /// Refuses what no two programs read alike; see [`PathFault`].
    pub fn parse(raw: &str) -> Result<Self, PathFault> {
        Ok(Self(raw.to_owned()))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
