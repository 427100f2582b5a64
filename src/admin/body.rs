//! The bodies of answers, handed to the connection a piece at a time.
//!
//! Written with one call, the megabytes of a long answer keep their processor in the kernel for longer than a worker
//! may be kept waiting for it: between two pieces it is offered to whoever waits. This file does not know what it holds.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes of a whole answer that are written with one call: some ten microseconds.
const PIECE: usize = 64 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// What is left of an answer that was complete at once.
    Whole(Bytes),
    /// Events, as they come.
    Events(mpsc::Receiver<Bytes>),
    /// An answer that is written while it is read.
    Written(Written),
}

/// Who writes, and the pieces that come of it. If writing panics, so does who reads: an answer that breaks off is never
/// ended as a complete one is.
pub(super) struct Written {
    writing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    written: mpsc::Receiver<Bytes>,
    /// What was written last and is not read yet.
    rest: Bytes,
}

impl Body {
    pub(super) fn whole(answer: impl Into<Bytes>) -> Self {
        Self::Whole(answer.into())
    }

    /// What `write` hands over, however much at a time; it goes on as that is read, and is dropped with the body.
    pub(super) fn written<W>(write: impl FnOnce(mpsc::Sender<Bytes>) -> W) -> Self
    where
        W: Future<Output = ()> + 'static,
    {
        let (sender, written) = mpsc::channel(1);
        Self::Written(Written { writing: Some(Box::pin(write(sender))), written, rest: Bytes::new() })
    }
}

impl Written {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.rest.is_empty() {
            if let Some(writing) = &mut self.writing
                && writing.as_mut().poll(cx).is_ready()
            {
                self.writing = None;
            }
            match ready!(self.written.poll_recv(cx)) {
                Some(written) => self.rest = written,
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(next_of(&mut self.rest))
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("ended", &self.writing.is_none()).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Whole(rest) => Poll::Ready(next_of(rest)),
            Self::Events(events) => events.poll_recv(cx),
            Self::Written(written) => written.poll_piece(cx),
        };
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Self::Events(_) | Self::Written(_) => SizeHint::default(),
        }
    }
}

fn next_of(rest: &mut Bytes) -> Option<Bytes> {
    if rest.is_empty() {
        return None;
    }
    let piece = rest.split_to(rest.len().min(PIECE));
    if !rest.is_empty() {
        std::thread::yield_now();
    }
    Some(piece)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_long_comes_in_pieces_and_is_whole() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let whole: Bytes = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let mut body = Body::whole(whole.clone());
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(length as u64), length == 0));
            let mut told = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!((1..=PIECE).contains(&piece.len()));
                told.extend_from_slice(&piece);
            }
            assert!(body.is_end_stream() && told == whole);
        }
    }

    #[tokio::test]
    async fn what_is_written_all_at_once_comes_in_pieces_too() {
        let long = Bytes::from(vec![7; 2 * PIECE + 1]);
        let written = long.clone();
        let mut body = Body::written(async move |reader| {
            for part in [Bytes::new(), written, Bytes::new(), Bytes::from_static(b"end")] {
                reader.send(part).await.unwrap();
            }
        });
        let mut lengths = Vec::new();
        while let Some(frame) = body.frame().await {
            lengths.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [PIECE, PIECE, 1, 3]);
    }

    #[tokio::test]
    async fn what_is_written_while_it_is_read_is_never_far_ahead_of_its_reader() {
        let written = std::rc::Rc::new(std::cell::Cell::new(0_u8));
        let count = std::rc::Rc::clone(&written);
        let mut body = Body::written(|reader| async move {
            for n in 0..100 {
                count.set(n);
                let _ = reader.send(Bytes::copy_from_slice(&[n])).await;
                tokio::task::yield_now().await;
            }
        });
        for n in 0..100 {
            assert!(written.get() <= n + 1, "{} pieces were written and {n} read", written.get());
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), [n].as_slice());
        }
        assert!(body.frame().await.is_none() && body.frame().now_or_never().unwrap().is_none());
    }

    #[tokio::test]
    #[should_panic(expected = "no metric has this name")]
    async fn an_answer_whose_writing_breaks_off_does_not_end_as_a_complete_one() {
        let body = Body::written(|reader| async move {
            let _ = reader.send(Bytes::from_static(b"half")).await;
            panic!("no metric has this name");
        });
        let _ = body.collect().await;
    }
}
