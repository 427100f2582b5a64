//! The socket under a connection: TCP or Unix, and what hyper must not learn of it too early.
//!
//! Connecting tries every address of a name and waits for a full backlog; how long at most is the
//! caller's to say. A write that fails is kept back, so that an answer given before can still be read.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::Server;

/// Pauses between attempts at a Unix socket whose backlog is full: it refuses at once instead of waiting.
const BACKLOG_PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// What hyper reads from and writes to.
pub(super) struct Socket {
    pub(super) stream: Stream,
    /// Whether anything was read since the last write: something of a reply is here.
    pub(super) heard: bool,
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
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, heard: false, write_failed: false }
    }

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
        // A single piece, as every request without a body is, costs the kernel less by a plain write.
        if let [piece] = bufs {
            return self.poll_write(cx, piece);
        }
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
    pub(super) async fn connect(server: &Server, deadline: Instant) -> io::Result<Self> {
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
