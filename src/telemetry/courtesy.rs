//! How the control plane shares a processor with workers: what it does for every route can wait, a request cannot.

use std::time::{Duration, Instant};

/// How long the control plane keeps its processor from a worker that waits for it.
const KEPT: Duration = Duration::from_micros(200);
/// Items in a row before it looks at the clock again: far less than that.
const IN_A_ROW: usize = 8;

/// Offers the processor to whoever waits for it, every now and then. Where all processors are busy, a long piece of work
/// would else keep one from a worker for as long as the scheduler lets it, which is some milliseconds, and the rest of
/// the control plane for as long as it takes.
pub(crate) struct Courtesy {
    offered: Instant,
    items: usize,
}

impl Courtesy {
    pub(crate) fn new() -> Self {
        Self { offered: Instant::now(), items: 0 }
    }

    /// To be called after each item of a long list.
    pub(crate) async fn offer(&mut self) {
        self.items += 1;
        if self.items.is_multiple_of(IN_A_ROW) && self.offered.elapsed() >= KEPT {
            self.pause().await;
        }
    }

    /// To be called before and after what is long and in one piece.
    pub(crate) async fn pause(&mut self) {
        std::thread::yield_now();
        tokio::task::yield_now().await;
        self.offered = Instant::now();
    }
}
