//! Login for WeChat's mini programs: a one-time code becomes a session that both sides know.
//!
//! [`Service`] is the built-in handler `wechat-login`. `POST {"code": …}` has WeChat say who the user
//! is and begins a session in the store of a session check, in the format that PHP reads; the client
//! gets an opaque token, the store its hash. `DELETE` with the token ends the session. Whoever logs
//! in while still logged in has the former session ended. The code, the secret and the `session_key`
//! are neither logged nor handed on.
//!
//! A login's session dies unused after `idle`, and however much it is used after `lifetime`: its
//! time in the store is `idle`, and the check that reads it extends that ([`Sliding`]).

mod data;
mod exchange;
mod flights;
mod login;
mod session_key;
mod sliding;
mod token;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, request};
use axum::body::Body;
use http_body_util::LengthLimitError;

pub use self::data::{DecryptError, check_signature, decrypt, session_key_signature};
pub(crate) use self::exchange::Api;
use self::exchange::Denied;
use self::flights::{Boarding, Flights};
pub use self::login::Login;
pub use self::session_key::{Client, SessionKeyError};
pub(crate) use self::sliding::Sliding;
pub(crate) use self::token::{id_of, is_id};
use super::clock;
use super::fetch::Fetcher;
use crate::http::request_id::X_REQUEST_ID;
use crate::http::{Answer, BoxError};

/// Most bytes of a login's body: it holds a code.
const LARGEST: usize = 4 << 10;
const METHODS: HeaderValue = HeaderValue::from_static("POST, DELETE");

/// Where the sessions of logins are kept.
pub(crate) trait Sessions: Send + Sync + 'static {
    /// The id of the session whose token a request carries, where it carries one. It may be a session of PHP's.
    fn presented(&self, headers: &HeaderMap) -> Option<String>;

    /// Begins the session of a user under an id that nobody has yet.
    fn begin(&self, id: &str, user: &str, login: &Login, ttl: Duration) -> impl Future<Output = Result<(), BoxError>>;

    /// Ends a session: from now on nobody is let in with it.
    fn end(&self, id: &str) -> impl Future<Output = Result<(), BoxError>>;
}

/// Which of WeChat's names for a user is the user's id here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Openid,
    Unionid,
}

/// What routes.toml says of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) appid: String,
    pub(crate) secret: String,
    pub(crate) api: Api,
    pub(crate) connect: Duration,
    /// How long WeChat may take, connecting included.
    pub(crate) timeout: Duration,
    pub(crate) user: User,
    pub(crate) idle: Duration,
    pub(crate) lifetime: Duration,
}

/// The handler, one for all workers.
pub(crate) struct Service<S>(Arc<Inner<S>>);

struct Inner<S> {
    settings: Settings,
    sessions: S,
    fetcher: Fetcher,
    flights: Flights<Outcome>,
}

/// A token, or what the client is told instead.
type Outcome = Result<Arc<str>, Answer>;

impl<S: Sessions> Service<S> {
    /// # Errors
    /// This system trusts no certificates.
    pub(crate) fn new(settings: Settings, sessions: S) -> std::io::Result<Self> {
        let fetcher = Fetcher::new(settings.connect, settings.timeout)?;
        Ok(Self(Arc::new(Inner { settings, sessions, fetcher, flights: Flights::default() })))
    }
}

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Sessions> tower_service::Service<Request<Body>> for Service<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        // A task of its own: a client that leaves must not leave behind a code that is used up without a session, nor
        // a session without an end. It stays on its worker, as the stores do.
        let answered = tokio::task::spawn_local(async move { inner.answer(request).await });
        Box::pin(async move {
            Ok(answered.await.unwrap_or_else(|_panicked| render(Answer::HandlerPanicked, &HeaderMap::new())))
        })
    }
}

impl<S: Sessions> Inner<S> {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let answered = match head.method {
            Method::POST => self.log_in(&head, body).await,
            Method::DELETE => self.log_out(&head).await,
            _ => Err(Answer::MethodNotAllowed),
        };
        answered.unwrap_or_else(|answer| render(answer, &head.headers))
    }

    /// `POST`: a code for a token.
    async fn log_in(&self, head: &request::Parts, body: Body) -> Result<Response<Body>, Answer> {
        let former = self.sessions.presented(&head.headers).filter(|id| is_id(id));
        let code = code(body).await?;
        let token = match self.flights.board(&code, Instant::now()) {
            Boarding::Lead(flight) => {
                let outcome = self.begin(&code, request_id(&head.headers)).await;
                // Where WeChat did not say the last word, the code may still be good.
                let open = matches!(outcome, Err(Answer::LoginUnavailable | Answer::LoginMisconfigured));
                flight.land(outcome.clone(), (!open).then(Instant::now));
                outcome?
            }
            Boarding::Follow(mut answer) => match answer.wait_for(Option::is_some).await {
                Ok(answer) => answer.clone().unwrap_or(Err(Answer::LoginUnavailable))?,
                Err(_nobody) => return Err(Answer::LoginUnavailable),
            },
            Boarding::Spent => return Err(Answer::CodeRefused),
            Boarding::Full => return Err(Answer::LoginUnavailable),
        };
        if let Some(former) = former.filter(|former| id_of(&token).as_ref() != Some(former))
            && let Err(error) = self.sessions.end(&former).await
        {
            tracing::warn!(request_id = request_id(&head.headers), %error, "the former session of a login was not ended");
        }
        let expires_in = self.settings.idle.min(self.settings.lifetime).as_secs();
        Ok(granted(&format!(r#"{{"token":"{token}","expires_in":{expires_in}}}"#)))
    }

    /// Asks WeChat, and begins the session of whom it names.
    async fn begin(&self, code: &str, request_id: &str) -> Outcome {
        let Settings { appid, secret, api, .. } = &self.settings;
        let known = exchange::exchange(&self.fetcher, api, appid, secret, code).await;
        let known = known.map_err(|denied| denied.answer(request_id))?;
        let user = match self.settings.user {
            User::Openid => &known.openid,
            User::Unionid => known.unionid.as_ref().ok_or_else(|| {
                tracing::error!(
                    request_id,
                    "WeChat names no unionid: bind the mini program to an Open Platform account"
                );
                Answer::LoginMisconfigured
            })?,
        };
        let now = clock::now();
        let login = Login {
            appid: appid.as_str().into(),
            openid: known.openid.clone(),
            unionid: known.unionid.clone(),
            session_key: known.session_key.clone(),
            created: now,
            expires: now.saturating_add(self.settings.lifetime.as_secs()),
            idle: self.settings.idle.as_secs(),
        };
        let token = token::new().map_err(|error| {
            tracing::error!(request_id, %error, "no random bits for a token");
            Answer::Internal
        })?;
        let (Some(id), Some(ttl)) = (id_of(&token), login.left(now)) else { return Err(Answer::Internal) };
        self.sessions.begin(&id, user, &login, ttl).await.map_err(|error| {
            tracing::warn!(request_id, %error, "the session of a login was not kept");
            Answer::CheckUnavailable
        })?;
        Ok(token.into())
    }

    /// `DELETE`: the token is worth nothing any more.
    async fn log_out(&self, head: &request::Parts) -> Result<Response<Body>, Answer> {
        let id = self.sessions.presented(&head.headers).filter(|id| is_id(id)).ok_or(Answer::NotLoggedIn)?;
        self.sessions.end(&id).await.map_err(|error| {
            tracing::warn!(request_id = request_id(&head.headers), %error, "a session was not ended");
            Answer::CheckUnavailable
        })?;
        Ok(granted("null"))
    }
}

impl Denied {
    /// What the client is told; and the operator, where there is something to do or to know.
    fn answer(&self, request_id: &str) -> Answer {
        match self {
            Self::Code(_) => Answer::CodeRefused,
            Self::Risky(_) => Answer::LoginRefused,
            Self::Misconfigured(errcode) => {
                tracing::error!(request_id, errcode, "nobody can log in: {self}");
                Answer::LoginMisconfigured
            }
            Self::Busy(errcode) | Self::Refused(errcode) => {
                tracing::warn!(request_id, errcode, "{self}");
                Answer::LoginUnavailable
            }
            Self::Nonsense(_) => {
                tracing::warn!(request_id, "{self}");
                Answer::LoginUnavailable
            }
            Self::Silent(cause) => {
                tracing::warn!(request_id, %cause, "{self}");
                Answer::LoginUnavailable
            }
        }
    }
}

/// The code in a body `{"code": "…"}`.
async fn code(body: Body) -> Result<String, Answer> {
    let body = axum::body::to_bytes(body, LARGEST).await.map_err(|error| {
        let too_large = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
        if too_large { Answer::BodyTooLarge } else { Answer::BadBody }
    })?;
    let said: serde_json::Value = serde_json::from_slice(&body).map_err(|_| Answer::NoCode)?;
    let code = said.get("code").and_then(serde_json::Value::as_str).filter(|code| exchange::plausible(code));
    code.map(str::to_owned).ok_or(Answer::NoCode)
}

fn granted(data: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!(r#"{{"code":0,"message":"ok","data":{data}}}"#)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A refusal in the form of all the gateway's own answers.
fn render(answer: Answer, headers: &HeaderMap) -> Response<Body> {
    let mut response = answer.render(headers.get(ACCEPT), request_id(headers)).map(|body| match body {
        crate::http::Body::Full(bytes) => Body::from(bytes),
        crate::http::Body::Empty | crate::http::Body::Stream(_) => Body::empty(),
    });
    if answer == Answer::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, METHODS);
    }
    response
}

fn request_id(headers: &HeaderMap) -> &str {
    headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("appid", &self.appid).field("api", &self.api).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.0.settings).finish()
    }
}

#[cfg(test)]
mod tests;
