//! HTTP services behind the gateway: several of them, dying ones, upgrades, trailers, early and broken answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get, post};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Connection, exchange};
use crate::support::gateway::Gateway;
use crate::support::process::open_files;
use crate::support::upstream::{Conn, Scripted, scripted, service, unix_service, upstream};
use crate::support::{client, eventually, gateway, noise};

/// A gateway with one service behind every path.
async fn in_front_of(urls: &[&str], extra: &str) -> Gateway {
    gateway()
        .toml(upstream("service", urls, extra))
        .toml("[[route]]\nname = \"all\"\npath = \"/{*rest}\"\nlegacy = \"service\"\n")
        .start()
        .await
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn two_servers_share_the_requests_and_one_that_dies_is_left_out() {
    let one = service(Router::new().fallback(get(|| async { "one" }))).await;
    let two = service(Router::new().fallback(get(|| async { "two" }))).await;
    let gateway = in_front_of(&[one.url(), two.url()], "connect = \"500ms\"").await;
    let mut counts = [0, 0];
    for _ in 0..200 {
        counts[usize::from(gateway.ask("/").await.1 == "two")] += 1;
    }
    assert!(counts.iter().all(|count| *count > 30), "one server gets nearly all: {counts:?}");
    one.stop().await;
    for _ in 0..200 {
        assert_eq!(gateway.ask("/").await, (200, "two".to_owned()), "a GET fails although a server lives");
    }
}

#[tokio::test]
async fn an_answer_cannot_forge_or_betray_its_side() {
    let forged =
        [("x-strangler-side", "new"), ("x-accel-redirect", "/private"), ("x-powered-by", "PHP"), ("x-own", "1")];
    let service = service(Router::new().fallback(get(async move || (http::StatusCode::NOT_FOUND, forged, "no")))).await;
    let gateway = in_front_of(&[service.url()], "").await;
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.header("x-own")), (404, Some("1")));
    for (name, _) in &forged[..3] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn without_any_server_the_answer_is_a_502_that_names_nothing() {
    let gone = service(Router::new()).await;
    let url = gone.url().to_owned();
    gone.stop().await;
    let gateway = in_front_of(&[&url], "connect = \"300ms\"").await;
    let answer = client::get(gateway.address(), "/").await;
    assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
    let port = url.rsplit(':').next().expect("a port");
    assert!(!answer.text().contains(port) && !answer.text().contains("127.0.0.1"), "{}", answer.text());
    gateway.until_logged(port).await;
}

#[tokio::test]
async fn a_service_on_a_unix_socket_is_one_like_others() {
    let service = unix_service(Router::new().fallback(get(|| async { "by path" })));
    let gateway = in_front_of(&[service.url()], "").await;
    assert_eq!(gateway.ask("/x").await, (200, "by path".to_owned()));
}

#[tokio::test]
async fn a_service_sees_the_host_the_client_and_the_request_id_but_nothing_of_the_connection() {
    let echo = service(Router::new().fallback(any(|headers: HeaderMap| async move { format!("{headers:?}") }))).await;
    let gateway = in_front_of(&[echo.url()], "").await;
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
         TE: gzip\r\nProxy-Authorization: p\r\nX-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX-Strangler-User: admin\r\nX-Fine: yes\r\n\r\n";
    let answer = exchange(gateway.address(), request).await.expect("an answer");
    let seen = answer.text();
    assert!(seen.contains("\"host\": \"shop.test\"") && seen.contains("\"x-fine\": \"yes\""), "{seen}");
    assert!(seen.contains("\"x-forwarded-for\": \"127.0.0.1\""), "{seen}");
    assert!(seen.contains(answer.header("x-request-id").expect("an id")), "{seen}");
    for name in ["x-private", "keep-alive", "te\"", "proxy-authorization", "6.6.6.6", "x-strangler-user"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
}

#[tokio::test]
async fn a_web_socket_passes_through_in_both_directions() {
    let server = scripted(|conn: Conn| async move { echo_web_socket(conn).await });
    let gateway = in_front_of(&[&server.url()], "").await;
    let url = format!("ws://{}/chat", gateway.address());
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
    let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.expect("an upgrade");
    assert_eq!(response.status(), 101);
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.send(Message::text(text)).await.expect("sent");
        let back = socket.next().await.expect("a message").expect("a message");
        assert_eq!(back.into_text().expect("text").as_str(), text);
    }
    socket.close(None).await.expect("closed");
    drop(socket);
    eventually("the service's connection ends with the client's", || async { (server.open() == 0).then_some(()) })
        .await;
    let record = gateway.until_records(1).await.remove(0);
    assert_eq!(record["status"], 101, "{record}");
}

async fn echo_web_socket(mut conn: Conn) {
    // By hand, so that the server's side of the upgrade is seen as well.
    let Some(head) = conn.head().await else { return };
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    let key = head
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")));
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.expect("a key").1.trim().as_bytes());
    conn.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")).await;
    loop {
        let Some(frame) = conn.body(2).await else { return };
        let length = match frame[1] & 0x7f {
            126 => conn.body(2).await.map(|bytes| u64::from(u16::from_be_bytes([bytes[0], bytes[1]]))),
            127 => conn.body(8).await.map(|bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes"))),
            short => Some(u64::from(short)),
        };
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else { return };
        let Some(mask) = conn.body(4).await else { return };
        let Some(masked) = conn.body(length).await else { return };
        let text: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let mut back = vec![frame[0]];
        match u16::try_from(length) {
            Ok(short) if short < 126 => back.push(u8::try_from(short).expect("short")),
            Ok(medium) => back.extend([&[126][..], &medium.to_be_bytes()].concat()),
            Err(_) => back.extend([&[127][..], &u64::try_from(length).expect("a length").to_be_bytes()].concat()),
        }
        conn.send([back, text].concat()).await;
        if frame[0] & 0x0f == 8 {
            return;
        }
    }
}

#[tokio::test]
async fn an_upgrade_the_service_refuses_is_an_ordinary_answer() {
    let service = service(Router::new().fallback(get(|| async { (http::StatusCode::FORBIDDEN, "no") }))).await;
    let gateway = in_front_of(&[service.url()], "").await;
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = exchange(gateway.address(), request).await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let service = service(Router::new().route("/", post(|request: Request| async move { request.into_body() }))).await;
    let gateway = gateway()
        .server("[server.limits]\nbody_bytes = \"64MiB\"")
        .toml(upstream("service", &[service.url()], ""))
        .toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"service\"\n")
        .start()
        .await;
    let body = noise(20 << 20, 7);
    let back =
        gateway.request("POST", "/").body(body.clone()).send().await.expect("an answer").bytes().await.expect("a body");
    assert!(back == body, "{} bytes came back", back.len());
}

#[tokio::test]
async fn a_chunk_reaches_the_client_when_the_service_sends_it() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
        // The second chunk only comes once the client has the first: it says so by its next request.
        tokio::time::sleep(Duration::from_millis(700)).await;
        conn.send("3\r\ntwo\r\n0\r\n\r\n").await;
    });
    let gateway = in_front_of(&[&server.url()], "").await;
    let mut connection = Connection::open(gateway.address()).await;
    let started = Instant::now();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    connection.until("one").await;
    assert!(started.elapsed() < Duration::from_millis(600), "held back: {:?}", started.elapsed());
    connection.until("two").await;
}

#[tokio::test]
async fn trailers_of_the_service_reach_the_client() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
        )
        .await;
        conn.closed().await;
    });
    let gateway = in_front_of(&[&server.url()], "").await;
    let answer =
        exchange(gateway.address(), "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").await.expect("an answer");
    assert_eq!(answer.text(), "hi");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
}

#[tokio::test]
async fn interim_answers_of_the_service_do_not_disturb_the_final_one() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(20)).await;
        conn.send(OK).await;
        conn.closed().await;
    });
    let gateway = in_front_of(&[&server.url()], "").await;
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_passes_and_leaves_nothing_open() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
        conn.closed().await;
    });
    let gateway = in_front_of(&[&server.url()], "").await;
    let before = open_files(gateway.pid());
    for _ in 0..10 {
        let mut connection = Connection::open(gateway.address()).await;
        connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        connection.send(noise(200_000, 8)).await;
        let answer = connection.answer("POST").await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    }
    eventually("connections to the service are closed", || async { (server.open() == 0).then_some(()) }).await;
    eventually("descriptors are given back", || async { (open_files(gateway.pid()) <= before + 3).then_some(()) })
        .await;
}

#[tokio::test]
async fn answers_that_break_are_a_502_before_their_head_and_cut_off_after_it() {
    let broken: [(&'static str, u16); 6] = [
        ("", 502),
        ("HTTP/1.1 200 OK\r\nContent-Le", 502),
        ("nonsense\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200),
    ];
    for (bytes, status) in broken {
        for reset in [false, true] {
            let server = scripted(move |mut conn: Conn| async move {
                conn.head().await;
                conn.send(bytes).await;
                if reset {
                    // Let the gateway read what was sent before the connection breaks.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    conn.reset();
                }
            });
            let gateway = in_front_of(&[&server.url()], "").await;
            let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let answer = exchange(gateway.address(), request).await.expect("an answer");
            // As long as nothing was passed on, a break after the head may still become a 502.
            assert!(answer.status == 502 || answer.status == status, "{bytes:?} reset={reset}: {answer:?}");
            assert_eq!(answer.complete, answer.status == 502, "{bytes:?} reset={reset}");
            assert_eq!(server.connections(), 1, "{bytes:?}: a POST was sent twice");
        }
    }
}

#[tokio::test]
async fn a_service_that_is_too_slow_is_a_504() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.closed().await;
    });
    let gateway = in_front_of(&[&server.url()], "first_byte = \"300ms\"").await;
    let started = Instant::now();
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.json_code()), (504, 50401));
    assert!((300..1200).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    eventually("the connection is closed", || async { (server.open() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn the_timeout_of_a_route_ends_a_slow_answer() {
    let server = scripted(|mut conn: Conn| async move {
        conn.head().await;
        conn.closed().await;
    });
    let table = upstream("service", &[&server.url()], "");
    let gateway = gateway()
        .toml(table)
        .toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"service\"\ntimeout = \"250ms\"\n")
        .start()
        .await;
    let answer = client::get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.json_code()), (504, 50402));
}

#[tokio::test]
async fn a_kept_connection_that_died_idle_costs_no_request() {
    // Answers once, waits until the answer is surely through, closes without a word.
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let server: Scripted = scripted(move |mut conn: Conn| {
        let seen = Arc::clone(&seen);
        async move {
            if conn.head().await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
                conn.send(OK).await;
            }
        }
    });
    let gateway = in_front_of(&[&server.url()], "").await;
    for n in 1..=50 {
        assert_eq!(gateway.ask("/").await, (200, "ok".to_owned()), "request {n}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 50, "a request was served twice or by nobody");
}

#[tokio::test]
async fn connections_to_a_service_are_kept_and_used_again() {
    let server = scripted(|mut conn: Conn| async move {
        while conn.head().await.is_some() {
            conn.send(OK).await;
        }
    });
    let gateway = gateway()
        .workers(1)
        .toml(upstream("service", &[&server.url()], ""))
        .toml("[[route]]\npath = \"/{*rest}\"\nlegacy = \"service\"\n")
        .start()
        .await;
    for _ in 0..50 {
        assert_eq!(gateway.ask("/").await.0, 200);
    }
    assert_eq!(server.connections(), 1);
}
