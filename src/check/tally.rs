//! Counts that each thread keeps for itself, on cache lines of its own; whoever asks adds them up.

use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

/// `N` counts, known by their places.
#[derive(Debug)]
pub(super) struct Tally<const N: usize>(ThreadLocal<Own<N>>);

/// One thread's part.
#[derive(Debug)]
#[repr(align(128))]
struct Own<const N: usize>([AtomicU64; N]);

impl<const N: usize> Tally<N> {
    pub(super) fn add(&self, place: usize, by: u64) {
        let own = self.0.get_or(|| Own([const { AtomicU64::new(0) }; N]));
        if let Some(count) = own.0.get(place) {
            // One writer: a plain load and store, no locked instruction.
            count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    /// What all threads counted.
    pub(super) fn totals(&self) -> [u64; N] {
        let mut totals = [0_u64; N];
        for own in &self.0 {
            for (total, count) in totals.iter_mut().zip(&own.0) {
                *total = total.wrapping_add(count.load(Ordering::Relaxed));
            }
        }
        totals
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(ThreadLocal::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_threads_count_adds_up() {
        let tally = Tally::<2>::default();
        std::thread::scope(|scope| {
            for place in [0, 1, 1] {
                let tally = &tally;
                scope.spawn(move || (0..1_000).for_each(|_| tally.add(place, 1)));
            }
        });
        assert_eq!(tally.totals(), [1_000, 2_000]);
    }
}
