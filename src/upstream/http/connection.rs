//! One connection to one server: connecting, sending a request, reading the reply.
//!
//! A connection has no task of its own. Whoever has it in hand drives it: the call while it waits
//! for the head, the reply's body while it is read. So a request costs no wake-ups between tasks,
//! head and body of a small reply reach the client in one write, and a connection that is dropped,
//! for whatever reason, is closed: nothing is left behind that could leak. This file knows neither
//! the pool nor which requests may be repeated.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Server;
use crate::http::{BodyFault, RequestBody};
use crate::upstream::Error;

/// The largest head of a reply; a larger one is an invalid reply.
const REPLY_HEAD_BYTES: usize = 64 << 10;
/// The most that is buffered of a reply's body, and of a request's, per connection.
const BUFFER_BYTES: usize = 128 << 10;
/// Pauses between attempts at a Unix socket whose backlog is full: it refuses at once instead of waiting.
const BACKLOG_PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// What one attempt to have a request answered may come to, other than a reply.
pub(super) enum Failure {
    /// Nothing of the request was sent; here it is again.
    Unsent(Box<Request<Upload>>),
    /// The connection ended before a single byte of a reply.
    Unheard(Error),
    /// Anything else. The request may have been acted upon.
    Failed(Error),
}

/// A connection, idle or with one request on it.
pub(super) struct Connection {
    sender: SendRequest<Upload>,
    driver: http1::Connection<TokioIo<Socket>, Upload>,
    ended: bool,
}

impl Connection {
    /// Connects to `server`, or says why not by `deadline`.
    pub(super) async fn open(server: &Server, deadline: Instant) -> Result<Box<Self>, Error> {
        let stream = match timeout_at(deadline, Stream::connect(server, deadline)).await {
            Ok(connected) => connected,
            Err(_passed) => Err(io::Error::new(io::ErrorKind::TimedOut, "not connected in time")),
        };
        let stream = stream.map_err(|source| Error::Unreachable { address: server.to_string(), source })?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(REPLY_HEAD_BYTES)
            .handshake(TokioIo::new(Socket { stream, heard: false, write_failed: false }))
            .await
            .map_err(|error| Error::Broken { source: Some(error.into()) })?;
        Ok(Box::new(Self { sender, driver, ended: false }))
    }

    /// Whether it can take a request now: the last one was fully sent and its reply fully read.
    pub(super) fn is_ready(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    /// Lets it go on; afterwards it may have ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
    }

    /// Drives it to its end, for when its reply is being read elsewhere.
    pub(super) async fn run(mut self: Box<Self>) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drive(cx);
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends a request and waits for the head of its reply; gives the connection back with it.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<Upload>,
        wait: &Wait,
    ) -> Result<(Box<Self>, Response<Incoming>), Failure> {
        let upload = request.body().progress();
        let mut answered = pin!(self.sender.try_send_request(request));
        let mut timer = pin!(sleep_until(wait.until()));
        let outcome = poll_fn(|cx| {
            self.drive(cx);
            if let Poll::Ready(outcome) = answered.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            // While the client is still sending, its own pace is what bounds the wait.
            loop {
                ready!(timer.as_mut().poll(cx));
                if !upload.unfinished() || Instant::now() >= wait.deadline {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(wait.until());
            }
        })
        .await;
        match outcome {
            Some(Ok(reply)) => Ok((self, reply)),
            Some(Err(mut failure)) => match failure.take_message() {
                Some(request) => Err(Failure::Unsent(Box::new(request))),
                None => Err(self.failure(failure.into_error())),
            },
            None => Err(Failure::Failed(wait.passed())),
        }
    }

    fn failure(self: Box<Self>, error: hyper::Error) -> Failure {
        let cut = error.is_incomplete_message() || source_of::<io::Error>(&error).is_some();
        let error = classify(error);
        // hyper says "incomplete" both of a reply that broke off in its head and of a server that
        // closed an idle connection in the moment it was used; only the socket knows which it was.
        let parts = self.driver.into_parts();
        if cut && !parts.io.inner().heard { Failure::Unheard(error) } else { Failure::Failed(error) }
    }

    /// The next frame of a reply that came over this connection.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        Pin::new(incoming).poll_frame(cx)
    }

    /// Takes the socket after a 101, with what was read beyond its head.
    pub(super) async fn into_tunnel(mut self: Box<Self>) -> (Stream, Bytes) {
        poll_fn(|cx| self.poll_ended(cx)).await;
        let parts = self.driver.into_parts();
        (parts.io.into_inner().stream, parts.read_buf)
    }
}

/// How long the head of a reply is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) first_byte: Duration,
    /// The route's own deadline, which holds whatever `first_byte` says.
    pub(super) deadline: Instant,
    /// What the route's deadline was, counted from the request's arrival.
    pub(super) timeout: Duration,
}

impl Wait {
    fn until(&self) -> Instant {
        (Instant::now() + self.first_byte).min(self.deadline)
    }

    fn passed(&self) -> Error {
        if Instant::now() >= self.deadline {
            Error::DeadlinePassed { timeout: self.timeout }
        } else {
            Error::FirstByteTimeout { waited: self.first_byte }
        }
    }
}

/// Says what hyper's error means here, and gives a client's fault back as the client's.
fn classify(error: hyper::Error) -> Error {
    match source_of::<BodyFault>(&error) {
        Some(BodyFault::TooLarge { limit }) => return Error::Body(BodyFault::TooLarge { limit: *limit }),
        Some(BodyFault::TooSlow { gap }) => return Error::Body(BodyFault::TooSlow { gap: *gap }),
        // The fault itself cannot be taken out of hyper's error, but that error names it as its source.
        Some(BodyFault::Broken(_)) => return Error::Body(BodyFault::Broken(error)),
        None => {}
    }
    if error.is_parse_too_large() {
        Error::BadReply { what: "its head is too large" }
    } else if error.is_parse() {
        Error::BadReply { what: "its head is not HTTP/1.1" }
    } else {
        Error::Broken { source: Some(error.into()) }
    }
}

fn source_of<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// A request's body on its way to a server, which can be asked from afar whether it is through.
pub(super) struct Upload {
    body: RequestBody,
    // Held as long as hyper holds the body: it lets go of it with the last byte.
    held: Option<Arc<()>>,
}

/// Tells whether an [`Upload`] is still under way.
pub(super) struct Progress(Option<Weak<()>>);

impl Progress {
    pub(super) fn unfinished(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.strong_count() > 0)
    }
}

impl Upload {
    pub(super) fn new(body: RequestBody) -> Self {
        let held = (!body.is_end_stream()).then(Arc::default);
        Self { body, held }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress(self.held.as_ref().map(Arc::downgrade))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What hyper reads from and writes to.
struct Socket {
    stream: Stream,
    /// Whether anything was read since the last write: something of a reply is here.
    heard: bool,
    write_failed: bool,
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.heard |= buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn written(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match ready!(outcome) {
            Ok(written) => {
                self.heard = false;
                Poll::Ready(Ok(written))
            }
            // A server may answer early (413, 401) and close while a body is still being sent. hyper
            // would give up at the failed write and never read that answer; so the write just stays
            // pending, and what is read decides: the answer, or the end of the connection.
            Err(_failed) => {
                self.write_failed = true;
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Pending;
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_failed {
            return Poll::Pending;
        }
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A connected socket of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn connect(server: &Server, deadline: Instant) -> io::Result<Self> {
        match server {
            Server::Tcp { host, port } => Self::connect_tcp(host, *port, deadline).await.map(Self::Tcp),
            Server::Unix(path) => Self::connect_unix(path).await.map(Self::Unix),
        }
    }

    /// Tries each address of a name; none of them may use up the time of those after it.
    async fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let share = deadline.saturating_duration_since(Instant::now()) / untried.max(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_passed) => last = io::Error::new(io::ErrorKind::TimedOut, "not connected in time"),
            }
            untried = untried.saturating_sub(1);
        }
        Err(last)
    }

    async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
        let mut pauses = BACKLOG_PAUSES.iter().copied().chain(std::iter::repeat(50));
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let pause = pauses.next().unwrap_or(50);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                connected => return connected,
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is buffered between us and the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
