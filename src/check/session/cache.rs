//! What was found of sessions a moment ago: shared by all workers, bounded, short-lived.
//!
//! A session that was ended is not only forgotten: for a while nothing is kept of it, so that a
//! reading which began before its end cannot bring it back, nor one that came before PHP wrote down
//! what its answer had already announced.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Finding;
use crate::check::tally::Tally;

/// So many parts, each with a lock of its own that is held for one look-up.
const SHARDS: usize = 64;
/// Sessions in one part.
const SHARD_ENTRIES: usize = 512;
/// How long nothing is kept of an ended session, at least: longer than any reading takes.
const ENDED: Duration = Duration::from_secs(1);
/// The places of what is counted: found here, and not found.
const HITS: usize = 0;
const MISSES: usize = 1;

type Shard = HashMap<Box<str>, Entry>;

#[derive(Debug)]
pub(super) struct Cache {
    lifetime: Duration,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    figures: Tally<2>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: it was ended.
    finding: Option<Finding>,
    until: Instant,
}

impl Cache {
    /// Without a lifetime it keeps nothing.
    pub(super) fn new(lifetime: Duration) -> Self {
        let shards = if lifetime.is_zero() { 0 } else { SHARDS };
        Self {
            lifetime,
            hasher: RandomState::new(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            figures: Tally::default(),
        }
    }

    pub(super) fn get(&self, id: &str, now: Instant) -> Option<Finding> {
        let shard = self.shard(id)?;
        let found = shard.get(id).filter(|entry| entry.until > now).and_then(|entry| entry.finding.clone());
        drop(shard);
        self.figures.add(if found.is_some() { HITS } else { MISSES }, 1);
        found
    }

    /// Keeps what was found, unless the session has been ended meanwhile.
    pub(super) fn keep(&self, id: &str, finding: Finding, now: Instant) {
        let Some(mut shard) = self.shard(id) else { return };
        if shard.get(id).is_some_and(|entry| entry.finding.is_none() && entry.until > now) {
            return;
        }
        insert(&mut shard, id, Entry { finding: Some(finding), until: now + self.lifetime }, now);
    }

    pub(super) fn end(&self, id: &str, now: Instant) {
        if let Some(mut shard) = self.shard(id) {
            insert(&mut shard, id, Entry { finding: None, until: now + ENDED }, now);
        }
    }

    /// How often something was found here, and how often not.
    pub(super) fn totals(&self) -> (u64, u64) {
        let [hits, misses] = self.figures.totals();
        (hits, misses)
    }

    fn shard(&self, id: &str) -> Option<MutexGuard<'_, Shard>> {
        let at = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).ok()?;
        Some(self.shards.get(at)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn insert(shard: &mut Shard, id: &str, entry: Entry, now: Instant) {
    if shard.len() >= SHARD_ENTRIES && !shard.contains_key(id) {
        shard.retain(|_, entry| entry.until > now);
        if shard.len() >= SHARD_ENTRIES {
            // Each costs one reading. What was ended stays: to forget that could let somebody in.
            shard.retain(|_, entry| entry.finding.is_none());
        }
        if shard.len() >= SHARD_ENTRIES {
            return;
        }
    }
    shard.insert(id.into(), entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Finding = Finding::Nobody("unknown");

    #[test]
    fn a_finding_is_kept_for_its_time_also_that_there_is_nobody() {
        let (cache, now) = (Cache::new(Duration::from_secs(1)), Instant::now());
        assert!(cache.get("a", now).is_none());
        cache.keep("a", NOBODY, now);
        assert!(matches!(cache.get("a", now), Some(NOBODY)));
        assert!(cache.get("a", now + Duration::from_secs(1)).is_none());
        assert_eq!(cache.totals(), (1, 2));
        let off = Cache::new(Duration::ZERO);
        off.keep("a", NOBODY, now);
        assert!(off.get("a", now).is_none());
    }

    #[test]
    fn a_reading_that_began_before_the_end_of_a_session_does_not_bring_it_back() {
        let (cache, now) = (Cache::new(Duration::from_secs(60)), Instant::now());
        cache.keep("a", NOBODY, now);
        cache.end("a", now);
        cache.keep("a", NOBODY, now);
        assert!(cache.get("a", now).is_none());
        cache.keep("a", NOBODY, now + ENDED);
        assert!(cache.get("a", now + ENDED).is_some());
    }

    #[test]
    fn it_is_bounded_and_never_forgets_an_end() {
        let (cache, now) = (Cache::new(Duration::from_secs(60)), Instant::now());
        cache.end("ended", now);
        (0..100_000).for_each(|n| cache.keep(&format!("id{n}"), NOBODY, now));
        let held: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * SHARD_ENTRIES, "{held}");
        cache.keep("ended", NOBODY, now);
        assert!(cache.get("ended", now).is_none());
    }
}
