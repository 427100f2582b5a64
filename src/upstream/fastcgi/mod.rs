//! PHP-FPM, spoken to in FastCGI.
//!
//! A [`Php`] is one pool. [`Php::call`] takes a request through its life: which script or file the path
//! means (`script.rs`), the body received whole (`crate::spool`), a connection with its slot (`pool.rs`), the
//! exchange of records (`exchange.rs`), and PHP's answer as the client gets it. Nothing is taken of PHP
//! before all of the request is here, and PHP is asked once: only a request of which a kept connection
//! took not one byte is sent again, on a new one.

mod complaints;
mod connection;
pub(crate) mod deny;
mod exchange;
mod health;
pub(crate) mod local;
mod params;
mod pool;
pub mod record;
pub mod reply;
mod reply_body;
pub(crate) mod script;
mod sending;
mod slots;
mod spawn;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, EXPIRES, LOCATION, SET_COOKIE,
};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use self::exchange::{Fault, InFlight, Opened};
use self::params::Constants;
use self::pool::Pool;
use self::reply::{Directives, Reply};
use self::reply_body::ReplyBody;
use self::script::{Resolved, Script, Site};
use self::sending::Outgoing;
pub(crate) use self::spawn::{SpawnError, Spawned};
use super::warnings::Warnings;
use super::{Error, Inbound, files};
use crate::http::{Body, Timeline};
use crate::spool::{Disk, Spooled};

/// What PHP may say of a file that the gateway serves for it, over what the gateway would say.
const SAID_OF_A_FILE: [::http::HeaderName; 6] =
    [CONTENT_TYPE, SET_COOKIE, CONTENT_DISPOSITION, CACHE_CONTROL, EXPIRES, ACCEPT_RANGES];

/// Where PHP-FPM listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `unix:/path`
    Unix(PathBuf),
    /// `host:port`
    Tcp(SocketAddr),
}

/// Which PHP files may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scripts {
    /// Only the front controller.
    Index,
    /// Any existing `.php` under the root.
    Files,
}

/// What becomes of a PHP request whose client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnClientAbort {
    /// PHP notices at its next write.
    Close,
    /// PHP is read to its end.
    Finish,
}

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
    pub(crate) spool_memory: u64,
    pub(crate) spool_disk: u64,
    pub(crate) deny: Vec<String>,
    pub(crate) scripts: Scripts,
    /// `internal`: prefixes that X-Accel-Redirect may name, and the directories they stand for.
    /// X-Sendfile may name files below these directories.
    pub(crate) internal: Vec<(String, PathBuf)>,
    /// `symlinks`: directories outside the root that links in it may lead to.
    pub(crate) symlinks: Vec<PathBuf>,
    /// Children of a php-fpm that the gateway starts itself; `None`: somebody else runs it.
    pub(crate) spawn: Option<u32>,
}

/// The connections to one pool, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// PHP processes that work, or whose end is awaited.
    pub(crate) in_use: usize,
    /// PHP processes that are kept waiting for the next request.
    pub(crate) idle: usize,
}

/// A PHP-FPM pool.
#[derive(Debug)]
pub(crate) struct Php {
    name: String,
    settings: Settings,
    site: Site,
    constants: Constants,
    pool: Arc<Pool>,
    disk: Arc<Disk>,
    warnings: Warnings,
}

impl Php {
    pub(crate) fn new(name: &str, settings: Settings) -> Self {
        Self {
            name: name.to_owned(),
            site: Site::new(&settings),
            constants: Constants::new(&settings),
            pool: Pool::new(name, &settings),
            disk: Disk::new(settings.spool_disk),
            warnings: Warnings::default(),
            settings,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// How many PHP processes the gateway holds.
    pub(crate) fn connections(&self) -> Connections {
        self.pool.connections()
    }

    /// Requests that wait for a PHP process.
    pub(crate) fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Bytes of request bodies on disk.
    #[cfg(test)]
    fn spooled(&self) -> u64 {
        self.disk.taken()
    }

    pub(crate) async fn call(&self, inbound: Box<Inbound>, timeline: &Timeline) -> Result<Response<Body>, Error> {
        match self.site.resolve(&inbound.path, &inbound.head.method)? {
            Resolved::Script(script) => self.run(&script, inbound, timeline).await,
            Resolved::File(file) => in_time(inbound.deadline, timeline, files::serve(file, &inbound.head)).await,
            Resolved::Redirect(path) => Ok(redirect(&path, inbound.head.uri.query())),
        }
    }

    /// Has PHP run a script.
    async fn run(&self, script: &Script, inbound: Box<Inbound>, timeline: &Timeline) -> Result<Response<Body>, Error> {
        self.pool.refuse_while_down()?;
        let Inbound { head, mut body, client, request_id, deadline, .. } = *inbound;
        let body = match body.declared_length() {
            Some(0) => Spooled::Empty,
            _ => {
                let kept = async { Ok(body.keep(self.settings.spool_memory, &self.disk).await?) };
                in_time(deadline, timeline, kept).await?
            }
        };
        let request = params::Request { head: &head, request_id: &request_id, client: &client, script, body: &body };
        let outgoing = Outgoing {
            head: encode(&request, &self.constants)?,
            body,
            request_id,
            on_client_abort: self.settings.on_client_abort,
        };
        let (in_flight, opened) = self.exchange(&outgoing, is_idempotent(&head.method), deadline, timeline).await?;
        let Opened { reply: Reply { headers, directives, .. }, whole, .. } = &opened;
        if directives.accel_redirect.is_some() || directives.sendfile.is_some() {
            in_flight.run_out(*whole);
            return in_time(deadline, timeline, self.file_instead(directives, headers, head)).await;
        }
        self.answer(in_flight, opened, &head.method)
    }

    /// Sends the request over a connection of the pool and gets the answer's head.
    async fn exchange(
        &self,
        outgoing: &Outgoing,
        idempotent: bool,
        deadline: Instant,
        timeline: &Timeline,
    ) -> Result<(InFlight, Opened), Error> {
        let queued = |began: Instant, waited| timeline.queued(began.into_std(), waited);
        let mut connection = self.pool.lease(idempotent, deadline, queued).await?;
        loop {
            let now = Instant::now();
            timeline.handed_over(now.into_std());
            let first_byte = now + self.settings.first_byte;
            let mut in_flight = InFlight::new(&self.pool, connection, outgoing);
            let fault = match in_flight.open(now, first_byte.min(deadline), timeline).await {
                Ok(opened) => return Ok((in_flight, opened)),
                Err(Fault::Silent { .. }) if deadline < first_byte => {
                    return Err(Error::DeadlinePassed { timeout: timeout_of(deadline, timeline) });
                }
                Err(fault) => fault,
            };
            // Once only: the connection that replaces it is not a kept one.
            connection = match in_flight.was_never_sent().then(|| in_flight.into_dead_connection()).flatten() {
                Some(dead) => self.pool.replace(dead, deadline).await?,
                None => return Err(fault.before_the_head(&self.pool)),
            };
        }
    }

    /// PHP's answer as the client gets it.
    fn answer(&self, mut in_flight: InFlight, opened: Opened, method: &Method) -> Result<Response<Body>, Error> {
        let Opened { reply, body, whole } = opened;
        let Reply { status, headers, content_length, dropped, .. } = reply;
        if dropped > 0 && self.pool.log_limit.admit().is_some() {
            tracing::warn!(upstream = self.name, lines = dropped, "PHP sent header lines that no client could read");
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if status == StatusCode::NO_CONTENT {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless || method == Method::HEAD {
            in_flight.run_out(whole);
        } else if whole {
            *response.body_mut() = whole_body(&mut in_flight, body, content_length)?.into();
        } else {
            let between_bytes = self.settings.between_bytes;
            *response.body_mut() = Body::stream(ReplyBody::new(in_flight, body, content_length, between_bytes));
        }
        Ok(response)
    }

    /// Serves the file that PHP named in place of a body of its own.
    async fn file_instead(
        &self,
        directives: &Directives,
        said: &HeaderMap,
        mut head: Parts,
    ) -> Result<Response<Body>, Error> {
        let text = |name: &Bytes| std::str::from_utf8(name).map(str::to_owned);
        let file = match (&directives.accel_redirect, &directives.sendfile) {
            (Some(target), _) => text(target).map(|target| self.site.accel(&target)),
            (None, Some(path)) => text(path).map(|path| self.site.sendfile(&path)),
            (None, None) => return Err(Error::NoFile { why: "none was named" }),
        };
        let file = file.map_err(|_| Error::BadReply { what: "the name of a file that is not UTF-8" })??;
        // Whatever the client asked of PHP, of the file it asks to be given it.
        if head.method != Method::HEAD {
            head.method = Method::GET;
        }
        let mut response = files::serve(file, &head).await?;
        for name in SAID_OF_A_FILE {
            let mut values = said.get_all(&name).iter();
            if let Some(first) = values.next() {
                response.headers_mut().insert(name.clone(), first.clone());
                values.for_each(|value| _ = response.headers_mut().append(name.clone(), value.clone()));
            }
        }
        Ok(response)
    }
}

/// The body of an answer that is all here, cut to what its head declares.
fn whole_body(in_flight: &mut InFlight, mut body: Bytes, declared: Option<u64>) -> Result<Bytes, Error> {
    let length = body.len() as u64;
    let as_declared = declared.is_none_or(|declared| declared == length);
    in_flight.finish(as_declared);
    match declared {
        Some(declared) if declared > length => Err(Error::BadReply { what: "a body shorter than its Content-Length" }),
        Some(declared) => {
            body.truncate(usize::try_from(declared).unwrap_or(usize::MAX));
            Ok(body)
        }
        None => Ok(body),
    }
}

/// RFC 9110, 9.2.2: asking twice has the effect of asking once.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Does what has no deadline of its own by that of the route.
async fn in_time<T>(
    deadline: Instant,
    timeline: &Timeline,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Error::DeadlinePassed { timeout: timeout_of(deadline, timeline) };
    timeout_at(deadline, work).await.map_err(late)?
}

/// The route's timeout, which is known here by its end only.
fn timeout_of(deadline: Instant, timeline: &Timeline) -> Duration {
    deadline.into_std().saturating_duration_since(timeline.started())
}

/// To a directory, with the slash at its end. 301 whatever the method, as nginx answers.
fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let location = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    // Both parts have been in a request's head: they are values of a header.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Encodes into a buffer of this worker that is used again once the bytes have been sent.
fn encode(request: &params::Request<'_>, constants: &Constants) -> Result<Bytes, Error> {
    thread_local! {
        static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    }
    /// Room for several usual requests.
    const ROOM: usize = 16 << 10;
    const USUAL: usize = 2 << 10;
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        if buffer.capacity() < USUAL {
            buffer.reserve(ROOM);
        }
        params::encode(request, constants, buffer)?;
        Ok(buffer.split().freeze())
    })
}
