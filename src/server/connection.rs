//! One client's connection: HTTP/1.1 in, requests to the gateway, answers out.
//!
//! hyper speaks the protocol. What hyper leaves to its user is done here and in `client_io`:
//! deadlines of reading and writing, the end of a connection after so many requests or so long,
//! and leaving without cutting off an answer.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Request, StatusCode};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client_io::{ClientIo, Reading};
use super::drain::Phase;
use crate::gateway::Worker;
use crate::http::{BoxError, Client, Limits, Timeouts};
use crate::telemetry::Recorded;

/// Bytes hyper may hold of one connection, in each direction.
const BUFFER: usize = 64 << 10;

/// Header lines that hyper allows if it is not told otherwise.
const HYPERS_HEADERS: usize = 100;

/// What all requests of a connection share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Client,
    /// Of the table in force when it was opened. Copies: a table must go with its last request.
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    /// Set when the worker is going down: answers then end their connections.
    pub(super) closing: Rc<Cell<bool>>,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, connection: Connection, mut phases: watch::Receiver<Phase>) {
    let limits = &connection.limits;
    let reading = Reading::new();
    let age = Age::new(&connection.timeouts);
    let (io, gone) = ClientIo::new(stream, Arc::clone(&reading), &connection.timeouts);
    connection.worker.recorder().connection_opened();

    let service = service_fn(|request: Request<Incoming>| {
        reading.busy();
        let now = Instant::now();
        let (connection, reading, age) = (&connection, &reading, &age);
        async move {
            let mut response = connection.worker.serve(request, &connection.client, now.into_std()).await;
            let last = connection.closing.get() || age.is_over(now);
            let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if last && !tunnel {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Answered { body, tunnel, reading: Arc::clone(reading) }))
        }
    });
    let mut http = http1::Builder::new();
    // Said aloud, even hyper's own number makes it fill its table of headers anew for each request.
    if limits.headers != HYPERS_HEADERS {
        http.max_headers(limits.headers);
    }
    let serving = http
        .auto_date_header(true)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER.max(limits.header_bytes))
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let news = phases.clone();
    let ended = {
        let (mut serving, mut draining) = (pin!(serving), pin!(draining(&mut phases)));
        let mut listens = false;
        let ended = poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            // Asked once it listens, and then only when there are news: to ask costs more than to look.
            Poll::Pending if !listens || news.has_changed().unwrap_or(true) => {
                listens = true;
                draining.as_mut().poll(cx).map(|()| None)
            }
            Poll::Pending => Poll::Pending,
        });
        match ended.await {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    // The client's faults and its leaving; what they did to an exchange stands in its record.
    if let Err(error) = ended {
        tracing::debug!(client = %connection.client.ip_text, %error, "the connection ended early");
    }
    // A tunnel goes on without HTTP. It is a connection all the same: counted against the limits, and
    // waited for while draining. The sender is never used; its end is the news.
    let _ = gone.await;
    connection.worker.recorder().connection_closed();
}

async fn draining(phases: &mut watch::Receiver<Phase>) {
    let _ = phases.wait_for(|phase| matches!(phase, Phase::Draining(_) | Phase::Over)).await;
}

/// How many requests a connection has had, and since when it is there.
#[derive(Debug)]
struct Age {
    requests_left: Cell<u64>,
    end: Instant,
}

impl Age {
    fn new(timeouts: &Timeouts) -> Self {
        // A tenth of jitter: connections that were opened together do not all come back together.
        let age = timeouts.connection_age.mul_f64(1.0 - fastrand::f64() / 10.0);
        Self { requests_left: Cell::new(timeouts.requests_per_connection), end: Instant::now() + age }
    }

    /// Counts a request that came at `now`; true when it is the connection's last.
    fn is_over(&self, now: Instant) -> bool {
        let left = self.requests_left.get().saturating_sub(1);
        self.requests_left.set(left);
        left == 0 || now >= self.end
    }
}

/// An answer on its way out; when it is gone the connection waits for its next request.
struct Answered {
    body: Recorded,
    tunnel: bool,
    reading: Arc<Reading>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        if self.tunnel { self.reading.tunnel() } else { self.reading.idle() }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
