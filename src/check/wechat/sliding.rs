//! Keeping a used session alive, without a write for every use.
//!
//! A session's time in the store is put back to its whole length when it is used and a tenth of that
//! has gone by since it last was. When that was is remembered per worker; a worker that has
//! forgotten, or never knew, extends once too often, which does no harm.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use thread_local::ThreadLocal;

/// Most sessions that a worker remembers.
const MOST: usize = 16_384;

/// When sessions were extended.
#[derive(Debug, Default)]
pub(crate) struct Sliding(ThreadLocal<RefCell<HashMap<Box<str>, Instant>>>);

impl Sliding {
    /// Whether a session that is used now is to be extended to `ttl`; if so, that it was is remembered.
    pub(crate) fn due(&self, id: &str, ttl: Duration, now: Instant) -> bool {
        let mut extended = self.0.get_or_default().borrow_mut();
        let tenth = ttl / 10;
        if extended.get(id).is_some_and(|last| now.saturating_duration_since(*last) < tenth) {
            return false;
        }
        if extended.len() >= MOST {
            extended.clear();
        }
        extended.insert(id.into(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_in_use_is_extended_ten_times_in_its_life() {
        let (sliding, start, ttl) = (Sliding::default(), Instant::now(), Duration::from_secs(100));
        let extended = (0..100).filter(|second| sliding.due("a", ttl, start + Duration::from_secs(*second))).count();
        assert_eq!(extended, 10);
        assert!(sliding.due("b", ttl, start));
    }

    #[test]
    fn a_worker_remembers_only_so_many() {
        let (sliding, now) = (Sliding::default(), Instant::now());
        for n in 0..2 * MOST {
            assert!(sliding.due(&n.to_string(), Duration::from_secs(100), now));
        }
        assert!(sliding.0.get_or_default().borrow().len() <= MOST);
    }
}
