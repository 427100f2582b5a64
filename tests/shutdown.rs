//! Going down: nothing that was begun is lost, and a second signal does not wait.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{self, Connection};
use crate::support::{eventually, gateway, php};

#[tokio::test]
async fn requests_begun_before_the_signal_are_finished_and_the_exit_is_clean() {
    let php = php().children(8).start().await;
    let mut gateway = gateway().server("drain = \"20s\"").php(&php).start().await;
    let address = gateway.address();
    let running: Vec<_> =
        (0..6).map(|_| tokio::spawn(async move { client::get(address, "/slow.php?ms=1500").await })).collect();
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "rest")], 6.0).await;
    gateway.signal(Signal::TERM);
    for request in running {
        let answer = request.await.expect("an answer");
        assert!(answer.status == 200 && answer.complete, "{answer:?}");
    }
    let status = gateway.end(Duration::from_secs(15)).await;
    assert!(status.success(), "{status}: {}", gateway.log());
    assert_eq!(gateway.records().len(), 6, "each has its record although the process has ended");
}

#[tokio::test]
async fn readiness_fails_first_while_new_requests_are_still_served() {
    let php = php().start().await;
    let mut gateway = gateway().server("drain = \"20s\"").php(&php).start().await;
    assert_eq!(gateway.admin_text("/readyz").await.0, 200);
    assert_eq!(gateway.admin_text("/healthz").await.0, 200);
    let mut kept = Connection::open(gateway.address()).await;
    kept.send("GET /answer.php HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.answer("GET").await.expect("an answer").status, 200);
    gateway.signal(Signal::TERM);
    eventually("readiness fails", || async { (gateway.admin_text("/readyz").await.0 == 503).then_some(()) }).await;
    let late = client::get(gateway.address(), "/answer.php?body=late").await;
    assert_eq!((late.status, late.text().as_str()), (200, "late"), "the lame-duck moment refuses nobody");
    kept.send("GET /answer.php HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let last = kept.answer("GET").await.expect("a kept connection is served once more");
    assert_eq!(last.status, 200);
    assert_eq!(last.header("connection"), Some("close"), "the client is told to go elsewhere");
    assert!(gateway.end(Duration::from_secs(15)).await.success());
}

#[tokio::test]
async fn under_load_no_request_is_cut() {
    let php = php().children(8).start().await;
    let mut gateway = gateway().server("drain = \"20s\"").php(&php).start().await;
    let address = gateway.address();
    let clients: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn(async move {
                let mut served = 0;
                loop {
                    // Refused at the end: that is how a client learns that the listener has gone.
                    let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return served };
                    drop(stream);
                    let mut connection = Connection::open(address).await;
                    connection.send("GET /slow.php?ms=30 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                    match connection.answer("GET").await {
                        Some(answer) => assert!(answer.status == 200 && answer.complete, "{answer:?}"),
                        None => return served,
                    }
                    served += 1;
                }
            })
        })
        .collect();
    gateway.until_metric("strangler_requests_total", &[("route", "rest")], 20.0).await;
    gateway.signal(Signal::TERM);
    assert!(gateway.end(Duration::from_secs(20)).await.success());
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap_or(0);
    }
    let records = gateway.records();
    let cut: Vec<_> =
        records.iter().filter(|record| record["status"] != 200 || record["ended"] != "complete").collect();
    assert!(cut.is_empty(), "{cut:#?}");
    assert!(served >= 20, "{served}");
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let php = php().start().await;
    let mut gateway = gateway().server("drain = \"60s\"").php(&php).start().await;
    let mut client = Connection::open(gateway.address()).await;
    client.send("GET /slow.php?ms=30000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "rest")], 1.0).await;
    gateway.signal(Signal::INT);
    eventually("readiness fails", || async { (gateway.admin_text("/readyz").await.0 == 503).then_some(()) }).await;
    let started = Instant::now();
    gateway.signal(Signal::INT);
    gateway.end(Duration::from_secs(5)).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_drain_ends_at_its_deadline_whatever_still_runs() {
    let php = php().start().await;
    let mut gateway = gateway().server("drain = \"1s\"").php(&php).start().await;
    let mut client = Connection::open(gateway.address()).await;
    client.send("GET /slow.php?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.until_gauge("strangler_requests_in_flight", &[("route", "rest")], 1.0).await;
    gateway.signal(Signal::TERM);
    let started = Instant::now();
    gateway.end(Duration::from_secs(15)).await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let record = gateway.records().pop().expect("its record");
    assert_ne!(record["ended"], "complete", "{record}");
}
