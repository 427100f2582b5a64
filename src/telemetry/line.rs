//! One line of the access log: JSON that nobody can forge and that holds no secret.
//!
//! Everything a client sent is escaped, control characters included, and capped; values of query
//! parameters with secret-looking names are replaced, in the path and in the referer. Cookies and
//! authorization never get here. Pure: the line is appended to a buffer, nothing is written or read.
//! A fact that is not there (no upstream, no referer) is left out of the line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::HeaderValue;

use super::Side;
use crate::http::hex;

/// Most bytes of path and query that are logged.
const TARGET_MAX: usize = 2048;
/// Most bytes of a header that are logged.
const HEADER_MAX: usize = 256;
/// What stands in a secret's place.
const REDACTED: &str = "***";

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of the answer was handed to the connection.
    Complete,
    /// The side broke off its answer, and with it the client's connection ended.
    Truncated,
    /// The client left before it had all of its answer.
    ClientGone,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::ClientGone => "client_gone",
        }
    }
}

/// What one line says.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) request_id: &'a HeaderValue,
    /// The trace that the request belongs to, where traces are on.
    pub(crate) trace_id: Option<u128>,
    pub(crate) client: &'a str,
    pub(crate) method: &'a str,
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) code: Option<u32>,
    pub(crate) route: &'a str,
    pub(crate) side: Side,
    pub(crate) serve: Option<&'static str>,
    pub(crate) generation: Option<u64>,
    pub(crate) upstream: Option<&'a str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) queue: Duration,
    pub(crate) service: Option<Duration>,
    pub(crate) total: Duration,
    pub(crate) ended: Ended,
    pub(crate) user_agent: Option<&'a HeaderValue>,
    pub(crate) referer: Option<&'a HeaderValue>,
    /// Who a check found the caller to be.
    pub(crate) user: Option<&'a HeaderValue>,
    /// The check that refused the request, and why.
    pub(crate) refused: Option<(&'a str, &'static str)>,
    /// Else the last one that left it to the legacy side to decide, and why.
    pub(crate) undecided: Option<(&'a str, &'static str)>,
}

impl Line<'_> {
    /// Appends the line, its end included.
    pub(crate) fn append(&self, out: &mut Vec<u8>, clock: &mut Clock, now: SystemTime) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.append(out, now);
        out.extend_from_slice(b"\",\"request_id\":\"");
        escape_header(out, self.request_id);
        if let Some(trace_id) = self.trace_id {
            out.extend_from_slice(b"\",\"trace_id\":\"");
            out.extend_from_slice(format!("{trace_id:032x}").as_bytes());
        }
        out.extend_from_slice(b"\",\"client\":\"");
        // An address, a token: nothing in them needs an escape.
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(b"\",\"method\":\"");
        out.extend_from_slice(cut(self.method, HEADER_MAX).as_bytes());
        self.append_target(out);
        out.extend_from_slice(b"\",\"status\":");
        append_number(out, self.status.into());
        if let Some(code) = self.code {
            out.extend_from_slice(b",\"code\":");
            append_number(out, code.into());
        }
        out.extend_from_slice(b",\"route\":\"");
        escape(out, self.route);
        out.extend_from_slice(b"\",\"side\":\"");
        out.extend_from_slice(self.side.word().as_bytes());
        out.push(b'"');
        self.append_upstream(out);
        out.extend_from_slice(b",\"bytes_in\":");
        append_number(out, self.bytes_in);
        out.extend_from_slice(b",\"bytes_out\":");
        append_number(out, self.bytes_out);
        out.extend_from_slice(b",\"queue_ms\":");
        append_millis(out, self.queue);
        if let Some(service) = self.service {
            out.extend_from_slice(b",\"upstream_ms\":");
            append_millis(out, service);
        }
        out.extend_from_slice(b",\"total_ms\":");
        append_millis(out, self.total);
        out.extend_from_slice(b",\"ended\":\"");
        out.extend_from_slice(self.ended.as_str().as_bytes());
        self.append_headers(out);
        out.extend_from_slice(b"\"}\n");
    }

    fn append_target(&self, out: &mut Vec<u8>) {
        if let Some(host) = self.host {
            out.extend_from_slice(b"\",\"host\":\"");
            escape_header(out, host);
        }
        out.extend_from_slice(b"\",\"path\":\"");
        let path = cut(self.path, TARGET_MAX);
        escape(out, path);
        if let Some(query) = self.query {
            out.push(b'?');
            append_query(out, query, TARGET_MAX - path.len());
        }
    }

    fn append_upstream(&self, out: &mut Vec<u8>) {
        if let Some(serve) = self.serve {
            out.extend_from_slice(b",\"serve\":\"");
            out.extend_from_slice(serve.as_bytes());
            out.push(b'"');
        }
        if let Some(generation) = self.generation {
            out.extend_from_slice(b",\"generation\":");
            append_number(out, generation);
        }
        if let Some(upstream) = self.upstream {
            out.extend_from_slice(b",\"upstream\":\"");
            escape(out, upstream);
            out.push(b'"');
        }
    }

    fn append_headers(&self, out: &mut Vec<u8>) {
        if let Some(user) = self.user {
            out.extend_from_slice(b"\",\"user\":\"");
            escape_header(out, user);
        }
        for (said, key) in [(self.refused, &b"\",\"refused\":\""[..]), (self.undecided, b"\",\"undecided\":\"")] {
            let Some((check, reason)) = said else { continue };
            out.extend_from_slice(b"\",\"check\":\"");
            escape(out, check);
            out.extend_from_slice(key);
            escape(out, reason);
        }
        if let Some(agent) = self.user_agent {
            out.extend_from_slice(b"\",\"user_agent\":\"");
            escape_header(out, agent);
        }
        if let Some(referer) = self.referer {
            out.extend_from_slice(b"\",\"referer\":\"");
            let referer = text_of(referer, HEADER_MAX);
            let (page, query) = referer.split_once('?').map_or((&*referer, None), |(page, query)| (page, Some(query)));
            escape(out, page);
            if let Some(query) = query {
                out.push(b'?');
                append_query(out, query, HEADER_MAX);
            }
        }
    }
}

/// The date and time of the last line, so that most lines only add their milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    fn append(&mut self, out: &mut Vec<u8>, now: SystemTime) {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since_epoch.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = rfc3339(second).trim_end_matches('Z').to_owned();
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        append_three_digits(out, since_epoch.subsec_millis());
        out.push(b'Z');
    }
}

/// The moment `second` after the epoch, as `2026-01-02T03:04:05Z`.
fn rfc3339(second: u64) -> String {
    let timestamp = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    timestamp.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A header's text, at most `max` bytes of it; what is not UTF-8 is replaced.
fn text_of(value: &HeaderValue, max: usize) -> std::borrow::Cow<'_, str> {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(bytes.get(..max).unwrap_or(bytes))
}

/// The longest start of `text` that has at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// Appends a query with the values of secret-looking names replaced, at most `room` bytes of it.
fn append_query(out: &mut Vec<u8>, query: &str, mut room: usize) {
    // What is between two secrets goes in one piece.
    let (mut written, mut at) = (0, 0);
    for pair in query.as_bytes().split(|byte| *byte == b'&') {
        let end = at + pair.len();
        if let Some(equals) = memchr::memchr(b'=', pair)
            && is_secret(pair.get(..equals).unwrap_or_default())
        {
            room = append_cut(out, query.get(written..=at + equals).unwrap_or_default(), room);
            room = append_cut(out, REDACTED, room);
            written = end;
        }
        at = end + 1;
    }
    append_cut(out, query.get(written..).unwrap_or_default(), room);
}

/// Appends what fits and returns the room that is left; nothing more once something did not fit.
fn append_cut(out: &mut Vec<u8>, text: &str, room: usize) -> usize {
    let fits = cut(text, room);
    escape(out, fits);
    if fits.len() < text.len() { 0 } else { room - fits.len() }
}

/// Whether a parameter of this name is likely to hold a secret: a part of the name that is never
/// innocent, or a whole word of it that is suspicious by itself.
fn is_secret(name: &[u8]) -> bool {
    const PARTS: [&str; 9] =
        ["token", "passw", "secret", "signature", "session", "sessid", "credential", "apikey", "authoriz"];
    const WORDS: [&str; 16] = [
        "auth",
        "code",
        "jscode",
        "hmac",
        "jwt",
        "key",
        "nonce",
        "otp",
        "pass",
        "phpsessid",
        "pin",
        "pwd",
        "sid",
        "sig",
        "sign",
        "ticket",
    ];
    const PARTS_BEGIN: u32 = letters(&PARTS);
    const WORDS_BEGIN: u32 = letters(&WORDS);
    const SHORTEST_PART: usize = shortest(&PARTS);
    let part_at = |at: usize| {
        let rest = name.get(at..).unwrap_or_default();
        PARTS.iter().any(|part| rest.get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part.as_bytes())))
    };
    let is_word = |word: &[u8]| {
        let begins = WORDS_BEGIN & word.first().map_or(0, |byte| letter(*byte)) != 0;
        begins && WORDS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
    };
    let starts = name.get(..(name.len() + 1).saturating_sub(SHORTEST_PART)).unwrap_or_default();
    starts.iter().enumerate().any(|(at, byte)| PARTS_BEGIN & letter(*byte) != 0 && part_at(at))
        || if name.iter().all(u8::is_ascii_lowercase) { is_word(name) } else { words(name).any(is_word) }
}

const fn shortest(texts: &[&str]) -> usize {
    let [text, rest @ ..] = texts else { return usize::MAX };
    let rest = shortest(rest);
    if text.len() < rest { text.len() } else { rest }
}

/// The letter as a bit, in either case.
const fn letter(byte: u8) -> u32 {
    if byte.is_ascii_alphabetic() { 1 << (byte & 31) } else { 0 }
}

/// The letters that these begin with: nearly every name is told innocent by them.
const fn letters(texts: &[&str]) -> u32 {
    let [text, rest @ ..] = texts else { return 0 };
    let first = match text.as_bytes() {
        [first, ..] => letter(*first),
        [] => 0,
    };
    first | letters(rest)
}

/// The words of `js_code`, `apiKey`, `user[key]` and `user%5Bkey%5D`.
fn words(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An escape ends in two hexadecimal digits that are no part of the word behind them.
    let pieces = name.split(|byte| *byte == b'%').enumerate();
    let pieces = pieces.map(|(n, piece)| if n == 0 { piece } else { piece.get(2..).unwrap_or_default() });
    pieces.flat_map(|piece| piece.split(|byte| !byte.is_ascii_alphanumeric())).flat_map(|piece| {
        // Of camelCase the last hump is a word; and so is the whole.
        let hump = piece.iter().rposition(u8::is_ascii_uppercase).and_then(|at| piece.get(at..));
        [Some(piece), hump].into_iter().flatten()
    })
}

/// Appends a header's value, at most [`HEADER_MAX`] bytes of it, as [`escape`] does.
fn escape_header(out: &mut Vec<u8>, value: &HeaderValue) {
    let bytes = value.as_bytes();
    if bytes.len() <= HEADER_MAX && all_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        escape(out, &text_of(value, HEADER_MAX));
    }
}

/// Whether every byte stands for itself: printable ASCII but for the two that JSON escapes.
fn all_plain(bytes: &[u8]) -> bool {
    // Without a way out early, so that the compiler looks at many bytes at once.
    bytes.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (*byte != b'"') & (*byte != b'\\'))
}

/// Appends `text` as it may stand between the quotes of a JSON string.
///
/// DEL and the C1 controls are escaped too: JSON allows them, but a terminal obeys them.
fn escape(out: &mut Vec<u8>, text: &str) {
    // Nearly all that is logged is plain, and a look at bytes is far cheaper than one at characters.
    if all_plain(text.as_bytes()) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut characters = special.chars();
        match characters.next() {
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some(control) => append_escape(out, control),
            None => {}
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// `\u00XX`: every control character lies below U+0100.
fn append_escape(out: &mut Vec<u8>, control: char) {
    out.extend_from_slice(b"\\u00");
    out.extend(hex::digits(u8::try_from(control).unwrap_or_default()));
}

pub(super) fn append_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds with three digits behind the point.
fn append_millis(out: &mut Vec<u8>, duration: Duration) {
    // Not `as_millis`, which counts in 128 bits.
    append_number(out, duration.as_secs().saturating_mul(1_000).saturating_add(duration.subsec_millis().into()));
    out.push(b'.');
    append_three_digits(out, duration.subsec_micros() % 1_000);
}

fn append_three_digits(out: &mut Vec<u8>, number: u32) {
    out.extend([number / 100, number / 10, number].map(|n| b'0' + u8::try_from(n % 10).unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line<'a>(request_id: &'a HeaderValue, path: &'a str, query: Option<&'a str>) -> Line<'a> {
        Line {
            request_id,
            trace_id: None,
            client: "203.0.113.9",
            method: "GET",
            host: None,
            path,
            query,
            status: 200,
            code: None,
            route: "order",
            side: Side::Legacy,
            serve: Some("legacy"),
            generation: Some(7),
            upstream: Some("php"),
            bytes_in: 0,
            bytes_out: 1234,
            queue: Duration::from_micros(1_500),
            service: Some(Duration::from_micros(20_007)),
            total: Duration::from_millis(22),
            ended: Ended::Complete,
            user_agent: None,
            referer: None,
            user: None,
            refused: None,
            undecided: None,
        }
    }

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.append(&mut out, &mut Clock::default(), UNIX_EPOCH + Duration::from_millis(1_700_000_000_042));
        String::from_utf8(out).unwrap()
    }

    fn logged_path(path: &str, query: Option<&str>) -> String {
        let id = HeaderValue::from_static("r1");
        let value: serde_json::Value = serde_json::from_str(&text(&line(&id, path, query))).unwrap();
        value["path"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_line_says_what_happened() {
        let id = HeaderValue::from_static("r1");
        let (host, agent) = (HeaderValue::from_static("shop.example"), HeaderValue::from_static("curl/8"));
        let line = Line { host: Some(&host), user_agent: Some(&agent), ..line(&id, "/orders/7", Some("a=1")) };
        assert_eq!(
            text(&line),
            "{\"time\":\"2023-11-14T22:13:20.042Z\",\"request_id\":\"r1\",\"client\":\"203.0.113.9\",\"method\":\"GET\",\
             \"host\":\"shop.example\",\"path\":\"/orders/7?a=1\",\"status\":200,\"route\":\"order\",\"side\":\"legacy\",\
             \"serve\":\"legacy\",\"generation\":7,\"upstream\":\"php\",\"bytes_in\":0,\"bytes_out\":1234,\
             \"queue_ms\":1.500,\"upstream_ms\":20.007,\"total_ms\":22.000,\"ended\":\"complete\",\"user_agent\":\"curl/8\"}\n"
        );
    }

    #[test]
    fn nothing_a_client_sends_can_forge_a_line() {
        let forged = "/a\"}\n{\"status\":200,\"path\":\"/\u{7f}\u{9b}31m\\";
        let id = HeaderValue::from_bytes(b"\"},{\xff").unwrap();
        let agent = HeaderValue::from_bytes(b"\t\"\x80\xc3").unwrap();
        let line = Line { user_agent: Some(&agent), ..line(&id, forged, Some("x=\"\u{1}")) };
        let text = text(&line);
        assert_eq!(text.lines().count(), 1);
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["path"], format!("{forged}?x=\"\u{1}"));
        assert_eq!(value["status"], 200);
        assert_eq!(value["user_agent"], "\t\"\u{fffd}\u{fffd}");
    }

    #[test]
    fn values_of_secret_looking_names_are_replaced() {
        for name in [
            "token",
            "access_token",
            "X-Token",
            "userPassword",
            "client_secret",
            "signature",
            "code",
            "js_code",
            "apiKey",
            "api_key",
            "key",
            "PHPSESSID",
            "session_id",
            "user[key]",
            "user%5Bkey%5D",
            "X-Amz-Signature",
            "sign",
        ] {
            assert_eq!(logged_path("/p", Some(&format!("a=1&{name}=s3cret&b=2"))), format!("/p?a=1&{name}=***&b=2"));
        }
        for name in ["keyword", "postcode", "author", "page", "q", "design", "monkey"] {
            assert_eq!(logged_path("/p", Some(&format!("{name}=plain"))), format!("/p?{name}=plain"));
        }
        let (id, referer) = (HeaderValue::from_static("r1"), HeaderValue::from_static("https://a/b?token=s3cret"));
        assert!(!text(&Line { referer: Some(&referer), ..line(&id, "/", None) }).contains("s3cret"));
    }

    #[test]
    fn what_is_too_long_is_cut_and_a_cut_never_uncovers_a_secret() {
        let long = "ä".repeat(4_000);
        assert_eq!(logged_path(&long, Some("a=1")).len(), TARGET_MAX + 1);
        let path = logged_path("/", Some(&format!("a={}&token=s3cret", "x".repeat(2_030))));
        assert!(path.len() <= TARGET_MAX + 1 && !path.contains("s3"), "{path}");
        let (id, agent) = (HeaderValue::from_static("r1"), HeaderValue::from_str(&"x".repeat(5_000)).unwrap());
        assert!(text(&Line { user_agent: Some(&agent), ..line(&id, "/", None) }).len() < 700);
    }

    #[test]
    fn the_clock_tells_every_second_anew() {
        let mut clock = Clock::default();
        let mut out = Vec::new();
        for millis in [0, 999, 1_000, 86_400_000] {
            clock.append(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
            out.push(b' ');
        }
        let told =
            "1970-01-01T00:00:00.000Z 1970-01-01T00:00:00.999Z 1970-01-01T00:00:01.000Z 1970-01-02T00:00:00.000Z ";
        assert_eq!(String::from_utf8(out).unwrap(), told);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_its_escaped_form(text in any::<String>()) {
            let mut out = vec![b'"'];
            escape(&mut out, &text);
            out.push(b'"');
            prop_assert!(!out.iter().any(|byte| *byte < b' '));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn numbers_are_written_as_everyone_writes_them(number in any::<u64>()) {
            let mut out = Vec::new();
            append_number(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
