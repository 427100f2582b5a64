//! A request becomes a response: over FastCGI, over HTTP, or in a Rust handler.
//!
//! This room knows neither routes nor telemetry. It is given an [`Inbound`] request and a
//! [`Timeline`] to fill in, and gives back a response or an [`Error`] that says what happened,
//! whose fault it was and what the client may be told.

pub(crate) mod fastcgi;
pub(crate) mod files;
pub(crate) mod handler;
pub(crate) mod http;
mod warnings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Response};
use tokio::time::Instant;

pub(crate) use self::handler::Handler;
use self::warnings::Warnings;
use crate::http::{Answer, Body, BodyFault, BoxError, CanonicalPath, Client, RequestBody, Timeline};
use crate::spool::Fault;

/// A request as a side is given it: checked, cleaned and with its one path.
///
/// In `head`, hop-by-hop fields and everything a client may not say have been removed, but for
/// `Upgrade` and `Connection: upgrade` of an upgrade request; `X-Request-Id` is set; the target is
/// the raw one. It goes boxed: half a kilobyte would be copied at every step of its way.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) head: ::http::request::Parts,
    pub(crate) body: RequestBody,
    pub(crate) path: CanonicalPath,
    pub(crate) client: Client,
    pub(crate) request_id: HeaderValue,
    /// When the answer's head must be here, whatever the side's own deadlines say.
    pub(crate) deadline: Instant,
}

/// Where a side's requests go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A PHP-FPM pool.
    Php(Arc<fastcgi::Php>),
    /// An HTTP service: one server or several.
    Http(Arc<http::Service>),
    /// A Rust handler inside the process.
    Handler(Arc<Handler>),
}

impl Target {
    /// Its name in routes.toml.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Php(php) => php.name(),
            Self::Http(service) => service.name(),
            Self::Handler(handler) => handler.name(),
        }
    }

    /// Other paths that it may take this one for.
    pub(crate) fn readings(&self, path: &str) -> Vec<String> {
        match self {
            Self::Php(php) => php.readings(path),
            Self::Http(_) | Self::Handler(_) => Vec::new(),
        }
    }

    /// Hands the request over and waits for the head of the answer.
    pub(crate) async fn call(&self, inbound: Box<Inbound>, timeline: &Timeline) -> Result<Response<Body>, Error> {
        match self {
            Self::Php(php) => php.call(inbound, timeline).await,
            Self::Http(service) => service.call(inbound, timeline).await,
            Self::Handler(handler) => handler.call(inbound, timeline).await,
        }
    }

    fn warnings(&self) -> &Warnings {
        match self {
            Self::Php(php) => php.warnings(),
            Self::Http(service) => service.warnings(),
            Self::Handler(handler) => handler.warnings(),
        }
    }

    /// Says why it gave no answer, with the whole chain of causes: loudly when it is to blame, but once a
    /// second for each reason; quietly when the client is.
    pub(crate) fn log(&self, error: &Error, request_id: &str) {
        let (upstream, causes) = (self.name(), Causes(error));
        match error.reason() {
            None => tracing::debug!(upstream, request_id, "{causes}"),
            Some(reason) => {
                if let Some(unsaid) = self.warnings().admit(reason) {
                    tracing::warn!(upstream, request_id, unsaid, "{causes}");
                }
            }
        }
    }
}

/// An error and what caused it, on one line.
struct Causes<'e>(&'e Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Why a side gave no answer. Which side it was, the exchange knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing of the request was sent.
    #[error("cannot connect to {address}")]
    Unreachable {
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// It failed for a whole `connect` deadline; only a probe goes there now.
    #[error("down since {since:?}; requests are refused until a probe succeeds")]
    Down { since: Duration },
    /// As many wait as may wait.
    #[error("{length} requests wait already")]
    QueueFull { length: usize },
    /// No place became free.
    #[error("no place became free within {waited:?}")]
    QueueTimeout { waited: Duration },
    /// The connection ended before the answer's head was complete. It may have acted.
    #[error("the connection ended before the answer's head was complete")]
    Broken {
        #[source]
        source: Option<BoxError>,
    },
    /// The reply breaks the protocol.
    #[error("invalid reply: {what}")]
    BadReply { what: &'static str },
    /// The head of the answer did not come.
    #[error("no answer within {waited:?}")]
    FirstByteTimeout { waited: Duration },
    /// The route's own deadline.
    #[error("not answered within the route's timeout of {timeout:?}")]
    DeadlinePassed { timeout: Duration },
    /// One parameter exceeds what a FastCGI record can carry.
    #[error("the parameter {name} has {length} bytes; a FastCGI record carries at most 65535")]
    HeaderTooLarge { name: String, length: usize },
    /// The request's body, not the side.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// No file, or one that is never served.
    #[error("no file is served for this path: {why}")]
    NoFile { why: &'static str },
    /// A file is asked for by a method that is not GET or HEAD.
    #[error("a file is served for GET and HEAD only")]
    FileMethod,
    /// A file could not be read.
    #[error("cannot read the file")]
    File(#[source] std::io::Error),
    /// A handler panicked.
    #[error("the handler panicked: {message}")]
    Panicked { message: String },
}

impl Error {
    /// What the client is told.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Unreachable { .. } => Answer::Unreachable,
            Self::Down { .. } => Answer::Down,
            Self::QueueFull { .. } => Answer::QueueFull,
            Self::QueueTimeout { .. } => Answer::QueueTimeout,
            Self::Broken { .. } => Answer::Broken,
            Self::BadReply { .. } => Answer::BadReply,
            Self::FirstByteTimeout { .. } => Answer::FirstByteTimeout,
            Self::DeadlinePassed { .. } => Answer::DeadlinePassed,
            Self::HeaderTooLarge { .. } => Answer::HeaderTooLarge,
            Self::Body(fault) => fault.answer(),
            Self::File(_) => Answer::Internal,
            Self::NoFile { .. } => Answer::NoFile,
            Self::FileMethod => Answer::FileMethodNotAllowed,
            Self::Panicked { .. } => Answer::HandlerPanicked,
        }
    }

    /// What the client is told in `Allow`, where the path is served for other methods.
    pub(crate) fn allow(&self) -> Option<HeaderValue> {
        matches!(self, Self::FileMethod).then(|| HeaderValue::from_static("GET, HEAD"))
    }

    /// The reason in `strangler_upstream_failures_total{upstream,reason}`; `None` when the side is not to blame.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("connect"),
            Self::Down { .. } => Some("down"),
            Self::QueueFull { .. } => Some("queue_full"),
            Self::QueueTimeout { .. } => Some("queue_timeout"),
            Self::Broken { .. } => Some("broken"),
            Self::BadReply { .. } => Some("bad_reply"),
            Self::FirstByteTimeout { .. } => Some("first_byte_timeout"),
            Self::DeadlinePassed { .. } => Some("deadline"),
            Self::Body(BodyFault::Spool(Fault::Full { .. } | Fault::Disk(_))) => Some("spool"),
            Self::File(_) => Some("file"),
            Self::Panicked { .. } => Some("panic"),
            Self::HeaderTooLarge { .. } | Self::Body(_) | Self::NoFile { .. } | Self::FileMethod => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_refusals_for_one_reason_are_a_line_or_two() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = std::sync::Mutex::new(file.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        let target = Target::Handler(Arc::new(Handler::new("users")));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100 {
                let source = std::io::ErrorKind::ConnectionRefused.into();
                target.log(&Error::Unreachable { address: "unix:/php".to_owned(), source }, &n.to_string());
            }
            target.log(&Error::BadReply { what: "no head" }, "101");
            target.log(&Error::NoFile { why: "absent" }, "102");
        });
        let log = std::fs::read_to_string(file.path()).unwrap();
        let said = log.matches("cannot connect to unix:/php: connection refused").count();
        assert!((1..=2).contains(&said), "{log}");
        assert!(log.contains("request_id=\"101\"") && !log.contains("request_id=\"102\""), "{log}");
    }
}
