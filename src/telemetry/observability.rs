//! Alert rules and the Grafana dashboard, made from the table of metrics and what is said here.
//!
//! Only its test runs: it writes docs/observability/{alerts.yml,grafana.json} when they are stale. A metric
//! that no panel names gets one of its own, so that the dashboard never lags behind the table.

use std::path::Path;

use serde_json::{Value, json};

use super::metrics::{
    CHECK_REFUSED, DURATION, FILE_REJECTED, IN_FLIGHT, Kind, LOG_DROPPED, METRICS, Metric, QUANTILE, REQUESTS,
    SATURATION, SERVE, SERVICE, STALLS, TRACES_DROPPED, UPSTREAM_CONNECTIONS, UPSTREAM_FAILURES, UPSTREAM_QUEUE,
    UPSTREAM_QUEUE_SECONDS,
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
        let name = REQUESTS.name;
        // One failure of three requests wakes nobody; a route that is hardly asked, and fails whenever it is, does.
        format!(
            "(sum by (route) (increase({name}{{side=\"{side}\",status=\"5xx\"}}[5m])) > 5) / \
             sum by (route) (increase({name}{{side=\"{side}\"}}[5m]))"
        )
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
    title: String,
    metrics: Vec<&'static Metric>,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
}

fn panels() -> Vec<Panel> {
    let of = "{route=~\"$route\"}";
    let panel = |title: &str, metrics: &[&'static Metric], unit, queries: Vec<(String, &'static str)>| Panel {
        title: title.to_owned(),
        metrics: metrics.to_vec(),
        unit,
        queries,
    };
    let quantile = |q: &str| format!("{}{{route=~\"$route\",quantile=\"{q}\"}}", QUANTILE.name);
    let mut panels = vec![
        panel(
            "Requests per second",
            &[&REQUESTS],
            "reqps",
            vec![(
                format!("sum by (route, side) (rate({}{of}[$__rate_interval]))", REQUESTS.name),
                "{{route}} {{side}}",
            )],
        ),
        panel(
            "Failures (5xx), share of requests",
            &[&REQUESTS],
            "percentunit",
            vec![(
                format!(
                    "sum by (route, side) (rate({0}{{route=~\"$route\",status=\"5xx\"}}[$__rate_interval])) / \
                 sum by (route, side) (rate({0}{of}[$__rate_interval]))",
                    REQUESTS.name
                ),
                "{{route}} {{side}}",
            )],
        ),
        panel("P99 of the last minute", &[&QUANTILE], "s", vec![(quantile("0.99"), "{{route}} {{side}}")]),
        panel("P50 of the last minute", &[&QUANTILE], "s", vec![(quantile("0.5"), "{{route}} {{side}}")]),
        panel(
            "P99 from buckets, with exemplars",
            &[&DURATION],
            "s",
            vec![(
                format!(
                    "histogram_quantile(0.99, sum by (route, side, le) (rate({}_bucket{of}[$__rate_interval])))",
                    DURATION.name
                ),
                "{{route}} {{side}}",
            )],
        ),
        panel(
            "P99 of the sides alone, without queueing",
            &[&SERVICE],
            "s",
            vec![(
                format!(
                    "histogram_quantile(0.99, sum by (route, side, le) (rate({}_bucket{of}[$__rate_interval])))",
                    SERVICE.name
                ),
                "{{route}} {{side}}",
            )],
        ),
        panel(
            "In flight",
            &[&IN_FLIGHT],
            "short",
            vec![(format!("sum by (route, side) ({}{of})", IN_FLIGHT.name), "{{route}} {{side}}")],
        ),
        panel("Who serves", &[&SERVE], "short", vec![(format!("{}{of}", SERVE.name), "{{route}} {{serve}}")]),
        panel(
            "Upstreams: connections and queue",
            &[&UPSTREAM_CONNECTIONS, &UPSTREAM_QUEUE],
            "short",
            vec![
                (UPSTREAM_CONNECTIONS.name.to_owned(), "{{upstream}} {{state}}"),
                (UPSTREAM_QUEUE.name.to_owned(), "{{upstream}} waiting"),
            ],
        ),
        panel(
            "P95 of waiting for an upstream",
            &[&UPSTREAM_QUEUE_SECONDS],
            "s",
            vec![(
                format!(
                    "histogram_quantile(0.95, sum by (upstream, le) (rate({}_bucket[$__rate_interval])))",
                    UPSTREAM_QUEUE_SECONDS.name
                ),
                "{{upstream}}",
            )],
        ),
    ];
    for metric in METRICS {
        if !panels.iter().any(|panel| panel.metrics.iter().any(|named| named.name == metric.name)) {
            panels.push(plain(metric));
        }
    }
    panels
}

/// A metric by itself: as it is, or as its rate.
fn plain(metric: &'static Metric) -> Panel {
    let of = if metric.labels.contains(&"route") { "{route=~\"$route\"}" } else { "" };
    let name = metric.name;
    let query = match metric.kind {
        Kind::Counter => format!("rate({name}{of}[$__rate_interval])"),
        Kind::Gauge => format!("{name}{of}"),
        Kind::Summary | Kind::Histogram => format!("rate({name}_count{of}[$__rate_interval])"),
    };
    let unit = match metric.kind {
        _ if name.contains("bytes") => "bytes",
        Kind::Gauge if name.ends_with("_seconds") => "s",
        _ => "short",
    };
    Panel { title: metric.help.to_owned(), metrics: vec![metric], unit, queries: vec![(query, "__auto")] }
}

fn dashboard() -> String {
    let source = json!({ "type": "prometheus", "uid": "${source}" });
    let panels: Vec<Value> = (0..)
        .zip(panels())
        .map(|(n, panel)| {
            let targets: Vec<Value> = ('A'..='Z')
                .zip(&panel.queries)
                .map(|(id, (query, legend))| {
                    json!({ "refId": id, "datasource": source, "expr": query, "legendFormat": legend,
                            "exemplar": query.contains("_bucket") })
                })
                .collect();
            json!({
                "id": n + 1, "type": "timeseries", "title": panel.title, "datasource": source, "targets": targets,
                "gridPos": { "x": n % 2 * 12, "y": n / 2 * 8, "w": 12, "h": 8 },
                "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
            })
        })
        .collect();
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
        "annotations": { "list": [flips] }, "panels": panels,
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
fn every_metric_has_a_panel() {
    let panels = panels();
    for metric in METRICS {
        let asked = panels.iter().flat_map(|panel| &panel.queries).any(|(query, _)| query.contains(metric.name));
        assert!(asked, "{}", metric.name);
    }
}
