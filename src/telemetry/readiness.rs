//! Whether the gateway wants traffic: what `/readyz` tells a load balancer.
//!
//! The server moves it forward, never back: a table is loaded and listeners accept, later the
//! gateway drains. Faults of a file or of an upstream do not make a gateway unready.

use std::sync::atomic::{AtomicU8, Ordering};

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// Whether the gateway wants traffic.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicU8);

impl Readiness {
    /// `true`: a table is loaded and the listeners accept. `false`: going down, for good.
    pub(crate) fn set(&self, ready: bool) {
        if ready {
            // A signal may come before the last worker is up: draining is final.
            let _ = self.0.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.0.store(DRAINING, Ordering::Relaxed);
        }
    }

    /// `None` when ready, else why not.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Relaxed) {
            READY => None,
            DRAINING => Some("draining"),
            _ => Some("starting"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_drains_never_becomes_ready_again() {
        let readiness = Readiness::default();
        assert_eq!(readiness.unready(), Some("starting"));
        readiness.set(true);
        assert_eq!(readiness.unready(), None);
        readiness.set(false);
        readiness.set(true);
        assert_eq!(readiness.unready(), Some("draining"));
    }
}
