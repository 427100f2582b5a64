//! One P99, wherever it is looked up: an open-loop load whose exact percentiles the generator knows, and what the
//! gateway says of it.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use futures_util::future::join_all;
use serde_json::Value;

use crate::support::client::Connection;
use crate::support::gateway::{Gateway, run};
use crate::support::prometheus::{Prometheus, prometheus};
use crate::support::upstream::service;
use crate::support::{eventually, gateway, php, temp_dir};

/// What it is to be wrong by at most.
const TOLERANCE: f64 = 0.02;
const REQUESTS: usize = 500;
/// A request leaves this long after the one before, whatever became of that.
const EVERY: Duration = Duration::from_millis(10);

/// How long each request is to take, in milliseconds: spread from 5 to 192 as pages are, one in thirty far beyond.
///
/// Those beyond are alike and long: what a busy machine adds to them is little, so that the clock of who asks and that
/// of the gateway, which begins to count when it has read the request, agree far better than [`TOLERANCE`].
fn delays(slowest: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(slowest);
    // The longest that each is drawn from doubles, so that most are short.
    let mut page = || {
        let longest = 12 << random.u32(0..5);
        random.u64(5..=longest)
    };
    (0..REQUESTS).map(|n| if n % 30 == 7 { slowest } else { page() }).collect()
}

/// Sends the load and gives the exact P99 of how long it took.
async fn load(gateway: &Gateway, slowest: u64) -> Duration {
    let began = tokio::time::Instant::now();
    let requests = (0..).zip(delays(slowest)).map(async |(n, millis): (u32, u64)| {
        tokio::time::sleep_until(began + EVERY * n).await;
        let mut connection = Connection::open(gateway.address()).await;
        let asked = Instant::now();
        connection.send(format!("GET /slow.php?ms={millis} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        assert_eq!(connection.answer("GET").await.expect("an answer").status, 200);
        asked.elapsed()
    });
    let mut took = join_all(requests).await;
    took.sort_unstable();
    took[(REQUESTS * 99).div_ceil(100) - 1]
}

/// The P99 of both sides in milliseconds, legacy first, of a comparison that has all requests of the load.
fn compared(told: &Value) -> Option<[f64; 2]> {
    let side = |name: &str| {
        let side = &told["routes"][0]["sides"][name];
        (side["measured"] == REQUESTS).then(|| side["p99_ms"].as_f64())?
    };
    Some([side("legacy")?, side("new")?])
}

/// The same of the first event that the dashboard is sent.
async fn event(gateway: &Gateway) -> Option<[f64; 2]> {
    let mut events = gateway.admin_request("GET", "/api/events?window=1m&latency=total").send().await.ok()?;
    let mut read = String::new();
    while !read.contains("\n\n") {
        read.push_str(std::str::from_utf8(&events.chunk().await.ok()??).ok()?);
    }
    compared(&serde_json::from_str(read.strip_prefix("data: ")?.trim()).ok()?)
}

/// What Prometheus says of both sides to a query in which `SIDE` stands for one.
async fn scraped(prometheus: &Prometheus, query: &str) -> Option<[f64; 2]> {
    let mut both = [0.0; 2];
    for (told, side) in both.iter_mut().zip(["legacy", "new"]) {
        let all = format!("histogram_count(strangler_request_duration_seconds{{side=\"{side}\"}}) == {REQUESTS}");
        let samples = prometheus.query(&format!("({}) and on () ({all})", query.replace("SIDE", side))).await?;
        *told = samples.first()?["value"][1].as_str()?.parse::<f64>().ok()? * 1e3;
    }
    Some(both)
}

#[tokio::test]
async fn dashboard_terminal_api_and_prometheus_tell_the_p99_that_the_load_had() {
    let php = php().children(32).start().await;
    let slow = get(async |Query(query): Query<Vec<(String, u64)>>| {
        tokio::time::sleep(Duration::from_millis(query[0].1)).await;
        "slept"
    });
    let new = service(Router::new().fallback(slow)).await;
    let gateway = gateway().two_sided(&php, &new).start().await;
    let prometheus = prometheus(gateway.admin(), "native-histograms").await;

    let legacy = load(&gateway, 1_030).await;
    gateway.edit(|text| text.replace("serve = \"legacy\"", "serve = \"new\""));
    gateway.until_newer(1).await;
    let exact = [legacy, load(&gateway, 515).await].map(|p99| p99.as_secs_f64() * 1e3);

    let asked = || async { compared(&gateway.admin_json("/api/compare?window=1m&latency=total").await) };
    let (url, directory) = (format!("http://{}", gateway.admin()), temp_dir("percentiles"));
    let top = || async {
        let (_, told, _) = run(&["top", "--json", "--window", "1m", "--admin", &url], directory.path());
        compared(&serde_json::from_str(&told).ok()?)
    };
    let summary = "strangler_route_latency_seconds{side=\"SIDE\",quantile=\"0.99\"}";
    let native = "histogram_quantile(0.99, strangler_request_duration_seconds{side=\"SIDE\"})";
    let told = [
        ("the API", eventually("all is counted", asked).await),
        ("top --json", eventually("all is told to the terminal", top).await),
        ("the dashboard's event", eventually("the dashboard has an event of all", || event(&gateway)).await),
        ("the summary in Prometheus", eventually("all is scraped", || scraped(&prometheus, summary)).await),
        ("the native histogram", eventually("all is scraped", || scraped(&prometheus, native)).await),
    ];
    for (who, told) in told {
        println!("{who}: {told:.1?} ms; exact: {exact:.1?} ms");
        for (told, exact) in told.into_iter().zip(exact) {
            assert!((told / exact - 1.0).abs() <= TOLERANCE, "{who} tells {told} ms instead of {exact}");
        }
    }
}
