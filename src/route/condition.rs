//! The further conditions of a route (`when`): a header, a query parameter or a cookie with one value.
//!
//! A name that is there several times has the value that PHP would see: the last of a query's
//! parameters, the first of the cookies, and of a header none, since PHP sees all lines as one. So a
//! request has at most one value for a name, and two conditions on one name exclude each other.

use std::fmt;

use ::http::header::COOKIE;
use ::http::{HeaderMap, HeaderName};

use crate::http::urlencoded::{Plus, decoded};

/// One further condition of a route (`when`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The header is there with exactly this value.
    Header { name: HeaderName, value: String },
    /// The query has this parameter with exactly this value, both decoded.
    Query { name: String, value: String },
    /// The cookie is there with exactly this value, decoded.
    Cookie { name: String, value: String },
}

impl Condition {
    /// Whether a request meets it.
    pub(crate) fn holds(&self, query: Option<&str>, headers: &HeaderMap) -> bool {
        match self {
            Self::Header { name, value } => {
                let mut lines = headers.get_all(name).iter();
                lines.next().is_some_and(|line| line.as_bytes() == value.as_bytes()) && lines.next().is_none()
            }
            Self::Query { name, value } => query
                .unwrap_or_default()
                .split('&')
                .rev()
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(|(sent, _)| decoded(sent.as_bytes(), Plus::IsSpace).eq(name.bytes()))
                .is_some_and(|(_, sent)| decoded(sent.as_bytes(), Plus::IsSpace).eq(value.bytes())),
            Self::Cookie { name, value } => headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|line| line.to_str().ok())
                .flat_map(|line| line.split(';'))
                .filter_map(|pair| pair.trim_start().split_once('='))
                .find(|(sent, _)| sent == name)
                .is_some_and(|(_, sent)| decoded(sent.as_bytes(), Plus::IsPlus).eq(value.bytes())),
        }
    }

    /// Whether no request can meet both: they ask one name for two values.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name, value }, Self::Header { name: other, value: unlike }) => {
                name == other && value != unlike
            }
            (Self::Query { name, value }, Self::Query { name: other, value: unlike })
            | (Self::Cookie { name, value }, Self::Cookie { name: other, value: unlike }) => {
                name == other && value != unlike
            }
            _ => false,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, value } => write!(f, "header {name} = {value:?}"),
            Self::Query { name, value } => write!(f, "query {name} = {value:?}"),
            Self::Cookie { name, value } => write!(f, "cookie {name} = {value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn header(name: &'static str, value: &str) -> Condition {
        Condition::Header { name: HeaderName::from_static(name), value: value.to_owned() }
    }

    fn query(name: &str, value: &str) -> Condition {
        Condition::Query { name: name.to_owned(), value: value.to_owned() }
    }

    fn cookie(name: &str, value: &str) -> Condition {
        Condition::Cookie { name: name.to_owned(), value: value.to_owned() }
    }

    fn sent(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_header_is_compared_whole_and_must_be_there_once() {
        let condition = header("accept", "text/html");
        assert!(condition.holds(None, &sent(&[("accept", "text/html")])));
        assert!(!condition.holds(None, &sent(&[("accept", "text/html, */*")])));
        assert!(!condition.holds(None, &sent(&[("accept", "text/html"), ("accept", "text/html")])));
        assert!(!condition.holds(None, &sent(&[])));
    }

    #[test]
    fn the_last_of_a_querys_parameters_counts_decoded() {
        let holds = |text| query("v", "a b").holds(Some(text), &HeaderMap::new());
        assert!(holds("v=a+b"));
        assert!(holds("x=1&%76=a%20b"));
        assert!(holds("v=1&v=a+b"));
        assert!(!holds("v=a+b&v=1"));
        assert!(!holds("v"));
        assert!(query("v", "").holds(Some("v"), &HeaderMap::new()));
        assert!(query("v", "%+%4%zz").holds(Some("v=%%2B%4%zz"), &HeaderMap::new()));
        assert!(!query("v", "").holds(None, &HeaderMap::new()));
    }

    #[test]
    fn the_first_of_the_cookies_counts() {
        let holds = |lines: &[(&'static str, &'static str)]| cookie("beta", "on").holds(None, &sent(lines));
        assert!(holds(&[("cookie", "a=1; beta=on")]));
        assert!(holds(&[("cookie", "a=1"), ("cookie", "beta=on;beta=off")]));
        assert!(!holds(&[("cookie", "beta=off; beta=on")]));
        assert!(!holds(&[("cookie", "xbeta=on; Beta=on")]));
        assert!(cookie("c", "a+b c").holds(None, &sent(&[("cookie", "c=a+b%20c")])));
    }

    #[test]
    fn two_values_for_one_name_exclude_each_other() {
        assert!(header("accept", "a").excludes(&header("accept", "b")));
        assert!(!header("accept", "a").excludes(&header("accept", "a")));
        assert!(!header("accept", "a").excludes(&header("x-a", "b")));
        assert!(query("v", "1").excludes(&query("v", "2")));
        assert!(!query("v", "1").excludes(&cookie("v", "2")));
    }
}
