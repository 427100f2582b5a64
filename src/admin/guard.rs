//! Who may ask the operator's port what.
//!
//! On a loopback address everybody on the machine may read, but under a local name only: a page in
//! the operator's browser must not reach the port through a name of its own (DNS rebinding). From
//! other machines the API asks for the token; `/metrics` and the probes do not, since those who read
//! them (Prometheus, Kubernetes) are kept apart by the network. Whoever changes something has the
//! token, wherever the port is, and comes from the dashboard itself or from no page at all.

use std::net::{IpAddr, SocketAddr};

use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use ::http::uri::Authority;
use ::http::{HeaderMap, StatusCode, Uri};

use super::Token;
use crate::http::host::unbracketed;

/// Why a request is turned away: status, code, and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) u32, pub(super) &'static str);

const NOT_LOCAL: Refused =
    Refused(StatusCode::FORBIDDEN, 40301, "this port answers to localhost only; ask for it by a loopback address");
const FOREIGN: Refused = Refused(StatusCode::FORBIDDEN, 40302, "a page of another origin may change nothing here");
const NO_TOKEN: Refused = Refused(StatusCode::UNAUTHORIZED, 40101, "send the admin token: Authorization: Bearer TOKEN");
const NOT_JSON: Refused =
    Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, 41501, "send JSON: Content-Type: application/json");

/// Whether somebody may read this path.
pub(super) fn reading(uri: &Uri, headers: &HeaderMap, bound: SocketAddr, token: &Token) -> Result<(), Refused> {
    if bound.ip().is_loopback() {
        return if host_is_local(uri, headers) { Ok(()) } else { Err(NOT_LOCAL) };
    }
    if uri.path().starts_with("/api/") && !has(token, headers) {
        return Err(NO_TOKEN);
    }
    Ok(())
}

/// Whether somebody may change something.
pub(super) fn writing(uri: &Uri, headers: &HeaderMap, bound: SocketAddr, token: &Token) -> Result<(), Refused> {
    if bound.ip().is_loopback() && !host_is_local(uri, headers) {
        return Err(NOT_LOCAL);
    }
    if !is_own_page(uri, headers) {
        return Err(FOREIGN);
    }
    if !has(token, headers) {
        return Err(NO_TOKEN);
    }
    let json = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match json.and_then(|kind| kind.split(';').next()) {
        Some(kind) if kind.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(NOT_JSON),
    }
}

fn has(token: &Token, headers: &HeaderMap) -> bool {
    let said = headers.get(AUTHORIZATION).and_then(|said| said.as_bytes().split_at_checked(7));
    said.is_some_and(|(scheme, said)| scheme.eq_ignore_ascii_case(b"bearer ") && token.is(said))
}

/// Whether no page of another origin sent this. Browsers say so in one of two headers; who is no browser
/// sends neither.
fn is_own_page(uri: &Uri, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(::http::HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_some_and(|origin| authority(uri, headers).is_some_and(|own| own.as_str().eq_ignore_ascii_case(origin)))
}

/// What the request calls this port.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => headers.get(HOST)?.to_str().ok()?.parse().ok(),
    }
}

/// Whether the request names this port by a name that only this machine resolves to itself.
/// HTTP/1.0 knows no `Host`; no browser speaks it.
fn host_is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    if uri.authority().is_none() && !headers.contains_key(HOST) {
        return true;
    }
    let Some(authority) = authority(uri, headers) else { return false };
    let host = unbracketed(authority.host()).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(line).collect()
    }

    fn read(path: &str, bound: &str, lines: &[(&'static str, &str)]) -> Result<(), Refused> {
        let token = Token::chosen(SECRET).unwrap();
        reading(&path.parse().unwrap(), &headers(lines), bound.parse().unwrap(), &token)
    }

    fn write(lines: &[(&'static str, &str)]) -> Result<(), Refused> {
        let token = Token::chosen(SECRET).unwrap();
        writing(&Uri::from_static("/api/routes/x/serve"), &headers(lines), "127.0.0.1:9901".parse().unwrap(), &token)
    }

    const HERE: (&str, &str) = ("host", "localhost:9901");
    const TOKEN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn on_a_loopback_address_only_local_names_are_answered() {
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.8.9.1", "[::1]:9901", "shop.localhost"] {
            assert_eq!(read("/metrics", "127.0.0.1:9901", &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert_eq!(read("/metrics", "127.0.0.1:9901", &[("host", host)]), Err(NOT_LOCAL), "{host}");
        }
        assert_eq!(read("/metrics", "127.0.0.1:9901", &[]), Ok(()));
        assert_eq!(read("http://evil.example/metrics", "127.0.0.1:1", &[HERE]), Err(NOT_LOCAL));
    }

    #[test]
    fn from_other_machines_the_api_asks_for_the_token_and_scrapers_need_none() {
        let named = ("host", "gateway.internal");
        assert_eq!(read("/metrics", "10.0.0.7:9901", &[named]), Ok(()));
        assert_eq!(read("/", "10.0.0.7:9901", &[named]), Ok(()));
        assert_eq!(read("/api/events", "0.0.0.0:9901", &[named]), Err(NO_TOKEN));
        assert_eq!(read("/api/routes", "10.0.0.7:9901", &[named, ("authorization", "Bearer no")]), Err(NO_TOKEN));
        assert_eq!(read("/api/routes", "10.0.0.7:9901", &[named, TOKEN]), Ok(()));
    }

    #[test]
    fn whoever_changes_something_has_the_token_and_is_no_foreign_page() {
        assert_eq!(write(&[HERE, TOKEN, JSON]), Ok(()));
        let own = [("origin", "http://localhost:9901"), ("sec-fetch-site", "same-origin")];
        assert_eq!(write(&[HERE, TOKEN, JSON, own[0], own[1]]), Ok(()));
        assert_eq!(write(&[HERE, JSON]), Err(NO_TOKEN));
        assert_eq!(write(&[HERE, JSON, ("authorization", "Bearer 0123456789abcdeF")]), Err(NO_TOKEN));
        assert_eq!(write(&[HERE, JSON, ("authorization", "é")]), Err(NO_TOKEN));
        assert_eq!(write(&[HERE, TOKEN, JSON, ("origin", "http://evil.example")]), Err(FOREIGN));
        assert_eq!(write(&[HERE, TOKEN, JSON, ("origin", "http://localhost:8080")]), Err(FOREIGN));
        assert_eq!(write(&[HERE, TOKEN, JSON, ("origin", "null")]), Err(FOREIGN));
        assert_eq!(write(&[HERE, TOKEN, JSON, ("sec-fetch-site", "same-site")]), Err(FOREIGN));
        assert_eq!(write(&[("host", "evil.example"), TOKEN, JSON]), Err(NOT_LOCAL));
        assert_eq!(write(&[HERE, TOKEN, ("content-type", "text/plain")]), Err(NOT_JSON));
        assert_eq!(write(&[HERE, TOKEN]), Err(NOT_JSON));
    }
}
