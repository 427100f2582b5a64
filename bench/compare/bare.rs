//! The least that a proxy can take which is made of hyper, as the gateway is: what it costs more, its own work costs.
//!
//! One thread, a task for each connection. Requests are handed over as they come and answers handed back: nothing is
//! routed, checked, cleaned, counted, logged, bounded or timed out. It understands `wrk` and the services of the
//! comparison only, and ends with the first surprise.
//!
//! ```text
//! bare PORT handler                      answers by itself
//! bare PORT http ADDRESS                 over kept connections
//! bare PORT fastcgi SOCKET SCRIPT        over a new connection each
//! bare PORT fastcgi-kept SOCKET SCRIPT   over kept connections
//! ```

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::spawn_local;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// What answers, and the connections to it that have no request on them.
enum Service {
    Handler,
    Http { address: String, idle: RefCell<Vec<SendRequest<Incoming>>> },
    FastCgi { socket: String, script: String, kept: bool, idle: RefCell<Vec<UnixStream>> },
}

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (port, service) = match words.as_slice() {
        [port, "handler"] => (port, Service::Handler),
        [port, "http", address] => (port, Service::Http { address: (*address).to_owned(), idle: RefCell::default() }),
        [port, kind @ ("fastcgi" | "fastcgi-kept"), socket, script] => {
            let (socket, script, kept) = ((*socket).to_owned(), (*script).to_owned(), *kind == "fastcgi-kept");
            (port, Service::FastCgi { socket, script, kept, idle: RefCell::default() })
        }
        _ => return Err("what is to be measured? The head of bare.rs says what can be".into()),
    };
    let port = port.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(port, Rc::new(service)))
}

async fn serve(port: u16, service: Rc<Service>) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = Rc::clone(&service);
        spawn_local(async move {
            let answer = service_fn(|request| service.answer(request));
            // Clients leave at the end of a measurement; whatever else is wrong, wrk sees.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Outcome<Answer> {
        match self {
            Self::Handler => Ok(Response::new(Either::Right(Full::new(Bytes::from_static(b"hello"))))),
            Self::Http { address, idle } => {
                let kept = idle.borrow_mut().pop();
                let mut service = match kept {
                    Some(service) => service,
                    None => connect(address).await?,
                };
                service.ready().await?;
                let answer = service.send_request(request).await?;
                idle.borrow_mut().push(service);
                Ok(answer.map(Either::Left))
            }
            Self::FastCgi { socket, script, kept, idle } => {
                let connected = idle.borrow_mut().pop();
                let mut php = match connected {
                    Some(php) => php,
                    None => UnixStream::connect(socket).await?,
                };
                php.write_all(&records(script, *kept, &request)?).await?;
                let answer = read(&mut php).await?;
                if *kept {
                    idle.borrow_mut().push(php);
                }
                Ok(answer)
            }
        }
    }
}

async fn connect(address: &str) -> Outcome<SendRequest<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (service, connection) = client::handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(service)
}

/// A request for a script: BEGIN_REQUEST, PARAMS, their end, the end of STDIN.
fn records(script: &str, kept: bool, request: &Request<Incoming>) -> Outcome<Vec<u8>> {
    let mut params = Vec::with_capacity(1024);
    let mut param = |prefix: &str, name: &str, value: &str| -> Outcome {
        params.extend([u8::try_from(prefix.len() + name.len())?, u8::try_from(value.len())?]);
        params.extend(prefix.bytes());
        params.extend(name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        params.extend(value.bytes());
        Ok(())
    };
    for (name, value) in [
        ("SCRIPT_FILENAME", script),
        ("SCRIPT_NAME", "/hello.php"),
        ("REQUEST_METHOD", request.method().as_str()),
        ("QUERY_STRING", request.uri().query().unwrap_or_default()),
        ("REQUEST_URI", request.uri().path()),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("REDIRECT_STATUS", "200"),
    ] {
        param("", name, value)?;
    }
    for (name, value) in request.headers() {
        param("HTTP_", name.as_str(), value.to_str()?)?;
    }
    let mut records = Vec::with_capacity(params.len() + 64);
    let begin = [0, 1, u8::from(kept), 0, 0, 0, 0, 0];
    for (kind, content) in [(1, &begin[..]), (4, &params), (4, &[]), (5, &[])] {
        let [high, low] = u16::try_from(content.len())?.to_be_bytes();
        records.extend([1, kind, 0, 1, high, low, 0, 0]);
        records.extend(content);
    }
    Ok(records)
}

/// Reads records until END_REQUEST; what is in STDOUT is a head and a body.
async fn read(php: &mut UnixStream) -> Outcome<Answer> {
    let (mut read, mut stdout) = (BytesMut::with_capacity(4096), Vec::new());
    loop {
        if php.read_buf(&mut read).await? == 0 {
            return Err("PHP hung up".into());
        }
        while let Some(&[_, kind, _, _, high, low, padding, _]) = read.first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let Some(content) = read.get(8..8 + length) else { break };
            if kind == 3 {
                return answer(&stdout);
            }
            stdout.extend(content);
            let _ = read.split_to((8 + length + usize::from(padding)).min(read.len()));
        }
    }
}

fn answer(stdout: &[u8]) -> Outcome<Answer> {
    let end = memchr::memmem::find(stdout, b"\r\n\r\n").ok_or("a script without a head")?;
    let (head, body) = stdout.split_at(end);
    let mut answer = Response::builder();
    for line in str::from_utf8(head)?.split("\r\n") {
        let (name, value) = line.split_once(": ").ok_or("a field without a value")?;
        answer = answer.header(name, value);
    }
    let body = Bytes::copy_from_slice(body.get(4..).unwrap_or_default());
    Ok(answer.body(Either::Right(Full::new(body)))?)
}
