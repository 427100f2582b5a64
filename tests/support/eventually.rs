//! Waiting for something to become true: tried again and again up to a deadline, never slept for luck.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine with two cores; only a failing test ever waits so long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Repeats `attempt` until it gives a value; panics with `what` after the usual patience.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, attempt: impl FnMut() -> F) -> T {
    eventually_within(PATIENCE, what, attempt).await
}

/// The same with a deadline of its own, for promises that name one.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}
