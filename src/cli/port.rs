//! The admin port of a running gateway, asked from outside: what `top` and `report` stand on.
//!
//! Where it is says the route file, or `--admin`; a token comes from `STRANGLER_ADMIN_TOKEN`, or from where the
//! file keeps it. Of the file nothing else is read: a gateway is watched when its file is broken, too. A question
//! takes a connection of its own, and has a deadline and a bound. Nothing is asked twice here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use ::http::uri::Authority;
use ::http::{Request, Response, StatusCode};
use bytes::{Buf as _, Bytes, BytesMut};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::told::{Comparison, Flipped, plain_lines};
use super::{FAULTY, complain, faulty};
use crate::admin::{Question, Token};
use crate::config;
use crate::http::{BoxError, urlencoded};

/// How long an answer may take, and how long the next event: there is one a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer: 10,000 routes are a third of it.
const LARGEST: usize = 64 << 20;
/// The variable that holds the token.
const TOKEN: &str = "STRANGLER_ADMIN_TOKEN";

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct Where {
    /// The admin port, if it is not the one that the file names: http://127.0.0.1:9901
    #[arg(long, value_name = "URL", value_parser = authority)]
    admin: Option<Authority>,
}

/// The admin port of one gateway.
#[derive(Clone, Debug)]
pub(super) struct Port {
    authority: Authority,
    token: Option<Token>,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    #[error("no gateway answers at {0}")]
    Unreachable(Authority, #[source] io::Error),
    #[error("{0} says nothing")]
    Silent(Authority),
    #[error("{0} broke off")]
    Broken(Authority, #[source] BoxError),
    /// It answered, and that it will not; the text says what would be right.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("what answers at {0} is no gateway of this version")]
    Foreign(Authority, #[source] serde_json::Error),
}

/// `http://127.0.0.1:9901`, or without the scheme.
fn authority(text: &str) -> Result<Authority, String> {
    let example = "write it like http://127.0.0.1:9901";
    if text.contains('#') {
        return Err(format!("others see what is in a command line: leave the token out, and give it as {TOKEN}"));
    }
    let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if rest.contains('/') || rest.contains('@') {
        return Err(format!("the admin port speaks plain HTTP, and has no path; {example}"));
    }
    let authority: Authority = rest.parse().map_err(|error| format!("{error}; {example}"))?;
    authority.port_u16().map(|_| authority).ok_or_else(|| format!("the port is missing; {example}"))
}

impl Port {
    /// Finds the port; when it cannot be found, says why and gives the exit code.
    pub(super) fn find(at: &Where, file: &Path) -> Result<Self, u8> {
        let own = match std::env::var(TOKEN) {
            Ok(text) => Some(Token::chosen(&text).ok_or_else(|| {
                complain(&format!("{TOKEN} holds no token: {} visible ASCII characters or more", Token::SHORTEST));
                FAULTY
            })?),
            Err(_) => None,
        };
        if let Some(authority) = at.admin.clone() {
            // The file's token is for the file's gateway, and is told to no other.
            return Ok(Self { authority, token: own });
        }
        let remedy = "say where it is with --admin URL";
        let (mut address, kept) = match config::admin(file) {
            Ok(Some(found)) => found,
            Ok(None) => {
                complain(&format!("{} has no admin port; add [listen] admin, or {remedy}", file.display()));
                return Err(FAULTY);
            }
            Err(faults) => return Err(faulty(&faults)),
        };
        if address.port() == 0 {
            complain(&format!("{} lets the system choose the admin port; {remedy}", file.display()));
            return Err(FAULTY);
        }
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        // An address is an authority.
        let Ok(authority) = address.to_string().parse() else { return Err(FAULTY) };
        Ok(Self { authority, token: own.or(kept) })
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        self.authority.as_str()
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn with_token(&self, token: Token) -> Self {
        Self { authority: self.authority.clone(), token: Some(token) }
    }

    /// What it told is not what a gateway of this version tells.
    pub(super) fn foreign(&self, why: serde_json::Error) -> Unheard {
        Unheard::Foreign(self.authority.clone(), why)
    }

    /// What is at a path.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unheard> {
        self.whole(Request::get(path), Bytes::new()).await
    }

    /// What is at a path that takes a question.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str, question: Question) -> Result<T, Unheard> {
        self.get(&format!("{path}?{}", question.query())).await
    }

    /// Has the file edited; `seen` is the content of it that the operator has seen.
    pub(super) async fn flip(&self, route: &str, serve: &str, seen: Option<&str>) -> Result<Flipped, Unheard> {
        let path = format!("/api/routes/{}/serve", segment(route));
        let order = json!({ "serve": serve, "seen": seen }).to_string();
        self.whole(Request::post(path).header(CONTENT_TYPE, "application/json"), order.into()).await
    }

    /// The comparison, again and again.
    pub(super) async fn events(&self, question: Question) -> Result<Events, Unheard> {
        let asked = self.send(Request::get(format!("/api/events?{}", question.query())), Bytes::new());
        let response = timeout(PATIENCE, asked).await.map_err(|_| Unheard::Silent(self.authority.clone()))??;
        Ok(Events { authority: self.authority.clone(), body: response.into_body(), read: BytesMut::new() })
    }

    async fn whole<T: DeserializeOwned>(&self, request: ::http::request::Builder, body: Bytes) -> Result<T, Unheard> {
        let asked = async {
            let response = self.send(request, body).await?;
            let read = Limited::new(response.into_body(), LARGEST).collect().await;
            read.map(http_body_util::Collected::to_bytes).map_err(|why| Unheard::Broken(self.authority.clone(), why))
        };
        let told = timeout(PATIENCE, asked).await.map_err(|_| Unheard::Silent(self.authority.clone()))??;
        serde_json::from_slice(&told).map_err(|why| self.foreign(why))
    }

    /// Sends a request; what is no success is an error with the port's own words.
    async fn send(&self, request: ::http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Unheard> {
        let at = || self.authority.clone();
        let broken = |why: hyper::Error| Unheard::Broken(at(), why.into());
        let mut request = request.header(HOST, self.authority.as_str());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let request = request.body(Full::new(body)).map_err(|why| Unheard::Broken(at(), why.into()))?;
        let stream =
            TcpStream::connect(self.authority.as_str()).await.map_err(|why| Unheard::Unreachable(at(), why))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body; how it ended is told by that.
        tokio::task::spawn_local(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let told = Limited::new(response.into_body(), LARGEST).collect().await;
        let told: Option<Value> = told.ok().and_then(|told| serde_json::from_slice(&told.to_bytes()).ok());
        let message = told.as_ref().and_then(|told| told.get("message")?.as_str()).map(plain_lines);
        Err(Unheard::Refused { status, message: message.unwrap_or_else(|| format!("{} answers {status}", at())) })
    }
}

/// A route's name as one segment of a path.
fn segment(name: &str) -> String {
    urlencoded::encoded(name.as_bytes(), urlencoded::UNRESERVED).map(char::from).collect()
}

/// What the port tells once a second.
#[derive(Debug)]
pub(super) struct Events {
    authority: Authority,
    body: Incoming,
    /// What has come of events that were not told yet.
    read: BytesMut,
}

impl Events {
    /// The next event, the newest if there are several: what piled up while nobody asked is past.
    /// `None`: the port ends its answer, as it does every few minutes.
    pub(super) async fn next(&mut self) -> Result<Option<Comparison>, Unheard> {
        loop {
            if let Some(event) = newest(&mut self.read) {
                let told = serde_json::from_slice(&event);
                return told.map(Some).map_err(|why| Unheard::Foreign(self.authority.clone(), why));
            }
            let frame = timeout(PATIENCE, self.body.frame()).await;
            match frame.map_err(|_| Unheard::Silent(self.authority.clone()))? {
                None => return Ok(None),
                Some(Err(why)) => return Err(Unheard::Broken(self.authority.clone(), why.into())),
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
            if self.read.len() > LARGEST {
                return Err(Unheard::Broken(self.authority.clone(), "an event has no end".into()));
            }
        }
    }
}

/// Takes all whole events off the front, and gives what the newest of them says.
fn newest(read: &mut BytesMut) -> Option<BytesMut> {
    const END: &[u8] = b"\n\n";
    const START: &[u8] = b"data: ";
    let end = memchr::memmem::rfind(read, END)?;
    let mut events = read.split_to(end);
    read.advance(END.len());
    if let Some(before) = memchr::memmem::rfind(&events, END) {
        events.advance(before + END.len());
    }
    events.starts_with(START).then(|| events.split_off(START.len()))
}

/// One of a few words of the command line.
pub(super) fn choice<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    word: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|one| word(*one)))
        .try_map(move |said| all.iter().copied().find(|one| word(*one) == said).ok_or("there is no such choice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_named_by_its_address_and_never_with_a_token() {
        for text in ["http://127.0.0.1:9901", "http://127.0.0.1:9901/", "127.0.0.1:9901"] {
            assert_eq!(authority(text).unwrap(), "127.0.0.1:9901", "{text}");
        }
        assert_eq!(authority("[::1]:9901").unwrap(), "[::1]:9901");
        for text in ["https://127.0.0.1:9901", "http://127.0.0.1:9901/api", "localhost", "a b:1", ""] {
            assert!(authority(text).unwrap_err().contains("http://127.0.0.1:9901"), "{text}");
        }
        assert!(authority("http://127.0.0.1:9901/#token=0123456789abcdef").unwrap_err().contains(TOKEN));
    }

    #[test]
    fn of_the_events_that_have_come_whole_the_newest_is_told() {
        let mut read = BytesMut::from("data: {1}\n\ndata: {2}\n\ndata: {3");
        assert_eq!(newest(&mut read).as_deref(), Some(&b"{2}"[..]));
        assert_eq!(newest(&mut read), None);
        read.extend_from_slice(b"}\n\n");
        assert_eq!(newest(&mut read).as_deref(), Some(&b"{3}"[..]));
        assert!(read.is_empty());
    }

    #[test]
    fn a_route_that_is_named_by_its_path_is_one_segment() {
        assert_eq!(segment("/api/orders/{id} é"), "%2Fapi%2Forders%2F%7Bid%7D%20%C3%A9");
    }
}
