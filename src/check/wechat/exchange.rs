//! WeChat's side: a one-time `code` becomes who the user is, or a reason why not.
//!
//! The address of the question holds the secret and the code, its answer the `session_key`: none of
//! them is ever in an error or in the log. WeChat answers 200 even when it refuses, as `text/plain`:
//! `errcode` is what counts.

use ::http::{StatusCode, Uri};
use serde_json::Value;

use crate::check::fetch::{FetchError, Fetched, Fetcher};
use crate::http::urlencoded::{UNRESERVED, encoded};

/// Most bytes of a code; WeChat's have 32.
const LONGEST: usize = 256;

/// Who somebody is.
#[derive(PartialEq, Eq)]
pub(super) struct Known {
    pub(super) openid: Box<str>,
    pub(super) unionid: Option<Box<str>>,
    pub(super) session_key: Box<str>,
}

/// Why a code was not exchanged.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    /// Not one of this mini program's, used before, or too old.
    #[error("the code is not valid ({0})")]
    Code(i64),
    #[error("WeChat holds the user to be a risk ({0})")]
    Risky(i64),
    /// WeChat is busy, or asked too often.
    #[error("WeChat is busy ({0})")]
    Busy(i64),
    /// The operator's to mend.
    #[error("WeChat does not accept appid and secret ({0})")]
    Misconfigured(i64),
    /// A refusal that nobody knows.
    #[error("WeChat refuses with {0}")]
    Refused(i64),
    #[error("WeChat's answer is none: {0}")]
    Nonsense(&'static str),
    #[error("WeChat gives no answer")]
    Silent(#[from] FetchError),
}

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api(String);

impl Api {
    /// A base like `https://api.weixin.qq.com`, without a path's end. `None`: it is no such thing.
    pub(crate) fn new(base: &str) -> Option<Self> {
        let uri: Uri = base.parse().ok()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let plain = uri.query().is_none() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        (known && plain).then(|| Self(base.trim_end_matches('/').to_owned()))
    }

    /// Whether what is said there can be overheard on a network.
    pub(crate) fn is_open(&self) -> bool {
        let Ok(uri) = self.0.parse::<Uri>() else { return true };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        uri.scheme_str() != Some("https") && !here
    }

    /// The address of a question.
    pub(super) fn uri(&self, path: &str, query: &[(&str, &str)]) -> Option<Uri> {
        let mut uri = format!("{}{path}", self.0);
        for (at, (name, value)) in query.iter().enumerate() {
            uri.push(if at == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.extend(encoded(value.as_bytes(), UNRESERVED).map(char::from));
        }
        uri.parse().ok()
    }
}

/// Whether this can be a code.
pub(super) fn plausible(code: &str) -> bool {
    (1..=LONGEST).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Exchanges a code.
pub(super) async fn exchange(
    fetcher: &Fetcher,
    api: &Api,
    appid: &str,
    secret: &str,
    code: &str,
) -> Result<Known, Denied> {
    let query = [("appid", appid), ("secret", secret), ("js_code", code), ("grant_type", "authorization_code")];
    let uri = api.uri("/sns/jscode2session", &query).ok_or(Denied::Nonsense("its address is too long"))?;
    let Fetched { status, body } = fetcher.get(uri).await?;
    read(status, &body)
}

/// Reads what WeChat says to a code.
fn read(status: StatusCode, body: &[u8]) -> Result<Known, Denied> {
    if status != StatusCode::OK {
        return Err(Denied::Nonsense("its status is not 200"));
    }
    let said: Value = serde_json::from_slice(body).map_err(|_| Denied::Nonsense("it is not JSON"))?;
    let text = |name: &str| said.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Box::from);
    match said.get("errcode").and_then(Value::as_i64).unwrap_or(0) {
        0 => Ok(Known {
            openid: text("openid").ok_or(Denied::Nonsense("it names no openid"))?,
            unionid: text("unionid"),
            session_key: text("session_key").ok_or(Denied::Nonsense("it names no session_key"))?,
        }),
        code @ (40029 | 40163 | 41008) => Err(Denied::Code(code)),
        code @ 40226 => Err(Denied::Risky(code)),
        code @ (-1 | 45009 | 45011) => Err(Denied::Busy(code)),
        code @ (40010..=40019 | 40120..=40129 | 41002 | 41004) => Err(Denied::Misconfigured(code)),
        code => Err(Denied::Refused(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> Result<Known, Denied> {
        read(StatusCode::OK, body.as_bytes())
    }

    #[test]
    fn a_good_answer_says_who_the_user_is() {
        for errcode in ["", r#""errcode":0,"#] {
            let known = said(&format!(r#"{{{errcode}"openid":"o","session_key":"k","unionid":"u"}}"#)).ok().unwrap();
            assert_eq!((&*known.openid, &*known.session_key, known.unionid.as_deref()), ("o", "k", Some("u")));
        }
        assert_eq!(said(r#"{"openid":"o","session_key":"k","unionid":""}"#).ok().unwrap().unionid, None);
    }

    #[test]
    fn every_refusal_has_its_meaning() {
        let word = |errcode: i64| match said(&format!(r#"{{"errcode":{errcode},"errmsg":"…"}}"#)).err().unwrap() {
            Denied::Code(_) => "code",
            Denied::Risky(_) => "risky",
            Denied::Busy(_) => "busy",
            Denied::Misconfigured(_) => "misconfigured",
            Denied::Refused(_) => "refused",
            Denied::Nonsense(_) | Denied::Silent(_) => "nonsense",
        };
        assert_eq!([40029, 40163, 41008].map(word), ["code"; 3]);
        assert_eq!(word(40226), "risky");
        assert_eq!([-1, 45011].map(word), ["busy"; 2]);
        assert_eq!([40013, 40125, 41002, 41004].map(word), ["misconfigured"; 4]);
        assert_eq!(word(99999), "refused");
    }

    #[test]
    fn half_an_answer_is_none() {
        for body in ["", "[]", "{}", "{\"openid\":\"o\"}", "{\"openid\":1,\"session_key\":\"k\"}", "<html>"] {
            assert!(matches!(said(body), Err(Denied::Nonsense(_))), "{body}");
        }
        assert!(matches!(read(StatusCode::BAD_GATEWAY, b"{}"), Err(Denied::Nonsense(_))));
    }

    #[test]
    fn what_a_client_sends_stays_one_value_of_the_query() {
        let api = Api::new("https://api.weixin.qq.com/").unwrap();
        let uri = api.uri("/sns/jscode2session", &[("secret", "a+b/c="), ("js_code", "x&secret=y#%")]).unwrap();
        assert_eq!(
            uri,
            "https://api.weixin.qq.com/sns/jscode2session?secret=a%2Bb%2Fc%3D&js_code=x%26secret%3Dy%23%25"
        );
        assert!(plausible("0a1B2c") && !plausible("") && !plausible("a b") && !plausible(&"a".repeat(257)));
    }

    #[test]
    fn secrets_go_in_the_open_to_this_machine_only() {
        let open = |base: &str| Api::new(base).map(|api| api.is_open());
        for base in ["https://api.weixin.qq.com", "http://127.0.0.1:8080", "http://localhost:1/x", "http://[::1]:1"] {
            assert_eq!(open(base), Some(false), "{base}");
        }
        assert_eq!(open("http://api.weixin.qq.com"), Some(true));
        for base in ["api.weixin.qq.com", "ftp://a", "https://a?b", "https://u:p@a", "/x", ""] {
            assert_eq!(open(base), None, "{base}");
        }
    }
}
