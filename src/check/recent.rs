//! What was found a moment ago: a map that forgets by itself and never grows past its bound.
//!
//! Two halves: what is new goes into the young one; when that is full it becomes the old one, and the
//! old one goes. So nothing is ever searched for a victim, and what is asked for often stays.
//! Keys are digests: no token is kept. One worker's own; nobody waits for it.

use std::collections::HashMap;
use std::time::Instant;

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// Values that hold for a while.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    half: usize,
    young: HashMap<Digest, (Instant, V)>,
    old: HashMap<Digest, (Instant, V)>,
}

impl<V: Clone> Recent<V> {
    /// Room for `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self { half: most.div_ceil(2), young: HashMap::new(), old: HashMap::new() }
    }

    /// What is known under `key` and still holds.
    pub(crate) fn get(&mut self, key: &Digest, now: Instant) -> Option<V> {
        if let Some((until, value)) = self.young.get(key) {
            return (*until > now).then(|| value.clone());
        }
        let (until, value) = self.old.remove(key)?;
        if until <= now {
            return None;
        }
        self.put(*key, until, value.clone());
        Some(value)
    }

    /// Remembers `value` until then.
    pub(crate) fn put(&mut self, key: Digest, until: Instant, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
        }
        self.young.insert(key, (until, value));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_over_is_not_found() {
        let (mut recent, now) = (Recent::new(4), Instant::now());
        recent.put([1; 32], now + Duration::from_secs(1), "a");
        assert_eq!(recent.get(&[1; 32], now), Some("a"));
        assert_eq!(recent.get(&[2; 32], now), None);
        assert_eq!(recent.get(&[1; 32], now + Duration::from_secs(1)), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bound_and_keeps_what_is_asked_for() {
        let (mut recent, now) = (Recent::new(8), Instant::now());
        let until = now + Duration::from_secs(60);
        recent.put([255; 32], until, 255);
        for n in 0..200 {
            recent.put([n; 32], until, n);
            assert_eq!(recent.get(&[255; 32], now), Some(255), "{n}");
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.get(&[0; 32], now), None);
        recent.clear();
        assert_eq!(recent.get(&[255; 32], now), None);
    }
}
