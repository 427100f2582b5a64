//! How the control plane shares a processor with workers: what it does for every route can wait, a request cannot.

use std::time::{Duration, Instant};

/// How long the control plane keeps its processor from a worker that waits for it.
const KEPT: Duration = Duration::from_micros(200);
/// Items in a row before it looks at the clock again: far less than that.
const IN_A_ROW: usize = 8;

/// Offers the processor to a worker that waits for it, every now and then: where all processors are busy, a long piece
/// of work would else keep one for as long as the scheduler lets it, which is some milliseconds.
pub(super) struct Courtesy {
    offered: Instant,
}

impl Courtesy {
    pub(super) fn new() -> Self {
        Self { offered: Instant::now() }
    }

    /// The same items, with offers in between.
    pub(super) fn between<T>(&mut self, items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        items.enumerate().map(|(n, item)| {
            if n % IN_A_ROW == 0 && self.offered.elapsed() >= KEPT {
                std::thread::yield_now();
                self.offered = Instant::now();
            }
            item
        })
    }
}
