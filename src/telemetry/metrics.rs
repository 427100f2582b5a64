//! The table of all metrics: names, kinds, labels and what they say.
//!
//! Labels come from the route file and from closed lists, never from clients. The table is also
//! docs/reference/metrics.md. How the values come to be is [`super::exposition`]'s affair; what
//! telemetry does not know itself is handed to it as [`Gauges`].

use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the histograms' buckets, chosen around what page loads and API calls take.
pub(super) const BOUNDS: [Duration; 22] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(30),
    Duration::from_millis(50),
    Duration::from_millis(75),
    Duration::from_millis(100),
    Duration::from_millis(150),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The kinds of metrics, by their numbers in Prometheus' protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Counter = 0,
    Gauge = 1,
    Summary = 2,
    Histogram = 4,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric as operators know it.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! metrics {
    ($( $name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal; )+) => {
        $( pub(super) const $name: Metric = Metric { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help }; )+
        /// Every metric there is, in the order in which they are written.
        #[cfg(test)]
        pub(super) const METRICS: &[Metric] = &[$($name),+];
    };
}

metrics! {
    REQUESTS = Counter "strangler_requests_total" ["route", "side", "status"]
        "Requests answered, by class of status (2xx, ...); 4xx includes clients that left (499)";
    ERRORS = Counter "strangler_request_errors_total" ["route", "side"]
        "Answers with a 5xx status, and answers that broke off after another";
    APART = Counter "strangler_requests_apart_total" ["route", "side", "reason"]
        "Requests of a side that are in none of its latency histograms, by reason";
    IN_FLIGHT = Gauge "strangler_requests_in_flight" ["route", "side"]
        "Requests being served now";
    DURATION = Histogram "strangler_request_duration_seconds" ["route", "side"]
        "From the request's head being read to the answer's last byte being handed to the connection";
    SERVICE = Histogram "strangler_upstream_duration_seconds" ["route", "side"]
        "From handing the request over to the first byte back, without queueing";
    QUANTILE = Summary "strangler_route_latency_seconds" ["route", "side", "quantile"]
        "Quantiles of the request's duration over the last minute, exact to 2 percent; count and sum from the beginning";
    BYTES_IN = Counter "strangler_request_body_bytes_total" ["route", "side"]
        "Bytes of request bodies received";
    BYTES_OUT = Counter "strangler_response_body_bytes_total" ["route", "side"]
        "Bytes of response bodies sent";
    CHECK_REFUSED = Counter "strangler_check_refused_total" ["route", "check", "reason"]
        "Requests that a check refused, by reason";
    CHECK_UNDECIDED = Counter "strangler_check_undecided_total" ["route", "check", "reason"]
        "Requests that a check left to the legacy side to decide, by the same reasons";
    CHECK_PARITY = Counter "strangler_check_parity_total" ["route", "check", "edge", "legacy"]
        "Requests on which the check's verdict (edge: pass, refuse, undecided) was compared with the legacy side's (pass, refuse)";
    KEY_USED = Counter "strangler_check_key_used_total" ["check", "key"]
        "Requests accepted with each key of a check";
    CHECK_STORE_OPERATIONS = Counter "strangler_check_store_operations_total" ["check", "result"]
        "Operations on the check's store, by result: hit, miss (read), done (written), error, timeout, rejected (not tried)";
    CHECK_STORE_SECONDS = Counter "strangler_check_store_seconds_total" ["check"]
        "How long all operations on the check's store took together";
    CHECK_STORE_UP = Gauge "strangler_check_store_up" ["check"]
        "1 while the check's store is asked, 0 while it is taken for down and only probed";
    CHECK_CACHE = Counter "strangler_check_cache_total" ["check", "result"]
        "Sessions that were remembered or just being read (hit), or had to be read (miss)";
    SERVE = Gauge "strangler_route_serve" ["route", "serve"]
        "1 for the serve in force, 0 for the other";
    GENERATION = Gauge "strangler_config_generation" []
        "Number of the route table in force; rises with each swap";
    RELOADS = Counter "strangler_config_reloads_total" ["result"]
        "Route files that were accepted or rejected";
    FILE_REJECTED = Gauge "strangler_config_file_rejected" []
        "1 while the route file on disk has faults, so that it is not what serves, else 0";
    UPSTREAM_CONNECTIONS = Gauge "strangler_upstream_connections" ["upstream", "state"]
        "Connections to the upstream that are in_use or idle";
    UPSTREAM_QUEUE = Gauge "strangler_upstream_queue" ["upstream"]
        "Requests waiting for a place at the upstream";
    UPSTREAM_QUEUE_SECONDS = Histogram "strangler_upstream_queue_seconds" ["upstream"]
        "How long requests waited for a place at the upstream";
    UPSTREAM_FAILURES = Counter "strangler_upstream_failures_total" ["upstream", "reason"]
        "Calls of the upstream that failed, by reason";
    SATURATION = Gauge "strangler_upstream_saturation_seconds" ["upstream"]
        "Until all slots of a PHP-FPM pool are in use at the present trend; absent while it does not rise";
    SIDE_CPU = Counter "strangler_side_cpu_seconds_total" ["side"]
        "CPU time of what serves a side: local PHP-FPM processes, and the code of handlers";
    SIDE_MEMORY = Gauge "strangler_side_memory_bytes" ["side"]
        "Resident memory of what serves a side: local PHP-FPM processes, and the gateway's own where handlers do";
    STALLS = Counter "strangler_worker_stalls_total" ["handler"]
        "Times a handler kept its worker from everything else for more than 100 ms";
    CONNECTIONS = Gauge "strangler_connections" []
        "Client connections open now";
    REFUSED = Counter "strangler_connections_refused_total" []
        "Client connections closed unread because there were too many";
    LOG_DROPPED = Counter "strangler_access_log_dropped_total" []
        "Lines of the access log that could not be written in time";
    TRACES_DROPPED = Counter "strangler_traces_dropped_total" []
        "Traces that were to be exported and could not be in time";
    BUILD = Gauge "strangler_build_info" ["version"]
        "Always 1; the label says which version runs";
    CPU = Counter "process_cpu_seconds_total" []
        "CPU time of the gateway's own process, user and system";
    MEMORY = Gauge "process_resident_memory_bytes" []
        "Resident memory of the gateway's own process";
}

/// What telemetry does not know itself, as it is at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) upstreams: Vec<UpstreamGauge>,
    pub(crate) handlers: Vec<HandlerGauge>,
    pub(crate) keys: Vec<KeyGauge>,
    pub(crate) routes: Vec<RouteGauge>,
    pub(crate) checks: Vec<CheckGauge>,
    pub(crate) sides: Vec<SideGauge>,
    pub(crate) generation: u64,
    pub(crate) reloads_accepted: u64,
    pub(crate) reloads_rejected: u64,
    /// The file on disk has faults.
    pub(crate) file_rejected: bool,
}

/// An upstream's connections and queue.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamGauge {
    pub(crate) name: String,
    pub(crate) in_use: u64,
    pub(crate) idle: u64,
    pub(crate) waiting: u64,
    /// Of a PHP-FPM pool that is filling.
    pub(crate) saturation_seconds: Option<f64>,
}

/// What a side costs; `None`: it cannot be said.
#[derive(Clone, Debug)]
pub(crate) struct SideGauge {
    pub(crate) side: &'static str,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
}

/// How often a key of a check was used.
#[derive(Clone, Debug)]
pub(crate) struct KeyGauge {
    pub(crate) check: String,
    pub(crate) key: String,
    pub(crate) used: u64,
}

/// How often a handler stalled its worker.
#[derive(Clone, Debug)]
pub(crate) struct HandlerGauge {
    pub(crate) name: String,
    pub(crate) stalls: u64,
}

/// How a check gets on with its store.
#[derive(Clone, Debug)]
pub(crate) struct CheckGauge {
    pub(crate) name: String,
    pub(crate) store_up: bool,
    /// By result.
    pub(crate) operations: Vec<(&'static str, u64)>,
    pub(crate) seconds: f64,
    /// Hits and misses of its own memory, where it has one.
    pub(crate) cache: Option<(u64, u64)>,
}

/// Who serves a route.
#[derive(Clone, Debug)]
pub(crate) struct RouteGauge {
    pub(crate) name: Arc<str>,
    pub(crate) serve: &'static str,
}

/// In which format the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4: what anything understands.
    Prometheus,
    /// Text with exemplars.
    OpenMetrics,
    /// Delimited messages, with native histograms and exemplars.
    Protobuf,
}

impl Format {
    /// The format that an `Accept` header weighs most, of several the one that says most; Prometheus
    /// text unless another is asked for.
    pub(crate) fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (Self::Prometheus, 0.0);
        for entry in accept.unwrap_or_default().split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim_matches('"'))
            };
            let weight = parameter("q").map_or(1.0, |weight| weight.parse::<f64>().unwrap_or(0.0));
            let Some(format) = Self::named(name, parameter) else { continue };
            if weight > best.1 || (weight == best.1 && weight > 0.0 && format as u8 > best.0 as u8) {
                best = (format, weight);
            }
        }
        best.0
    }

    fn named<'p>(name: &str, parameter: impl Fn(&str) -> Option<&'p str>) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "text/plain" => Some(Self::Prometheus),
            "application/openmetrics-text" => Some(Self::OpenMetrics),
            "application/vnd.google.protobuf" => {
                let asked = (parameter("proto"), parameter("encoding"));
                (asked == (Some("io.prometheus.client.MetricFamily"), Some("delimited"))).then_some(Self::Protobuf)
            }
            _ => None,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::counters::{Apart, FAILURES, REFUSALS};
    use super::*;

    #[test]
    fn the_format_is_the_one_the_scraper_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native = format!(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,{prometheus}"
        );
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("text/plain, application/openmetrics-text;q=0.5"), Format::Prometheus),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
            (Some(prometheus), Format::OpenMetrics),
            (Some(&native), Format::Protobuf),
            (Some("application/vnd.google.protobuf;encoding=text"), Format::Prometheus),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }

    fn reference() -> String {
        let mut page = "# Metrics\n\n\
            What `/metrics` of the admin port says: in Prometheus text or, when asked for, in OpenMetrics (with exemplars) or\n\
            Prometheus' protobuf (with exemplars and native histograms, of schema 5, beside the classic ones). Labels come from\n\
            `routes.toml` and from closed lists, never from clients. `side` is `legacy`, `new` or `gateway` (answered by the\n\
            gateway itself, no side being chosen); an answer that the gateway gives because a side failed counts for that side.\n\
            `route` of a request that no route matched is `-`. This page is generated from `src/telemetry/metrics.rs`.\n\n\
            | metric | kind | labels | says |\n|---|---|---|---|\n"
            .to_owned();
        for Metric { name, kind, labels, help } in METRICS {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            page.push_str(&format!("| `{name}` | {} | {} | {help} |\n", kind.word(), labels.join(", ")));
        }
        page.push_str("\nBounds of the histograms' classic buckets, in seconds: ");
        page.push_str(&BOUNDS.map(|bound| bound.as_secs_f64().to_string()).join(", "));
        page.push_str(".\n\nReasons of `strangler_requests_apart_total`: ");
        page.push_str(&Apart::ALL.map(|why| format!("`{}`", why.word())).join(", "));
        page.push_str(".\n\nReasons of `strangler_upstream_failures_total`: ");
        page.push_str(&FAILURES.map(|reason| format!("`{reason}`")).join(", "));
        page.push_str(".\n\nReasons of `strangler_check_refused_total`: ");
        page.push_str(&REFUSALS.map(|reason| format!("`{reason}`")).join(", "));
        page.push_str(".\n");
        page
    }

    #[test]
    fn the_reference_says_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        if written != reference() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, reference()).unwrap();
            panic!(
                "docs/reference/metrics.md was stale and has been rewritten from src/telemetry/metrics.rs; commit it"
            );
        }
    }
}
