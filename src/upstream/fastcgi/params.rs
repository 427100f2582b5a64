//! What PHP is told of a request: BEGIN and the CGI parameters, as the bytes that are sent.
//!
//! Pure, and made once a request, before a PHP process is taken. The parameters that never change
//! are encoded once a pool ([`Constants`]). FPM reads each PARAMS record by itself, so a pair never
//! straddles two records, and one that fits in none is refused before anything is sent. No byte of
//! a client reaches a parameter's name but behind `HTTP_`, and there only letters, digits and `_`.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderName, HeaderValue, Version, request::Parts};

use super::Settings;
use super::record::{self, HEADER_BYTES, Kind, MAX_CONTENT};
use super::script::Script;
use crate::http::Client;
use crate::spool::Spooled;
use crate::upstream::Error;

/// The parameters that are the same for every request to one pool, encoded.
#[derive(Debug)]
pub(super) struct Constants {
    /// Whole pairs, each run no longer than a record's content.
    first: Vec<Bytes>,
    /// `params` of the upstream: last, because with FPM the last of two equal names wins.
    configured: Vec<Bytes>,
}

impl Constants {
    pub(super) fn new(settings: &Settings) -> Self {
        let fixed: [(&[u8], &[u8]); 3] = [
            (b"GATEWAY_INTERFACE", b"CGI/1.1"),
            (b"SERVER_SOFTWARE", b"strangler"),
            // php-cgi refuses to work without it; applications have come to expect it of FPM, too.
            (b"REDIRECT_STATUS", b"200"),
        ];
        let configured = settings.params.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Self { first: encode_runs(fixed.into_iter()), configured: encode_runs(configured) }
    }
}

/// Encodes pairs into runs that fit in a record each. A pair that fits in none is left out: `config` refuses it.
fn encode_runs<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>) -> Vec<Bytes> {
    let (mut runs, mut run) = (Vec::new(), BytesMut::new());
    for (name, value) in pairs {
        let mut pair = BytesMut::new();
        put_length(&mut pair, name.len());
        put_length(&mut pair, value.len());
        pair.extend_from_slice(name);
        pair.extend_from_slice(value);
        if run.len() + pair.len() > MAX_CONTENT {
            runs.push(run.split().freeze());
        }
        if pair.len() <= MAX_CONTENT {
            run.extend_from_slice(&pair);
        }
    }
    if !run.is_empty() {
        runs.push(run.freeze());
    }
    runs
}

/// What one request's parameters are made of.
pub(super) struct Request<'r> {
    pub(super) head: &'r Parts,
    pub(super) request_id: &'r HeaderValue,
    pub(super) client: &'r Client,
    pub(super) script: &'r Script,
    pub(super) body: &'r Spooled,
}

/// Appends BEGIN, the PARAMS records and the empty PARAMS to `out`.
///
/// With no body the empty STDIN follows, so that the whole request is one run of bytes.
pub(super) fn encode(request: &Request<'_>, constants: &Constants, out: &mut BytesMut) -> Result<(), Error> {
    out.extend_from_slice(&record::BEGIN);
    let mut params = Encoder::open(out);
    for run in &constants.first {
        params.run(run)?;
    }
    put_script(&mut params, request.script)?;
    put_request(&mut params, request)?;
    put_connection(&mut params, request)?;
    put_headers(&mut params, request)?;
    for run in &constants.configured {
        params.run(run)?;
    }
    params.close();
    out.extend_from_slice(&record::END_OF_PARAMS);
    if request.body.length() == 0 {
        out.extend_from_slice(&record::END_OF_STDIN);
    }
    Ok(())
}

fn put_script(params: &mut Encoder<'_>, script: &Script) -> Result<(), Error> {
    let Script { document_root, filename, name, path_info } = script;
    params.pair(b"DOCUMENT_ROOT", document_root)?;
    params.pair(b"SCRIPT_FILENAME", filename)?;
    params.pair(b"SCRIPT_NAME", name)?;
    let Some(path_info) = path_info else { return params.pair(b"DOCUMENT_URI", name) };
    params.parts(b"", b"DOCUMENT_URI", b"", [name.as_slice(), path_info].into_iter())?;
    params.pair(b"PATH_INFO", path_info)?;
    params.parts(b"", b"PATH_TRANSLATED", b"", [document_root, path_info.as_slice()].into_iter())
}

fn put_request(params: &mut Encoder<'_>, request: &Request<'_>) -> Result<(), Error> {
    let head = request.head;
    params.pair(b"REQUEST_METHOD", head.method.as_str().as_bytes())?;
    // The target as it came, but for scheme and host of the absolute form.
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    params.pair(b"REQUEST_URI", target.as_bytes())?;
    params.pair(b"QUERY_STRING", head.uri.query().unwrap_or_default().as_bytes())?;
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    params.pair(b"CONTENT_TYPE", content_type)?;
    // FPM reads as many bytes as this says and no more; the client's own word is checked against the body.
    match request.body.length() {
        0 if !head.headers.contains_key(CONTENT_LENGTH) => params.pair(b"CONTENT_LENGTH", b""),
        length => params.number(b"CONTENT_LENGTH", length),
    }
}

fn put_connection(params: &mut Encoder<'_>, request: &Request<'_>) -> Result<(), Error> {
    let Request { head, client, .. } = request;
    let protocol: &[u8] = match head.version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    };
    params.pair(b"SERVER_PROTOCOL", protocol)?;
    // Absent without TLS: some applications take even "off" for on.
    if client.https {
        params.pair(b"HTTPS", b"on")?;
    }
    params.pair(b"REQUEST_SCHEME", if client.https { b"https" } else { b"http" })?;
    params.pair(b"REMOTE_ADDR", client.ip_text.as_bytes())?;
    params.number(b"REMOTE_PORT", client.port.into())?;
    params.pair(b"SERVER_ADDR", client.server_ip_text.as_bytes())?;
    params.number(b"SERVER_PORT", client.server.port().into())?;
    match host(head) {
        Some(host) => {
            params.pair(b"SERVER_NAME", without_port(host))?;
            params.pair(b"HTTP_HOST", host)
        }
        None => params.pair(b"SERVER_NAME", client.server_ip_text.as_bytes()),
    }
}

/// Whom the client wants to speak to: the target's authority (absolute form, HTTP/2) before `Host`.
fn host(head: &Parts) -> Option<&[u8]> {
    let of_target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    of_target.or_else(|| head.headers.get(HOST).map(HeaderValue::as_bytes))
}

fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if host.get(at) == Some(&b':') => host.get(..at).unwrap_or(host),
        _ => host,
    }
}

fn put_headers(params: &mut Encoder<'_>, request: &Request<'_>) -> Result<(), Error> {
    params.pair(b"HTTP_X_REQUEST_ID", request.request_id.as_bytes())?;
    // A name's values stand next to each other in the map's own order.
    let mut headers = request.head.headers.iter().peekable();
    let mut repeated: Vec<&[u8]> = Vec::new();
    while let Some((name, value)) = headers.next() {
        if !is_told(name) {
            continue;
        }
        if headers.peek().is_none_or(|(next, _)| *next != name) {
            params.header(name, std::iter::once(value.as_bytes()))?;
            continue;
        }
        repeated.clear();
        repeated.push(value.as_bytes());
        while let Some((_, value)) = headers.next_if(|(next, _)| *next == name) {
            repeated.push(value.as_bytes());
        }
        params.header(name, repeated.iter().copied())?;
    }
    Ok(())
}

/// Whether PHP is told of a field, and here: not of `Host` and `X-Request-Id`, which it is told of elsewhere.
///
/// PHP reads `_`, `.` and `-` in a name alike, so a name with any of the former would pass for a
/// trusted one; `HTTP_PROXY` is where libraries look for the proxy they shall use; the rest belongs
/// to the connection with the client.
fn is_told(name: &HeaderName) -> bool {
    let told = !matches!(
        name.as_str(),
        "host"
            | "x-request-id"
            | "connection"
            | "upgrade"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "proxy"
            | "proxy-authorization"
            | "proxy-connection"
    );
    told && name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Writes pairs into PARAMS records.
struct Encoder<'o> {
    out: &'o mut BytesMut,
    /// Where the open record's content begins.
    content: usize,
}

impl<'o> Encoder<'o> {
    fn open(out: &'o mut BytesMut) -> Self {
        out.extend_from_slice(&record::header(Kind::Params, 0));
        let content = out.len();
        Self { out, content }
    }

    /// Writes the open record's length into its header.
    fn close(&mut self) {
        // `reserve` keeps the content below the largest a record can have.
        let length = u16::try_from(self.out.len() - self.content).unwrap_or(u16::MAX);
        let header = self.out.get_mut(self.content - HEADER_BYTES..self.content);
        if let Some(header) = header {
            header.copy_from_slice(&record::header(Kind::Params, length));
        }
    }

    /// Makes room for `length` bytes that must stay in one record.
    fn reserve(&mut self, length: usize) -> bool {
        if self.out.len() - self.content + length <= MAX_CONTENT {
            return true;
        }
        if length > MAX_CONTENT {
            return false;
        }
        self.close();
        self.out.extend_from_slice(&record::header(Kind::Params, 0));
        self.content = self.out.len();
        true
    }

    fn run(&mut self, run: &Bytes) -> Result<(), Error> {
        if !self.reserve(run.len()) {
            return Err(too_large(b"params", run.len()));
        }
        self.out.extend_from_slice(run);
        Ok(())
    }

    fn pair(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.parts(b"", name, b"", std::iter::once(value))
    }

    fn number(&mut self, name: &[u8], number: u64) -> Result<(), Error> {
        // Not by `fmt`: there are several a request, and it takes longer than all the other parameters.
        self.pair(name, itoa::Buffer::new().format(number).as_bytes())
    }

    /// `accept-language` becomes `HTTP_ACCEPT_LANGUAGE`; several values become one.
    fn header<'v>(&mut self, name: &HeaderName, values: impl Iterator<Item = &'v [u8]> + Clone) -> Result<(), Error> {
        let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
        self.parts(b"HTTP_", name.as_str().as_bytes(), separator, values)
    }

    /// A pair of `prefix` + `name` and the joined `parts`. A prefixed name is a header's, and is put in upper case.
    fn parts<'v>(
        &mut self,
        prefix: &[u8],
        name: &[u8],
        separator: &[u8],
        parts: impl Iterator<Item = &'v [u8]> + Clone,
    ) -> Result<(), Error> {
        let name_length = prefix.len() + name.len();
        let joined: usize = parts.clone().map(|part| part.len() + separator.len()).sum();
        let value_length = joined.saturating_sub(separator.len());
        let length = length_bytes(name_length) + length_bytes(value_length) + name_length + value_length;
        if !self.reserve(length) {
            return Err(too_large(name, length));
        }
        put_length(self.out, name_length);
        put_length(self.out, value_length);
        self.out.extend_from_slice(prefix);
        let start = self.out.len();
        self.out.extend_from_slice(name);
        if !prefix.is_empty() {
            // In place: byte by byte a buffer asks each time whether there is room.
            let written = self.out.get_mut(start..).unwrap_or_default();
            written.iter_mut().for_each(|byte| *byte = if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
        }
        for (index, part) in parts.enumerate() {
            if index > 0 {
                self.out.extend_from_slice(separator);
            }
            self.out.extend_from_slice(part);
        }
        Ok(())
    }
}

fn too_large(name: &[u8], length: usize) -> Error {
    Error::HeaderTooLarge { name: String::from_utf8_lossy(name).into_owned(), length }
}

fn length_bytes(length: usize) -> usize {
    if length < 0x80 { 1 } else { 4 }
}

fn put_length(out: &mut BytesMut, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.put_u8(short),
        // Longer ones than a record holds are refused by `reserve`.
        _ => out.put_u32(u32::try_from(length).unwrap_or(u32::MAX) | 0x8000_0000),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::Request as HttpRequest;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::fastcgi::tests::settings;

    /// The pairs of all PARAMS records at the front of `bytes`, each record read by itself as FPM does.
    pub(in super::super) fn decode(mut bytes: &[u8]) -> (Vec<(String, String)>, usize) {
        let (mut pairs, mut records) = (Vec::new(), 0);
        assert_eq!(bytes[..16], record::BEGIN);
        bytes = &bytes[16..];
        loop {
            assert_eq!((bytes[0], bytes[1], bytes[6]), (1, 4, 0));
            let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            let mut content = &bytes[8..8 + length];
            bytes = &bytes[8 + length..];
            if length == 0 {
                return (pairs, records);
            }
            records += 1;
            while !content.is_empty() {
                let mut take_length = || {
                    let length = usize::from(content[0]);
                    if length < 0x80 {
                        content = &content[1..];
                        return length;
                    }
                    let long = u32::from_be_bytes([content[0] & 0x7f, content[1], content[2], content[3]]);
                    content = &content[4..];
                    long as usize
                };
                let (name, value) = (take_length(), take_length());
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                pairs.push((text(&content[..name]), text(&content[name..name + value])));
                content = &content[name + value..];
            }
        }
    }

    fn encoded(
        request: HttpRequest<()>,
        body: &Spooled,
        change: impl FnOnce(&mut Settings),
    ) -> Result<BytesMut, Error> {
        let mut settings = settings("/unused".into());
        change(&mut settings);
        let script = Script {
            document_root: b"/srv/www".as_slice().into(),
            filename: b"/srv/www/index.php".to_vec(),
            name: b"/index.php".to_vec(),
            path_info: request.uri().path().strip_prefix("/index.php").map(|rest| rest.as_bytes().to_vec()),
        };
        let client =
            Client::of_connection("198.51.100.7:50123".parse().unwrap(), "[::ffff:203.0.113.1]:8080".parse().unwrap());
        let head = request.into_parts().0;
        let id = HeaderValue::from_static("id-1");
        let request = Request { head: &head, request_id: &id, client: &client, script: &script, body };
        let mut out = BytesMut::new();
        encode(&request, &Constants::new(&settings), &mut out).map(|()| out)
    }

    fn params(request: HttpRequest<()>) -> Vec<(String, String)> {
        decode(&encoded(request, &Spooled::Empty, |_| {}).unwrap()).0
    }

    fn value<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
        pairs.iter().rev().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    fn get(target: &str) -> http::request::Builder {
        HttpRequest::get(target).header("host", "shop.example:8080")
    }

    #[test]
    fn a_request_is_told_as_nginx_tells_it() {
        let pairs = params(get("/a%20b?x=1&y").header("accept-language", "de").body(()).unwrap());
        for (name, expected) in [
            ("SCRIPT_FILENAME", "/srv/www/index.php"),
            ("SCRIPT_NAME", "/index.php"),
            ("DOCUMENT_URI", "/index.php"),
            ("DOCUMENT_ROOT", "/srv/www"),
            ("REQUEST_URI", "/a%20b?x=1&y"),
            ("QUERY_STRING", "x=1&y"),
            ("REQUEST_METHOD", "GET"),
            ("CONTENT_TYPE", ""),
            ("CONTENT_LENGTH", ""),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REQUEST_SCHEME", "http"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", "strangler"),
            ("REMOTE_ADDR", "198.51.100.7"),
            ("REMOTE_PORT", "50123"),
            ("SERVER_ADDR", "203.0.113.1"),
            ("SERVER_PORT", "8080"),
            ("SERVER_NAME", "shop.example"),
            ("REDIRECT_STATUS", "200"),
            ("HTTP_HOST", "shop.example:8080"),
            ("HTTP_ACCEPT_LANGUAGE", "de"),
            ("HTTP_X_REQUEST_ID", "id-1"),
        ] {
            assert_eq!(value(&pairs, name), Some(expected), "{name}");
        }
        for absent in ["HTTPS", "PATH_INFO", "PATH_TRANSLATED"] {
            assert_eq!(value(&pairs, absent), None, "{absent}");
        }
    }

    #[test]
    fn path_info_brings_its_companions() {
        let pairs = params(get("/index.php/a/b").body(()).unwrap());
        assert_eq!(value(&pairs, "PATH_INFO"), Some("/a/b"));
        assert_eq!(value(&pairs, "PATH_TRANSLATED"), Some("/srv/www/a/b"));
        assert_eq!(value(&pairs, "DOCUMENT_URI"), Some("/index.php/a/b"));
    }

    #[test]
    fn the_targets_authority_wins_over_host() {
        let pairs = params(HttpRequest::get("http://a.example/x?y").header("host", "b.example").body(()).unwrap());
        assert_eq!(value(&pairs, "HTTP_HOST"), Some("a.example"));
        assert_eq!(value(&pairs, "REQUEST_URI"), Some("/x?y"));
        assert_eq!(without_port(b"[::1]:80"), b"[::1]");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
    }

    #[test]
    fn names_that_pass_for_others_are_not_told() {
        let request = get("/")
            .header("proxy", "http://evil")
            .header("x_forwarded_for", "1.2.3.4")
            .header("x.real.ip", "1.2.3.4")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("x-kept", "y");
        let pairs = params(request.body(()).unwrap());
        let http: Vec<&str> =
            pairs.iter().map(|pair| pair.0.as_str()).filter(|name| name.starts_with("HTTP_")).collect();
        assert_eq!(http, ["HTTP_HOST", "HTTP_X_REQUEST_ID", "HTTP_X_KEPT"]);
    }

    #[test]
    fn repeated_fields_become_one() {
        let request = get("/").header("cookie", "a=1").header("x-a", "1").header("cookie", "b=2").header("x-a", "2");
        let pairs = params(request.header("x-b", "3").body(()).unwrap());
        assert_eq!(value(&pairs, "HTTP_COOKIE"), Some("a=1; b=2"));
        assert_eq!(value(&pairs, "HTTP_X_A"), Some("1, 2"));
        assert_eq!(value(&pairs, "HTTP_X_B"), Some("3"));
    }

    #[test]
    fn the_length_is_the_bodys_own() {
        let request = get("/").header("content-type", "text/plain").body(()).unwrap();
        let out = encoded(request, &Spooled::Memory(Bytes::from_static(b"hello")), |_| {}).unwrap();
        let pairs = decode(&out).0;
        assert_eq!(value(&pairs, "CONTENT_LENGTH"), Some("5"));
        assert_eq!(value(&pairs, "CONTENT_TYPE"), Some("text/plain"));
        assert!(out.ends_with(&record::END_OF_PARAMS));
    }

    #[test]
    fn configured_params_have_the_last_word() {
        let request = get("/").body(()).unwrap();
        let params = vec![("APP_ENV".into(), "test".into()), ("SERVER_NAME".into(), "fixed".into())];
        let out = encoded(request, &Spooled::Empty, |settings| settings.params = params).unwrap();
        let pairs = decode(&out).0;
        assert_eq!(value(&pairs, "APP_ENV"), Some("test"));
        assert_eq!(value(&pairs, "SERVER_NAME"), Some("fixed"));
    }

    #[test]
    fn a_pair_goes_into_one_record_or_nowhere() {
        let big = |length: usize| get("/").header("x-a", "v".repeat(length)).header("x-b", "w".repeat(40_000));
        // Name, 1 + 4 bytes of lengths, value: 65,535 in all.
        let fits = 65_535 - 5 - "HTTP_X_A".len();
        let out = encoded(big(fits).body(()).unwrap(), &Spooled::Empty, |_| {}).unwrap();
        let (pairs, records) = decode(&out);
        assert_eq!(value(&pairs, "HTTP_X_A").unwrap().len(), fits);
        assert_eq!(value(&pairs, "HTTP_X_B").unwrap().len(), 40_000);
        assert_eq!(records, 3);
        let error = encoded(big(fits + 1).body(()).unwrap(), &Spooled::Empty, |_| {}).unwrap_err();
        assert!(matches!(error, Error::HeaderTooLarge { length: 65_536, .. }), "{error:?}");
    }

    proptest! {
        #[test]
        fn whatever_the_headers_the_records_can_be_read(
            headers in prop::collection::vec(("[a-zA-Z0-9_.!-]{1,20}", "[ -~]{0,200}"), 0..20),
        ) {
            let mut request = get("/");
            for (name, value) in &headers {
                request = request.header(name.as_str(), value.as_str());
            }
            let pairs = params(request.body(()).unwrap());
            let named = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            prop_assert!(pairs.iter().all(|(name, _)| name.chars().all(named)));
        }
    }
}
