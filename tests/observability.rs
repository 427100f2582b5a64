//! What stands in docs/observability works: on a real Prometheus, against the metrics, the log and the traces
//! of a running gateway.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::{get, post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::client::{self, Connection};
use crate::support::gateway::Gateway;
use crate::support::php::Php;
use crate::support::prometheus::prometheus;
use crate::support::redis::{Redis, redis};
use crate::support::upstream::{Service, service, upstream};
use crate::support::{eventually, gateway, php, repository, temp_dir};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector that keeps every span it is sent.
async fn collector() -> (Service, mpsc::UnboundedReceiver<Span>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let take = post(move |body: Bytes| async move {
        let request = ExportTraceServiceRequest::decode(body).expect("an export of traces");
        let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        spans.for_each(|span| drop(sender.send(span)));
    });
    (service(Router::new().route("/v1/traces", take)).await, receiver)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway with both sides, checks with a store and with keys, a handler, an upstream that is not there, and
/// traces of all requests.
struct Everything {
    gateway: Gateway,
    _behind: (Service, Redis, TempDir),
}

async fn everything(php: &Php, collector: &str) -> Everything {
    let new = service(Router::new().fallback(get(async |uri: Uri| {
        if uri.query() == Some("status=500") { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })))
    .await;
    let (redis, secrets) = (redis().await, temp_dir("secrets"));
    redis.command(&["SET", "strangler:session:torn", "user_id|a:1:{"]);
    let key = secrets.path().join("shop");
    std::fs::write(&key, "s3cret\n").expect("a key");
    php.put("member.php", "<?php echo 'member';");
    let gateway = gateway()
        .toml(format!("[trace]\nendpoint = \"{collector}\"\nsample = \"100%\"\n"))
        .toml("[check.inside]\nkind = \"address\"\nallow = [\"127.0.0.0/8\"]\n[check.nobody]\nkind = \"address\"\nallow = [\"10.0.0.0/8\"]\n")
        .toml(format!("[check.member]\nkind = \"session\"\nstore = \"redis://{}\"\nuser = \"id\"\nparity = \"100%\"\n", redis.address()))
        .toml(format!("[check.torn]\nkind = \"session\"\nstore = \"redis://{}\"\n", redis.address()))
        .toml(format!("[check.signed]\nkind = \"signature\"\nkeys = {{ shop-app = {{ file = \"{}\" }} }}\n", key.display()))
        .toml(php.upstream("php = \"files\""))
        .toml(upstream("fresh", &[new.url()], ""))
        .toml(upstream("gone", &["http://127.0.0.1:1"], ""))
        .toml("[[route]]\nname = \"page\"\npath = \"/{*rest}\"\nlegacy = \"php\"\nnew = \"fresh\"\nserve = \"legacy\"\ncheck = [\"inside\"]\n")
        .toml("[[route]]\nname = \"closed\"\npath = \"/closed\"\nlegacy = \"php\"\ncheck = [\"nobody\"]\n")
        .toml("[[route]]\nname = \"member\"\npath = \"/member.php\"\nlegacy = \"php\"\ncheck = [\"member\"]\n")
        .toml("[[route]]\nname = \"torn\"\npath = \"/torn\"\nlegacy = \"php\"\ncheck = [\"torn\"]\n")
        .toml("[[route]]\nname = \"signed\"\npath = \"/signed\"\nlegacy = \"php\"\ncheck = [\"signed\"]\n")
        .toml("[[route]]\nname = \"gone\"\npath = \"/gone\"\nlegacy = \"gone\"\n")
        .toml("[[route]]\nname = \"health\"\npath = \"/health\"\nnew = \"health\"\nserve = \"new\"\n")
        .start()
        .await;
    Everything { gateway, _behind: (new, redis, secrets) }
}

async fn traffic(gateway: &Gateway) {
    for path in ["/answer.php", "/slow.php?ms=20", "/closed", "/signed", "/gone", "/health"] {
        gateway.get(path).await;
    }
    for _ in 0..10 {
        gateway.get("/answer.php?status=500").await;
    }
    gateway.request("GET", "/torn").header("cookie", "PHPSESSID=torn").send().await.expect("an answer");
    let member = gateway.request("GET", "/member.php").header("cookie", "PHPSESSID=0123456789abcdef");
    assert_eq!(member.send().await.expect("an answer").status(), 200, "PHP decides");
}

/// What a program prints about `input`; it must be content.
fn content(program: &mut Command, input: &[u8]) -> String {
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("its input").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(input));
    said
}

#[tokio::test]
async fn every_format_of_the_metrics_satisfies_a_strict_reader() {
    let php = php().start().await;
    let (collector, _spans) = collector().await;
    let Everything { gateway, _behind } = everything(&php, collector.url()).await;
    traffic(&gateway).await;
    gateway.until_metric("strangler_requests_total", &[], 5.0).await;

    let (_, _, text) = gateway.metrics_as("text/plain").await;
    content(Command::new("promtool").args(["check", "metrics"]), &text);

    let (_, kind, open_metrics) = gateway.metrics_as("application/openmetrics-text").await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let reader = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  families = list(read(sys.stdin.read()))\n\
                  print([sample.exemplar for family in families for sample in family.samples if sample.exemplar])";
    let exemplars = content(Command::new("/usr/bin/python3").args(["-c", reader]), &open_metrics);
    assert!(exemplars.contains("trace_id"), "{exemplars}");
    let rules = repository("docs/observability/alerts.yml");
    content(Command::new("promtool").args(["check", "rules"]).arg(rules), b"");
}

/// What no test waits for.
const ONLY_IN_TIME: [&str; 1] =
    ["waits for a quarter of an hour of a pool's demand: strangler_upstream_saturation_seconds"];
/// Requests for a rule to say anything of a side's P99.
const ENOUGH: usize = 600;

/// The cart is flipped after an hour, and slower from then on; of the few requests of the imprint one fails, of those
/// of the basket all; those of the search begin with a 200 and break off. The pool's trend is lost for a while, and the
/// file is mended.
const STORY: &str = r#"
    input_series:
      - { series: 'strangler_route_latency_seconds{route="cart",side="legacy",quantile="0.99"}', values: "0.1x60 2 stale" }
      - { series: 'strangler_route_latency_seconds{route="cart",side="new",quantile="0.99"}', values: "_x61 0.2x60" }
      - { series: 'strangler_requests_total{route="cart",side="new",status="2xx"}', values: "_x61 0+200x60" }
      - { series: 'strangler_requests_total{route="imprint",side="new",status="2xx"}', values: "0+1x120" }
      - { series: 'strangler_requests_total{route="imprint",side="new",status="5xx"}', values: "0x80 1x40" }
      - { series: 'strangler_request_errors_total{route="imprint",side="new"}', values: "0x80 1x40" }
      - { series: 'strangler_requests_total{route="basket",side="new",status="5xx"}', values: "0x75 0+2x45" }
      - { series: 'strangler_request_errors_total{route="basket",side="new"}', values: "0x75 0+2x45" }
      - { series: 'strangler_requests_total{route="search",side="legacy",status="2xx"}', values: "0+2x120" }
      - { series: 'strangler_request_errors_total{route="search",side="legacy"}', values: "0x70 0+2x50" }
      - { series: 'strangler_upstream_saturation_seconds{upstream="php"}', values: "900x70 stale" }
      - { series: 'strangler_config_file_rejected', values: "0x10 1x69 0x40" }
    promql_expr_test:
      - expr: count by (alertname, route) (ALERTS{alertstate="firing"})
        eval_time: 78m
        exp_samples:
          - { labels: '{alertname="StranglerFileRejected"}', value: 1 }
          - { labels: '{alertname="StranglerNewSideSlower",route="cart"}', value: 1 }
          - { labels: '{alertname="StranglerUpstreamFills"}', value: 1 }
      - expr: count by (alertname, route) (ALERTS{alertstate="firing"})
        eval_time: 85m
        exp_samples:
          - { labels: '{alertname="StranglerLegacySideFails",route="search"}', value: 1 }
          - { labels: '{alertname="StranglerNewSideFails",route="basket"}', value: 1 }
          - { labels: '{alertname="StranglerNewSideSlower",route="cart"}', value: 1 }
"#;

/// The new side of the cart serves beside legacy for half an hour, then alone; legacy fails 20 of 120 requests and
/// breaks 10 off. Two programs are watched.
const COMPARED: &str = r#"
    input_series:
      - { series: 'strangler_route_latency_seconds{route="cart",side="legacy",quantile="0.99"}', values: "0.2x60 stale" }
      - { series: 'strangler_route_latency_seconds{route="cart",side="new",quantile="0.99"}', values: "_x30 0.1x60" }
      - { series: 'strangler_requests_total{route="cart",side="legacy",status="2xx"}', values: "0+100x120" }
      - { series: 'strangler_requests_total{route="cart",side="legacy",status="5xx"}', values: "0+20x120" }
      - { series: 'strangler_requests_total{route="cart",side="new",status="2xx"}', values: "0+100x120" }
      - { series: 'strangler_request_errors_total{route="cart",side="legacy"}', values: "0+30x120" }
      - { series: 'strangler_request_errors_total{route="cart",side="new"}', values: "0x120" }
      - { series: 'strangler_requests_apart_total{route="cart",side="legacy",reason="gateway"}', values: "0+20x120" }
      - { series: 'strangler_requests_apart_total{route="cart",side="legacy",reason="truncated"}', values: "0+10x120" }
      - { series: 'strangler_side_cpu_seconds_total{side="legacy"}', values: "0+2x120" }
      - { series: 'strangler_side_cpu_seconds_total{side="new"}', values: "0+0.5x120" }
      - { series: 'process_cpu_seconds_total{job="strangler",instance="here"}', values: "0+6x120" }
      - { series: 'process_cpu_seconds_total{job="node",instance="here"}', values: "0+30x120" }
      - { series: 'strangler_build_info{job="strangler",instance="here",version="1"}', values: "1x120" }
    promql_expr_test:
"#;

/// What Prometheus says of a story, written for `promtool test rules`.
fn told(story: &str) {
    let dir = temp_dir("story");
    let (file, rules) = (dir.path().join("story.yml"), repository("docs/observability/alerts.yml"));
    std::fs::write(&file, format!("rule_files: [\"{}\"]\ntests:\n  - interval: 1m{story}", rules.display()))
        .expect("the story");
    content(Command::new("promtool").args(["test", "rules"]).arg(file), b"");
}

#[test]
fn the_rules_wake_an_operator_for_what_matters_and_not_for_chance() {
    told(STORY);
}

#[test]
fn the_panels_of_the_comparison_say_what_was_counted() {
    let dashboard = std::fs::read_to_string(repository("docs/observability/grafana.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let query = |title: &str| {
        let panel = dashboard["panels"].as_array()?.iter().find(|panel| panel["title"] == title)?;
        Some(panel["targets"][0]["expr"].as_str()?.replace("$__rate_interval", "5m").replace("$route", ".*"))
    };
    let mut story = COMPARED.to_owned();
    for (title, minutes, samples) in [
        ("P99, new ÷ legacy", 50, &[("route=\"cart\",quantile=\"0.99\"", 0.5)][..]),
        ("P99, new ÷ legacy", 80, &[("route=\"cart\",quantile=\"0.99\"", 0.5)]),
        ("Error rate", 50, &[("route=\"cart\",side=\"legacy\"", 0.25), ("route=\"cart\",side=\"new\"", 0.0)]),
        ("CPU per request that asked the side", 50, &[("side=\"legacy\"", 0.02), ("side=\"new\"", 0.005)]),
        ("CPU, in cores", 50, &[("job=\"strangler\",instance=\"here\"", 0.1)]),
    ] {
        let query = Value::from(query(title).expect(title));
        story.push_str(&format!("      - expr: {query}\n        eval_time: {minutes}m\n        exp_samples:\n"));
        for (labels, value) in samples {
            story.push_str(&format!("          - {{ labels: '{{{labels}}}', value: {value} }}\n"));
        }
    }
    told(&story);
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_the_rules_has_data() {
    let php = php().start().await;
    let (collector, _spans) = collector().await;
    let Everything { gateway, _behind } = everything(&php, collector.url()).await;
    let prometheus = prometheus(gateway.admin(), "").await;
    // A rate is of what came after Prometheus first saw the series.
    traffic(&gateway).await;
    prometheus.until("strangler_requests_total{route=\"page\",side=\"legacy\"} > 0").await;
    traffic(&gateway).await;
    prometheus.until("rate(strangler_requests_total{route=\"page\",side=\"legacy\"}[1m]) > 0").await;
    prometheus.until("strangler_route_serve{route=\"page\",serve=\"new\"} == 0").await;
    gateway.edit(|text| text.replacen("serve = \"legacy\"", "serve = \"new\"", 1));
    gateway.until_newer(1).await;
    traffic(&gateway).await;
    prometheus.until("strangler_requests_total{route=\"page\",side=\"new\"} > 0").await;
    traffic(&gateway).await;
    let mut connection = Connection::open(gateway.address()).await;
    for _ in 0..ENOUGH {
        connection.send("GET /page HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        assert_eq!(connection.answer("GET").await.expect("an answer").status, 200);
    }
    prometheus.until("rate(strangler_requests_total{route=\"page\",side=\"new\"}[1m]) > 0").await;

    let told =
        Command::new(repository("docs/observability/verify.py")).args(["--prometheus", &prometheus.url()]).output();
    let told = told.expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{out}{err}");
    assert!(out.lines().filter(|line| line.contains(" series: ")).count() > 40, "{out}");
    let waiting: Vec<&str> = out.lines().filter(|line| line.starts_with("waits for ")).collect();
    assert_eq!(waiting, ONLY_IN_TIME, "{out}");
}

#[test]
fn a_prometheus_that_is_not_there_is_said_to_be() {
    let told =
        Command::new(repository("docs/observability/verify.py")).args(["--prometheus", "http://127.0.0.1:1"]).output();
    let told = told.expect("it runs");
    assert_eq!(told.status.code(), Some(2));
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.starts_with("verify.py: no Prometheus at http://127.0.0.1:1: "), "{told}");
}

#[tokio::test]
async fn what_observes_leaves_nothing_behind_when_it_is_told_to_end() {
    let gateway = gateway().toml("[[route]]\npath = \"/health\"\nnew = \"health\"\nserve = \"new\"\n").start().await;
    let (folder, script) = (temp_dir("observed"), repository("docs/observability"));
    // On this gateway rather than on the shop, which has ports of its own.
    let program = format!(
        "import sys; sys.path.insert(0, {script:?}); sys.dont_write_bytecode = True; import verify\n\
         class Here:\n  admin = '{}'; route = ask = None\n  def ask_both_sides(self): pass\n\
         verify.Demonstration = Here; sys.argv = ['verify.py', '--seconds', '0']; sys.exit(verify.main())",
        gateway.admin()
    );
    let mut observer = Command::new("/usr/bin/python3");
    observer.args(["-c", &program]).env("TMPDIR", folder.path()).stdout(Stdio::piped());
    let mut observer = observer.spawn().expect("it starts");
    let mut said = BufReader::new(observer.stdout.take().expect("its output")).lines().map(|line| line.expect("text"));
    let stays = said.find(|line| line.ends_with(" stays until Ctrl-C")).expect("a Prometheus that stays");
    let url = stays.split(' ').next().expect("its address");
    assert_eq!(reqwest::get(format!("{url}/-/healthy")).await.expect("an answer").status(), StatusCode::OK);

    kill_process(Pid::from_child(&observer), Signal::TERM).expect("it is there");
    assert_eq!(observer.wait().expect("it ends").code(), Some(143));
    assert!(reqwest::get(url).await.is_err(), "{url} still answers");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[tokio::test]
async fn a_prometheus_that_wants_native_histograms_gets_them() {
    let php = php().start().await;
    let gateway = gateway().php(&php).start().await;
    let prometheus = prometheus(gateway.admin(), "native-histograms,exemplar-storage").await;
    for _ in 0..20 {
        gateway.get("/slow.php?ms=50").await;
    }
    let quantile = "histogram_quantile(0.5, strangler_request_duration_seconds{route=\"rest\",side=\"legacy\"})";
    let told = eventually("a quantile of all twenty", || async {
        let count = prometheus
            .query("histogram_count(strangler_request_duration_seconds{route=\"rest\",side=\"legacy\"})")
            .await?;
        (count.first()?["value"][1] == "20").then_some(())?;
        prometheus.query(quantile).await?.first()?["value"][1].as_str()?.parse::<f64>().ok()
    })
    .await;
    let exact = gateway.admin_json("/api/compare?window=1m&latency=total").await;
    let exact = exact["routes"][0]["sides"]["legacy"]["p50_ms"].as_f64().expect("a P50") / 1e3;
    assert!((told / exact - 1.0).abs() < 0.05, "{told} instead of {exact}");
}

#[tokio::test]
async fn a_thousand_routes_have_a_bounded_number_of_series() {
    let mut table = String::new();
    for n in 0..1_000 {
        table.push_str(&format!(
            "[[route]]\nname = \"r{n}\"\npath = \"/r{n}/{{id}}\"\nnew = \"health\"\nserve = \"new\"\n"
        ));
    }
    let gateway = gateway().toml(table).start().await;
    let mut connection = Connection::open(gateway.address()).await;
    let mut round = async |id: u32| {
        for n in 0..1_000 {
            connection.send(format!("GET /r{n}/{id} HTTP/1.1\r\nHost: h{id}.test\r\n\r\n")).await;
            assert_eq!(connection.answer("GET").await.expect("an answer").status, 200);
        }
    };
    round(1).await;
    gateway.until_metric("strangler_requests_total", &[], 1_000.0).await;
    let series = async || {
        let (_, _, text) = gateway.metrics_as("text/plain").await;
        String::from_utf8(text).expect("text").lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series().await;
    assert!(before < 80 * 1_000, "{before} series");
    round(2).await;
    gateway.until_metric("strangler_requests_total", &[], 2_000.0).await;
    assert_eq!(series().await, before);
    for format in ["text/plain", "application/openmetrics-text", PROTOBUF] {
        let asked = Instant::now();
        let (_, kind, bytes) = gateway.metrics_as(format).await;
        println!("1,000 routes: {} KiB in {:?} as {kind}", bytes.len() / 1024, asked.elapsed());
    }
}

const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

#[tokio::test]
async fn a_trace_goes_from_the_client_through_both_sides_to_the_collector_and_the_log() {
    let php = php().start().await;
    let (collector, mut spans) = collector().await;
    let Everything { gateway, _behind } = everything(&php, collector.url()).await;
    let request =
        format!("GET /echo.php HTTP/1.1\r\nHost: shop.test\r\ntraceparent: {PARENT}\r\ntracestate: vendor=1\r\n\r\n");
    let answer = client::exchange(gateway.address(), request).await.expect("an answer");
    let seen: Value = serde_json::from_slice(answer.body.as_ref()).expect("JSON");
    let told = seen["server"]["HTTP_TRACEPARENT"].as_str().expect("a parent").to_owned();
    assert!(told.starts_with(&PARENT[..36]) && told != PARENT && told.ends_with("-01"), "{told}");
    assert_eq!(seen["server"]["HTTP_TRACESTATE"], "vendor=1");

    let mut found: Vec<Span> = Vec::new();
    while found.len() < 3 {
        found.push(spans.recv().await.expect("a span"));
    }
    let named =
        |name: &str| found.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {found:#?}"));
    let (edge, check, upstream) = (named("GET page"), named("check inside"), named("upstream php"));
    assert_eq!(hex(&edge.parent_span_id), &PARENT[36..52]);
    assert_eq!(hex(&upstream.span_id), &told[36..52]);
    for span in [check, upstream] {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&edge.trace_id, &edge.span_id));
        assert!(edge.start_time_unix_nano <= span.start_time_unix_nano, "{found:#?}");
        assert!(span.end_time_unix_nano <= edge.end_time_unix_nano, "{found:#?}");
    }
    let record = gateway.until_record_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(record["trace_id"], &PARENT[3..35], "{record}");
    let (_, _, open_metrics) = gateway.metrics_as("application/openmetrics-text").await;
    let exemplar = format!("# {{trace_id=\"{}\"}}", &PARENT[3..35]);
    assert!(String::from_utf8(open_metrics).expect("text").contains(&exemplar));
}

#[tokio::test]
async fn a_wait_for_php_is_a_span_and_a_service_is_told_of_its_own() {
    let php = php().children(1).start().await;
    let (collector, mut spans) = collector().await;
    let echo = get(async |headers: HeaderMap| headers["traceparent"].to_str().expect("text").to_owned());
    let fresh = service(Router::new().fallback(echo)).await;
    let gateway = gateway()
        .toml(format!("[trace]\nendpoint = \"{}\"\nsample = \"100%\"\n", collector.url()))
        .toml(php.upstream("php = \"files\""))
        .toml(upstream("fresh", &[fresh.url()], ""))
        .toml("[[route]]\nname = \"page\"\npath = \"/{*rest}\"\nlegacy = \"php\"\n")
        .toml("[[route]]\nname = \"fresh\"\npath = \"/fresh\"\nnew = \"fresh\"\nserve = \"new\"\n")
        .start()
        .await;
    let mut found: Vec<Span> = Vec::new();

    // There is one process: of two requests at once one waits.
    futures_util::future::join(gateway.get("/slow.php?ms=100"), gateway.get("/slow.php?ms=100")).await;
    while found.len() < 5 {
        found.push(spans.recv().await.expect("a span"));
    }
    let waits: Vec<&Span> = found.iter().filter(|span| span.name == "queue php").collect();
    let [wait] = waits[..] else { panic!("{found:#?}") };
    let of_the_same = |name: &str| {
        let mut same = found.iter().filter(|span| span.trace_id == wait.trace_id && span.name == name);
        same.next().unwrap_or_else(|| panic!("{name}: {found:#?}"))
    };
    let (edge, upstream) = (of_the_same("GET page"), of_the_same("upstream php"));
    assert_eq!(wait.parent_span_id, edge.span_id);
    assert!(edge.start_time_unix_nano <= wait.start_time_unix_nano, "{found:#?}");
    assert!(wait.start_time_unix_nano < wait.end_time_unix_nano, "{found:#?}");
    assert!(wait.end_time_unix_nano <= upstream.start_time_unix_nano, "{found:#?}");

    let answer = gateway.request("GET", "/fresh").header("traceparent", PARENT).send().await.expect("an answer");
    let told = answer.text().await.expect("a parent");
    let called = loop {
        let span = spans.recv().await.expect("a span");
        if span.name == "upstream fresh" {
            break span;
        }
    };
    assert_eq!(told, format!("{}{}-01", &PARENT[..36], hex(&called.span_id)));
}

#[tokio::test]
async fn without_traces_a_request_keeps_what_it_came_with() {
    let php = php().start().await;
    let gateway = gateway().php(&php).start().await;
    let request = format!("GET /echo.php HTTP/1.1\r\nHost: shop.test\r\ntraceparent: {PARENT}\r\n\r\n");
    let answer = client::exchange(gateway.address(), request).await.expect("an answer");
    let seen: Value = serde_json::from_slice(answer.body.as_ref()).expect("JSON");
    assert_eq!(seen["server"]["HTTP_TRACEPARENT"], PARENT);
    let record = gateway.until_record_of(answer.header("x-request-id").expect("an id")).await;
    assert!(record.get("trace_id").is_none(), "{record}");
}

#[tokio::test]
async fn the_pipeline_of_the_log_names_fields_that_the_log_has() {
    let php = php().start().await;
    let (collector, _spans) = collector().await;
    let Everything { gateway, _behind } = everything(&php, collector.url()).await;
    traffic(&gateway).await;
    let records = gateway.until_records(5).await;
    let logged: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| record.as_object())
        .flat_map(|record| record.keys())
        .map(String::as_str)
        .collect();
    let pipeline = std::fs::read_to_string(repository("docs/observability/fluent-bit.yaml")).expect("the pipeline");
    let named: BTreeSet<&str> = pipeline
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| {
            let time = line.trim().strip_prefix("time_key: ");
            let fields =
                line.split('$').skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next());
            fields.flatten().chain(time)
        })
        .collect();
    assert!(named.len() >= 6, "{named:?}");
    assert!(named.is_subset(&logged), "{named:?} of which {:?} are not logged", &named - &logged);
    assert!(pipeline.contains("time_format: \"%Y-%m-%dT%H:%M:%S.%LZ\""));
    let time = records[0]["time"].as_str().expect("a time");
    assert!(time.len() == "2026-01-02T03:04:05.678Z".len() && time.ends_with('Z'), "{time}");
}
