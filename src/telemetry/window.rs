//! The last minute, ten minutes and hour of a route, kept by the control plane.
//!
//! Workers only count upwards; every ten seconds the difference to the last reading becomes a slice. For ten
//! minutes slices are kept whole, older ones as sums of five minutes each, both with only the buckets that
//! something fell into; of every slice of the hour a [`Curve`] point is kept, which is a few numbers. The
//! slice that is not over yet is taken from the counters themselves, so figures are live. A side that never
//! served costs nothing. A window reaches back its length plus at most one slice (the hour: five minutes).
//! Nothing here reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Side;
use super::counters::{Apart, STATUS_CLASSES, SideTotals};
use super::histogram::{Distribution, Packed};
use super::slowest::{Slow, keep_slowest};

/// The length of a slice; [`super::Telemetry::tick`] is to be called at least as often.
pub(crate) const SLICE: Duration = Duration::from_secs(10);

/// A tick that comes a little early must not make a slice a whole tick longer.
const TOLERANCE: Duration = Duration::from_millis(500);

/// How many slices are kept whole.
const FINE: usize = 60;
/// How many slices are merged into one, which is what older ones are kept as: of five minutes.
const MERGED: usize = 30;
/// How many of those are kept.
const COARSE: usize = 12;
/// Points of an hour.
const POINTS: u32 = 360;

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

    /// How many slices it has, beside the one that runs.
    pub(crate) fn slices(self) -> usize {
        match self {
            Self::Minute => 6,
            Self::TenMinutes => 60,
            Self::Hour => 360,
        }
    }
}

/// Which of the durations of an exchange is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latency {
    /// The request's head to the answer's last byte.
    Total,
    /// Handing over to first byte back, without queueing and connecting.
    Service,
    /// Waiting for a place at the upstream.
    Queue,
}

impl Latency {
    pub(crate) const ALL: [Self; 3] = [Self::Total, Self::Service, Self::Queue];

    /// As the admin port's `latency=` names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Service => "service",
            Self::Queue => "queue",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|latency| latency.as_str() == text)
    }

    /// Its own of three, in the order of [`Self::ALL`].
    pub(super) fn of<T>(self, [total, service, queue]: &[T; Self::ALL.len()]) -> &T {
        match self {
            Self::Total => total,
            Self::Service => service,
            Self::Queue => queue,
        }
    }
}

/// What was counted, from the beginning or in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In the order of [`STATUS_CLASSES`].
    pub(crate) statuses: [u64; STATUS_CLASSES.len()],
    pub(crate) errors: u64,
    /// In the order of [`Apart::ALL`].
    pub(crate) apart: [u64; Apart::ALL.len()],
}

impl Counts {
    fn of(totals: &SideTotals) -> Self {
        Self { statuses: totals.statuses, errors: totals.errors, apart: totals.apart }
    }

    /// Exchanges that ended.
    pub(crate) fn requests(&self) -> u64 {
        self.statuses.iter().sum()
    }

    /// Those that the side itself had work with: a file that the gateway served is none of PHP's.
    fn asked(&self) -> u64 {
        let apart = |why: Apart| self.apart.get(why as usize).copied().unwrap_or_default();
        self.requests().saturating_sub(apart(Apart::Unasked) + apart(Apart::Gateway))
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        let mine = self.statuses.iter_mut().chain([&mut self.errors]).chain(&mut self.apart);
        let others = other.statuses.iter().chain([&other.errors]).chain(&other.apart);
        for (mine, other) in mine.zip(others) {
            *mine = with(*mine, *other);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    fn subtract(&mut self, earlier: &Self) {
        self.combine(earlier, u64::saturating_sub);
    }
}

/// CPU time that a side was charged with, and how many requests that asked it this was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) time: Duration,
    pub(crate) requests: u64,
}

fn add_cpu(sum: &mut Option<Cpu>, more: Option<Cpu>) {
    if let Some(more) = more {
        let sum = sum.get_or_insert_default();
        sum.time += more.time;
        sum.requests += more.requests;
    }
}

/// What one side did in a window.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) counts: Counts,
    /// The time they were counted in: the window's length, or less when the route is younger.
    pub(crate) span: Duration,
    pub(crate) latency: Distribution,
    /// `None` where it cannot be said, or not yet.
    pub(crate) cpu: Option<Cpu>,
}

impl Figures {
    /// Adds those of another route over the same window.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.span = self.span.max(other.span);
        self.latency.add(&other.latency);
        add_cpu(&mut self.cpu, other.cpu);
    }

    fn count(&mut self, slice: &SideSlice, latency: Latency) {
        self.counts.add(&slice.counts);
        self.latency.add_packed(latency.of(&slice.curves));
        add_cpu(&mut self.cpu, slice.cpu);
    }
}

/// One point of a side's curves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    pub(crate) end: Instant,
    pub(crate) length: Duration,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

/// What is kept of a slice for its curve; in seconds, zero for what was not measured.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    requests: u32,
    errors: u32,
    /// P50 and P99, in the order of [`Latency::ALL`].
    quantiles: [[f32; 2]; Latency::ALL.len()],
}

impl Point {
    fn of(counts: &Counts, curves: [&Distribution; Latency::ALL.len()]) -> Self {
        let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let quantiles = curves.map(|curve| [0.5, 0.99].map(|q| curve.quantile(q).map_or(0.0, |at| at.as_secs_f32())));
        Self { requests: narrow(counts.requests()), errors: narrow(counts.errors), quantiles }
    }

    fn shown(&self, end: Instant, length: Duration, latency: Latency) -> Curve {
        let [p50, p99] = latency.of(&self.quantiles).map(|at| (at > 0.0).then(|| Duration::from_secs_f32(at)));
        Curve { end, length, requests: self.requests.into(), errors: self.errors.into(), p50, p99 }
    }
}

/// What one side did in one slice of time, or in several.
#[derive(Clone, Debug, Default)]
struct SideSlice {
    counts: Counts,
    curves: [Packed; Latency::ALL.len()],
    cpu: Option<Cpu>,
}

impl SideSlice {
    fn sum<'s>(slices: impl Iterator<Item = &'s Self>) -> Option<Self> {
        let mut sum: Option<Self> = None;
        let mut curves: [Distribution; Latency::ALL.len()] = Default::default();
        for slice in slices {
            let sum = sum.get_or_insert_default();
            sum.counts.add(&slice.counts);
            add_cpu(&mut sum.cpu, slice.cpu);
            for (curve, packed) in curves.iter_mut().zip(&slice.curves) {
                curve.add_packed(packed);
            }
        }
        let mut sum = sum?;
        sum.curves = curves.map(|curve| curve.pack());
        Some(sum)
    }
}

/// What was read of one side at the end of a slice, and the points of its curves.
#[derive(Debug, Default)]
struct SideHistory {
    counts: Counts,
    curves: [Packed; Latency::ALL.len()],
    /// The number of the slice, and what is shown of it; slices without requests have none.
    points: VecDeque<(u32, Point)>,
    slowest: Vec<Slow>,
}

impl SideHistory {
    /// What came since the last reading.
    fn running(&self, totals: &SideTotals) -> (Counts, [Distribution; Latency::ALL.len()]) {
        let mut counts = Counts::of(totals);
        counts.subtract(&self.counts);
        let mut curves = totals.curves.clone();
        for (curve, read) in curves.iter_mut().zip(&self.curves) {
            curve.subtract(read);
        }
        (counts, curves)
    }

    /// Ends slice `number` with a reading; `None` if nothing came in it.
    fn close(&mut self, number: u32, totals: &SideTotals) -> Option<Box<SideSlice>> {
        let (counts, curves) = self.running(totals);
        while self.points.front().is_some_and(|(first, _)| first.saturating_add(POINTS) <= number) {
            self.points.pop_front();
        }
        if counts.requests() == 0 {
            return None;
        }
        if self.points.len() == self.points.capacity() {
            // Room for a minute more, not for twice as many.
            self.points.reserve_exact(6);
        }
        self.points.push_back((number, Point::of(&counts, curves.each_ref())));
        self.counts.add(&counts);
        for (read, total) in self.curves.iter_mut().zip(&totals.curves) {
            *read = total.pack();
        }
        Some(Box::new(SideSlice { counts, curves: curves.map(|curve| curve.pack()), cpu: None }))
    }
}

type Sides<T> = [Option<Box<T>>; Side::ALL.len()];

fn of_side<T>([legacy, new, gateway]: &Sides<T>, side: Side) -> &Option<Box<T>> {
    match side {
        Side::Legacy => legacy,
        Side::New => new,
        Side::Gateway => gateway,
    }
}

fn of_side_mut<T>([legacy, new, gateway]: &mut Sides<T>, side: Side) -> &mut Option<Box<T>> {
    match side {
        Side::Legacy => legacy,
        Side::New => new,
        Side::Gateway => gateway,
    }
}

#[derive(Debug)]
struct Slice {
    begin: Instant,
    sides: Sides<SideSlice>,
}

/// What is remembered of one route.
#[derive(Debug)]
pub(crate) struct History {
    /// When the slice that runs began.
    begin: Instant,
    /// How many slices have been closed.
    number: u32,
    fine: VecDeque<Slice>,
    /// How many of the youngest fine slices are in no coarse one yet.
    unmerged: usize,
    coarse: VecDeque<Slice>,
    sides: Sides<SideHistory>,
}

impl History {
    /// Of a route first seen at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begin: now,
            number: 0,
            fine: VecDeque::new(),
            unmerged: 0,
            coarse: VecDeque::new(),
            sides: Sides::default(),
        }
    }

    /// Whether a slice is over.
    pub(crate) fn due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begin) + TOLERANCE >= SLICE
    }

    /// How many requests of one side were read.
    pub(crate) fn requests(&self, side: Side) -> u64 {
        of_side(&self.sides, side).as_ref().map_or(0, |read| read.counts.requests())
    }

    /// Ends the slice that runs, with a reading of all sides in which anything came.
    pub(crate) fn close(&mut self, now: Instant, reading: &[Option<SideTotals>; Side::ALL.len()]) {
        // Only now: the youngest slice may still be charged with CPU time until the next one is closed.
        if self.unmerged >= MERGED {
            self.merge();
        }
        let mut sides = Sides::default();
        for ((slice, history), totals) in sides.iter_mut().zip(&mut self.sides).zip(reading) {
            if let Some(totals) = totals {
                *slice = history.get_or_insert_default().close(self.number, totals);
            }
        }
        self.fine.push_back(Slice { begin: self.begin, sides });
        if self.fine.len() > FINE {
            self.fine.pop_front();
        }
        self.unmerged += 1;
        self.number += 1;
        self.begin = now;
    }

    fn merge(&mut self) {
        let young: Vec<&Slice> = self.fine.iter().rev().take(self.unmerged).collect();
        let Some(begin) = young.last().map(|slice| slice.begin) else { return };
        let sides = Side::ALL
            .map(|side| SideSlice::sum(young.iter().filter_map(|slice| of_side(&slice.sides, side).as_deref())));
        self.coarse.push_back(Slice { begin, sides: sides.map(|sum| sum.map(Box::new)) });
        if self.coarse.len() > COARSE {
            self.coarse.pop_front();
        }
        self.unmerged = 0;
    }

    /// The closed slices of a window, the oldest first.
    fn closed(&self, window: Window) -> impl Iterator<Item = &Slice> {
        let (coarse, fine) = match window {
            Window::Minute | Window::TenMinutes => (0, window.slices()),
            Window::Hour => (self.coarse.len(), self.unmerged),
        };
        self.coarse.iter().take(coarse).chain(self.fine.iter().skip(self.fine.len().saturating_sub(fine)))
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
        let begin = self.closed(window).next().map_or(self.begin, |slice| slice.begin);
        let span = now.saturating_duration_since(begin);
        let mut figures =
            Figures { counts: Counts::of(totals), span, latency: latency.of(&totals.curves).clone(), cpu: None };
        if let Some(read) = of_side(&self.sides, side) {
            figures.counts.subtract(&read.counts);
            figures.latency.subtract(latency.of(&read.curves));
        }
        for slice in self.closed(window).filter_map(|slice| of_side(&slice.sides, side).as_deref()) {
            figures.count(slice, latency);
        }
        (figures.counts.requests() > 0).then_some(figures)
    }

    /// One side's points in a window, the slice that runs included, the oldest first.
    pub(crate) fn curve(
        &self,
        side: Side,
        totals: &SideTotals,
        window: Window,
        latency: Latency,
        now: Instant,
    ) -> Vec<Curve> {
        let first = self.number.saturating_sub(u32::try_from(window.slices()).unwrap_or(u32::MAX));
        let nothing = SideHistory::default();
        let history = of_side(&self.sides, side).as_deref().unwrap_or(&nothing);
        let known = history.points.iter().filter(|(number, _)| *number >= first).filter_map(|(number, point)| {
            let ago = self.number.checked_sub(number + 1)?;
            Some(point.shown(self.begin.checked_sub(SLICE * ago)?, SLICE, latency))
        });
        let mut curve: Vec<Curve> = known.collect();
        let (counts, curves) = history.running(totals);
        if counts.requests() > 0 {
            let length = now.saturating_duration_since(self.begin);
            curve.push(Point::of(&counts, curves.each_ref()).shown(now, length, latency));
        }
        curve
    }

    /// The slowest of those known and of those that are `young`.
    pub(crate) fn slowest(&self, side: Side, mut young: Vec<Slow>, now: Instant) -> Vec<Slow> {
        let known = of_side(&self.sides, side).iter().flat_map(|history| &history.slowest);
        young.extend(known.filter(|slow| slow.is_recent(now)).cloned());
        keep_slowest(&mut young);
        young
    }

    /// Keeps the slowest of those known and of those that are `young`; gives back which those are.
    pub(crate) fn keep_slowest(&mut self, side: Side, mut young: Vec<Slow>, now: Instant) -> &[Slow] {
        let Some(history) = of_side_mut(&mut self.sides, side) else { return &[] };
        young.extend(std::mem::take(&mut history.slowest).into_iter().filter(|slow| slow.is_recent(now)));
        keep_slowest(&mut young);
        history.slowest = young;
        &history.slowest
    }

    /// Whether all that is known of one side's slowest is still of interest.
    pub(crate) fn slowest_are_recent(&self, side: Side, now: Instant) -> bool {
        of_side(&self.sides, side).iter().flat_map(|history| &history.slowest).all(|slow| slow.is_recent(now))
    }

    /// How long one side was at work in the slice that was closed at `now`, if one was: the sum of its service times.
    pub(crate) fn worked(&self, side: Side, now: Instant) -> Duration {
        let slice =
            self.fine.back().filter(|_| self.begin == now).and_then(|slice| of_side(&slice.sides, side).as_deref());
        slice.map_or(Duration::ZERO, |slice| Latency::Service.of(&slice.curves).sum())
    }

    /// Charges one side with CPU time for the slice that was closed last.
    pub(crate) fn charge(&mut self, side: Side, cpu: Duration) {
        if let Some(slice) = self.fine.back_mut().and_then(|slice| of_side_mut(&mut slice.sides, side).as_deref_mut()) {
            let charged = slice.cpu.get_or_insert(Cpu { time: Duration::ZERO, requests: slice.counts.asked() });
            charged.time += cpu;
        }
    }
}

#[cfg(test)]
impl History {
    /// What it takes up, but for what the allocator adds.
    fn bytes(&self) -> usize {
        let packed = |curves: &[Packed]| curves.iter().map(Packed::heap_bytes).sum::<usize>();
        let slices = self.fine.iter().chain(&self.coarse).flat_map(|slice| &slice.sides).flatten();
        let slices = slices.map(|slice| size_of::<SideSlice>() + packed(&slice.curves)).sum::<usize>();
        let sides = self.sides.iter().flatten().map(|side| {
            let points = side.points.capacity() * size_of::<(u64, Point)>();
            let slowest = side.slowest.capacity() * size_of::<Slow>();
            size_of::<SideHistory>() + packed(&side.curves) + points + slowest
        });
        let rings = (self.fine.capacity() + self.coarse.capacity()) * size_of::<Slice>();
        size_of::<Self>() + rings + slices + sides.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::{Outcome, RouteStats};
    use super::super::slowest::RECENT;
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
                let total = Duration::from_millis(millis(passed));
                let outcome = Outcome { status: 200, total, service: Some(total / 2), ..Outcome::default() };
                cell.side(Side::Legacy).count(&outcome, format!("r{passed}"));
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
        assert_eq!((figures.counts.requests(), figures.span), (3, Duration::from_secs(3)));
    }

    #[test]
    fn what_is_older_than_its_window_is_forgotten_by_it_alone() {
        let mut story = Story::new();
        story.run(120, |_| 500).run(75, |_| 20);
        let minute = story.figures(Window::Minute);
        let requests = minute.counts.requests();
        assert!((60..=70).contains(&requests), "{requests} requests in the last minute");
        assert_eq!(minute.span.as_secs(), requests);
        assert!(minute.latency.quantile(1.0).unwrap() < Duration::from_millis(21));
        assert_eq!(story.figures(Window::TenMinutes).counts.requests(), 195);
        assert_eq!(story.figures(Window::Hour).latency.count(), 195);
    }

    #[test]
    fn an_hour_is_remembered_and_no_longer() {
        let mut story = Story::new();
        let hour = story.run(2 * 3600 + 25, |_| 20).figures(Window::Hour).counts.requests();
        assert!((3600..=3910).contains(&hour), "{hour} requests in the last hour");
        let ten = story.figures(Window::TenMinutes).counts.requests();
        assert!((600..=610).contains(&ten), "{ten} requests in the last ten minutes");
        let curve = story.stats.curve(Side::Legacy, Window::Hour, Latency::Total, story.now);
        assert_eq!((curve.len(), curve.iter().map(|point| point.requests).sum::<u64>()), (361, 3605));
        assert_eq!((curve[360].end, curve[360].length.as_secs(), curve[360].requests), (story.now, 5, 5));
        assert_eq!(curve[359].end, story.now - Duration::from_secs(5));
        assert_eq!(curve[0].end, story.now - Duration::from_secs(5 + 3590));
        let exact = Duration::from_millis(20);
        assert!(curve.iter().all(|point| point.p99.unwrap().abs_diff(exact) < exact / 50), "{:?}", curve[0]);
    }

    #[test]
    fn an_hour_of_a_thousand_routes_fits_into_some_hundred_megabytes() {
        // A hundred requests in each slice, of durations as spread as those of real pages, on both sides.
        let now = Instant::now();
        let stats = RouteStats::new("order", 1, now);
        let mut random = fastrand::Rng::with_seed(7);
        for slice in 1..=400 {
            for side in [Side::Legacy, Side::New] {
                for _ in 0..100 {
                    let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                    let total = Duration::from_secs_f64(0.02 * (0.5 * normal).exp());
                    let outcome = Outcome { status: 200, total, service: Some(total / 2), ..Outcome::default() };
                    stats.cell(0).unwrap().side(side).count(&outcome, "r1");
                }
            }
            stats.tick(now + SLICE * slice);
        }
        let bytes = stats.history_for_tests().bytes();
        println!("{bytes} bytes for an hour of one route with two busy sides");
        assert!(bytes < 110_000, "{bytes} bytes for an hour of one route");
    }

    #[test]
    fn an_hour_merged_of_many_slices_tells_p99_as_exactly_as_one_histogram() {
        let mut story = Story::new();
        let mut random = fastrand::Rng::with_seed(1);
        let mut load: Vec<u64> = Vec::new();
        story.run(3000, |_| {
            load.push(20 + random.u64(0..20) * random.u64(0..20));
            load[load.len() - 1]
        });
        load.sort_unstable();
        for (q, rank) in [(0.5, 1500), (0.9, 2700), (0.99, 2970), (0.999, 2997)] {
            let exact = load[rank - 1] as f64;
            let told = story.figures(Window::Hour).latency.quantile(q).unwrap().as_secs_f64() * 1e3;
            assert!((told - exact).abs() <= 0.02 * exact, "P{q}: {told} instead of {exact}");
        }
    }

    #[test]
    fn what_is_apart_is_counted_and_in_no_curve() {
        let story = Story::new();
        let cell = story.stats.cell(0).unwrap();
        for apart in [None, Some(Apart::Gateway), Some(Apart::Retried), Some(Apart::Retried)] {
            let error = apart == Some(Apart::Gateway);
            let outcome = Outcome { status: if error { 502 } else { 200 }, error, apart, ..Outcome::default() };
            cell.side(Side::Legacy).count(&outcome, "r1");
        }
        let figures = story.figures(Window::Minute);
        assert_eq!((figures.counts.requests(), figures.counts.errors, figures.latency.count()), (4, 1, 1));
        assert_eq!(figures.counts.apart, [1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_slowest_of_the_last_minutes_are_known_by_their_ids() {
        let mut story = Story::new();
        story.run(300, |second| if second < 60 { 30 } else { second });
        let slowest = story.stats.slowest(Side::Legacy, story.now);
        let ids: Vec<&str> = slowest.iter().map(|slow| &*slow.request_id).collect();
        assert_eq!(ids, ["r299", "r298", "r297", "r296", "r295", "r294", "r293", "r292", "r291", "r290"]);
        story.run(5, |_| 2000);
        let slowest = story.stats.slowest(Side::Legacy, story.now);
        assert_eq!((slowest.len(), &*slowest[5].request_id), (10, "r299"));
        assert!(story.stats.slowest(Side::Legacy, story.now + RECENT).len() < 10);
    }

    #[test]
    fn cpu_is_charged_to_the_slice_that_was_closed_last() {
        let mut story = Story::new();
        story.run(10, |_| 20);
        assert_eq!(story.stats.worked(Side::Legacy, story.now), Duration::from_millis(100));
        assert_eq!(story.figures(Window::Minute).cpu, None);
        story.stats.charge(Side::Legacy, Duration::from_millis(60));
        let cpu = Some(Cpu { time: Duration::from_millis(60), requests: 10 });
        assert_eq!(story.run(5, |_| 20).figures(Window::Minute).cpu, cpu);
        assert_eq!(story.run(595, |_| 20).figures(Window::Hour).cpu, cpu);
    }

    #[test]
    fn cpu_is_charged_for_what_the_side_was_asked_and_once() {
        let mut story = Story::new();
        story.run(9, |_| 20);
        let cell = story.stats.cell(0).unwrap();
        for apart in [Apart::Unasked, Apart::Gateway, Apart::Retried] {
            cell.side(Side::Legacy).count(&Outcome { status: 200, apart: Some(apart), ..Outcome::default() }, "r1");
        }
        story.run(1, |_| 20);
        story.stats.charge(Side::Legacy, Duration::from_millis(60));
        let cpu = story.figures(Window::Minute).cpu.unwrap();
        assert_eq!((story.figures(Window::Minute).counts.requests(), cpu.requests), (13, 11));
        // No slice ended now: what the last one worked for was said.
        assert_eq!(story.stats.worked(Side::Legacy, story.now + Duration::from_secs(1)), Duration::ZERO);
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
        assert_eq!(story.figures(Window::Hour).counts.requests(), 1);
    }
}
