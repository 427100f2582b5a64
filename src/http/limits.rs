//! The edge's limits and deadlines, as the running table holds them.

use std::time::Duration;

/// How much a client may send (`[server.limits]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a request's head; more is 431.
    pub(crate) header_bytes: usize,
    /// Header lines of a request; more is 431.
    pub(crate) headers: usize,
    /// Bytes of a request's target; more is 414.
    pub(crate) uri_bytes: usize,
    /// Bytes of a request's body; more is 413. A route may say otherwise.
    pub(crate) body_bytes: u64,
    /// Connections open at once, over all workers; `None`: from the descriptor limit.
    pub(crate) connections: Option<usize>,
    /// Connections open at once from one client address that is not a trusted proxy.
    pub(crate) connections_per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            body_bytes: 8 << 20,
            connections: None,
            connections_per_client: 256,
        }
    }
}

/// How long a client may take (`[server.timeouts]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// A request's head must be complete within this; later is 408.
    pub(crate) header: Duration,
    /// Longest silence inside a request's body; longer is 408.
    pub(crate) body_gap: Duration,
    /// Longest time a client may refuse to take bytes of an answer; then the connection ends.
    pub(crate) write_gap: Duration,
    /// How long a connection may wait for its next request.
    pub(crate) idle: Duration,
    /// Requests served on one connection before it is closed.
    pub(crate) requests_per_connection: u64,
    /// Age at which a connection is closed after its current request.
    pub(crate) connection_age: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            body_gap: Duration::from_secs(30),
            write_gap: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            requests_per_connection: 10_000,
            connection_age: Duration::from_secs(3600),
        }
    }
}
