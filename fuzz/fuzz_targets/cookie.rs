//! Whatever comes as cookies: the one that is found is the first of its name, decoded, and none is found where PHP could
//! see another one.
#![no_main]

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use strangler::protocol::cookie::{Found, find};

const NAME: &str = "PHPSESSID";

fuzz_target!(|lines: Vec<&[u8]>| {
    let mut headers = HeaderMap::new();
    for line in lines.into_iter().filter_map(|line| HeaderValue::from_bytes(line).ok()).take(8) {
        headers.append(COOKIE, line);
    }
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let first = pairs.map(<[u8]>::trim_ascii_start).find_map(|pair| match pair.strip_prefix(NAME.as_bytes())? {
        [] => Some(&b""[..]),
        [b'=', value @ ..] => Some(value),
        _ => None,
    });
    match (find(&headers, NAME), first) {
        (Found::Value(found), Some(sent)) => {
            assert!(found.len() <= sent.len());
            assert!(sent.contains(&b'%') || *found == *sent);
        }
        (Found::Value(_), None) | (Found::Nothing, Some(_)) => panic!("another reading"),
        (Found::Nothing, None) => {
            headers.append(COOKIE, HeaderValue::from_static("PHPSESSID=a%2Cb"));
            assert_eq!(find(&headers, NAME), Found::Value(b"a,b"[..].into()));
        }
        (Found::Alias, _) => {
            headers.append(COOKIE, HeaderValue::from_static("PHPSESSID=a"));
            assert_eq!(find(&headers, NAME), Found::Alias);
        }
    }
});
