//! When a PHP-FPM pool will be full, if things go on as they do.
//!
//! The demand on a pool is how many of its processes are wanted at once: those in use and those waited for, or, by
//! Little's law, the rate of arrivals times the time that each is served; it is told as one mean a minute.
//! Theil and Sen's line is laid through the last [`MOST`] of them: the median of the slopes between all pairs, which
//! a burst of a few minutes does not bend. Where the line rises by more than chance makes it (Kendall's test), the
//! pool is full when the line, and the usual scatter around it, reaches its slots. What comes at once (a burst, a
//! campaign) announces itself by no trend and is not foreseen; neither is what turns later than it looks.
//! Pure: numbers in, a duration out, no clock.

use std::time::Duration;

/// Minutes that the line is laid through.
pub(crate) const MOST: usize = 30;
/// Fewer say nothing of a trend.
const FEWEST: usize = 15;
/// A rise that chance makes once in two hundred times is one.
const SURE: f64 = 2.6;
/// Full for so many minutes in a row is full.
const FULL: usize = 5;
/// How much of the scatter around the line counts as reaching the slots.
const SCATTER: f64 = 0.5;
/// What is further away than this is not told: a trend does not last that long.
const FURTHEST: Duration = Duration::from_secs(24 * 3600);

/// How long until `slots` are all in use, from the demand of each of the last minutes, the oldest first.
/// `None`: not at the present trend. Zero: they are.
pub(crate) fn until_full(demand: &[f64], slots: f64) -> Option<Duration> {
    let recent = demand.get(demand.len().saturating_sub(MOST)..)?;
    if recent.len() < FEWEST {
        return None;
    }
    if recent.iter().rev().take(FULL).all(|demand| *demand >= slots) {
        return Some(Duration::ZERO);
    }
    let slope = rising(recent)?;
    let end = (recent.len() - 1) as f64;
    let mut at_the_end: Vec<f64> =
        recent.iter().enumerate().map(|(at, value)| value + slope * (end - at as f64)).collect();
    let level = median(&mut at_the_end);
    let mut off: Vec<f64> = at_the_end.iter().map(|value| (value - level).abs()).collect();
    // 1.48 median absolute deviations are the standard deviation of what is normally distributed.
    let scatter = 1.48 * median(&mut off);
    let minutes = (slots - level - SCATTER * scatter).max(0.0) / slope;
    Duration::try_from_secs_f64(minutes * 60.0).ok().filter(|until| *until <= FURTHEST)
}

/// The median slope between two of the values, a minute; `None` if they do not rise by more than chance.
fn rising(values: &[f64]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(values.len() * values.len() / 2);
    let mut rises = 0;
    for (at, earlier) in values.iter().enumerate() {
        let mut minutes = 0.0;
        for later in values.get(at + 1..).unwrap_or_default() {
            minutes += 1.0;
            rises += i32::from(later > earlier) - i32::from(later < earlier);
            slopes.push((later - earlier) / minutes);
        }
    }
    let n = values.len() as f64;
    if f64::from(rises) <= SURE * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt() {
        return None;
    }
    Some(median(&mut slopes)).filter(|slope| *slope > 0.0)
}

/// Puts the values in another order.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let even = values.len().is_multiple_of(2);
    let (below, middle, _) = values.select_nth_unstable_by(values.len() / 2, f64::total_cmp);
    let largest_below = below.iter().copied().max_by(f64::total_cmp);
    largest_below.filter(|_| even).map_or(*middle, |below| (below + *middle) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(random: &mut fastrand::Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    /// A pool's demand, minute by minute.
    struct Pool {
        slots: f64,
        demand: Vec<f64>,
    }

    /// What an operator saw of it: when it was full, and when the alarm was on.
    #[derive(Default)]
    struct Seen {
        saturations: usize,
        announced: usize,
        alarms: usize,
        false_alarms: usize,
        /// Alarms after which the pool was not full, but may have come near.
        unfulfilled: usize,
    }

    /// The rule of alert, StranglerUpstreamFills: less than this…
    const HORIZON: Duration = Duration::from_secs(20 * 60);
    /// …for so many minutes; and over when it was not for…
    const FOR: usize = 2;
    /// …so many: `keep_firing_for`.
    const OVER: usize = 10;
    /// Announced: the alarm is on so many minutes before.
    const AHEAD: usize = 15;
    /// False: from the alarm's beginning to an hour after its end the pool does not come near, which is
    /// five minutes at nine tenths of its slots.
    const GRACE: usize = 60;
    const NEAR: f64 = 0.9;
    /// One seed alone may be lucky by two points.
    const SEEDS: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    impl Pool {
        /// Of a course that is 1 where all slots are wanted. Demand scatters as that of a pool of independent
        /// requests of 300 ms, and by 2 % because their mix changes; `bursts` come every two hours or so, for one to
        /// four minutes.
        fn new(course: impl Fn(f64) -> f64, minutes: usize, bursts: bool, random: &mut fastrand::Rng) -> Self {
            let slots = [8.0, 16.0, 64.0][random.usize(..3)];
            let mut burst = (0, 0.0);
            let demand = (0..minutes).map(|minute| {
                if burst.0 == 0 && bursts && random.f64() < 1.0 / 120.0 {
                    burst = (random.usize(1..=4), 0.1 + 0.5 * random.f64());
                }
                let extra = if burst.0 > 0 { burst.1 } else { 0.0 };
                burst.0 = burst.0.saturating_sub(1);
                let mean = slots * (course(minute as f64) + extra).max(0.01);
                let deviation = (2.0 * mean * 0.3 / 60.0).sqrt().hypot(0.02 * mean);
                (mean + deviation * normal(random)).max(0.0)
            });
            Self { slots, demand: demand.collect() }
        }

        fn watched(&self) -> Seen {
            let minutes = self.demand.len();
            let near: Vec<bool> = (0..minutes)
                .map(|at| until_full(&self.demand[..=at], self.slots).is_some_and(|until| until <= HORIZON))
                .collect();
            let (mut alarm, mut on) = (vec![false; minutes], false);
            for at in 0..minutes {
                let last = |so_many: usize| &near[(at + 1).saturating_sub(so_many)..=at];
                on = if on { last(OVER).contains(&true) } else { at + 1 >= FOR && !last(FOR).contains(&false) };
                alarm[at] = on;
            }
            let held = |share: f64| -> Vec<bool> {
                let holds = |minutes: &[f64]| minutes.iter().all(|demand| *demand >= share * self.slots);
                (0..minutes).map(|at| self.demand.get(at..at + FULL).is_some_and(holds)).collect()
            };
            let (full, near_full) = (held(1.0), held(NEAR));
            let mut seen = Seen::default();
            // What is full before anything could be known of it is no case.
            for at in 60..minutes {
                if full[at] && !full[at - 60..at].contains(&true) {
                    seen.saturations += 1;
                    seen.announced += usize::from(alarm[at - AHEAD]);
                }
            }
            let mut begin = None;
            for at in 0..=minutes {
                match (alarm.get(at) == Some(&true), begin) {
                    (true, None) => begin = Some(at),
                    // One that comes again while the pool is full, or has just been, says nothing new.
                    (false, Some(began)) if full[began.saturating_sub(GRACE)..=began].contains(&true) => begin = None,
                    (false, Some(began)) => {
                        seen.alarms += 1;
                        let until = (at + GRACE).min(minutes);
                        seen.false_alarms += usize::from(!near_full[began..until].contains(&true));
                        seen.unfulfilled += usize::from(!full[began..until].contains(&true));
                        begin = None;
                    }
                    _ => {}
                }
            }
            seen
        }
    }

    fn add(sum: &mut Seen, seen: &Seen) {
        sum.saturations += seen.saturations;
        sum.announced += seen.announced;
        sum.alarms += seen.alarms;
        sum.false_alarms += seen.false_alarms;
        sum.unfulfilled += seen.unfulfilled;
    }

    fn tell(name: &str, seen: &Seen) {
        let Seen { saturations, announced, alarms, false_alarms, unfulfilled } = *seen;
        println!(
            "{name}: {:.1} % of {saturations} saturations announced; of {alarms} alarms {:.1} % false, {:.1} % unfulfilled",
            percent(announced, saturations),
            percent(false_alarms, alarms),
            percent(unfulfilled, alarms),
        );
    }

    fn percent(part: usize, all: usize) -> f64 {
        100.0 * part as f64 / all.max(1) as f64
    }

    fn ramp(random: &mut fastrand::Rng, bursts: bool) -> Pool {
        // From a level that was steady for two hours, within 45 minutes to four hours, to anything between well below full and
        // above; there it stays for two hours.
        let (from, to) = (0.2 + 0.4 * random.f64(), 0.6 + 0.8 * random.f64());
        let length = random.u32(45..240);
        let course = move |minute: f64| from + (to - from) * ((minute - 120.0) / f64::from(length)).clamp(0.0, 1.0);
        Pool::new(course, 240 + length as usize, bursts, random)
    }

    fn days(random: &mut fastrand::Rng, bursts: bool) -> Pool {
        // Two days with a peak each that is anything between 50 % and 120 %, and a second hump in the evening.
        let night = 0.1 + 0.15 * random.f64();
        let peaks = [0.5 + 0.7 * random.f64(), 0.5 + 0.7 * random.f64()];
        let course = move |minute: f64| {
            let day = minute / 1440.0;
            let hump = |at: f64, width: f64| (-((day.fract() - at) / width).powi(2)).exp();
            night + (peaks[usize::from(day >= 1.0)] - night) * (hump(0.45, 0.12) + 0.6 * hump(0.8, 0.07))
        };
        Pool::new(course, 2880, bursts, random)
    }

    fn steady(random: &mut fastrand::Rng) -> Pool {
        let level = 0.3 + 0.6 * random.f64();
        Pool::new(move |_| level, 1440, true, random)
    }

    #[test]
    fn most_saturations_are_announced_a_quarter_of_an_hour_ahead_with_few_false_alarms() {
        let mut randoms = SEEDS.map(fastrand::Rng::with_seed);
        let mut all = Seen::default();
        type Story = fn(&mut fastrand::Rng) -> Pool;
        let stories: [(&str, Story, usize); 5] = [
            ("ramps", |random| ramp(random, false), 160),
            ("ramps with bursts", |random| ramp(random, true), 160),
            ("days", |random| days(random, false), 8),
            ("days with bursts", |random| days(random, true), 8),
            ("bursts alone", steady, 8),
        ];
        for (name, story, runs) in stories {
            let mut sum = Seen::default();
            for random in &mut randoms {
                for _ in 0..runs {
                    add(&mut sum, &story(random).watched());
                }
            }
            tell(name, &sum);
            add(&mut all, &sum);
        }
        tell("all", &all);
        let Seen { saturations, announced, alarms, false_alarms, unfulfilled } = all;
        assert!(
            saturations > 1_500 && percent(announced, saturations) >= 92.0,
            "{announced} of {saturations} announced"
        );
        assert!(percent(false_alarms, alarms) <= 5.0, "{false_alarms} of {alarms} false");
        assert!(percent(unfulfilled, alarms) <= 25.0, "{unfulfilled} of {alarms} unfulfilled");
    }
}
