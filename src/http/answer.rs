//! The answers the gateway gives itself: a closed list, each with a status, a stable code and a text.
//!
//! An [`Answer`] is all that a client may learn. What went wrong, where and why, is the error's to
//! say, in the log, under the same request id.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::Body;

/// Seconds after which a client that met a full or absent upstream may come back.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

macro_rules! answers {
    ($( $(#[doc = $doc:literal])+ $name:ident = $status:literal, $number:literal, $message:literal; )+) => {
        /// What the gateway itself can answer. The `code` in the body is status × 100 + n.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Answer { $( $(#[doc = $doc])+ $name, )+ }

        impl Answer {
            /// Every answer there is, in the order of their codes.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The stable code of `{"code": …}`.
            pub(crate) fn code(self) -> u32 {
                match self { $( Self::$name => $status * 100 + $number, )+ }
            }

            /// The text of `{"message": …}`.
            pub(crate) fn message(self) -> &'static str {
                match self { $( Self::$name => $message, )+ }
            }

            /// When it is given and what helps, for docs/reference/errors.md.
            #[cfg(test)]
            pub(crate) fn meaning(self) -> &'static str {
                match self { $( Self::$name => concat!($($doc),+), )+ }
            }
        }
    };
}

answers! {
    /// The request's target could not be read: a broken escape, a control character, a backslash, or dot segments that climb above the root.
    BadPath = 400, 1, "bad request target";
    /// No `Host`, more than one, or one that is not a host name.
    BadHost = 400, 2, "bad host";
    /// The request's body broke its own framing, or was longer or shorter than declared.
    BadBody = 400, 3, "bad request body";
    /// `Transfer-Encoding` other than a single `chunked`, or one in HTTP/1.0.
    BadFraming = 400, 4, "bad message framing";
    /// A login without a code: the body is to be `{"code": "…"}`.
    NoCode = 400, 5, "no login code";
    /// A check found no session of a logged-in user, or one that is over.
    NotLoggedIn = 401, 1, "session expired";
    /// The request is not signed, or not as it must be. Which step failed is in the access log.
    SignatureRefused = 401, 2, "signature refused";
    /// The request's token is missing, over, or not from whom it must be.
    TokenRefused = 401, 3, "token refused";
    /// The code of a login is not valid, too old, or has been used: the mini program calls `wx.login()` for another.
    CodeRefused = 401, 4, "login code not valid";
    /// A check refuses the caller.
    Forbidden = 403, 1, "forbidden";
    /// WeChat holds the user to be a risk and does not let them log in.
    LoginRefused = 403, 2, "login refused";
    /// No route matches host and path.
    NoRoute = 404, 1, "not found";
    /// The route's side has no such file, or one that is never served.
    NoFile = 404, 2, "no such file";
    /// The path is routed, the method is not; `Allow` lists those that are.
    MethodNotAllowed = 405, 1, "method not allowed";
    /// A file of the legacy application can be read, not written to.
    FileMethodNotAllowed = 405, 2, "method not allowed for a file";
    /// The client was too slow to send its body (`timeouts.body_gap`).
    BodyTooSlow = 408, 1, "request body too slow";
    /// The body is larger than `limits.body_bytes` or the route's own `body_bytes`.
    BodyTooLarge = 413, 1, "request body too large";
    /// The target is longer than `limits.uri_bytes`.
    TargetTooLong = 414, 1, "request target too long";
    /// The range asked for lies outside the file.
    RangeNotSatisfiable = 416, 1, "range not satisfiable";
    /// `Expect` asked for something other than `100-continue`.
    ExpectationFailed = 417, 1, "expectation failed";
    /// One header is too large to be handed to PHP (FastCGI carries at most 65,535 bytes in one record).
    HeaderTooLarge = 431, 1, "request header too large";
    /// The client left before it was answered: never sent, only recorded.
    ClientGone = 499, 1, "client closed the connection";
    /// A handler panicked. The panic's text is in the log.
    HandlerPanicked = 500, 1, "internal error";
    /// The gateway could not do its own part (a temporary file, a descriptor). The cause is in the log.
    Internal = 500, 2, "internal error";
    /// WeChat does not accept what the gateway is configured with (`appid`, `secret`, `user`): nobody can log in. The cause is in the log.
    LoginMisconfigured = 500, 3, "login not possible";
    /// `Transfer-Encoding` names a coding the gateway does not speak.
    CodingNotImplemented = 501, 1, "transfer coding not implemented";
    /// `CONNECT` and `TRACE` are never served, whatever the path.
    MethodRefused = 501, 2, "method not implemented";
    /// The upstream could not be reached. Nothing was executed.
    Unreachable = 502, 1, "upstream unreachable";
    /// The upstream broke off before its answer's head was complete. It may have acted.
    Broken = 502, 2, "upstream broke off";
    /// The upstream's answer is not valid in its protocol.
    BadReply = 502, 3, "upstream gave an invalid answer";
    /// The queue for the upstream is full (`queue_length`).
    QueueFull = 503, 1, "upstream queue full";
    /// No place at the upstream became free in time (`queue`).
    QueueTimeout = 503, 2, "upstream busy";
    /// The upstream has been down for a while and is probed in the background.
    Down = 503, 3, "upstream down";
    /// No room left to keep request bodies (`spool.disk`).
    SpoolFull = 503, 4, "no room for the request body";
    /// A check cannot be made now: what it asks (a store of sessions, an authority) is down or too slow.
    CheckUnavailable = 503, 5, "cannot be checked now";
    /// WeChat is busy, asked too often, or does not answer. The same code may be sent again, a little later.
    LoginUnavailable = 503, 6, "login not possible now";
    /// The answer's head did not come in time (`first_byte`).
    FirstByteTimeout = 504, 1, "upstream too slow";
    /// The route's `timeout` passed.
    DeadlinePassed = 504, 2, "request took too long";
}

impl Answer {
    /// The HTTP status it is sent with.
    pub(crate) fn status(self) -> StatusCode {
        u16::try_from(self.code() / 100)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Renders it as JSON, or as a small page for a client that prefers `text/html`.
    ///
    /// `accept` is the request's `Accept`.
    pub(crate) fn render(self, accept: Option<&HeaderValue>, request_id: &str) -> Response<Body> {
        let (kind, text) = if accept.is_some_and(prefers_html) {
            ("text/html; charset=utf-8", self.page(request_id))
        } else {
            ("application/json", format!(r#"{{"code":{},"message":"{}","data":null}}"#, self.code(), self.message()))
        };
        let mut response = Response::new(Body::from(Bytes::from(text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }

    fn page(self, request_id: &str) -> String {
        let (status, message, code) = (self.status().as_u16(), self.message(), self.code());
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {message}</title>\
             <body style=\"font:16px/1.5 system-ui;margin:15vh auto;max-width:32em;padding:0 1em\">\
             <h1>{status}</h1><p>{message}</p><p><small>code {code} · request {request_id}</small></p>"
        )
    }
}

/// Whether `text/html` stands before any JSON or wildcard in `Accept`, as browsers send it.
fn prefers_html(accept: &HeaderValue) -> bool {
    let accept = accept.to_str().unwrap_or_default();
    accept
        .split(',')
        .map(|part| part.split(';').next().unwrap_or_default().trim())
        .find(|kind| matches!(*kind, "text/html" | "application/xhtml+xml" | "application/json" | "*/*"))
        .is_some_and(|kind| kind == "text/html" || kind == "application/xhtml+xml")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_its_status_times_100_and_none_is_given_twice() {
        let codes: HashSet<u32> = Answer::ALL.iter().map(|answer| answer.code()).collect();
        assert_eq!(codes.len(), Answer::ALL.len());
        for answer in Answer::ALL {
            assert_eq!(u32::from(answer.status().as_u16()), answer.code() / 100);
        }
    }

    #[test]
    fn a_browser_gets_a_page_and_everybody_else_json() {
        let page = |accept: &'static str| prefers_html(&HeaderValue::from_static(accept));
        assert!(page("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(!page("application/json, text/html"));
        assert!(!page("*/*"));
        let response = Answer::NoRoute.render(None, "id");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }

    #[test]
    fn the_reference_of_error_codes_is_fresh() {
        let mut text = String::from(
            "# Answers of the gateway's own\n\nMade from `src/http/answer.rs`; a test rewrites it when stale.\n\n\
             Sent as `{\"code\": …, \"message\": …, \"data\": null}`, or as a small page to a client that prefers\n\
             `text/html`, always with `X-Request-Id`. An upstream's own error pages pass through untouched.\n\n\
             | code | status | message | when, and what helps |\n|---|---|---|---|\n",
        );
        for answer in Answer::ALL {
            let (code, status, message, meaning) =
                (answer.code(), answer.status().as_u16(), answer.message(), answer.meaning().trim());
            text.push_str(&format!("| {code} | {status} | {message} | {meaning} |\n"));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/errors.md");
        let fresh = std::fs::read_to_string(path).is_ok_and(|written| written == text);
        if !fresh {
            std::fs::write(path, text).unwrap();
        }
        assert!(fresh, "docs/reference/errors.md was stale and has been rewritten; commit it");
    }
}
