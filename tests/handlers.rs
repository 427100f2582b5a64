//! Rust handlers inside the process: what they are given, and what their faults cost.

use std::time::{Duration, Instant};

use crate::support::client::{self, Connection, exchange};
use crate::support::gateway::Gateway;
use crate::support::process::resident;
use crate::support::{eventually, gateway};

/// One route for each handler of the probe, under its name.
async fn probe(workers: u32) -> Gateway {
    let names = ["hello", "panic", "stall", "slow", "big", "upgrade", "blocking", "health"];
    let routes: String = names
        .iter()
        .map(|name| {
            format!("[[route]]\nname = \"{name}\"\npath = \"/{name}/{{*rest}}\"\nnew = \"{name}\"\nserve = \"new\"\n")
        })
        .collect();
    gateway().probe().workers(workers).toml(routes).start().await
}

#[tokio::test]
async fn a_handler_is_given_the_request_as_it_came() {
    let gateway = probe(2).await;
    let request =
        "POST /hello/a%20b?x=1 HTTP/1.1\r\nHost: shop.test\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 4\r\n\r\nbody";
    let answer = exchange(gateway.address(), request).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let told = answer.json();
    assert_eq!(
        (&told["method"], &told["uri"], &told["body"]),
        (&"POST".into(), &"/hello/a%20b?x=1".into(), &"body".into())
    );
    let headers = told["headers"].to_string();
    assert!(headers.contains("[\"x-a\",\"1\"]") && headers.contains("[\"x-a\",\"2\"]"), "{headers}");
    assert!(headers.contains(answer.header("x-request-id").expect("an id")), "{headers}");
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_and_for_no_other() {
    let gateway = probe(1).await;
    let mut kept = Connection::open(gateway.address()).await;
    for n in 0..100 {
        let (place, status) = if n % 10 == 0 { (["now", "later"][n / 10 % 2], 500) } else { ("never", 200) };
        kept.send(format!("GET /panic/{place} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = kept.answer("GET").await.expect("the connection outlives a panic");
        assert_eq!(answer.status, status, "{place}");
        if status == 500 {
            assert_eq!(answer.json_code(), 50001);
            assert!(!answer.text().contains("secret"), "{}", answer.text());
        }
    }
    gateway.until_logged("secret reason").await;
    gateway.until_metric("strangler_requests_total", &[("route", "panic"), ("status", "5xx")], 10.0).await;
    assert_eq!(gateway.metrics().await.sum("strangler_requests_in_flight", &[("route", "panic")]), 0.0);
}

#[tokio::test]
async fn a_panic_inside_the_body_cuts_the_answer_off() {
    let gateway = probe(1).await;
    let answer = client::get(gateway.address(), "/panic/body").await;
    assert_eq!((answer.status, answer.complete), (200, false), "{}", answer.text());
    assert_eq!(gateway.until_record_of(answer.header("x-request-id").expect("an id")).await["ended"], "truncated");
    assert_eq!(gateway.ask("/hello/").await.0, 200);
}

#[tokio::test]
async fn a_handler_that_stalls_its_worker_is_named() {
    let gateway = probe(1).await;
    assert_eq!(gateway.ask("/stall/").await, (200, "woken".to_owned()));
    eventually("a metric names the handler that stalled", || async {
        let text = gateway.admin_text("/metrics").await.1;
        text.lines()
            .any(|line| line.contains("stall") && line.contains("handler=\"stall\"") && !line.ends_with(" 0"))
            .then_some(())
    })
    .await;
    let text = gateway.admin_text("/metrics").await.1;
    assert!(
        !text.lines().any(|line| line.contains("handler=\"hello\"") && line.contains("stall") && !line.ends_with(" 0")),
        "{text}"
    );
}

#[tokio::test]
async fn a_handler_that_says_it_blocks_leaves_its_worker_free() {
    let gateway = probe(1).await;
    let address = gateway.address();
    let blocked: Vec<_> =
        (0..4).map(|_| tokio::spawn(async move { client::get(address, "/blocking/x").await })).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    assert_eq!(gateway.ask("/hello/").await.0, 200);
    assert!(started.elapsed() < Duration::from_millis(150), "the worker was blocked for {:?}", started.elapsed());
    for answer in blocked {
        let answer = answer.await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "woken"));
    }
}

#[tokio::test]
async fn the_built_in_health_handler_gives_the_time() {
    let gateway = probe(2).await;
    let (status, text) = gateway.ask("/health/").await;
    assert_eq!(status, 200);
    let time = text.trim().strip_prefix("OK - ").unwrap_or_else(|| panic!("{text}"));
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && (time.ends_with('Z') || time.contains('+')), "{text}");
}

#[tokio::test]
async fn a_large_answer_of_a_handler_waits_for_its_reader() {
    let gateway = probe(1).await;
    let before = resident(gateway.pid());
    let mut connection = Connection::open(gateway.address()).await;
    connection.send("GET /big/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    connection.until("xxxx").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(resident(gateway.pid()) < before + (24 << 20), "the answer piles up in memory");
    connection.reset();
    let whole = client::get(gateway.address(), "/big/30000000").await;
    assert!(whole.complete && whole.body.len() == 30_000_000);
}

#[tokio::test]
async fn a_handler_may_take_the_connection_over() {
    let gateway = probe(1).await;
    let mut connection = Connection::open(gateway.address()).await;
    connection.send("GET /upgrade/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\n").await;
    assert_eq!(connection.answer("GET").await.expect("an answer").status, 101);
    connection.send("hello").await;
    connection.until("HELLO").await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_handler() {
    let gateway = probe(1).await;
    let mut connection = Connection::open(gateway.address()).await;
    connection.send("GET /slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "slow")], 1.0).await;
    connection.reset();
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "slow")], 0.0).await;
    let records = gateway.until_records(1).await;
    assert_eq!((&records[0]["ended"], &records[0]["status"]), (&"client_gone".into(), &499.into()), "{}", records[0]);
}

#[tokio::test]
async fn an_unknown_handler_is_a_fault_that_names_the_known_ones() {
    let gateway = probe(1).await;
    gateway.edit(|text| text.replace("new = \"hello\"", "new = \"hallo\""));
    gateway.until_metric("strangler_config_reloads_total", &[("result", "rejected")], 1.0).await;
    assert!(gateway.log().contains("hallo") && gateway.log().contains("hello"), "{}", gateway.log());
    assert_eq!(gateway.ask("/hello/").await.0, 200);
}
