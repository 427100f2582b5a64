//! Checks at the edge: may this request pass, and who is it?
//!
//! A route names its checks; they run in order, once per request, before a side is chosen, so that
//! PHP and Rust never disagree about a caller. A [`Check`] is given a [`Subject`], what there is to
//! know of a request, and gives back a [`Verdict`]. It may wait for a store or for an authority, never
//! without a deadline, and it knows neither routes nor upstreams. A client is told of a refusal by one of
//! the gateway's own answers, or in the words of the authority that was asked: why it was is for the log alone.

mod address;
pub(crate) mod clock;
pub(crate) mod fetch;
pub(crate) mod forward;
mod identity;
pub(crate) mod jwt;
mod recent;
pub(crate) mod session;
pub(crate) mod signature;
pub(crate) mod store;
mod tally;
pub(crate) mod token;
pub(crate) mod wechat;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, request};
use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use self::address::Address;
pub(crate) use self::forward::{Authority, Forward};
pub use self::identity::Identity;
pub(crate) use self::identity::field_header;
pub(crate) use self::jwt::Jwt;
pub(crate) use self::session::Session;
pub(crate) use self::signature::Signature;
pub(crate) use self::store::Store;
use crate::http::{Answer, BoxError, Client, Host, RequestBody};

/// What a check sees of a request.
#[derive(Debug)]
pub(crate) struct Subject<'r> {
    /// The head, cleaned of what a client may not say; the target is the raw one.
    pub(crate) head: &'r request::Parts,
    pub(crate) host: &'r Host,
    pub(crate) client: &'r Client,
    pub(crate) request_id: &'r HeaderValue,
    /// What a check reads of it must be put back: the side is given it whole.
    pub(crate) body: &'r mut RequestBody,
    /// When the route's time is over.
    pub(crate) deadline: Instant,
}

/// What a check says of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may pass; and who the caller is, where the check found out.
    Pass(Option<Identity>),
    /// It cannot be decided here: the legacy side is to decide for itself, as it did before there was a
    /// gateway. A route without one refuses.
    Legacy(Refused),
    /// It may not pass.
    Refuse(Refused),
    /// It may not pass, and the client is told so in the words of whom the check has asked.
    Answered { response: Box<Response<Bytes>>, reason: &'static str },
}

impl Verdict {
    /// What it is called where it is compared with that of the legacy side.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Refuse(_) | Self::Answered { .. } => "refuse",
            Self::Legacy(_) => "undecided",
        }
    }
}

/// A refusal: what the client is told, and what the operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) answer: Answer,
    /// The `reason` of `strangler_check_refused_total{route,check,reason}` and of the access log.
    pub(crate) reason: &'static str,
}

impl Refused {
    pub(crate) fn new(answer: Answer, reason: &'static str) -> Self {
        Self { answer, reason }
    }
}

/// A named condition that a request must meet.
#[derive(Debug)]
pub(crate) struct Check {
    name: Box<str>,
    kind: Kind,
}

/// What there is to check.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Where the client's address is.
    Address(Address),
    /// Whether the client is logged in.
    Session(Box<Session>),
    /// A signed token.
    Jwt(Jwt),
    /// What an authority says.
    Forward(Forward),
    /// Whether somebody who has a key signed the request.
    Signature(Box<Signature>),
}

impl Check {
    pub(crate) fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }

    /// Its name in routes.toml.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The check of sessions that it is, if it is one.
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.kind {
            Kind::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Where it keeps what must outlive a request, if it does.
    pub(crate) fn store(&self) -> Option<&Store> {
        match &self.kind {
            Kind::Session(session) => Some(session.store()),
            Kind::Signature(signature) => signature.store(),
            _ => None,
        }
    }

    /// The header fields that are this check's to set: what a client sends under these names is removed.
    pub(crate) fn owned(&self) -> &[HeaderName] {
        match &self.kind {
            Kind::Forward(forward) => &forward.settings().copy,
            _ => &[],
        }
    }

    /// Says whether the request may pass. `authority` is whom it may ask.
    pub(crate) async fn examine(&self, subject: &mut Subject<'_>, authority: Option<&dyn Authority>) -> Verdict {
        match &self.kind {
            Kind::Address(address) => address.examine(subject.client.ip),
            Kind::Session(session) => session.examine(&subject.head.headers).await,
            Kind::Jwt(jwt) => jwt.examine(subject).await,
            Kind::Forward(forward) => forward.examine(subject, authority).await,
            Kind::Signature(signature) => signature.examine(subject).await,
        }
    }
}

/// Logins begin and end sessions in the store of a session check. No other kind has any.
impl wechat::Sessions for Arc<Check> {
    fn presented(&self, headers: &HeaderMap) -> Option<String> {
        self.session().and_then(|session| session.presented(headers))
    }

    async fn begin(&self, id: &str, user: &str, login: &wechat::Login, ttl: Duration) -> Result<(), BoxError> {
        let session = self.session().ok_or("the check has no store")?;
        let format = session.settings().application.writes().ok_or("the check's sessions are not ours to begin")?;
        let data = login.write(format, &session.settings().user, user)?;
        Ok(session.store().write(&session.key(id), data.into(), ttl).await?)
    }

    async fn end(&self, id: &str) -> Result<(), BoxError> {
        let session = self.session().ok_or("the check has no store")?;
        Ok(session.end(id).await?)
    }
}

impl Kind {
    /// Whether a login can begin sessions here: it has to write what the application reads.
    pub(crate) fn has_sessions(&self) -> bool {
        matches!(self, Self::Session(session) if session.settings().application.writes().is_some())
    }

    /// The word in routes.toml.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Session(_) => "session",
            Self::Jwt(_) => "jwt",
            Self::Forward(_) => "forward",
            Self::Signature(_) => "signature",
        }
    }
}
