//! A request on its way to PHP: which bytes are written next.
//!
//! `exchange.rs` polls it beside the answer. What is in memory goes out with as few writes as the
//! socket allows, the usual request with one; a body on disk is read a piece at a time, while PHP
//! reads the piece before. It does not know whether PHP has begun to answer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderValue;
use tokio::task::JoinHandle;

use super::OnClientAbort;
use super::connection::Stream;
use super::record::{self, Kind, MAX_CONTENT};
use crate::spool::{SpoolFile, Spooled};

/// Parts of a request written with one call.
const SLICES: usize = 16;

/// A request as it is sent; a retry sends it again.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// BEGIN and PARAMS; the empty STDIN, too, when there is no body.
    pub(super) head: Bytes,
    pub(super) body: Spooled,
    pub(super) request_id: HeaderValue,
    pub(super) on_client_abort: OnClientAbort,
}

/// A request on its way out.
#[derive(Debug)]
pub(super) struct Sending {
    /// What is written next.
    first: Bytes,
    then: VecDeque<Bytes>,
    /// What has to be read from disk before.
    file: Option<FileTail>,
    /// Whether the socket has taken any byte.
    begun: bool,
    /// PHP took no more. What it answers is an answer all the same.
    refused: bool,
}

#[derive(Debug)]
struct FileTail {
    file: Arc<SpoolFile>,
    position: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Sending {
    pub(super) fn new(outgoing: &Outgoing) -> Self {
        let mut sending =
            Self { first: outgoing.head.clone(), then: VecDeque::new(), file: None, begun: false, refused: false };
        match &outgoing.body {
            Spooled::Empty => {}
            Spooled::Memory(bytes) => {
                sending.frame(bytes.clone());
                sending.then.push_back(Bytes::from_static(&record::END_OF_STDIN));
            }
            Spooled::File(file) => {
                sending.file = Some(FileTail { file: Arc::clone(file), position: 0, reading: None });
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
    pub(super) fn is_done(&self) -> bool {
        !self.refused && self.first.is_empty() && self.then.is_empty() && self.file.is_none()
    }

    /// Whether not one byte was taken: PHP cannot have heard of the request.
    pub(super) fn was_refused_whole(&self) -> bool {
        self.refused && !self.begun
    }

    /// Writes as much as is taken. Fails only when the body cannot be read from disk.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
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
                Ok(written) if written > 0 => {
                    self.begun = true;
                    self.advance(written);
                }
                _ => {
                    let begun = self.begun;
                    *self = Self { first: Bytes::new(), then: VecDeque::new(), file: None, begun, refused: true };
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
