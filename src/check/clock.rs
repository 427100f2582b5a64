//! The time of day as clients, tokens and sessions tell it: whole seconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> u64 {
    seconds(SystemTime::now())
}

/// What is before 1970 counts as then.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
