//! One question for each code: whoever comes with it meanwhile gets the same answer, whoever comes later a refusal.
//!
//! A code is good once and for five minutes. A second question about it can only make WeChat refuse
//! it, so none is asked: not by a double tap, not by a retry, not by somebody who found the code.
//! Codes are remembered as hashes, a bounded number of them. The lock is held for a look-up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// As long as a code is good.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most codes that are remembered; the oldest is forgotten first.
const MOST_SPENT: usize = 16_384;
/// Most codes that are asked about at once.
const MOST_ASKED: usize = 256;

type Code = [u8; 32];

/// What is known of codes; `T` is an answer.
pub(super) struct Flights<T>(Arc<Mutex<Known<T>>>);

struct Known<T> {
    asked: HashMap<Code, watch::Receiver<Option<T>>>,
    spent: HashMap<Code, Instant>,
    /// The spent ones, oldest first.
    order: VecDeque<Code>,
}

/// What to do about a code.
pub(super) enum Boarding<T> {
    /// Ask, and tell the others.
    Lead(Flight<T>),
    /// Wait for whoever asks. An end without an answer means that there is none.
    Follow(watch::Receiver<Option<T>>),
    /// It had its answer.
    Spent,
    /// Too many are asked about.
    Full,
}

/// The one question about a code. Dropped without an answer, the code may be asked about again.
pub(super) struct Flight<T> {
    code: Code,
    known: Arc<Mutex<Known<T>>>,
    tell: watch::Sender<Option<T>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Known { asked: HashMap::new(), spent: HashMap::new(), order: VecDeque::new() })))
    }
}

impl<T: Clone> Flights<T> {
    pub(super) fn board(&self, code: &str, now: Instant) -> Boarding<T> {
        let code: Code = Sha256::digest(code).into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget(now);
        if known.spent.contains_key(&code) {
            return Boarding::Spent;
        }
        if let Some(answer) = known.asked.get(&code) {
            return Boarding::Follow(answer.clone());
        }
        if known.asked.len() >= MOST_ASKED {
            return Boarding::Full;
        }
        let (tell, answer) = watch::channel(None);
        known.asked.insert(code, answer);
        Boarding::Lead(Flight { code, known: Arc::clone(&self.0), tell })
    }
}

impl<T> Flight<T> {
    /// Tells everybody the answer; `spent`: it is the last one that this code gets.
    pub(super) fn land(self, answer: T, spent: Option<Instant>) {
        if let Some(now) = spent {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.spent.insert(self.code, now);
            known.order.push_back(self.code);
        }
        self.tell.send_replace(Some(answer));
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).asked.remove(&self.code);
    }
}

impl<T> Known<T> {
    /// Forgets the codes whose time is over, and the oldest where there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let over = self.spent.get(oldest).is_none_or(|since| now.saturating_duration_since(*since) >= REMEMBERED);
            if !over && self.order.len() < MOST_SPENT {
                return;
            }
            self.spent.remove(oldest);
            self.order.pop_front();
        }
    }
}

impl<T> std::fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(flights: &Flights<u32>, code: &str, now: Instant) -> Flight<u32> {
        match flights.board(code, now) {
            Boarding::Lead(flight) => flight,
            _ => panic!("{code} is known"),
        }
    }

    #[test]
    fn whoever_comes_meanwhile_gets_the_same_answer_and_later_ones_a_refusal() {
        let (flights, now) = (Flights::default(), Instant::now());
        let flight = lead(&flights, "a", now);
        let Boarding::Follow(answer) = flights.board("a", now) else { panic!("not asked") };
        let other = lead(&flights, "b", now);
        flight.land(7, Some(now));
        assert_eq!(*answer.borrow(), Some(7));
        assert!(matches!(flights.board("a", now + REMEMBERED - Duration::from_millis(1)), Boarding::Spent));
        assert!(matches!(flights.board("a", now + REMEMBERED), Boarding::Lead(_)));
        drop(other);
    }

    #[test]
    fn without_a_last_answer_a_code_can_be_tried_again() {
        let (flights, now) = (Flights::default(), Instant::now());
        lead(&flights, "a", now).land(503, None);
        let gone = lead(&flights, "a", now);
        let Boarding::Follow(answer) = flights.board("a", now) else { panic!("not asked") };
        drop(gone);
        assert!(answer.has_changed().is_err(), "nobody will answer");
        drop(lead(&flights, "a", now));
    }

    #[test]
    fn neither_questions_nor_memories_grow_without_end() {
        let (flights, now) = (Flights::default(), Instant::now());
        let asked: Vec<_> = (0..MOST_ASKED).map(|n| lead(&flights, &n.to_string(), now)).collect();
        assert!(matches!(flights.board("more", now), Boarding::Full));
        drop(asked);
        for n in 0..MOST_SPENT + 10 {
            lead(&flights, &n.to_string(), now).land(0, Some(now));
        }
        let known = flights.0.lock().unwrap();
        assert_eq!((known.spent.len(), known.order.len(), known.asked.len()), (MOST_SPENT, MOST_SPENT, 0));
    }
}
