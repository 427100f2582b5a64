//! Log-linear histograms: how durations are counted, added up and asked for quantiles.
//!
//! Each doubling of the duration is cut into 32 equal parts, so that the middle of a part is never
//! further than 1.6 % from what was recorded, from 10 µs to nine minutes. A [`Histogram`] is written
//! by one worker and read by anyone; a [`Distribution`] is what a reader makes of several.
//! Pure: no clock, no names, no idea of what the durations are of.

use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Equal parts of one doubling.
const PARTS: usize = 32;
const PARTS_BITS: u32 = 5;
/// Doublings covered: the last one ends at 2^31 units, more than nine minutes.
const OCTAVES: usize = 27;
pub(super) const BUCKETS: usize = OCTAVES * PARTS;
/// One unit is 256 ns, fine enough for a value of 10 µs to be told to 1.6 %.
const UNIT_BITS: u32 = 8;

/// Parts on one line of the cache.
const LINE: usize = 8;

type Octave = [AtomicU64; PARTS];

/// Durations counted by one writer.
///
/// Only the thread that owns it may call [`Histogram::record`]: it loads and stores, since an atomic
/// addition costs more than all the rest. Octaves come into being when first met: a route's
/// durations lie in a few of them.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    octaves: [OnceLock<Box<Octave>>; OCTAVES],
    nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration. For the owning thread only.
    pub(crate) fn record(&self, duration: Duration) {
        let nanos = nanos(duration);
        let bucket = bucket_of(nanos);
        if let Some(octave) = self.octaves.get(bucket / PARTS) {
            let parts = octave.get_or_init(Box::default);
            if let Some(part) = parts.get(bucket % PARTS) {
                bump(part, 1);
            }
        }
        bump(&self.nanos, nanos);
    }

    /// Adds what was counted so far to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Distribution) {
        self.fetch();
        for (octave, sum) in self.octaves.iter().zip(&mut sum.octaves) {
            let Some(parts) = octave.get() else { continue };
            match sum {
                Some(sum) => sum.iter_mut().zip(&**parts).for_each(|(sum, part)| *sum += part.load(Ordering::Relaxed)),
                None => *sum = Some(Box::new(parts.each_ref().map(|part| part.load(Ordering::Relaxed)))),
            }
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.load(Ordering::Relaxed));
    }

    /// Has all that is there brought into the processor's cache at once. Whoever reads those of a thousand routes finds
    /// nearly nothing in it, and would else wait for one octave after the other.
    fn fetch(&self) {
        let lines = self.octaves.iter().filter_map(OnceLock::get).flat_map(|parts| parts.iter().step_by(LINE));
        std::hint::black_box(lines.fold(0, |touched, part| touched | part.load(Ordering::Relaxed)));
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The bucket of a duration; what is longer than the last bucket's end is counted there.
fn bucket_of(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    // Below the first doubling the parts are one unit wide each.
    let doubling = units.checked_ilog2().unwrap_or(0).saturating_sub(PARTS_BITS);
    let part = usize::try_from(units >> doubling).unwrap_or(usize::MAX);
    let octave = usize::try_from(doubling).unwrap_or(usize::MAX);
    // `part` is 32..64 from the first doubling on, 0..32 below it: the sum leaves no gap.
    octave.saturating_mul(PARTS).saturating_add(part).min(BUCKETS - 1)
}

/// Where a bucket begins, and how wide it is, in nanoseconds.
fn span_of(bucket: usize) -> (u64, u64) {
    let octave = bucket / PARTS;
    let (doubling, part) = if octave == 0 { (0, bucket) } else { (octave - 1, bucket % PARTS + PARTS) };
    ((part as u64) << doubling << UNIT_BITS, 1 << doubling << UNIT_BITS)
}

/// The duration that stands for a bucket: its middle, in nanoseconds.
pub(super) fn middle_of(bucket: usize) -> u64 {
    let (start, width) = span_of(bucket);
    start + width / 2
}

fn edges_of(bucket: usize) -> (Duration, Duration) {
    let (start, width) = span_of(bucket);
    (Duration::from_nanos(start), Duration::from_nanos(start + width))
}

/// Durations of several writers, or of one span of time, added up.
///
/// Of these too only the octaves are there that something was added to: what reads thousands of them
/// is as fast as they are narrow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution {
    octaves: [Option<Box<[u64; PARTS]>>; OCTAVES],
    nanos: u64,
}

impl Distribution {
    /// How many durations it holds.
    pub(crate) fn count(&self) -> u64 {
        self.octaves.iter().flatten().flat_map(|parts| **parts).sum()
    }

    /// All durations added up; exact, unlike the quantiles.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The mean; `None` when it is empty.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.nanos.checked_div(self.count()).map(Duration::from_nanos)
    }

    /// The duration that the share `q` (0 to 1) of all does not exceed; `None` when it is empty.
    pub(crate) fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count);
        Some(Duration::from_nanos(middle_of(self.bucket_at(rank)?)))
    }

    /// The bucket of the duration that has `rank` (from 1) in order.
    fn bucket_at(&self, rank: u64) -> Option<usize> {
        let mut before = 0;
        for (octave, parts) in self.octaves.iter().enumerate() {
            let Some(parts) = parts else { continue };
            let within = before + parts.iter().sum::<u64>();
            if within >= rank {
                let part = parts.iter().position(|count| {
                    before += count;
                    rank > 0 && before >= rank
                });
                return part.map(|part| octave * PARTS + part);
            }
            before = within;
        }
        None
    }

    /// How many durations lie before each of the buckets `ends`, which rise, and how many there are in all.
    pub(super) fn before<const N: usize>(&self, ends: &[usize; N]) -> ([u64; N], u64) {
        let mut before = [0; N];
        let mut open = before.iter_mut().zip(ends).peekable();
        let mut count = 0;
        for (first, parts) in (0..).step_by(PARTS).zip(&self.octaves) {
            let Some(parts) = parts else { continue };
            while let Some((before, end)) = open.next_if(|(_, end)| **end < first + PARTS) {
                *before = count + parts.iter().take(end.saturating_sub(first)).sum::<u64>();
            }
            count += parts.iter().sum::<u64>();
        }
        open.for_each(|(before, _)| *before = count);
        (before, count)
    }

    /// The duration that has `rank` (from 1) in order, as the edges of its bucket: the truth lies between.
    pub(crate) fn at_rank(&self, rank: u64) -> Option<(Duration, Duration)> {
        self.bucket_at(rank).map(edges_of)
    }

    /// Mean and variance in seconds; `None` of less than two.
    pub(crate) fn moments(&self) -> Option<Moments> {
        let count = self.count();
        if count < 2 {
            return None;
        }
        let n = count as f64;
        let mean = self.sum().as_secs_f64() / n;
        let squares = self.filled().map(|(bucket, count)| {
            let off = Duration::from_nanos(middle_of(bucket)).as_secs_f64() - mean;
            count as f64 * off * off
        });
        Some(Moments { mean, variance: squares.sum::<f64>() / (n - 1.0) })
    }

    /// The buckets that something fell into, each with its edges.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> {
        self.filled().map(|(bucket, count)| {
            let (from, to) = edges_of(bucket);
            (from, to, count)
        })
    }

    /// Adds all of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (octave, more) in self.octaves.iter_mut().zip(&other.octaves) {
            let Some(more) = more else { continue };
            for (count, more) in octave.get_or_insert_default().iter_mut().zip(&**more) {
                *count += more;
            }
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
    }

    /// Adds what was packed.
    pub(crate) fn add_packed(&mut self, packed: &Packed) {
        for (bucket, more) in packed.filled() {
            if let Some(octave) = self.octaves.get_mut(bucket / PARTS)
                && let Some(count) = octave.get_or_insert_default().get_mut(bucket % PARTS)
            {
                *count += more;
            }
        }
        self.nanos = self.nanos.wrapping_add(packed.nanos);
    }

    /// Takes an earlier reading of the same writers away: what is left came since.
    pub(crate) fn subtract(&mut self, earlier: &Packed) {
        for (bucket, less) in earlier.filled() {
            if let Some(Some(octave)) = self.octaves.get_mut(bucket / PARTS)
                && let Some(count) = octave.get_mut(bucket % PARTS)
            {
                *count = count.saturating_sub(less);
            }
        }
        self.nanos = self.nanos.wrapping_sub(earlier.nanos);
    }

    /// The same in little room, to be kept.
    pub(crate) fn pack(&self) -> Packed {
        let mut bytes = Vec::with_capacity(BUCKETS);
        let mut next = 0;
        for (bucket, count) in self.filled() {
            push_number(&mut bytes, (bucket - next) as u64);
            push_number(&mut bytes, count);
            next = bucket + 1;
        }
        Packed { bytes: bytes.into(), nanos: self.nanos }
    }

    /// The buckets that something fell into, in order, by their numbers.
    pub(super) fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let octaves = self.octaves.iter().enumerate().filter_map(|(octave, parts)| Some((octave, parts.as_deref()?)));
        octaves.flat_map(|(octave, parts)| {
            let counts = parts.iter().enumerate().filter(|(_, count)| **count > 0);
            counts.map(move |(part, count)| (octave * PARTS + part, *count))
        })
    }
}

/// What a mean and its uncertainty are made of, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) variance: f64,
}

/// A [`Distribution`] with only the buckets that something fell into, about two bytes each: for every one
/// how many empty ones stand before it, and its count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    nanos: u64,
}

impl Packed {
    /// All durations added up.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The buckets that something fell into, in order, by their numbers.
    pub(super) fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut bytes = self.bytes.iter().copied();
        let mut next = 0_usize;
        iter::from_fn(move || {
            let (gap, count) = (number(&mut bytes)?, number(&mut bytes)?);
            let bucket = next.saturating_add(usize::try_from(gap).unwrap_or(usize::MAX));
            next = bucket.saturating_add(1);
            Some((bucket, count))
        })
    }

    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7F).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MICROSECOND: u64 = 1_000;
    const MINUTE: u64 = 60_000_000_000;

    fn recorded(nanos: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        for nanos in nanos {
            histogram.record(Duration::from_nanos(*nanos));
        }
        let mut distribution = Distribution::default();
        histogram.add_to(&mut distribution);
        distribution
    }

    proptest! {
        #[test]
        fn a_duration_from_ten_microseconds_to_a_minute_is_told_to_two_percent(nanos in 10 * MICROSECOND..=MINUTE) {
            let told = middle_of(bucket_of(nanos)) as f64;
            prop_assert!((told - nanos as f64).abs() <= 0.02 * nanos as f64, "{nanos} ns is told as {told}");
        }

        #[test]
        fn a_longer_duration_never_falls_into_an_earlier_bucket(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(a <= b || bucket_of(a) >= bucket_of(b), true);
        }

        #[test]
        fn quantiles_are_within_two_percent_of_the_exact_ones(
            mut load in prop::collection::vec(10 * MICROSECOND..=MINUTE, 1..500),
            q in 0.0f64..=1.0,
        ) {
            let told = recorded(&load).quantile(q).unwrap().as_nanos() as f64;
            load.sort_unstable();
            // The smallest duration that at least the share q does not exceed.
            let enough = |at: &usize| (at + 1) as f64 >= load.len() as f64 * q;
            let exact = load[(0..load.len()).find(enough).unwrap_or(load.len() - 1)] as f64;
            prop_assert!((told - exact).abs() <= 0.02 * exact, "q {q}: {told} instead of {exact}");
        }

        #[test]
        fn readings_that_were_packed_add_up_and_take_away_exactly(
            first in prop::collection::vec(0..=MINUTE, 0..50),
            second in prop::collection::vec(0..=MINUTE, 0..50),
        ) {
            let earlier = recorded(&first).pack();
            let later = recorded(&[&*first, &*second].concat());
            let mut since = later.clone();
            since.subtract(&earlier);
            prop_assert_eq!(since.pack(), recorded(&second).pack());
            let mut sum = Distribution::default();
            sum.add_packed(&earlier);
            sum.add_packed(&since.pack());
            prop_assert_eq!(sum.pack(), later.pack());
        }
    }

    #[test]
    fn every_bucket_stands_for_itself() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
    }

    #[test]
    fn what_is_longer_than_the_scale_is_counted_at_its_end() {
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(recorded(&[u64::MAX]).count(), 1);
    }

    #[test]
    fn what_lies_before_a_bucket_is_what_lies_in_those_before_it() {
        let distribution = recorded(&[500, 500_000, 900_000, 5_000_000, 50_000_000, 60_000_000, u64::MAX]);
        let filled: Vec<_> = distribution.filled().collect();
        let ends = std::array::from_fn::<_, BUCKETS, _>(|bucket| bucket);
        let (before, count) = distribution.before(&ends);
        for (end, before) in ends.into_iter().zip(before) {
            let counted: u64 = filled.iter().filter(|(bucket, _)| *bucket < end).map(|(_, count)| count).sum();
            assert_eq!(before, counted, "bucket {end}");
        }
        assert_eq!(count, distribution.count());
    }

    #[test]
    fn what_a_bucket_stands_for_lies_between_its_edges() {
        for nanos in [0, 300, 10_000, 20_000_000, MINUTE] {
            let (from, to) = recorded(&[nanos]).at_rank(1).unwrap();
            assert!(from <= Duration::from_nanos(nanos) && Duration::from_nanos(nanos) < to);
            assert!(recorded(&[nanos]).buckets().eq([(from, to, 1)]));
        }
        assert_eq!((recorded(&[1]).at_rank(0), recorded(&[1]).at_rank(2)), (None, None));
    }

    #[test]
    fn moments_are_those_of_the_durations() {
        let moments = recorded(&[10_000_000, 20_000_000, 60_000_000]).moments().unwrap();
        assert!((moments.mean - 0.03).abs() < 1e-9 && (moments.variance.sqrt() - 0.02646).abs() < 0.001);
        assert!(recorded(&[1]).moments().is_none());
    }

    #[test]
    fn an_empty_distribution_has_neither_mean_nor_quantile() {
        assert_eq!(Distribution::default().mean(), None);
        assert_eq!(Distribution::default().quantile(0.5), None);
    }
}
