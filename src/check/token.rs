//! Where a request carries the token that says who it is.
//!
//! The first place that has one decides, and the rules are PHP's, so that the gateway and the application
//! mean the same token: of cookies with one name the first counts, a header sent twice is one value to PHP
//! and so none that could be told apart. The query is no place: it is logged everywhere.

use ::http::header::COOKIE;
use ::http::{HeaderMap, HeaderName};

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
    /// A header that has it is there more than once.
    Doubtful,
}

/// The token in the first of `places` that is not empty.
pub(crate) fn find<'h>(places: &[Place], headers: &'h HeaderMap) -> Result<&'h [u8], NoToken> {
    for place in places {
        match place.look(headers)? {
            b"" => {}
            token => return Ok(token),
        }
    }
    Err(NoToken::Missing)
}

impl Place {
    /// What is there, `Bearer ` apart; nothing is the empty token.
    fn look<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], NoToken> {
        match self {
            Self::Header(name) => {
                let mut lines = headers.get_all(name).iter();
                match (lines.next(), lines.next()) {
                    (None, _) => Ok(b""),
                    (Some(line), None) => Ok(without_scheme(line.as_bytes().trim_ascii())),
                    (Some(_), Some(_)) => Err(NoToken::Doubtful),
                }
            }
            Self::Cookie(name) => Ok(cookie(name, headers).unwrap_or_default()),
        }
    }
}

/// The first cookie of that name.
pub(crate) fn cookie<'h>(name: &str, headers: &'h HeaderMap) -> Option<&'h [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii_start();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.trim_ascii_end())
    })
}

fn without_scheme(value: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"Bearer";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => match rest.first() {
            None => b"",
            Some(b' ' | b'\t') => rest.trim_ascii_start(),
            Some(_) => value,
        },
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use ::http::header::AUTHORIZATION;

    use super::*;

    fn found(lines: &[(&'static str, &'static str)]) -> Result<String, NoToken> {
        let places = [
            Place::Header(AUTHORIZATION),
            Place::Header(HeaderName::from_static("x-token")),
            Place::Cookie("PHPSESSID".into()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        find(&places, &headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
    }

    #[test]
    fn the_first_place_that_has_a_token_decides() {
        assert_eq!(found(&[("x-token", "b"), ("authorization", "Bearer a")]).unwrap(), "a");
        assert_eq!(found(&[("x-token", "b"), ("cookie", "PHPSESSID=c")]).unwrap(), "b");
        assert_eq!(found(&[("cookie", "a=1; PHPSESSID=c")]).unwrap(), "c");
        assert_eq!(found(&[("authorization", ""), ("x-token", "b")]).unwrap(), "b");
        assert_eq!(found(&[("authorization", "Bearer "), ("x-token", "b")]).unwrap(), "b");
        assert_eq!(found(&[("cookie", "other=c")]), Err(NoToken::Missing));
        assert_eq!(found(&[]), Err(NoToken::Missing));
    }

    #[test]
    fn the_scheme_is_stripped_however_it_is_spelled_and_only_as_a_word() {
        assert_eq!(found(&[("authorization", "bEARER   a")]).unwrap(), "a");
        assert_eq!(found(&[("authorization", "Bearera")]).unwrap(), "Bearera");
        assert_eq!(found(&[("authorization", "Basic a")]).unwrap(), "Basic a");
    }

    #[test]
    fn of_two_cookies_the_first_counts_and_of_two_header_lines_neither() {
        assert_eq!(found(&[("cookie", "PHPSESSID=a; PHPSESSID=b"), ("cookie", "PHPSESSID=c")]).unwrap(), "a");
        assert_eq!(found(&[("cookie", "phpsessid=a; PHPSESSIDX=b;PHPSESSID=c")]).unwrap(), "c");
        assert_eq!(found(&[("x-token", "a"), ("x-token", "b")]), Err(NoToken::Doubtful));
    }
}
