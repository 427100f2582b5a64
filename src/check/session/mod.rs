//! The check `session`: a login that the application keeps, read where it is kept.
//!
//! A token of the request names a session, a store holds it, a format tells the fields of it that
//! were asked for; one of them is the user, and without a user nobody is logged in. The edge never
//! lets in whom PHP would not: what cannot be read beyond doubt is left to PHP to decide. No
//! session of the application's is written for having been read, and no lock of PHP's is waited for.

mod cache;
pub mod format;
pub(crate) mod preset;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::LOCATION;
use ::http::{HeaderMap, HeaderName, Response, StatusCode};
use bytes::Bytes;

use self::cache::{Cache, Look};
use self::format::{FieldPath, Unreadable, Value, Wanted};
use self::preset::Application;
use super::identity::Untellable;
use super::store::{self, Store, StoreError};
use super::token::{self, NoToken, Place};
use super::wechat::{self, Login, Sliding};
use super::{Identity, Refused, Verdict, clock};
use crate::http::Answer;
use crate::http::cookie::{self, Found};

/// How long one who reads a session is waited for: a reading, and that a login is kept alive.
const PATIENCE: Duration = store::BUDGET.saturating_mul(2);

/// What routes.toml says of it, but for the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) token: Vec<Place>,
    /// What comes before the id in a store's key.
    pub(crate) prefix: String,
    pub(crate) application: Application,
    pub(crate) user: FieldPath,
    pub(crate) fields: Vec<(HeaderName, FieldPath)>,
    pub(crate) cache: Duration,
    pub(crate) on_store_down: OnStoreDown,
    /// Whether a request without a session is refused.
    pub(crate) required: bool,
    /// The share of requests, 0 to 1, on which PHP's own verdict is compared with this one.
    pub(crate) parity: f64,
    /// Where PHP sends who is not logged in.
    pub(crate) login: Option<String>,
}

/// What becomes of requests while the store is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStoreDown {
    /// They are refused.
    Deny,
    /// The legacy side decides; a route without one refuses.
    Legacy,
    /// They pass without an identity.
    Anonymous,
}

/// The check.
#[derive(Debug)]
pub(crate) struct Session {
    settings: Settings,
    /// The user first, then the fields in their order.
    wanted: Wanted,
    store: Arc<Store>,
    cache: Cache,
    /// When sessions that the gateway made itself were kept alive.
    sliding: Sliding,
}

/// Why there is no session to look for.
enum NoId {
    /// There is no token, or it names nothing: the application begins a new session.
    Nobody(&'static str),
    /// The application may see another token than is seen here.
    Ambiguous,
}

impl From<NoToken> for NoId {
    fn from(none: NoToken) -> Self {
        match none {
            NoToken::Missing => Self::Nobody("missing"),
            NoToken::Doubtful => Self::Ambiguous,
        }
    }
}

/// What a store's session says.
#[derive(Clone, Debug, PartialEq)]
enum Finding {
    /// Who is logged in.
    Known(Identity),
    /// Nobody is, and why.
    Nobody(&'static str),
    /// Only PHP can tell.
    Unclear,
}

impl Session {
    /// `None`: more fields than one reading can look for.
    pub(crate) fn new(settings: Settings, store: Store) -> Option<Self> {
        let paths = std::iter::once(&settings.user).chain(settings.fields.iter().map(|(_, path)| path));
        let wanted = Wanted::new(paths.cloned().collect())?;
        let cache = Cache::new(settings.cache);
        Some(Self { settings, wanted, store: Arc::new(store), cache, sliding: Sliding::default() })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How often a session was found in memory, and how often it had to be read.
    pub(crate) fn cache_totals(&self) -> (u64, u64) {
        self.cache.totals()
    }

    /// The key under which the store has the session of this id.
    pub(crate) fn key(&self, id: &str) -> String {
        [&*self.settings.prefix, self.settings.application.key(id)].concat()
    }

    /// The header fields in which a request can name a session.
    pub(crate) fn token_fields(&self) -> impl Iterator<Item = HeaderName> {
        self.settings.token.iter().map(Place::field)
    }

    /// The id of the session that a request names.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> Option<String> {
        self.id(headers).ok().map(Cow::into_owned)
    }

    /// Ends a session that a login began; from now on it is none, even if PHP brings it back.
    pub(super) async fn end(&self, id: &str) -> Result<(), StoreError> {
        let key = self.key(id);
        if self.store.may_revive()
            && let Some(stored) = self.store.read(&key).await?
            && let Some(left) = self.login(&stored).ok().flatten().and_then(|login| login.life(clock::now()))
        {
            self.store.write(&ended(&key), Bytes::from_static(b"1"), left).await?;
        }
        self.store.delete(&key).await?;
        self.forget(id);
        Ok(())
    }

    /// Nothing is remembered of a session from now on; the next request reads it anew.
    pub(crate) fn forget(&self, id: &str) {
        self.cache.end(id, Instant::now());
    }

    /// An answer is on its way: where it gives the session's cookie or takes it, the session that the request came
    /// with is another one now, and so is the one it leaves with.
    pub(crate) fn answered(&self, presented: Option<&str>, headers: &HeaderMap) {
        let cookies = self.settings.token.iter().filter_map(|place| match place {
            Place::Cookie(name) => Some(name),
            Place::Header(_) => None,
        });
        for value in cookies.flat_map(|name| cookie::set(headers, name)) {
            let given = std::str::from_utf8(&value).ok().and_then(|token| self.named(token.into()).ok());
            presented.into_iter().chain(given.as_deref()).for_each(|id| self.forget(id));
        }
    }

    /// Whether this request is one of those on which the two verdicts are compared.
    pub(crate) fn samples_parity(&self) -> bool {
        self.settings.parity > 0.0 && fastrand::f64() < self.settings.parity
    }

    /// Whether PHP's answer is that of somebody who is not logged in.
    pub(crate) fn is_turned_away<B>(&self, answer: &Response<B>) -> bool {
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            status if status.is_redirection() => {
                let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
                self.settings.login.as_deref().is_some_and(|login| leads_to(to, login))
            }
            _ => false,
        }
    }

    pub(super) async fn examine(&self, headers: &HeaderMap) -> Verdict {
        let found = match self.id(headers) {
            Ok(id) => self.look_up(&id).await,
            Err(NoId::Nobody(reason)) => Ok(Finding::Nobody(reason)),
            Err(NoId::Ambiguous) => return refused("malformed"),
        };
        match found {
            Ok(Finding::Known(identity)) => Verdict::Pass(Some(identity)),
            Ok(Finding::Nobody(_)) if !self.settings.required => Verdict::Pass(None),
            Ok(Finding::Nobody(_)) if self.may_be_remembered(headers) => {
                Verdict::Legacy(Refused::new(Answer::NotLoggedIn, "remembered"))
            }
            Ok(Finding::Nobody(reason)) => refused(reason),
            Ok(Finding::Unclear) => Verdict::Legacy(Refused::new(Answer::NotLoggedIn, "unreadable")),
            Err(StoreError::Unfit) => Verdict::Legacy(Refused::new(Answer::NotLoggedIn, "unreadable")),
            Err(StoreError::Down) => {
                let refused = Refused::new(Answer::CheckUnavailable, "store_down");
                match self.settings.on_store_down {
                    OnStoreDown::Deny => Verdict::Refuse(refused),
                    OnStoreDown::Legacy => Verdict::Legacy(refused),
                    OnStoreDown::Anonymous => Verdict::Pass(None),
                }
            }
        }
    }

    fn id<'h>(&self, headers: &'h HeaderMap) -> Result<Cow<'h, str>, NoId> {
        self.named(token::find(&self.settings.token, headers)?)
    }

    /// The id of the session that a token names.
    fn named<'t>(&self, token: Cow<'t, str>) -> Result<Cow<'t, str>, NoId> {
        // What a login was given is known to the store by its hash, and nobody may come with the hash itself.
        if let Some(id) = wechat::id_of(&token) {
            return Ok(Cow::Owned(id));
        }
        let id = self.settings.application.id(token).filter(|id| !wechat::is_id(id));
        id.ok_or(NoId::Nobody("malformed"))
    }

    /// Whether the application may log in by a cookie of its own whom no session knows.
    fn may_be_remembered(&self, headers: &HeaderMap) -> bool {
        let cookie = self.settings.application.remembering();
        cookie.is_some_and(|name| cookie::find(headers, name) != Found::Nothing)
    }

    async fn look_up(&self, id: &str) -> Result<Finding, StoreError> {
        loop {
            match self.cache.look(id, Instant::now()) {
                Look::Found(finding) => return Ok(finding),
                Look::Lead(flight) => {
                    let answer = self.find(id).await;
                    flight.land(answer.clone(), Instant::now());
                    return answer;
                }
                Look::Follow(mut answer) => {
                    let told = tokio::time::timeout(PATIENCE, answer.wait_for(Option::is_some));
                    match told.await.map(|told| told.ok().and_then(|answer| answer.clone())) {
                        Ok(Some(answer)) => return answer,
                        // Whoever read it is gone, with a client that had no patience: then somebody else does.
                        Ok(None) => {}
                        Err(_) => return self.find(id).await,
                    }
                }
                Look::Alone => return self.find(id).await,
            }
        }
    }

    /// What the store has of a session.
    async fn find(&self, id: &str) -> Result<Finding, StoreError> {
        Ok(match self.store.read(&self.key(id)).await? {
            Some(stored) if wechat::is_id(id) => self.read_login(id, &stored).await?,
            Some(stored) => self.read(id, &stored),
            None => Finding::Nobody("unknown"),
        })
    }

    /// What the session of a login says, which the gateway made and keeps alive itself.
    async fn read_login(&self, id: &str, stored: &Bytes) -> Result<Finding, StoreError> {
        let Ok(login) = self.login(stored) else { return Ok(Finding::Unclear) };
        let Some((login, ttl)) = login.and_then(|login| login.left(clock::now()).map(|ttl| (login, ttl))) else {
            return Ok(Finding::Nobody("expired"));
        };
        let key = self.key(id);
        if self.store.may_revive() && self.store.read(&ended(&key)).await?.is_some() {
            return Ok(Finding::Nobody("unknown"));
        }
        if self.sliding.due(id, ttl, Instant::now()) {
            // A session that could not be kept alive this time is still one.
            let _ = self.store.touch(&key, ttl).await;
        }
        Ok(match self.read(id, stored) {
            Finding::Known(identity) => Finding::Known(identity.known_at_wechat(login)),
            other => other,
        })
    }

    /// The login in a session, if there is one.
    fn login(&self, stored: &[u8]) -> Result<Option<Login>, Unreadable> {
        self.settings
            .application
            .writes()
            .map_or(Err(Unreadable("no login is written in this format")), |format| Login::read(format, stored))
    }

    /// What the bytes of a session say.
    fn read(&self, id: &str, stored: &Bytes) -> Finding {
        let application = &self.settings.application;
        match application.objection(id, stored, clock::now().cast_signed()) {
            Ok(None) => {}
            Ok(Some(reason)) => return Finding::Nobody(reason),
            Err(_) => return Finding::Unclear,
        }
        let Ok(found) = application.read(stored, &self.wanted) else { return Finding::Unclear };
        let user = match application.user(found.get(0)) {
            Ok(Some(user)) => user,
            Ok(None) => return Finding::Nobody("no_user"),
            Err(_) => return Finding::Unclear,
        };
        let mut fields = Vec::with_capacity(self.settings.fields.len());
        for ((header, _), value) in self.settings.fields.iter().zip(found.iter().skip(1)) {
            match value.map(told) {
                Some(Ok(Some(text))) => fields.push((header, text)),
                Some(Err(Untellable)) => return Finding::Unclear,
                Some(Ok(None)) | None => {}
            }
        }
        let told = fields.iter().map(|(header, text)| (*header, &**text));
        match Identity::new(Some(user.as_bytes()), Some(application.told(id).as_bytes()), told) {
            Ok(identity) => Finding::Known(identity),
            Err(_) => Finding::Unclear,
        }
    }
}

/// The key that tells that a session was ended; no session's id holds a colon.
fn ended(key: &str) -> String {
    format!("{key}:ended")
}

fn refused(reason: &'static str) -> Verdict {
    Verdict::Refuse(Refused::new(Answer::NotLoggedIn, reason))
}

/// Whether PHP takes it for a session's id.
fn is_id_of_php(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-');
    (1..=256).contains(&token.len()) && token.bytes().all(allowed)
}

/// Whether anybody might.
fn is_token(token: &str) -> bool {
    (1..=512).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a redirect leads to this path, on whatever host and with whatever query.
fn leads_to(location: &str, path: &str) -> bool {
    let after_host = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => location,
    };
    after_host.split(['?', '#']).next() == Some(path)
}

/// A field as a header has it: texts and numbers as they are, lists joined by commas; nothing for `null`.
///
/// A list with a comma in one of its texts is not told: it would look like another list.
fn told(value: &Value<'_>) -> Result<Option<Vec<u8>>, Untellable> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(truth) => {
            if *truth {
                b"1".to_vec()
            } else {
                Vec::new()
            }
        }
        Value::Int(number) => number.to_string().into_bytes(),
        Value::Float(number) => number.to_string().into_bytes(),
        Value::Text(text) => text.to_vec(),
        Value::List(values) => {
            let parts: Vec<Vec<u8>> =
                values.iter().filter_map(|value| told(value).transpose()).collect::<Result<_, _>>()?;
            if parts.iter().any(|part| part.contains(&b',')) {
                return Err(Untellable);
            }
            parts.join(&b',')
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_characters_that_its_keeper_takes() {
        assert!(is_id_of_php("aZ09,-") && !is_id_of_php("a_b") && !is_id_of_php("") && !is_id_of_php(&"a".repeat(257)));
        assert!(is_token("a_b/+=") && !is_token("a b") && !is_token("ü") && !is_token(&"a".repeat(513)));
    }

    #[test]
    fn a_redirect_to_the_login_page_is_known_on_any_host() {
        for location in ["/login", "/login?next=%2F", "https://shop.example/login", "http://a:8080/login#x"] {
            assert!(leads_to(location, "/login"), "{location}");
        }
        for location in ["/logins", "/", "", "https://login", "/a/login"] {
            assert!(!leads_to(location, "/login"), "{location}");
        }
    }

    #[test]
    fn fields_are_told_as_php_would_print_them() {
        let list = Value::List(vec![Value::Text(b"admin".into()), Value::Int(7), Value::Null]);
        assert_eq!(told(&list), Ok(Some(b"admin,7".to_vec())));
        assert_eq!((told(&Value::Bool(true)), told(&Value::Null)), (Ok(Some(b"1".to_vec())), Ok(None)));
        assert_eq!(told(&Value::List(vec![Value::Text(b"a,admin".into())])), Err(Untellable));
    }
}
