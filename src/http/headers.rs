//! What is done to header fields between a client and a side.
//!
//! On the way in [`admit`] refuses messages whose length two programs could read differently, and
//! removes what a client may not say and what concerns one connection only. On the way back
//! [`strip_hop_by_hop`] does the latter for an upstream's answer, and [`clean_response`] removes what
//! it may not say. The fields the edge sets itself are set after all of this, so that no
//! `Connection: x-forwarded-for` can take them away again. This file decides about names and
//! framing; it never looks into cookies, credentials or any other value of the application's.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::Answer;

/// Makes a client's fields those that a side is given, or refuses them for their framing.
///
/// `owned` are names that only the edge may say. `Connection` and `Upgrade` stay if they ask for WebSocket, and say
/// nothing else then. No other protocol is ever switched to: `h2c` would carry requests past the edge.
pub(crate) fn admit(
    version: Version,
    headers: &mut HeaderMap,
    client_is_trusted: bool,
    owned: &[HeaderName],
) -> Result<(), Answer> {
    // Most requests have few of the fields that matter here, and one look at the names tells.
    let (mut framing, mut hop_by_hop, mut unsayable) = (false, false, false);
    for name in headers.keys().map(HeaderName::as_str) {
        framing |= matches!(name, "content-length" | "transfer-encoding" | "expect" | "upgrade");
        hop_by_hop |= is_hop_by_hop(name) || name == "te";
        unsayable |= !may_say(name, client_is_trusted);
    }
    if framing {
        check_framing(version, headers)?;
    }
    let upgrade = framing && upgrade_wanted(headers);
    if unsayable {
        clean_request(headers, client_is_trusted);
    }
    if hop_by_hop {
        strip_hop_by_hop(headers);
    }
    for name in owned {
        headers.remove(name);
    }
    if upgrade {
        restore_upgrade(headers);
    }
    Ok(())
}

/// Fields that concern one connection, `TE` and what `Connection` names apart; and `Expect`, which the
/// edge has answered.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    )
}

/// The elements of a comma-separated field, over all of its lines, trimmed, empty ones left out.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Removes everything that concerns one connection only, and `Expect`, which the edge has answered.
///
/// `TE` stays if it says `trailers`, and says nothing else then.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Few messages have more than one of them: a look at the names there are is cheaper than a search for each that
    // there might be.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name.as_str())).cloned() {
        if name == CONNECTION {
            let named: Vec<_> = named_by_connection(headers).collect();
            for name in named {
                headers.remove(name);
            }
        }
        headers.remove(name);
    }
    if headers.keys().any(|name| *name == TE) {
        if elements(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers")) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
}

/// The further fields that `Connection` names: none but from odd clients.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    const USUAL: [&[u8]; 4] = [b"keep-alive", b"close", b"upgrade", b"te"];
    elements(headers, &CONNECTION)
        .filter(|option| !USUAL.iter().any(|usual| option.eq_ignore_ascii_case(usual)))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        // What a message is and whom it is for was decided with these; they are not the client's to hide.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
}

/// Whether the client asks to speak WebSocket on this connection. To be asked before the fields that
/// say so are stripped.
fn upgrade_wanted(headers: &HeaderMap) -> bool {
    let mut protocols = elements(headers, &UPGRADE);
    protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && elements(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Says again, after stripping, that an upgrade is wanted.
fn restore_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Removes what a client may not say; gives back the number of lines removed.
///
/// These are names that PHP could confuse with others (`X_Forwarded_For` and `X-Forwarded-For` become
/// one variable), `Proxy` (httpoxy), the edge's own `X-Strangler-*`, and, unless a trusted proxy says
/// it, whatever speaks of other clients, hosts and ids than those the edge sees for itself.
fn clean_request(headers: &mut HeaderMap, client_is_trusted: bool) -> usize {
    let refused: Vec<HeaderName> =
        headers.keys().filter(|name| !may_say(name.as_str(), client_is_trusted)).cloned().collect();
    let before = headers.len();
    for name in &refused {
        headers.remove(name);
    }
    before - headers.len()
}

/// Whether a client may send a field of this name (lower case).
fn may_say(name: &str, trusted: bool) -> bool {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || name == "proxy" {
        return false;
    }
    match name.strip_prefix("x-") {
        Some(rest) if rest.starts_with("strangler-") => false,
        Some(rest) => trusted || !(rest.starts_with("forwarded-") || rest == "real-ip" || rest == "request-id"),
        None => trusted || name != "forwarded",
    }
}

/// Removes what no side may tell a client: the edge's own `X-Strangler-*`, orders meant for a server in
/// front of the application (`X-Accel-*`, `X-Sendfile`), and what it runs on (`X-Powered-By`).
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    // Most answers have none of them: one look at the names, and nothing is allocated.
    while let Some(name) = headers.keys().find(|name| !may_tell(name.as_str())) {
        let name = name.clone();
        headers.remove(name);
    }
}

/// Whether a side may answer with a field of this name (lower case).
fn may_tell(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-") else { return true };
    !(rest.starts_with("strangler-") || rest.starts_with("accel-") || rest == "sendfile" || rest == "powered-by")
}

/// Refuses a request whose framing is not beyond doubt, as far as hyper lets such a one through.
///
/// hyper itself refuses a bad or doubtful `Content-Length` and a `Transfer-Encoding` that does not end
/// in `chunked`, and drops `Content-Length` beside `Transfer-Encoding`.
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Answer> {
    if headers.contains_key(TRANSFER_ENCODING) {
        check_transfer_encoding(version, headers)?;
    }
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Answer::BadFraming);
    }
    if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Answer::ExpectationFailed);
    }
    // A body before the switch and bytes after it could be taken for each other.
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'));
    if headers.contains_key(UPGRADE) && has_body && upgrade_wanted(headers) {
        return Err(Answer::BadFraming);
    }
    Ok(())
}

/// Exactly one `chunked` passes. `gzip, chunked` is valid but not spoken here (501), the rest is not valid.
fn check_transfer_encoding(version: Version, headers: &HeaderMap) -> Result<(), Answer> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter().count();
    if version < Version::HTTP_11 || lines > 1 || headers.contains_key(CONTENT_LENGTH) {
        return Err(Answer::BadFraming);
    }
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let chunked = elements(headers, &TRANSFER_ENCODING).filter(is_chunked).count();
    let last = elements(headers, &TRANSFER_ENCODING).last();
    if chunked != 1 || !last.is_some_and(|coding| is_chunked(&coding)) {
        return Err(Answer::BadFraming);
    }
    match elements(headers, &TRANSFER_ENCODING).nth(1) {
        Some(_) => Err(Answer::CodingNotImplemented),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn hop_by_hop_fields_and_all_that_connection_names_are_removed() {
        let mut sent = map(&[
            ("connection", "keep-alive, X-One"),
            ("connection", "x-two,, content-length, Host, bad name"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "3"),
            ("host", "shop.example"),
            ("content-length", "0"),
            ("cookie", "a=b"),
        ]);
        strip_hop_by_hop(&mut sent);
        assert_eq!(sent, headers(&[("host", "shop.example"), ("content-length", "0"), ("cookie", "a=b")]));
    }

    #[test]
    fn te_stays_only_as_trailers() {
        let mut sent = map(&[("te", "gzip;q=0.5, Trailers"), ("connection", "TE")]);
        strip_hop_by_hop(&mut sent);
        assert_eq!(sent, headers(&[("te", "trailers")]));
    }

    #[test]
    fn only_websocket_is_an_upgrade() {
        assert!(upgrade_wanted(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        for (connection, upgrade) in
            [("upgrade", "h2c"), ("upgrade", "websocket, h2c"), ("upgrade", "h2c, websocket"), ("close", "websocket")]
        {
            assert!(
                !upgrade_wanted(&map(&[("connection", connection), ("upgrade", upgrade)])),
                "{connection} {upgrade}"
            );
        }
        assert!(!upgrade_wanted(&map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")])));
        let mut restored = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        strip_hop_by_hop(&mut restored);
        assert!(!upgrade_wanted(&restored));
        restore_upgrade(&mut restored);
        assert!(upgrade_wanted(&restored));
    }

    #[test]
    fn an_ordinary_request_keeps_every_field() {
        let sent = map(&[("host", "a"), ("accept", "*/*"), ("x-requested-with", "x"), ("x-token", "t"), ("dnt", "1")]);
        let mut cleaned = sent.clone();
        assert_eq!(clean_request(&mut cleaned, false), 0);
        assert_eq!(cleaned, sent);
    }

    #[test]
    fn aliases_and_the_edges_own_names_are_removed_from_everyone() {
        for trusted in [false, true] {
            let mut sent = map(&[
                ("x_forwarded_for", "1.2.3.4"),
                ("remote_user", "root"),
                ("x.y", "1"),
                ("proxy", "http://evil"),
                ("x-strangler-user", "1"),
                ("x-strangler-user", "2"),
                ("host", "a"),
            ]);
            assert_eq!(clean_request(&mut sent, trusted), 6);
            assert_eq!(sent, headers(&[("host", "a")]));
        }
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let sent = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-anything", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-request-id", "abc"),
            ("x-forwardedness", "kept"),
        ]);
        let mut trusted = sent.clone();
        assert_eq!(clean_request(&mut trusted, true), 0);
        assert_eq!(trusted, sent);
        let mut untrusted = sent;
        assert_eq!(clean_request(&mut untrusted, false), 6);
        assert_eq!(untrusted, headers(&[("x-forwardedness", "kept")]));
    }

    #[test]
    fn an_answer_tells_neither_what_runs_behind_the_edge_nor_what_only_the_edge_may_say() {
        let mut told = map(&[
            ("x-powered-by", "PHP/8.2"),
            ("x-strangler-side", "new"),
            ("x-strangler-side", "legacy"),
            ("x-accel-redirect", "/private/a"),
            ("x-accel-expires", "5"),
            ("x-sendfile", "/srv/a"),
            ("x-frame-options", "DENY"),
            ("x-accelerated", "yes"),
            ("server", "app"),
        ]);
        clean_response(&mut told);
        assert_eq!(told, headers(&[("x-frame-options", "DENY"), ("x-accelerated", "yes"), ("server", "app")]));
    }

    #[test]
    fn doubtful_framing_is_refused() {
        let check = |lines: &[(&'static str, &'static str)]| check_framing(Version::HTTP_11, &map(lines));
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(check(&[("content-length", "5"), ("expect", "100-Continue")]), Ok(()));
        for coding in ["chunked, chunked", "chunked, gzip", "identity", "xchunked", "", "gzip"] {
            assert_eq!(check(&[("transfer-encoding", coding)]), Err(Answer::BadFraming), "{coding}");
        }
        assert_eq!(check(&[("transfer-encoding", "gzip, chunked")]), Err(Answer::CodingNotImplemented));
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(check(&twice), Err(Answer::BadFraming));
        assert_eq!(check(&[("transfer-encoding", "chunked"), ("content-length", "5")]), Err(Answer::BadFraming));
        assert_eq!(check(&[("content-length", "5"), ("content-length", "5")]), Err(Answer::BadFraming));
        assert_eq!(check(&[("expect", "200-ok")]), Err(Answer::ExpectationFailed));
        let old = map(&[("transfer-encoding", "chunked")]);
        assert_eq!(check_framing(Version::HTTP_10, &old), Err(Answer::BadFraming));
    }

    #[test]
    fn what_a_side_is_given_of_a_request_is_framed_once_and_says_nothing_of_its_connection() {
        let admitted = |lines: &[(&'static str, &'static str)]| {
            let mut sent = map(lines);
            admit(Version::HTTP_11, &mut sent, false, &[HeaderName::from_static("x-plan")]).map(|()| sent)
        };
        assert_eq!(admitted(&[("host", "a"), ("x-plan", "gold")]), Ok(map(&[("host", "a")])));
        let sent = [("host", "a"), ("te", "gzip"), ("connection", "x-one"), ("x-one", "1"), ("x-forwarded-for", "b")];
        assert_eq!(admitted(&sent), Ok(map(&[("host", "a")])));
        assert_eq!(admitted(&[("content-length", "5"), ("content-length", "5")]), Err(Answer::BadFraming));
        assert_eq!(admitted(&[("expect", "200-ok")]), Err(Answer::ExpectationFailed));
        let upgrade = [("connection", "keep-alive, upgrade, x-one"), ("x-one", "1"), ("upgrade", "WebSocket")];
        assert_eq!(admitted(&upgrade), Ok(map(&[("connection", "upgrade"), ("upgrade", "websocket")])));
        assert_eq!(admitted(&[("connection", "upgrade"), ("upgrade", "h2c")]), Ok(HeaderMap::new()));
    }

    #[test]
    fn an_upgrade_with_a_body_is_refused() {
        let upgrade = |length| map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", length)]);
        assert_eq!(check_framing(Version::HTTP_11, &upgrade("0")), Ok(()));
        assert_eq!(check_framing(Version::HTTP_11, &upgrade("10")), Err(Answer::BadFraming));
    }
}
