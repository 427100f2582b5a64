//! Sessions that PHP made, read at the edge.

pub mod format;
#[cfg_attr(not(test), expect(dead_code, reason = "no check has a preset yet"))]
pub(crate) mod preset;
