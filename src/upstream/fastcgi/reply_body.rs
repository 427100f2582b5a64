//! The body of an answer that PHP is still giving when its head goes out.
//!
//! The client's connection polls it, so PHP is read as fast as the client takes it, and each flush is
//! passed on as it comes. It ends well only with the answer's own end: whatever else stops it is an
//! error, for which the client's connection is cut, so that a part never looks like the whole. It holds
//! PHP to `between_bytes` and to the length it declared.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::{Fault, InFlight, check};
use super::record::Piece;
use crate::http::BoxError;

/// The body of an answer that was not whole when its head was given out.
#[derive(Debug)]
pub(super) struct ReplyBody {
    in_flight: InFlight,
    /// What came with the head.
    first: Bytes,
    /// How much of the declared length is still to come.
    left: Option<u64>,
    /// Whether PHP sent more than it had declared.
    too_long: bool,
    ended: bool,
    between_bytes: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether the alarm must be set anew before it counts.
    heard: bool,
}

impl ReplyBody {
    pub(super) fn new(mut in_flight: InFlight, first: Bytes, left: Option<u64>, between_bytes: Duration) -> Self {
        if left == Some(0) {
            in_flight.let_it_end();
        }
        Self { in_flight, first, left, too_long: false, ended: false, between_bytes, alarm: None, heard: true }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            if let Some(chunk) = self.within_length(first) {
                return Poll::Ready(Some(Ok(chunk)));
            }
        }
        loop {
            match self.in_flight.poll_piece(cx) {
                Poll::Ready(Ok(Piece::Stdout(bytes))) => {
                    self.heard = true;
                    if let Some(chunk) = self.within_length(bytes) {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
                Poll::Ready(Ok(Piece::Stderr(_))) => {}
                Poll::Ready(Ok(Piece::End(status))) => {
                    self.in_flight.finish(!self.too_long && self.left.unwrap_or(0) == 0);
                    check(status)?;
                    return Poll::Ready(match self.left {
                        Some(left) if left > 0 => Some(Err(Fault::Answer("a body shorter than its Content-Length"))),
                        _ => None,
                    });
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                Poll::Pending => {
                    ready!(self.poll_alarm(cx));
                    return Poll::Ready(Some(Err(Fault::Silent { waited: self.between_bytes })));
                }
            }
        }
    }

    /// As much of `bytes` as the declared length has room for.
    fn within_length(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        if let Some(left) = &mut self.left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            self.too_long |= bytes.len() > room;
            bytes.truncate(room);
            *left -= bytes.len() as u64;
            if *left == 0 {
                self.in_flight.let_it_end();
            }
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rings = Instant::now() + self.between_bytes;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(rings)));
        if std::mem::take(&mut self.heard) {
            alarm.as_mut().reset(rings);
        }
        alarm.as_mut().poll(cx)
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.is_end_stream() {
            // What PHP may still have to say is not for the client, who shall not wait for it either.
            this.ended = true;
            this.in_flight.leave();
            return Poll::Ready(None);
        }
        let chunk = ready!(this.poll_chunk(cx));
        this.ended = !matches!(chunk, Some(Ok(_)));
        if this.ended {
            // The client may take its time to see the end; the connection shall not wait for that.
            this.in_flight.leave();
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}
