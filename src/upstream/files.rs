//! Files of the legacy application, served by the gateway itself.
//!
//! [`fastcgi::script`](super::fastcgi) finds and opens a file; this file turns it into a response:
//! validators, conditions, one byte range, and the bytes as the client takes them. What nginx says
//! of a file (its `ETag`, its types, its silence about charsets) is said here too, so that caches
//! filled before the gateway stood there stay valid.
//! It never opens anything by name, adds no headers that the application did not have before, and
//! never lets a file that shrank while it was read look complete.

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use ::http::header::{
    ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_range_header::{EndPosition, StartPosition, parse_range_header};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Error;
use crate::http::{Answer, Body, BoxError};

/// Bytes read at once; a file no longer than this is one read and no stream.
const CHUNK: u64 = 64 << 10;

/// The last second that an HTTP date can name (9999-12-31T23:59:59Z).
const LAST_DATE: u64 = 253_402_300_799;

/// Types of the web on which nginx and the registry of `mime_guess` differ.
const DIFFERING: [(&str, &str); 7] = [
    ("woff", "font/woff"),
    ("mjs", "text/javascript"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("m4a", "audio/x-m4a"),
    ("bmp", "image/x-ms-bmp"),
    ("mid", "audio/midi"),
];

/// A regular file, open and measured: what it says of itself is from the same moment as its descriptor.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: Arc<File>,
    length: u64,
    /// Seconds since 1970, kept within what an HTTP date can say.
    modified: u64,
    content_type: &'static str,
}

impl OpenFile {
    /// Takes an open file; `name` is what its type is guessed from. `None`: it is not a regular file.
    pub(crate) fn new(file: File, metadata: &Metadata, name: &[u8]) -> Option<Self> {
        metadata.is_file().then(|| Self {
            file: Arc::new(file),
            length: metadata.len(),
            modified: u64::try_from(metadata.mtime()).unwrap_or(0).min(LAST_DATE),
            content_type: content_type(name),
        })
    }

    /// nginx's: two hexadecimal numbers.
    fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.modified, self.length)
    }

    fn last_modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.modified)
    }
}

/// Serves an open file for a GET or HEAD request: whole, in part, or not at all if its conditions say so.
pub(crate) async fn serve(file: OpenFile, head: &request::Parts) -> Result<Response<Body>, Error> {
    let is_head = match head.method {
        Method::GET => false,
        Method::HEAD => true,
        _ => return Err(Error::FileMethod),
    };
    let etag = file.etag();
    let mut response = match judge(&head.headers, &etag, file.last_modified()) {
        Verdict::NotModified => bare(StatusCode::NOT_MODIFIED),
        Verdict::Failed => return Ok(bare(StatusCode::PRECONDITION_FAILED)),
        // A range has a meaning for GET alone.
        Verdict::Ranged if !is_head => match range(&head.headers, file.length) {
            Part::Whole => content(&file, 0, file.length, is_head).await?,
            Part::Bytes { first, last } => partial(&file, first, last).await?,
            Part::Unsatisfiable => return Ok(unsatisfiable(&file, head)),
        },
        Verdict::Ranged | Verdict::Whole => content(&file, 0, file.length, is_head).await?,
    };
    let headers = response.headers_mut();
    insert(headers, LAST_MODIFIED, httpdate::fmt_http_date(file.last_modified()));
    insert(headers, ETAG, etag);
    Ok(response)
}

/// What the conditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// 304: the client has it.
    NotModified,
    /// 412: the client wanted another state of the file.
    Failed,
    /// 200: the client has another state of the file than the one its range belongs to.
    Whole,
    /// 200, or 206 if there is a `Range`.
    Ranged,
}

/// Weighs the conditions in the order of RFC 9110 §13.2.2.
fn judge(headers: &HeaderMap, etag: &str, modified: SystemTime) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, &IF_MATCH, etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if date(headers, &IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, &IF_NONE_MATCH, etag, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if date(headers, &IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) {
        return Verdict::NotModified;
    }
    let Some(if_range) = headers.get(IF_RANGE) else { return Verdict::Ranged };
    // A date must be the very same: a file may change twice within its second.
    let same = if_range.as_bytes() == etag.as_bytes() || date(headers, &IF_RANGE) == Some(modified);
    if same { Verdict::Ranged } else { Verdict::Whole }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether the entity tags of a condition name this one.
fn lists(headers: &HeaderMap, name: &HeaderName, etag: &str, comparison: Comparison) -> bool {
    let tags = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    // Our own tags hold no comma, so a foreign one that is cut in two cannot be taken for ours.
    tags.flat_map(|value| value.split(',')).map(str::trim).any(|tag| match tag.strip_prefix("W/") {
        Some(weak) => comparison == Comparison::Weak && weak == etag,
        None => tag == etag || tag == "*",
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// The part of a file that is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Bytes { first: u64, last: u64 },
    Unsatisfiable,
}

/// Reads `Range`. One that is malformed, in another unit, or of several parts is answered with the
/// whole file, as RFC 9110 §14.2 allows: many small parts cost more than they save.
fn range(headers: &HeaderMap, length: u64) -> Part {
    let Some(ranges) = headers.get(RANGE).and_then(|value| parse_range_header(value.to_str().ok()?).ok()) else {
        return Part::Whole;
    };
    let [range] = ranges.ranges.as_slice() else { return Part::Whole };
    if let (StartPosition::Index(first), EndPosition::Index(last)) = (range.start, range.end)
        && first > last
    {
        return Part::Whole;
    }
    let Some(end) = length.checked_sub(1) else { return Part::Unsatisfiable };
    let first = match range.start {
        StartPosition::Index(first) => first,
        StartPosition::FromLast(count) => length.saturating_sub(count),
    };
    let last = match range.end {
        EndPosition::Index(last) => last.min(end),
        EndPosition::LastByte => end,
    };
    if first > end { Part::Unsatisfiable } else { Part::Bytes { first, last } }
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

async fn content(file: &OpenFile, first: u64, length: u64, is_head: bool) -> Result<Response<Body>, Error> {
    let body = if is_head { Body::Empty } else { body(file, first, length).await.map_err(Error::File)? };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

async fn partial(file: &OpenFile, first: u64, last: u64) -> Result<Response<Body>, Error> {
    let mut response = content(file, first, last - first + 1, false).await?;
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    insert(response.headers_mut(), CONTENT_RANGE, format!("bytes {first}-{last}/{}", file.length));
    Ok(response)
}

fn unsatisfiable(file: &OpenFile, head: &request::Parts) -> Response<Body> {
    let request_id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let mut response = Answer::RangeNotSatisfiable.render(head.headers.get(ACCEPT), request_id);
    insert(response.headers_mut(), CONTENT_RANGE, format!("bytes */{}", file.length));
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// What nginx calls a file of this name, but for JavaScript, which has its registered name.
/// `text/*` gets no charset: the application's pages say it themselves or rely on there being none.
fn content_type(name: &[u8]) -> &'static str {
    const UNKNOWN: &str = "application/octet-stream";
    let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = base.rsplit(|&byte| byte == b'.').next().filter(|extension| extension.len() < base.len());
    let Some(extension) = extension.and_then(|extension| std::str::from_utf8(extension).ok()) else { return UNKNOWN };
    let differing = DIFFERING.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    differing.map(|(_, kind)| *kind).or_else(|| mime_guess::from_ext(extension).first_raw()).unwrap_or(UNKNOWN)
}

async fn body(file: &OpenFile, offset: u64, length: u64) -> io::Result<Body> {
    let file = Arc::clone(&file.file);
    if length > CHUNK {
        return Ok(Body::stream(FileBody { file, offset, left: length, reading: None }));
    }
    let mut read = Vec::new();
    if length > 0 {
        read = cached(&file, offset, length)?.unwrap_or_default();
    }
    let missing = length - read.len() as u64;
    if missing > 0 {
        let from = offset + read.len() as u64;
        read.extend(spawn_blocking(move || exactly(&file, from, missing)).await.map_err(io::Error::other)??);
    }
    Ok(Body::from(Bytes::from(read)))
}

fn buffer(length: u64) -> Vec<u8> {
    vec![0; usize::try_from(length.min(CHUNK)).unwrap_or_default()]
}

/// Reads what the kernel has in memory, without waiting for a disk; `None`: it has nothing at hand.
///
/// Most files served are in memory already. Reading those at once spares them the way to another
/// thread and back, which costs more than the copy.
fn cached(file: &File, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = buffer(length);
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(shrunk()),
        Ok(count) => {
            bytes.truncate(count);
            Ok(Some(bytes))
        }
        // Not in memory, or a file system or kernel that cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads up to one chunk, waiting for the disk: on a thread that may wait.
fn exactly(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = buffer(length);
    file.read_exact_at(&mut bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => shrunk(),
        _ => error,
    })?;
    Ok(bytes)
}

fn shrunk() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read")
}

/// The bytes of a file, a chunk at a time, read when the client has taken the chunk before.
struct FileBody {
    file: Arc<File>,
    offset: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FileBody {
    fn give(&mut self, bytes: Vec<u8>) -> Frame<Bytes> {
        let count = bytes.len() as u64;
        self.offset += count;
        self.left = self.left.saturating_sub(count);
        Frame::data(Bytes::from(bytes))
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match this.reading.take() {
            Some(reading) => reading,
            None => match cached(&this.file, this.offset, this.left) {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(this.give(bytes)))),
                Ok(None) => {
                    let (file, offset, length) = (Arc::clone(&this.file), this.offset, this.left.min(CHUNK));
                    spawn_blocking(move || exactly(&file, offset, length))
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            },
        };
        match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                this.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(read) => {
                let read = read.map_err(io::Error::other).and_then(|read| read);
                Poll::Ready(Some(read.map(|bytes| this.give(bytes)).map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ::http::Request;
    use http_body_util::BodyExt;

    use super::*;

    /// 2023-11-14T22:13:20Z
    const MODIFIED: u64 = 1_700_000_000;
    const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const LATER: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
    const EARLIER: &str = "Tue, 14 Nov 2023 22:13:19 GMT";
    const TAG: &str = "\"6553f100-a\"";

    fn open(content: &[u8], name: &str) -> (OpenFile, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED)).unwrap();
        let writer = file.try_clone().unwrap();
        let metadata = file.metadata().unwrap();
        (OpenFile::new(file, &metadata, name.as_bytes()).unwrap(), writer)
    }

    fn request(method: &str, headers: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    async fn ask(method: &str, headers: &[(&'static str, &str)]) -> Response<Body> {
        serve(open(b"0123456789", "/a.txt").0, &request(method, headers)).await.unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn header(response: &Response<Body>, name: HeaderName) -> &str {
        response.headers().get(name).map_or("-", |value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn a_whole_file_says_what_nginx_says_of_it() {
        let response = ask("GET", &[]).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, ETAG), TAG);
        assert_eq!(header(&response, LAST_MODIFIED), DATE);
        assert_eq!(header(&response, CONTENT_TYPE), "text/plain");
        assert_eq!(header(&response, CONTENT_LENGTH), "10");
        assert_eq!(header(&response, ACCEPT_RANGES), "bytes");
        assert_eq!(response.headers().len(), 5);
        assert_eq!(text(response).await, "0123456789");
    }

    #[tokio::test]
    async fn head_has_the_length_and_no_bytes() {
        let response = ask("HEAD", &[("range", "bytes=0-1")]).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, CONTENT_LENGTH), "10");
        assert_eq!(text(response).await, "");
    }

    #[tokio::test]
    async fn other_methods_are_refused() {
        let (file, _) = open(b"x", "/a");
        assert!(matches!(serve(file, &request("POST", &[])).await, Err(Error::FileMethod)));
    }

    #[tokio::test]
    async fn conditions_are_weighed_in_the_order_of_the_rfc() {
        let cases: &[(&[(&'static str, &str)], u16)] = &[
            (&[("if-none-match", TAG)], 304),
            (&[("if-none-match", "W/\"6553f100-a\"")], 304),
            (&[("if-none-match", "\"x\", \"6553f100-a\"")], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"x\"")], 200),
            (&[("if-none-match", "\"x\""), ("if-modified-since", DATE)], 200),
            (&[("if-none-match", TAG), ("if-modified-since", EARLIER)], 304),
            (&[("if-modified-since", DATE)], 304),
            (&[("if-modified-since", LATER)], 304),
            (&[("if-modified-since", EARLIER)], 200),
            (&[("if-modified-since", "yesterday")], 200),
            (&[("if-match", TAG)], 200),
            (&[("if-match", "*")], 200),
            (&[("if-match", "W/\"6553f100-a\"")], 412),
            (&[("if-match", "\"x\"")], 412),
            (&[("if-match", TAG), ("if-unmodified-since", EARLIER)], 200),
            (&[("if-unmodified-since", EARLIER)], 412),
            (&[("if-unmodified-since", DATE)], 200),
            (&[("if-match", "\"x\""), ("if-none-match", TAG)], 412),
            (&[("if-none-match", TAG), ("range", "bytes=0-1")], 304),
            (&[("range", "bytes=0-1"), ("if-range", TAG)], 206),
            (&[("range", "bytes=0-1"), ("if-range", "W/\"6553f100-a\"")], 200),
            (&[("range", "bytes=0-1"), ("if-range", "\"x\"")], 200),
            (&[("range", "bytes=0-1"), ("if-range", DATE)], 206),
            (&[("range", "bytes=0-1"), ("if-range", LATER)], 200),
            (&[("range", "bytes=90-"), ("if-range", "\"x\"")], 200),
        ];
        for (headers, status) in cases {
            let response = ask("GET", headers).await;
            assert_eq!(response.status(), *status, "{headers:?}");
            if *status == 304 {
                assert_eq!(header(&response, ETAG), TAG);
                assert_eq!(header(&response, CONTENT_LENGTH), "-");
                assert_eq!(text(response).await, "");
            }
        }
    }

    #[tokio::test]
    async fn one_range_is_answered_in_part() {
        for (asked, answered, bytes) in [
            ("bytes=0-3", "bytes 0-3/10", "0123"),
            ("bytes=4-", "bytes 4-9/10", "456789"),
            ("bytes=-3", "bytes 7-9/10", "789"),
            ("bytes=-30", "bytes 0-9/10", "0123456789"),
            ("bytes=8-99", "bytes 8-9/10", "89"),
            ("bytes=9-9", "bytes 9-9/10", "9"),
        ] {
            let response = ask("GET", &[("range", asked)]).await;
            assert_eq!(response.status(), 206, "{asked}");
            assert_eq!(header(&response, CONTENT_RANGE), answered);
            assert_eq!(header(&response, CONTENT_LENGTH), bytes.len().to_string());
            assert_eq!(text(response).await, bytes);
        }
    }

    #[tokio::test]
    async fn ranges_that_are_several_or_malformed_get_the_whole_file() {
        for asked in ["bytes=0-1,3-4", "bytes=3-1", "lines=0-1", "bytes=x", "bytes", "bytes=-"] {
            let response = ask("GET", &[("range", asked)]).await;
            assert_eq!(response.status(), 200, "{asked}");
            assert_eq!(text(response).await, "0123456789");
        }
    }

    #[tokio::test]
    async fn a_range_beyond_the_end_is_told_the_length() {
        let response = ask("GET", &[("range", "bytes=10-")]).await;
        assert_eq!(response.status(), 416);
        assert_eq!(header(&response, CONTENT_RANGE), "bytes */10");
        let (empty, _) = open(b"", "/a");
        let response = serve(empty, &request("GET", &[("range", "bytes=0-")])).await.unwrap();
        assert_eq!(response.status(), 416);
    }

    #[tokio::test]
    async fn an_empty_file_is_an_empty_answer() {
        let response = serve(open(b"", "/a.css").0, &request("GET", &[])).await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, CONTENT_LENGTH)), (200, "0"));
        assert_eq!(text(response).await, "");
    }

    #[tokio::test]
    async fn a_large_file_comes_in_chunks() {
        let content: Vec<u8> = (0..200_000u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (file, _) = open(&content, "/a.bin");
        let mut body = serve(file, &request("GET", &[])).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(200_000));
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() as u64 <= CHUNK);
            read.extend_from_slice(&data);
        }
        assert!(body.is_end_stream());
        assert_eq!(read, content);
        let (file, _) = open(&content, "/a.bin");
        let part = serve(file, &request("GET", &[("range", "bytes=1000-150000")])).await.unwrap();
        assert_eq!(part.into_body().collect().await.unwrap().to_bytes(), &content[1000..=150_000]);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_never_looks_complete() {
        let (file, writer) = open(&[7; 200_000], "/a.bin");
        let mut body = serve(file, &request("GET", &[])).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        writer.set_len(100_000).unwrap();
        assert!(body.collect().await.is_err());
        let (file, writer) = open(&[7; 2000], "/a.bin");
        writer.set_len(1000).unwrap();
        assert!(matches!(serve(file, &request("GET", &[])).await, Err(Error::File(_))));
    }

    #[test]
    fn reading_from_the_disk_gives_what_reading_from_memory_gives() {
        let (file, _) = open(&[7; 100_000], "/a.bin");
        assert_eq!(exactly(&file.file, 10, 100_000).unwrap().len() as u64, CHUNK);
        assert_eq!(exactly(&file.file, 99_990, 10).unwrap(), [7; 10]);
        assert_eq!(exactly(&file.file, 99_990, 11).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn types_are_those_nginx_gives() {
        for (name, expected) in [
            ("/a.js", "text/javascript"),
            ("/a.mjs", "text/javascript"),
            ("/a.css", "text/css"),
            ("/a.min.css", "text/css"),
            ("/a.HTML", "text/html"),
            ("/a.json", "application/json"),
            ("/a.xml", "text/xml"),
            ("/a.txt", "text/plain"),
            ("/a.svg", "image/svg+xml"),
            ("/a.ico", "image/x-icon"),
            ("/a.png", "image/png"),
            ("/a.jpg", "image/jpeg"),
            ("/a.webp", "image/webp"),
            ("/a.avif", "image/avif"),
            ("/a.woff2", "font/woff2"),
            ("/a.woff", "font/woff"),
            ("/a.TS", "video/mp2t"),
            ("/a.pdf", "application/pdf"),
            ("/a.wasm", "application/wasm"),
            ("/a.mp4", "video/mp4"),
            ("/a.zip", "application/zip"),
            ("/a.unheard-of", "application/octet-stream"),
            ("/css", "application/octet-stream"),
            ("/a.d/README", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn times_no_http_date_can_say_do_no_harm() {
        for modified in [u64::MAX >> 16, LAST_DATE + 1] {
            let file = tempfile::tempfile().unwrap();
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(modified));
            // Not every file system can store such a time; those that cannot have nothing to show here.
            if let Some(time) = time {
                drop(file.set_modified(time));
            }
            let metadata = file.metadata().unwrap();
            let open = OpenFile::new(file, &metadata, b"/a").unwrap();
            assert!(httpdate::fmt_http_date(open.last_modified()).ends_with("GMT"));
        }
    }
}
