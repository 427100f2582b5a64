//! The slowest exchanges of one side of a route, with the ids under which the log has them.
//!
//! Each worker keeps a few of its own; the control plane collects them when a slice of time ends and
//! says how slow an exchange must be to be of interest from then on. So an exchange usually costs one
//! comparison; only one that is slower than those kept takes the lock, which is its worker's own, and
//! goes on without when the control plane is collecting just then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Apart;

/// How many are kept.
pub(crate) const KEPT: usize = 10;
/// How long one is of interest.
pub(crate) const RECENT: Duration = Duration::from_secs(600);

/// One slow exchange.
#[derive(Clone, Debug)]
pub(crate) struct Slow {
    pub(crate) ended: Instant,
    pub(crate) request_id: Box<str>,
    pub(crate) status: u16,
    pub(crate) total: Duration,
    pub(crate) service: Option<Duration>,
    pub(crate) queue: Duration,
    pub(crate) apart: Option<Apart>,
}

/// What one worker kept since it was last collected.
#[derive(Debug, Default)]
pub(crate) struct Slowest {
    /// Nanoseconds that an exchange must exceed to be kept.
    bar: AtomicU64,
    kept: Mutex<Vec<Slow>>,
}

impl Slowest {
    /// Keeps the exchange if it is among the slowest. For the owning thread only.
    pub(crate) fn offer(&self, total: Duration, slow: impl FnOnce() -> Slow) {
        if nanos(total) <= self.bar.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut kept) = self.kept.try_lock() else { return };
        kept.push(slow());
        if kept.len() >= KEPT {
            keep_slowest(&mut kept);
            self.raise(&kept);
        }
    }

    /// What is kept now.
    pub(crate) fn peek(&self) -> Vec<Slow> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is kept, and begins anew.
    pub(crate) fn collect(&self) -> Vec<Slow> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar.store(0, Ordering::Relaxed);
        std::mem::take(&mut *kept)
    }

    /// From now on only what is slower than the fastest of `known` is of interest, if those are as many as are kept.
    pub(crate) fn raise(&self, known: &[Slow]) {
        if known.len() >= KEPT {
            let bar = known.iter().map(|slow| nanos(slow.total)).min().unwrap_or(0);
            self.bar.store(bar, Ordering::Relaxed);
        }
    }
}

impl Slow {
    /// Whether it is still of interest.
    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) < RECENT
    }
}

/// Puts the slowest first and drops those that are too many.
pub(crate) fn keep_slowest(slow: &mut Vec<Slow>) {
    slow.sort_by_key(|slow| std::cmp::Reverse(slow.total));
    slow.truncate(KEPT);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(millis: u64) -> Slow {
        Slow {
            ended: Instant::now(),
            request_id: format!("r{millis}").into(),
            status: 200,
            total: Duration::from_millis(millis),
            service: None,
            queue: Duration::ZERO,
            apart: None,
        }
    }

    fn offer(slowest: &Slowest, millis: impl IntoIterator<Item = u64>) {
        for millis in millis {
            slowest.offer(Duration::from_millis(millis), || slow(millis));
        }
    }

    fn ids(kept: &[Slow]) -> Vec<&str> {
        kept.iter().map(|slow| &*slow.request_id).collect()
    }

    #[test]
    fn the_slowest_stay_in_whatever_order_they_came() {
        let slowest = Slowest::default();
        offer(&slowest, (1..=1000).rev());
        offer(&slowest, 1..=1005);
        let mut kept = slowest.peek();
        keep_slowest(&mut kept);
        assert_eq!(ids(&kept)[..6], ["r1005", "r1004", "r1003", "r1002", "r1001", "r1000"]);
        assert_eq!(kept.len(), KEPT);
    }

    #[test]
    fn what_is_faster_than_those_known_is_not_even_made() {
        let slowest = Slowest::default();
        offer(&slowest, 100..110);
        let known = slowest.collect();
        slowest.raise(&known);
        slowest.offer(Duration::from_millis(100), || panic!("it is no slower than the fastest of them"));
        offer(&slowest, [101]);
        assert_eq!(ids(&slowest.collect()), ["r101"]);
    }

    #[test]
    fn a_worker_never_waits_for_a_reader() {
        let slowest = Slowest::default();
        let _reading = slowest.kept.lock().unwrap();
        slowest.offer(Duration::from_secs(1), || panic!("there is no time for it"));
    }
}
