//! What the samples of a metric say, whatever the form in which a scraper wants them ([`super::text`],
//! [`super::protobuf`]).
//!
//! Pure. Written here since the client library takes neither exemplars nor summaries that it did not gather
//! itself; and small, since a scrape of a thousand routes holds thousands of them at once.

use std::iter;
use std::sync::LazyLock;
use std::time::Duration;

use super::counters::Exemplar;
use super::histogram::{BUCKETS, Distribution, Packed, middle_of};
use super::metrics::{BOUNDS, Format};

/// Parts of one doubling in a native histogram, as a power of two: as fine as what is recorded, so
/// that a bucket of ours goes whole into one of these.
pub(super) const NATIVE_SCHEMA: i32 = 5;

/// The labels of one sample.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Buckets of a classic histogram, the one without a bound included.
const CLASSIC: usize = BOUNDS.len() + 1;

/// What one sample says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Of a counter or a gauge.
    Number(f64),
    /// Quantiles of a recent span of time, beside count and sum of all there was from the beginning.
    Summary(&'a [(f64, Duration)], &'a Histogram),
    Histogram(&'a Histogram),
}

/// What one histogram says: classic buckets always, native ones only where they are asked for.
#[derive(Debug)]
pub(super) struct Histogram {
    /// How many are in each bucket or in one before it.
    pub(super) up_to: [u64; CLASSIC],
    pub(super) sum: Duration,
    /// What the native buckets are made of when they are written; until then it takes a fraction of their room.
    native: Option<Packed>,
    exemplars: Vec<(usize, Exemplar)>,
}

impl Histogram {
    /// What a distribution says in the buckets of `format`.
    pub(super) fn of(distribution: &Distribution, format: Format) -> Self {
        let (bounded, count) = distribution.before(&ENDS);
        let mut up_to = [count; CLASSIC];
        up_to.iter_mut().zip(bounded).for_each(|(up_to, bounded)| *up_to = bounded);
        let native = (format == Format::Protobuf).then(|| distribution.pack());
        Self { up_to, sum: distribution.sum(), native, exemplars: Vec::new() }
    }

    /// Names an exchange for the bucket that it fell into, instead of one that was named before.
    pub(super) fn exemplify(&mut self, exemplar: Exemplar) {
        let bucket = BOUNDS.partition_point(|bound| *bound < exemplar.took);
        self.exemplars.retain(|(of, _)| *of != bucket);
        self.exemplars.push((bucket, exemplar));
    }

    /// The exchange that was named for a bucket.
    pub(super) fn exemplar(&self, bucket: usize) -> Option<&Exemplar> {
        self.exemplars.iter().find(|(of, _)| *of == bucket).map(|(_, exemplar)| exemplar)
    }

    /// The native buckets that something fell into, in order, and how much: bucket `n` ends at 2^(n/32) seconds.
    pub(super) fn native(&self) -> Option<impl Iterator<Item = (i32, u64)>> {
        let filled = self.native.as_ref()?.filled();
        let mut filled = filled.filter_map(|(bucket, count)| Some((*NATIVE.get(bucket)?, count))).peekable();
        // Neighbours of ours may share one.
        Some(iter::from_fn(move || {
            let (index, mut sum) = filled.next()?;
            while let Some((_, count)) = filled.next_if(|(next, _)| *next == index) {
                sum += count;
            }
            Some((index, sum))
        }))
    }

    /// How many there are in all.
    pub(super) fn count(&self) -> u64 {
        let [.., count] = self.up_to;
        count
    }
}

/// Where each classic bucket ends: at the first of ours that is longer than its bound. One of ours counts where its
/// middle lies, so a bound is as exact as a quantile.
static ENDS: LazyLock<[usize; BOUNDS.len()]> = LazyLock::new(|| {
    let is_longer = |bound: Duration| move |bucket: &usize| Duration::from_nanos(middle_of(*bucket)) > bound;
    BOUNDS.map(|bound| (0..BUCKETS).find(is_longer(bound)).unwrap_or(BUCKETS))
});

/// The native bucket that each of ours goes into.
static NATIVE: LazyLock<Vec<i32>> = LazyLock::new(|| {
    let native = |bucket| {
        let seconds = Duration::from_nanos(middle_of(bucket)).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a duration is a small number")]
        let index = (seconds.log2() * f64::from(1 << NATIVE_SCHEMA)).ceil() as i32;
        index
    };
    (0..BUCKETS).map(native).collect()
});
