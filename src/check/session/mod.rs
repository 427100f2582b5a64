//! Sessions that PHP made, read at the edge.

pub mod format;
pub(crate) mod preset;
