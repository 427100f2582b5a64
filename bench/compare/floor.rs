//! The least that a proxy can take which reads and writes each message by itself: its system calls, and nothing else.
//!
//! One thread, one edge-triggered epoll. A request is read, handed over as it is, its answer read and handed back.
//! Nothing is parsed, checked, counted, logged or timed out. It understands `wrk`
//! and the services of the comparison only, whose every message arrives whole.
//!
//! ```text
//! floor PORT handler                                  answers by itself
//! floor PORT http ADDRESS                             over kept connections
//! floor PORT fastcgi SOCKET SCRIPT CONNECTIONS        over a new connection each, so many at once
//! floor PORT fastcgi-kept SOCKET SCRIPT CONNECTIONS   over so many kept connections
//! ```

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// As long as the gateway's own answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\
    x-request-id: 0123456789abcdef0123456789abcdef\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhello";

/// The listener's key; all others are descriptors.
const LISTENER: u64 = u64::MAX;

/// What answers.
enum Service {
    Handler,
    Http { address: String },
    FastCgi { socket: String, request: Vec<u8>, connections: usize, kept: bool },
}

trait Stream: Read + Write + AsFd + AsRawFd {}
impl<S: Read + Write + AsFd + AsRawFd> Stream for S {}

/// Whose connection it is.
enum Whose {
    Client,
    /// One to the service, and the client whose request is on it.
    Ours(Option<u64>),
}

struct Peer {
    stream: Box<dyn Stream>,
    whose: Whose,
}

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (port, service) = match words.as_slice() {
        [port, "handler"] => (port, Service::Handler),
        [port, "http", address] => (port, Service::Http { address: (*address).to_owned() }),
        [port, kind @ ("fastcgi" | "fastcgi-kept"), socket, script, connections] => {
            let kept = *kind == "fastcgi-kept";
            let (socket, request) = ((*socket).to_owned(), fastcgi_request(script, kept)?);
            (port, Service::FastCgi { socket, request, connections: connections.parse()?, kept })
        }
        _ => return Err("what is to be measured? The head of floor.rs says what can be".into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    Floor { service, epoll, peers: HashMap::new(), idle: Vec::new(), ours: 0, waiting: VecDeque::new() }.run(&listener)
}

struct Floor {
    service: Service,
    epoll: OwnedFd,
    peers: HashMap<u64, Peer>,
    /// Connections to the service without a request, the one used last at the end.
    idle: Vec<u64>,
    /// How many there are to the service.
    ours: usize,
    /// Requests for which there is no connection yet.
    waiting: VecDeque<(u64, Vec<u8>)>,
}

impl Floor {
    fn run(mut self, listener: &TcpListener) -> Outcome {
        epoll::add(&self.epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; 64 << 10]);
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => {
                        let stream = nonblocking(listener.accept()?.0)?;
                        self.add(Box::new(stream), Whose::Client)?;
                    }
                    key => self.readable(key, &mut buffer)?,
                }
            }
        }
    }

    fn add(&mut self, stream: Box<dyn Stream>, whose: Whose) -> Outcome<u64> {
        let key = u64::try_from(stream.as_raw_fd())?;
        let what = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &*stream, epoll::EventData::new_u64(key), what)?;
        self.peers.insert(key, Peer { stream, whose });
        Ok(key)
    }

    fn readable(&mut self, key: u64, buffer: &mut [u8]) -> Outcome {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let read = match peer.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            read => read.unwrap_or(0),
        };
        let message = buffer.get(..read).unwrap_or_default();
        match &mut peer.whose {
            _ if message.is_empty() => self.close(key),
            Whose::Client => self.asked(key, message),
            Whose::Ours(client) => {
                let client = client.take();
                self.answered(key, client, message)
            }
        }
    }

    fn close(&mut self, key: u64) -> Outcome {
        if let Some(Peer { whose: Whose::Ours(_), .. }) = self.peers.remove(&key) {
            self.ours -= 1;
            self.idle.retain(|idle| *idle != key);
        }
        Ok(())
    }

    fn asked(&mut self, client: u64, message: &[u8]) -> Outcome {
        let most = match &self.service {
            Service::Handler => return self.write(client, ANSWER),
            Service::Http { .. } => usize::MAX,
            Service::FastCgi { connections, .. } => *connections,
        };
        match self.idle.pop() {
            Some(idle) => self.hand_over(client, idle, message),
            None if self.ours < most => {
                let ours = self.connect()?;
                self.hand_over(client, ours, message)
            }
            None => {
                self.waiting.push_back((client, message.to_vec()));
                Ok(())
            }
        }
    }

    fn connect(&mut self) -> Outcome<u64> {
        let stream: Box<dyn Stream> = match &self.service {
            Service::Http { address } => Box::new(nonblocking(TcpStream::connect(address)?)?),
            Service::FastCgi { socket, .. } => {
                let stream = UnixStream::connect(socket)?;
                stream.set_nonblocking(true)?;
                Box::new(stream)
            }
            Service::Handler => return Err("a handler is not connected to".into()),
        };
        self.ours += 1;
        self.add(stream, Whose::Ours(None))
    }

    fn hand_over(&mut self, client: u64, ours: u64, message: &[u8]) -> Outcome {
        let Some(peer) = self.peers.get_mut(&ours) else { return Ok(()) };
        peer.whose = Whose::Ours(Some(client));
        match &self.service {
            Service::FastCgi { request, .. } => peer.stream.write_all(request)?,
            Service::Http { .. } | Service::Handler => peer.stream.write_all(message)?,
        }
        Ok(())
    }

    fn answered(&mut self, ours: u64, client: Option<u64>, message: &[u8]) -> Outcome {
        let (answer, kept) = match &self.service {
            Service::FastCgi { kept, .. } => (ANSWER, *kept),
            Service::Http { .. } | Service::Handler => (message, true),
        };
        if let Some(client) = client {
            self.write(client, answer)?;
        }
        if !kept {
            self.close(ours)?;
        }
        match self.waiting.pop_front() {
            Some((client, message)) => {
                let ours = if kept { ours } else { self.connect()? };
                self.hand_over(client, ours, &message)
            }
            None if kept => {
                self.idle.push(ours);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, client: u64, answer: &[u8]) -> Outcome {
        let Some(peer) = self.peers.get_mut(&client) else { return Ok(()) };
        Ok(peer.stream.write_all(answer)?)
    }
}

fn nonblocking(stream: TcpStream) -> Outcome<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A request for a script: BEGIN_REQUEST, PARAMS, their end, the end of STDIN.
fn fastcgi_request(script: &str, kept: bool) -> Outcome<Vec<u8>> {
    let pairs = [
        ("SCRIPT_FILENAME", script),
        ("SCRIPT_NAME", "/hello.php"),
        ("REQUEST_METHOD", "GET"),
        ("QUERY_STRING", ""),
        ("REQUEST_URI", "/fastcgi"),
        ("DOCUMENT_URI", "/hello.php"),
        ("DOCUMENT_ROOT", "/srv/www"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "floor"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "40000"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "40000"),
        ("SERVER_NAME", "127.0.0.1"),
        ("REDIRECT_STATUS", "200"),
        ("HTTP_HOST", "127.0.0.1:40000"),
    ];
    let mut params = Vec::new();
    for (name, value) in pairs {
        params.extend([u8::try_from(name.len())?, u8::try_from(value.len())?]);
        params.extend(name.bytes().chain(value.bytes()));
    }
    let mut records = Vec::new();
    let begin = [0, 1, u8::from(kept), 0, 0, 0, 0, 0];
    for (kind, content) in [(1, &begin[..]), (4, &params), (4, &[]), (5, &[])] {
        let [high, low] = u16::try_from(content.len())?.to_be_bytes();
        records.extend([1, kind, 0, 1, high, low, 0, 0]);
        records.extend(content);
    }
    Ok(records)
}
