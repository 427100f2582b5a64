//! What the gateway says about itself: metrics, the comparison, the routes, and one record for each request.

use std::collections::BTreeSet;

use axum::Router;
use axum::routing::get;

use crate::support::client::{self, Connection};
use crate::support::fcgi::fcgi;
use crate::support::upstream::service;
use crate::support::{eventually, gateway, php};

#[tokio::test]
async fn every_metric_of_the_reference_is_there_and_well_formed() {
    let php = php().start().await;
    let gateway = gateway().php(&php).start().await;
    for target in ["/answer.php", "/answer.php?status=404", "/answer.php?status=500"] {
        gateway.get(target).await;
    }
    gateway.until_metric("strangler_requests_total", &[("route", "rest"), ("side", "legacy")], 3.0).await;
    let metrics = gateway.metrics().await;
    for (status, count) in [("2xx", 1.0), ("4xx", 1.0), ("5xx", 1.0)] {
        let labels = [("route", "rest"), ("side", "legacy"), ("status", status)];
        assert_eq!(metrics.sum("strangler_requests_total", &labels), count, "{status}");
    }
    for name in [
        "strangler_requests_total",
        "strangler_request_duration_seconds_bucket",
        "strangler_request_duration_seconds_sum",
        "strangler_request_duration_seconds_count",
        "strangler_upstream_duration_seconds_bucket",
        "strangler_route_latency_seconds",
        "strangler_requests_in_flight",
        "strangler_route_serve",
        "strangler_config_generation",
        "strangler_config_reloads_total",
        "strangler_upstream_connections",
        "strangler_upstream_queue",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.has(name, &[]), "{name} is missing among {:?}", metrics.names());
    }
    let labels = [("route", "rest"), ("side", "legacy")];
    let name = "strangler_request_duration_seconds";
    assert_eq!(metrics.sum(&format!("{name}_count"), &labels), 3.0);
    let last = metrics.sum(&format!("{name}_bucket"), &[("route", "rest"), ("side", "legacy"), ("le", "+Inf")]);
    assert_eq!(last, 3.0);
    assert!(metrics.types.contains_key(name), "{:?}", metrics.types);
}

#[tokio::test]
async fn labels_come_from_the_file_and_never_from_clients() {
    let php = php().start().await;
    let gateway = gateway()
        .toml(php.upstream("php = \"files\""))
        .toml("[[route]]\nname = \"only\"\npath = \"/only/{id}\"\nlegacy = \"php\"\n")
        .start()
        .await;
    for n in 0..50 {
        let request = format!("BREW{n} /random/{n} HTTP/1.1\r\nHost: host{n}.test\r\n\r\n");
        client::exchange(gateway.address(), request).await.expect("an answer");
        client::get(gateway.address(), &format!("/only/{n}")).await;
    }
    gateway.until_metric("strangler_requests_total", &[("route", "only")], 50.0).await;
    let text = gateway.admin_text("/metrics").await.1;
    let requests: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("strangler_requests_total{")).collect();
    assert!(requests.len() < 20, "{requests:?}");
    assert!(!text.contains("random") && !text.contains("BREW") && !text.contains("host1.test"), "{text}");
    assert_eq!(
        gateway
            .metrics()
            .await
            .sum("strangler_requests_total", &[("route", "-"), ("side", "gateway"), ("status", "4xx")]),
        50.0
    );
}

#[tokio::test]
async fn both_sides_of_a_route_are_compared() {
    let php = php().start().await;
    let new = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway().two_sided(&php, &new).start().await;
    for _ in 0..30 {
        gateway.get("/slow.php?ms=20").await;
    }
    let before = gateway.admin_json("/api/compare?window=1m&latency=total").await;
    let route = &before["routes"][0];
    assert_eq!(
        (&route["name"], &route["path"], &route["serve"]),
        (&"page".into(), &"/{*rest}".into(), &"legacy".into())
    );
    assert_eq!(
        (&route["sides"]["new"], &route["ratio"]["p50"]),
        (&serde_json::Value::Null, &serde_json::Value::Null),
        "{before}"
    );
    let legacy = &route["sides"]["legacy"];
    assert_eq!((&legacy["requests"], &legacy["errors"]), (&30.into(), &0.into()), "{before}");
    let p50 = legacy["p50_ms"].as_f64().expect("a number");
    assert!((20.0..200.0).contains(&p50), "{before}");

    gateway.edit(|text| text.replace("serve = \"legacy\"", "serve = \"new\""));
    gateway.until_newer(1).await;
    for _ in 0..30 {
        gateway.get("/slow.php?ms=20").await;
    }
    for latency in ["total", "service"] {
        let after = gateway.admin_json(&format!("/api/compare?window=1m&latency={latency}")).await;
        assert_eq!((&after["window"], &after["generation"]), (&"1m".into(), &2.into()), "{after}");
        let route = &after["routes"][0];
        assert_eq!(route["sides"]["new"]["requests"], 30, "{after}");
        assert!(route["ratio"]["p50"].as_f64().is_some_and(|ratio| ratio < 0.8), "{after}");
        for key in ["qps", "error_rate", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms"] {
            assert!(route["sides"]["legacy"][key].is_number(), "{key}: {after}");
        }
    }
    assert_ne!(gateway.admin_text("/api/compare?window=7m").await.0, 200, "a window that is not kept");
}

#[tokio::test]
async fn the_running_table_is_shown() {
    let php = php().start().await;
    let gateway = gateway().php(&php).start().await;
    let shown = gateway.admin_json("/api/routes").await;
    assert_eq!(shown["generation"], 1, "{shown}");
    let route = &shown["routes"][0];
    assert_eq!(
        (&route["name"], &route["path"], &route["serve"]),
        (&"rest".into(), &"/{*rest}".into(), &"legacy".into()),
        "{shown}"
    );
}

#[tokio::test]
async fn each_request_has_exactly_one_record_whatever_becomes_of_it() {
    let php = php().ini("output_buffering", "0").start().await;
    let gateway = gateway().php(&php).start().await;
    let address = gateway.address();
    let mut expected: Vec<(&str, u64, &str)> = Vec::new();
    for (target, status, ended) in [
        ("/answer.php?n=1", 200, "complete"),
        ("/answer.php?n=2&status=500", 500, "complete"),
        ("/die.php?n=3", 502, "complete"),
        ("/die.php?n=4&after=20000", 200, "truncated"),
        ("/no/such/%zz", 400, "complete"),
        ("/.env", 404, "complete"),
    ] {
        client::get(address, target).await;
        expected.push((target, status, ended));
    }
    let mut leaves = Connection::open(address).await;
    leaves.send("GET /slow.php?n=7&ms=400 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "rest")], 1.0).await;
    leaves.reset();
    expected.push(("/slow.php?n=7&ms=400", 499, "client_gone"));
    let mut leaves = Connection::open(address).await;
    leaves.send("GET /stream.php?n=8&count=50&ms=50 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    leaves.until("event 2").await;
    leaves.reset();
    expected.push(("/stream.php?n=8&count=50&ms=50", 200, "client_gone"));
    let mut pipelined = Connection::open(address).await;
    pipelined
        .send("GET /answer.php?n=9 HTTP/1.1\r\nHost: a\r\n\r\nGET /answer.php?n=10 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for _ in 0..2 {
        assert_eq!(pipelined.answer("GET").await.expect("an answer").status, 200);
    }
    expected.extend([("/answer.php?n=9", 200, "complete"), ("/answer.php?n=10", 200, "complete")]);

    let records = gateway.until_records(expected.len()).await;
    // The last word: nothing comes after it that was not asked for.
    let end = client::get(address, "/answer.php?n=end").await;
    gateway.until_record_of(end.header("x-request-id").expect("an id")).await;
    assert_eq!(gateway.records().len(), expected.len() + 1, "{records:#?}");
    // The 500, the 502 of a PHP that died before it answered, and the answer that broke off after a 200.
    let errors =
        gateway.metrics().await.sum("strangler_request_errors_total", &[("route", "rest"), ("side", "legacy")]);
    assert_eq!(errors, 3.0);
    for (path, status, ended) in expected {
        let found: Vec<_> = records.iter().filter(|record| record["path"] == path).collect();
        assert_eq!(found.len(), 1, "{path}: {found:#?}");
        assert_eq!((&found[0]["status"], &found[0]["ended"]), (&status.into(), &ended.into()), "{path}: {}", found[0]);
    }
    let ids: BTreeSet<&str> = records.iter().filter_map(|record| record["request_id"].as_str()).collect();
    assert_eq!(ids.len(), records.len(), "two requests share an id");
}

#[tokio::test]
async fn a_record_tells_times_bytes_and_sides_and_no_secret() {
    let php = php().children(1).start().await;
    let upstream = php.upstream_with_connections(1, "php = \"files\"");
    let gateway = gateway()
        .toml(upstream)
        .toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"")
        .start()
        .await;
    let address = gateway.address();
    let first = tokio::spawn(async move { client::get(address, "/slow.php?ms=300").await });
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "rest")], 1.0).await;
    let request = "POST /echo.php?token=hunter2&page=%1b HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer hunter2\r\nCookie: PHPSESSID=hunter2\r\n\
         User-Agent: \"quoted\\\"\t\r\nContent-Length: 5\r\n\r\nhello";
    let answer = client::exchange(address, request).await.expect("an answer");
    first.await.expect("an answer");
    let record = gateway.until_record_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(
        (&record["route"], &record["side"], &record["serve"], &record["upstream"]),
        (&"rest".into(), &"legacy".into(), &"legacy".into(), &"php".into()),
        "{record}"
    );
    assert_eq!(
        (&record["bytes_in"], &record["generation"], &record["host"]),
        (&5.into(), &1.into(), &"shop.test".into()),
        "{record}"
    );
    assert!(record["bytes_out"].as_u64().is_some_and(|bytes| bytes >= answer.body.len() as u64), "{record}");
    let millis = |key: &str| record[key].as_f64().unwrap_or_else(|| panic!("{key}: {record}"));
    assert!(millis("queue_ms") > 100.0, "{record}");
    assert!(millis("total_ms") >= millis("queue_ms") + millis("upstream_ms") - 1.0, "{record}");
    let log = std::fs::read_to_string(gateway.access_log()).expect("the log");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[tokio::test]
async fn a_log_nobody_can_write_stops_no_request_and_is_counted() {
    let php = php().start().await;
    // `/dev/full` takes no byte, as a full disk does.
    let gateway = gateway().access_log("/dev/full").php(&php).start().await;
    for _ in 0..50 {
        assert_eq!(gateway.ask("/answer.php").await.0, 200);
    }
    eventually("lost lines are counted", || async {
        let metrics = gateway.metrics().await;
        let lost: f64 =
            metrics.names().iter().filter(|name| name.contains("access_log")).map(|name| metrics.sum(name, &[])).sum();
        (lost > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn failures_of_an_upstream_are_counted_by_reason() {
    let server = fcgi(|mut call| async move {
        let Some(request) = call.request().await else { return };
        match request.params.get("QUERY_STRING").map(String::as_str) {
            Some("broken") => {}
            Some("bad") => drop(call.send([9; 64]).await),
            _ => call.closed().await,
        }
    });
    let gateway = gateway().toml(server.table("first_byte = \"200ms\"")).start().await;
    for (query, reason) in [("broken", "broken"), ("bad", "bad_reply"), ("slow", "first_byte_timeout")] {
        client::exchange(gateway.address(), format!("POST /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
            .await
            .expect("an answer");
        gateway
            .until_metric("strangler_upstream_failures_total", &[("upstream", "php"), ("reason", reason)], 1.0)
            .await;
    }
}
