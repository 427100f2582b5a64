//! The last minute, ten minutes and hour of a route, kept by the control plane.
//!
//! Workers only count upwards; a window is the difference of two readings. Each window is a ring of
//! a few slices, coarser the longer the window, each slice holding only the buckets that something
//! fell into; the slice that is not over yet is taken from the counters themselves, so figures are live.
//! A window therefore reaches back its length plus at most one slice. Nothing here reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Side;
use super::counters::SideTotals;
use super::histogram::{Difference, Distribution, Packed};

/// The length of the finest slice; [`super::Telemetry::tick`] is to be called at least as often.
const SLICE: Duration = Duration::from_secs(10);

/// A tick that comes a little early must not make a slice a whole tick longer.
const TOLERANCE: Duration = Duration::from_millis(500);

/// A span of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Minute,
    TenMinutes,
    Hour,
}

impl Window {
    pub(crate) const ALL: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    /// As the admin port's `window=` names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.as_str() == text)
    }

    /// The length of one slice, and how many of them make the window.
    fn slices(self) -> (Duration, usize) {
        match self {
            Self::Minute => (SLICE, 6),
            Self::TenMinutes => (Duration::from_secs(60), 10),
            Self::Hour => (Duration::from_secs(300), 12),
        }
    }
}

/// Which of the two durations of an exchange is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latency {
    /// The request's head to the answer's last byte.
    Total,
    /// Handing over to first byte back, without queueing.
    Service,
}

impl Latency {
    pub(crate) const ALL: [Self; 2] = [Self::Total, Self::Service];

    /// As the admin port's `latency=` names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Service => "service",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|latency| latency.as_str() == text)
    }
}

/// What one side did in a window.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// The time they were counted in: the window's length, or less when the route is younger.
    pub(crate) span: Duration,
    pub(crate) latency: Distribution,
}

/// What one side did in one slice of time.
#[derive(Clone, Debug, Default)]
struct SideSlice {
    requests: u64,
    errors: u64,
    total: Difference,
    service: Difference,
}

/// What was read of one side at the end of a slice.
#[derive(Debug)]
struct Reading {
    requests: u64,
    errors: u64,
    total: Packed,
    service: Packed,
}

impl Reading {
    fn of(totals: &SideTotals) -> Self {
        Self {
            requests: totals.requests(),
            errors: totals.errors,
            total: totals.total.pack(),
            service: totals.service.pack(),
        }
    }
}

impl SideSlice {
    fn between(earlier: Option<&Reading>, now: &SideTotals) -> Self {
        let requests = earlier.map_or(0, |earlier| earlier.requests);
        let errors = earlier.map_or(0, |earlier| earlier.errors);
        let unpacked = |of: fn(&Reading) -> &Packed| earlier.map(|earlier| of(earlier).unpack()).unwrap_or_default();
        Self {
            requests: now.requests().saturating_sub(requests),
            errors: now.errors.saturating_sub(errors),
            total: now.total.since(&unpacked(|earlier| &earlier.total)),
            service: now.service.since(&unpacked(|earlier| &earlier.service)),
        }
    }

    fn latency(&self, latency: Latency) -> &Difference {
        match latency {
            Latency::Total => &self.total,
            Latency::Service => &self.service,
        }
    }
}

#[derive(Debug)]
struct Slice {
    begin: Instant,
    sides: [Option<SideSlice>; Side::ALL.len()],
}

/// The slices of one window, and the reading at the end of the youngest.
#[derive(Debug)]
struct Ring {
    window: Window,
    slices: VecDeque<Slice>,
    begin: Instant,
    reading: [Option<Reading>; Side::ALL.len()],
}

impl Ring {
    fn due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begin) + TOLERANCE >= self.window.slices().0
    }

    fn close(&mut self, now: Instant, reading: &[Option<SideTotals>; Side::ALL.len()]) {
        let mut sides: [Option<SideSlice>; Side::ALL.len()] = Default::default();
        for ((slice, now), earlier) in sides.iter_mut().zip(reading).zip(&self.reading) {
            *slice =
                now.as_ref().map(|now| SideSlice::between(earlier.as_ref(), now)).filter(|slice| slice.requests > 0);
        }
        self.slices.push_back(Slice { begin: self.begin, sides });
        if self.slices.len() > self.window.slices().1 {
            self.slices.pop_front();
        }
        self.begin = now;
        for (kept, read) in self.reading.iter_mut().zip(reading) {
            *kept = read.as_ref().map(Reading::of);
        }
    }

    fn figures(&self, side: usize, totals: &SideTotals, latency: Latency, now: Instant) -> Option<Figures> {
        let running = SideSlice::between(self.reading.get(side)?.as_ref(), totals);
        let begin = self.slices.front().map_or(self.begin, |slice| slice.begin);
        let mut figures = Figures {
            requests: 0,
            errors: 0,
            span: now.saturating_duration_since(begin),
            latency: Distribution::default(),
        };
        let closed = self.slices.iter().filter_map(|slice| slice.sides.get(side)?.as_ref());
        for slice in closed.chain([&running]) {
            figures.requests += slice.requests;
            figures.errors += slice.errors;
            figures.latency.add(slice.latency(latency));
        }
        (figures.requests > 0).then_some(figures)
    }
}

/// What is remembered of one route: one ring a window.
#[derive(Debug)]
pub(crate) struct History {
    rings: [Ring; Window::ALL.len()],
}

impl History {
    /// Of a route first seen at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        let ring = |window| Ring { window, slices: VecDeque::new(), begin: now, reading: Default::default() };
        Self { rings: Window::ALL.map(ring) }
    }

    /// Whether a slice is over.
    pub(crate) fn due(&self, now: Instant) -> bool {
        self.rings.iter().any(|ring| ring.due(now))
    }

    /// Closes the slices that are over, with a reading of all sides.
    pub(crate) fn close(&mut self, now: Instant, reading: &[Option<SideTotals>; Side::ALL.len()]) {
        for ring in self.rings.iter_mut().filter(|ring| ring.due(now)) {
            ring.close(now, reading);
        }
    }

    /// One side's figures of a window, the slice that runs included.
    pub(crate) fn figures(
        &self,
        side: Side,
        totals: &SideTotals,
        window: Window,
        latency: Latency,
        now: Instant,
    ) -> Option<Figures> {
        let side = Side::ALL.iter().position(|of| *of == side)?;
        self.rings.iter().find(|ring| ring.window == window)?.figures(side, totals, latency, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::{Outcome, RouteStats};
    use super::*;

    /// A route on which `serve` is called once a second, with the seconds passed so far.
    struct Story {
        stats: RouteStats,
        begin: Instant,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            let begin = Instant::now();
            Self { stats: RouteStats::new("order", 1, begin), begin, now: begin }
        }

        fn run(&mut self, seconds: u64, mut millis: impl FnMut(u64) -> u64) -> &mut Self {
            for _ in 0..seconds {
                let passed = (self.now - self.begin).as_secs();
                let cell = self.stats.cell(0).unwrap();
                cell.side(Side::Legacy).count(&Outcome {
                    status: 200,
                    error: false,
                    bytes_in: 0,
                    bytes_out: 0,
                    total: Duration::from_millis(millis(passed)),
                    service: None,
                });
                self.now += Duration::from_secs(1);
                self.stats.tick(self.now);
            }
            self
        }

        fn figures(&self, window: Window) -> Figures {
            self.stats.figures(Side::Legacy, window, Latency::Total, self.now).unwrap()
        }
    }

    #[test]
    fn the_slice_that_is_not_over_yet_counts() {
        let mut story = Story::new();
        let figures = story.run(3, |_| 20).figures(Window::Minute);
        assert_eq!((figures.requests, figures.span), (3, Duration::from_secs(3)));
    }

    #[test]
    fn what_is_older_than_its_window_is_forgotten_by_it_alone() {
        let mut story = Story::new();
        story.run(120, |_| 500).run(75, |_| 20);
        let minute = story.figures(Window::Minute);
        assert!((60..=70).contains(&minute.requests), "{} requests in the last minute", minute.requests);
        assert_eq!(minute.span.as_secs(), minute.requests);
        assert!(minute.latency.quantile(1.0).unwrap() < Duration::from_millis(21));
        assert_eq!(story.figures(Window::TenMinutes).requests, 195);
        assert_eq!(story.figures(Window::Hour).latency.count(), 195);
    }

    #[test]
    fn an_hour_is_remembered_in_few_slices_and_no_longer() {
        let mut story = Story::new();
        let hour = story.run(2 * 3600, |_| 20).figures(Window::Hour);
        assert!((3600..=3900).contains(&hour.requests), "{} requests in the last hour", hour.requests);
        let history = story.stats.history_for_tests();
        assert!(history.rings.iter().map(|ring| ring.slices.len()).sum::<usize>() <= 28);
    }

    #[test]
    fn a_side_that_served_nothing_in_the_window_has_no_figures() {
        let mut story = Story::new();
        story.run(1, |_| 20);
        for _ in 0..20 {
            story.now += SLICE;
            story.stats.tick(story.now);
        }
        assert!(story.stats.figures(Side::Legacy, Window::Minute, Latency::Total, story.now).is_none());
        assert!(story.stats.figures(Side::New, Window::Hour, Latency::Total, story.now).is_none());
        assert_eq!(story.figures(Window::Hour).requests, 1);
    }
}
