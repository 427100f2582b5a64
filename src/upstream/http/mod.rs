//! HTTP services: one server or several behind one name.
//!
//! A [`Service`] chooses a server, takes an idle connection or makes one, sends the request and
//! hands back the reply. It tries again only where it is certain that nothing was executed, or where
//! executing twice is the same as once and the server has not said a word. HTTP/1.1 in the clear
//! only: TLS and HTTP/2 towards a server are refused by the configuration.

mod connection;
mod pool;
mod reply;
mod request;
mod socket;
#[cfg(test)]
mod tests;
mod tunnel;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use self::connection::{Connection, Failure, Wait};
use self::pool::{InFlight, Pool};
use self::request::Addressing;
use super::warnings::Warnings;
use super::{Error, Inbound};
use crate::http::{Body, Timeline};

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `http://host:port`
    Tcp { host: String, port: u16 },
    /// `unix:/path`
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What `Host` the service is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPolicy {
    /// The client's.
    Keep,
    /// Always this one.
    Name(String),
}

/// `[upstream.NAME]` of an HTTP service, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<Server>,
    /// For making a connection, other servers tried included.
    pub(crate) connect: Duration,
    /// From the last byte of the request to the head of the reply.
    pub(crate) first_byte: Duration,
    /// The longest silence inside a reply's body.
    pub(crate) between_bytes: Duration,
    /// How long a connection is kept for the next request; zero: not at all.
    pub(crate) idle: Duration,
    pub(crate) host: HostPolicy,
}

/// An HTTP service.
pub(crate) struct Service {
    name: String,
    settings: Settings,
    addressing: Addressing,
    pool: Arc<Pool>,
    warnings: Warnings,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(name: &str, settings: Settings) -> Self {
        let addressing = Addressing::new(&settings);
        let pool = Pool::new(settings.servers.len(), settings.idle);
        Self { name: name.to_owned(), settings, addressing, pool, warnings: Warnings::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The `Host` that it is sent when the client said this one.
    pub(crate) fn host<'h>(&'h self, said: Option<&'h HeaderValue>) -> &'h HeaderValue {
        self.addressing.host(said)
    }

    pub(super) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Connections over all workers: those with a request on them, those without.
    pub(crate) fn connections(&self) -> (usize, usize) {
        self.pool.connections()
    }

    /// Sends the request to one of the servers and waits for the head of its reply.
    pub(crate) async fn call(&self, mut inbound: Box<Inbound>, timeline: &Timeline) -> Result<Response<Body>, Error> {
        let deadline = inbound.deadline;
        let upgrade = tunnel::asked(&mut inbound.head);
        let mut request = self.addressing.outgoing(inbound, upgrade.is_some());
        let wait = Wait {
            first_byte: self.settings.first_byte,
            deadline,
            timeout: deadline.into_std().saturating_duration_since(timeline.started()),
        };
        let upload = request.body().progress();
        let mut fresh = false;
        loop {
            let Leased { place, connection, reused, at } = self.lease(fresh, deadline).await?;
            let spare =
                (reused && upgrade.is_none() && request::is_repeatable(&request)).then(|| request::copy(&request));
            timeline.handed_over(at.into_std());
            match (connection.send(request, at, &wait).await, spare) {
                (Ok((connection, reply)), _) => {
                    let now = Instant::now();
                    timeline.first_byte(now.into_std());
                    let server = place.server;
                    let received = self.receive(place, connection, reply, now, upgrade, &upload).await;
                    self.pool.settle(server, received.is_ok(), now);
                    return received;
                }
                // An idle connection that the server has closed says nothing about the server, and
                // happens to one request once: the next connection is a new one.
                (Err(Failure::Unsent(unsent)), _) if reused => request = *unsent,
                (Err(Failure::Unheard(_)), Some(spare)) => request = spare,
                (Err(failure), _) => return Err(self.failed(&place, failure)),
            }
            fresh = true;
        }
    }

    async fn receive(
        &self,
        place: InFlight<&Pool>,
        connection: Box<Connection>,
        reply: Response<hyper::body::Incoming>,
        now: Instant,
        upgrade: Option<OnUpgrade>,
        upload: &connection::Progress,
    ) -> Result<Response<Body>, Error> {
        match upgrade {
            Some(client) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let (head, _) = reply.into_parts();
                Ok(tunnel::open(connection, place.keep(&self.pool), head, client))
            }
            _ => reply::receive(&self.pool, place, connection, reply, now, upload, self.settings.between_bytes).await,
        }
    }

    /// An idle connection, or a new one to the first server that takes it.
    async fn lease(&self, fresh: bool, deadline: Instant) -> Result<Leased<'_>, Error> {
        let now = Instant::now();
        let connect_by = (now + self.settings.connect).min(deadline);
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(place) = self.pool.choose(&tried, now) {
            let idle = if fresh { None } else { self.pool.take(place.server, now) };
            if let Some(connection) = idle {
                // The time it took to try others is none of this one's.
                let at = if tried.is_empty() { now } else { Instant::now() };
                return Ok(Leased { place, connection, reused: true, at });
            }
            match self.connect(&place, tried.len(), connect_by).await {
                Ok(connection) => return Ok(Leased { place, connection, reused: false, at: Instant::now() }),
                Err(error) => {
                    self.pool.settle(place.server, false, Instant::now());
                    tried.push(place.server);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or(Error::BadReply { what: "the service has no servers" }))
    }

    /// Connects within its share of the time, so that one silent server leaves some for the others.
    async fn connect(
        &self,
        place: &InFlight<&Pool>,
        tried: usize,
        connect_by: Instant,
    ) -> Result<Box<Connection>, Error> {
        let [server] = self.settings.servers.get(place.server..=place.server).unwrap_or_default() else {
            return Err(Error::BadReply { what: "the service has no such server" });
        };
        let now = Instant::now();
        let untried = u32::try_from(self.settings.servers.len().saturating_sub(tried)).unwrap_or(u32::MAX);
        let share = connect_by.saturating_duration_since(now) / untried.max(1);
        Connection::open(server, now + share).await
    }

    fn failed(&self, place: &InFlight<&Pool>, failure: Failure) -> Error {
        let error = match failure {
            Failure::Unsent(_) => Error::Broken { source: None },
            Failure::Unheard(error) | Failure::Failed(error) => error,
        };
        // A slow answer may be this one request's doing, and a body's fault is the client's.
        if matches!(error, Error::Broken { .. } | Error::BadReply { .. }) {
            self.pool.settle(place.server, false, Instant::now());
        }
        error
    }
}

/// A connection for one request, and the place at the server that it takes.
struct Leased<'s> {
    place: InFlight<&'s Pool>,
    connection: Box<Connection>,
    reused: bool,
    /// When it was leased.
    at: Instant,
}
