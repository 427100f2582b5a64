//! `/metrics`: the values of all metrics at one moment.
//!
//! Everything is read when it is asked for: workers' cells are added up, gauges are handed in, the
//! process is looked up in `/proc`. How a metric is written is the affair of [`super::text`] and
//! [`super::protobuf`].

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::counters::{
    Apart, CheckStats, FAILURES, LEGACY_VERDICTS, REFUSALS, RouteStats, STATUS_CLASSES, SideTotals, UpstreamStats,
    VERDICTS,
};
use super::courtesy::Courtesy;
use super::family::{Histogram, Labels, Value};
use super::metrics::{
    APART, BUILD, BYTES_IN, BYTES_OUT, CHECK_CACHE, CHECK_PARITY, CHECK_REFUSED, CHECK_STORE_OPERATIONS,
    CHECK_STORE_SECONDS, CHECK_STORE_UP, CHECK_UNDECIDED, CONNECTIONS, CPU, DURATION, ERRORS, FILE_REJECTED, Format,
    GENERATION, Gauges, IN_FLIGHT, KEY_USED, LOG_DROPPED, MEMORY, Metric, QUANTILE, REFUSED, RELOADS, REQUESTS,
    SATURATION, SERVE, SERVICE, SIDE_CPU, SIDE_MEMORY, STALLS, TRACES_DROPPED, UPSTREAM_CONNECTIONS, UPSTREAM_FAILURES,
    UPSTREAM_QUEUE, UPSTREAM_QUEUE_SECONDS,
};
use super::window::{Latency, Window};
use super::{Side, Telemetry, protobuf, text};

/// The quantiles of the last minute.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The words of `serve` that always have a series, so that a flip is seen as one falling and one rising.
const SERVES: [&str; 2] = ["legacy", "new"];

/// Clock ticks of `/proc/self/stat` per second: part of Linux' interface on every machine we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Room for what is handed over at once…
const PIECE: usize = 64 << 10;
/// …and how much of it is taken when it is: a sample of some thousand bytes more finds room.
const FULL: usize = PIECE / 4 * 3;

impl Telemetry {
    /// Writes all metrics of this moment in one of the formats, piece by piece as `reader` takes them. Whoever takes
    /// them is to drop this when it wants no more.
    pub(crate) async fn write_metrics(&self, gauges: Gauges, format: Format, reader: mpsc::Sender<Bytes>) {
        let mut courtesy = Courtesy::new();
        let reading = Reading::take(self, gauges, format, &mut courtesy).await;
        let mut writer = Writer { piece: Vec::with_capacity(PIECE), format, reader, courtesy };
        reading.write(&mut writer).await;
        if format == Format::OpenMetrics {
            writer.piece.extend_from_slice(b"# EOF\n");
        }
        writer.hand_over().await;
    }
}

/// What the metrics are written into: a piece at a time, so that a scrape takes no more memory than what is read for it,
/// however long it is and however slowly it is read.
struct Writer {
    piece: Vec<u8>,
    format: Format,
    reader: mpsc::Sender<Bytes>,
    courtesy: Courtesy,
}

impl Writer {
    /// Writes a metric with all its samples.
    async fn family<'a, const N: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Labels<'a, N>, Value<'a>)>,
    ) {
        let mut family = Family::begin(&mut self.piece, metric, self.format);
        for (labels, value) in samples {
            family.sample(&mut self.piece, &labels, value);
            if self.piece.len() >= FULL && family.is_in_lines() {
                self.hand_over().await;
            }
            self.courtesy.offer().await;
        }
        family.end(&mut self.piece);
        if self.piece.len() >= FULL {
            self.hand_over().await;
        }
    }

    async fn hand_over(&mut self) {
        let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        // Whoever takes no more drops this.
        let _ = self.reader.send(piece.into()).await;
    }
}

/// A metric that is being written.
enum Family {
    Text(text::Family),
    Protobuf(protobuf::Family),
}

impl Family {
    fn begin(out: &mut Vec<u8>, metric: &Metric, format: Format) -> Self {
        match format {
            Format::Prometheus => Self::Text(text::Family::begin(out, metric, false)),
            Format::OpenMetrics => Self::Text(text::Family::begin(out, metric, true)),
            Format::Protobuf => Self::Protobuf(protobuf::Family::begin(out, metric)),
        }
    }

    fn sample(&mut self, out: &mut Vec<u8>, labels: &[(&'static str, &str)], value: Value<'_>) {
        match self {
            Self::Text(family) => family.sample(out, labels, value),
            Self::Protobuf(family) => family.sample(out, labels, value),
        }
    }

    /// Whether what was written so far may go before the rest is there: a message has its length before it.
    fn is_in_lines(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn end(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(_) => {}
            Self::Protobuf(family) => family.end(out),
        }
    }
}

/// Everything that is written, read at one moment.
#[derive(Debug)]
struct Reading {
    sides: Vec<SideReading>,
    upstreams: Vec<UpstreamReading>,
    checks: Vec<Arc<CheckStats>>,
    gauges: Gauges,
    connections: u64,
    connections_refused: u64,
    log_dropped: u64,
    traces_dropped: u64,
    process: Option<Process>,
}

/// Small, since there are thousands: what is written of a distribution, not the distribution.
#[derive(Debug)]
struct SideReading {
    route: Arc<RouteStats>,
    side: &'static str,
    numbers: Numbers,
    duration: Histogram,
    service: Histogram,
    /// Of the last minute, if anything was measured in it.
    quantiles: Option<[(f64, Duration); QUANTILES.len()]>,
}

#[derive(Debug)]
struct UpstreamReading {
    upstream: Arc<UpstreamStats>,
    failures: [u64; FAILURES.len()],
    queue: Histogram,
}

/// What is no distribution of a side's totals.
#[derive(Debug)]
struct Numbers {
    statuses: [u64; STATUS_CLASSES.len()],
    errors: u64,
    apart: [u64; Apart::ALL.len()],
    in_flight: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl SideReading {
    /// `None` of a side that never served.
    fn take(route: &Arc<RouteStats>, side: Side, format: Format, now: Instant) -> Option<Self> {
        let totals = route.totals(side)?;
        let minute = route.figures_of(side, &totals, Window::Minute, Latency::Total, now);
        let quantiles = minute.and_then(|minute| {
            let [p50, p90, p99, p999] = QUANTILES.map(|q| Some((q, minute.latency.quantile(q)?)));
            Some([p50?, p90?, p99?, p999?])
        });
        let mut duration = Histogram::of(totals.curve(Latency::Total), format);
        for exemplar in route.exemplars(side) {
            duration.exemplify(exemplar);
        }
        let service = Histogram::of(totals.curve(Latency::Service), format);
        let SideTotals { statuses, errors, apart, in_flight, bytes_in, bytes_out, .. } = totals;
        let numbers = Numbers { statuses, errors, apart, in_flight, bytes_in, bytes_out };
        Some(Self { route: Arc::clone(route), side: side.word(), numbers, duration, service, quantiles })
    }

    fn quantiles(&self) -> &[(f64, Duration)] {
        self.quantiles.as_ref().map_or(&[], |quantiles| quantiles)
    }
}

impl Reading {
    async fn take(telemetry: &Telemetry, gauges: Gauges, format: Format, courtesy: &mut Courtesy) -> Self {
        courtesy.pause().await;
        let (now, routes) = (Instant::now(), telemetry.routes());
        let mut sides = Vec::with_capacity(2 * routes.len());
        courtesy.pause().await;
        for route in routes {
            sides.extend(Side::ALL.into_iter().filter_map(|side| SideReading::take(&route, side, format, now)));
            courtesy.offer().await;
        }
        let upstreams = telemetry.upstreams().into_iter().map(|upstream| {
            let totals = upstream.totals();
            UpstreamReading { upstream, failures: totals.failures, queue: Histogram::of(&totals.queue, format) }
        });
        Self {
            sides,
            upstreams: upstreams.collect(),
            checks: telemetry.checks(),
            gauges,
            connections: telemetry.connections(),
            connections_refused: telemetry.connections_refused(),
            log_dropped: telemetry.log_lines_dropped(),
            traces_dropped: telemetry.traces_dropped(),
            process: Process::read(),
        }
    }

    async fn requests(&self, out: &mut Writer) {
        let sides = || self.sides.iter().map(|of| ([("route", of.route.name()), ("side", of.side)], of));
        numbers(
            out,
            &REQUESTS,
            sides().flat_map(|([route, side], of)| {
                let classes = STATUS_CLASSES.into_iter().zip(of.numbers.statuses);
                classes.map(move |(class, count)| ([route, side, ("status", class)], count))
            }),
        )
        .await;
        numbers(out, &ERRORS, sides().map(|(labels, of)| (labels, of.numbers.errors))).await;
        numbers(
            out,
            &APART,
            sides().flat_map(|([route, side], of)| {
                let reasons = Apart::ALL.into_iter().zip(of.numbers.apart).filter(|(_, count)| *count > 0);
                reasons.map(move |(why, count)| ([route, side, ("reason", why.word())], count))
            }),
        )
        .await;
        numbers(out, &IN_FLIGHT, sides().map(|(labels, of)| (labels, of.numbers.in_flight))).await;
        out.family(&DURATION, sides().map(|(labels, of)| (labels, Value::Histogram(&of.duration)))).await;
        out.family(&SERVICE, sides().map(|(labels, of)| (labels, Value::Histogram(&of.service)))).await;
        out.family(&QUANTILE, sides().map(|(labels, of)| (labels, Value::Summary(of.quantiles(), &of.duration)))).await;
        numbers(out, &BYTES_IN, sides().map(|(labels, of)| (labels, of.numbers.bytes_in))).await;
        numbers(out, &BYTES_OUT, sides().map(|(labels, of)| (labels, of.numbers.bytes_out))).await;
    }

    /// A reason has a series from its first refusal on: most never come up.
    async fn checks(&self, out: &mut Writer) {
        type Counts = fn(&CheckStats) -> [u64; REFUSALS.len()];
        let counts: [Counts; 2] = [CheckStats::refusals, CheckStats::undecideds];
        for (metric, counts) in [&CHECK_REFUSED, &CHECK_UNDECIDED].into_iter().zip(counts) {
            let samples = self.checks.iter().flat_map(|stats| {
                let (route, check) = stats.names();
                let reasons = REFUSALS.into_iter().zip(counts(stats)).filter(|(_, count)| *count > 0);
                reasons
                    .map(move |(reason, count)| ([("route", &**route), ("check", &**check), ("reason", reason)], count))
            });
            numbers(out, metric, samples).await;
        }
        let compared = self.checks.iter().flat_map(|stats| {
            let (route, check) = stats.names();
            VERDICTS.into_iter().zip(stats.comparisons()).flat_map(move |(edge, counts)| {
                LEGACY_VERDICTS.into_iter().zip(counts).filter(|(_, count)| *count > 0).map(move |(legacy, count)| {
                    ([("route", &**route), ("check", &**check), ("edge", edge), ("legacy", legacy)], count)
                })
            })
        });
        numbers(out, &CHECK_PARITY, compared).await;
        let keys = self.gauges.keys.iter();
        numbers(out, &KEY_USED, keys.map(|of| ([("check", &*of.check), ("key", &*of.key)], of.used))).await;
    }

    async fn check_stores(&self, out: &mut Writer) {
        let checks = || self.gauges.checks.iter().map(|of| ("check", &*of.name)).zip(&self.gauges.checks);
        let operations = checks().flat_map(|(check, of)| {
            of.operations.iter().map(move |(result, count)| ([check, ("result", result)], *count))
        });
        numbers(out, &CHECK_STORE_OPERATIONS, operations).await;
        numbers(out, &CHECK_STORE_SECONDS, checks().map(|(check, of)| ([check], of.seconds))).await;
        numbers(out, &CHECK_STORE_UP, checks().map(|(check, of)| ([check], u64::from(of.store_up)))).await;
        let cached = checks().filter_map(|(check, of)| Some((check, of.cache?))).flat_map(|(check, (hits, misses))| {
            [("hit", hits), ("miss", misses)].map(|(result, count)| ([check, ("result", result)], count))
        });
        numbers(out, &CHECK_CACHE, cached).await;
    }

    async fn table(&self, out: &mut Writer) {
        numbers(
            out,
            &SERVE,
            self.gauges.routes.iter().flat_map(|route| {
                let other = (!SERVES.contains(&route.serve)).then_some(route.serve);
                SERVES
                    .into_iter()
                    .chain(other)
                    .map(|serve| ([("route", &*route.name), ("serve", serve)], u64::from(serve == route.serve)))
            }),
        )
        .await;
        numbers(out, &GENERATION, [([], self.gauges.generation)]).await;
        let reloads = [("accepted", self.gauges.reloads_accepted), ("rejected", self.gauges.reloads_rejected)];
        numbers(out, &RELOADS, reloads.map(|(result, count)| ([("result", result)], count))).await;
        numbers(out, &FILE_REJECTED, [([], u64::from(self.gauges.file_rejected))]).await;
    }

    async fn upstreams(&self, out: &mut Writer) {
        numbers(
            out,
            &UPSTREAM_CONNECTIONS,
            self.gauges.upstreams.iter().flat_map(|of| {
                let states = [("in_use", of.in_use), ("idle", of.idle)];
                states.map(|(state, count)| ([("upstream", &*of.name), ("state", state)], count))
            }),
        )
        .await;
        numbers(out, &UPSTREAM_QUEUE, self.gauges.upstreams.iter().map(|of| ([("upstream", &*of.name)], of.waiting)))
            .await;
        let upstreams = || self.upstreams.iter().map(|of| ([("upstream", of.upstream.name())], of));
        out.family(&UPSTREAM_QUEUE_SECONDS, upstreams().map(|(labels, of)| (labels, Value::Histogram(&of.queue))))
            .await;
        numbers(
            out,
            &UPSTREAM_FAILURES,
            upstreams().flat_map(|([upstream], of)| {
                let reasons = FAILURES.into_iter().zip(of.failures);
                reasons.map(move |(reason, count)| ([upstream, ("reason", reason)], count))
            }),
        )
        .await;
        numbers(
            out,
            &SATURATION,
            self.gauges.upstreams.iter().filter_map(|of| Some(([("upstream", &*of.name)], of.saturation_seconds?))),
        )
        .await;
        let sides = || self.gauges.sides.iter().map(|of| ([("side", of.side)], of));
        numbers(out, &SIDE_CPU, sides().filter_map(|(labels, of)| Some((labels, of.cpu_seconds?)))).await;
        numbers(out, &SIDE_MEMORY, sides().filter_map(|(labels, of)| Some((labels, of.memory_bytes?)))).await;
        numbers(out, &STALLS, self.gauges.handlers.iter().map(|of| ([("handler", &*of.name)], of.stalls))).await;
    }

    async fn process(&self, out: &mut Writer) {
        numbers(out, &CONNECTIONS, [([], self.connections)]).await;
        numbers(out, &REFUSED, [([], self.connections_refused)]).await;
        numbers(out, &LOG_DROPPED, [([], self.log_dropped)]).await;
        numbers(out, &TRACES_DROPPED, [([], self.traces_dropped)]).await;
        numbers(out, &BUILD, [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)]).await;
        numbers(out, &CPU, self.process.iter().map(|process| ([], process.cpu_seconds))).await;
        numbers(out, &MEMORY, self.process.iter().map(|process| ([], process.resident_bytes))).await;
    }
}

impl Reading {
    async fn write(&self, out: &mut Writer) {
        self.requests(out).await;
        self.checks(out).await;
        self.check_stores(out).await;
        self.table(out).await;
        self.upstreams(out).await;
        self.process(out).await;
    }
}

/// A number as it is written; counts beyond 2^53 to the nearest that there is.
trait Number {
    fn number(self) -> f64;
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

/// A metric of plain numbers.
async fn numbers<'a, const N: usize, V: Number>(
    out: &mut Writer,
    metric: &Metric,
    samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
) {
    let samples = samples.into_iter().inspect(|(labels, _)| {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(metric.labels), "{} is labelled otherwise", metric.name);
    });
    out.family(metric, samples.map(|(labels, value)| (labels, Value::Number(value.number())))).await;
}

/// Resident memory of the gateway's own process, in bytes; `None` where `/proc` is not mounted.
pub(crate) fn resident_bytes() -> Option<u64> {
    Process::read().map(|process| process.resident_bytes)
}

/// What the gateway's own process costs.
#[derive(Debug)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
}

impl Process {
    /// `None` where `/proc` is not mounted.
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The command, which may hold anything, ends at the last parenthesis; utime and stime are
        // the 14th and 15th field of the line, the 12th and 13th behind it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>().ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self { cpu_seconds: ticks / TICKS_PER_SECOND, resident_bytes: kibibytes << 10 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::Outcome;
    use std::time::Duration;

    use super::super::metrics::{
        CheckGauge, HandlerGauge, KeyGauge, Kind, METRICS, RouteGauge, SideGauge, UpstreamGauge,
    };
    use super::super::{Destination, UNMATCHED};
    use super::*;

    fn gauges() -> Gauges {
        Gauges {
            upstreams: vec![UpstreamGauge {
                name: "php".to_owned(),
                in_use: 3,
                idle: 1,
                waiting: 2,
                saturation_seconds: Some(900.0),
            }],
            sides: vec![SideGauge { side: "legacy", cpu_seconds: Some(1.5), memory_bytes: Some(1 << 20) }],
            handlers: vec![HandlerGauge { name: "users".to_owned(), stalls: 4 }],
            keys: vec![KeyGauge { check: "signed".to_owned(), key: "shop-app#2".to_owned(), used: 3 }],
            routes: vec![RouteGauge { name: "order".into(), serve: "new" }],
            checks: vec![CheckGauge {
                name: "login".to_owned(),
                store_up: true,
                operations: vec![("hit", 9)],
                seconds: 0.5,
                cache: Some((20, 10)),
            }],
            generation: 7,
            reloads_accepted: 6,
            reloads_rejected: 1,
            file_rejected: true,
        }
    }

    /// All that is written, while it is read.
    async fn written(telemetry: &Telemetry, format: Format) -> String {
        let (reader, mut pieces) = mpsc::channel::<Bytes>(1);
        let mut read = Vec::new();
        let reading = async {
            while let Some(piece) = pieces.recv().await {
                read.extend_from_slice(&piece);
            }
        };
        tokio::join!(telemetry.write_metrics(gauges(), format, reader), reading);
        String::from_utf8(read).unwrap()
    }

    /// The text after one exchange of 20 ms on the legacy side, one that was retried and one that broke off.
    async fn text(route: &str, format: Format) -> String {
        let telemetry = Telemetry::new(1, &Destination::Off).unwrap();
        let (route, php) = (telemetry.route(route), telemetry.upstream("php"));
        let outcome = Outcome {
            status: 200,
            bytes_in: 5,
            bytes_out: 6,
            total: Duration::from_millis(20),
            service: Some(Duration::from_millis(15)),
            ..Outcome::default()
        };
        let legacy = route.cell(0).unwrap();
        legacy.side(Side::Legacy).count(&outcome, "r1");
        legacy.side(Side::Legacy).count(&Outcome { apart: Some(Apart::Retried), ..outcome }, "r2");
        legacy.side(Side::Legacy).count(&Outcome { apart: Some(Apart::Truncated), error: true, ..outcome }, "r3");
        php.cell(0).unwrap().queued(Duration::from_millis(4));
        php.cell(0).unwrap().failed("connect");
        let login = telemetry.check("order", "login");
        login.refused(0, "expired");
        login.undecided(0, "unreadable");
        login.compared(0, "refuse", false);
        written(&telemetry, format).await
    }

    #[tokio::test]
    async fn every_metric_of_the_table_is_written_and_nothing_else() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = text("order", format).await;
            let described: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            let told: Vec<String> = METRICS
                .iter()
                .map(|metric| match format {
                    Format::OpenMetrics if metric.kind == Kind::Counter => {
                        format!("{} counter", metric.name.trim_end_matches("_total"))
                    }
                    _ => format!("{} {}", metric.name, metric.kind.word()),
                })
                .collect();
            assert_eq!(described, told);
            for metric in METRICS {
                let sample = text.lines().find(|line| !line.starts_with('#') && line.starts_with(metric.name));
                let sample = sample.unwrap_or_else(|| panic!("{} has no sample", metric.name));
                assert!(metric.labels.iter().all(|label| sample.contains(&format!("{label}=\""))), "{sample}");
            }
        }
    }

    #[tokio::test]
    async fn the_values_are_those_that_were_counted() {
        let text = text("order", Format::Prometheus).await;
        for line in [
            "strangler_requests_total{route=\"order\",side=\"legacy\",status=\"2xx\"} 3",
            "strangler_request_errors_total{route=\"order\",side=\"legacy\"} 1",
            "strangler_requests_apart_total{route=\"order\",side=\"legacy\",reason=\"retried\"} 1",
            "strangler_requests_in_flight{route=\"order\",side=\"legacy\"} 0",
            "strangler_request_duration_seconds_sum{route=\"order\",side=\"legacy\"} 0.02",
            "strangler_request_duration_seconds_count{route=\"order\",side=\"legacy\"} 1",
            "strangler_request_duration_seconds_bucket{le=\"0.01\",route=\"order\",side=\"legacy\"} 0",
            "strangler_request_duration_seconds_bucket{le=\"0.03\",route=\"order\",side=\"legacy\"} 1",
            "strangler_request_duration_seconds_bucket{le=\"+Inf\",route=\"order\",side=\"legacy\"} 1",
            "strangler_route_serve{route=\"order\",serve=\"legacy\"} 0",
            "strangler_route_serve{route=\"order\",serve=\"new\"} 1",
            "strangler_check_refused_total{route=\"order\",check=\"login\",reason=\"expired\"} 1",
            "strangler_check_undecided_total{route=\"order\",check=\"login\",reason=\"unreadable\"} 1",
            "strangler_check_key_used_total{check=\"signed\",key=\"shop-app#2\"} 3",
            "strangler_config_generation 7",
            "strangler_config_reloads_total{result=\"rejected\"} 1",
            "strangler_config_file_rejected 1",
            "strangler_upstream_connections{upstream=\"php\",state=\"in_use\"} 3",
            "strangler_upstream_queue{upstream=\"php\"} 2",
            "strangler_upstream_queue_seconds_count{upstream=\"php\"} 1",
            "strangler_upstream_failures_total{upstream=\"php\",reason=\"connect\"} 1",
            "strangler_worker_stalls_total{handler=\"users\"} 4",
            "strangler_upstream_saturation_seconds{upstream=\"php\"} 900",
            "strangler_side_cpu_seconds_total{side=\"legacy\"} 1.5",
            "strangler_side_memory_bytes{side=\"legacy\"} 1048576",
            "strangler_access_log_dropped_total 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains(UNMATCHED.repeat(2).as_str()) && !text.contains("# EOF"));
    }

    #[tokio::test]
    async fn open_metrics_ends_as_it_must() {
        assert!(text("order", Format::OpenMetrics).await.ends_with("\n# EOF\n"));
    }

    #[tokio::test]
    async fn a_routes_name_cannot_break_out_of_its_label() {
        let text = text("a\"} 1\nb\\", Format::Prometheus).await;
        assert!(text.contains("route=\"a\\\"} 1\\nb\\\\\""), "{text}");
    }

    #[test]
    fn the_process_knows_what_it_costs() {
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 1 << 20 && process.cpu_seconds >= 0.0);
    }
}
