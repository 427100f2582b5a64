//! How often one thing may be said in the log.
//!
//! Whatever is logged for each request that fails would be a flood exactly when the log is needed. A
//! [`Limit`] bounds the lines of one kind, [`Warnings`] holds one for each reason for which an upstream
//! gave no answer. Nothing is lost in silence: the next line says how many were left out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// More reasons than there are for an upstream to give no answer.
const REASONS: usize = 16;

/// Lines of one kind in the second that runs.
#[derive(Debug)]
pub(super) struct Limit {
    lines_a_second: u64,
    epoch: Instant,
    /// Which second since `epoch` is counted.
    second: AtomicU64,
    lines: AtomicU64,
}

impl Limit {
    pub(super) fn new(lines_a_second: u64) -> Self {
        Self { lines_a_second, epoch: Instant::now(), second: AtomicU64::new(0), lines: AtomicU64::new(0) }
    }

    /// Whether one more line may be written, and how many were left out since the second of the last one.
    ///
    /// Two workers that meet at the turn of a second may let a line too many through; a log bears that.
    pub(super) fn admit(&self) -> Option<u64> {
        let now = self.epoch.elapsed().as_secs();
        if self.second.swap(now, Relaxed) != now {
            let before = self.lines.swap(1, Relaxed);
            return Some(before.saturating_sub(self.lines_a_second));
        }
        (self.lines.fetch_add(1, Relaxed) < self.lines_a_second).then_some(0)
    }
}

/// The warnings of one upstream: a line a second for each reason.
#[derive(Debug)]
pub(super) struct Warnings([OnceLock<(&'static str, Limit)>; REASONS]);

impl Default for Warnings {
    fn default() -> Self {
        Self([const { OnceLock::new() }; REASONS])
    }
}

impl Warnings {
    /// As [`Limit::admit`], for one reason. It gets the first place that is free, once and for all.
    pub(super) fn admit(&self, reason: &'static str) -> Option<u64> {
        let limit = self.0.iter().find_map(|place| {
            let (known, limit) = place.get_or_init(|| (reason, Limit::new(1)));
            (*known == reason).then_some(limit)
        });
        limit?.admit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_so_many_lines_a_second() {
        let limit = Limit::new(20);
        // The clock may turn once on the way: two seconds' worth at most.
        let admitted = (0..1000).filter(|_| limit.admit().is_some()).count();
        assert!((20..=40).contains(&admitted), "{admitted}");
    }

    #[test]
    fn the_next_line_says_how_many_were_left_out() {
        let limit = Limit::new(1);
        assert_eq!((limit.admit(), limit.admit(), limit.admit()), (Some(0), None, None));
        // A second that has passed.
        limit.second.store(u64::MAX, Relaxed);
        assert_eq!((limit.admit(), limit.admit()), (Some(2), None));
    }

    #[test]
    fn each_reason_is_heard() {
        let warnings = Warnings::default();
        for reason in ["connect", "down", "broken"] {
            assert_eq!(warnings.admit(reason), Some(0));
        }
        assert!(["connect", "down", "broken"].iter().all(|reason| warnings.admit(reason).is_none()));
    }
}
