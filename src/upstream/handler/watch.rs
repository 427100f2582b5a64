//! Watching over a handler's code: every poll of it is timed, every panic in it is caught.
//!
//! A poll that takes longer than [`STALL`] on a worker is a stall: all other requests of the worker
//! waited for it. It is counted and, at most once a second, logged with the handler's name. A panic
//! costs the request it happened in and nothing else. This file does not decide where code runs.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::{Response, response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use thread_local::ThreadLocal;

use super::Kind;
use super::blocking::Piped;
use crate::http::BoxError;
use crate::upstream::Error;
use crate::upstream::warnings::Limit;

/// A poll that takes longer keeps its worker's other requests waiting noticeably.
const STALL: Duration = Duration::from_millis(100);

/// What was seen of one handler's code.
#[derive(Debug)]
pub(super) struct Watch {
    name: String,
    /// Whether its polls keep a worker waiting; a blocking handler's threads are there to be kept.
    on_worker: bool,
    stalls: AtomicU64,
    /// Nanoseconds of CPU that its code took, one number a thread: none writes to another's.
    busy: ThreadLocal<CachePadded>,
    warnings: Limit,
}

/// A number on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded(AtomicU64);

impl Watch {
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            on_worker: kind == Kind::Worker,
            stalls: AtomicU64::new(0),
            busy: ThreadLocal::new(),
            warnings: Limit::new(1),
        }
    }

    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// How long its code was at work, over all threads. On a worker a poll is taken as work from its beginning to its end.
    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.iter().map(|busy| busy.0.load(Ordering::Relaxed)).sum())
    }

    /// Makes and polls a handler's future to its end, and takes what of its body is there already. The first poll
    /// begins at `now`.
    pub(super) async fn run<F>(watch: &Arc<Self>, now: Instant, make: impl FnOnce() -> F) -> Result<Reply, Error>
    where
        F: Future<Output = Response<axum::body::Body>>,
    {
        // Made in its first poll and looked at in its last, so that all of it is watched at once.
        let mut running = pin!(async { make().await });
        let mut first = Some(now);
        // Put where it stays: what comes out of a poll is moved once for each hand it goes through.
        let mut looked = None;
        let turn = poll_fn(|cx| {
            let began = first.take().unwrap_or_else(Instant::now);
            let (turn, ended) = watch
                .guard(began, || running.as_mut().poll(cx).map(|response| looked = Some(look(watch, response, cx))));
            match turn {
                Ok(polled) => polled.map(|()| Ok(ended)),
                Err(message) => Poll::Ready(Err(Error::Panicked { message })),
            }
        });
        let at = turn.await?;
        let (head, body) = looked.unwrap_or(Err(Error::Broken { source: None }))?;
        Ok(Reply { head, body, at })
    }

    /// Runs a piece of the handler's code from `began` on; a panic's text is the error. Says when it ended.
    fn guard<T>(&self, began: Instant, code: impl FnOnce() -> T) -> (Result<T, String>, Instant) {
        let thread = (!self.on_worker).then(cpu_of_this_thread);
        // What a panicking handler leaves half done is its own: the future or body is not polled again.
        let outcome = catch_unwind(AssertUnwindSafe(code));
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        self.spent(took);
        // A thread that is there to be blocked waits most of the time.
        self.worked(thread.map_or(took, |before| cpu_of_this_thread().saturating_sub(before)));
        (outcome.map_err(|panic| text_of(&*panic)), ended)
    }

    fn worked(&self, took: Duration) {
        let busy = &self.busy.get_or_default().0;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        busy.store(busy.load(Ordering::Relaxed).wrapping_add(nanos), Ordering::Relaxed);
    }

    fn spent(&self, took: Duration) {
        if took > STALL && self.on_worker {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.warn(took);
        }
    }

    #[cold]
    fn warn(&self, took: Duration) {
        if let Some(unsaid) = self.warnings.admit() {
            tracing::warn!(
                handler = self.name,
                ?took,
                stalls = self.stalls(),
                unsaid,
                "the handler kept its worker from every other request; declare it blocking or make it async"
            );
        }
    }
}

fn cpu_of_this_thread() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text").to_owned()
}

/// A handler's answer.
pub(super) struct Reply {
    pub(super) head: response::Parts,
    pub(super) body: Answered,
    /// When it was there.
    pub(super) at: Instant,
}

/// The body of a handler's answer.
pub(super) enum Answered {
    Whole(Bytes),
    Coming(Coming),
    Piped(Piped),
}

/// A handler's body, polled under watch.
pub(super) struct Coming {
    body: axum::body::Body,
    watch: Arc<Watch>,
    ahead: Option<Frame<Bytes>>,
    ended: bool,
}

/// A panic in a handler's body: too late for a 500, in time to keep the answer from looking whole.
#[derive(Debug, thiserror::Error)]
#[error("the handler panicked in its body: {message}")]
struct Panicked {
    message: String,
}

impl Coming {
    /// What the body says of itself; nothing if it panics over that. Too short to be timed.
    fn ask<T>(&self, question: impl FnOnce(&axum::body::Body) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| question(&self.body))).ok()
    }
}

/// Takes what of the body is there without waiting: of most answers all, so that it goes out in one write with
/// the head. And a body that panics or fails at once is found out while there can still be a 500.
fn look(
    watch: &Arc<Watch>,
    response: Response<axum::body::Body>,
    cx: &mut Context<'_>,
) -> Result<(response::Parts, Answered), Error> {
    let (head, mut body) = response.into_parts();
    if body.is_end_stream() {
        return Ok((head, Answered::Whole(Bytes::new())));
    }
    let length = body.size_hint().exact();
    let ahead = match Pin::new(&mut body).poll_frame(cx) {
        Poll::Pending => None,
        Poll::Ready(None) => return Ok((head, Answered::Whole(Bytes::new()))),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(bytes) if length == Some(bytes.len() as u64) => return Ok((head, Answered::Whole(bytes))),
            Ok(bytes) => Some(Frame::data(bytes)),
            Err(trailers) => Some(trailers),
        },
        Poll::Ready(Some(Err(error))) => return Err(Error::Broken { source: Some(error.into()) }),
    };
    Ok((head, Answered::Coming(Coming { body, watch: Arc::clone(watch), ahead, ended: false })))
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.ahead.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let body = &mut this.body;
        match this.watch.guard(Instant::now(), || Pin::new(body).poll_frame(cx)).0 {
            Ok(poll) => poll.map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Err(message) => {
                this.ended = true;
                Poll::Ready(Some(Err(Panicked { message }.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && (self.ended || self.ask(HttpBody::is_end_stream).unwrap_or(false))
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        match self.ask(|body| body.size_hint().exact()).flatten() {
            Some(left) => SizeHint::with_exact(left.saturating_add(ahead)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_all_counted_and_seldom_logged() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = log.reopen().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(file)).finish();
        let watch = Watch::new("users", Kind::Worker);
        tracing::subscriber::with_default(subscriber, || {
            for millis in [99, 100, 101, 300, 200] {
                watch.spent(Duration::from_millis(millis));
            }
        });
        assert_eq!(watch.stalls(), 3);
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(log.matches("the handler kept its worker").count(), 1, "{log}");
    }
}
