//! Nonces that have been spent: each is accepted once, over all workers.
//!
//! A nonce is kept until its request's timestamp is too old to be accepted, and never forgotten
//! before: when there is no room for another one, signed requests are refused. Only a request whose
//! signature holds gets here, so strangers can fill nothing. [`Memory`] is always there; a store, if
//! there is one, is asked first and decides between gateways, and what it lets pass is remembered
//! here as well, so that a store that lost something cannot make this process accept it again.
//!
//! What neither can know is what was accepted before the one that decides began, or lost what it
//! had. An unsafe request may therefore be dated ahead of the clock by no more than [`LEAD`], and is
//! refused unless it is dated later than that moment by more than `LEAD`: whatever was accepted
//! before it is not. A safe request may be repeated then, as the word says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::Step;
use crate::check::Store;
use crate::check::clock::{now, seconds};
use crate::http::hex;

/// Seconds that an unsafe request may be ahead of the clock. For as long unsafe requests of a client whose clock
/// is right are refused after a start or a failover.
pub(super) const LEAD: u64 = 5;
/// A store keeps nonces for longer than a request can be good, by what clocks of gateways may differ.
const SPARE: Duration = Duration::from_secs(60);
/// What comes before a nonce in a store.
const PREFIX: &str = "strangler:nonce:";

/// A power of two, so that workers seldom meet.
const SHARDS: usize = 32;

/// A nonce of one app, as it is kept.
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

/// Nonces in memory, shared by all workers and all checks.
#[derive(Debug)]
pub(crate) struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    /// Seconds after its timestamp for which a request may be acceptable: to the most generous check there was.
    window: AtomicU64,
    /// When the process began to remember, in seconds since 1970.
    since: u64,
}

#[derive(Debug, Default)]
struct Shard {
    marks: HashSet<Mark>,
    /// By the timestamps of their requests.
    oldest: BinaryHeap<Reverse<(u64, Mark)>>,
    /// Something with a timestamp before this one has been forgotten.
    forgotten: u64,
}

/// What a request is spent by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spending {
    pub(super) mark: Mark,
    pub(super) timestamp: u64,
    /// Its method is a safe one.
    pub(super) safe: bool,
    /// The time by which the timestamp was found good.
    pub(super) now: u64,
}

/// What is done while the store cannot be asked, or takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStoreDown {
    /// All are refused.
    Deny,
    /// What this process remembers decides.
    Memory,
}

/// Nonces that have been spent, wherever they are kept.
#[derive(Debug)]
pub(super) struct Nonces {
    memory: Arc<Memory>,
    /// Marks that one part of the memory may hold.
    most: usize,
    store: Option<Store>,
    on_store_down: OnStoreDown,
    window: u64,
    /// The store was asked for nothing before this second: it took the place of another one.
    asked_since: u64,
}

impl Nonces {
    /// `memory` is that of all checks: what one has accepted, none accepts again. It is to hold no more than `capacity`.
    pub(super) fn new(
        memory: Arc<Memory>,
        capacity: usize,
        store: Option<Store>,
        on_store_down: OnStoreDown,
        window: Duration,
        running: Option<&Self>,
    ) -> Self {
        memory.keep_for(window.as_secs());
        let address = |store: &Store| store.backend().address().clone();
        let asked_since = match running {
            Some(old) if old.store.as_ref().map(address) == store.as_ref().map(address) => old.asked_since,
            Some(_) => now(),
            None => 0,
        };
        Self { memory, most: most(capacity), store, on_store_down, window: window.as_secs(), asked_since }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Spends the nonce of a request that is good in every other way.
    pub(super) async fn spend(&self, spending: Spending) -> Result<(), Step> {
        let Spending { mark, timestamp, safe, now } = spending;
        if !safe && timestamp > now.saturating_add(LEAD) {
            return Err(Step::Future);
        }
        let whole_since = self.spend_in_store(mark).await?;
        // Asked after the store has answered: only then is it known which one did.
        if !safe && timestamp <= whole_since.saturating_add(LEAD) {
            return Err(Step::Restarted);
        }
        match self.memory.spend(mark, timestamp, now, self.most) {
            Spent::Now => Ok(()),
            Spent::Before => Err(Step::Replay),
            Spent::Forgotten => Err(Step::Stale),
            Spent::Full => Err(Step::NoncesFull),
        }
    }

    /// Spends it for all gateways, and says since when whoever decided has known all that was accepted.
    async fn spend_in_store(&self, mark: Mark) -> Result<u64, Step> {
        let Some(store) = &self.store else { return Ok(self.memory.since) };
        let key = format!("{PREFIX}{}", hex::text(&mark.to_be_bytes()));
        // Good until the window is over, from a timestamp that is ahead by as much.
        let ttl = Duration::from_secs(self.window.saturating_mul(2)).saturating_add(SPARE);
        match (store.set_if_absent(&key, ttl).await, self.on_store_down) {
            (Ok(true), _) => Ok(seconds(store.whole_since()).max(self.asked_since)),
            (Ok(false), _) => Err(Step::Replay),
            (Err(_), OnStoreDown::Memory) => Ok(self.memory.since),
            (Err(_), OnStoreDown::Deny) => Err(Step::StoreDown),
        }
    }
}

/// What an app does once. Lengths keep the two apart.
pub(super) fn mark(app: &str, once: &[u8]) -> Mark {
    let mut context = Context::new(&SHA256);
    context.update(&(app.len() as u64).to_le_bytes());
    context.update(app.as_bytes());
    context.update(once);
    let digest = context.finish();
    digest.as_ref().first_chunk().map_or(0, |first| Mark::from_le_bytes(*first))
}

impl Memory {
    /// It begins to remember at `now`.
    pub(crate) fn new(now: u64) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), window: AtomicU64::new(0), since: now }
    }

    /// Nothing is forgotten from now on that a check with this window could accept.
    fn keep_for(&self, window: u64) {
        self.window.fetch_max(window, Ordering::Relaxed);
    }

    /// Spends the nonce of a request with this timestamp, if a part of the memory has to hold no more than `most`.
    fn spend(&self, mark: Mark, timestamp: u64, now: u64, most: usize) -> Spent {
        let index = usize::try_from(mark % SHARDS as Mark).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else { return Spent::Full };
        let since = now.saturating_sub(self.window.load(Ordering::Relaxed));
        // Held for a few instructions, and shared with one in thirty-two others.
        shard.lock().unwrap_or_else(PoisonError::into_inner).spend(mark, timestamp, since, most)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().marks.len()).sum()
    }
}

fn most(capacity: usize) -> usize {
    capacity.div_ceil(SHARDS)
}

impl Shard {
    /// Forgets what is older than `since`, and spends.
    fn spend(&mut self, mark: Mark, timestamp: u64, since: u64, most: usize) -> Spent {
        while let Some(Reverse((at, old))) = self.oldest.peek().copied().filter(|Reverse((at, _))| *at < since) {
            self.oldest.pop();
            self.marks.remove(&old);
            self.forgotten = self.forgotten.max(at.saturating_add(1));
        }
        if self.marks.contains(&mark) {
            return Spent::Before;
        }
        // A clock that was set back, or a window that grew, would otherwise revive what had been outlived.
        if timestamp < self.forgotten {
            return Spent::Forgotten;
        }
        if self.marks.len() >= most {
            return Spent::Full;
        }
        self.marks.insert(mark);
        self.oldest.push(Reverse((timestamp, mark)));
        Spent::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    fn memory(window: u64) -> Memory {
        let memory = Memory::new(0);
        memory.keep_for(window);
        memory
    }

    #[test]
    fn a_nonce_is_spent_once_and_may_come_back_when_its_time_is_over() {
        let nonces = memory(300);
        let nonce = mark("shop-app", b"n-1");
        assert_eq!(nonces.spend(nonce, 100, 100, MOST), Spent::Now);
        assert_eq!(nonces.spend(nonce, 100, 100, MOST), Spent::Before);
        assert_eq!(nonces.spend(nonce, 400, 400, MOST), Spent::Before);
        assert_eq!(nonces.spend(nonce, 401, 401, MOST), Spent::Now);
        assert_eq!(nonces.len(), 1);
    }

    #[test]
    fn a_nonce_belongs_to_its_app() {
        assert_ne!(mark("a", b"bc"), mark("ab", b"c"));
        assert_ne!(mark("shop-app", b"n"), mark("till", b"n"));
    }

    #[test]
    fn a_full_store_refuses_and_forgets_nothing() {
        let nonces = memory(300);
        let marks = || (0..SHARDS as Mark).chain(SHARDS as Mark..2 * SHARDS as Mark);
        let first: Vec<_> = marks().map(|mark| nonces.spend(mark, 100, 100, 1)).collect();
        assert_eq!(first.iter().filter(|spent| **spent == Spent::Now).count(), SHARDS);
        assert_eq!(first.iter().filter(|spent| **spent == Spent::Full).count(), SHARDS);
        assert!((0..SHARDS as Mark).all(|mark| nonces.spend(mark, 100, 100, 1) == Spent::Before));
        assert_eq!(nonces.spend(SHARDS as Mark, 500, 401, 1), Spent::Now);
    }

    #[test]
    fn a_clock_set_back_revives_nothing() {
        let nonces = memory(300);
        assert_eq!(nonces.spend(0, 100, 100, MOST), Spent::Now);
        // An hour ahead, and back.
        assert_eq!(nonces.spend(SHARDS as Mark, 4100, 4000, MOST), Spent::Now);
        assert_eq!(nonces.spend(0, 100, 100, MOST), Spent::Forgotten);
    }

    #[test]
    fn of_a_thousand_at_once_one_is_the_first() {
        let nonces = memory(300);
        let spent = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..125).filter(|_| nonces.spend(7, 100, 100, MOST) == Spent::Now).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(spent, 1);
    }

    #[test]
    fn a_window_that_grows_revives_nothing_and_keeps_what_is_left_for_longer() {
        let nonces = memory(300);
        assert_eq!(nonces.spend(0, 100, 100, MOST), Spent::Now);
        assert_eq!(nonces.spend(SHARDS as Mark, 200, 200, MOST), Spent::Now);
        assert_eq!(nonces.spend(2 * SHARDS as Mark, 401, 401, MOST), Spent::Now, "the first is forgotten");
        nonces.keep_for(600);
        assert_eq!(nonces.spend(0, 100, 402, MOST), Spent::Forgotten);
        assert_eq!(nonces.spend(SHARDS as Mark, 200, 600, MOST), Spent::Before);
    }
}
