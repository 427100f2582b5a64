//! One connection to PHP-FPM: connecting, and bytes in both directions.
//!
//! Used by `pool.rs`, which decides when to connect, and `exchange.rs`, which decides what is sent.
//! Connecting to a unix socket never waits: the kernel takes the connection at once or says that the
//! backlog is full. So the first bytes are written right behind it, before the event loop has even
//! heard of the socket. This file retries nothing and knows nothing of records or slots.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread::ThreadId;
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Address;

/// A read takes at most this much.
const READ_BYTES: usize = 32 << 10;
/// A read is made with at least this much room: what FPM writes at once (8 KiB), the usual answer, fits in.
const LEAST_ROOM: usize = 16 << 10;

/// A pool's address, made ready for connecting.
#[derive(Debug)]
pub(super) enum Dial {
    Unix(SockAddr),
    Tcp(SocketAddr),
    /// A path too long for a socket's address: every request says so.
    Impossible,
}

impl Dial {
    pub(super) fn new(address: &Address) -> Self {
        match address {
            Address::Unix(path) => SockAddr::unix(path).map_or(Self::Impossible, Self::Unix),
            Address::Tcp(address) => Self::Tcp(*address),
        }
    }

    /// Connects. A full backlog is `WouldBlock` (unix sockets only).
    pub(super) async fn connect(&self, patience: Duration) -> io::Result<Stream> {
        let io = match self {
            Self::Unix(address) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
                socket.connect(address)?;
                let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(socket));
                Io::Unix(UnixStream::from_std(stream)?)
            }
            Self::Tcp(address) => {
                let connecting = tokio::time::timeout(patience, TcpStream::connect(address));
                let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                stream.set_nodelay(true)?;
                Io::Tcp(stream)
            }
            Self::Impossible => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long")),
        };
        Ok(Stream { io, worker: std::thread::current().id(), heard_of: false })
    }
}

/// A connection's two directions, as one worker's event loop knows them.
pub(super) struct Stream {
    io: Io,
    /// The worker whose event loop watches it.
    worker: ThreadId,
    /// Whether the event loop has been asked about it; before, only the socket itself can tell.
    heard_of: bool,
}

enum Io {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.io {
            Io::Unix(stream) => stream.as_fd(),
            Io::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.io, Io::Unix(_))
    }

    /// Moves the connection to the worker that calls this.
    pub(super) fn adopt(self) -> io::Result<Self> {
        let worker = std::thread::current().id();
        if worker == self.worker {
            return Ok(self);
        }
        let io = match self.io {
            Io::Unix(stream) => Io::Unix(UnixStream::from_std(stream.into_std()?)?),
            Io::Tcp(stream) => Io::Tcp(TcpStream::from_std(stream.into_std()?)?),
        };
        Ok(Self { io, worker, heard_of: false })
    }

    /// Whether an idle connection is as it was left: neither closed nor with bytes that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.io {
            Io::Unix(stream) => stream.try_read(&mut byte),
            Io::Tcp(stream) => stream.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes some of `slices`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.heard_of {
            self.heard_of = true;
            match rustix::io::retry_on_intr(|| rustix::io::writev(self.as_fd(), slices)) {
                Err(rustix::io::Errno::AGAIN) => {}
                written => return Poll::Ready(written.map_err(Into::into)),
            }
        }
        match &mut self.io {
            Io::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Reads some bytes to the end of `input`; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        // What was read before may still be on its way to the client: then this makes a new buffer, else it reuses it.
        if input.capacity() - input.len() < LEAST_ROOM {
            input.reserve(READ_BYTES);
        }
        match &mut self.io {
            Io::Unix(stream) => pin!(stream.read_buf(input)).poll(cx),
            Io::Tcp(stream) => pin!(stream.read_buf(input)).poll(cx),
        }
    }

    /// Says that nothing more will be sent. An error means that the other side has gone already.
    pub(super) fn finish_writing(&self) {
        drop(SockRef::from(self).shutdown(Shutdown::Write));
    }

    /// Lets the other side's next write fail (unix sockets).
    pub(super) fn refuse_bytes(&self) {
        drop(SockRef::from(self).shutdown(Shutdown::Read));
    }

    /// Lets the other side's next write fail once this is dropped (TCP; a unix socket does so anyway).
    pub(super) fn reset_on_drop(&self) {
        drop(SockRef::from(self).set_linger(Some(Duration::ZERO)));
    }

    /// Makes the send buffer as small as it can be.
    pub(super) fn shrink_send_buffer(&self) {
        drop(SockRef::from(self).set_send_buffer_size(1));
    }

    /// Sends as much of `bytes` as fits, with one write: whoever reads as fast as we write shall not keep us writing.
    pub(super) fn stuff(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self, bytes)?)
    }

    /// What the kernel knows of the connection now.
    pub(super) fn look(&self) -> PollFlags {
        let mut watched = [PollFd::new(self, PollFlags::OUT)];
        match poll(&mut watched, Some(&Timespec::default())) {
            Ok(_) => watched.first().map_or(PollFlags::ERR, PollFd::revents),
            Err(_) => PollFlags::empty(),
        }
    }
}

/// The address in words, for errors.
pub(super) fn show(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("unix:{}", Path::display(path)),
        Address::Tcp(address) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn one_write_fills_a_small_buffer_and_no_reader_makes_it_more() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("php.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let stream = Dial::new(&Address::Unix(socket)).connect(Duration::ZERO).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.shrink_send_buffer();
        assert!(stream.look().contains(PollFlags::OUT));
        let stuffed = stream.stuff(&[0; 4096]).unwrap();
        assert!((1..=4096).contains(&stuffed), "{stuffed}");
        assert!(!stream.look().contains(PollFlags::OUT), "nobody has read it");
        peer.read_exact(&mut vec![0; stuffed]).unwrap();
        assert!(stream.look().contains(PollFlags::OUT), "all of it was read");
        drop(peer);
        assert!(stream.look().contains(PollFlags::HUP) && stream.stuff(&[0; 4096]).is_err());
    }
}
