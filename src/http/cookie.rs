//! Cookies as PHP reads them: whoever reads them in another way sees another caller than PHP does.

use std::borrow::Cow;

use ::http::header::{COOKIE, SET_COOKIE};
use ::http::{HeaderMap, HeaderValue};

use super::urlencoded::{Plus, decoded};

/// A cookie that was looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'h> {
    /// Its value, decoded: of several cookies of one name PHP takes the first.
    Value(Cow<'h, [u8]>),
    /// There is one that PHP would take for it though it is named otherwise.
    Alias,
    /// Neither.
    Nothing,
}

/// Looks for the cookie of this name.
#[must_use]
pub fn find<'h>(headers: &'h HeaderMap, name: &str) -> Found<'h> {
    let mut found = Found::Nothing;
    for pair in headers.get_all(COOKIE).iter().flat_map(pairs) {
        let (sent, value) = split(pair);
        if sent == name.as_bytes() {
            if found == Found::Nothing {
                found = Found::Value(plain(value));
            }
        } else if is_alias(sent, name) {
            return Found::Alias;
        }
    }
    found
}

/// The values that an answer gives the cookie of this name; empty or `deleted` where it takes it away.
pub fn set<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = Cow<'h, [u8]>> {
    headers.get_all(SET_COOKIE).iter().filter_map(move |line| {
        let (set, value) = split(pairs(line).next()?);
        (set == name.as_bytes()).then(|| plain(value))
    })
}

fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';')
}

/// Name and value; PHP drops spaces before the name, and only there.
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii_start();
    let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    (pair.get(..end).unwrap_or_default(), pair.get(end + 1..).unwrap_or_default())
}

fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(value) {
        Ok(text) if text.contains('%') => Cow::Owned(decoded(text.as_bytes(), Plus::IsPlus).collect()),
        _ => Cow::Borrowed(value),
    }
}

/// Whether PHP, in any of its versions, makes `name` of what was sent: it turns dots, spaces and brackets into `_`,
/// and takes `name[x]` for an array of that name; until 7.4 it decoded names as well.
fn is_alias(sent: &[u8], name: &str) -> bool {
    let at_least = sent.len() >= name.len();
    if !at_least {
        return false;
    }
    let sent = plain(sent);
    let sent = sent.trim_ascii_start();
    let fold = |byte: u8| if matches!(byte, b'.' | b' ' | b'[' | b'+') { b'_' } else { byte };
    let begins =
        sent.len() >= name.len() && sent.iter().zip(name.bytes()).all(|(sent, wanted)| fold(*sent) == fold(wanted));
    let after = sent.get(name.len()..).unwrap_or_default();
    begins && matches!(after.first(), None | Some(b'[' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn the_first_of_two_equal_cookies_counts_and_its_value_is_decoded() {
        let headers = sent(&["a=1; PHPSESSID=x%2Cy+z;PHPSESSID=second", "PHPSESSID=third"]);
        assert_eq!(find(&headers, "PHPSESSID"), Found::Value(Cow::Owned(b"x,y+z".to_vec())));
        assert_eq!(find(&headers, "phpsessid"), Found::Nothing);
        assert_eq!(find(&sent(&["PHPSESSID"]), "PHPSESSID"), Found::Value(Cow::Borrowed(b"")));
    }

    #[test]
    fn what_php_would_take_for_the_cookie_is_not_passed_over() {
        for alias in
            ["PHP.SESS_ID=1", "PHP SESS_ID=1", "PHP[SESS_ID=1", "PHP_SESS_ID[0]=1", "%50HP_SESS_ID=1", "PHP_SESS.ID=1"]
        {
            assert_eq!(find(&sent(&[&format!("{alias}; PHP_SESS_ID=2")]), "PHP_SESS_ID"), Found::Alias, "{alias}");
        }
        for other in ["PHP_SESS_ID2=1", "xPHP_SESS_ID=1", "PHP-SESS-ID=1"] {
            assert_eq!(find(&sent(&[other]), "PHP_SESS_ID"), Found::Nothing, "{other}");
        }
        assert_eq!(find(&sent(&["..Host-sid=1"]), "__Host-sid"), Found::Alias);
    }

    #[test]
    fn an_answer_says_what_it_makes_of_a_cookie() {
        let lines =
            ["PHPSESSID=new; path=/; HttpOnly", "PHPSESSID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT", "b=1"];
        let headers = lines.iter().map(|line| (SET_COOKIE, HeaderValue::from_str(line).unwrap())).collect();
        let values: Vec<_> = set(&headers, "PHPSESSID").map(Cow::into_owned).collect();
        assert_eq!(values, [b"new".to_vec(), b"deleted".to_vec()]);
    }
}
