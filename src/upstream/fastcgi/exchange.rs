//! One request on one connection: sending it, and reading the answer as it comes.
//!
//! `mod.rs` opens an [`InFlight`] on a leased connection and gets the answer's head, with the whole
//! body where PHP was quick, else with a [`ReplyBody`] that reads on. Both directions are polled
//! together, so that a script which answers while it is being sent a body never blocks. An answer is
//! whole only with END_REQUEST; before it, the end of the connection is an error that reaches the
//! client. Whatever happens to the request, its connection goes back to `pool.rs` in one of four ways,
//! and none of them frees the slot before PHP has.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, Sleep, sleep_until};

use super::OnClientAbort;
use super::complaints::Complaints;
use super::connection::Stream;
use super::pool::{Condition, Connection, Pool};
use super::record::{self, Decoder, Kind, MAX_CONTENT, Piece, ProtocolStatus, RecordFault};
use super::reply::{Reply, ReplyFault, ReplyParser};
use super::spool::{SpoolFile, Spooled};
use crate::http::{BoxError, Timeline};
use crate::upstream::Error;

/// Parts of a request written with one call.
const SLICES: usize = 16;
/// The most of a body that is gathered before the head is given out, when it comes that fast.
const GATHERED: usize = 64 << 10;

/// A request as it is sent; a retry sends it again.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// BEGIN and PARAMS; the empty STDIN, too, when there is no body.
    pub(super) head: Bytes,
    pub(super) body: Spooled,
    pub(super) request_id: HeaderValue,
    pub(super) on_client_abort: OnClientAbort,
}

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
            Self::Spool(source) => Error::Spool(source),
        }
    }
}

/// A request that PHP works on. Dropped before the answer's end, it sees to the connection by itself.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None` once the connection has gone back.
    work: Option<Work>,
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
        Self { work: Some(work) }
    }

    /// Sends the request and waits for the answer's head, until `deadline` at most.
    ///
    /// What of the body is here by then comes with it: all of it, if PHP was quick.
    pub(super) async fn open(&mut self, deadline: Instant, timeline: &Timeline) -> Result<Opened, Fault> {
        let began = Instant::now();
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
            timeline.first_byte();
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
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Fault::Closed(None))) };
        let piece = ready!(work.poll_piece(cx));
        if piece.is_err() {
            work.dead = !matches!(piece, Err(Fault::Spool(_)));
        }
        Poll::Ready(piece)
    }

    /// Whether this failed on a kept connection before PHP can have seen it.
    pub(super) fn was_never_seen(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.dead && work.connection.reused && !work.answered)
    }

    /// The connection, of which only the slot is of use.
    pub(super) fn into_dead_connection(mut self) -> Option<Connection> {
        self.work.take().map(Work::into_connection)
    }

    /// Gives the connection back: the answer has come to its end. `as_declared`: it was what its head had promised.
    pub(super) fn finish(&mut self, as_declared: bool) {
        if let Some(work) = self.work.take() {
            work.finish(as_declared);
        }
    }

    /// Takes the answer to its end without its body. `whole`: the end is here already.
    pub(super) fn run_out(mut self, whole: bool) {
        if whole {
            return self.finish(true);
        }
        self.let_it_end();
    }

    /// Nobody waits for the rest of the answer, but that is no reason for PHP to stop.
    pub(super) fn let_it_end(&mut self) {
        if let Some(work) = &mut self.work {
            work.wanted = false;
        }
    }
}

/// Whether the server says that it has served the request.
fn check(status: ProtocolStatus) -> Result<(), Fault> {
    match status {
        ProtocolStatus::Complete => Ok(()),
        ProtocolStatus::Overloaded => Err(Fault::Overloaded),
        ProtocolStatus::CannotMultiplex => Err(Fault::Answer("the server takes it for a second request at once")),
        ProtocolStatus::UnknownRole => Err(Fault::Answer("the server is no FastCGI responder")),
        ProtocolStatus::Unknown(_) => Err(Fault::Answer("an unknown protocol status")),
    }
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
    fn into_connection(mut self) -> Connection {
        self.complaints.report(&self.pool.name, &self.request_id, &self.pool.log_limit);
        self.input.clear();
        spare::put(self.input);
        self.connection
    }

    fn finish(self, as_declared: bool) {
        let clean = as_declared && self.sending.is_done() && self.input.is_empty();
        let pool = Arc::clone(&self.pool);
        let condition = if clean { Condition::Clean } else { Condition::Spoiled };
        pool.give_back(self.into_connection(), condition);
    }

    /// Reads the answer to its end, for nobody.
    async fn run_out(mut self) {
        let pool = Arc::clone(&self.pool);
        let mut ended = false;
        let end = poll_fn(|cx| {
            loop {
                match ready!(self.poll_piece(cx)) {
                    Ok(Piece::End(_)) => ended = true,
                    Ok(_) => continue,
                    Err(_) => {}
                }
                return Poll::Ready(());
            }
        });
        pool.last_wait(end).await;
        if ended {
            self.finish(true);
        } else {
            drop(self.into_connection());
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if work.dead {
            return drop(work.into_connection());
        }
        let refuse = work.wanted && work.on_client_abort == OnClientAbort::Close && work.connection.stream.is_unix();
        if !refuse {
            drop(spawn_local(work.run_out()));
            return;
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

/// A request on its way out.
#[derive(Debug)]
struct Sending {
    /// What is written next.
    first: Bytes,
    then: VecDeque<Bytes>,
    /// What has to be read from disk before.
    file: Option<FileTail>,
    /// PHP took no more. What it answers is an answer all the same.
    refused: bool,
}

#[derive(Debug)]
struct FileTail {
    file: Rc<SpoolFile>,
    position: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Sending {
    fn new(outgoing: &Outgoing) -> Self {
        let mut sending = Self { first: outgoing.head.clone(), then: VecDeque::new(), file: None, refused: false };
        match &outgoing.body {
            Spooled::Empty => {}
            Spooled::Memory(bytes) => {
                sending.frame(bytes.clone());
                sending.then.push_back(Bytes::from_static(&record::END_OF_STDIN));
            }
            Spooled::File(file) => {
                sending.file = Some(FileTail { file: Rc::clone(file), position: 0, reading: None });
            }
        }
        sending
    }

    /// Cuts bytes of the body into STDIN records.
    fn frame(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let content = bytes.split_to(bytes.len().min(MAX_CONTENT));
            // Cut to what a record can have.
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
            self.then.push_back(Bytes::copy_from_slice(&record::header(Kind::Stdin, length)));
            self.then.push_back(content);
        }
    }

    /// Whether PHP has been sent all of it.
    fn is_done(&self) -> bool {
        !self.refused && self.first.is_empty() && self.then.is_empty() && self.file.is_none()
    }

    /// Writes as much as is taken. Fails only when the body cannot be read from disk.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            while self.first.is_empty() {
                match self.then.pop_front() {
                    Some(next) => self.first = next,
                    None if self.file.is_some() => ready!(self.poll_file(cx))?,
                    None => return Poll::Ready(Ok(())),
                }
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, bytes) in slices.iter_mut().zip(std::iter::once(&self.first).chain(&self.then)) {
                *slice = IoSlice::new(bytes);
                used += 1;
            }
            match ready!(stream.poll_write(cx, slices.get(..used).unwrap_or_default())) {
                Ok(written) if written > 0 => self.advance(written),
                _ => {
                    *self = Self { first: Bytes::new(), then: VecDeque::new(), file: None, refused: true };
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        while written >= self.first.len() {
            written -= self.first.len();
            match self.then.pop_front() {
                Some(next) => self.first = next,
                None => return self.first.clear(),
            }
        }
        self.first.advance(written);
    }

    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tail) = &mut self.file else { return Poll::Ready(Ok(())) };
        let reading = tail.reading.get_or_insert_with(|| tail.file.read(tail.position));
        let bytes = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other).flatten()?;
        tail.reading = None;
        tail.position += bytes.len() as u64;
        let last = tail.position >= tail.file.length();
        self.frame(bytes);
        if last {
            self.file = None;
            self.then.push_back(Bytes::from_static(&record::END_OF_STDIN));
        }
        Poll::Ready(Ok(()))
    }
}

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
        if this.ended {
            return Poll::Ready(None);
        }
        let chunk = ready!(this.poll_chunk(cx));
        this.ended = !matches!(chunk, Some(Ok(_)));
        if this.ended {
            // The client may take its time to see the end; the connection shall not wait for that.
            drop(std::mem::replace(&mut this.in_flight, InFlight { work: None }));
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
