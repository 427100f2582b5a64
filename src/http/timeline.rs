//! When things happened to one exchange: the moments the access log and the histograms are made of.
//!
//! A side fills it in as it goes, so that whatever becomes of the exchange (an answer, an error, a
//! client that left) the record has what was reached. Whoever reaches a moment says which it is: to ask
//! what time it is costs more than most of what is done between two moments.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The moments of one exchange, filled in by whoever reaches them.
#[derive(Debug)]
pub(crate) struct Timeline {
    started: Instant,
    queue_began: Cell<Option<Instant>>,
    queued: Cell<Duration>,
    handed_over: Cell<Option<Instant>>,
    attempts: Cell<u32>,
    first_byte: Cell<Option<Instant>>,
}

impl Timeline {
    /// Starts at the moment the request's head was complete.
    pub(crate) fn start(now: Instant) -> Self {
        Self {
            started: now,
            queue_began: Cell::new(None),
            queued: Cell::new(Duration::ZERO),
            handed_over: Cell::new(None),
            attempts: Cell::new(0),
            first_byte: Cell::new(None),
        }
    }

    /// The moment the exchange began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Notes that the request waited for a place at the upstream (a PHP process), from `began` for `waited`.
    pub(crate) fn queued(&self, began: Instant, waited: Duration) {
        self.queue_began.set(Some(began));
        self.queued.set(waited);
    }

    /// Notes that the request is handed to the side that answers it at `now`.
    /// Said again by a retry: the last attempt is the one whose service time counts.
    pub(crate) fn handed_over(&self, now: Instant) {
        self.handed_over.set(Some(now));
        self.attempts.set(self.attempts.get().saturating_add(1));
        self.first_byte.set(None);
    }

    /// Notes that the first byte of the side's answer is here at `now`.
    pub(crate) fn first_byte(&self, now: Instant) {
        self.first_byte.set(self.first_byte.get().or(Some(now)));
    }

    /// Whether the last attempt has been answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.first_byte.get().is_some()
    }

    /// How long the request waited for a place at the upstream.
    pub(crate) fn queue_time(&self) -> Duration {
        self.queued.get()
    }

    /// How often the request was handed over: more than once, if it was tried again.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    /// When it began to wait, if it had to.
    pub(crate) fn queue_began(&self) -> Option<Instant> {
        self.queue_began.get()
    }

    /// When the request was handed over, for the last time.
    pub(crate) fn last_handed_over(&self) -> Option<Instant> {
        self.handed_over.get()
    }

    /// From handing over to the first byte back, without queueing; `None` before the first byte.
    pub(crate) fn service_time(&self) -> Option<Duration> {
        Some(self.first_byte.get()?.saturating_duration_since(self.handed_over.get()?))
    }
}
