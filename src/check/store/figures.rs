//! How often operations came to what end, and how long they took.

use std::time::Duration;

use crate::check::tally::Tally;

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

/// How often each outcome was, in their order, and behind them the nanoseconds that all took.
#[derive(Debug, Default)]
pub(super) struct Figures(Tally<{ NANOSECONDS + 1 }>);

const NANOSECONDS: usize = Outcome::ALL.len();

impl Figures {
    pub(super) fn count(&self, outcome: Outcome, took: Duration) {
        self.0.add(outcome as usize, 1);
        self.0.add(NANOSECONDS, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn totals(&self) -> Totals {
        let [operations @ .., nanoseconds] = self.0.totals();
        Totals { operations, nanoseconds }
    }
}
