//! Handlers that block: a bounded set of threads for each, beside the workers.
//!
//! A request takes a place, or waits for one until its deadline, among a bounded number of others;
//! then one thread runs all of the handler's code for it, the bodies' included. What the thread makes
//! of the answer's body reaches the worker through a bounded channel. A client that leaves does not
//! stop a thread in the middle of a blocking call, and the place is taken until that call returns.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Erased;
use super::watch::{Answered, Coming, Reply, Watch};
use crate::http::BoxError;
use crate::upstream::{Error, Inbound};

/// Requests that may wait for each one that runs.
const WAITING_PER_PLACE: usize = 4;
/// Frames of a body that may lie between its thread and the worker.
const FRAMES_MAX: usize = 8;
/// How long a thread without work is kept.
const THREAD_IDLE: Duration = Duration::from_secs(10);

/// A frame of a body, or its end: a channel that closes without one was left by a thread that died.
type Piece = Result<Option<Frame<Bytes>>, BoxError>;
type Outcome = Result<Reply, Error>;

/// The threads of one blocking handler.
pub(super) struct Blocking {
    service: Arc<Erased>,
    // Taken out only to be shut down without waiting: dropping a runtime waits, and a worker may not.
    runtime: Option<Runtime>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Blocking {
    pub(super) fn start(name: &str, concurrency: usize, service: Erased) -> io::Result<Self> {
        let concurrency = concurrency.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(concurrency)
            .thread_keep_alive(THREAD_IDLE)
            .thread_name(format!("handler-{name}"))
            .enable_all()
            .build()?;
        Ok(Self {
            service: Arc::new(service),
            runtime: Some(runtime),
            places: Arc::new(Semaphore::new(concurrency)),
            waiting: AtomicUsize::new(0),
            waiting_max: concurrency.saturating_mul(WAITING_PER_PLACE),
        })
    }

    /// Waits for a place, as it has since `began`.
    pub(super) async fn place(&self, began: Instant, deadline: Instant) -> Result<Place<'_>, Error> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_full) => {
                let _waiting = self.wait()?;
                match timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) | Err(_) => return Err(Error::QueueTimeout { waited: began.elapsed() }),
                }
            }
        };
        Ok(Place { threads: self, permit })
    }

    fn wait(&self) -> Result<Waiting<'_>, Error> {
        let length = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if length < self.waiting_max { Ok(waiting) } else { Err(Error::QueueFull { length }) }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One request that waits for a place.
struct Waiting<'b>(&'b AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to use one thread.
pub(super) struct Place<'b> {
    threads: &'b Blocking,
    permit: OwnedSemaphorePermit,
}

impl Place<'_> {
    /// Runs the handler on a thread of its own and waits for the head of its answer.
    pub(super) async fn run(self, watch: Arc<Watch>, inbound: Box<Inbound>) -> Outcome {
        let Self { threads, permit } = self;
        let Some(runtime) = &threads.runtime else {
            return Err(Error::Panicked { message: "the handler's threads are gone".to_owned() });
        };
        let service = Arc::clone(&threads.service);
        let handle = runtime.handle().clone();
        let (answer, answered) = oneshot::channel();
        runtime.spawn_blocking(move || {
            handle.block_on(serve(&service, &watch, inbound, answer));
            drop(permit);
        });
        answered.await.unwrap_or_else(|_gone| {
            Err(Error::Panicked { message: "the handler's thread ended without an answer".to_owned() })
        })
    }
}

async fn serve(service: &Erased, watch: &Arc<Watch>, inbound: Box<Inbound>, mut answer: oneshot::Sender<Outcome>) {
    let outcome = {
        let mut running = pin!(Watch::run(watch, std::time::Instant::now(), || service(inbound)));
        tokio::select! {
            biased;
            // The worker has given up on it: the client left, or the deadline passed.
            () = answer.closed() => return,
            outcome = &mut running => outcome,
        }
    };
    match outcome {
        Ok(Reply { head, body: Answered::Coming(body), at }) => {
            let length = body.size_hint().exact();
            let (frames, received) = mpsc::channel(FRAMES_MAX);
            let piped = Answered::Piped(Piped { frames: received, length, ended: false });
            if answer.send(Ok(Reply { head, body: piped, at })).is_ok() {
                pump(body, frames).await;
            }
        }
        outcome => drop(answer.send(outcome)),
    }
}

async fn pump(mut body: Coming, frames: mpsc::Sender<Piece>) {
    loop {
        let frame = tokio::select! {
            biased;
            () = frames.closed() => return,
            frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
        };
        let piece = frame.transpose();
        let last = !matches!(piece, Ok(Some(_)));
        if frames.send(piece).await.is_err() || last {
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the handler's thread ended in the middle of its answer")]
struct ThreadEnded;

/// A body that another thread makes.
pub(super) struct Piped {
    frames: mpsc::Receiver<Piece>,
    length: Option<u64>,
    ended: bool,
}

impl HttpBody for Piped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(this.frames.poll_recv(cx)).unwrap_or_else(|| Err(ThreadEnded.into()));
        match &piece {
            Ok(Some(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.length = this.length.map(|left| left.saturating_sub(sent));
            }
            Ok(None) | Err(_) => this.ended = true,
        }
        Poll::Ready(piece.transpose())
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
