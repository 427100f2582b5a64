//! The head of PHP's answer: CGI header lines become a status and a [`HeaderMap`].
//!
//! Fed by `exchange.rs` with what STDOUT carries, until the empty line. It is pure, and the result
//! does not depend on how the bytes were split. The usual head arrives in one piece and is then
//! read where it lies: its values share the read buffer. Lines that no client may see are taken
//! out; those the gateway itself acts on are handed back as [`Directives`]. It does not act on them.

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED, LOCATION, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::{memchr, memchr_iter, memchr2};

/// The most bytes a head may have.
pub const MAX_HEAD: usize = 64 << 10;

/// The head of an answer, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// `Status`, else 302 with a `Location`, else 200.
    pub status: StatusCode,
    /// What the client gets, in PHP's order.
    pub headers: HeaderMap,
    /// The body's length as PHP declares it.
    pub content_length: Option<u64>,
    /// What PHP asks of the gateway.
    pub directives: Directives,
    /// Lines left out because no client could read them.
    pub dropped: usize,
}

/// What PHP asks of the gateway, in lines that the client never gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `X-Accel-Redirect`: a location that serves the body instead.
    pub accel_redirect: Option<Bytes>,
    /// `X-Sendfile`: a file that is the body.
    pub sendfile: Option<Bytes>,
    /// `X-Accel-Buffering: no` is `Some(false)`.
    pub buffering: Option<bool>,
}

/// Why a head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.what())]
pub enum ReplyFault {
    /// More than [`MAX_HEAD`].
    TooLarge,
    /// A line without a colon, or one that starts with it.
    NoName,
    /// A line that continues the one before.
    Folded,
    /// NUL or CR inside a value: a split answer.
    ControlByte,
    /// A status that is not one of a final answer.
    Status,
    /// A length that is no number, or several.
    ContentLength,
}

impl ReplyFault {
    /// The fault in words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::TooLarge => "a head of more than 64 KiB",
            Self::NoName => "a header line without a name",
            Self::Folded => "a folded header line",
            Self::ControlByte => "a control byte in a header value",
            Self::Status => "an invalid status",
            Self::ContentLength => "an invalid or repeated Content-Length",
        }
    }
}

/// Gathers the bytes of a head until it is whole.
#[derive(Debug, Default)]
pub struct ReplyParser {
    gathered: BytesMut,
}

impl ReplyParser {
    /// Takes the next bytes. Gives the reply, and what of `bytes` is body already, once the head is whole.
    ///
    /// # Errors
    /// The head cannot be passed on; the parser is of no further use.
    pub fn push(&mut self, bytes: Bytes) -> Result<Option<(Reply, Bytes)>, ReplyFault> {
        let searched = self.gathered.len();
        let mut whole = if searched == 0 {
            bytes
        } else {
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.extend_from_slice(&bytes);
            gathered.freeze()
        };
        // An empty line found anew may begin with the last line feed of what was there before.
        let Some(end) = head_end(&whole, searched.saturating_sub(2)) else {
            if whole.len() > MAX_HEAD {
                return Err(ReplyFault::TooLarge);
            }
            self.gathered = whole.into();
            return Ok(None);
        };
        if end > MAX_HEAD {
            return Err(ReplyFault::TooLarge);
        }
        let head = whole.split_to(end);
        Ok(Some((parse(&head)?, whole)))
    }
}

/// Where the head's empty line ends, looking no further back than `from`.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // A head of no lines at all is one, too.
    if bytes.first() == Some(&b'\n') {
        return Some(1);
    }
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr_iter(b'\n', bytes.get(from..)?).map(|found| from + found + 1).find_map(|next| match bytes.get(next..)? {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Reads a whole head, its empty line included.
fn parse(head: &Bytes) -> Result<Reply, ReplyFault> {
    let mut status = None;
    let mut reply = Reply {
        status: StatusCode::OK,
        headers: HeaderMap::with_capacity(12),
        content_length: None,
        directives: Directives::default(),
        dropped: 0,
    };
    let mut start = 0;
    for newline in memchr_iter(b'\n', head) {
        let line = head.get(start..newline).unwrap_or_default();
        let line_start = start;
        start = newline + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if line_start == 0 && line.starts_with(b"HTTP/") {
            // What PHP writes with cgi.rfc2616_headers=1 in place of `Status`.
            let code = memchr(b' ', line).and_then(|space| line.get(space + 1..)).ok_or(ReplyFault::Status)?;
            status = Some(parse_status(code)?);
            continue;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(ReplyFault::Folded);
        }
        let colon = memchr(b':', line).filter(|&colon| colon > 0).ok_or(ReplyFault::NoName)?;
        let (name, value) = line.split_at_checked(colon).ok_or(ReplyFault::NoName)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if memchr2(0, b'\r', value).is_some() || memchr2(0, b'\r', name).is_some() {
            return Err(ReplyFault::ControlByte);
        }
        if name.eq_ignore_ascii_case(b"status") {
            // The first one counts, as with nginx.
            if status.is_none() {
                status = Some(parse_status(value)?);
            }
        } else if !reply.take_line(name, head.slice_ref(value))? {
            reply.dropped += 1;
        }
    }
    reply.status = match status {
        Some(status) => status,
        None if reply.headers.contains_key(LOCATION) => StatusCode::FOUND,
        None => StatusCode::OK,
    };
    Ok(reply)
}

/// `NNN`, or `NNN reason`, of a final answer: FastCGI carries no 1xx, and clients know nothing above 599.
fn parse_status(value: &[u8]) -> Result<StatusCode, ReplyFault> {
    let (code, rest) = value.split_at_checked(3).ok_or(ReplyFault::Status)?;
    if !matches!(rest.first(), None | Some(b' ' | b'\t')) {
        return Err(ReplyFault::Status);
    }
    StatusCode::from_bytes(code).ok().filter(|status| (200..600).contains(&status.as_u16())).ok_or(ReplyFault::Status)
}

impl Reply {
    /// Files one line where it belongs; `false`: it was left out because it is no valid field.
    fn take_line(&mut self, name: &[u8], value: Bytes) -> Result<bool, ReplyFault> {
        let Ok(name) = HeaderName::from_bytes(name) else { return Ok(false) };
        if self.take_directive(&name, &value) || is_hidden(&name) {
            return Ok(true);
        }
        if name == CONTENT_LENGTH {
            if self.content_length.is_some() {
                return Err(ReplyFault::ContentLength);
            }
            self.content_length = Some(parse_length(&value).ok_or(ReplyFault::ContentLength)?);
        }
        let Ok(value) = HeaderValue::from_maybe_shared(value) else { return Ok(false) };
        if is_singleton(&name) {
            // The first one counts, as with nginx; a second `Location` could send the client elsewhere.
            self.headers.entry(name).or_insert(value);
        } else {
            self.headers.append(name, value);
        }
        Ok(true)
    }

    fn take_directive(&mut self, name: &HeaderName, value: &Bytes) -> bool {
        let directives = &mut self.directives;
        match name.as_str() {
            "x-accel-redirect" => _ = directives.accel_redirect.get_or_insert_with(|| value.clone()),
            "x-sendfile" => _ = directives.sendfile.get_or_insert_with(|| value.clone()),
            "x-accel-buffering" => {
                let no = value.eq_ignore_ascii_case(b"no");
                _ = directives.buffering.get_or_insert(!no);
            }
            _ => return false,
        }
        true
    }
}

/// `str::parse` would take `+5`.
fn parse_length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Fields of the connection to PHP, or for the gateway's eyes only.
fn is_hidden(name: &HeaderName) -> bool {
    name == CONNECTION
        || name == TRANSFER_ENCODING
        || name == UPGRADE
        || name == TRAILER
        || name == "keep-alive"
        || name.as_str().starts_with("x-accel-")
        || name.as_str().starts_with("proxy-")
}

fn is_singleton(name: &HeaderName) -> bool {
    [CONTENT_TYPE, LOCATION, EXPIRES, LAST_MODIFIED, ETAG].contains(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(head: &str) -> Result<Reply, ReplyFault> {
        let bytes = Bytes::copy_from_slice(head.as_bytes());
        ReplyParser::default().push(bytes).map(|done| done.expect("the head is whole").0)
    }

    fn header<'r>(reply: &'r Reply, name: &str) -> Vec<&'r str> {
        reply.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn a_usual_head_is_read() {
        let mut parser = ReplyParser::default();
        let bytes = Bytes::from_static(b"Status: 404 Not Found\r\nContent-type: text/html; charset=UTF-8\r\n\r\n<p>no");
        let (reply, rest) = parser.push(bytes).unwrap().unwrap();
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(header(&reply, "content-type"), ["text/html; charset=UTF-8"]);
        assert_eq!(reply.headers.len(), 1);
        assert_eq!(rest, "<p>no");
    }

    #[test]
    fn lines_may_end_in_a_bare_line_feed_and_a_head_may_be_empty() {
        assert_eq!(whole("X-A:  b \nX-C:\n\n").unwrap().headers.len(), 2);
        assert_eq!(whole("\r\n").unwrap().status, StatusCode::OK);
        assert_eq!(whole("\n").unwrap().headers.len(), 0);
    }

    #[test]
    fn the_status_comes_from_status_then_location_then_200() {
        assert_eq!(whole("Location: /x\n\n").unwrap().status, StatusCode::FOUND);
        assert_eq!(whole("Status: 201\nLocation: /x\n\n").unwrap().status, StatusCode::CREATED);
        assert_eq!(whole("Status: 201 A\nStatus: 500 B\n\n").unwrap().status, StatusCode::CREATED);
        assert_eq!(whole("HTTP/1.1 410 Gone\nX-A: b\n\n").unwrap().status, StatusCode::GONE);
        for bad in [
            "Status: 20\n\n",
            "Status: 2000\n\n",
            "Status: abc\n\n",
            "Status: 101 Up\n\n",
            "Status: 999 A\n\n",
            "Status: 600\n\n",
            "Status: 099\n\n",
            "Status:\n\n",
            "HTTP/1.1\n\n",
        ] {
            assert_eq!(whole(bad).unwrap_err(), ReplyFault::Status, "{bad:?}");
        }
    }

    #[test]
    fn what_could_split_an_answer_is_refused() {
        for (bad, fault) in [
            ("X-A: a\rb\n\n", ReplyFault::ControlByte),
            ("X-A: a\0b\n\n", ReplyFault::ControlByte),
            ("X-A\r: b\n\n", ReplyFault::ControlByte),
            ("no colon\n\n", ReplyFault::NoName),
            (": b\n\n", ReplyFault::NoName),
            ("X-A: a\n b\n\n", ReplyFault::Folded),
            ("Content-Length: 5\nContent-Length: 5\n\n", ReplyFault::ContentLength),
            ("Content-Length: +5\n\n", ReplyFault::ContentLength),
            ("Content-Length:\n\n", ReplyFault::ContentLength),
            ("Content-Length: 99999999999999999999\n\n", ReplyFault::ContentLength),
        ] {
            assert_eq!(whole(bad).unwrap_err(), fault, "{bad:?}");
        }
    }

    #[test]
    fn lines_no_client_could_read_are_left_out() {
        let reply = whole("X A: b\nX-B: \u{1}\nX-C: grün\n\n").unwrap();
        assert_eq!((reply.headers.len(), reply.dropped), (1, 2));
    }

    #[test]
    fn fields_of_the_connection_never_reach_the_client() {
        let reply = whole(
            "Connection: close\nKeep-Alive: 5\nTransfer-Encoding: chunked\nUpgrade: h2c\nTrailer: x\nProxy-Authenticate: b\n\
             X-Accel-Expires: 5\nX-Accel-Redirect: /in/a\nX-Accel-Buffering: NO\nX-Sendfile: /srv/a\nX-Kept: y\n\n",
        )
        .unwrap();
        assert_eq!(header(&reply, "x-kept"), ["y"]);
        assert_eq!(reply.headers.len(), 1);
        assert_eq!(reply.directives.accel_redirect.unwrap(), "/in/a");
        assert_eq!(reply.directives.sendfile.unwrap(), "/srv/a");
        assert_eq!(reply.directives.buffering, Some(false));
    }

    #[test]
    fn cookies_keep_their_order_and_singletons_their_first() {
        let reply = whole("Set-Cookie: a=1\nLocation: /1\nSet-Cookie: b=2\nLocation: /2\n\n").unwrap();
        assert_eq!(header(&reply, "set-cookie"), ["a=1", "b=2"]);
        assert_eq!(header(&reply, "location"), ["/1"]);
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let mut parser = ReplyParser::default();
        let line = Bytes::from(format!("X-A: {}\n", "a".repeat(20_000)));
        for _ in 0..3 {
            assert_eq!(parser.push(line.clone()), Ok(None));
        }
        assert_eq!(parser.push(line), Err(ReplyFault::TooLarge));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_reply(
            head in "(Status: 2[0-9]{2} ok\r?\n)?([A-Za-z-]{1,9}: ?[ -~]{0,12}\r?\n){0,6}\r?\n",
            body in "[\r\na-z]{0,20}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = Bytes::from(format!("{head}{body}"));
            let once = ReplyParser::default().push(bytes.clone());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut parser = ReplyParser::default();
            let mut parts = cuts.windows(2).map(|pair| bytes.slice(pair[0]..pair[1]));
            let split = loop {
                let Some(part) = parts.next() else { break Ok(None) };
                match parser.push(part) {
                    Ok(None) => {}
                    Ok(Some((reply, rest))) => {
                        let rest: Vec<u8> = rest.into_iter().chain(parts.flatten()).collect();
                        break Ok(Some((reply, Bytes::from(rest))));
                    }
                    Err(fault) => break Err(fault),
                }
            };
            prop_assert_eq!(split, once);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReplyParser::default().push(bytes.into());
        }
    }
}
