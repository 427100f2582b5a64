//! Whether a store is worth asking: after failures in a row nobody asks it, but one each second who tries.
//!
//! Shared by all workers. As long as all is well it is read and never written, so that no cache line moves.

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures in a row after which the store is taken for down: five lost budgets are a quarter of a second.
const FAILURES: u32 = 5;
/// How long nobody asks; then one does.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    origin: Instant,
    failures: AtomicU32,
    /// Milliseconds after the origin at which the next operation is let through; 0: all are.
    until: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { origin: Instant::now(), failures: AtomicU32::new(0), until: AtomicU64::new(0) }
    }
}

impl Breaker {
    /// Whether an operation may be tried. What time it is matters only while all is not well.
    pub(super) fn admits(&self, now: impl FnOnce() -> Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = now();
        // Whoever moves the end of the pause on is the one who tries.
        let next = self.after(now, PAUSE);
        self.after(now, Duration::ZERO) >= until
            && self.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0
    }

    /// An operation was answered; `store` is who, for the log.
    pub(super) fn succeeded(&self, store: &dyn Display) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if !self.is_closed() && self.until.swap(0, Ordering::Relaxed) != 0 {
            tracing::warn!(%store, "the store answers again");
        }
    }

    /// An operation failed; `store` is whose, for the log.
    pub(super) fn failed(&self, store: &dyn Display, now: Instant) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if failures >= FAILURES && self.is_closed() && self.until.swap(self.after(now, PAUSE), Ordering::Relaxed) == 0 {
            tracing::warn!(%store, "the store does not answer, or not in time; it is asked once a second until it does");
        }
    }

    fn after(&self, now: Instant, more: Duration) -> u64 {
        let since = now.saturating_duration_since(self.origin).saturating_add(more);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_probe_a_second_closes_it() {
        let breaker = Breaker::default();
        let at = |millis| breaker.origin + Duration::from_millis(millis);
        (0..4).for_each(|_| breaker.failed(&"redis", at(10)));
        breaker.succeeded(&"redis");
        (0..4).for_each(|_| breaker.failed(&"redis", at(20)));
        assert!(breaker.admits(|| at(20)));
        breaker.failed(&"redis", at(20));
        assert!(!breaker.is_closed() && !breaker.admits(|| at(1019)));
        let probes = |millis| (0..100).filter(|_| breaker.admits(|| at(millis))).count();
        assert_eq!((probes(1020), probes(1500), probes(2019)), (1, 0, 0));
        breaker.failed(&"redis", at(1070));
        assert_eq!((probes(2019), probes(2020)), (0, 1));
        breaker.succeeded(&"redis");
        assert_eq!(probes(2021), 100);
    }
}
