//! How often operations came to what end: counted by each worker for itself, added up by who asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thread_local::ThreadLocal;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A value was read.
    Hit,
    /// There was none.
    Miss,
    /// Something was written or deleted.
    Done,
    Error,
    Timeout,
    Rejected,
}

impl Outcome {
    pub(crate) const ALL: [Self; 6] = [Self::Hit, Self::Miss, Self::Done, Self::Error, Self::Timeout, Self::Rejected];

    /// The `result` of the metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Done => "done",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
        }
    }
}

/// What came of all operations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// In the order of [`Outcome::ALL`].
    pub(crate) operations: [u64; Outcome::ALL.len()],
    pub(crate) nanoseconds: u64,
}

/// One worker's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    operations: [AtomicU64; Outcome::ALL.len()],
    nanoseconds: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Figures(ThreadLocal<Cell>);

impl Figures {
    pub(super) fn count(&self, outcome: Outcome, took: Duration) {
        let cell = self.0.get_or_default();
        if let Some((_, count)) = Outcome::ALL.into_iter().zip(&cell.operations).find(|(known, _)| *known == outcome) {
            add(count, 1);
        }
        add(&cell.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for cell in &self.0 {
            for (sum, count) in totals.operations.iter_mut().zip(&cell.operations) {
                *sum += count.load(Ordering::Relaxed);
            }
            totals.nanoseconds = totals.nanoseconds.wrapping_add(cell.nanoseconds.load(Ordering::Relaxed));
        }
        totals
    }
}

// One writer each: a plain load and store, no locked instruction.
fn add(count: &AtomicU64, by: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}
