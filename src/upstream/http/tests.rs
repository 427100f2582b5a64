//! A real client and scripted servers, with a [`Service`] between them.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, Failure, Upload, Wait};
use super::{HostPolicy, Server, Service, Settings};
use crate::http::{Body, CanonicalPath, Client, RequestBody, Timeline};
use crate::upstream::Inbound;

const LONG: Duration = Duration::from_secs(5);

fn run<F: Future>(test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(20), test).await.expect("the test hangs") })
}

fn settings(servers: &[&Script]) -> Settings {
    let servers = servers.iter().map(|script| script.server()).collect();
    let idle = Duration::from_secs(60);
    Settings { servers, connect: LONG, first_byte: LONG, between_bytes: LONG, idle, host: HostPolicy::Keep }
}

/// A server that does what it is told: `script` gets each connection.
struct Script {
    address: SocketAddr,
    accepted: Rc<Cell<usize>>,
    open: Rc<Cell<usize>>,
    heads: Rc<RefCell<Vec<String>>>,
}

struct Peer {
    io: BufReader<TcpStream>,
    /// Which connection this is, from 0.
    number: usize,
    heads: Rc<RefCell<Vec<String>>>,
}

impl Peer {
    /// The next head, or nothing when the gateway has closed.
    async fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.io.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        self.heads.borrow_mut().push(head.clone());
        Some(head)
    }

    async fn say(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ok(&mut self, body: &str) {
        self.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Waits for the gateway to close.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = self.io.read_to_end(&mut rest).await;
    }
}

impl Script {
    async fn start<F: Future<Output = ()> + 'static>(script: impl Fn(Peer) -> F + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, open, heads) = <(Rc<Cell<usize>>, Rc<Cell<usize>>, Rc<RefCell<Vec<String>>>)>::default();
        let made = Self { address, accepted: accepted.clone(), open: open.clone(), heads: heads.clone() };
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = Peer { io: BufReader::new(stream), number: accepted.get(), heads: heads.clone() };
                accepted.set(accepted.get() + 1);
                open.set(open.get() + 1);
                let (open, done) = (open.clone(), script(peer));
                spawn_local(async move {
                    done.await;
                    open.set(open.get() - 1);
                });
            }
        });
        made
    }

    /// Answers everything with `body`, as often as it is asked.
    async fn echo(body: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            while peer.head().await.is_some() {
                peer.ok(body).await;
            }
        })
        .await
    }

    /// Says this to a connection's first request, and no more until the gateway closes.
    async fn says(text: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            peer.head().await;
            peer.say(text).await;
            peer.closed().await;
        })
        .await
    }

    fn server(&self) -> Server {
        Server::Tcp { host: self.address.ip().to_string(), port: self.address.port() }
    }

    fn head(&self, number: usize) -> String {
        self.heads.borrow()[number].to_ascii_lowercase()
    }
}

/// The edge in front of the service: what the gateway does, without routes.
struct Front {
    address: SocketAddr,
    service: Rc<Service>,
}

impl Front {
    async fn start(settings: Settings) -> Self {
        Self::with_client(settings, |_| {}).await
    }

    async fn with_client(settings: Settings, change: impl Fn(&mut Client) + 'static) -> Self {
        let service = Rc::new(Service::new("orders", settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, change) = (service.clone(), Rc::new(change));
        spawn_local(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let mut client = Client::of_connection(peer, address);
                change(&mut client);
                let service = shared.clone();
                let serve = service_fn(move |request| handle(service.clone(), client.clone(), request));
                spawn_local(async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), serve)
                        .with_upgrades();
                    let _ = connection.await;
                });
            }
        });
        Self { address, service }
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `request` and reads all that comes until the connection ends.
    async fn raw(&self, request: &str) -> String {
        let mut io = self.connect().await;
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")).await
    }

    async fn post(&self, body: &str) -> String {
        let length = body.len();
        self.raw(&format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await
    }
}

async fn handle(
    service: Rc<Service>,
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let timeline = Timeline::start(std::time::Instant::now());
    let (mut head, body) = request.into_parts();
    let deadline = head.headers.remove("x-deadline-ms").map_or(60_000, |ms| ms.to_str().unwrap().parse().unwrap());
    let inbound = Box::new(Inbound {
        path: CanonicalPath::parse(head.uri.path()).unwrap(),
        head,
        body: RequestBody::new(body, 1 << 20, Duration::from_millis(200)),
        client,
        request_id: HeaderValue::from_static("r-1"),
        deadline: Instant::now() + Duration::from_millis(deadline),
    });
    let answered = service.call(inbound, &timeline).await;
    Ok(answered.unwrap_or_else(|error| {
        let mut answer = error.answer().render(None, "r-1");
        answer.headers_mut().insert("x-error", HeaderValue::from_str(&format!("{error:?}")).unwrap());
        answer
    }))
}

async fn eventually(what: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < until, "it did not come true in time");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn requests_one_after_another_share_a_connection() {
    run(async {
        let script = Script::echo("hello").await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..5 {
            assert!(front.get("/").await.ends_with("\r\n\r\nhello"));
        }
        assert_eq!(script.accepted.get(), 1);
        assert_eq!(front.service.connections(), (0, 1));
    });
}

#[test]
fn the_target_goes_on_as_the_client_wrote_it() {
    run(async {
        let script = Script::echo("").await;
        let front = Front::start(settings(&[&script])).await;
        front.get("/a%2fB/../c?x=%41&y").await;
        assert!(script.heads.borrow()[0].starts_with("GET /a%2fB/../c?x=%41&y HTTP/1.1\r\n"));
        front.raw("GET http://other.example/p?q HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
        assert!(script.heads.borrow()[1].starts_with("GET /p?q HTTP/1.1\r\n"));
        assert!(script.head(1).contains("host: other.example\r\n"));
    });
}

#[test]
fn the_server_learns_who_the_client_is_and_not_what_the_client_says_of_itself() {
    run(async {
        let script = Script::echo("").await;
        let front = Front::start(settings(&[&script])).await;
        let said = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
        front.raw(&format!("GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{said}\r\n")).await;
        let head = script.head(0);
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
        assert!(head.contains("x-forwarded-proto: http\r\n") && head.contains("x-forwarded-host: shop\r\n"), "{head}");
        assert!(head.contains("host: shop\r\n") && !head.contains("connection:"), "{head}");
    });
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    run(async {
        let script = Script::echo("").await;
        let trust = |client: &mut Client| client.via_trusted_proxy = true;
        let front = Front::with_client(settings(&[&script]), trust).await;
        let said = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Host: shop.example\r\n";
        front.raw(&format!("GET / HTTP/1.1\r\nHost: in\r\nConnection: close\r\n{said}\r\n")).await;
        let head = script.head(0);
        assert!(head.contains("x-forwarded-for: 9.9.9.9, 8.8.8.8, 127.0.0.1\r\n"), "{head}");
        assert!(head.contains("x-forwarded-host: shop.example\r\n"), "{head}");
    });
}

#[test]
fn a_host_of_its_own_is_sent_to_a_service_that_has_one() {
    run(async {
        let script = Script::echo("").await;
        let front = Front::start(Settings { host: HostPolicy::Name("orders.in".into()), ..settings(&[&script]) }).await;
        front.get("/").await;
        assert!(script.head(0).contains("host: orders.in\r\n"));
        assert!(script.head(0).contains("x-forwarded-host: shop.example\r\n"));
    });
}

#[test]
fn a_reply_is_cleaned_of_what_concerned_its_connection() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 201 Made\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n")
                .await;
            peer.say("X-Kept: 2\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok").await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.get("/").await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 201 made\r\n"), "{answer}");
        assert!(!answer.contains("x-private") && !answer.contains("keep-alive"), "{answer}");
        assert_eq!(answer.matches("content-length: 2\r\n").count(), 1, "{answer}");
        assert!(answer.contains("x-kept: 2\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert_eq!(front.service.connections(), (0, 0));
    });
}

#[test]
fn a_chunked_reply_that_is_here_goes_out_whole_and_frees_its_connection() {
    run(async {
        let script = Script::start(|mut peer| async move {
            while peer.head().await.is_some() {
                peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
            }
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..2 {
            let answer = front.get("/").await;
            assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("hello"), "{answer}");
        }
        assert_eq!((script.accepted.get(), front.service.connections()), (1, (0, 1)));
    });
}

#[test]
fn a_reply_that_takes_its_time_streams_and_frees_its_connection() {
    run(async {
        let script = Script::start(|mut peer| async move {
            while peer.head().await.is_some() {
                peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
                sleep(Duration::from_millis(20)).await;
                peer.say("3\r\ntwo\r\n").await;
                sleep(Duration::from_millis(20)).await;
                peer.say("0\r\n\r\n").await;
            }
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..2 {
            let answer = front.get("/").await;
            assert!(answer.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "{answer}");
        }
        assert_eq!((script.accepted.get(), front.service.connections()), (1, (0, 1)));
    });
}

#[test]
fn a_large_reply_with_a_length_arrives_whole_and_frees_its_connection() {
    run(async {
        let body: &'static str = "x".repeat(3 << 20).leak();
        let script = Script::echo(body).await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..2 {
            let answer = front.get("/").await;
            assert!(answer.contains(&format!("content-length: {}\r\n", body.len())));
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), body.len());
        }
        assert_eq!((script.accepted.get(), front.service.connections()), (1, (0, 1)));
    });
}

#[test]
fn replies_without_a_body_keep_their_length_and_their_connection() {
    run(async {
        let script = Script::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                let reply = if head.starts_with("HEAD") { "200 OK\r\nContent-Length: 7" } else { "304 Not Modified" };
                peer.say(&format!("HTTP/1.1 {reply}\r\n\r\n")).await;
            }
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.raw("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("content-length: 7\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(front.get("/").await.starts_with("HTTP/1.1 304"));
        assert_eq!((script.accepted.get(), front.service.connections()), (1, (0, 1)));
    });
}

#[test]
fn informational_replies_are_skipped() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            for _ in 0..100 {
                peer.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            }
            peer.ok("done").await;
            peer.closed().await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
    });
}

#[test]
fn trailers_of_a_reply_reach_a_client_that_takes_them() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
            peer.say("2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n").await;
            peer.closed().await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.raw("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_body_streams_to_the_server_and_its_connection_is_used_again() {
    run(async {
        let script = Script::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                assert!(head.to_ascii_lowercase().contains("content-length: 6\r\n"), "{head}");
                let mut body = [0; 6];
                peer.io.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"abcdef");
                peer.ok("taken").await;
            }
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..2 {
            assert!(front.post("abcdef").await.ends_with("taken"));
        }
        assert_eq!((script.accepted.get(), front.service.connections()), (1, (0, 1)));
    });
}

#[test]
fn a_client_that_stops_sending_its_body_is_to_blame_and_nobody_else() {
    run(async {
        let script = Script::says("").await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("TooSlow"), "{answer}");
        eventually(|| script.open.get() == 0).await;
    });
}

#[test]
fn a_body_over_its_limit_is_refused_with_its_own_answer() {
    run(async {
        let script = Script::says("").await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        spawn_local(async move { write.write_all(&vec![b'x'; 2_000_000]).await });
        let mut answer = vec![0; 12];
        read.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 413");
        eventually(|| script.open.get() == 0).await;
    });
}

#[test]
fn an_early_reply_reaches_the_client_and_leaves_no_connection_behind() {
    run(async {
        let script = Script::says("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        let front = Front::start(settings(&[&script])).await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut io = front.connect().await;
            io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc").await.unwrap();
            let mut line = String::new();
            io.read_line(&mut line).await.unwrap();
            assert_eq!(line, "HTTP/1.1 403 Forbidden\r\n");
            clients.push(io);
        }
        assert_eq!(script.accepted.get(), 10);
        eventually(|| script.open.get() == 0 && front.service.connections() == (0, 0)).await;
    });
}

#[test]
fn an_early_reply_survives_the_server_closing_under_the_upload() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        spawn_local(async move { write.write_all(&vec![b'x'; 900_000]).await });
        let mut answer = vec![0; 12];
        read.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 413");
        eventually(|| front.service.connections() == (0, 0)).await;
    });
}

#[test]
fn an_idle_connection_that_the_server_closed_costs_no_request() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.ok("once").await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        for _ in 0..4 {
            // A body: nothing may be sent twice, and nothing has to be.
            assert!(front.post("").await.ends_with("once"));
            eventually(|| script.open.get() == 0).await;
        }
        assert_eq!(script.accepted.get(), 4);
    });
}

#[test]
fn a_request_on_a_connection_that_ends_before_taking_it_comes_back() {
    run(async {
        let close = Rc::new(Notify::new());
        let told = close.clone();
        let script = Script::start(move |mut peer| {
            let told = told.clone();
            async move {
                peer.head().await;
                peer.ok("once").await;
                told.notified().await;
            }
        })
        .await;
        let request = || Request::new(Upload::empty());
        let wait = Wait { first_byte: LONG, deadline: Instant::now() + LONG, timeout: LONG };
        let connection = Connection::open(&script.server(), wait.deadline).await.unwrap();
        let Ok((mut connection, reply)) = connection.send(request(), Instant::now(), &wait).await else {
            panic!("no reply")
        };
        let mut body = reply.into_body();
        while let Some(frame) = poll_fn(|cx| connection.poll_frame(&mut body, cx)).await {
            frame.unwrap();
        }
        // As in the pool: it waits for a request, then the server closes, and nobody looks.
        poll_fn(|cx| {
            connection.drive(cx);
            Poll::Ready(())
        })
        .await;
        assert!(connection.is_ready());
        close.notify_one();
        eventually(|| script.open.get() == 0).await;
        sleep(Duration::from_millis(5)).await;
        assert!(matches!(connection.send(request(), Instant::now(), &wait).await, Err(Failure::Unsent(_))));
    });
}

/// Answers the first request of its first connection; reads a second one and closes without a word.
async fn closes_under_the_second() -> Script {
    Script::start(|mut peer| async move {
        peer.head().await;
        peer.ok("first").await;
        peer.head().await;
        if peer.number > 0 {
            peer.ok("again").await;
        }
    })
    .await
}

#[test]
fn a_connection_closed_in_the_moment_of_its_use_is_tried_again_for_what_may_be_repeated() {
    run(async {
        let script = closes_under_the_second().await;
        let front = Front::start(settings(&[&script])).await;
        assert!(front.get("/1").await.ends_with("first"));
        assert!(front.get("/2").await.ends_with("first"));
        assert_eq!(script.accepted.get(), 2);
        assert!(script.head(1).starts_with("get /2 ") && script.head(2).starts_with("get /2 "));
    });
}

#[test]
fn what_may_not_be_repeated_is_sent_once() {
    run(async {
        let script = closes_under_the_second().await;
        let front = Front::start(settings(&[&script])).await;
        assert!(front.get("/1").await.ends_with("first"));
        let answer = front.post("").await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("Broken"), "{answer}");
        assert_eq!(script.accepted.get(), 1);
    });
}

#[test]
fn a_new_connection_closed_without_a_word_is_a_broken_reply() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("Broken"), "{answer}");
        assert_eq!(script.accepted.get(), 1);
    });
}

#[test]
fn replies_that_break_the_protocol_are_refused() {
    for reply in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        run(async move {
            let script = Script::says(reply).await;
            let front = Front::start(settings(&[&script])).await;
            let answer = front.get("/").await;
            assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("BadReply"), "{reply} gave {answer}");
            eventually(|| script.open.get() == 0).await;
        });
    }
}

#[test]
fn a_reply_with_an_endless_head_is_refused() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\n").await;
            let line = format!("X-Pad: {}\r\n", "p".repeat(1000));
            while peer.io.write_all(line.as_bytes()).await.is_ok() {}
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("too large"), "{answer}");
    });
}

#[test]
fn a_reply_that_breaks_off_never_looks_complete() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
            sleep(Duration::from_millis(30)).await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.get("/").await;
        assert!(answer.contains("abc") && !answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!(front.service.connections(), (0, 0));
    });
}

#[test]
fn a_server_that_does_not_answer_runs_into_the_first_byte_deadline() {
    run(async {
        let script = Script::says("").await;
        let first_byte = Duration::from_millis(50);
        let front = Front::start(Settings { first_byte, ..settings(&[&script]) }).await;
        let answer = front.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("FirstByteTimeout"), "{answer}");
        eventually(|| script.open.get() == 0).await;
    });
}

#[test]
fn the_routes_own_deadline_holds_before_the_servers() {
    run(async {
        let script = Script::says("").await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.raw("GET / HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 50\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("DeadlinePassed"), "{answer}");
    });
}

#[test]
fn a_reply_that_falls_silent_is_cut_off() {
    run(async {
        let script = Script::says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        let between_bytes = Duration::from_millis(50);
        let front = Front::start(Settings { between_bytes, ..settings(&[&script]) }).await;
        let answer = front.get("/").await;
        assert!(answer.contains("content-length: 10\r\n") && answer.ends_with("abc"), "{answer}");
        eventually(|| script.open.get() == 0).await;
    });
}

/// A server nobody listens on.
async fn refused() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() }
}

#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    run(async {
        let script = Script::echo("here").await;
        let both = vec![refused().await, script.server()];
        let front = Front::start(Settings { servers: both, ..settings(&[]) }).await;
        for _ in 0..20 {
            assert!(front.post("").await.ends_with("here"));
        }
    });
}

#[test]
fn a_service_that_cannot_be_reached_says_where() {
    run(async {
        let front = Front::start(Settings { servers: vec![refused().await], ..settings(&[]) }).await;
        let answer = front.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("Unreachable"), "{answer}");
        assert!(answer.contains("http://127.0.0.1:"), "{answer}");
        assert_eq!(front.service.connections(), (0, 0));
    });
}

#[test]
fn a_server_that_does_not_accept_leaves_time_for_the_others() {
    run(async {
        // A full backlog: the kernel drops what knocks.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(knocked) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            waiting.push(knocked.unwrap());
        }
        let silent = Server::Tcp { host: "127.0.0.1".into(), port: address.port() };
        let script = Script::echo("here").await;
        let connect = Duration::from_millis(400);
        // Counted from when there is a connection, kept or new: the silent server alone takes longer.
        let first_byte = Duration::from_millis(150);
        let servers = vec![silent, script.server()];
        let front = Front::start(Settings { servers, connect, first_byte, ..settings(&[]) }).await;
        for _ in 0..6 {
            assert!(front.get("/").await.ends_with("here"));
        }
    });
}

#[test]
fn a_service_may_listen_on_a_unix_socket() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 16];
            stream.read_exact(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").await.unwrap();
        });
        let front = Front::start(Settings { servers: vec![Server::Unix(path)], ..settings(&[]) }).await;
        assert!(front.get("/").await.ends_with("unix"));
    });
}

#[test]
fn a_name_is_looked_up() {
    run(async {
        let script = Script::echo("named").await;
        let servers = vec![Server::Tcp { host: "localhost".into(), port: script.address.port() }];
        let front = Front::start(Settings { servers, ..settings(&[]) }).await;
        assert!(front.get("/").await.ends_with("named"));
    });
}

#[test]
fn idle_connections_do_not_outlive_their_time() {
    run(async {
        let script = Script::echo("x").await;
        let idle = Duration::from_millis(40);
        let front = Front::start(Settings { idle, ..settings(&[&script]) }).await;
        front.get("/").await;
        assert_eq!(front.service.connections(), (0, 1));
        eventually(|| script.open.get() == 0 && front.service.connections() == (0, 0)).await;
        front.get("/").await;
        assert_eq!(front.service.connections(), (0, 1));
        eventually(|| script.open.get() == 0).await;
    });
}

#[test]
fn idle_connections_end_with_their_service() {
    run(async {
        let script = Script::echo("x").await;
        let service = Service::new("orders", settings(&[&script]));
        let head = Request::get("/").body(()).unwrap().into_parts().0;
        let address = script.address;
        let inbound = Box::new(Inbound {
            head,
            body: RequestBody::empty(),
            path: CanonicalPath::parse("/").unwrap(),
            client: Client::of_connection(address, address),
            request_id: HeaderValue::from_static("r-1"),
            deadline: Instant::now() + LONG,
        });
        let timeline = Timeline::start(std::time::Instant::now());
        let answer = service.call(inbound, &timeline).await.unwrap();
        assert!(matches!(answer.body(), Body::Full(_)) && timeline.service_time().is_some());
        assert!(script.head(0).contains(&format!("host: {address}\r\n")), "a request always has a host");
        assert_eq!((script.open.get(), service.connections()), (1, (0, 1)));
        drop(service);
        eventually(|| script.open.get() == 0).await;
    });
}

#[test]
fn an_idle_connection_that_the_server_closed_is_closed_here_too() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.ok("once").await;
            sleep(Duration::from_millis(20)).await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        front.get("/").await;
        assert_eq!(front.service.connections(), (0, 1));
        eventually(|| front.service.connections() == (0, 0)).await;
    });
}

#[test]
fn many_at_once_are_spread_over_the_servers_and_their_connections_kept() {
    run(async {
        let (one, two) = (Script::echo("one").await, Script::echo("two").await);
        let front = Front::start(settings(&[&one, &two])).await;
        for _ in 0..3 {
            let answers = futures_util::future::join_all((0..40).map(|_| front.get("/"))).await;
            assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")));
        }
        let (first, second) = (one.heads.borrow().len(), two.heads.borrow().len());
        assert_eq!(first + second, 120);
        assert!(first > 20 && second > 20, "{first} and {second}");
        assert!(one.accepted.get() + two.accepted.get() < 100, "connections are used again");
        assert_eq!(front.service.connections().0, 0);
    });
}

#[test]
fn a_client_that_leaves_frees_the_server() {
    run(async {
        let script = Script::says("").await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        eventually(|| front.service.connections() == (1, 0) && script.open.get() == 1).await;
        drop(io);
        eventually(|| front.service.connections() == (0, 0) && script.open.get() == 0).await;
    });
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_websocket_is_carried_both_ways_and_closed_one_way_at_a_time() {
    run(async {
        let script = Script::start(|mut peer| async move {
            let head = peer.head().await.unwrap().to_ascii_lowercase();
            assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
            peer.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n").await;
            peer.say("Sec-WebSocket-Accept: s3\r\n\r\nfirst").await;
            let mut heard = Vec::new();
            peer.io.read_to_end(&mut heard).await.unwrap();
            peer.say(&format!("heard {}", String::from_utf8(heard).unwrap())).await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            io.read_line(&mut head).await.unwrap();
        }
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: s3\r\n"), "{head}");
        io.write_all(b"ping").await.unwrap();
        io.shutdown().await.unwrap();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "firstheard ping");
        eventually(|| front.service.connections() == (0, 0) && script.open.get() == 0).await;
    });
}

#[test]
fn nothing_is_carried_before_the_servers_own_101() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            sleep(Duration::from_millis(30)).await;
            peer.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
            let smuggled = timeout(Duration::from_millis(50), peer.head()).await;
            assert!(!matches!(smuggled, Ok(Some(_))), "{smuggled:?}");
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        io.write_all(b"\x81\x05hello").await.unwrap();
        let mut line = String::new();
        io.read_line(&mut line).await.unwrap();
        assert_eq!(line, "HTTP/1.1 403 Forbidden\r\n");
        eventually(|| script.open.get() == 0).await;
        assert_eq!(script.heads.borrow().len(), 1);
    });
}

#[test]
fn an_upgrade_to_anything_else_is_not_asked_for() {
    run(async {
        let script = Script::echo("plain").await;
        let front = Front::start(settings(&[&script])).await;
        let answer = front.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n").await;
        assert!(answer.ends_with("plain"), "{answer}");
        assert!(!script.head(0).contains("upgrade"), "{}", script.head(0));
    });
}

#[test]
fn a_server_may_answer_while_it_is_still_being_sent_the_request() {
    run(async {
        let script = Script::start(|mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let mut piece = [0; 1];
            for _ in 0..4 {
                peer.io.read_exact(&mut piece).await.unwrap();
                peer.say(&format!("1\r\n{}\r\n", char::from(piece[0]))).await;
            }
            peer.say("0\r\n\r\n").await;
            peer.closed().await;
        })
        .await;
        let front = Front::start(settings(&[&script])).await;
        let mut io = front.connect().await;
        io.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            io.read_line(&mut answer).await.unwrap();
        }
        for piece in ["1", "2", "3", "4"] {
            io.write_all(piece.as_bytes()).await.unwrap();
            let mut chunk = [0; 6];
            io.read_exact(&mut chunk).await.unwrap();
            assert_eq!(chunk, *format!("1\r\n{piece}\r\n").as_bytes());
        }
        eventually(|| front.service.connections() == (0, 0) && script.open.get() == 0).await;
    });
}

#[test]
fn a_full_backlog_of_a_unix_socket_is_waited_for() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full.sock");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        listener.set_nonblocking(true).unwrap();
        let waiting = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert!(tokio::net::UnixStream::connect(&path).await.is_err(), "the backlog is full");
        let listener: std::os::unix::net::UnixListener = std::os::fd::OwnedFd::from(listener).into();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        spawn_local(async move {
            sleep(Duration::from_millis(30)).await;
            drop(waiting);
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let mut head = [0; 16];
                    if stream.read_exact(&mut head).await.is_ok() {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").await.unwrap();
                    }
                });
            }
        });
        let front = Front::start(Settings { servers: vec![Server::Unix(path)], ..settings(&[]) }).await;
        assert!(front.get("/").await.ends_with("yes"));
    });
}
