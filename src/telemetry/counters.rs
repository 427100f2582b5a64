//! What is counted: per route and side, per upstream, per worker.
//!
//! Every worker writes into cells of its own, on cache lines of its own, with plain loads and
//! stores; a reader adds the cells up. So nothing here is ever contended on a request's path, and
//! what is read is right to within the request that is being counted at that moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Side;
use super::histogram::{Distribution, Histogram};
use super::metrics::BOUNDS;
use super::slowest::{Slow, Slowest};
use super::window::{Curve, Figures, History, Latency, Window};

/// The classes a status is counted by, in the order of [`SideTotals::statuses`].
pub(crate) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Why a call of an upstream failed; the last one takes what is not in the list.
pub(crate) const FAILURES: [&str; 13] = [
    "connect",
    "down",
    "queue_full",
    "queue_timeout",
    "first_byte_timeout",
    "deadline",
    "broken",
    "bad_reply",
    TRUNCATED,
    "spool",
    "file",
    "panic",
    "other",
];

/// The reason of an answer that broke off after its head was sent on.
pub(crate) const TRUNCATED: &str = "truncated";

/// Why an exchange of a side is in none of its curves: how long it took says nothing of how fast the side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// The gateway answered, since the side could not or the request was unfit for it.
    Gateway,
    /// The side was not asked: a file of its was served, or a redirect.
    Unasked,
    /// The side was asked twice.
    Retried,
    /// The answer broke off.
    Truncated,
    /// The client left before the answer's end.
    ClientGone,
}

impl Apart {
    pub(crate) const ALL: [Self; 5] = [Self::Gateway, Self::Unasked, Self::Retried, Self::Truncated, Self::ClientGone];

    /// As labels and answers name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Unasked => "unasked",
            Self::Retried => "retried",
            Self::Truncated => TRUNCATED,
            Self::ClientGone => "client_gone",
        }
    }
}

/// A number written by one thread and read by any.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// For the owning thread only: it loads and stores, since nobody else writes.
    pub(crate) fn add(&self, by: u64) {
        self.0.store(self.value().wrapping_add(by), Ordering::Relaxed);
    }

    /// For the owning thread only.
    pub(crate) fn subtract(&self, by: u64) {
        self.0.store(self.value().wrapping_sub(by), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counted of one side of a route.
#[derive(Debug, Default)]
pub(crate) struct SideCell {
    statuses: [Counter; STATUS_CLASSES.len()],
    errors: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    in_flight: Counter,
    apart: [Counter; Apart::ALL.len()],
    curves: [Histogram; Latency::ALL.len()],
    slowest: Slowest,
    exemplars: Exemplars,
}

/// One exchange's end, as a side is charged with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// A 5xx, or an answer that broke off.
    pub(crate) error: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) total: Duration,
    pub(crate) service: Option<Duration>,
    pub(crate) queue: Duration,
    /// `None`: it belongs into the side's curves.
    pub(crate) apart: Option<Apart>,
}

impl Outcome {
    fn took(&self, latency: Latency) -> Option<Duration> {
        match latency {
            Latency::Total => Some(self.total),
            Latency::Service => self.service,
            Latency::Queue => Some(self.queue),
        }
    }

    fn slow(&self, request_id: &[u8]) -> Slow {
        Slow {
            ended: Instant::now(),
            request_id: String::from_utf8_lossy(request_id).into(),
            status: self.status,
            total: self.total,
            service: self.service,
            queue: self.queue,
            apart: self.apart,
        }
    }
}

impl SideCell {
    pub(crate) fn begin(&self) {
        self.in_flight.add(1);
    }

    pub(crate) fn end(&self) {
        self.in_flight.subtract(1);
    }

    /// Counts an exchange that ended, which the log has under `request_id`.
    pub(crate) fn count(&self, outcome: &Outcome, request_id: impl AsRef<[u8]>) {
        let class = usize::from(outcome.status / 100).saturating_sub(1);
        if let Some(class) = self.statuses.get(class) {
            class.add(1);
        }
        self.errors.add(outcome.error.into());
        self.bytes_in.add(outcome.bytes_in);
        self.bytes_out.add(outcome.bytes_out);
        match outcome.apart {
            None => {
                for (curve, latency) in self.curves.iter().zip(Latency::ALL) {
                    if let Some(took) = outcome.took(latency) {
                        curve.record(took);
                    }
                }
            }
            Some(why) => {
                if let Some(apart) = self.apart.get(why as usize) {
                    apart.add(1);
                }
            }
        }
        self.slowest.offer(outcome.total, || outcome.slow(request_id.as_ref()));
    }

    /// Exchanges that ended.
    fn requests(&self) -> u64 {
        self.statuses.iter().map(Counter::value).sum()
    }

    /// Names an exchange that was counted, for those who look at the histogram.
    pub(crate) fn exemplify(&self, exemplar: Exemplar) {
        self.exemplars.keep(exemplar);
    }
}

/// One exchange whose trace can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) trace_id: u128,
    pub(crate) took: Duration,
    pub(crate) since_epoch: Duration,
}

/// The latest traced exchange of each classic bucket. Only what is sampled comes here; its worker never waits
/// for a reader, but rather goes without.
#[derive(Debug, Default)]
struct Exemplars(Mutex<Option<Box<[Option<Exemplar>; BOUNDS.len() + 1]>>>);

impl Exemplars {
    fn keep(&self, exemplar: Exemplar) {
        let Ok(mut kept) = self.0.try_lock() else { return };
        let bucket = BOUNDS.partition_point(|bound| *bound < exemplar.took);
        if let Some(place) = kept.get_or_insert_default().get_mut(bucket) {
            *place = Some(exemplar);
        }
    }

    fn kept(&self) -> Vec<Exemplar> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().flat_map(|buckets| buckets.iter().flatten()).copied().collect()
    }
}

/// What one worker counted of one route. The alignment keeps neighbours off its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct RouteCell {
    name: Arc<str>,
    sides: [OnceLock<Box<SideCell>>; Side::ALL.len()],
}

impl RouteCell {
    fn new(name: &Arc<str>) -> Self {
        Self { name: Arc::clone(name), sides: Default::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The side's cell, made when the worker first serves that side.
    pub(crate) fn side(&self, side: Side) -> &SideCell {
        let [legacy, new, gateway] = &self.sides;
        let cell = match side {
            Side::Legacy => legacy,
            Side::New => new,
            Side::Gateway => gateway,
        };
        cell.get_or_init(Box::default)
    }

    fn peek(&self, side: Side) -> Option<&SideCell> {
        self.sides.iter().zip(Side::ALL).find(|(_, of)| *of == side)?.0.get().map(|cell| &**cell)
    }
}

/// What all workers counted of one side of a route, from the beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct SideTotals {
    pub(crate) statuses: [u64; STATUS_CLASSES.len()],
    pub(crate) errors: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) in_flight: u64,
    /// In the order of [`Apart::ALL`].
    pub(crate) apart: [u64; Apart::ALL.len()],
    /// In the order of [`Latency::ALL`].
    pub(crate) curves: [Distribution; Latency::ALL.len()],
}

impl SideTotals {
    fn add(&mut self, cell: &SideCell) {
        for (sum, class) in self.statuses.iter_mut().zip(&cell.statuses) {
            *sum += class.value();
        }
        self.errors += cell.errors.value();
        self.bytes_in += cell.bytes_in.value();
        self.bytes_out += cell.bytes_out.value();
        self.in_flight = self.in_flight.wrapping_add(cell.in_flight.value());
        for (sum, apart) in self.apart.iter_mut().zip(&cell.apart) {
            *sum += apart.value();
        }
        for (sum, curve) in self.curves.iter_mut().zip(&cell.curves) {
            curve.add_to(sum);
        }
    }

    /// All durations of that kind.
    pub(crate) fn curve(&self, latency: Latency) -> &Distribution {
        latency.of(&self.curves)
    }

    /// Exchanges that ended.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> u64 {
        self.statuses.iter().sum()
    }
}

/// What is recorded of one route, over all workers; lives as long as a table or an exchange holds it.
#[derive(Debug)]
pub(crate) struct RouteStats {
    name: Arc<str>,
    workers: Box<[OnceLock<Arc<RouteCell>>]>,
    // Written by the control plane alone; it dies with the route, which bounds it by the table.
    history: Mutex<History>,
}

impl RouteStats {
    pub(crate) fn new(name: &str, workers: usize, now: Instant) -> Self {
        Self {
            name: name.into(),
            workers: (0..workers).map(|_| OnceLock::new()).collect(),
            history: Mutex::new(History::new(now)),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Worker `index`'s own cell: with its own reference count, which no other worker touches.
    pub(crate) fn cell(&self, index: usize) -> Option<Arc<RouteCell>> {
        let cell = self.workers.get(index)?.get_or_init(|| Arc::new(RouteCell::new(&self.name)));
        Some(Arc::clone(cell))
    }

    /// All workers' figures of one side; `None` when it never served.
    pub(crate) fn totals(&self, side: Side) -> Option<SideTotals> {
        let mut sum: Option<SideTotals> = None;
        for cell in self.side_cells(side) {
            sum.get_or_insert_default().add(cell);
        }
        sum
    }

    /// Exchanges of one side whose traces can be looked up, the latest last.
    pub(crate) fn exemplars(&self, side: Side) -> Vec<Exemplar> {
        let cells = self.workers.iter().filter_map(OnceLock::get).filter_map(|cell| cell.peek(side));
        let mut exemplars: Vec<Exemplar> = cells.flat_map(|cell| cell.exemplars.kept()).collect();
        exemplars.sort_unstable_by_key(|exemplar| exemplar.since_epoch);
        exemplars
    }

    /// One side's figures of the window that ends now; `None` when nothing was served in it.
    pub(crate) fn figures(&self, side: Side, window: Window, latency: Latency, now: Instant) -> Option<Figures> {
        self.figures_of(side, &self.totals(side)?, window, latency, now)
    }

    /// The same of totals that were read just now.
    pub(crate) fn figures_of(
        &self,
        side: Side,
        totals: &SideTotals,
        window: Window,
        latency: Latency,
        now: Instant,
    ) -> Option<Figures> {
        self.history().figures(side, totals, window, latency, now)
    }

    /// One side's points in a window, slice by slice, the one that runs included.
    pub(crate) fn curve(&self, side: Side, window: Window, latency: Latency, now: Instant) -> Vec<Curve> {
        let Some(totals) = self.totals(side) else { return Vec::new() };
        self.history().curve(side, &totals, window, latency, now)
    }

    /// The slowest exchanges of the last ten minutes on one side, the slowest first.
    pub(crate) fn slowest(&self, side: Side, now: Instant) -> Vec<Slow> {
        let young = self.side_cells(side).flat_map(|cell| cell.slowest.peek()).collect();
        self.history().slowest(side, young, now)
    }

    /// Closes the slice of time that is over.
    pub(crate) fn tick(&self, now: Instant) {
        let mut history = self.history();
        if !history.due(now) {
            return;
        }
        // Most of many routes rest most of the time: nothing came since the last reading.
        let rests = |side| self.side_cells(side).map(SideCell::requests).sum::<u64>() == history.requests(side);
        let reading = Side::ALL.map(|side| if rests(side) { None } else { self.totals(side) });
        history.close(now, &reading);
        for (side, read) in Side::ALL.into_iter().zip(&reading) {
            if read.is_none() && history.slowest_are_recent(side, now) {
                continue;
            }
            let young = self.side_cells(side).flat_map(|cell| cell.slowest.collect()).collect();
            let known = history.keep_slowest(side, young, now);
            self.side_cells(side).for_each(|cell| cell.slowest.raise(known));
        }
    }

    /// How long one side was at work in the slice that was closed at `now`, if one was: the sum of its service times.
    pub(crate) fn worked(&self, side: Side, now: Instant) -> Duration {
        self.history().worked(side, now)
    }

    /// Charges one side with CPU time for the slice that was closed last.
    pub(crate) fn charge(&self, side: Side, cpu: Duration) {
        self.history().charge(side, cpu);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn side_cells(&self, side: Side) -> impl Iterator<Item = &SideCell> {
        self.workers.iter().filter_map(OnceLock::get).filter_map(move |cell| cell.peek(side))
    }

    /// Counts one exchange as the first worker would.
    #[cfg(test)]
    pub(crate) fn count_for_tests(&self, side: Side, status: u16, total: Duration) {
        let error = status >= 500;
        let outcome = Outcome { status, error, total, ..Outcome::default() };
        self.cell(0).unwrap().side(side).count(&outcome, "r1");
    }

    /// Counts one exchange that its side worked for all of the time.
    #[cfg(test)]
    pub(crate) fn serve_for_tests(&self, side: Side, service: Duration) {
        let outcome = Outcome { status: 200, total: service, service: Some(service), ..Outcome::default() };
        self.cell(0).unwrap().side(side).count(&outcome, "r1");
    }

    #[cfg(test)]
    pub(crate) fn history_for_tests(&self) -> MutexGuard<'_, History> {
        self.history()
    }
}

/// What one worker counted of one upstream or handler.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct UpstreamCell {
    name: Arc<str>,
    failures: [Counter; FAILURES.len()],
    queue: Histogram,
}

impl UpstreamCell {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn failed(&self, reason: &str) {
        let reason = FAILURES.iter().position(|known| *known == reason).unwrap_or(FAILURES.len() - 1);
        if let Some(counter) = self.failures.get(reason) {
            counter.add(1);
        }
    }

    pub(crate) fn queued(&self, waited: Duration) {
        self.queue.record(waited);
    }
}

/// What is recorded of one upstream or handler (failures by reason, queue seconds).
#[derive(Debug)]
pub(crate) struct UpstreamStats {
    name: Arc<str>,
    workers: Box<[OnceLock<Arc<UpstreamCell>>]>,
}

/// What all workers counted of one upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamTotals {
    /// In the order of [`FAILURES`].
    pub(crate) failures: [u64; FAILURES.len()],
    pub(crate) queue: Distribution,
}

impl UpstreamStats {
    pub(crate) fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), workers: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Worker `index`'s own cell.
    pub(crate) fn cell(&self, index: usize) -> Option<Arc<UpstreamCell>> {
        let cell = self.workers.get(index)?.get_or_init(|| {
            Arc::new(UpstreamCell {
                name: Arc::clone(&self.name),
                failures: Default::default(),
                queue: Histogram::default(),
            })
        });
        Some(Arc::clone(cell))
    }

    pub(crate) fn totals(&self) -> UpstreamTotals {
        let mut sum = UpstreamTotals::default();
        for cell in self.workers.iter().filter_map(OnceLock::get) {
            for (sum, failures) in sum.failures.iter_mut().zip(&cell.failures) {
                *sum += failures.value();
            }
            cell.queue.add_to(&mut sum.queue);
        }
        sum
    }
}

/// Why a check refused a request; the last one takes what is not in the list.
pub(crate) const REFUSALS: [&str; 26] = [
    "missing",
    "malformed",
    "unknown",
    "expired",
    "no_user",
    "unreadable",
    "store_down",
    "unknown_key",
    "stale",
    "future",
    "ambiguous",
    "digest",
    "signature",
    "replay",
    "retired_key",
    "uncovered",
    "restarted",
    "nonces_full",
    "issuer",
    "audience",
    "claim",
    "refused",
    "authority_down",
    "address",
    "body",
    "other",
];

/// What a check can say of a request on which its verdict is compared with that of the legacy side.
pub(crate) const VERDICTS: [&str; 3] = ["pass", "refuse", "undecided"];

/// What the legacy side can say of it.
pub(crate) const LEGACY_VERDICTS: [&str; 2] = ["pass", "refuse"];

/// What one worker counted of one check of one route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CheckCell {
    refused: [Counter; REFUSALS.len()],
    /// Left to the legacy side to decide.
    undecided: [Counter; REFUSALS.len()],
    /// By the check's verdict and by that of the legacy side.
    compared: [[Counter; LEGACY_VERDICTS.len()]; VERDICTS.len()],
}

/// What is recorded of one check of one route: by reason, what it refused and what it left undecided.
#[derive(Debug)]
pub(crate) struct CheckStats {
    route: Arc<str>,
    check: Arc<str>,
    workers: Box<[OnceLock<CheckCell>]>,
}

impl CheckStats {
    pub(crate) fn new(route: &str, check: &str, workers: usize) -> Self {
        Self { route: route.into(), check: check.into(), workers: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    /// The route and the check, by name.
    pub(crate) fn names(&self) -> (&Arc<str>, &Arc<str>) {
        (&self.route, &self.check)
    }

    /// For worker `index` only.
    pub(crate) fn refused(&self, index: usize, reason: &str) {
        self.add(index, reason, |cell| &cell.refused);
    }

    /// For worker `index` only.
    pub(crate) fn undecided(&self, index: usize, reason: &str) {
        self.add(index, reason, |cell| &cell.undecided);
    }

    fn add(&self, index: usize, reason: &str, of: impl Fn(&CheckCell) -> &[Counter; REFUSALS.len()]) {
        let Some(cell) = self.workers.get(index) else { return };
        let known = REFUSALS.iter().position(|known| *known == reason).unwrap_or(REFUSALS.len() - 1);
        if let Some(counter) = of(cell.get_or_init(CheckCell::default)).get(known) {
            counter.add(1);
        }
    }

    /// For worker `index` only: what the check said, one of [`VERDICTS`], and whether the legacy side refused.
    pub(crate) fn compared(&self, index: usize, verdict: &str, refused: bool) {
        let Some(cell) = self.workers.get(index) else { return };
        let Some(verdict) = VERDICTS.iter().position(|known| *known == verdict) else { return };
        if let Some([passed, turned_away]) = cell.get_or_init(CheckCell::default).compared.get(verdict) {
            if refused { turned_away } else { passed }.add(1);
        }
    }

    /// Comparisons over all workers, in the orders of [`VERDICTS`] and [`LEGACY_VERDICTS`].
    pub(crate) fn comparisons(&self) -> [[u64; LEGACY_VERDICTS.len()]; VERDICTS.len()] {
        let mut sum = [[0; LEGACY_VERDICTS.len()]; VERDICTS.len()];
        for cell in self.workers.iter().filter_map(OnceLock::get) {
            for (sum, count) in sum.iter_mut().flatten().zip(cell.compared.iter().flatten()) {
                *sum += count.value();
            }
        }
        sum
    }

    /// Refusals over all workers by reason.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.into_iter().zip(self.refusals())
    }

    /// What was refused over all workers, in the order of [`REFUSALS`].
    pub(crate) fn refusals(&self) -> [u64; REFUSALS.len()] {
        self.sum(|cell| &cell.refused)
    }

    /// What was left to the legacy side over all workers, in the order of [`REFUSALS`].
    pub(crate) fn undecideds(&self) -> [u64; REFUSALS.len()] {
        self.sum(|cell| &cell.undecided)
    }

    fn sum(&self, of: impl Fn(&CheckCell) -> &[Counter; REFUSALS.len()]) -> [u64; REFUSALS.len()] {
        let mut sum = [0; REFUSALS.len()];
        for cell in self.workers.iter().filter_map(OnceLock::get) {
            sum.iter_mut().zip(of(cell)).for_each(|(sum, counter)| *sum += counter.value());
        }
        sum
    }
}

/// What one worker counts that belongs to no route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCell {
    /// Client connections open now.
    pub(crate) connections: Counter,
    /// Client connections closed unread, since there were too many.
    pub(crate) refused: Counter,
    /// Lines of the access log that found no room.
    pub(crate) lines_dropped: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, total: u64) -> Outcome {
        Outcome {
            status,
            error: status >= 500,
            bytes_in: 1,
            bytes_out: 10,
            total: Duration::from_millis(total),
            ..Outcome::default()
        }
    }

    #[test]
    fn cells_of_two_workers_add_up_while_both_are_counting() {
        let stats = RouteStats::new("order", 2, Instant::now());
        std::thread::scope(|scope| {
            for (index, status) in [(0, 200), (1, 503)] {
                let cell = stats.cell(index).unwrap();
                scope.spawn(move || {
                    for millis in 1..=1_000 {
                        cell.side(Side::Legacy).count(&outcome(status, millis), "r1");
                    }
                });
            }
        });
        let totals = stats.totals(Side::Legacy).unwrap();
        assert_eq!((totals.statuses, totals.errors), ([0, 1_000, 0, 0, 1_000], 1_000));
        assert_eq!((totals.bytes_in, totals.bytes_out), (2_000, 20_000));
        assert_eq!((totals.requests(), totals.curve(Latency::Total).count()), (2_000, 2_000));
        assert!(stats.totals(Side::New).is_none());
    }

    #[test]
    fn a_failure_that_is_not_listed_is_counted_as_other() {
        let stats = UpstreamStats::new("php", 1);
        let cell = stats.cell(0).unwrap();
        cell.failed("connect");
        cell.failed("never heard of");
        assert_eq!(stats.totals().failures, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_refusal_is_counted_by_its_reason_and_one_that_is_not_listed_as_other() {
        let stats = CheckStats::new("order", "login", 2);
        stats.refused(0, "missing");
        stats.refused(1, "missing");
        stats.refused(1, "never heard of");
        let totals = stats.refusals();
        assert_eq!((totals[0], totals[REFUSALS.len() - 1], totals.iter().sum::<u64>()), (2, 1, 3));
    }

    #[test]
    fn a_worker_beyond_those_announced_has_no_cell() {
        assert!(RouteStats::new("order", 2, Instant::now()).cell(2).is_none());
    }
}
