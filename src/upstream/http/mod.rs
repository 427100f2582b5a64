//! HTTP services: one server or several behind one name. (Stub.)
use super::{Error, Inbound};
use crate::http::{Body, Timeline};
use ::http::Response;
use std::time::Duration;

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `http://host:port`
    Tcp { host: String, port: u16 },
    /// `unix:/path`
    Unix(std::path::PathBuf),
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
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) between_bytes: Duration,
    pub(crate) idle: Duration,
    pub(crate) host: HostPolicy,
}

/// An HTTP service.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    settings: Settings,
}

impl Service {
    pub(crate) fn new(name: &str, settings: Settings) -> Self {
        Self { name: name.to_owned(), settings }
    }
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
    pub(crate) async fn call(&self, _inbound: Inbound, _timeline: &Timeline) -> Result<Response<Body>, Error> {
        Err(Error::BadReply { what: "stub" })
    }
}
