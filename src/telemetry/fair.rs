//! How much of a difference between two sides is more than chance.
//!
//! Every figure of a comparison comes with the interval that holds the truth in 95 of 100 cases, or with what
//! it lacks. Quantiles: the order statistics that enclose the true one, a binomial question that no shape of the
//! distribution can spoil, taken at the edges of their buckets. Means: the normal interval of the logarithm, only
//! where there are requests enough for it to hold whatever the shape. Error rates: Wilson's interval.
//! Two intervals become one of their ratio or difference by MOVER (Donner and Zou 2012), which keeps to how
//! lopsided each of them is. Pure: no clock, no names; deterministic; a few microseconds a figure.

use std::fmt;

use super::histogram::Distribution;

/// 97.5 % of a normal distribution lie below.
const Z: f64 = 1.959_964;
/// What may lie beyond each end of an interval.
const TAIL: f64 = 0.025;
/// Error rates of fewer requests are not compared.
const FEWEST: u64 = 30;
/// Means of fewer requests are not compared. A fixed number: to ask for more where a sample looks skewed would keep
/// the samples that happen to lack their slow requests, and those mislead.
const FEWEST_OF_MEAN: u64 = 500;

/// Seconds that are told from none: what did not wait for a place is counted with what waited for less.
const LEAST: f64 = 1e-6;

/// What a comparison of two sides says: new over legacy, or new less legacy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Compared {
    /// As measured; `None` where one side has nothing to measure.
    pub(crate) estimate: Option<f64>,
    pub(crate) interval: Result<(f64, f64), Lack>,
}

/// Why there is no interval yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// What each side needs, and what it has.
    Requests { needed: u64, legacy: u64, new: u64 },
    /// Nobody waited on the legacy side.
    Zero,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { needed, legacy, new } => {
                write!(f, "needs {needed} requests on each side; legacy has {legacy}, new has {new}")
            }
            Self::Zero => f.write_str("legacy's is zero, of which nothing is a multiple"),
        }
    }
}

/// One side's figure with its interval.
#[derive(Clone, Copy, Debug)]
struct Bounded {
    estimate: f64,
    low: f64,
    high: f64,
}

impl Bounded {
    fn logarithms(self) -> Self {
        Self { estimate: self.estimate.ln(), low: self.low.ln(), high: self.high.ln() }
    }
}

/// The interval of a difference of two independent figures.
fn mover(new: Bounded, legacy: Bounded) -> (f64, f64) {
    let difference = new.estimate - legacy.estimate;
    let down = (new.estimate - new.low).hypot(legacy.high - legacy.estimate);
    let up = (new.high - new.estimate).hypot(legacy.estimate - legacy.low);
    (difference - down, difference + up)
}

fn ratio_of(new: Bounded, legacy: Bounded) -> (f64, f64) {
    let (low, high) = mover(new.logarithms(), legacy.logarithms());
    (low.exp(), high.exp())
}

/// The quantile `q` of the new side over that of the legacy side.
pub(crate) fn quantiles(legacy: &Distribution, new: &Distribution, q: f64) -> Compared {
    let at = |of: &Distribution| of.quantile(q).map(|at| at.as_secs_f64());
    if at(legacy).is_some_and(|legacy| legacy < LEAST) {
        return Compared { estimate: None, interval: Err(Lack::Zero) };
    }
    let estimate = at(new).zip(at(legacy)).map(|(new, legacy)| new / legacy);
    let interval = match (bounded_quantile(legacy, q), bounded_quantile(new, q)) {
        (Some(legacy), Some(new)) => Ok(ratio_of(new, legacy)),
        _ => Err(Lack::Requests { needed: needed_for(q), legacy: legacy.count(), new: new.count() }),
    };
    Compared { estimate, interval }
}

fn bounded_quantile(of: &Distribution, q: f64) -> Option<Bounded> {
    let (low, high) = ranks(of.count(), q)?;
    let estimate = of.quantile(q)?.as_secs_f64();
    let (low, high) = (of.at_rank(low)?.0.as_secs_f64(), of.at_rank(high)?.1.as_secs_f64());
    // A logarithm needs a number.
    Some(Bounded { estimate: estimate.max(LEAST), low: low.max(LEAST), high: high.max(LEAST) })
}

/// The fewest requests that enclose the quantile `q` on both sides of it.
fn needed_for(q: f64) -> u64 {
    count(TAIL.ln() / q.max(1.0 - q).ln())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
fn count(number: f64) -> u64 {
    number.ceil().max(0.0) as u64
}

/// The ranks of the two durations, among `n` in order, between which the quantile `q` lies in 95 of 100 cases;
/// `None` if `n` is too small for that.
fn ranks(n: u64, q: f64) -> Option<(u64, u64)> {
    // Counted from the end where the quantile is: there the probabilities are not too small to be added up.
    let (low, high) = if q <= 0.5 { binomial_ranks(n, q) } else { mirrored(binomial_ranks(n, 1.0 - q), n) };
    (low >= 1 && high <= n).then_some((low, high))
}

fn mirrored((low, high): (u64, u64), n: u64) -> (u64, u64) {
    ((n + 1).saturating_sub(high), n + 1 - low)
}

/// For a share `p` of at most a half: `(low, high)` with P(fewer than `low` of `n` lie below the quantile) and
/// P(`high` or more do) each at most [`TAIL`]. `low` is 0 and `high` above `n` where there are no such.
fn binomial_ranks(n: u64, p: f64) -> (u64, u64) {
    let (size, spread) = (n as f64, (n as f64 * p * (1.0 - p)).sqrt());
    if spread >= 10.0 {
        let middle = size * p;
        return (count(middle - Z * spread - 0.5), count(middle + Z * spread + 0.5).max(1));
    }
    // Exactly, value by value; `spread` bounds how many there are.
    let (mut probability, mut below) = ((1.0 - p).powf(size), 0.0);
    let mut low = 0;
    for k in 0..=n {
        // `below` is P(fewer than k).
        if below <= TAIL {
            low = k;
        }
        below += probability;
        if 1.0 - below <= TAIL {
            return (low, k + 1);
        }
        probability *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
    }
    (low, n + 1)
}

/// The mean of the new side over that of the legacy side.
pub(crate) fn means(legacy: &Distribution, new: &Distribution) -> Compared {
    let at = |of: &Distribution| of.mean().map(|mean| mean.as_secs_f64());
    let estimate = at(new).zip(at(legacy)).filter(|(_, legacy)| *legacy > 0.0).map(|(new, legacy)| new / legacy);
    let lack = match at(legacy) {
        Some(0.0) => Lack::Zero,
        _ => Lack::Requests { needed: FEWEST_OF_MEAN, legacy: legacy.count(), new: new.count() },
    };
    let interval = match (bounded_mean(legacy), bounded_mean(new)) {
        (Some(legacy), Some(new)) => Ok(ratio_of(new, legacy)),
        _ => Err(lack),
    };
    Compared { estimate, interval }
}

fn bounded_mean(of: &Distribution) -> Option<Bounded> {
    let n = of.count();
    let moments = of.moments().filter(|moments| n >= FEWEST_OF_MEAN && moments.mean > 0.0)?;
    // On the logarithm's scale, where what is skewed to the right is less so.
    let off = Z * (moments.variance / n as f64).sqrt() / moments.mean;
    Some(Bounded { estimate: moments.mean, low: moments.mean * (-off).exp(), high: moments.mean * off.exp() })
}

/// How many of how many failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) errors: u64,
    pub(crate) requests: u64,
}

impl Failed {
    fn rate(self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }

    fn bounded(self) -> Option<Bounded> {
        let (n, rate) = (self.requests as f64, self.rate()?);
        let middle = (rate + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
        (self.requests >= FEWEST).then(|| Bounded {
            estimate: rate,
            low: (middle - half).clamp(0.0, rate),
            high: (middle + half).clamp(rate, 1.0),
        })
    }
}

/// The error rate of the new side less that of the legacy side.
pub(crate) fn error_rates(legacy: Failed, new: Failed) -> Compared {
    let interval = match (legacy.bounded(), new.bounded()) {
        (Some(legacy), Some(new)) => Ok(mover(new, legacy)),
        _ => Err(Lack::Requests { needed: FEWEST, legacy: legacy.requests, new: new.requests }),
    };
    Compared { estimate: new.rate().zip(legacy.rate()).map(|(new, legacy)| new - legacy), interval }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::Histogram;
    use super::*;

    const RUNS: usize = 1_000;

    type Load = fn(&mut fastrand::Rng) -> f64;

    fn normal(random: &mut fastrand::Rng) -> f64 {
        let (a, b) = (1.0 - random.f64(), random.f64());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn lognormal(random: &mut fastrand::Rng) -> f64 {
        0.02 * (0.5 * normal(random)).exp()
    }

    fn heavy(random: &mut fastrand::Rng) -> f64 {
        0.005 * normal(random).exp()
    }

    /// Most from a cache, the rest from a database.
    fn bimodal(random: &mut fastrand::Rng) -> f64 {
        let at = if random.f64() < 0.8 { 0.003 } else { 0.12 };
        at * (0.2 * normal(random)).exp()
    }

    /// As bimodal, but the boundary between the modes lies exactly at P99.
    fn rarely_slow(random: &mut fastrand::Rng) -> f64 {
        let at = if random.f64() < 0.99 { 0.02 } else { 0.2 };
        at * (0.1 * normal(random)).exp()
    }

    /// All that is ever drawn from, in order: what is true of it is known exactly.
    struct Truth(Vec<f64>);

    impl Truth {
        fn of(load: Load) -> Self {
            let mut random = fastrand::Rng::with_seed(99);
            let mut all: Vec<f64> = (0..100_000).map(|_| load(&mut random)).collect();
            all.sort_by(f64::total_cmp);
            Self(all)
        }

        fn quantile(&self, percent: usize) -> f64 {
            self.0[self.0.len() / 100 * percent]
        }

        fn mean(&self) -> f64 {
            self.0.iter().sum::<f64>() / self.0.len() as f64
        }

        fn drawn(&self, n: usize, random: &mut fastrand::Rng) -> Distribution {
            let histogram = Histogram::default();
            (0..n).for_each(|_| histogram.record(Duration::from_secs_f64(self.0[random.usize(..self.0.len())])));
            let mut distribution = Distribution::default();
            histogram.add_to(&mut distribution);
            distribution
        }
    }

    /// In how many of a hundred runs the interval holds the truth, of those that dared to give one; and their share.
    fn coverage(truth: f64, mut run: impl FnMut() -> Compared) -> (f64, f64) {
        let (mut given, mut held) = (0.0, 0.0);
        for _ in 0..RUNS {
            if let Ok((low, high)) = run().interval {
                given += 1.0;
                held += f64::from(u8::from((low..=high).contains(&truth)));
            }
        }
        (100.0 * held / given, given / RUNS as f64)
    }

    const LOADS: [(&str, Load, Load); 4] = [
        ("lognormal", lognormal, lognormal),
        ("heavy against lognormal", heavy, lognormal),
        ("bimodal", bimodal, bimodal),
        ("bimodal against rarely slow", bimodal, rarely_slow),
    ];

    #[test]
    fn intervals_of_quantiles_hold_the_truth_in_93_of_100_runs() {
        let mut random = fastrand::Rng::with_seed(1);
        for (name, legacy, new) in LOADS {
            let (legacy, new) = (Truth::of(legacy), Truth::of(new));
            for (percent, sizes) in [(50, [10, 200, 1_500]), (90, [60, 500, 1_500]), (99, [400, 1_000, 2_500])] {
                let (truth, q) = (new.quantile(percent) / legacy.quantile(percent), percent as f64 / 100.0);
                for n in sizes {
                    let (held, given) = coverage(truth, || {
                        let (legacy, new) = (legacy.drawn(n, &mut random), new.drawn(n * 2 / 3 + 125, &mut random));
                        quantiles(&legacy, &new, q)
                    });
                    println!("{name} P{percent} n={n}: {held:.1} of 100");
                    assert!(held >= 93.0 && given > 0.99, "{name} P{percent} n={n}: {held} of 100");
                }
            }
        }
    }

    #[test]
    fn intervals_of_means_hold_the_truth_in_93_of_100_runs() {
        let mut random = fastrand::Rng::with_seed(2);
        for (name, legacy, new) in LOADS {
            let (legacy, new) = (Truth::of(legacy), Truth::of(new));
            let truth = new.mean() / legacy.mean();
            for n in [500, 1_000, 3_000] {
                let (held, given) = coverage(truth, || {
                    let (legacy, new) = (legacy.drawn(n, &mut random), new.drawn(n, &mut random));
                    means(&legacy, &new)
                });
                println!("{name} mean n={n}: {held:.1} of 100");
                assert!(held >= 93.0 && given == 1.0, "{name} mean n={n}: {held} of 100");
            }
        }
    }

    #[test]
    fn intervals_of_error_rates_hold_the_truth_in_93_of_100_runs() {
        let mut random = fastrand::Rng::with_seed(3);
        for (legacy, new) in [(0.0, 0.01), (0.01, 0.01), (0.002, 0.03), (0.3, 0.1)] {
            for n in [30, 200, 5_000] {
                let mut failed = |rate| {
                    let errors = (0..n).filter(|_| random.f64() < rate).count() as u64;
                    Failed { errors, requests: n }
                };
                let (held, given) = coverage(new - legacy, || error_rates(failed(legacy), failed(new)));
                assert!(held >= 93.0 && given == 1.0, "{legacy} and {new} of {n}: {held} of 100");
            }
        }
    }

    #[test]
    fn an_interval_narrows_with_what_is_known_and_says_when_the_sides_differ() {
        let mut random = fastrand::Rng::with_seed(4);
        let (lognormal, bimodal) = (Truth::of(lognormal), Truth::of(bimodal));
        let mut width = f64::INFINITY;
        for n in [400, 4_000, 40_000] {
            let (legacy, new) = (lognormal.drawn(n, &mut random), bimodal.drawn(n, &mut random));
            let (low, high) = quantiles(&legacy, &new, 0.5).interval.unwrap();
            assert!(high < 0.3 && high / low < width, "{low} to {high} of {n}");
            width = high / low;
        }
        assert!(width < 1.06, "{width}");
    }

    #[test]
    fn too_few_requests_are_said_to_be_too_few() {
        let mut random = fastrand::Rng::with_seed(5);
        let lognormal = Truth::of(lognormal);
        let (few, many) = (lognormal.drawn(12, &mut random), lognormal.drawn(1_000, &mut random));
        let p99 = quantiles(&many, &few, 0.99);
        assert!(p99.estimate.is_some());
        let lack = p99.interval.unwrap_err().to_string();
        assert_eq!(lack, "needs 368 requests on each side; legacy has 1000, new has 12");
        assert_eq!([0.5, 0.9, 0.999].map(needed_for), [6, 36, 3688]);
        assert!(means(&many, &few).interval.is_err());
        let nothing = quantiles(&many, &Distribution::default(), 0.5);
        let lack = Lack::Requests { needed: 6, legacy: 1_000, new: 0 };
        assert_eq!((nothing.estimate, nothing.interval), (None, Err(lack)));
        let of_few = error_rates(Failed { errors: 0, requests: 1_000 }, Failed { errors: 1, requests: 2 });
        assert_eq!((of_few.estimate, of_few.interval.is_err()), (Some(0.5), true));
    }

    #[test]
    fn of_a_wait_that_was_none_there_is_no_ratio() {
        let waited = |duration| {
            let histogram = Histogram::default();
            (0..1_000).for_each(|_| histogram.record(duration));
            let mut distribution = Distribution::default();
            histogram.add_to(&mut distribution);
            distribution
        };
        let (none, long) = (waited(Duration::ZERO), waited(Duration::from_millis(5)));
        for new in [&none, &long] {
            for compared in [quantiles(&none, new, 0.99), means(&none, new)] {
                assert_eq!((compared.estimate, compared.interval), (None, Err(Lack::Zero)));
            }
        }
        let (low, high) = quantiles(&long, &none, 0.5).interval.unwrap();
        assert!(low <= high && high < 0.001, "{low} to {high}: the new side waits no more");
    }

    #[test]
    fn ranks_are_the_least_that_suffice() {
        // From tables of distribution-free intervals of the median.
        assert_eq!(
            [5, 6, 10, 20, 30].map(|n| ranks(n, 0.5)),
            [None, Some((1, 6)), Some((2, 9)), Some((6, 15)), Some((10, 21))]
        );
        assert_eq!((ranks(367, 0.99), ranks(368, 0.99)), (None, Some((360, 368))));
        assert_eq!(ranks(0, 0.5), None);
    }
}
