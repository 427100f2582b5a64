//! The operator's port. (Stub: holds what it shows of reloads.)

pub(crate) mod reload;
