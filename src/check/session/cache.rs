//! What was found of sessions a moment ago: shared by all workers, bounded, short-lived.
//!
//! While a session is read nobody else reads it: whoever comes meanwhile gets the same answer. A
//! session that was ended is not only forgotten: the answer of a reading which began before its end
//! is kept no more and given to nobody who comes after, and for a while each reads it for himself,
//! since PHP may write down only now what its answer has already announced.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Finding;
use crate::check::store::StoreError;
use crate::check::tally::Tally;

/// So many parts, each with a lock of its own that is held for one look-up.
const SHARDS: usize = 64;
/// Sessions in one part.
const SHARD_ENTRIES: usize = 512;
/// How long nothing is kept of an ended session: longer than PHP takes to write down what it announced.
const ENDED: Duration = Duration::from_secs(1);
/// The places of what is counted: nothing had to be read, and something had to.
const HITS: usize = 0;
const MISSES: usize = 1;
/// Most that wait for one reading.
const MOST_FOLLOWERS: usize = 1024;

type Shard = HashMap<Box<str>, Entry>;

#[derive(Debug)]
pub(super) struct Cache {
    lifetime: Duration,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    figures: Tally<2>,
}

/// What the store said of a session.
type Answer = Result<Finding, StoreError>;

#[derive(Debug)]
enum Entry {
    Found { finding: Finding, until: Instant },
    Ended { until: Instant },
    Asked { answer: watch::Receiver<Option<Answer>>, followers: usize },
}

/// What there is of a session here.
#[derive(Debug)]
pub(super) enum Look<'c> {
    Found(Finding),
    /// Read it, and tell the others.
    Lead(Flight<'c>),
    /// Wait for whoever reads it. An end without an answer means that there is none.
    Follow(watch::Receiver<Option<Answer>>),
    /// Read it for yourself: nothing is kept of it, or too many wait already.
    Alone,
}

/// The one reading of a session. Dropped without an answer, somebody else may lead.
#[derive(Debug)]
pub(super) struct Flight<'c> {
    cache: &'c Cache,
    id: Box<str>,
    tell: watch::Sender<Option<Answer>>,
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

    pub(super) fn look(&self, id: &str, now: Instant) -> Look<'_> {
        let Some(mut shard) = self.shard(id) else { return Look::Alone };
        let look = match shard.get_mut(id) {
            Some(Entry::Found { finding, until }) if *until > now => Look::Found(finding.clone()),
            Some(Entry::Ended { until }) if *until > now => Look::Alone,
            Some(Entry::Asked { followers: MOST_FOLLOWERS.., .. }) => Look::Alone,
            Some(Entry::Asked { answer, followers }) => {
                *followers += 1;
                Look::Follow(answer.clone())
            }
            Some(Entry::Found { .. } | Entry::Ended { .. }) | None => {
                let (tell, answer) = watch::channel(None);
                if insert(&mut shard, id, Entry::Asked { answer, followers: 0 }, now) {
                    Look::Lead(Flight { cache: self, id: id.into(), tell })
                } else {
                    Look::Alone
                }
            }
        };
        drop(shard);
        let count = match look {
            Look::Found(_) | Look::Follow(_) => HITS,
            Look::Lead(_) | Look::Alone => MISSES,
        };
        self.figures.add(count, 1);
        look
    }

    pub(super) fn end(&self, id: &str, now: Instant) {
        if let Some(mut shard) = self.shard(id) {
            insert(&mut shard, id, Entry::Ended { until: now + ENDED }, now);
        }
    }

    /// How often nothing had to be read for a request, and how often something had to.
    pub(super) fn totals(&self) -> (u64, u64) {
        let [hits, misses] = self.figures.totals();
        (hits, misses)
    }

    fn shard(&self, id: &str) -> Option<MutexGuard<'_, Shard>> {
        let at = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).ok()?;
        Some(self.shards.get(at)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Flight<'_> {
    /// Tells the others the answer, and keeps what was found unless the session has been ended meanwhile.
    pub(super) fn land(self, answer: Answer, now: Instant) {
        if let (Some(mut shard), Ok(finding)) = (self.cache.shard(&self.id), &answer)
            && let Some(entry) = shard.get_mut(&self.id).filter(|entry| self.is(entry))
        {
            *entry = Entry::Found { finding: finding.clone(), until: now + self.cache.lifetime };
        }
        self.tell.send_replace(Some(answer));
    }

    /// Whether an entry is this reading, and not one that began after the session was ended.
    fn is(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Asked { answer, .. } if answer.same_channel(&self.tell.subscribe()))
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(mut shard) = self.cache.shard(&self.id)
            && shard.get(&self.id).is_some_and(|entry| self.is(entry))
        {
            shard.remove(&self.id);
        }
    }
}

/// Whether there was room.
fn insert(shard: &mut Shard, id: &str, entry: Entry, now: Instant) -> bool {
    if shard.len() >= SHARD_ENTRIES && !shard.contains_key(id) {
        shard.retain(|_, entry| match entry {
            Entry::Found { until, .. } | Entry::Ended { until } => *until > now,
            Entry::Asked { .. } => true,
        });
        if shard.len() >= SHARD_ENTRIES {
            // Each costs one reading. What was ended stays: to forget that could let somebody in.
            shard.retain(|_, entry| !matches!(entry, Entry::Found { .. }));
        }
        if shard.len() >= SHARD_ENTRIES {
            return false;
        }
    }
    shard.insert(id.into(), entry);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Finding = Finding::Nobody("unknown");

    fn lead<'c>(cache: &'c Cache, id: &str, now: Instant) -> Flight<'c> {
        match cache.look(id, now) {
            Look::Lead(flight) => flight,
            other => panic!("{id}: {other:?}"),
        }
    }

    fn follow(cache: &Cache, id: &str, now: Instant) -> watch::Receiver<Option<Answer>> {
        match cache.look(id, now) {
            Look::Follow(answer) => answer,
            other => panic!("{id}: {other:?}"),
        }
    }

    #[test]
    fn a_finding_is_kept_for_its_time_also_that_there_is_nobody() {
        let (cache, now) = (Cache::new(Duration::from_secs(1)), Instant::now());
        lead(&cache, "a", now).land(Ok(NOBODY), now);
        assert!(matches!(cache.look("a", now), Look::Found(NOBODY)));
        drop(lead(&cache, "a", now + Duration::from_secs(1)));
        assert_eq!(cache.totals(), (1, 2));
        let off = Cache::new(Duration::ZERO);
        assert!(matches!(off.look("a", now), Look::Alone));
    }

    #[test]
    fn whoever_comes_while_a_session_is_read_gets_the_same_answer() {
        let (cache, now) = (Cache::new(Duration::from_secs(1)), Instant::now());
        let flight = lead(&cache, "a", now);
        let other = lead(&cache, "b", now);
        let answer = follow(&cache, "a", now);
        flight.land(Ok(NOBODY), now);
        assert_eq!(*answer.borrow(), Some(Ok(NOBODY)));
        let answer = follow(&cache, "b", now);
        other.land(Err(StoreError::Down), now);
        assert_eq!(*answer.borrow(), Some(Err(StoreError::Down)), "that there is no answer is shared too");
        drop(lead(&cache, "b", now));
    }

    #[test]
    fn where_the_reader_goes_away_another_one_reads() {
        let (cache, now) = (Cache::new(Duration::from_secs(1)), Instant::now());
        let flight = lead(&cache, "a", now);
        let answers = [follow(&cache, "a", now), follow(&cache, "a", now)];
        drop(flight);
        assert!(answers.iter().all(|answer| answer.has_changed().is_err()), "nobody will answer");
        let next = lead(&cache, "a", now);
        let answer = follow(&cache, "a", now);
        next.land(Ok(NOBODY), now);
        assert_eq!(*answer.borrow(), Some(Ok(NOBODY)));
    }

    #[test]
    fn a_reading_that_began_before_the_end_of_a_session_does_not_bring_it_back() {
        let (cache, now) = (Cache::new(Duration::from_secs(60)), Instant::now());
        let before = lead(&cache, "a", now);
        cache.end("a", now);
        assert!(matches!(cache.look("a", now), Look::Alone), "nobody waits for its answer");
        let later = now + ENDED;
        let after = lead(&cache, "a", later);
        before.land(Ok(NOBODY), later);
        let answer = follow(&cache, "a", later);
        after.land(Ok(Finding::Unclear), later);
        assert_eq!(*answer.borrow(), Some(Ok(Finding::Unclear)));
        assert!(matches!(cache.look("a", later), Look::Found(Finding::Unclear)));
    }

    #[test]
    fn it_is_bounded_and_never_forgets_an_end() {
        let (cache, now) = (Cache::new(Duration::from_secs(60)), Instant::now());
        cache.end("ended", now);
        for n in 0..100_000 {
            if let Look::Lead(flight) = cache.look(&format!("id{n}"), now) {
                flight.land(Ok(NOBODY), now);
            }
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * SHARD_ENTRIES, "{held}");
        assert!(matches!(cache.look("ended", now), Look::Alone));
        let _read = lead(&cache, "read", now);
        let waiting: Vec<_> = (0..MOST_FOLLOWERS).map(|_| follow(&cache, "read", now)).collect();
        assert!(matches!(cache.look("read", now), Look::Alone), "{} wait", waiting.len());
    }
}
