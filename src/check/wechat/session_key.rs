//! Asking WeChat whether a `session_key` is still the user's.

use std::time::Duration;

use ::http::StatusCode;
use serde_json::Value;

use super::data::session_key_signature;
use super::exchange::Api;
use super::login::Login;
use crate::check::fetch::{FetchError, Fetcher};
use crate::http::BoxError;

const CONNECT: Duration = Duration::from_secs(1);
const WHOLE: Duration = Duration::from_secs(3);

/// Questions that an application asks of WeChat about a [`Login`].
///
/// ```no_run
/// # async fn check(identity: strangler::Identity, access_token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let wechat = strangler::wechat::Client::new("https://api.weixin.qq.com")?;
/// if let Some(login) = identity.wechat() {
///     let still_good = wechat.check_session_key(access_token, login).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    api: Api,
    fetcher: Fetcher,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionKeyError {
    /// WeChat refuses to answer, with this `errcode`: 40001 and 42001 are an `access_token` that is over.
    #[error("WeChat refuses with {0}")]
    Refused(i64),
    /// It gave no answer, or one that is none.
    #[error("WeChat gives no answer")]
    Unavailable(#[source] BoxError),
}

impl From<FetchError> for SessionKeyError {
    fn from(error: FetchError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl Client {
    /// For the API at this base: `https://api.weixin.qq.com`, or a stand-in for it.
    ///
    /// # Errors
    /// The base is not the address of an API, or this system trusts no certificates.
    pub fn new(api: &str) -> std::io::Result<Self> {
        let api = Api::new(api).ok_or_else(|| std::io::Error::other("the base is no http:// or https:// address"))?;
        Ok(Self { api, fetcher: Fetcher::new(CONNECT, WHOLE)? })
    }

    /// Whether the `session_key` of this login is still the user's. A mini program that was told no has to call
    /// `wx.login()` and log in again.
    ///
    /// `access_token` is the application's own, from `/cgi-bin/stable_token`; the gateway has none.
    ///
    /// # Errors
    /// WeChat refuses to answer, or gives no answer.
    pub async fn check_session_key(&self, access_token: &str, login: &Login) -> Result<bool, SessionKeyError> {
        let signature = session_key_signature(&login.session_key, "");
        let query = [
            ("access_token", access_token),
            ("openid", &*login.openid),
            ("signature", &*signature),
            ("sig_method", "hmac_sha256"),
        ];
        let none = |what: &str| SessionKeyError::Unavailable(what.into());
        let uri = self.api.uri("/wxa/checksession", &query).ok_or_else(|| none("the address is too long"))?;
        let answer = self.fetcher.get(uri).await?;
        if answer.status != StatusCode::OK {
            return Err(none("its status is not 200"));
        }
        let said: Value = serde_json::from_slice(&answer.body).map_err(|_| none("its answer is not JSON"))?;
        match said.get("errcode").and_then(Value::as_i64) {
            Some(0) => Ok(true),
            Some(87009) => Ok(false),
            Some(errcode) => Err(SessionKeyError::Refused(errcode)),
            None => Err(none("its answer has no errcode")),
        }
    }
}
