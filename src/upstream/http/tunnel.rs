//! Connections that change their protocol: WebSocket.
//!
//! Only after the server's own 101 does the gateway answer 101 and carry bytes both ways; until then
//! nothing of the client reaches the server but its request (bytes sent too early would be read as a
//! second request: CVE-2026-2833). The tunnel ends when both sides have ended, either breaks, or
//! neither has said anything for [`SILENCE_MAX`]. What is carried is not looked at.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{CONNECTION, UPGRADE};
use ::http::{HeaderMap, HeaderValue, Response, Version, request, response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::Connection;
use super::pool::{InFlight, Pool};
use super::socket::Stream;
use crate::http::Body;
use crate::http::headers::strip_hop_by_hop;

/// How long both sides of a tunnel may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// How long the client's side may take to be handed over once 101 is on its way.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// The client's side of an upgrade, if this request asks for one that the gateway carries.
pub(super) fn asked(head: &mut request::Parts) -> Option<OnUpgrade> {
    let websocket = head.headers.get(UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    if websocket { head.extensions.remove::<OnUpgrade>() } else { None }
}

/// Answers the client 101 and carries bytes from then on.
pub(super) fn open(
    connection: Box<Connection>,
    place: InFlight<Arc<Pool>>,
    mut head: response::Parts,
    client: OnUpgrade,
) -> Response<Body> {
    keep_upgrade(&mut head.headers);
    head.version = Version::HTTP_11;
    tokio::task::spawn_local(async move {
        if let Err(error) = carry(connection, client).await {
            tracing::debug!(%error, "a tunnel broke");
        }
        drop(place);
    });
    Response::from_parts(head, Body::Empty)
}

fn keep_upgrade(headers: &mut HeaderMap) {
    let protocol = headers.get(UPGRADE).cloned();
    strip_hop_by_hop(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.unwrap_or(HeaderValue::from_static("websocket")));
}

async fn carry(connection: Box<Connection>, client: OnUpgrade) -> io::Result<()> {
    let client = timeout(HANDOVER_MAX, client).await?.map_err(io::Error::other)?;
    let Some((server, said)) = connection.into_tunnel().await else { return Ok(()) };
    let last = Rc::new(Cell::new(Instant::now()));
    let mut client = TokioIo::new(client);
    let mut server = Heard { stream: server, last: Rc::clone(&last) };
    timeout(SILENCE_MAX, client.write_all(&said)).await??;
    // What either side says passes the server's socket, so watching that one is enough.
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut server) => copied.map(drop),
        () = silence(&last) => Err(io::Error::new(io::ErrorKind::TimedOut, "both sides were silent")),
    }
}

async fn silence(last: &Cell<Instant>) {
    loop {
        let until = last.get() + SILENCE_MAX;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// A socket that notes when something last went through it.
struct Heard {
    stream: Stream,
    last: Rc<Cell<Instant>>,
}

impl AsyncRead for Heard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        this.last.set(Instant::now());
        Poll::Ready(read)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.last.set(Instant::now());
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_silent_only_when_nothing_went_through_for_all_that_time() {
        let began = Instant::now();
        let last = Cell::new(began);
        let speak = async {
            tokio::time::sleep(SILENCE_MAX / 2).await;
            last.set(Instant::now());
        };
        tokio::join!(speak, silence(&last));
        assert!(began.elapsed() >= SILENCE_MAX * 3 / 2 && began.elapsed() < SILENCE_MAX * 2);
    }
}
