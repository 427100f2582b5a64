//! WeChat's login: a mini-program's one-time `code` is exchanged for who the user is.
//!
//! Never logs the code, the secret or the `session_key` that comes back.

use std::env;
use std::time::Duration;

use serde::Deserialize;

use crate::api::{Error, refuse};

#[derive(Clone)]
pub(crate) struct Wechat {
    client: reqwest::Client,
    base: Option<String>,
    app_id: String,
    secret: String,
}

/// WeChat answers 200 even when it refuses: `errcode` is what counts, absent or 0 when all is well.
#[derive(Deserialize)]
struct Exchanged {
    #[serde(default)]
    errcode: i64,
    openid: Option<String>,
}

impl Wechat {
    pub(crate) fn from_env() -> Result<Self, reqwest::Error> {
        let read = |name| env::var(name).unwrap_or_default();
        Ok(Self {
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(5))
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            base: Some(read("WECHAT_API_BASE")).filter(|base| !base.is_empty()),
            app_id: read("WECHAT_APP_ID"),
            secret: read("WECHAT_APP_SECRET"),
        })
    }

    pub(crate) async fn openid(&self, code: &str) -> Result<String, Error> {
        let Some(base) = &self.base else { return Err(refuse(50310, "wechat login is not configured")) };
        let unavailable = || refuse(50311, "wechat is unavailable");
        let exchanged = self.exchange(base, code).await.map_err(|error| {
            tracing::warn!(cause = %error.without_url(), "wechat did not answer");
            unavailable()
        })?;
        match exchanged.errcode {
            0 => exchanged.openid.ok_or_else(unavailable),
            40029 | 40163 => Err(refuse(40112, "wechat code is not valid")),
            40226 => Err(refuse(40310, "wechat refuses this user")),
            _ => Err(unavailable()),
        }
    }

    async fn exchange(&self, base: &str, code: &str) -> Result<Exchanged, reqwest::Error> {
        let query = [
            ("appid", self.app_id.as_str()),
            ("secret", &self.secret),
            ("js_code", code),
            ("grant_type", "authorization_code"),
        ];
        self.client.get(format!("{base}/sns/jscode2session")).query(&query).send().await?.json().await
    }
}
