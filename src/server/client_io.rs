//! A client's socket with the edge's deadlines on it.
//!
//! hyper has no deadline for a request's head (408), an idle connection, or a client that stops
//! taking its answer. They are kept here, below hyper, with one timer for each direction, which is
//! moved only when it fires: a busy connection costs no timer a request.
//!
//! Closing lingers: what a client still sends after its answer is read and thrown away for a
//! moment, because the kernel would otherwise reset the connection and take the answer with it
//! (RFC 9112 section 9.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::Timeouts;

/// How long and how much is read after the last answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Up to here an answer's pieces are put together before they are written: that costs less than what the kernel
/// spends on gathering them, 0.2 µs.
const GATHERED: usize = 2 << 10;

/// Sent by hand, since hyper knows no such deadline.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What the connection is reading just now. Atomic only because hyper wants upgradable connections `Send`.
#[derive(Debug)]
pub(super) struct Reading(AtomicU8);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const TUNNEL: u8 = 3;

impl Reading {
    /// A new connection: its first head is due at once.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(HEAD)))
    }

    /// A request is being answered: its own deadlines hold.
    pub(super) fn busy(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// The answer has gone: the next request may take its time to begin.
    pub(super) fn idle(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// HTTP has ended here, and with it every deadline of requests.
    pub(super) fn tunnel(&self) {
        self.0.store(TUNNEL, Ordering::Relaxed);
    }

    fn is(&self, what: u8) -> bool {
        self.0.load(Ordering::Relaxed) == what
    }
}

/// The socket, as hyper reads and writes it.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: TcpStream,
    reading: Arc<Reading>,
    /// Whether the client has sent anything at all.
    heard: bool,
    header: Duration,
    idle: Duration,
    write_gap: Duration,
    /// When what is being read must be here; `None` while a request is being answered.
    due: Option<(u8, Instant)>,
    read_timer: Pin<Box<Sleep>>,
    /// Armed while the client takes nothing.
    write_timer: Option<Pin<Box<Sleep>>>,
    lingering: Option<Linger>,
    /// Tells by its end that the socket is gone, whoever had it last.
    _held: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Linger {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl ClientIo {
    /// The socket, and what ends with it.
    pub(super) fn new(stream: TcpStream, reading: Arc<Reading>, timeouts: &Timeouts) -> (Self, oneshot::Receiver<()>) {
        let first_head = Instant::now() + timeouts.header;
        let (held, gone) = oneshot::channel();
        let io = Self {
            stream,
            reading,
            heard: false,
            header: timeouts.header,
            idle: timeouts.idle,
            write_gap: timeouts.write_gap,
            due: Some((HEAD, first_head)),
            read_timer: Box::pin(sleep_until(first_head)),
            write_timer: None,
            lingering: None,
            _held: held,
        };
        (io, gone)
    }

    /// Called when there is nothing to read: ready when that has been so for too long.
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> Poll<u8> {
        let now_reading = self.reading.0.load(Ordering::Relaxed);
        if matches!(now_reading, BUSY | TUNNEL) {
            self.due = None;
        } else if self.due.is_none_or(|(what, _)| what != now_reading) {
            let allowed = if now_reading == HEAD { self.header } else { self.idle };
            self.due = Some((now_reading, Instant::now() + allowed));
        }
        if let Some((_, due)) = self.due
            && due < self.read_timer.deadline()
        {
            self.read_timer.as_mut().reset(due);
        }
        loop {
            ready!(self.read_timer.as_mut().poll(cx));
            let fired = self.read_timer.deadline();
            match self.due {
                Some((what, due)) if due <= fired => return Poll::Ready(what),
                Some((_, due)) => self.read_timer.as_mut().reset(due),
                None => self.read_timer.as_mut().reset(fired + self.idle),
            }
        }
    }

    /// Called when nothing can be written: ready when that has been so for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let write_gap = self.write_gap;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + write_gap)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))
    }

    fn written(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(written) => {
                self.write_timer = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                this.heard = true;
                // The first bytes of a next request: from now on its head has its own deadline.
                if this.reading.is(IDLE) {
                    this.reading.0.store(HEAD, Ordering::Relaxed);
                    this.due = None;
                }
                Poll::Ready(read)
            }
            Poll::Pending => match ready!(this.poll_too_late(cx)) {
                // One that never asked anything (a browser's spare, a probe) would take an answer for one to its
                // first request: it finds the connection closed.
                HEAD if this.heard => {
                    let _ = this.stream.try_write(REQUEST_TIMEOUT);
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's head did not come")))
                }
                _ => Poll::Ready(Ok(())),
            },
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match gather(bufs, &mut [0; GATHERED]) {
            Some(whole) => Pin::new(&mut this.stream).poll_write(cx, whole),
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, bufs),
        };
        this.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        // The other direction of a tunnel goes on.
        if this.reading.is(TUNNEL) {
            return Poll::Ready(Ok(()));
        }
        let linger = this.lingering.get_or_insert_with(|| Linger {
            end: Box::pin(sleep_until(Instant::now() + LINGER)),
            bytes_left: LINGER_BYTES,
        });
        let mut thrown_away = [0_u8; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    match linger.bytes_left.checked_sub(buf.filled().len()) {
                        Some(left) => linger.bytes_left = left,
                        None => return Poll::Ready(Ok(())),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.end.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

/// All of the pieces as one, if there is room for them.
fn gather<'r>(pieces: &[io::IoSlice<'_>], room: &'r mut [u8]) -> Option<&'r [u8]> {
    let mut length = 0;
    for piece in pieces {
        let end = length + piece.len();
        room.get_mut(length..end)?.copy_from_slice(piece);
        length = end;
    }
    room.get(..length)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn connected(timeouts: &Timeouts) -> (TcpStream, ClientIo, Arc<Reading>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let reading = Reading::new();
        let (io, _gone) = ClientIo::new(stream, Arc::clone(&reading), timeouts);
        (client, io, reading)
    }

    fn quick() -> Timeouts {
        Timeouts {
            header: Duration::from_millis(80),
            idle: Duration::from_millis(160),
            write_gap: Duration::from_millis(80),
            ..Timeouts::default()
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_go_on_is_answered_408() {
        let (mut client, mut io, _reading) = connected(&quick()).await;
        client.write_all(b"GET /").await.unwrap();
        assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 5);
        let error = io.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(io);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_that_never_asked_anything_ends_quietly() {
        let (mut client, mut io, _reading) = connected(&quick()).await;
        assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 0);
        drop(io);
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0, "nothing was asked, and yet it was answered");
    }

    #[tokio::test]
    async fn an_idle_connection_ends_quietly_after_its_own_longer_time() {
        let (_client, mut io, reading) = connected(&quick()).await;
        reading.idle();
        let started = Instant::now();
        assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 0);
        assert!(started.elapsed() >= Duration::from_millis(160));
    }

    #[tokio::test]
    async fn a_busy_connection_is_not_cut_by_the_deadlines_of_heads() {
        let (mut client, mut io, reading) = connected(&quick()).await;
        reading.busy();
        let late = tokio::task::LocalSet::new();
        late.run_until(async move {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.write_all(b"late").await.unwrap();
                client
            });
            let mut bytes = [0; 16];
            assert_eq!(io.read(&mut bytes).await.unwrap(), 4);
        })
        .await;
    }

    #[tokio::test]
    async fn a_tunnel_outlives_the_deadlines_of_requests_and_of_idle_connections() {
        let (mut client, mut io, reading) = connected(&quick()).await;
        reading.idle();
        reading.busy();
        reading.tunnel();
        let silent = tokio::time::timeout(quick().idle * 4, io.read(&mut [0; 16])).await;
        assert!(silent.is_err(), "a silent tunnel was cut: {silent:?}");
        client.write_all(b"late").await.unwrap();
        assert_eq!(io.read(&mut [0; 16]).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (_client, mut io, _reading) = connected(&quick()).await;
        let error = loop {
            if let Err(error) = io.write_all(&[0; 65536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
