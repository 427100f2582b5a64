//! The check `forward`: somebody else decides, who is asked before the request goes on.
//!
//! The authority is an upstream of the file, HTTP or PHP. It is asked with a GET for a path of the check's
//! own that has the request's fields but no body, and `X-Forwarded-Method`, `-Uri` and `-Host` for what the
//! client wants. 2xx lets it pass, a redirect, 401 and 403 refuse it; anything else is no verdict. What it
//! decided is remembered for a moment by what names the caller, and for nobody who is not named.
//!
//! Who is asked comes with the question ([`Authority`]): this room knows no upstreams.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant as Moment};

use ::http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE,
    HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE,
    TRANSFER_ENCODING, UPGRADE,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use ring::digest::{Context, SHA256};
use thread_local::ThreadLocal;
use tokio::time::{Instant, timeout_at};

use super::recent::{Digest, Recent};
use super::token::Place;
use super::{Identity, Refused, Subject, Verdict};
use crate::http::cookie::{self, Found};
use crate::http::{Answer, Body, CanonicalPath, Client};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What describes a body that the authority is not sent, or would make it answer with less than its verdict.
const NOT_ASKED: [HeaderName; 15] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Most bytes of an authority's page that are passed on.
const LARGEST_ANSWER: usize = 64 << 10;
/// Most bytes of one that is remembered.
const LARGEST_REMEMBERED: usize = 4 << 10;
/// Verdicts that a worker remembers.
const REMEMBERED: usize = 1024;

/// What the authority is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) head: request::Parts,
    pub(crate) path: CanonicalPath,
    pub(crate) client: Client,
    pub(crate) request_id: HeaderValue,
    pub(crate) deadline: Instant,
}

/// Who can be asked. It answers the question itself, by its deadline: no check stands before it.
pub(crate) trait Authority {
    /// Its answer; `None`: there is none, and why is in the log.
    fn ask<'a>(&'a self, question: Question) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + 'a>>;
}

/// Who tells the client that it may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The authority, with its own page or redirect.
    Authority,
    /// The gateway, as for every other check.
    Gateway,
}

/// What becomes of requests while the authority gives no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDown {
    Deny,
    /// The legacy side decides for itself.
    Legacy,
}

/// A part of the request by which verdicts are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CacheBy {
    /// Names the caller: without any of these nothing is remembered.
    Caller(Place),
    Host,
    Method,
    /// Path and query.
    Uri,
}

/// `[check.NAME]` with `kind = "forward"`, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The name of the authority.
    pub(crate) upstream: String,
    /// What it is asked for.
    pub(crate) target: Uri,
    pub(crate) path: CanonicalPath,
    pub(crate) timeout: Duration,
    pub(crate) answer: Speaker,
    pub(crate) on_down: OnDown,
    /// Fields of its answer that the sides are told.
    pub(crate) copy: Vec<HeaderName>,
    /// The field of its answer that is the user's id.
    pub(crate) user: Option<HeaderName>,
    /// Zero: nothing is remembered.
    pub(crate) cache: Duration,
    pub(crate) cache_by: Vec<CacheBy>,
}

/// What the authority decided.
#[derive(Clone, Debug)]
enum Decided {
    Pass(Option<Identity>),
    /// In words of its own where it had any that could be had whole.
    Refuse(StatusCode, Option<Response<Bytes>>),
}

/// The check.
pub(crate) struct Forward {
    settings: Settings,
    remembered: ThreadLocal<RefCell<Recent<Decided>>>,
}

impl Forward {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, remembered: ThreadLocal::new() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn examine(&self, subject: &Subject<'_>, authority: Option<&dyn Authority>) -> Verdict {
        let name = self.name_of(subject);
        if let Some(decided) = name.and_then(|name| self.recall(&name)) {
            return self.verdict(decided);
        }
        let decided = match authority {
            Some(authority) => self.ask(subject, authority).await,
            None => None,
        };
        let Some(decided) = decided else {
            let refused = Refused::new(Answer::CheckUnavailable, "authority_down");
            return match self.settings.on_down {
                OnDown::Deny => Verdict::Refuse(refused),
                OnDown::Legacy => Verdict::Legacy(refused),
            };
        };
        if let Some(name) = name
            && decided.may_be_remembered()
        {
            self.remember(name, decided.clone());
        }
        self.verdict(decided)
    }

    async fn ask(&self, subject: &Subject<'_>, authority: &dyn Authority) -> Option<Decided> {
        let deadline = subject.deadline.min(Instant::now() + self.settings.timeout);
        let question = Question {
            head: self.head(subject),
            path: self.settings.path.clone(),
            client: subject.client.clone(),
            request_id: subject.request_id.clone(),
            deadline,
        };
        let response = authority.ask(question).await?;
        let status = response.status();
        match status.as_u16() {
            200..=299 => {
                let decided = Decided::Pass(self.identity(response.headers())?);
                // What is left unread would cost the connection it comes on.
                let _ = timeout_at(deadline, whole(response)).await;
                Some(decided)
            }
            301 | 302 | 303 | 307 | 308 | 401 | 403 => {
                let said = timeout_at(deadline, whole(response)).await.ok().flatten();
                Some(Decided::Refuse(status, said.map(|said| self.without_what_sides_are_told(said))))
            }
            other => {
                let upstream = &*self.settings.upstream;
                tracing::debug!(upstream, status = other, "what the authority answers is no verdict");
                None
            }
        }
    }

    /// A refusal as the client may see it.
    fn without_what_sides_are_told(&self, mut said: Response<Bytes>) -> Response<Bytes> {
        for name in self.settings.copy.iter().chain(&self.settings.user) {
            said.headers_mut().remove(name);
        }
        said
    }

    /// The head of the question.
    fn head(&self, subject: &Subject<'_>) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = Method::GET;
        head.uri = self.settings.target.clone();
        head.version = subject.head.version;
        head.headers = subject.head.headers.clone();
        for name in &NOT_ASKED {
            head.headers.remove(name);
        }
        let target = subject.head.uri.path_and_query().map_or("/", |target| target.as_str());
        let authority = subject.head.uri.authority().map(|authority| authority.as_str());
        let named = subject.head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = authority.or(named).unwrap_or_default();
        let told =
            [(X_FORWARDED_METHOD, subject.head.method.as_str()), (X_FORWARDED_URI, target), (X_FORWARDED_HOST, host)];
        for (name, text) in told {
            match HeaderValue::from_str(text) {
                Ok(value) => head.headers.insert(name, value),
                Err(_) => head.headers.remove(name),
            };
        }
        // A target of the absolute form has named the host in place of this field.
        if let Ok(value) = HeaderValue::from_str(host)
            && authority.is_some()
        {
            head.headers.insert(HOST, value);
        }
        head
    }

    /// Who the authority says it is. `None`: it says so in a way that nobody can be told.
    fn identity(&self, answered: &HeaderMap) -> Option<Option<Identity>> {
        let user = self.settings.user.as_ref().and_then(|name| answered.get(name));
        let copied: Vec<(&HeaderName, Vec<u8>)> = self
            .settings
            .copy
            .iter()
            .filter(|name| answered.contains_key(*name))
            .map(|name| {
                let lines: Vec<&[u8]> = answered.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                (name, lines.join(&b", "[..]))
            })
            .collect();
        if user.is_none() && copied.is_empty() {
            return Some(None);
        }
        let copied = copied.iter().map(|(name, value)| (*name, value.as_slice()));
        Identity::new(user.map(HeaderValue::as_bytes), None, copied).ok().map(Some)
    }

    fn verdict(&self, decided: Decided) -> Verdict {
        let (status, said) = match decided {
            Decided::Pass(identity) => return Verdict::Pass(identity),
            Decided::Refuse(status, said) => (status, said),
        };
        match (self.settings.answer, said) {
            (Speaker::Authority, Some(said)) => Verdict::Answered { response: Box::new(said), reason: "refused" },
            _ => {
                let answer = if status == StatusCode::FORBIDDEN { Answer::Forbidden } else { Answer::NotLoggedIn };
                Verdict::Refuse(Refused::new(answer, "refused"))
            }
        }
    }

    /// What the verdict is remembered by; `None`: it is not.
    fn name_of(&self, subject: &Subject<'_>) -> Option<Digest> {
        if self.settings.cache.is_zero() {
            return None;
        }
        let mut context = Context::new(&SHA256);
        let mut named = false;
        let mut add = |part: Option<&[u8]>| {
            // Absent is not empty, and no two lists of parts are alike once joined.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(part.unwrap_or_default());
        };
        for by in &self.settings.cache_by {
            match by {
                CacheBy::Caller(Place::Header(name)) => {
                    for line in subject.head.headers.get_all(name) {
                        named = true;
                        add(Some(line.as_bytes()));
                    }
                    add(None);
                }
                CacheBy::Caller(Place::Cookie(name)) => match cookie::find(&subject.head.headers, name) {
                    Found::Value(cookie) => {
                        named = true;
                        add(Some(&cookie));
                    }
                    Found::Nothing => add(None),
                    // The authority may go by another cookie than this one.
                    Found::Alias => return None,
                },
                CacheBy::Host => add(Some(subject.host.as_str().as_bytes())),
                CacheBy::Method => add(Some(subject.head.method.as_str().as_bytes())),
                CacheBy::Uri => add(subject.head.uri.path_and_query().map(|target| target.as_str().as_bytes())),
            }
        }
        named.then(|| context.finish().as_ref().try_into().unwrap_or_default())
    }

    fn recall(&self, name: &Digest) -> Option<Decided> {
        self.remembered.get()?.borrow_mut().get(name, Moment::now())
    }

    fn remember(&self, name: Digest, decided: Decided) {
        let remembered = self.remembered.get_or(|| RefCell::new(Recent::new(REMEMBERED)));
        remembered.borrow_mut().put(name, Moment::now() + self.settings.cache, decided);
    }
}

impl Decided {
    /// A page that sets a cookie is for one client at one moment.
    fn may_be_remembered(&self) -> bool {
        match self {
            Self::Pass(_) => true,
            Self::Refuse(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, said) => said
                .as_ref()
                .is_none_or(|said| !said.headers().contains_key(SET_COOKIE) && said.body().len() <= LARGEST_REMEMBERED),
            Self::Refuse(..) => false,
        }
    }
}

/// The answer with all of its body, if that is not too much.
async fn whole(response: Response<Body>) -> Option<Response<Bytes>> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await.ok()?;
    Some(Response::from_parts(head, body.to_bytes()))
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("settings", &self.settings).finish_non_exhaustive()
    }
}
