//! Handlers behind a real connection, as clients meet them.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use axum::Router;
use axum::routing::{get, post};
use futures_util::stream;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::*;
use crate::http::{CanonicalPath, Client, RequestBody};

fn run<F: Future>(test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs") })
}

/// Keeps its thread for so long, as a blocking call would.
fn block(time: Duration) {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

struct Front {
    address: SocketAddr,
    handler: Arc<Handler>,
}

impl Front {
    async fn start(kind: Kind, router: Router) -> Self {
        let handler = Handler::declare("users", kind);
        assert!(handler.install(router).unwrap());
        Self::of(Arc::new(handler)).await
    }

    async fn of(handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&handler);
        spawn_local(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let (handler, client) = (Arc::clone(&shared), Rc::new(Client::of_connection(peer, address)));
                let serve = service_fn(move |request| handle(Arc::clone(&handler), Rc::clone(&client), request));
                spawn_local(async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), serve)
                        .with_upgrades();
                    let _ = connection.await;
                });
            }
        });
        Self { address, handler }
    }

    async fn raw(&self, request: &str) -> String {
        let mut io = TcpStream::connect(self.address).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
    }
}

async fn handle(
    handler: Arc<Handler>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let timeline = Timeline::start(std::time::Instant::now());
    let (mut head, body) = request.into_parts();
    let deadline = head.headers.remove("x-deadline-ms").map_or(10_000, |ms| ms.to_str().unwrap().parse().unwrap());
    head.headers.insert("x-request-id", HeaderValue::from_static("r-1"));
    let inbound = Box::new(Inbound {
        path: CanonicalPath::parse(head.uri.path()).unwrap(),
        head,
        body: RequestBody::new(body, 1 << 20, Duration::from_secs(1)),
        client: (*client).clone(),
        request_id: HeaderValue::from_static("r-1"),
        deadline: Instant::now() + Duration::from_millis(deadline),
    });
    let answered = handler.call(inbound, &timeline).await;
    Ok(match answered {
        Ok(mut answer) => {
            assert!(timeline.service_time().is_some());
            let kind = HeaderValue::from_str(&format!("{:?}", answer.body())).unwrap();
            answer.headers_mut().insert("x-body", kind);
            answer
        }
        Err(error) => {
            let mut answer = error.answer().render(None, "r-1");
            answer.headers_mut().insert("x-error", HeaderValue::from_str(&error.to_string()).unwrap());
            answer
        }
    })
}

const KINDS: [Kind; 2] = [Kind::Worker, Kind::BLOCKING];

fn streamed(pieces: Vec<Result<&'static str, &'static str>>) -> axum::body::Body {
    axum::body::Body::from_stream(stream::iter(pieces))
}

#[test]
fn a_router_answers_and_a_small_answer_goes_out_whole() {
    for kind in KINDS {
        run(async {
            let front = Front::start(kind, Router::new().route("/u", get(|| async { "ann" }))).await;
            let answer = front.get("/u").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nann"), "{answer}");
            assert!(answer.contains("x-body: Body::Full\r\n"), "{answer}");
            assert!(front.get("/none").await.contains("x-body: Body::Empty\r\n"));
            assert_eq!(front.handler.stalls(), 0);
        });
    }
}

#[test]
fn a_handler_learns_the_clients_address_and_the_requests_id() {
    for kind in KINDS {
        run(async {
            let show = |ConnectInfo(address): ConnectInfo<SocketAddr>, headers: HeaderMap| async move {
                format!("{} {}", address.ip(), headers["x-request-id"].to_str().unwrap())
            };
            let front = Front::start(kind, Router::new().route("/", get(show))).await;
            assert!(front.get("/").await.ends_with("127.0.0.1 r-1"));
        });
    }
}

#[test]
fn a_handler_reads_the_requests_body() {
    for kind in KINDS {
        run(async {
            let count = |body: String| async move { format!("{} {body}", body.len()) };
            let front = Front::start(kind, Router::new().route("/", post(count))).await;
            let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
            let answer = front.raw(&format!("{head}Content-Length: 5\r\n\r\nhello")).await;
            assert!(answer.ends_with("\r\n\r\n5 hello"), "{answer}");
            let answer = front.raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")).await;
            assert!(answer.ends_with("\r\n\r\n2 ab"), "{answer}");
        });
    }
}

#[test]
fn a_streamed_answer_streams() {
    for kind in KINDS {
        run(async {
            let body = || async { streamed(vec![Ok("one"), Ok("two")]) };
            let front = Front::start(kind, Router::new().route("/", get(body))).await;
            let answer = front.get("/").await;
            assert!(answer.contains("x-body: Body::Stream\r\n"), "{answer}");
            assert!(answer.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "{answer}");
        });
    }
}

#[test]
fn a_large_answer_keeps_its_length() {
    for kind in KINDS {
        run(async {
            let front = Front::start(kind, Router::new().route("/", get(|| async { "x".repeat(1 << 20) }))).await;
            let answer = front.get("/").await;
            assert!(answer.contains("content-length: 1048576\r\n") && answer.contains("x-body: Body::Full\r\n"));
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 1 << 20);
        });
    }
}

#[test]
fn a_panic_costs_its_own_request_and_no_other() {
    for kind in KINDS {
        run(async {
            let router = Router::new()
                .route(
                    "/panic",
                    get(|| async {
                        if true {
                            panic!("no user {}", 7)
                        }
                    }),
                )
                .route("/fine", get(|| async { "fine" }));
            let front = Front::start(kind, router).await;
            for _ in 0..3 {
                let answer = front.get("/panic").await;
                assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
                assert!(answer.contains("x-error: the handler panicked: no user 7\r\n"), "{answer}");
                assert!(front.get("/fine").await.ends_with("fine"));
            }
        });
    }
}

/// A first piece, and after a while what `then` makes of it.
fn first_and(then: fn() -> Result<&'static str, &'static str>) -> axum::body::Body {
    let pieces = stream::unfold(false, move |second| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((if second { then() } else { Ok("first") }, true))
    });
    axum::body::Body::from_stream(pieces)
}

#[test]
fn an_answer_that_breaks_in_its_body_never_looks_complete() {
    for kind in KINDS {
        run(async {
            let panics = || async { first_and(|| panic!("in the body")) };
            let fails = || async { first_and(|| Err("broken")) };
            let front = Front::start(kind, Router::new().route("/p", get(panics)).route("/f", get(fails))).await;
            for path in ["/p", "/f"] {
                let answer = front.get(path).await;
                assert!(answer.ends_with("5\r\nfirst\r\n"), "{answer}");
            }
        });
    }
}

/// A body that panics when it is asked for its length, or for its bytes.
struct Panicking {
    in_length: bool,
}

impl HttpBody for Panicking {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        panic!("in the body")
    }

    fn size_hint(&self) -> http_body::SizeHint {
        assert!(!self.in_length, "in its length");
        http_body::SizeHint::default()
    }
}

#[test]
fn a_body_that_panics_before_anything_was_sent_is_a_500_like_any_other_panic() {
    for kind in KINDS {
        run(async {
            let streams = || async {
                axum::body::Body::from_stream(stream::poll_fn(
                    |_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> { panic!("at once") },
                ))
            };
            let bytes = || async { axum::body::Body::new(Panicking { in_length: false }) };
            let length = || async { axum::body::Body::new(Panicking { in_length: true }) };
            let router = Router::new()
                .route("/streams", get(streams))
                .route("/bytes", get(bytes))
                .route("/length", get(length))
                .route("/fine", get(|| async { "fine" }));
            let front = Front::start(kind, router).await;
            for path in ["/streams", "/bytes", "/length"] {
                let answer = front.get(path).await;
                assert!(
                    answer.starts_with("HTTP/1.1 500") && answer.contains("the handler panicked"),
                    "{path}: {answer}"
                );
                assert!(front.get("/fine").await.ends_with("fine"));
            }
        });
    }
}

#[test]
fn a_handler_that_is_too_slow_runs_into_the_routes_deadline() {
    for kind in KINDS {
        run(async {
            let forever = || async { std::future::pending::<()>().await };
            let front = Front::start(kind, Router::new().route("/", get(forever))).await;
            let answer = front.raw("GET / HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 30\r\nConnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        });
    }
}

#[test]
fn a_poll_that_keeps_its_worker_is_counted_as_a_stall() {
    run(async {
        let slow = || async { block(Duration::from_millis(130)) };
        let front = Front::start(Kind::Worker, Router::new().route("/", get(slow))).await;
        front.get("/").await;
        assert_eq!(front.handler.stalls(), 1);
    });
}

#[test]
fn a_blocking_handler_keeps_no_worker_waiting() {
    run(async {
        let slow = || async { block(Duration::from_millis(150)) };
        let front = Front::start(Kind::BLOCKING, Router::new().route("/", get(slow))).await;
        let began = Instant::now();
        let (mut ticks, mut late) = (0, Duration::ZERO);
        let ticking = async {
            loop {
                let before = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
                (ticks, late) = (ticks + 1, late.max(before.elapsed()));
            }
        };
        tokio::select! {
            answers = futures_util::future::join_all((0..4).map(|_| front.get("/"))) => {
                assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")));
            }
            () = ticking => {}
        }
        assert!(ticks > 5 && late < Duration::from_millis(120), "{ticks} ticks, {late:?} late");
        assert!(began.elapsed() < Duration::from_millis(550), "they ran at the same time");
        assert_eq!(front.handler.stalls(), 0);
    });
}

#[test]
fn a_blocking_handler_takes_no_more_than_it_was_given_and_queues_no_more_than_that() {
    run(async {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let slow = || async {
            MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            block(Duration::from_millis(40));
            RUNNING.fetch_sub(1, Ordering::SeqCst);
        };
        let front = Front::start(Kind::Blocking { concurrency: 2 }, Router::new().route("/", get(slow))).await;
        let answers = futures_util::future::join_all((0..14).map(|_| front.get("/"))).await;
        let count = |text: &str| answers.iter().filter(|answer| answer.contains(text)).count();
        assert_eq!((count("HTTP/1.1 200"), count("8 requests wait already")), (10, 4));
        assert_eq!(MOST.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn who_waits_for_a_place_in_vain_is_told_so() {
    run(async {
        let slow = || async { block(Duration::from_millis(100)) };
        let front = Front::start(Kind::Blocking { concurrency: 1 }, Router::new().route("/", get(slow))).await;
        let hurried = "GET / HTTP/1.1\r\nHost: a\r\nX-Deadline-Ms: 20\r\nConnection: close\r\n\r\n";
        let first = async {
            let answer = front.get("/").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        };
        let second = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = front.raw(hurried).await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no place became free"), "{answer}");
        };
        tokio::join!(first, second);
    });
}

#[test]
fn a_blocking_handler_may_be_dropped_on_a_worker() {
    run(async {
        let handler = Handler::declare("reports", Kind::BLOCKING);
        assert!(handler.install(Router::new()).unwrap());
        drop(handler);
    });
}

#[test]
fn a_handler_takes_over_its_connection_after_an_upgrade() {
    for kind in KINDS {
        run(async {
            let upgrade = |mut request: Request<axum::body::Body>| async move {
                let upgraded = hyper::upgrade::on(&mut request);
                #[expect(clippy::disallowed_methods, reason = "a handler's own task is Send")]
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgraded.await.unwrap());
                    let mut heard = [0; 4];
                    io.read_exact(&mut heard).await.unwrap();
                    io.write_all(b"pong").await.unwrap();
                    io.shutdown().await.unwrap();
                });
                (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "x")])
            };
            let front = Front::start(kind, Router::new().route("/", get(upgrade))).await;
            let answer = front.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nping").await;
            assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\npong"), "{answer}");
        });
    }
}

#[test]
fn health_says_ok_and_the_time() {
    run(async {
        let front = Front::of(Arc::new(Handler::health())).await;
        let answer = front.get("/").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: text/plain"), "{head}");
        let time = body.trim_end().strip_prefix("OK - ").unwrap();
        let time: jiff::Timestamp = time.parse().unwrap();
        assert!(time.duration_since(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_secs(5));
    });
}

#[test]
fn a_name_without_a_service_answers_that_it_has_none() {
    run(async {
        let front = Front::of(Arc::new(Handler::new("users"))).await;
        assert!(front.get("/").await.contains("no service was installed"));
        assert!(front.handler.install(Router::new()).unwrap());
        assert!(!front.handler.install(Router::new()).unwrap(), "a second one is refused");
        assert!(front.get("/").await.starts_with("HTTP/1.1 404"));
    });
}
