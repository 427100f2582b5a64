//! What a request carries to say which session is its own.

use std::borrow::Cow;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, HeaderName};

use crate::http::cookie::{self, Found};

/// Where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenPlace {
    Header(HeaderName),
    Cookie(String),
}

/// What is there is no token, or PHP would see another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The first token that is there; an empty one is none.
pub(super) fn find<'h>(places: &[TokenPlace], headers: &'h HeaderMap) -> Result<Option<Cow<'h, str>>, Malformed> {
    for place in places {
        let token = match place {
            TokenPlace::Header(name) => header(name, headers)?.map(Cow::Borrowed),
            TokenPlace::Cookie(name) => match cookie::find(headers, name) {
                Found::Nothing => None,
                Found::Alias => return Err(Malformed),
                Found::Value(Cow::Borrowed(value)) => Some(Cow::Borrowed(text(value)?)),
                Found::Value(Cow::Owned(value)) => Some(Cow::Owned(text(&value)?.to_owned())),
            },
        };
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

/// PHP sees the lines of one header as one, which is no token.
fn header<'h>(name: &HeaderName, headers: &'h HeaderMap) -> Result<Option<&'h str>, Malformed> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Malformed);
    }
    let line = text(line.as_bytes())?.trim_matches([' ', '\t']);
    match line.split_once(' ') {
        None => Ok(Some(line)),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim_start_matches(' '))),
        // Credentials of another scheme are for somebody else.
        Some(_) if *name == AUTHORIZATION => Ok(None),
        Some(_) => Err(Malformed),
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// Whether PHP takes it for a session's id.
pub(super) fn is_id_of_php(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-');
    (1..=256).contains(&token.len()) && token.bytes().all(allowed)
}

/// Whether anybody might.
pub(super) fn is_token(token: &str) -> bool {
    (1..=512).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn found(lines: &[(&str, &str)]) -> Result<Option<String>, Malformed> {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let places = [
            TokenPlace::Header(AUTHORIZATION),
            TokenPlace::Header(HeaderName::from_static("x-token")),
            TokenPlace::Cookie("PHPSESSID".to_owned()),
        ];
        Ok(find(&places, &headers)?.map(Cow::into_owned))
    }

    #[test]
    fn the_first_token_that_is_there_counts() {
        let token = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[("cookie", "PHPSESSID=c"), ("x-token", "x"), ("authorization", "Bearer a")]), token("a"));
        assert_eq!(found(&[("authorization", "bearer  a")]), token("a"));
        assert_eq!(found(&[("authorization", "Basic dTpw"), ("cookie", "PHPSESSID=c")]), token("c"));
        assert_eq!(found(&[("x-token", ""), ("cookie", "PHPSESSID=c")]), token("c"));
        assert_eq!(found(&[("cookie", "PHPSESSID=; PHPSESSID=c")]), Ok(None), "PHP sees the empty one");
    }

    #[test]
    fn what_php_would_read_otherwise_is_no_token() {
        assert_eq!(found(&[("x-token", "a"), ("x-token", "b")]), Err(Malformed));
        assert_eq!(found(&[("x-token", "a b")]), Err(Malformed));
        assert_eq!(found(&[("cookie", "PHPSESSID[0]=1; PHPSESSID=2")]), Err(Malformed));
        assert!(is_id_of_php("aZ09,-") && !is_id_of_php("a_b") && !is_id_of_php("") && !is_id_of_php(&"a".repeat(257)));
        assert!(is_token("a_b/+=") && !is_token("a b") && !is_token("ü") && !is_token(&"a".repeat(513)));
    }
}
