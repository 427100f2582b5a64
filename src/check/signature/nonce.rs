//! Nonces that have been spent: each is accepted once, over all workers.
//!
//! A nonce is kept until its request's timestamp is too old to be accepted, and never forgotten
//! before: when there is no room for another one, signed requests are refused. Only a request whose
//! signature holds gets here, so strangers can fill nothing. What is in memory does not survive the
//! process: [`Memory::knows_all_since`] says from when on this store can vouch for a nonce.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// A power of two, so that workers seldom meet.
const SHARDS: usize = 32;

/// A nonce of one key, as it is kept.
pub(super) type Mark = u128;

/// What became of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// It had not been seen.
    Now,
    /// It had.
    Before,
    /// It cannot be said any more: the clock has been later, and what was kept until then is gone.
    Forgotten,
    /// There is no room to remember another one.
    Full,
}

/// Nonces in memory, shared by all workers.
#[derive(Debug)]
pub(super) struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    /// Marks that one shard may hold.
    most: usize,
    /// When the process began to remember, in seconds since 1970.
    since: u64,
}

#[derive(Debug, Default)]
struct Shard {
    marks: HashSet<Mark>,
    ends: BinaryHeap<Reverse<(u64, Mark)>>,
    /// Everything that ended before this second has been forgotten.
    forgotten: u64,
}

/// The nonce of a key. Lengths keep the two apart.
pub(super) fn mark(key: &str, nonce: &[u8]) -> Mark {
    let mut context = Context::new(&SHA256);
    context.update(&(key.len() as u64).to_le_bytes());
    context.update(key.as_bytes());
    context.update(nonce);
    let digest = context.finish();
    digest.as_ref().first_chunk().map_or(0, |first| Mark::from_le_bytes(*first))
}

impl Memory {
    /// Room for `capacity` nonces; it begins to remember at `now`.
    pub(super) fn new(capacity: usize, now: u64) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), most: capacity.div_ceil(SHARDS), since: now }
    }

    /// Whether every nonce of that timestamp would have been seen by this store: what another process
    /// accepted before this one began is not known here.
    pub(super) fn knows_all_since(&self, timestamp: u64) -> bool {
        timestamp > self.since
    }

    /// Spends a nonce whose request is acceptable up to and including `until`.
    pub(super) fn spend(&self, mark: Mark, until: u64, now: u64) -> Spent {
        let index = usize::try_from(mark % SHARDS as Mark).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else { return Spent::Full };
        // Held for a few instructions, and shared with one in thirty-two others.
        shard.lock().unwrap_or_else(PoisonError::into_inner).spend(mark, until, now, self.most)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().marks.len()).sum()
    }
}

impl Shard {
    fn spend(&mut self, mark: Mark, until: u64, now: u64, most: usize) -> Spent {
        while let Some(Reverse((end, old))) = self.ends.peek().copied().filter(|Reverse((end, _))| *end < now) {
            self.ends.pop();
            self.marks.remove(&old);
            self.forgotten = self.forgotten.max(end + 1);
        }
        if self.marks.contains(&mark) {
            return Spent::Before;
        }
        // A clock that was set back would otherwise revive what it had outlived.
        if until < self.forgotten {
            return Spent::Forgotten;
        }
        if self.marks.len() >= most {
            return Spent::Full;
        }
        self.marks.insert(mark);
        self.ends.push(Reverse((until, mark)));
        Spent::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_spent_once_and_may_come_back_when_its_time_is_over() {
        let nonces = Memory::new(1000, 0);
        let nonce = mark("shop-app", b"n-1");
        assert_eq!(nonces.spend(nonce, 400, 100), Spent::Now);
        assert_eq!(nonces.spend(nonce, 400, 100), Spent::Before);
        assert_eq!(nonces.spend(nonce, 700, 400), Spent::Before);
        assert_eq!(nonces.spend(nonce, 701, 401), Spent::Now);
        assert_eq!(nonces.len(), 1);
    }

    #[test]
    fn a_nonce_belongs_to_its_key() {
        assert_ne!(mark("a", b"bc"), mark("ab", b"c"));
        assert_ne!(mark("shop-app", b"n"), mark("shop-app#2", b"n"));
    }

    #[test]
    fn a_full_store_refuses_and_forgets_nothing() {
        let nonces = Memory::new(SHARDS, 0);
        let marks = || (0..SHARDS as Mark).chain(SHARDS as Mark..2 * SHARDS as Mark);
        let first: Vec<_> = marks().map(|mark| nonces.spend(mark, 400, 100)).collect();
        assert_eq!(first.iter().filter(|spent| **spent == Spent::Now).count(), SHARDS);
        assert_eq!(first.iter().filter(|spent| **spent == Spent::Full).count(), SHARDS);
        assert!((0..SHARDS as Mark).all(|mark| nonces.spend(mark, 400, 100) == Spent::Before));
        assert_eq!(nonces.spend(SHARDS as Mark, 800, 401), Spent::Now);
    }

    #[test]
    fn a_clock_set_back_revives_nothing() {
        let nonces = Memory::new(1000, 0);
        assert_eq!(nonces.spend(0, 400, 100), Spent::Now);
        // An hour ahead, and back.
        assert_eq!(nonces.spend(SHARDS as Mark, 4400, 4000), Spent::Now);
        assert_eq!(nonces.spend(0, 400, 100), Spent::Forgotten);
    }

    #[test]
    fn of_a_thousand_at_once_one_is_the_first() {
        let nonces = Memory::new(1000, 0);
        let spent = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..125).filter(|_| nonces.spend(7, 400, 100) == Spent::Now).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(spent, 1);
    }

    #[test]
    fn a_restart_vouches_only_for_what_came_after_it() {
        let nonces = Memory::new(10, 100);
        assert!(!nonces.knows_all_since(99) && !nonces.knows_all_since(100) && nonces.knows_all_since(101));
    }
}
