//! A store in this process: bounded, shared by all workers, gone when the process ends.
//!
//! When it is full it takes nothing more until something expires: what it holds are sessions that
//! somebody logged in for and nonces that must not be forgotten, so nothing makes room for anything.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Failed;

/// So many parts, each with a lock of its own, that two workers seldom meet.
const SHARDS: usize = 64;
/// Bytes of one part, keys and bookkeeping included: 128 MiB in all.
const SHARD_BYTES: usize = 2 << 20;
/// What an entry takes beside its key and value, about.
const ENTRY_BYTES: usize = 96;

#[derive(Debug)]
pub(super) struct Memory {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Box<str>, Held>,
    bytes: usize,
    /// With so many entries the expired ones are looked for: twice as many as were left the last time.
    sweep_at: usize,
}

#[derive(Debug)]
struct Held {
    value: Bytes,
    until: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Memory {
    pub(super) fn read(&self, key: &str, now: Instant) -> Option<Bytes> {
        let shard = self.shard(key)?;
        shard.entries.get(key).filter(|held| held.until > now && !held.value.is_empty()).map(|held| held.value.clone())
    }

    pub(super) fn write(&self, key: &str, value: Bytes, ttl: Duration, now: Instant) -> Result<(), Failed> {
        let mut shard = self.shard(key).ok_or(Failed::Error)?;
        shard.remove(key);
        shard.insert(key, value, now + ttl, now)
    }

    pub(super) fn touch(&self, key: &str, ttl: Duration, now: Instant) {
        let mut shard = self.shard(key);
        if let Some(held) = shard.as_mut().and_then(|shard| shard.entries.get_mut(key)).filter(|held| held.until > now)
        {
            held.until = now + ttl;
        }
    }

    pub(super) fn delete(&self, key: &str) {
        if let Some(mut shard) = self.shard(key) {
            shard.remove(key);
        }
    }

    pub(super) fn set_if_absent(&self, key: &str, ttl: Duration, now: Instant) -> Result<bool, Failed> {
        let mut shard = self.shard(key).ok_or(Failed::Error)?;
        match shard.entries.get(key) {
            Some(held) if held.until > now => return Ok(false),
            Some(_) => shard.remove(key),
            None => {}
        }
        shard.insert(key, Bytes::new(), now + ttl, now).map(|()| true)
    }

    fn shard(&self, key: &str) -> Option<MutexGuard<'_, Shard>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).ok()?;
        Some(self.shards.get(hash)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn insert(&mut self, key: &str, value: Bytes, until: Instant, now: Instant) -> Result<(), Failed> {
        let needed = size(key, &value);
        if self.entries.len() >= self.sweep_at || self.bytes + needed > SHARD_BYTES {
            self.sweep(now);
        }
        if self.bytes + needed > SHARD_BYTES {
            return Err(Failed::Rejected);
        }
        if let Entry::Vacant(place) = self.entries.entry(key.into()) {
            place.insert(Held { value, until });
            self.bytes += needed;
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(held) = self.entries.remove(key) {
            self.bytes -= size(key, &held.value);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, held| {
            let lives = held.until > now;
            if !lives {
                *bytes -= size(key, &held.value);
            }
            lives
        });
        self.sweep_at = (self.entries.len() * 2).max(64);
    }
}

fn size(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_value_is_there_until_its_time_is_over() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.write("a", Bytes::from_static(b"1"), HOUR, now).unwrap();
        memory.write("a", Bytes::from_static(b"2"), HOUR, now).unwrap();
        assert_eq!(memory.read("a", now).as_deref(), Some(&b"2"[..]));
        assert_eq!((memory.read("a", now + HOUR), memory.read("b", now)), (None, None));
        memory.touch("a", HOUR * 2, now);
        assert!(memory.read("a", now + HOUR).is_some());
        memory.delete("a");
        assert_eq!(memory.read("a", now), None);
    }

    #[test]
    fn of_all_that_set_a_key_one_does_it() {
        let (memory, now) = (Memory::default(), Instant::now());
        let set: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter(|_| memory.set_if_absent("n", HOUR, now).unwrap()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(set, 1);
        assert!(memory.set_if_absent("n", HOUR, now + HOUR).unwrap(), "it has expired");
    }

    #[test]
    fn it_is_bounded_and_what_expired_makes_room() {
        let (memory, now) = (Memory::default(), Instant::now());
        let value = Bytes::from(vec![0; 64 << 10]);
        let full =
            |now| (0..10_000).map(|n| memory.write(&format!("k{n}"), value.clone(), HOUR, now)).any(|w| w.is_err());
        assert!(full(now));
        assert!(memory.shards.iter().all(|shard| shard.lock().unwrap().bytes <= SHARD_BYTES));
        assert!(memory.write("fresh", value.clone(), HOUR, now + HOUR).is_ok());
        for n in 0..100_000 {
            memory
                .set_if_absent(&format!("n{n}"), Duration::from_millis(1), now + HOUR * 2 + Duration::from_millis(n))
                .unwrap();
        }
        let held: usize = memory.shards.iter().map(|shard| shard.lock().unwrap().entries.len()).sum();
        assert!(held < 10_000, "{held} entries are left of what expired");
    }
}
