//! A server's reply on its way to the client.
//!
//! The head is cleaned of what concerned the connection to the server alone. A body that is here
//! already goes out whole and its connection is free at once; any other is read as the client takes
//! it, with a bound on the server's silence. A body that breaks off is an error, never an end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, TRAILER};
use ::http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::connection::{Connection, Progress};
use super::pool::{InFlight, Pool};
use crate::http::headers::strip_hop_by_hop;
use crate::http::{Body, BoxError};
use crate::upstream::Error;

/// Why a reply's body ended before its end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the server sent nothing of its reply's body for {gap:?}")]
    Silent { gap: Duration },
    #[error("the server's reply broke off")]
    Broken(#[source] hyper::Error),
}

/// Makes the client's response of a reply whose head has come at `now`.
pub(super) async fn receive(
    pool: &Arc<Pool>,
    place: InFlight<&Pool>,
    mut connection: Box<Connection>,
    reply: Response<Incoming>,
    now: Instant,
    upload: &Progress,
    between_bytes: Duration,
) -> Result<Response<Body>, Error> {
    let (mut head, mut incoming) = reply.into_parts();
    let length = incoming.size_hint().exact();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::BadReply { what: "101 that nobody asked for" });
    }
    clean(&mut head.headers, length)?;
    head.version = Version::HTTP_11;
    let body = if upload.unfinished() {
        // An early reply. The rest of the request still has to go out, even if the client does not
        // take the reply meanwhile; afterwards nobody could say what the server has made of it, so
        // the connection ends with the reply.
        let driven =
            Link::Early { driven: Driven(tokio::task::spawn_local(connection.run())), place: place.keep(pool) };
        Body::stream(Reply::new(incoming, driven, VecDeque::new(), length, between_bytes))
    } else {
        match look(&mut connection, &mut incoming).await {
            Look::Whole(bytes) => {
                pool.put(place.server, connection, now);
                Body::from(bytes)
            }
            Look::Part(ahead) => {
                let link = Link::Own(connection, place.keep(pool));
                Body::stream(Reply::new(incoming, link, ahead, length, between_bytes))
            }
            Look::Broken(error) => return Err(Error::Broken { source: Some(error.into()) }),
        }
    };
    Ok(Response::from_parts(head, body))
}

/// What of a body is here without waiting.
enum Look {
    Whole(Bytes),
    Part(VecDeque<Frame<Bytes>>),
    Broken(hyper::Error),
}

/// Looks twice: the first frame may be all, but of a chunked body only the second look tells.
async fn look(connection: &mut Connection, incoming: &mut Incoming) -> Look {
    poll_fn(|cx| {
        let mut next =
            || if incoming.is_end_stream() { Poll::Ready(None) } else { connection.poll_frame(incoming, cx) };
        let first = match next() {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Look::Broken(error)),
            Poll::Ready(None) => return Poll::Ready(Look::Whole(Bytes::new())),
            Poll::Pending => return Poll::Ready(Look::Part(VecDeque::new())),
        };
        Poll::Ready(match next() {
            Poll::Ready(Some(Ok(second))) => Look::Part(VecDeque::from([first, second])),
            Poll::Ready(Some(Err(error))) => Look::Broken(error),
            Poll::Ready(None) => match first.into_data() {
                Ok(bytes) => Look::Whole(bytes),
                Err(trailers) => Look::Part(VecDeque::from([trailers])),
            },
            Poll::Pending => Look::Part(VecDeque::from([first])),
        })
    })
    .await
}

/// Removes from a reply's head what concerned one connection, and settles how long its body is.
fn clean(headers: &mut HeaderMap, length: Option<u64>) -> Result<(), Error> {
    let (mut codings, mut chunked, mut lengths, mut plain, mut trailers) = (0, true, 0, true, Vec::new());
    // One look at all fields is cheaper than one search for each that might be there.
    for (name, value) in &*headers {
        match name.as_str() {
            "transfer-encoding" => {
                codings += 1;
                chunked &= value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            "content-length" => {
                lengths += 1;
                plain &= value.as_bytes().iter().all(u8::is_ascii_digit);
            }
            "trailer" => trailers.push(value.clone()),
            _ => {}
        }
    }
    match (codings, length) {
        (0, Some(length)) if lengths > 1 || !plain => {
            // The same length said twice is one length; different ones hyper has refused.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        (0, _) => {}
        // hyper undoes `chunked` alone: a body coded twice would reach the client still coded, its coding unsaid.
        (1, _) if chunked => drop(headers.remove(CONTENT_LENGTH)),
        _ => return Err(Error::BadReply { what: "a transfer coding other than chunked" }),
    }
    strip_hop_by_hop(headers);
    // `Trailer` goes on: without it no trailer is sent to the client.
    for names in trailers {
        headers.append(TRAILER, names);
    }
    Ok(())
}

/// A body that is still coming.
struct Reply {
    incoming: Incoming,
    link: Option<Link>,
    /// Frames that came together with the head.
    ahead: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
    between_bytes: Duration,
    // Made when the server first keeps us waiting, then reused; counts only while `silent`.
    timer: Option<Pin<Box<Sleep>>>,
    silent: bool,
}

/// What a reply is read over, and the load it is.
enum Link {
    /// The connection, free for the next request afterwards.
    Own(Box<Connection>, InFlight<Arc<Pool>>),
    /// A connection that is driven elsewhere and closed afterwards.
    Early {
        #[expect(dead_code, reason = "its connection ends with it")]
        driven: Driven,
        #[expect(dead_code, reason = "counted as load until dropped")]
        place: InFlight<Arc<Pool>>,
    },
}

/// A connection's task; ends with the reply.
struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reply {
    fn new(
        incoming: Incoming,
        link: Link,
        ahead: VecDeque<Frame<Bytes>>,
        length: Option<u64>,
        between_bytes: Duration,
    ) -> Self {
        Self { incoming, link: Some(link), ahead, length, between_bytes, timer: None, silent: false }
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = match &mut self.link {
            None => return Poll::Ready(None),
            Some(Link::Own(connection, _)) => connection.poll_frame(&mut self.incoming, cx),
            Some(Link::Early { .. }) => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        if frame.is_pending() {
            ready!(self.poll_silence(cx));
            return Poll::Ready(Some(Err(Fault::Silent { gap: self.between_bytes })));
        }
        self.silent = false;
        frame.map(|frame| frame.map(|frame| frame.map_err(Fault::Broken)))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = || Instant::now() + self.between_bytes;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until())));
        if !self.silent {
            timer.as_mut().reset(until());
            self.silent = true;
        }
        timer.as_mut().poll(cx)
    }

    /// The body is here to its end: the connection is free.
    fn finish(&mut self) {
        if let Some(Link::Own(connection, place)) = self.link.take() {
            place.pool().put(place.server, connection, Instant::now());
        }
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match this.ahead.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(this.poll_server(cx)),
        };
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.length = this.length.map(|left| left.saturating_sub(sent));
                // Whoever was told the length asks no more after the last byte.
                if this.incoming.is_end_stream() && this.ahead.is_empty() {
                    this.finish();
                }
            }
            Some(Err(_)) => drop(this.link.take()),
            None => this.finish(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.link.is_none() || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
