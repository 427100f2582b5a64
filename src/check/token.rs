//! Where a request carries the token that says who it is.
//!
//! The first place that has one decides, and the rules are PHP's, so that the gateway and the application
//! mean the same token: of cookies with one name the first counts, one that PHP would take for it makes all
//! of them doubtful, and a header sent twice is one value to PHP and so none that could be told apart. The
//! query is no place: it is logged everywhere. What a good token looks like is for those who ask to know.

use std::borrow::Cow;

use ::http::header::{AUTHORIZATION, COOKIE};
use ::http::{HeaderMap, HeaderName};

use crate::http::cookie::{self, Found};

/// One place of `token = ["header:authorization", "cookie:PHPSESSID"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header field; `Bearer ` before the token is no part of it.
    Header(HeaderName),
    /// A cookie of exactly this name.
    Cookie(Box<str>),
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// Nothing in any of the places.
    Missing,
    /// There is something that is no token, or that PHP would read in another way.
    Doubtful,
}

/// The token in the first of `places` that is not empty.
pub(crate) fn find<'h>(places: &[Place], headers: &'h HeaderMap) -> Result<Cow<'h, str>, NoToken> {
    for place in places {
        let token = place.look(headers)?;
        if !token.is_empty() {
            return Ok(token);
        }
    }
    Err(NoToken::Missing)
}

impl Place {
    /// The header field that it is in.
    pub(super) fn field(&self) -> HeaderName {
        match self {
            Self::Header(name) => name.clone(),
            Self::Cookie(_) => COOKIE,
        }
    }

    /// What is there, `Bearer ` apart; nothing is the empty token.
    fn look<'h>(&self, headers: &'h HeaderMap) -> Result<Cow<'h, str>, NoToken> {
        match self {
            Self::Header(name) => header(name, headers).map(Cow::Borrowed),
            Self::Cookie(name) => match cookie::find(headers, name) {
                Found::Nothing => Ok(Cow::Borrowed("")),
                Found::Alias => Err(NoToken::Doubtful),
                Found::Value(Cow::Borrowed(value)) => text(value).map(Cow::Borrowed),
                Found::Value(Cow::Owned(value)) => text(&value).map(|text| Cow::Owned(text.to_owned())),
            },
        }
    }
}

fn header<'h>(name: &HeaderName, headers: &'h HeaderMap) -> Result<&'h str, NoToken> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok("") };
    if lines.next().is_some() {
        return Err(NoToken::Doubtful);
    }
    let line = text(line.as_bytes())?.trim_ascii();
    let (scheme, token) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(token.trim_ascii_start());
    }
    match token {
        "" => Ok(line),
        // Credentials of another scheme are for somebody else.
        _ if *name == AUTHORIZATION => Ok(""),
        _ => Err(NoToken::Doubtful),
    }
}

fn text(bytes: &[u8]) -> Result<&str, NoToken> {
    std::str::from_utf8(bytes).map_err(|_| NoToken::Doubtful)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn found(lines: &[(&'static str, &'static str)]) -> Result<String, NoToken> {
        let places = [
            Place::Header(AUTHORIZATION),
            Place::Header(HeaderName::from_static("x-token")),
            Place::Cookie("PHPSESSID".into()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        find(&places, &headers).map(Cow::into_owned)
    }

    #[test]
    fn the_first_place_that_has_a_token_decides() {
        assert_eq!(found(&[("x-token", "b"), ("authorization", "Bearer a")]).unwrap(), "a");
        assert_eq!(found(&[("x-token", "b"), ("cookie", "PHPSESSID=c")]).unwrap(), "b");
        assert_eq!(found(&[("cookie", "a=1; PHPSESSID=c")]).unwrap(), "c");
        assert_eq!(found(&[("authorization", ""), ("x-token", "b")]).unwrap(), "b");
        assert_eq!(found(&[("authorization", "Bearer "), ("x-token", "b")]).unwrap(), "b");
        assert_eq!(found(&[("authorization", "Bearer"), ("x-token", "b")]).unwrap(), "b");
        assert_eq!(found(&[("cookie", "other=c")]), Err(NoToken::Missing));
        assert_eq!(found(&[]), Err(NoToken::Missing));
    }

    #[test]
    fn the_scheme_is_stripped_however_it_is_spelled_and_another_one_is_for_somebody_else() {
        assert_eq!(found(&[("authorization", "bEARER   a")]).unwrap(), "a");
        assert_eq!(found(&[("authorization", "Bearer\ta")]).unwrap(), "a");
        assert_eq!(found(&[("authorization", "Bearera")]).unwrap(), "Bearera");
        assert_eq!(found(&[("authorization", "Basic dTpw"), ("cookie", "PHPSESSID=c")]).unwrap(), "c");
        assert_eq!(found(&[("x-token", "Basic dTpw"), ("cookie", "PHPSESSID=c")]), Err(NoToken::Doubtful));
    }

    #[test]
    fn of_two_cookies_the_first_counts_and_of_two_header_lines_neither() {
        assert_eq!(found(&[("cookie", "PHPSESSID=a; PHPSESSID=b"), ("cookie", "PHPSESSID=c")]).unwrap(), "a");
        assert_eq!(found(&[("cookie", "PHPSESSID=; PHPSESSID=c")]), Err(NoToken::Missing), "PHP sees the empty one");
        assert_eq!(found(&[("cookie", "phpsessid=a; PHPSESSIDX=b;PHPSESSID=c")]).unwrap(), "c");
        assert_eq!(found(&[("x-token", "a"), ("x-token", "b")]), Err(NoToken::Doubtful));
    }

    #[test]
    fn what_php_would_read_in_another_way_is_no_token() {
        assert_eq!(found(&[("cookie", "PHPSESSID=a%2Cb")]).unwrap(), "a,b");
        assert_eq!(found(&[("cookie", "PHPSESSID[0]=1; PHPSESSID=2")]), Err(NoToken::Doubtful));
        assert_eq!(found(&[("cookie", "PHPSESSID=%FF")]), Err(NoToken::Doubtful));
    }
}
