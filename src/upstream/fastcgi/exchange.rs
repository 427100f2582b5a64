//! One request on one connection: sending it, and reading the answer as it comes.
//!
//! `mod.rs` opens an [`InFlight`] on a leased connection and gets the answer's head, with the whole
//! body where PHP was quick, else with a [`ReplyBody`](super::reply_body::ReplyBody) that reads on. Both directions are polled
//! together, so that a script which answers while it is being sent a body never blocks. An answer is
//! whole only with END_REQUEST; before it, the end of the connection is an error that reaches the
//! client. Whatever happens to the request, its connection goes back to `pool.rs` in one of five ways,
//! of which only the last (`cut`, where nothing else ends it) frees the slot before PHP is seen to be done.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::OnClientAbort;
use super::complaints::Complaints;
use super::pool::{Condition, Connection, Pool, RUN_OUT};
use super::record::{Decoder, Piece, ProtocolStatus, RecordFault};
use super::reply::{Reply, ReplyFault, ReplyParser};
use super::sending::{Outgoing, Sending};
use crate::http::Timeline;
use crate::spool;
use crate::upstream::Error;

/// The most of a body that is gathered before the head is given out, when it comes that fast.
const GATHERED: usize = 64 << 10;

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("invalid reply: {}", .0.what())]
    Record(#[from] RecordFault),
    #[error("invalid reply: {}", .0.what())]
    Reply(#[from] ReplyFault),
    #[error("invalid reply: {0}")]
    Answer(&'static str),
    #[error("the server has no room for the request")]
    Overloaded,
    #[error("the connection ended before the answer did")]
    Closed(#[source] Option<io::Error>),
    #[error("PHP sent nothing for {waited:?}")]
    Silent { waited: Duration },
    #[error("cannot read the request's body from disk")]
    Spool(#[source] io::Error),
}

impl Fault {
    /// The fault as one of a request that has not been answered yet.
    pub(super) fn before_the_head(self, pool: &Pool) -> Error {
        match self {
            Self::Record(fault) => Error::BadReply { what: fault.what() },
            Self::Reply(fault) => Error::BadReply { what: fault.what() },
            Self::Answer(what) => Error::BadReply { what },
            Self::Overloaded => Error::QueueFull { length: pool.waiting() },
            Self::Closed(source) => Error::Broken { source: source.map(Into::into) },
            Self::Silent { waited } => Error::FirstByteTimeout { waited },
            Self::Spool(source) => Error::Body(spool::Fault::Disk(source).into()),
        }
    }
}

/// A request that PHP works on. Dropped before the answer's end, it sees to the connection by itself.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None` once the connection has gone back. Boxed, since it moves on with the answer.
    work: Option<Box<Work>>,
}

#[derive(Debug)]
struct Work {
    pool: Arc<Pool>,
    connection: Connection,
    sending: Sending,
    decoder: Decoder,
    input: BytesMut,
    complaints: Complaints,
    request_id: HeaderValue,
    on_client_abort: OnClientAbort,
    /// Whether any byte of an answer has come.
    answered: bool,
    /// Whether anybody waits for the rest of the answer.
    wanted: bool,
    /// Whether the connection is of no more use to either side.
    dead: bool,
}

/// The head of an answer, and as much of its body as came with it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) reply: Reply,
    pub(super) body: Bytes,
    /// Whether that is all.
    pub(super) whole: bool,
}

impl InFlight {
    pub(super) fn new(pool: &Arc<Pool>, connection: Connection, outgoing: &Outgoing) -> Self {
        let work = Work {
            pool: Arc::clone(pool),
            connection,
            sending: Sending::new(outgoing),
            decoder: Decoder::default(),
            input: spare::take(),
            complaints: Complaints::default(),
            request_id: outgoing.request_id.clone(),
            on_client_abort: outgoing.on_client_abort,
            answered: false,
            wanted: true,
            dead: false,
        };
        Self { work: Some(Box::new(work)) }
    }

    /// Sends the request, now that it is `began`, and waits for the answer's head, until `deadline` at most.
    ///
    /// What of the body is here by then comes with it: all of it, if PHP was quick.
    pub(super) async fn open(
        &mut self,
        began: Instant,
        deadline: Instant,
        timeline: &Timeline,
    ) -> Result<Opened, Fault> {
        let mut opening = Opening::default();
        let mut alarm = pin!(sleep_until(deadline));
        poll_fn(|cx| {
            if let Poll::Ready(opened) = self.poll_open(cx, &mut opening, timeline) {
                return Poll::Ready(opened);
            }
            ready!(alarm.as_mut().poll(cx));
            Poll::Ready(Err(Fault::Silent { waited: began.elapsed() }))
        })
        .await
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        opening: &mut Opening,
        timeline: &Timeline,
    ) -> Poll<Result<Opened, Fault>> {
        loop {
            let piece = match self.poll_piece(cx) {
                Poll::Ready(piece) => piece?,
                Poll::Pending => return opening.take(false).map_or(Poll::Pending, |opened| Poll::Ready(Ok(opened))),
            };
            if !timeline.is_answered() {
                timeline.first_byte(Instant::now().into_std());
            }
            match piece {
                Piece::Stdout(bytes) => {
                    opening.push(bytes)?;
                    if opening.body_length() >= GATHERED {
                        return Poll::Ready(opening.take(false).ok_or(Fault::Answer("no head")));
                    }
                }
                Piece::Stderr(_) => {}
                Piece::End(status) => {
                    check(status)?;
                    let early = Fault::Answer("it ended before its head did");
                    return Poll::Ready(opening.take(true).ok_or(early));
                }
            }
        }
    }

    /// The next piece of the answer, sending the request all the while.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Fault::Closed(None))) };
        let piece = ready!(work.poll_piece(cx));
        if piece.is_err() {
            work.dead = !matches!(piece, Err(Fault::Spool(_)));
        }
        Poll::Ready(piece)
    }

    /// Whether PHP had closed a kept connection before it could be sent anything.
    ///
    /// Once a byte was taken nobody can tell: a process that was killed in the middle of its work leaves the same
    /// silence as one that ended before it read.
    pub(super) fn was_never_sent(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.dead && work.connection.reused && work.sending.was_refused_whole())
    }

    /// The connection, of which only the slot is of use.
    pub(super) fn into_dead_connection(mut self) -> Option<Connection> {
        self.work.take().map(|work| work.into_connection())
    }

    /// Gives the connection back: the answer has come to its end. `as_declared`: it was what its head had promised.
    pub(super) fn finish(&mut self, as_declared: bool) {
        if let Some(work) = self.work.take() {
            work.finish(as_declared);
        }
    }

    /// Has nothing more to do with the request, as if dropped.
    pub(super) fn leave(&mut self) {
        drop(Self { work: self.work.take() });
    }

    /// Takes the answer to its end without its body, which PHP is given some time for. `whole`: the end is here already.
    pub(super) fn run_out(mut self, whole: bool) {
        if whole {
            return self.finish(true);
        }
        self.let_it_end();
    }

    /// Nobody waits for the rest of the answer, but that is no reason for PHP to stop, unless it takes too long over it.
    pub(super) fn let_it_end(&mut self) {
        if let Some(work) = &mut self.work {
            work.wanted = false;
        }
    }
}

/// Whether the server says that it has served the request.
pub(super) fn check(status: ProtocolStatus) -> Result<(), Fault> {
    match status {
        ProtocolStatus::Complete => Ok(()),
        ProtocolStatus::Overloaded => Err(Fault::Overloaded),
        ProtocolStatus::CannotMultiplex => Err(Fault::Answer("the server takes it for a second request at once")),
        ProtocolStatus::UnknownRole => Err(Fault::Answer("the server is no FastCGI responder")),
        ProtocolStatus::Unknown(_) => Err(Fault::Answer("an unknown protocol status")),
    }
}

/// How far an answer is read that nobody wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    ToItsEnd,
    /// For [`RUN_OUT`] at most.
    ForAWhile,
    ToTheNextWrite,
}

/// How the rest of an answer went that nobody wants.
enum Rest {
    /// To its end.
    Ended,
    /// On and on: it is to be broken off.
    GoesOn,
    /// The connection or the protocol broke.
    Broke,
}

impl Work {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        loop {
            match self.decoder.decode(&mut self.input)? {
                Some(Piece::Stderr(bytes)) => {
                    self.complaints.push(&bytes);
                    continue;
                }
                Some(piece) => return Poll::Ready(Ok(piece)),
                None => {}
            }
            let stream = &mut self.connection.stream;
            // Not `ready!`: the answer is read whether or not the request can be written.
            if let Poll::Ready(sent) = self.sending.poll(cx, stream) {
                sent.map_err(Fault::Spool)?;
            }
            match ready!(stream.poll_read(cx, &mut self.input)) {
                Ok(0) => return Poll::Ready(Err(Fault::Closed(None))),
                Ok(_) => self.answered = true,
                Err(error) => return Poll::Ready(Err(Fault::Closed(Some(error)))),
            }
        }
    }

    /// The answer has ended, or the connection has: reports and keeps what can be used again.
    fn into_connection(mut self: Box<Self>) -> Connection {
        self.complaints.report(&self.pool.name, &self.request_id, &self.pool.log_limit);
        self.input.clear();
        spare::put(self.input);
        self.connection
    }

    fn finish(self: Box<Self>, as_declared: bool) {
        let clean = as_declared && self.sending.is_done() && self.input.is_empty();
        let pool = Arc::clone(&self.pool);
        let condition = if clean { Condition::Clean } else { Condition::Spoiled };
        pool.give_back(self.into_connection(), condition);
    }

    /// Reads the answer on, for nobody, and breaks it off when that is enough.
    async fn run_out(mut self: Box<Self>, reading: Reading) {
        let pool = Arc::clone(&self.pool);
        let rest = match reading {
            Reading::ToItsEnd => pool.last_wait(self.rest(false)).await,
            Reading::ToTheNextWrite => pool.last_wait(self.rest(true)).await,
            // Silence is no sign that a script does not write: PHP keeps the body of an answer to HEAD to itself.
            Reading::ForAWhile => Some(timeout(RUN_OUT, self.rest(false)).await.unwrap_or(Rest::GoesOn)),
        };
        match rest {
            Some(Rest::Ended) => self.finish(true),
            Some(Rest::GoesOn) if self.connection.stream.is_unix() && self.sending.is_done() => {
                pool.break_off(self.into_connection());
            }
            Some(Rest::GoesOn) => pool.cut(self.into_connection()).await,
            Some(Rest::Broke) | None => drop(self.into_connection()),
        }
    }

    /// `one_write`: what PHP has not written yet is enough.
    async fn rest(&mut self, one_write: bool) -> Rest {
        let mut caught_up = false;
        poll_fn(|cx| {
            loop {
                let Poll::Ready(piece) = self.poll_piece(cx) else {
                    caught_up = true;
                    return Poll::Pending;
                };
                return Poll::Ready(match piece {
                    Ok(Piece::End(_)) => Rest::Ended,
                    Ok(_) if one_write && caught_up => Rest::GoesOn,
                    Ok(_) => continue,
                    Err(_) => Rest::Broke,
                });
            }
        })
        .await
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if work.dead {
            return drop(work.into_connection());
        }
        let reading = match (work.on_client_abort, work.wanted) {
            (OnClientAbort::Finish, _) => Reading::ToItsEnd,
            (OnClientAbort::Close, false) => Reading::ForAWhile,
            // Over TCP only the end of the answer tells that a process is done. It is waited for until PHP writes.
            (OnClientAbort::Close, true) => Reading::ToTheNextWrite,
        };
        if reading != Reading::ToTheNextWrite || !work.connection.stream.is_unix() {
            return drop(spawn_local(work.run_out(reading)));
        }
        let pool = Arc::clone(&work.pool);
        if work.sending.is_done() {
            pool.break_off(work.into_connection());
        } else {
            // PHP waits for the rest of a body that will not come: the end of our bytes lets it go on and notice.
            pool.retire(work.into_connection());
        }
    }
}

/// The head while it is being gathered, and what of the body follows.
#[derive(Default)]
struct Opening {
    parser: ReplyParser,
    reply: Option<Reply>,
    /// The body as long as it is one piece, which is then passed on as it lies.
    only: Bytes,
    several: BytesMut,
}

impl Opening {
    fn push(&mut self, bytes: Bytes) -> Result<(), ReplyFault> {
        let bytes = if self.reply.is_some() {
            bytes
        } else {
            let Some((reply, rest)) = self.parser.push(bytes)? else { return Ok(()) };
            self.reply = Some(reply);
            rest
        };
        if self.body_length() == 0 {
            self.only = bytes;
        } else {
            self.several.extend_from_slice(&std::mem::take(&mut self.only));
            self.several.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn body_length(&self) -> usize {
        self.only.len() + self.several.len()
    }

    fn take(&mut self, whole: bool) -> Option<Opened> {
        let reply = self.reply.take()?;
        let only = std::mem::take(&mut self.only);
        let body = if self.several.is_empty() { only } else { self.several.split().freeze() };
        Some(Opened { reply, body, whole })
    }
}

/// Read buffers between requests: one worker's, used again as soon as their last bytes have left.
mod spare {
    use std::cell::RefCell;

    use bytes::BytesMut;

    /// Buffers kept, of 32 KiB or so each.
    const KEPT: usize = 16;

    thread_local! {
        static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> BytesMut {
        BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    pub(super) fn put(buffer: BytesMut) {
        // A worker that ends drops its requests; by then there may be no place to put anything.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < KEPT {
                buffers.push(buffer);
            }
        });
    }
}
