//! Whether a pool can be connected to at all.
//!
//! While it cannot, `pool.rs` refuses requests at once instead of having each find out by itself; one
//! of them may try again from time to time, and the first to succeed opens the pool to all. It is read by
//! every worker for every request, and so is nothing but a few atomics. It does not connect.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::Instant;

/// How often one request may find out whether a pool that is down is back.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Whether connecting has failed for so long that trying is left to probes.
#[derive(Debug)]
pub(super) struct Health {
    epoch: Instant,
    /// Milliseconds from `epoch`, plus 1; 0 while it is up.
    down_since: AtomicU64,
    /// Milliseconds from `epoch`.
    last_probe: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self { epoch: Instant::now(), down_since: AtomicU64::new(0), last_probe: AtomicU64::new(0) }
    }
}

impl Health {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn down_for(&self) -> Option<Duration> {
        let since = self.down_since.load(SeqCst).checked_sub(1)?;
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    pub(super) fn is_probe_due(&self) -> bool {
        Duration::from_millis(self.now().saturating_sub(self.last_probe.load(SeqCst))) >= PROBE_EVERY
    }

    /// Whether the caller is the one who may try now.
    pub(super) fn claim_probe(&self) -> bool {
        let last = self.last_probe.load(SeqCst);
        self.is_probe_due() && self.last_probe.compare_exchange(last, self.now(), SeqCst, SeqCst).is_ok()
    }

    pub(super) fn failed(&self, name: &str, error: &io::Error) {
        self.last_probe.store(self.now(), SeqCst);
        if self.down_since.compare_exchange(0, self.now() + 1, SeqCst, SeqCst).is_ok() {
            tracing::warn!(upstream = name, %error, "down: no connection for the whole of `connect`");
        }
    }

    pub(super) fn succeeded(&self, name: &str) {
        if self.down_since.load(SeqCst) != 0 && self.down_since.swap(0, SeqCst) != 0 {
            tracing::info!(upstream = name, "up again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_at_a_time_probes() {
        let health = Health::default();
        assert_eq!(health.down_for(), None);
        health.failed("php", &io::ErrorKind::NotFound.into());
        assert_eq!(health.down_for(), Some(Duration::ZERO));
        assert!(!health.claim_probe());
        tokio::time::advance(PROBE_EVERY).await;
        assert!(health.is_probe_due() && health.claim_probe());
        assert!(!health.claim_probe());
        assert_eq!(health.down_for(), Some(PROBE_EVERY));
        health.succeeded("php");
        assert_eq!(health.down_for(), None);
    }
}
