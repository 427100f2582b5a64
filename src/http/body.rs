//! The two bodies of an exchange: what a client sends, and what a side answers.
//!
//! [`RequestBody`] holds a client to its limit and its pace. [`Body`] is the one concrete type of
//! every answer, whichever side made it, so that nothing above is generic over bodies.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::Answer;
use crate::spool::{self, Disk, Replay, Spooled};

/// An error from a side's body; it ends the client's connection, so that a cut answer never looks whole.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) enum Body {
    /// No bytes, or the last ones have been given out.
    Empty,
    /// All of the bytes, already here.
    Full(Bytes),
    /// Bytes as a side makes them.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError>>>),
}

impl Body {
    /// A body whose frames come from `stream`.
    pub(crate) fn stream(stream: impl HttpBody<Data = Bytes, Error = BoxError> + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Body::Empty",
            Self::Full(_) => "Body::Full",
            Self::Stream(_) => "Body::Stream",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Why a client's body could not be had to its end. A side is never to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    /// More bytes than the route allows.
    #[error("the request's body is larger than {limit} bytes")]
    TooLarge {
        /// The most that was allowed.
        limit: u64,
    },
    /// The client stopped sending.
    #[error("the client sent nothing of its body for {gap:?}")]
    TooSlow {
        /// The longest silence that was allowed.
        gap: Duration,
    },
    /// The connection broke, or the body's framing was wrong.
    #[error("the client's body broke off")]
    Broken(#[source] hyper::Error),
    /// It could not be kept until it was all here.
    #[error(transparent)]
    Spool(#[from] spool::Fault),
}

impl BodyFault {
    /// What the client is told.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::TooLarge { .. } => Answer::BodyTooLarge,
            Self::TooSlow { .. } => Answer::BodyTooSlow,
            Self::Broken(_) | Self::Spool(spool::Fault::Length { .. }) => Answer::BadBody,
            Self::Spool(spool::Fault::Full { .. }) => Answer::SpoolFull,
            Self::Spool(spool::Fault::Disk(_)) => Answer::Internal,
        }
    }
}

/// Where the bytes of a request's body come from.
#[derive(Debug)]
enum Source {
    /// There are none, or none any more.
    Nothing,
    /// The client's connection.
    Client(Incoming),
    /// A check wanted all of them first.
    Kept(Replay),
}

/// The body of a request: no longer than its limit, never silent for longer than its gap.
pub(crate) struct RequestBody {
    source: Source,
    limit: u64,
    left: u64,
    gap: Duration,
    received: Option<Arc<AtomicU64>>,
    // Armed only while the client keeps us waiting: a body that is already here costs no timer.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// Wraps what hyper reads from the client.
    pub(crate) fn new(incoming: Incoming, limit: u64, gap: Duration) -> Self {
        let source = if incoming.is_end_stream() { Source::Nothing } else { Source::Client(incoming) };
        Self { source, limit, left: limit, gap, received: None, waiting: None }
    }

    /// Sets another limit, before any of it is read. A body whose declared length is over it is refused at once.
    pub(crate) fn bound(&mut self, limit: u64) -> Result<(), BodyFault> {
        (self.limit, self.left) = (limit, limit);
        if self.size_hint().lower() > limit {
            return Err(BodyFault::TooLarge { limit });
        }
        Ok(())
    }

    /// A request without a body.
    pub(crate) fn empty() -> Self {
        Self { source: Source::Nothing, limit: 0, left: 0, gap: Duration::ZERO, received: None, waiting: None }
    }

    /// Counts what comes in, wherever the body is read in the end.
    pub(crate) fn count(&mut self, received: Arc<AtomicU64>) {
        self.received = Some(received);
    }

    /// The length the client declared, if it did; 0 without a body.
    pub(crate) fn declared_length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Receives all of it and keeps it, past `memory` bytes on `disk`; it can then be read as before, by
    /// whoever comes next. A body that is kept already is not received again.
    pub(crate) async fn keep(&mut self, memory: u64, disk: &Arc<Disk>) -> Result<Spooled, BodyFault> {
        if let Source::Kept(replay) = &self.source
            && let Some(whole) = replay.whole()
        {
            return Ok(whole.clone());
        }
        if let Some(length) = self.declared_length().filter(|&length| length > self.limit) {
            tracing::debug!(length, limit = self.limit, "the request's body is declared larger than it may be");
            return Err(BodyFault::TooLarge { limit: self.limit });
        }
        let whole = spool::receive(&mut *self, memory, disk).await?;
        self.source = Source::Kept(Replay::new(whole.clone()));
        Ok(whole)
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("limit", &self.limit).field("left", &self.left).finish_non_exhaustive()
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        let incoming = match &mut this.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Client(incoming) => incoming,
            Source::Kept(replay) => {
                let piece = ready!(replay.poll(cx));
                return Poll::Ready(
                    piece.map(|piece| piece.map(Frame::data).map_err(|error| spool::Fault::Disk(error).into())),
                );
            }
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = None;
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        if let Some(received) = &this.received {
                            received.fetch_add(length, Ordering::Relaxed);
                        }
                    }
                    None => {
                        this.source = Source::Nothing;
                        return Poll::Ready(Some(Err(BodyFault::TooLarge { limit: this.limit })));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.source = Source::Nothing;
                Poll::Ready(Some(Err(BodyFault::Broken(error))))
            }
            Poll::Ready(None) => {
                this.source = Source::Nothing;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let gap = this.gap;
                let waiting =
                    this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + gap)));
                ready!(waiting.as_mut().poll(cx));
                this.source = Source::Nothing;
                Poll::Ready(Some(Err(BodyFault::TooSlow { gap })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Client(incoming) => incoming.is_end_stream(),
            Source::Kept(replay) => replay.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Client(incoming) => incoming.size_hint(),
            Source::Kept(replay) => SizeHint::with_exact(replay.left()),
        }
    }
}
