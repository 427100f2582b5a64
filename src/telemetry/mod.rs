//! What is kept of an exchange: counters, histograms, metrics, the access log.
//!
//! Workers write ([`Recorder`], [`Exchange`]) into memory of their own; the control plane reads
//! ([`Telemetry`]) by adding the workers' cells up, and keeps the last hour of each route. Nothing
//! on a request's path waits, for a lock or for anything else, or touches another worker's cache lines.
//! The room knows routes, sides and upstreams by name only; gauges of what it does not know are
//! handed in as [`Gauges`] when they are read.

mod access_log;
mod counters;
mod courtesy;
mod exchange;
mod exposition;
pub(crate) mod fair;
mod family;
mod forecast;
mod histogram;
mod line;
mod metrics;
#[cfg(test)]
mod observability;
mod protobuf;
mod readiness;
mod slowest;
mod text;
mod trace;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

pub(crate) use self::access_log::Destination;
pub(crate) use self::counters::{Apart, CheckStats, RouteStats, STATUS_CLASSES, UpstreamStats};
pub(crate) use self::courtesy::Courtesy;
pub(crate) use self::exchange::{Exchange, Recorded, Recorder};
pub(crate) use self::exposition::resident_bytes;
pub(crate) use self::forecast::{MOST as FORECAST_MINUTES, until_full};
pub(crate) use self::histogram::Distribution;
pub(crate) use self::metrics::{
    CheckGauge, Format, Gauges, HandlerGauge, KeyGauge, RouteGauge, SideGauge, UpstreamGauge,
};
pub(crate) use self::readiness::Readiness;
pub(crate) use self::slowest::Slow;
pub(crate) use self::trace::{Exporter, TraceSettings, WHOLE as TRACES_WHOLE};
pub(crate) use self::window::{Curve, Figures, Latency, SLICE, Window};

use self::access_log::AccessLog;
use self::counters::WorkerCell;
use self::trace::Tracer;

/// The name under which requests that no route matched are counted and logged.
pub(crate) const UNMATCHED: &str = "-";

/// Who answered an exchange: one of the two sides, or the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Legacy,
    New,
    Gateway,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Legacy, Self::New, Self::Gateway];

    /// Its name in labels, logs and answers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::New => "new",
            Self::Gateway => "gateway",
        }
    }
}

/// Figures by name. Weak: what no table holds any more is forgotten; a name that comes back while
/// it is still held goes on where it was.
type Registry<T> = Mutex<BTreeMap<Box<str>, Weak<T>>>;

/// All there is to measure with: made once, shared by control plane and workers.
#[derive(Debug)]
pub(crate) struct Telemetry {
    routes: Registry<RouteStats>,
    upstreams: Registry<UpstreamStats>,
    checks: Registry<CheckStats>,
    workers: Box<[Arc<WorkerCell>]>,
    unmatched: Arc<RouteStats>,
    log: AccessLog,
    tracer: Mutex<Option<Tracer>>,
    traces_dropped: Arc<AtomicU64>,
    readiness: Readiness,
}

impl Telemetry {
    /// For `workers` workers, whose lines go to `access_log`.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub(crate) fn new(workers: usize, access_log: &Destination) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::with(workers, AccessLog::open(access_log)?)))
    }

    /// For commands that read a file and serve nothing: it records nothing.
    pub(crate) fn idle() -> Self {
        Self::with(0, AccessLog::off())
    }

    fn with(workers: usize, log: AccessLog) -> Self {
        Self {
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            checks: Mutex::default(),
            workers: (0..workers).map(|_| Arc::default()).collect(),
            unmatched: Arc::new(RouteStats::new(UNMATCHED, workers, Instant::now())),
            log,
            tracer: Mutex::default(),
            traces_dropped: Arc::default(),
            readiness: Readiness::default(),
        }
    }

    /// Whether the gateway wants traffic.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What is recorded of the route of that name; the same as long as somebody holds it.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteStats> {
        registered(&self.routes, name, || RouteStats::new(name, self.workers.len(), Instant::now()))
    }

    /// What is recorded of the upstream or handler of that name; the same as long as somebody holds it.
    pub(crate) fn upstream(&self, name: &str) -> Arc<UpstreamStats> {
        registered(&self.upstreams, name, || UpstreamStats::new(name, self.workers.len()))
    }

    /// What is recorded of a check of a route; the same as long as somebody holds it.
    pub(crate) fn check(&self, route: &str, check: &str) -> Arc<CheckStats> {
        // No name holds a control character, so no two pairs look alike.
        let names = format!("{route}\n{check}");
        registered(&self.checks, &names, || CheckStats::new(route, check, self.workers.len()))
    }

    /// What worker `index` records with. One worker, one index below the number announced: the
    /// counters behind it take a single writer.
    pub(crate) fn recorder(&self, index: usize) -> Recorder {
        let cell = self.workers.get(index).cloned().unwrap_or_default();
        let lines = self.log.lines(&cell);
        let tracer = self.tracer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Recorder::new(index, cell, &self.unmatched, lines, tracer)
    }

    /// Closes the slices of time that are over. The control plane calls it every ten seconds.
    pub(crate) async fn tick(&self, now: Instant) {
        let mut courtesy = Courtesy::new();
        for route in self.routes() {
            route.tick(now);
            courtesy.offer().await;
        }
    }

    /// Has the recorders that are made from now on make traces; somebody must run what sends them.
    pub(crate) fn trace(&self, settings: &TraceSettings) -> Exporter {
        let (tracer, exporter) = Tracer::new(settings, &self.traces_dropped);
        *self.tracer.lock().unwrap_or_else(PoisonError::into_inner) = Some(tracer);
        exporter
    }

    /// No more traces come: once the workers are gone, what sends them ends when all are sent.
    pub(crate) fn end_traces(&self) {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Traces that were to be exported and could not be.
    fn traces_dropped(&self) -> u64 {
        self.traces_dropped.load(Ordering::Relaxed)
    }

    /// Writes the last lines of the access log; called once the workers are gone.
    pub(crate) fn close(&self) {
        self.log.close();
    }

    /// Lines of the access log that were dropped, by workers or by the writer.
    fn log_lines_dropped(&self) -> u64 {
        self.workers.iter().map(|cell| cell.lines_dropped.value()).sum::<u64>() + self.log.lost()
    }

    /// Client connections open now.
    fn connections(&self) -> u64 {
        self.workers.iter().map(|cell| cell.connections.value()).fold(0, u64::wrapping_add)
    }

    /// Client connections that were closed unread, since there were too many.
    fn connections_refused(&self) -> u64 {
        self.workers.iter().map(|cell| cell.refused.value()).sum()
    }

    /// All routes that are still held, and what no route matched.
    fn routes(&self) -> Vec<Arc<RouteStats>> {
        let mut routes = held(&self.routes);
        routes.push(Arc::clone(&self.unmatched));
        routes
    }

    fn upstreams(&self) -> Vec<Arc<UpstreamStats>> {
        held(&self.upstreams)
    }

    fn checks(&self) -> Vec<Arc<CheckStats>> {
        held(&self.checks)
    }
}

fn registered<T>(registry: &Registry<T>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = registry.get(name).and_then(Weak::upgrade) {
        return known;
    }
    let made = Arc::new(make());
    registry.insert(name.into(), Arc::downgrade(&made));
    made
}

/// What is still held, in the order of names; the rest is struck off.
fn held<T>(registry: &Registry<T>) -> Vec<Arc<T>> {
    let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held = Vec::with_capacity(registry.len());
    registry.retain(|_, weak| weak.upgrade().map(|known| held.push(known)).is_some());
    held
}
