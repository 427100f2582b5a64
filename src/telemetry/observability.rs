//! Alert rules and the Grafana dashboard, made from the table of metrics and what is said here.
//!
//! Only its test runs: it writes docs/observability/{alerts.yml,grafana.json} when they are stale. A metric
//! without a panel fails a test, so that the dashboard never lags behind the table.

use std::path::Path;

use serde_json::{Value, json};

use super::metrics::{
    APART, BUILD, BYTES_IN, BYTES_OUT, CHECK_CACHE, CHECK_PARITY, CHECK_REFUSED, CHECK_STORE_OPERATIONS,
    CHECK_STORE_SECONDS, CHECK_STORE_UP, CHECK_UNDECIDED, CONNECTIONS, CPU, DURATION, ERRORS, FILE_REJECTED,
    GENERATION, IN_FLIGHT, KEY_USED, Kind, LOG_DROPPED, MEMORY, METRICS, Metric, QUANTILE, REFUSED, RELOADS, REQUESTS,
    SATURATION, SERVE, SERVICE, SIDE_CPU, SIDE_MEMORY, STALLS, TRACES_DROPPED, UPSTREAM_CONNECTIONS, UPSTREAM_FAILURES,
    UPSTREAM_QUEUE, UPSTREAM_QUEUE_SECONDS,
};

/// What wakes somebody: `of` holds `than` for `lasting`, and may have stopped for `still` before it is over.
struct Alert {
    name: &'static str,
    of: String,
    than: &'static str,
    lasting: &'static str,
    still: Option<&'static str>,
    severity: &'static str,
    summary: &'static str,
    remedy: &'static str,
}

fn alerts() -> Vec<Alert> {
    let failing = |side: &str| {
        // One failure of three requests wakes nobody; a route that is hardly asked, and fails whenever it is, does.
        let sum = |metric: &Metric| format!("sum by (route) (increase({}{{side=\"{side}\"}}[5m]))", metric.name);
        format!("({} > 5) / {}", sum(&ERRORS), sum(&REQUESTS))
    };
    let alert = |name, of, than, lasting, severity, summary, remedy| Alert {
        name,
        of,
        than,
        lasting,
        still: None,
        severity,
        summary,
        remedy,
    };
    // Where the new side serves, legacy has no figures any more. The last it had are of the few stragglers of the
    // flip, so that the middle of its last day is what is compared with.
    let slower = format!(
        "{0}{{side=\"new\",quantile=\"0.99\"}} / ignoring (side) \
         (quantile_over_time(0.5, {0}{{side=\"legacy\",quantile=\"0.99\"}}[1d]) > 0) and ignoring (quantile) \
         (sum without (side, status) (increase({1}{{side=\"new\"}}[5m])) > 500)",
        QUANTILE.name, REQUESTS.name
    );
    vec![
        alert(
            "StranglerNewSideFails",
            failing("new"),
            "> 0.01",
            "2m",
            "page",
            "The new side of {{ $labels.route }} fails more than one request in a hundred",
            "strangler flip {{ $labels.route }} legacy",
        ),
        alert(
            "StranglerLegacySideFails",
            failing("legacy"),
            "> 0.05",
            "5m",
            "page",
            "PHP fails more than one request in twenty on {{ $labels.route }}",
            "PHP-FPM's log; strangler_upstream_failures_total says why",
        ),
        alert(
            "StranglerNewSideSlower",
            format!("({slower})"),
            "> 1.5",
            "10m",
            "ticket",
            "The new side of {{ $labels.route }} has a P99 half as long again as the legacy side had in its last day",
            "the dashboard of the gateway shows both distributions over each other",
        ),
        alert(
            "StranglerQueueWaits",
            format!(
                "histogram_quantile(0.95, sum by (upstream, le) (rate({}_bucket[5m])))",
                UPSTREAM_QUEUE_SECONDS.name
            ),
            "> 1",
            "5m",
            "page",
            "Requests wait for a second and more for {{ $labels.upstream }}",
            "more pm.max_children and connections, or faster scripts",
        ),
        Alert {
            // What the simulation in `forecast` measures: a trend that is lost for some minutes is no all-clear.
            still: Some("10m"),
            ..alert(
                "StranglerUpstreamFills",
                SATURATION.name.to_owned(),
                "< 1200",
                "2m",
                "ticket",
                "All processes of {{ $labels.upstream }} will be busy within twenty minutes at the present trend",
                "more pm.max_children and connections, faster scripts, or a flip to the new side",
            )
        },
        alert(
            "StranglerUpstreamFails",
            format!("sum by (upstream, reason) (rate({}[5m]))", UPSTREAM_FAILURES.name),
            "> 0.1",
            "5m",
            "page",
            "Calls of {{ $labels.upstream }} fail ({{ $labels.reason }})",
            "the gateway's log names the cause under the request's id",
        ),
        alert(
            "StranglerFileRejected",
            FILE_REJECTED.name.to_owned(),
            "> 0",
            "1m",
            "ticket",
            "routes.toml has faults as it is on disk: the table before stays in force, and a restart would fail",
            "strangler check",
        ),
        alert(
            "StranglerRefusesMany",
            format!("sum by (route, check, reason) (rate({}[5m]))", CHECK_REFUSED.name),
            "> 10",
            "10m",
            "ticket",
            "{{ $labels.check }} refuses more than ten requests a second on {{ $labels.route }} ({{ $labels.reason }})",
            "clients with an old secret or clock, an expired store, or an attack",
        ),
        alert(
            "StranglerHandlerBlocks",
            format!("rate({}[5m])", STALLS.name),
            "> 0.1",
            "5m",
            "ticket",
            "The handler {{ $labels.handler }} keeps its worker from all other requests",
            "install it as a blocking handler",
        ),
        alert(
            "StranglerLogLosesLines",
            format!("rate({}[5m])", LOG_DROPPED.name),
            "> 0",
            "5m",
            "ticket",
            "Lines of the access log are lost",
            "a faster or emptier disk",
        ),
        alert(
            "StranglerTracesLost",
            format!("rate({}[5m])", TRACES_DROPPED.name),
            "> 0",
            "15m",
            "ticket",
            "Traces do not reach the collector",
            "is it there? else a smaller sample in [trace]",
        ),
    ]
}

/// A curve or several over time.
struct Panel {
    title: &'static str,
    metrics: Vec<&'static Metric>,
    unit: &'static str,
    queries: Vec<(String, String)>,
    /// New over legacy: a line is drawn where both are even.
    is_ratio: bool,
}

impl Panel {
    fn new(title: &'static str, unit: &'static str, metrics: &[&'static Metric], query: String, legend: &str) -> Self {
        Self { title, metrics: metrics.to_vec(), unit, queries: vec![(query, legend.to_owned())], is_ratio: false }
    }

    fn beside(mut self, metric: &'static Metric, legend: &str) -> Self {
        self.metrics.push(metric);
        self.queries.push((metric.name.to_owned(), legend.to_owned()));
        self
    }

    fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// What the metrics say of themselves.
    fn description(&self) -> String {
        let said = self.metrics.iter().map(|Metric { name, help, .. }| format!("{name}: {help}."));
        said.collect::<Vec<_>>().join("\n\n")
    }

    fn json(&self, id: usize, source: &Value, at: &Value) -> Value {
        let targets: Vec<Value> = ('A'..='Z')
            .zip(&self.queries)
            .map(|(id, (query, legend))| {
                json!({ "refId": id, "datasource": source, "expr": query, "legendFormat": legend,
                        "exemplar": query.contains("_bucket") })
            })
            .collect();
        let mut fields = json!({ "unit": self.unit, "min": 0 });
        if self.is_ratio {
            let steps = json!([{ "color": "green", "value": null }, { "color": "red", "value": 1 }]);
            fields["thresholds"] = json!({ "mode": "absolute", "steps": steps });
            fields["custom"] = json!({ "thresholdsStyle": { "mode": "line" } });
        }
        json!({
            "id": id, "type": "timeseries", "title": self.title, "description": self.description(),
            "datasource": source, "targets": targets, "gridPos": at,
            "fieldConfig": { "defaults": fields, "overrides": [] },
        })
    }
}

/// What is chosen of a metric above the dashboard.
fn chosen(metric: &Metric) -> &'static str {
    if metric.labels.contains(&"route") { "{route=~\"$route\"}" } else { "" }
}

fn rate(metric: &Metric) -> String {
    format!("rate({}{}[$__rate_interval])", metric.name, chosen(metric))
}

/// A metric by itself: as it is, or as its rate.
fn plain(title: &'static str, metric: &'static Metric) -> Panel {
    let (query, unit) = match metric.kind {
        Kind::Counter if metric.name.contains("bytes") => (rate(metric), "Bps"),
        Kind::Counter => (rate(metric), "cps"),
        _ => (
            format!("{}{}", metric.name, chosen(metric)),
            if metric.name.contains("bytes") { "bytes" } else { "short" },
        ),
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("{{{{{label}}}}}")).collect();
    let legend = if labels.is_empty() { "{{instance}}".to_owned() } else { labels.join(" ") };
    Panel::new(title, unit, &[metric], query, &legend)
}

/// A quantile that many gateways' buckets have together.
fn from_buckets(title: &'static str, quantile: &str, of: &'static Metric) -> Panel {
    let (labels, legend) = match of.labels {
        ["upstream"] => ("upstream", "{{upstream}}"),
        _ => ("route, side", "{{route}} {{side}}"),
    };
    let buckets = format!("rate({}_bucket{}[$__rate_interval])", of.name, chosen(of));
    let query = format!("histogram_quantile({quantile}, sum by ({labels}, le) ({buckets}))");
    Panel::new(title, "s", &[of], query, legend)
}

/// Whether the new side is faster and as right, and what it costs.
fn comparison() -> Vec<Panel> {
    let of = |side: &str, q: &str| format!("{}{{route=~\"$route\",side=\"{side}\",quantile=\"{q}\"}}", QUANTILE.name);
    let ratio = |title, q| {
        let [new, legacy] = ["new", "legacy"].map(|side| of(side, q));
        // As in the alert, legacy is what it was in its last day where it does not serve now.
        let query = format!("{new} / ignoring (side) (({legacy} or quantile_over_time(0.5, {legacy}[1d])) > 0)");
        Panel { is_ratio: true, ..Panel::new(title, "short", &[&QUANTILE], query, "{{route}}") }
    };
    let quantile = |title, q| {
        let query = format!("{}{{route=~\"$route\",quantile=\"{q}\"}}", QUANTILE.name);
        Panel::new(title, "s", &[&QUANTILE], query, "{{route}} {{side}}")
    };
    let sum = |metric| format!("sum by (route, side) ({})", rate(metric));
    // A file that the gateway serves, or an answer that it gives itself, is no work of the side's.
    let (requests, apart) = (REQUESTS.name, APART.name);
    let asked = format!(
        "(sum by (side) (rate({requests}[$__rate_interval])) - \
         (sum by (side) (rate({apart}{{reason=~\"unasked|gateway\"}}[$__rate_interval])) or 0 * sum by (side) ({requests})))"
    );
    let cpu = format!("sum by (side) ({}) / ({asked} > 0)", rate(&SIDE_CPU));
    vec![
        ratio("P50, new ÷ legacy", "0.5"),
        ratio("P99, new ÷ legacy", "0.99"),
        Panel::new(
            "Error rate",
            "percentunit",
            &[&ERRORS],
            format!("{} / {}", sum(&ERRORS), sum(&REQUESTS)),
            "{{route}} {{side}}",
        ),
        Panel::new("CPU per request that asked the side", "s", &[&SIDE_CPU, &APART], cpu, "{{side}}"),
        quantile("P50 of the last minute", "0.5"),
        quantile("P90 of the last minute", "0.9"),
        quantile("P99 of the last minute", "0.99"),
        from_buckets("P99 from buckets, with exemplars", "0.99", &DURATION),
        from_buckets("P99 of the side alone, without queueing", "0.99", &SERVICE),
        plain("CPU of the sides, in cores", &SIDE_CPU).in_unit("short"),
        plain("Memory of the sides", &SIDE_MEMORY),
    ]
}

fn routes() -> Vec<Panel> {
    let requests = |title, by: &str, legend| {
        Panel::new(title, "reqps", &[&REQUESTS], format!("sum by ({by}) ({})", rate(&REQUESTS)), legend)
    };
    vec![
        requests("Requests", "route, side", "{{route}} {{side}}"),
        requests("Answers by class of status", "route, side, status", "{{route}} {{side}} {{status}}"),
        plain("Who serves", &SERVE),
        plain("In flight", &IN_FLIGHT),
        plain("Kept out of the latencies", &APART).in_unit("reqps"),
        plain("Received in bodies", &BYTES_IN),
        plain("Sent in bodies", &BYTES_OUT),
    ]
}

fn checks() -> Vec<Panel> {
    let per_operation = format!(
        "{} / on (instance, job, check) (sum by (instance, job, check) ({}) > 0)",
        rate(&CHECK_STORE_SECONDS),
        rate(&CHECK_STORE_OPERATIONS)
    );
    vec![
        plain("Refused", &CHECK_REFUSED).in_unit("reqps"),
        plain("Left to the legacy side", &CHECK_UNDECIDED).in_unit("reqps"),
        plain("Verdicts compared with the legacy side's", &CHECK_PARITY).in_unit("reqps"),
        plain("Accepted, by key", &KEY_USED).in_unit("reqps"),
        plain("Stores: operations", &CHECK_STORE_OPERATIONS).in_unit("ops"),
        Panel::new("Stores: time of an operation", "s", &[&CHECK_STORE_SECONDS], per_operation, "{{check}}"),
        plain("Stores: answering", &CHECK_STORE_UP),
        plain("Sessions remembered and read", &CHECK_CACHE).in_unit("ops"),
    ]
}

fn upstreams() -> Vec<Panel> {
    vec![
        plain("Connections and queue", &UPSTREAM_CONNECTIONS).beside(&UPSTREAM_QUEUE, "{{upstream}} waiting"),
        from_buckets("P95 of waiting for a place", "0.95", &UPSTREAM_QUEUE_SECONDS),
        // There is a series for every reason there is, most of which never come up.
        Panel::new(
            "Failed calls",
            "cps",
            &[&UPSTREAM_FAILURES],
            format!("{} > 0", rate(&UPSTREAM_FAILURES)),
            "{{upstream}} {{reason}}",
        ),
        plain("Time until the pool is full", &SATURATION).in_unit("s"),
        plain("Handlers that kept their worker", &STALLS),
    ]
}

fn gateway() -> Vec<Panel> {
    // Every program that Prometheus watches has metrics of this name.
    let own = |panel: Panel| {
        let queries = panel
            .queries
            .into_iter()
            .map(|(query, legend)| (format!("{query} and on (instance, job) {}", BUILD.name), legend));
        Panel { queries: queries.collect(), ..panel }
    };
    vec![
        plain("Connections", &CONNECTIONS),
        plain("Connections refused", &REFUSED),
        own(plain("CPU, in cores", &CPU)).in_unit("short"),
        own(plain("Memory", &MEMORY)),
        plain("Generation of the table", &GENERATION),
        plain("Route files read", &RELOADS),
        plain("File on disk rejected", &FILE_REJECTED),
        plain("Version", &BUILD),
        plain("Lines of the log lost", &LOG_DROPPED),
        plain("Traces lost", &TRACES_DROPPED),
    ]
}

/// What stands together, under a line with its name.
fn sections() -> [(&'static str, Vec<Panel>); 5] {
    [
        ("Comparison", comparison()),
        ("Routes", routes()),
        ("Checks", checks()),
        ("PHP and upstreams", upstreams()),
        ("Gateway", gateway()),
    ]
}

/// The sections one below the other, two panels side by side.
fn panels(source: &Value) -> Vec<Value> {
    const WIDTH: usize = 12;
    const HEIGHT: usize = 8;
    let (mut all, mut below) = (Vec::new(), 0);
    for (title, panels) in sections() {
        let at = json!({ "x": 0, "y": below, "w": 2 * WIDTH, "h": 1 });
        all.push(json!({ "id": all.len() + 1, "type": "row", "title": title, "collapsed": false, "gridPos": at, "panels": [] }));
        below += 1;
        for (n, panel) in panels.iter().enumerate() {
            let at = json!({ "x": n % 2 * WIDTH, "y": below + n / 2 * HEIGHT, "w": WIDTH, "h": HEIGHT });
            all.push(panel.json(all.len() + 1, source, &at));
        }
        below += panels.len().div_ceil(2) * HEIGHT;
    }
    all
}

fn dashboard() -> String {
    let source = json!({ "type": "prometheus", "uid": "${source}" });
    let variables = json!([
        { "name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus" },
        { "name": "route", "type": "query", "datasource": source, "label": "Route", "multi": true, "includeAll": true,
          "allValue": ".*", "current": { "text": "All", "value": "$__all" }, "refresh": 2,
          "query": format!("label_values({}, route)", SERVE.name) },
    ]);
    let flips = json!({
        "name": "Flips", "enable": true, "iconColor": "orange", "datasource": source, "titleFormat": "{{route}}: {{serve}}",
        "expr": format!("changes({}[1m]) > 0 and {0} == 1", SERVE.name),
    });
    let dashboard = json!({
        "uid": "strangler", "title": "strangler", "schemaVersion": 39, "refresh": "10s", "tags": ["strangler"],
        "time": { "from": "now-1h", "to": "now" }, "templating": { "list": variables },
        "annotations": { "list": [flips] }, "panels": panels(&source),
    });
    format!("{dashboard:#}\n")
}

fn rules() -> String {
    let mut text = "# Alert rules for Prometheus. Written by the test in src/telemetry/observability.rs.\n\
                    groups:\n  - name: strangler\n    rules:\n"
        .to_owned();
    for Alert { name, of, than, lasting, still, severity, summary, remedy } in alerts() {
        let still = still.map(|still| format!("        keep_firing_for: {still}\n")).unwrap_or_default();
        // JSON strings are YAML strings.
        let [of, summary, remedy] = [format!("{of} {than}"), summary.to_owned(), remedy.to_owned()].map(Value::from);
        text.push_str(&format!(
            "      - alert: {name}\n        expr: {of}\n        for: {lasting}\n{still}        labels: {{ severity: {severity} }}\n        \
             annotations:\n          summary: {summary}\n          remedy: {remedy}\n"
        ));
    }
    text
}

#[test]
fn the_alert_rules_and_the_dashboard_are_those_of_the_table_of_metrics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability");
    std::fs::create_dir_all(&folder).unwrap();
    let mut stale = Vec::new();
    for (name, text) in [("alerts.yml", rules()), ("grafana.json", dashboard())] {
        if std::fs::read_to_string(folder.join(name)).unwrap_or_default() != text {
            std::fs::write(folder.join(name), text).unwrap();
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "{stale:?} of docs/observability were stale and have been rewritten; commit them");
}

#[test]
fn every_metric_has_a_panel_and_no_panel_the_title_of_another() {
    let sections = sections();
    let panels = || sections.iter().flat_map(|(_, panels)| panels);
    for metric in METRICS {
        let shown = panels().flat_map(|panel| &panel.metrics).any(|shown| shown.name == metric.name);
        assert!(shown, "{} is on no panel", metric.name);
    }
    for panel in panels() {
        let asked = |name| panel.queries.iter().any(|(query, _)| query.contains(name));
        assert!(panel.metrics.iter().all(|metric| asked(metric.name)), "{}", panel.title);
    }
    let titles: Vec<&str> = panels().map(|panel| panel.title).collect();
    for (n, title) in titles.iter().enumerate() {
        assert!(title.len() <= 40 && !titles[..n].contains(title), "{title}");
    }
}
