//! One connection to one server: connecting, sending a request, reading the reply.
//!
//! A connection has no task of its own. Whoever has it in hand drives it: the call while it waits
//! for the head, the reply's body while it is read. So a request costs no wake-ups between tasks,
//! head and body of a small reply reach the client in one write, and a connection that is dropped,
//! for whatever reason, is closed: nothing is left behind that could leak. This file knows neither
//! the pool nor which requests may be repeated.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::Server;
use super::socket::{Socket, Stream};
use crate::http::{BodyFault, RequestBody};
use crate::spool::Fault;
use crate::upstream::Error;

/// The largest head of a reply; a larger one is an invalid reply.
const REPLY_HEAD_BYTES: usize = 64 << 10;
/// The most that is buffered of a reply's body, and of a request's, per connection.
const BUFFER_BYTES: usize = 128 << 10;

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
    /// Gone once it has ended.
    driver: Option<Driver>,
    /// Whether hyper holds a waker of whoever drove it last.
    awaited: bool,
    /// Moved only when it fires, and so often early: a busy connection costs no timer a request.
    timer: Pin<Box<Sleep>>,
    /// What it left when it ended.
    left: Option<http1::Parts<TokioIo<Socket>>>,
}

type Driver = http1::Connection<TokioIo<Socket>, Upload>;

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
            .handshake(TokioIo::new(Socket::new(stream)))
            .await
            .map_err(|error| Error::Broken { source: Some(error.into()) })?;
        let timer = Box::pin(sleep_until(deadline));
        Ok(Box::new(Self { sender, driver: Some(driver), awaited: false, timer, left: None }))
    }

    /// Lets it go on if there may be something to do, so that the next request wakes nobody who drove it before.
    pub(super) fn rest(&mut self) {
        if self.awaited || !self.is_ready() {
            self.go_on();
        }
    }

    /// Whether it can take a request now: the last one was fully sent and its reply fully read.
    pub(super) fn is_ready(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Lets it go on without waking anybody later; afterwards it may have ended.
    pub(super) fn go_on(&mut self) {
        self.poll_driver(&mut Context::from_waker(Waker::noop()));
        self.awaited = false;
    }

    /// Lets it go on, and has whoever drives it woken when it can go on again; afterwards it may have ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.poll_driver(cx);
        self.awaited = true;
    }

    fn poll_driver(&mut self, cx: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready()) {
            // Taken apart at once, not when the connection is dropped: a request that hyper had not
            // taken yet lies in the driver's queue, and is given back only when that queue goes.
            self.left = self.driver.take().map(Driver::into_parts);
        }
    }

    /// Drives it to its end, for when its reply is being read elsewhere.
    pub(super) async fn run(mut self: Box<Self>) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drive(cx);
        if self.driver.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends a request at `now` and waits for the head of its reply; gives the connection back with it.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<Upload>,
        now: Instant,
        wait: &Wait,
    ) -> Result<(Box<Self>, Response<Incoming>), Failure> {
        let upload = request.body().progress();
        let mut answered = pin!(self.sender.try_send_request(request));
        let mut until = wait.until(now);
        if until < self.timer.deadline() {
            self.timer.as_mut().reset(until);
        }
        let mut sent = false;
        let outcome = poll_fn(|cx| {
            // Nobody but `drive` can bring the answer: to be woken for it would only have the task polled again.
            let mut unwoken = Context::from_waker(Waker::noop());
            if std::mem::replace(&mut sent, true) {
                // Woken, most likely by the answer: with a waker in hyper's hands, taking its body would wake us.
                self.go_on();
                if let Poll::Ready(outcome) = answered.as_mut().poll(&mut unwoken) {
                    return Poll::Ready(Some(outcome));
                }
            }
            self.drive(cx);
            if let Poll::Ready(outcome) = answered.as_mut().poll(&mut unwoken) {
                return Poll::Ready(Some(outcome));
            }
            loop {
                ready!(self.timer.as_mut().poll(cx));
                let now = Instant::now();
                if now >= until {
                    // While the client is still sending, its own pace is what bounds the wait.
                    if !upload.unfinished() || now >= wait.deadline {
                        return Poll::Ready(None);
                    }
                    until = wait.until(now);
                }
                self.timer.as_mut().reset(until);
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
        let unheard = self.into_parts().is_some_and(|parts| !parts.io.inner().heard);
        if cut && unheard { Failure::Unheard(error) } else { Failure::Failed(error) }
    }

    fn into_parts(self) -> Option<http1::Parts<TokioIo<Socket>>> {
        self.left.or_else(|| self.driver.map(Driver::into_parts))
    }

    /// The next frame of a reply that came over this connection.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // As with the head, nobody but `drive` brings a frame. Asked for first: without that hyper reads none.
        let mut unwoken = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(&mut unwoken) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        Pin::new(incoming).poll_frame(&mut unwoken)
    }

    /// Takes the socket after a 101, with what was read beyond its head.
    pub(super) async fn into_tunnel(mut self: Box<Self>) -> Option<(Stream, Bytes)> {
        poll_fn(|cx| self.poll_ended(cx)).await;
        self.into_parts().map(|parts| (parts.io.into_inner().stream, parts.read_buf))
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
    fn until(&self, now: Instant) -> Instant {
        (now + self.first_byte).min(self.deadline)
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
        // Only reading it back can fail here: it is kept already.
        Some(BodyFault::Spool(_)) => return Error::Body(Fault::Disk(io::Error::other(error)).into()),
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
///
/// Nothing where there is none: hyper moves a request from hand to hand, and this with it.
pub(super) struct Upload(Option<Box<UnderWay>>);

struct UnderWay {
    body: RequestBody,
    // Held as long as hyper holds the body: it lets go of it with the last byte.
    held: Arc<()>,
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
        Self((!body.is_end_stream()).then(|| Box::new(UnderWay { body, held: Arc::default() })))
    }

    /// That of a request without a body.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    pub(super) fn progress(&self) -> Progress {
        Progress(self.0.as_ref().map(|under_way| Arc::downgrade(&under_way.held)))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut self.get_mut().0 {
            Some(under_way) => Pin::new(&mut under_way.body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|under_way| under_way.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |under_way| under_way.body.size_hint())
    }
}
