//! Checks at the edge: may this request pass, and who is it?
//!
//! A route names its checks; they run in order, once per request, before a side is chosen, so that
//! PHP and Rust never disagree about a caller. A [`Check`] is given a [`Subject`], what there is to
//! know of a request, and gives back a [`Verdict`]. It may wait for a store, never without a
//! deadline; it knows neither routes nor sides, and nothing it says reaches a client but through
//! one of the gateway's own answers: why a request was refused is for the log alone.

mod address;
mod identity;
pub(crate) mod session;

use ::http::{HeaderValue, request};
use tokio::time::Instant;

pub(crate) use self::address::Address;
pub use self::identity::Identity;
use crate::http::{Answer, CanonicalPath, Client, Host, RequestBody};

/// What a check sees of a request.
#[derive(Debug)]
pub(crate) struct Subject<'r> {
    /// The head, cleaned of what a client may not say; the target is the raw one.
    pub(crate) head: &'r request::Parts,
    pub(crate) host: &'r Host,
    pub(crate) path: &'r CanonicalPath,
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

    /// Says whether the request may pass.
    pub(crate) async fn examine(&self, subject: &mut Subject<'_>) -> Verdict {
        match &self.kind {
            Kind::Address(address) => address.examine(subject.client.ip),
        }
    }
}

impl Kind {
    /// The word in routes.toml.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
        }
    }
}
