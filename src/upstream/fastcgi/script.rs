//! Which file a request may reach. (Stub: holds the default of `deny` alone.)

/// Files that are never served, unless `deny` says otherwise.
pub(crate) const DEFAULT_DENY: &[&str] = &[".*", "*.sql", "composer.*"];
