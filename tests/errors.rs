//! The answers the gateway gives itself: status, code, form, and what they never tell.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{any, get};

use crate::support::client::{self, Connection, exchange};
use crate::support::gateway::Gateway;
use crate::support::upstream::{Service, service, upstream};
use crate::support::{gateway, php};

async fn one_service(server: &str) -> (Service, Gateway) {
    let service = service(Router::new().fallback(any(|_: axum::body::Bytes| async { "served" }))).await;
    let gateway = gateway()
        .server(server)
        .toml(upstream("service", &[service.url()], ""))
        .toml("[[route]]\nname = \"page\"\npath = \"/page/{*rest}\"\nmethods = [\"GET\", \"POST\"]\nlegacy = \"service\"\n")
        .start()
        .await;
    (service, gateway)
}

#[tokio::test]
async fn an_answer_of_its_own_is_json_with_a_code_and_a_request_id() {
    let (_service, gateway) = one_service("").await;
    let answer = client::get(gateway.address(), "/nowhere").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), serde_json::json!({"code": 40401, "message": "not found", "data": null}));
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let record = gateway.until_record_of(&id).await;
    assert_eq!(
        (&record["code"], &record["side"], &record["route"]),
        (&40401.into(), &"gateway".into(), &"-".into()),
        "{record}"
    );
}

#[tokio::test]
async fn a_browser_gets_a_page_it_can_show() {
    let (_service, gateway) = one_service("").await;
    let request = "GET /nowhere/<script>alert(1)</script> HTTP/1.1\r\nHost: a\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n";
    let request = request.replace('<', "%3C").replace('>', "%3E");
    let answer = exchange(gateway.address(), request).await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let (text, id) = (answer.text(), answer.header("x-request-id").expect("an id"));
    assert!(text.contains("404") && text.contains(id) && !text.contains("script"), "{text}");
}

#[tokio::test]
async fn a_head_request_gets_the_head_of_the_error_alone() {
    let (_service, gateway) = one_service("").await;
    let mut connection = Connection::open(gateway.address()).await;
    connection.send("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET /page/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(connection.answer("HEAD").await.expect("an answer").status, 404);
    assert_eq!(connection.answer("GET").await.expect("an answer").text(), "served");
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused_with_the_status_that_says_how() {
    let (_service, gateway) = one_service(
        "[server.limits]\nbody_bytes = \"1KiB\"\nuri_bytes = \"1KiB\"\nheader_bytes = \"4KiB\"\nheaders = 20\n",
    )
    .await;
    let long = "x".repeat(2000);
    let huge = "x".repeat(6000);
    let many: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases: Vec<(&str, String, u16)> = vec![
        ("no Host", "GET /page/ HTTP/1.1\r\n\r\n".into(), 400),
        ("two Hosts", "GET /page/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        ("a Host that is none", "GET /page/ HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400),
        ("a Host with a path", "GET /page/ HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400),
        ("a broken escape", "GET /page/%zz HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("a NUL", "GET /page/%00 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("above the root", "GET /page/../../x HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        (
            "two lengths",
            "POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(),
            400,
        ),
        ("a negative length", "POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n".into(), 400),
        (
            "chunked twice",
            "POST /page/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        (
            "an unknown coding",
            "POST /page/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
            501,
        ),
        ("a space before the colon", "GET /page/ HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n".into(), 400),
        ("a folded header", "GET /page/ HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n".into(), 400),
        ("a method not allowed", "PUT /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(), 405),
        ("TRACE", "TRACE /page/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".into(), 501),
        ("a body declared too large", "POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n".into(), 413),
        (
            "a body grown too large",
            format!("POST /page/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{long}\r\n0\r\n\r\n"),
            413,
        ),
        ("a target too long", format!("GET /page/{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("a header too long", format!("GET /page/ HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"), 431),
        ("too many headers", format!("GET /page/ HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("an expectation nobody meets", "GET /page/ HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n".into(), 417),
    ];
    for (what, request, status) in cases {
        let answer =
            exchange(gateway.address(), &request).await.unwrap_or_else(|| panic!("{what}: closed without an answer"));
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    assert_eq!(client::get(gateway.address(), "/page/fine").await.text(), "served");
}

#[tokio::test]
async fn chunks_win_over_a_length_and_the_connection_ends_with_that_request() {
    let (_service, gateway) = one_service("").await;
    let mut connection = Connection::open(gateway.address()).await;
    connection
        .send("POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    let answer = connection.answer("POST").await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{}", answer.text());
    assert!(connection.closes_within(Duration::from_secs(2)).await, "what follows could be read in two ways");
}

#[tokio::test]
async fn nothing_is_smuggled_behind_a_refused_request() {
    let (_service, gateway) = one_service("").await;
    for request in [
        "POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /page/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /page/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /page/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /page/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;\n\r\n\r\nGET /page/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /page/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /page/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut connection = Connection::open(gateway.address()).await;
        connection.send(request).await;
        let mut answers = Vec::new();
        while let Some(answer) = connection.answer("POST").await {
            answers.push(answer.status);
        }
        assert!(answers.len() <= 1, "{answers:?} to {request:?}");
    }
    let end = client::get(gateway.address(), "/page/end").await;
    gateway.until_record_of(end.header("x-request-id").expect("an id")).await;
    assert!(
        !gateway.records().iter().any(|record| record["path"].as_str().is_some_and(|path| path.contains("smuggled")))
    );
}

#[tokio::test]
async fn slow_clients_are_shown_the_door() {
    let (_service, gateway) =
        one_service("[server.timeouts]\nheader = \"400ms\"\nbody_gap = \"400ms\"\nidle = \"400ms\"\n").await;
    let started = Instant::now();
    let mut head = Connection::open(gateway.address()).await;
    head.send("GET /page/ HTTP/1.1\r\nHost: a\r\nX-").await;
    let answer = head.answer("GET").await;
    assert!(answer.is_none_or(|answer| answer.status == 408));
    let mut body = Connection::open(gateway.address()).await;
    body.send("POST /page/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(body.answer("POST").await.expect("an answer").status, 408);
    let mut idle = Connection::open(gateway.address()).await;
    idle.send("GET /page/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.answer("GET").await.expect("an answer").status, 200);
    assert!(idle.closes_within(Duration::from_secs(2)).await, "an idle connection stays open");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_request_id_of_a_client_is_not_believed() {
    let echo = service(Router::new().fallback(get(|headers: http::HeaderMap| async move {
        headers["x-request-id"].to_str().expect("text").to_owned()
    })))
    .await;
    let gateway = gateway()
        .toml(upstream("echo", &[echo.url()], ""))
        .toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"echo\"\n")
        .start()
        .await;
    let answer = exchange(gateway.address(), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: forged\r\n\r\n")
        .await
        .expect("an answer");
    assert_ne!(answer.text(), "forged");
    assert_eq!(answer.header("x-request-id"), Some(answer.text().as_str()));
    gateway.edit(|text| text.replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n"));
    gateway.until_newer(1).await;
    let answer = exchange(gateway.address(), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: from-the-edge-7\r\n\r\n")
        .await
        .expect("an answer");
    assert_eq!(answer.text(), "from-the-edge-7", "a trusted proxy's id is kept");
}

#[tokio::test]
async fn no_answer_tells_an_address_a_path_or_a_cause() {
    let php = php().children(1).start().await;
    let gateway = gateway()
        .toml(php.upstream_with_connections(1, "php = \"files\"\nconnect = \"100ms\"\nqueue = \"100ms\""))
        .toml(upstream("gone", &["http://127.0.0.1:9"], "connect = \"100ms\""))
        .toml("[[route]]\npath = \"/gone\"\nlegacy = \"gone\"\n[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"\n")
        .start()
        .await;
    let mut texts = Vec::new();
    for target in ["/gone", "/die.php", "/.env", "/x%00", "/link"] {
        texts.push(client::get(gateway.address(), target).await);
    }
    php.delete_socket();
    for _ in 0..3 {
        texts.push(client::get(gateway.address(), "/answer.php").await);
    }
    for answer in texts {
        let text = format!("{:?} {}", answer.headers, answer.text());
        for secret in [
            php.root().display().to_string().as_str(),
            "fpm.sock",
            "127.0.0.1:9",
            "os error",
            "refused",
            "No such file",
        ] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}
