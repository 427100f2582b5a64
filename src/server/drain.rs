//! Going down: the phases from serving to gone, told to every worker.
//!
//! ```text
//! serving ─▶ lame duck (not ready, still accepting) ─▶ draining (no more accepting) ─▶ over
//! ```
//!
//! The lame-duck phase is for load balancers: readiness fails first, and requests that are already
//! on their way still find an open listener.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Longest lame-duck moment; a sixth of the drain when that is shorter.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// How far going down has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    /// Not going down.
    Serving,
    /// Not ready any more; connections are still accepted, and closed after their next answer.
    LameDuck,
    /// Nothing is accepted; what is in flight may finish until the moment named.
    Draining(Instant),
    /// Whatever is left is cut.
    Over,
}

/// Tells workers when to go.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Sender<Phase>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    /// Hears of every phase to come.
    pub(super) fn listen(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Goes through the phases; `within` is all the time there is for requests in flight.
    pub(crate) async fn run(&self, within: Duration) {
        let end = Instant::now() + within;
        self.0.send_replace(Phase::LameDuck);
        tokio::time::sleep(LAME_DUCK.min(within / 6)).await;
        self.0.send_replace(Phase::Draining(end));
        tokio::time::sleep_until(end).await;
        self.end_now();
    }

    /// Skips what is left of the phases.
    pub(crate) fn end_now(&self) {
        self.0.send_replace(Phase::Over);
    }
}
