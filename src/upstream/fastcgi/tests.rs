//! A pool against servers that say what FPM never says, and against FPM itself.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::record::tests::record;
use super::*;
use crate::http::{BodyFault, CanonicalPath, Client, RequestBody};
use crate::spool::{Disk, Fault};
use crate::upstream::Inbound;

/// Settings of a pool at `socket`, with deadlines no test waits for.
pub(super) fn settings(socket: PathBuf) -> Settings {
    Settings {
        address: Address::Unix(socket),
        root: "/".into(),
        index: "index.php".into(),
        connections: 2,
        queue: Duration::from_secs(10),
        queue_length: 8,
        keepalive: 0,
        connect: Duration::from_secs(1),
        first_byte: Duration::from_secs(10),
        between_bytes: Duration::from_secs(10),
        try_files: true,
        params: Vec::new(),
        on_client_abort: OnClientAbort::Close,
        spool_memory: 128 << 10,
        spool_disk: 64 << 20,
        deny: Vec::new(),
        scripts: Scripts::Index,
        internal: Vec::new(),
        symlinks: Vec::new(),
        spawn: None,
    }
}

/// What a server was sent.
struct Received {
    stdin: Vec<u8>,
}

fn read_record(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
    stream.read_exact(&mut content).ok()?;
    Some((header[1], content))
}

/// Reads one request to its empty STDIN.
fn read_request(stream: &mut impl Read) -> Option<Received> {
    let mut stdin = Vec::new();
    loop {
        match read_record(stream)? {
            (5, content) if content.is_empty() => return Some(Received { stdin }),
            (5, content) => stdin.extend(content),
            _ => {}
        }
    }
}

fn end() -> Vec<u8> {
    record(3, &[0; 8], 0)
}

fn stdout(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(65_535).flat_map(|chunk| record(6, chunk, 0)).collect()
}

/// A server on a thread of its own; `serve` is given each connection and its number, one after the other.
fn server(mut serve: impl FnMut(usize, UnixStream) + Send + 'static) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("php.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            serve(number, stream.unwrap());
        }
    });
    (directory, socket)
}

/// A server that answers every request on every connection with `reply`, and then closes.
fn replying(reply: Vec<u8>) -> (TempDir, PathBuf) {
    server(move |_, mut stream| {
        if read_request(&mut stream).is_some() {
            let _ = stream.write_all(&reply);
        }
    })
}

fn php(socket: &Path, change: impl FnOnce(&mut Settings)) -> Rc<Php> {
    let mut settings = settings(socket.into());
    change(&mut settings);
    Rc::new(Php::new("php", settings))
}

/// A request's body as hyper gives it: `raw` is what follows the request line.
async fn incoming(raw: Vec<u8>) -> RequestBody {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (give, taken) = tokio::sync::oneshot::channel();
    let give = std::cell::Cell::new(Some(give));
    spawn_local(async move {
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            give.take().unwrap().send(request.into_body()).unwrap();
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
    });
    spawn_local(async move {
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        let _ = client.write_all(&raw).await;
        std::future::pending::<()>().await;
    });
    RequestBody::new(taken.await.unwrap(), 64 << 20, Duration::from_secs(10))
}

async fn body_of(bytes: &[u8]) -> RequestBody {
    let mut raw = format!("content-length: {}\r\n\r\n", bytes.len()).into_bytes();
    raw.extend_from_slice(bytes);
    incoming(raw).await
}

fn inbound(method: Method, path: &str, body: RequestBody) -> Box<Inbound> {
    let mut head = Request::builder().method(method).uri(path).header("host", "shop.example");
    if let Some(length) = body.declared_length().filter(|&length| length > 0) {
        head = head.header("content-length", length);
    }
    Box::new(Inbound {
        head: head.header("content-type", "text/plain").body(()).unwrap().into_parts().0,
        body,
        path: CanonicalPath::parse(path.split('?').next().unwrap()).unwrap(),
        client: Client::of_connection("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:80".parse().unwrap()),
        request_id: HeaderValue::from_static("id-1"),
        deadline: Instant::now() + Duration::from_secs(20),
    })
}

async fn get(php: &Php, path: &str) -> Result<Response<Body>, Error> {
    php.call(inbound(Method::GET, path, RequestBody::empty()), &Timeline::start(std::time::Instant::now())).await
}

async fn post(php: &Php, path: &str, body: RequestBody) -> Result<Response<Body>, Error> {
    php.call(inbound(Method::POST, path, body), &Timeline::start(std::time::Instant::now())).await
}

async fn bytes_of(response: Response<Body>) -> Result<Bytes, crate::http::BoxError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Waits until `holds`, which must be soon.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn until_free(php: &Php) {
    eventually("all slots are free", || php.connections() == Connections::default() && php.waiting() == 0).await;
}

#[tokio::test(flavor = "local")]
async fn an_answer_in_one_piece_has_its_body_at_once() {
    let reply = [stdout(b"Status: 201 Made\r\nX-A: b\r\n\r\n"), stdout(b"hello"), end()].concat();
    let (_directory, socket) = replying(reply);
    let php = php(&socket, |_| {});
    let response = get(&php, "/a").await.unwrap();
    assert_eq!((response.status(), &response.headers()["x-a"]), (StatusCode::CREATED, &HeaderValue::from_static("b")));
    assert!(matches!(response.body(), Body::Full(bytes) if bytes == "hello"), "{:?}", response.body());
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn what_is_no_answer_is_a_502_and_frees_the_slot() {
    let head = b"X-A: b\r\n\r\n".as_slice();
    let long = [b"X-A: ".as_slice(), &[b'a'; 70_000], b"\r\n\r\n"].concat();
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (vec![2, 6, 0, 1, 0, 0, 0, 0], "bad_reply"),
        (vec![1, 11, 0, 1, 0, 0, 0, 0], "bad_reply"),
        (vec![1, 6, 0, 2, 0, 0, 0, 0], "bad_reply"),
        (end(), "bad_reply"),
        ([stdout(b"X-A: b\r\n"), end()].concat(), "bad_reply"),
        (stdout(&long), "bad_reply"),
        (record(6, b"", 0).repeat(100), "bad_reply"),
        ([stdout(b"Status: 99\r\n\r\n"), end()].concat(), "bad_reply"),
        ([stdout(b"no colon\r\n\r\n"), end()].concat(), "bad_reply"),
        ([stdout(b"X-A: a\rb\r\n\r\n"), end()].concat(), "bad_reply"),
        ([stdout(b"Content-Length: 9\r\n\r\nfew"), end()].concat(), "bad_reply"),
        ([stdout(head), record(3, &[0, 0, 0, 0, 1, 0, 0, 0], 0)].concat(), "bad_reply"),
        ([stdout(head), record(3, &[0, 0, 0, 0, 2, 0, 0, 0], 0)].concat(), "queue_full"),
        (vec![], "broken"),
        (vec![1, 6, 0], "broken"),
        (stdout(b"X-A: b\r\n"), "broken"),
        (record(7, b"PHP Fatal error", 1), "broken"),
    ];
    for (reply, reason) in bad {
        let (_directory, socket) = replying(reply.clone());
        let php = php(&socket, |settings| settings.keepalive = 1);
        let error = get(&php, "/a").await.expect_err("no answer");
        assert_eq!(error.reason(), Some(reason), "{:?} for {:?}", error, &reply[..reply.len().min(40)]);
        until_free(&php).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_cut_answer_never_looks_whole() {
    for reply in [stdout(b"X-A: b\r\n\r\npart"), stdout(b"Content-Length: 9\r\n\r\npart")] {
        let (go, wait) = mpsc::channel::<()>();
        let (_directory, socket) = server(move |_, mut stream| {
            read_request(&mut stream);
            stream.write_all(&reply).unwrap();
            wait.recv().unwrap();
        });
        let php = php(&socket, |_| {});
        let mut body = get(&php, "/a").await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        go.send(()).unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        until_free(&php).await;
    }
}

#[tokio::test(flavor = "local")]
async fn each_flush_reaches_the_client_at_once() {
    let (go, wait) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, mut stream| {
        read_request(&mut stream);
        stream.write_all(&stdout(b"Content-Type: text/event-stream\r\n\r\n")).unwrap();
        for event in [b"1", b"2", b"3"] {
            wait.recv().unwrap();
            stream.write_all(&stdout(event)).unwrap();
        }
        stream.write_all(&end()).unwrap();
    });
    let php = php(&socket, |_| {});
    let mut body = get(&php, "/a").await.unwrap().into_body();
    for event in ["1", "2", "3"] {
        go.send(()).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), event);
    }
    assert!(body.frame().await.is_none());
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn a_declared_length_is_kept_to() {
    let (_directory, socket) = replying([stdout(b"Content-Length: 3\r\n\r\nabcdef"), end()].concat());
    let php = php(&socket, |_| {});
    assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap(), "abc");
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn bodies_of_all_sizes_arrive_whole() {
    let (_directory, socket) = server(|_, mut stream| {
        let Some(received) = read_request(&mut stream) else { return };
        let answer = [b"\r\n".as_slice(), &received.stdin].concat();
        stream.write_all(&[stdout(&answer), end()].concat()).unwrap();
    });
    for memory in [128 << 10, 1000] {
        let php = php(&socket, |settings| settings.spool_memory = memory);
        for size in [1, 65_535, 65_536, 131_072, 300_001] {
            let sent: Vec<u8> = (0..=250).cycle().take(size).collect();
            let echoed = bytes_of(post(&php, "/a", body_of(&sent).await).await.unwrap()).await.unwrap();
            assert!(echoed == sent, "{size} bytes, {memory} in memory");
        }
        let mut chunked = b"transfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..500 {
            chunked.extend_from_slice(b"5\r\nhello\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let echoed = bytes_of(post(&php, "/a", incoming(chunked).await).await.unwrap()).await.unwrap();
        assert!(echoed == b"hello".repeat(500), "{memory} in memory");
        until_free(&php).await;
        assert_eq!(php.spooled(), 0);
    }
}

#[tokio::test(flavor = "local")]
async fn a_body_that_was_kept_before_is_sent_from_where_it_is() {
    let (_directory, socket) = server(|_, mut stream| {
        let Some(received) = read_request(&mut stream) else { return };
        let answer = [b"\r\n".as_slice(), &received.stdin].concat();
        stream.write_all(&[stdout(&answer), end()].concat()).unwrap();
    });
    // PHP's own spool has no room at all: the body is not received a second time.
    let php = php(&socket, |settings| (settings.spool_memory, settings.spool_disk) = (0, 0));
    let disk = Disk::new(1 << 20);
    for size in [1, 1000, 300_001] {
        let sent: Vec<u8> = (0..=250).cycle().take(size).collect();
        let mut body = body_of(&sent).await;
        let kept = body.keep(1000, &disk).await.unwrap();
        assert_eq!((kept.length(), body.declared_length()), (size as u64, Some(size as u64)));
        drop(kept);
        let echoed = bytes_of(post(&php, "/a", body).await.unwrap()).await.unwrap();
        assert!(echoed == sent, "{size} bytes");

        let mut body = body_of(&sent).await;
        body.keep(1000, &disk).await.unwrap();
        let streamed = BodyExt::collect(body).await.unwrap().to_bytes();
        assert!(streamed == sent, "{size} bytes as a stream");
    }
    until_free(&php).await;
    assert_eq!(disk.taken(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_spool_without_room_refuses() {
    let (_directory, socket) = replying(end());
    let php = php(&socket, |settings| (settings.spool_memory, settings.spool_disk) = (10, 100));
    let error = post(&php, "/a", body_of(&[b'a'; 101]).await).await.unwrap_err();
    assert!(matches!(error, Error::Body(BodyFault::Spool(Fault::Full { limit: 100 }))), "{error:?}");
    assert_eq!(php.spooled(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_script_may_answer_while_it_is_sent_its_body() {
    let (_directory, socket) = server(|_, mut stream| {
        // Answers 1 MiB first, and only then reads what it was sent.
        let answer = [b"\r\n".as_slice(), &[b'x'; 1 << 20]].concat();
        stream.write_all(&stdout(&answer)).unwrap();
        assert_eq!(read_request(&mut stream).unwrap().stdin.len(), 1 << 20);
        stream.write_all(&end()).unwrap();
    });
    for memory in [2 << 20, 1000] {
        let php = php(&socket, |settings| settings.spool_memory = memory);
        let response = post(&php, "/a", body_of(&[b'y'; 1 << 20]).await).await.unwrap();
        assert_eq!(bytes_of(response).await.unwrap().len(), 1 << 20);
        until_free(&php).await;
    }
}

#[tokio::test(flavor = "local")]
async fn an_answer_before_the_whole_body_was_read_is_one() {
    let (_directory, socket) = server(|_, mut stream| {
        stream.read_exact(&mut [0; 16]).unwrap();
        stream.write_all(&[stdout(b"Status: 413 No\r\n\r\nno"), end()].concat()).unwrap();
        // Reads on until the gateway has given up.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let php = php(&socket, |settings| settings.keepalive = 1);
    let response = post(&php, "/a", body_of(&[b'y'; 1 << 20]).await).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bytes_of(response).await.unwrap(), "no");
    until_free(&php).await;
}

/// A server that keeps connections, and says which connection and which request on it this was.
fn keeping(requests: usize) -> (TempDir, PathBuf) {
    server(move |number, mut stream| {
        std::thread::spawn(move || {
            for request in 0..requests {
                if read_request(&mut stream).is_none() {
                    return;
                }
                let answer = format!("\r\n{number}.{request}");
                stream.write_all(&[stdout(answer.as_bytes()), end()].concat()).unwrap();
            }
        });
    })
}

#[tokio::test(flavor = "local")]
async fn kept_connections_serve_what_may_be_asked_twice() {
    let (_directory, socket) = keeping(100);
    let php = php(&socket, |settings| settings.keepalive = 1);
    for answer in ["0.0", "0.1", "0.2"] {
        assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap(), answer);
        assert_eq!(php.connections(), Connections { in_use: 0, idle: 1 });
    }
    let posted = post(&php, "/a", RequestBody::empty()).await.unwrap();
    assert_eq!(bytes_of(posted).await.unwrap(), "1.0", "a POST has a connection of its own");
    assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap(), "0.3");
    // Idle for too long, it is closed.
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_that_a_dying_connection_swallowed_is_not_sent_again() {
    // One request a connection, although it was asked to keep it.
    let (_directory, socket) = server(|number, mut stream| {
        if read_request(&mut stream).is_some() {
            stream.write_all(&[stdout(format!("\r\n{number}").as_bytes()), end()].concat()).unwrap();
            if number == 0 {
                // The next request is read, and not answered: a script may have run.
                read_request(&mut stream);
            }
        }
    });
    let php = php(&socket, |settings| settings.keepalive = 1);
    assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap(), "0");
    assert!(matches!(get(&php, "/a").await, Err(Error::Broken { .. })));
    assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap(), "1");
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn who_waits_gets_the_connection_of_who_finishes() {
    let (_directory, socket) = keeping(100);
    let php = php(&socket, |settings| (settings.connections, settings.keepalive) = (1, 1));
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let php = Rc::clone(&php);
            spawn_local(async move { bytes_of(get(&php, "/a").await.unwrap()).await.unwrap() })
        })
        .collect();
    for (call, answer) in calls.into_iter().zip(["0.0", "0.1", "0.2", "0.3", "0.4"]) {
        assert_eq!(call.await.unwrap(), answer);
    }
    until_free(&php).await;
}

#[test]
fn an_idle_connection_goes_to_whichever_worker_waits() {
    let (_directory, socket) = keeping(10_000);
    let mut settings = settings(socket);
    (settings.connections, settings.keepalive, settings.queue_length) = (2, 2, 64);
    let php = Arc::new(Php::new("php", settings));
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let php = Arc::clone(&php);
            scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
                runtime.unwrap().block_on(async {
                    let calls = (0..4).map(|_| async {
                        for round in 0..30 {
                            let method = if (round + worker) % 5 == 0 { Method::POST } else { Method::GET };
                            let call = inbound(method, "/a", RequestBody::empty());
                            let response = php.call(call, &Timeline::start(std::time::Instant::now())).await.unwrap();
                            assert!(!bytes_of(response).await.unwrap().is_empty());
                        }
                    });
                    timeout(Duration::from_secs(30), futures_util::future::join_all(calls)).await.unwrap();
                    until_free(&php).await;
                });
            });
        }
    });
}

#[tokio::test(flavor = "local")]
async fn the_queue_has_a_length_and_an_end() {
    let (_go, wait) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, _stream| _ = wait.recv());
    let php = php(&socket, |settings| {
        (settings.connections, settings.queue_length, settings.queue) = (1, 1, Duration::from_millis(50));
    });
    let busy = Rc::clone(&php);
    let busy = spawn_local(async move { drop(get(&busy, "/a").await) });
    eventually("the slot is taken", || php.connections().in_use == 1).await;
    let (one, other) = tokio::join!(get(&php, "/b"), get(&php, "/c"));
    assert!(matches!(one, Err(Error::QueueTimeout { .. })), "{one:?}");
    assert!(matches!(other, Err(Error::QueueFull { length: 1 })), "{other:?}");
    busy.abort();
}

#[tokio::test(flavor = "local")]
async fn a_pool_that_is_away_is_down_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("php.sock");
    let php = php(&socket, |settings| settings.connect = Duration::from_millis(30));
    assert!(matches!(get(&php, "/a").await, Err(Error::Unreachable { .. })));
    let began = Instant::now();
    for _ in 0..10 {
        assert!(matches!(get(&php, "/a").await, Err(Error::Down { .. })));
    }
    assert!(began.elapsed() < Duration::from_millis(80), "refused at once");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_request(&mut stream);
            stream.write_all(&[stdout(b"\r\nback"), end()].concat()).unwrap();
        }
    });
    let back = async {
        while get(&php, "/a").await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), back).await.expect("back within a second");
    assert!(get(&php, "/a").await.is_ok());
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn a_slot_stays_taken_while_php_is_busy_for_nobody() {
    let (go, wait) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, mut stream| {
        read_request(&mut stream);
        wait.recv().unwrap();
        let _ = stream.write_all(&[stdout(b"\r\nlate"), end()].concat());
    });
    let php = php(&socket, |settings| settings.first_byte = Duration::from_millis(20));
    let error = get(&php, "/a").await.unwrap_err();
    assert!(matches!(error, Error::FirstByteTimeout { .. }), "{error:?}");
    sleep(Duration::from_millis(150)).await;
    assert_eq!(php.connections().in_use, 1);
    go.send(()).unwrap();
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn over_tcp_an_abandoned_answer_is_read_to_its_end_where_that_is_asked() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_request(&mut stream);
            stream.write_all(&stdout(b"\r\npart")).unwrap();
            wait.recv().unwrap();
            stream.write_all(&[stdout(&[b'x'; 1 << 20]), end()].concat()).unwrap();
        }
    });
    let php = php(Path::new("/unused"), |settings| {
        (settings.address, settings.on_client_abort) = (Address::Tcp(address), OnClientAbort::Finish);
    });
    go.send(()).unwrap();
    assert_eq!(bytes_of(get(&php, "/a").await.unwrap()).await.unwrap().len(), 4 + (1 << 20));
    until_free(&php).await;
    drop(get(&php, "/a").await.unwrap());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(php.connections().in_use, 1);
    go.send(()).unwrap();
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn silence_inside_a_body_has_an_end() {
    let (_go, wait) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, mut stream| {
        read_request(&mut stream);
        stream.write_all(&stdout(b"\r\npart")).unwrap();
        let _ = wait.recv();
    });
    let php = php(&socket, |settings| settings.between_bytes = Duration::from_millis(20));
    let error = bytes_of(get(&php, "/a").await.unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "PHP sent nothing for 20ms");
}

#[test]
fn a_worker_may_end_while_requests_are_in_flight() {
    let (_go, wait) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, mut stream| {
        read_request(&mut stream);
        stream.write_all(&stdout(b"\r\npart")).unwrap();
        let _ = wait.recv();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    let body = runtime.block_on(async {
        let php = php(&socket, |_| {});
        let response = get(&php, "/a").await;
        spawn_local(async move {
            let _php = php;
            std::future::pending::<()>().await;
        });
        response.unwrap().into_body()
    });
    let held = runtime.spawn_local(async move {
        let _body = body;
        std::future::pending::<()>().await;
    });
    drop(held);
    drop(runtime);
}

#[tokio::test(flavor = "local")]
async fn a_folder_without_its_slash_is_moved_for_every_method() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("admin")).unwrap();
    std::fs::write(root.path().join("admin/index.php"), "").unwrap();
    let php = php(Path::new("/nowhere"), |settings| {
        (settings.root, settings.scripts) = (root.path().into(), Scripts::Files);
    });
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        let inbound = inbound(method, "/admin", RequestBody::empty());
        let answer = php.call(inbound, &Timeline::start(std::time::Instant::now())).await.unwrap();
        let location = answer.headers()[LOCATION].to_str().unwrap();
        assert_eq!((answer.status(), location), (StatusCode::MOVED_PERMANENTLY, "/admin/"));
    }
}

#[tokio::test(flavor = "local")]
async fn a_file_that_php_names_is_not_phps_body() {
    let (_directory, socket) =
        replying([stdout(b"X-Accel-Redirect: /x\r\nContent-Type: a/b\r\n\r\nbody"), end()].concat());
    let php = php(&socket, |_| {});
    // Where files come from is another's to know; PHP's own body is not what is served.
    if let Ok(response) = get(&php, "/a").await {
        assert_ne!(bytes_of(response).await.unwrap(), "body");
    }
    until_free(&php).await;
}

/// PHP-FPM, privately: ended with the test.
struct Fpm {
    child: Child,
    directory: TempDir,
}

impl Drop for Fpm {
    fn drop(&mut self) {
        // Killed, the master would leave its processes behind.
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Fpm {
    async fn start(processes: usize, scripts: &[(&str, &str)]) -> Self {
        Self::start_at(None, processes, scripts).await
    }

    /// Starts it on a unix socket, and at a TCP address as well, with as many processes.
    async fn start_at(tcp: Option<SocketAddr>, processes: usize, scripts: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let mut configuration = format!(
            "[global]\nerror_log={path}/log\ndaemonize=no\n[www]\nlisten={path}/php.sock\npm=static\n\
             pm.max_children={processes}\nuser=nobody\ngroup=nogroup\nlisten.mode=0666\n"
        );
        if let Some(address) = tcp {
            let pool =
                format!("listen={address}\npm=static\npm.max_children={processes}\nuser=nobody\ngroup=nogroup\n");
            configuration.push_str(&format!("[tcp]\n{pool}"));
        }
        std::fs::write(directory.path().join("fpm.conf"), configuration).unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for (name, script) in scripts {
            std::fs::write(directory.path().join(name), script).unwrap();
        }
        // Should this test be killed, FPM ends with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "php-fpm8.2", "-F", "-R", "-y"])
            .arg(directory.path().join("fpm.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let fpm = Self { child, directory };
        eventually("FPM listens", || UnixStream::connect(fpm.directory.path().join("php.sock")).is_ok()).await;
        fpm
    }

    fn php(&self, change: impl FnOnce(&mut Settings)) -> Rc<Php> {
        php(&self.directory.path().join("php.sock"), |settings| {
            settings.root = self.directory.path().into();
            settings.scripts = Scripts::Files;
            change(settings);
        })
    }
}

const ECHO: &str = r#"<?php
header("X-Method: $_SERVER[REQUEST_METHOD]");
setcookie("a", "1"); setcookie("b", "2");
error_log("a warning");
echo $_SERVER["REQUEST_URI"], "|", $_SERVER["HTTP_X_REQUEST_ID"], "|", file_get_contents("php://input");
"#;

#[tokio::test(flavor = "local")]
async fn fpm_echoes() {
    let fpm = Fpm::start(2, &[("echo.php", ECHO), ("big.php", "<?php echo str_repeat('0123456789', 100000);")]).await;
    for keepalive in [0, 2] {
        let php = fpm.php(|settings| settings.keepalive = keepalive);
        let response = get(&php, "/echo.php?x=%20").await.unwrap();
        assert_eq!(response.headers()["x-method"], "GET");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(bytes_of(response).await.unwrap(), "/echo.php?x=%20|id-1|");
        let response = post(&php, "/echo.php", body_of(b"hello").await).await.unwrap();
        assert_eq!(bytes_of(response).await.unwrap(), "/echo.php|id-1|hello");
        let sent = vec![b'z'; 1 << 20];
        let response = post(&php, "/echo.php", body_of(&sent).await).await.unwrap();
        assert_eq!(bytes_of(response).await.unwrap().len(), "/echo.php|id-1|".len() + sent.len());
        let big = bytes_of(get(&php, "/big.php").await.unwrap()).await.unwrap();
        assert!(big == b"0123456789".repeat(100_000));
        let head = php
            .call(inbound(Method::HEAD, "/echo.php", RequestBody::empty()), &Timeline::start(std::time::Instant::now()))
            .await
            .unwrap();
        assert!(matches!(head.body(), Body::Empty));
        assert_eq!(get(&php, "/none.php").await.unwrap().status(), StatusCode::NOT_FOUND);
        until_free(&php).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_slot_is_free_when_the_process_is_and_not_when_it_has_answered() {
    let script = "<?php echo 'done'; fastcgi_finish_request(); usleep(400000);";
    let fpm = Fpm::start(1, &[("finish.php", script)]).await;
    let php = fpm.php(|settings| settings.connections = 1);
    let began = Instant::now();
    assert_eq!(bytes_of(get(&php, "/finish.php").await.unwrap()).await.unwrap(), "done");
    assert!(began.elapsed() < Duration::from_millis(300));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(php.connections().in_use, 1);
    until_free(&php).await;
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[tokio::test(flavor = "local")]
async fn a_client_that_leaves_frees_its_process_when_php_notices() {
    let loud = "<?php for ($i = 0; $i < 200; $i++) { echo str_repeat('x', 9000); flush(); usleep(20000); }";
    let quiet = "<?php usleep(500000); echo 'hi';";
    let fpm = Fpm::start(1, &[("loud.php", loud), ("quiet.php", quiet)]).await;
    let php = fpm.php(|settings| settings.connections = 1);
    let response = get(&php, "/loud.php").await.unwrap();
    let began = Instant::now();
    drop(response);
    until_free(&php).await;
    assert!(began.elapsed() < Duration::from_secs(2), "the script is cut short: {:?}", began.elapsed());

    let began = Instant::now();
    assert!(timeout(Duration::from_millis(50), get(&php, "/quiet.php")).await.is_err());
    sleep(Duration::from_millis(250)).await;
    assert_eq!(php.connections().in_use, 1, "the script sleeps on");
    until_free(&php).await;
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(bytes_of(get(&php, "/quiet.php").await.unwrap()).await.unwrap(), "hi");

    let body = body_of(&[b'y'; 200_000]).await;
    let began = Instant::now();
    assert!(timeout(Duration::from_millis(50), post(&php, "/quiet.php", body)).await.is_err());
    until_free(&php).await;
    assert!(began.elapsed() >= Duration::from_millis(500), "a body that PHP read late is no sign of its end");

    let php = fpm.php(|settings| (settings.connections, settings.on_client_abort) = (1, OnClientAbort::Finish));
    let began = Instant::now();
    drop(get(&php, "/loud.php").await.unwrap());
    until_free(&php).await;
    assert!(began.elapsed() > Duration::from_secs(3), "the script runs to its end: {:?}", began.elapsed());
}

/// Writes for as long as it is let, after a line of its own.
fn endless(first: &str) -> String {
    format!("<?php {first} for (;;) {{ echo str_repeat('x', 9000); flush(); usleep(20000); }}")
}

#[tokio::test(flavor = "local")]
async fn an_endless_answer_that_nobody_wants_frees_its_process() {
    let (plain, short) = (endless(""), endless("header('Content-Length: 3');"));
    let (none, file) = (endless("http_response_code(204);"), endless("header('X-Accel-Redirect: /nowhere');"));
    let scripts = [("plain.php", &*plain), ("short.php", &*short), ("none.php", &*none), ("file.php", &*file)];
    let fpm = Fpm::start(4, &[&scripts[..], &[("quick.php", "<?php echo 'hi';")]].concat()).await;
    let php = fpm.php(|settings| settings.connections = 4);
    let head = inbound(Method::HEAD, "/plain.php", RequestBody::empty());
    let head = php.call(head, &Timeline::start(std::time::Instant::now())).await.unwrap();
    assert!(matches!(head.body(), Body::Empty));
    assert_eq!(get(&php, "/none.php").await.unwrap().status(), StatusCode::NO_CONTENT);
    assert!(get(&php, "/file.php").await.is_err());
    assert_eq!(bytes_of(get(&php, "/short.php").await.unwrap()).await.unwrap(), "xxx");
    assert_eq!(php.connections().in_use, 4, "each is given some time");
    until_free(&php).await;
    let quick = futures_util::future::join_all((0..4).map(|_| get(&php, "/quick.php")));
    assert!(timeout(Duration::from_secs(2), quick).await.expect("the processes are free").iter().all(Result::is_ok));
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn over_tcp_too_php_notices_that_its_client_left() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scripts = [("loud.php", &*endless("")), ("quiet.php", "<?php usleep(1500000); echo 'hi';")];
    let fpm = Fpm::start_at(Some(address), 1, &scripts).await;
    let php = fpm.php(|settings| (settings.address, settings.connections) = (Address::Tcp(address), 1));
    let began = Instant::now();
    drop(get(&php, "/loud.php").await.unwrap());
    assert_eq!(php.connections().in_use, 1);
    until_free(&php).await;
    assert!(began.elapsed() < Duration::from_secs(3), "the script is cut short: {:?}", began.elapsed());

    let began = Instant::now();
    assert!(timeout(Duration::from_millis(50), get(&php, "/quiet.php")).await.is_err());
    until_free(&php).await;
    assert!(began.elapsed() >= Duration::from_millis(1500), "a process that works has its slot: {:?}", began.elapsed());
    let again = timeout(Duration::from_secs(3), get(&php, "/quiet.php")).await.expect("the process is free").unwrap();
    assert_eq!(bytes_of(again).await.unwrap(), "hi");
    until_free(&php).await;
}

#[tokio::test(flavor = "local")]
async fn an_endless_answer_to_a_body_that_was_not_read_ends_with_its_client() {
    let (ended, end_of_writing) = mpsc::channel::<()>();
    let (_directory, socket) = server(move |_, mut stream| {
        let (_tick, ticks) = mpsc::channel::<()>();
        while stream.write_all(&stdout(b"\r\nmore")).is_ok() {
            let _ = ticks.recv_timeout(Duration::from_millis(20));
        }
        ended.send(()).unwrap();
    });
    let php = php(&socket, |_| {});
    drop(post(&php, "/a", body_of(&[b'y'; 1 << 20]).await).await.unwrap());
    until_free(&php).await;
    end_of_writing.recv_timeout(Duration::from_secs(1)).unwrap();
}
