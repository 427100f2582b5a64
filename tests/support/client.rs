//! A client for what well-behaved ones do not do: bytes out, bytes in, one connection, no opinion.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Only a failing test waits so long for bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body, with a chunked coding taken off.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its head promised.
    pub complete: bool,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of an answer of the gateway's own; 0 when it is not one.
    pub fn json_code(&self) -> u64 {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["code"].as_u64().unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes; a peer that has gone is seen when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that no more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Lets the connection break as a crashed client does: with RST.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
        drop(self);
    }

    /// Reads more; `false` at the end of the stream.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("the server says something");
        matches!(read, Ok(count) if count > 0)
    }

    /// Reads until these bytes have come, and gives all that came so far, which stays unread.
    pub async fn until(&mut self, wanted: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(self.more().await, "the stream ended before {wanted:?}: {text:?}");
        }
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Whether the server closes the connection within `patience` without a further byte.
    pub async fn closes_within(&mut self, patience: Duration) -> bool {
        self.read.is_empty()
            && matches!(timeout(patience, self.stream.read_buf(&mut self.read)).await, Ok(Ok(0) | Err(_)))
    }

    /// Reads one answer to a request with this method; 1xx ones are passed over. `None`: closed before a head.
    pub async fn answer(&mut self, method: &str) -> Option<Answer> {
        loop {
            let (status, headers) = self.head().await?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new(), trailers: Vec::new(), complete: true };
            if method == "HEAD" || matches!(status, 101 | 204 | 304) {
                return Some(answer);
            }
            let chunked =
                answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
            let length = answer.header("content-length").map(|length| length.parse().expect("a length"));
            match (chunked, length) {
                (true, _) => self.chunks(&mut answer).await,
                (false, Some(length)) => match self.exactly(length).await {
                    Ok(body) => answer.body = body,
                    Err(part) => (answer.body, answer.complete) = (part, false),
                },
                (false, None) => answer.body = self.rest().await,
            }
            return Some(answer);
        }
    }

    /// Reads the head of an answer.
    pub async fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().expect("a status line");
        assert!(first.starts_with("HTTP/1.1 ") || first.starts_with("HTTP/1.0 "), "not a status line: {first:?}");
        let status = first.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
        Some((status, lines.map(field).collect()))
    }

    /// Reads `length` bytes, or gives those that came.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Vec<u8>> {
        while self.read.len() < length {
            if !self.more().await {
                return Err(std::mem::take(&mut self.read));
            }
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn chunks(&mut self, answer: &mut Answer) {
        answer.complete = false;
        while let Some(size) = self.line().await {
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).expect("a chunk's size");
            if size == 0 {
                while let Some(line) = self.line().await {
                    if line.is_empty() {
                        answer.complete = true;
                        return;
                    }
                    answer.trailers.push(field(&line));
                }
                return;
            }
            match self.exactly(size).await {
                Ok(chunk) => answer.body.extend(chunk),
                Err(part) => return answer.body.extend(part),
            }
            if self.line().await.is_none() {
                return;
            }
        }
    }
}

/// One request on a connection of its own; `None`: closed without an answer.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Answer> {
    let request = request.as_ref();
    let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next().unwrap_or_default()).into_owned();
    let mut connection = Connection::open(address).await;
    connection.send(request).await;
    connection.answer(&method).await
}

/// GET of a raw target on a connection of its own.
pub async fn get(address: SocketAddr, target: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(address, request).await.expect("an answer")
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a header without a colon: {line:?}"));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
