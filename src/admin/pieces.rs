//! The body of an answer that is complete at once, handed to the connection a piece at a time.
//!
//! Written with one call, the ten megabytes of a large scrape keep their processor in the kernel for longer than a worker
//! may be kept waiting for it: between two pieces it is offered to whoever waits. This file does not know what it holds.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes that are written with one call: some ten microseconds.
const PIECE: usize = 64 << 10;

/// What is left of the answer.
#[derive(Debug)]
pub(super) struct Pieces(Bytes);

impl Pieces {
    pub(super) fn of(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.0.len().min(PIECE);
        let piece = self.0.split_to(length);
        if !self.0.is_empty() {
            std::thread::yield_now();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_long_comes_in_pieces_and_is_whole() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let whole: Bytes = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let mut body = Pieces::of(whole.clone());
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
}
