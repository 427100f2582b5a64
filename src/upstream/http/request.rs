//! The head of a request as a server is sent it.
//!
//! The target stays as the client wrote it; `Host` is kept or set; who the client is goes into
//! X-Forwarded-For, -Proto and -Host. A list that a client sent itself is worth nothing and is
//! replaced; only what a trusted proxy sent is kept. This file refuses nothing and cannot fail.

use ::http::header::{CONNECTION, HOST, UPGRADE};
use ::http::uri::{Authority, PathAndQuery};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::connection::Upload;
use super::{HostPolicy, Server, Settings};
use crate::http::Client;
use crate::http::client::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::upstream::Inbound;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a service's requests are addressed; made once, not once a request.
#[derive(Debug)]
pub(super) struct Addressing {
    /// Always sent, if there is one.
    host: Option<HeaderValue>,
    /// For a client of HTTP/1.0 that names no host.
    server: HeaderValue,
}

impl Addressing {
    pub(super) fn new(settings: &Settings) -> Self {
        let host = match &settings.host {
            HostPolicy::Keep => None,
            HostPolicy::Name(name) => HeaderValue::from_str(name).ok(),
        };
        let server = match settings.servers.first() {
            Some(Server::Tcp { host, port }) => HeaderValue::from_str(&format!("{host}:{port}")).ok(),
            Some(Server::Unix(_)) | None => None,
        };
        Self { host, server: server.unwrap_or(HeaderValue::from_static("localhost")) }
    }

    /// The `Host` that is sent when the client said this one.
    pub(super) fn host<'h>(&'h self, said: Option<&'h HeaderValue>) -> &'h HeaderValue {
        self.host.as_ref().or(said).unwrap_or(&self.server)
    }

    /// Turns the client's request into the server's.
    pub(super) fn outgoing(&self, mut inbound: Box<Inbound>, upgrading: bool) -> Request<Upload> {
        let Inbound { head, client, .. } = &mut *inbound;
        let authority = head.uri.authority().map(Authority::as_str).and_then(|name| HeaderValue::from_str(name).ok());
        if authority.is_some() {
            head.uri = origin_form(&head.uri);
        }
        let headers = &mut head.headers;
        // A target with a host of its own stands above `Host`.
        let kept = authority.is_none() && self.host.is_none();
        let said = authority.or_else(|| headers.get(HOST).cloned());
        forward(headers, client, said.as_ref());
        if !kept || said.is_none() {
            headers.insert(HOST, self.host(said.as_ref()).clone());
        }
        if upgrading {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        } else if headers.keys().any(|name| *name == CONNECTION || *name == UPGRADE) {
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
        }
        head.version = Version::HTTP_11;
        let Inbound { head, body, .. } = *inbound;
        Request::from_parts(head, Upload::new(body))
    }
}

fn origin_form(target: &Uri) -> Uri {
    let path = target.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

fn forward(headers: &mut HeaderMap, client: &Client, host: Option<&HeaderValue>) {
    let ip = &*client.ip_text;
    let list = if client.via_trusted_proxy { listed(headers) } else { None };
    let list = match list {
        Some(list) if list.rsplit(',').next().is_some_and(|last| last.trim() == ip) => HeaderValue::try_from(list),
        Some(list) => HeaderValue::try_from(format!("{list}, {ip}")),
        None => HeaderValue::from_str(ip),
    };
    if let Ok(list) = list {
        headers.insert(X_FORWARDED_FOR, list);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if client.https { "https" } else { "http" }));
    if !(client.via_trusted_proxy && headers.contains_key(&X_FORWARDED_HOST)) {
        match host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
}

/// What the proxies before us have listed; they may have used several lines for it.
fn listed(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    if lines.is_empty() { None } else { Some(lines.join(", ")) }
}

/// Whether a request, for no upgrade, may be sent a second time to a server that closed the connection without a word.
pub(super) fn is_repeatable(request: &Request<Upload>) -> bool {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    idempotent && http_body::Body::is_end_stream(request.body())
}

/// The same request once more, for one without a body.
pub(super) fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
