//! PHP-FPM, spoken to in FastCGI. (Stub.)
pub(crate) mod deny;
pub(crate) mod script;
pub(crate) mod spawn;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use ::http::Response;
use super::{Error, Inbound};
use crate::http::{Body, Timeline};

/// Where PHP-FPM listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address { 
    /// `unix:/path`
    Unix(PathBuf), 
    /// `host:port`
    Tcp(SocketAddr) }

/// Which PHP files may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scripts { /// Only the front controller.
    Index, /// Any existing `.php` under the root.
    Files }

/// What becomes of a PHP request whose client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnClientAbort { /// PHP notices at its next write.
    Close, /// PHP is read to its end.
    Finish }

/// `[upstream.NAME]` of a PHP-FPM pool, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) root: PathBuf,
    pub(crate) index: String,
    pub(crate) connections: usize,
    pub(crate) queue: Duration,
    pub(crate) queue_length: usize,
    /// Idle connections kept, over all workers; 0: one connection a request.
    pub(crate) keepalive: usize,
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) between_bytes: Duration,
    pub(crate) try_files: bool,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) on_client_abort: OnClientAbort,
    pub(crate) status: Option<String>,
    pub(crate) spool_memory: u64,
    pub(crate) spool_disk: u64,
    pub(crate) deny: Vec<String>,
    pub(crate) scripts: Scripts,
    /// `internal`: prefixes that X-Accel-Redirect may name, and the directories they stand for.
    /// X-Sendfile may name files below these directories.
    pub(crate) internal: Vec<(String, PathBuf)>,
    /// Directories outside the root that symbolic links below it may lead to.
    pub(crate) symlinks: Vec<PathBuf>,
    /// Children of a php-fpm that the gateway starts itself; `None`: somebody else runs it.
    pub(crate) spawn: Option<u32>,
}

/// A PHP-FPM pool.
#[derive(Debug)]
pub(crate) struct Php { name: String, settings: Settings }

impl Php {
    pub(crate) fn new(name: &str, settings: Settings) -> Self { Self { name: name.to_owned(), settings } }
    pub(crate) fn name(&self) -> &str { &self.name }
    pub(crate) fn settings(&self) -> &Settings { &self.settings }
    /// Connections with a request on them, and without.
    pub(crate) fn connections(&self) -> (usize, usize) { (0, 0) }
    /// Requests that wait for a PHP process.
    pub(crate) fn waiting(&self) -> usize { 0 }
    pub(crate) async fn call(&self, _inbound: Inbound, _timeline: &Timeline) -> Result<Response<Body>, Error> {
        Err(Error::BadReply { what: "stub" })
    }
}
