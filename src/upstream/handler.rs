//! Rust handlers inside the process.
//!
//! A [`Handler`] is known by its name before its service exists: the route table and `check` need
//! the name only, and the service is installed once its set-up is done. The service is any tower
//! service (an axum `Router`), erased here once. Its panics become errors of the one request, its
//! polls are timed, because a handler that keeps a worker busy keeps every request there waiting;
//! one that has to block is declared so and runs on threads of its own. Nothing here knows what a
//! handler does.

mod blocking;
mod watch;

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, Request, Response};
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http_body::Body as HttpBody;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use self::blocking::Blocking;
use self::watch::{Answered, Reply, Watch};
use super::warnings::Warnings;
use super::{Error, Inbound};
use crate::http::{Body, BoxError, Timeline};

/// A service as it is kept: one call, one boxed future.
type Erased = Box<dyn Fn(Box<Inbound>) -> Running + Send + Sync>;
type Running = Pin<Box<dyn Future<Output = Response<axum::body::Body>> + Send>>;

/// Where a handler's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On the worker that has the request; it must never block.
    Worker,
    /// On threads of its own, at most so many requests at once; others wait.
    Blocking { concurrency: usize },
}

impl Kind {
    /// Blocking, with as many requests at once as suits a handler that waits for a database.
    pub(crate) const BLOCKING: Self = Self::Blocking { concurrency: 64 };
}

/// A named Rust service that can serve a side.
pub(crate) struct Handler {
    name: String,
    kind: Kind,
    watch: Arc<Watch>,
    installed: OnceLock<Installed>,
    warnings: Warnings,
    settings: Option<Box<dyn Any + Send + Sync>>,
}

enum Installed {
    OnWorker(Erased),
    OnThreads(Blocking),
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Handler {
    /// A handler of this name, to be installed before requests come.
    pub(crate) fn declare(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            watch: Arc::new(Watch::new(name, kind)),
            installed: OnceLock::new(),
            warnings: Warnings::default(),
            settings: None,
        }
    }

    /// A handler that the file describes: the next table takes it over where it describes it in the same way.
    pub(crate) fn configured(name: &str, settings: impl Any + Send + Sync) -> Self {
        Self { settings: Some(Box::new(settings)), ..Self::new(name) }
    }

    /// How the file describes it, if it does and in such terms.
    pub(crate) fn settings<T: Any>(&self) -> Option<&T> {
        self.settings.as_ref()?.downcast_ref()
    }

    /// A handler that runs on the workers.
    pub(crate) fn new(name: &str) -> Self {
        Self::declare(name, Kind::Worker)
    }

    /// The built-in handler `health`: it answers as long as its worker does.
    pub(crate) fn health() -> Self {
        let handler = Self::new("health");
        handler.install_erased(Box::new(|_inbound| Box::pin(async { alive() })));
        handler
    }

    /// Gives it the service that answers its requests; `false` if it has one already.
    ///
    /// # Errors
    /// The threads of a blocking handler could not be started.
    pub(crate) fn install<S, B>(&self, service: S) -> std::io::Result<bool>
    where
        S: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let erased: Erased = Box::new(move |inbound| {
            let mut service = service.clone();
            Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                let answered = match ready {
                    Ok(()) => service.call(request_of(inbound)).await,
                    Err(never) => match never {},
                };
                match answered {
                    // An axum body stays what it is; only another kind is boxed.
                    Ok(response) => response.map(axum::body::Body::new),
                    Err(never) => match never {},
                }
            })
        });
        match self.kind {
            Kind::Worker => Ok(self.install_erased(erased)),
            Kind::Blocking { concurrency } => {
                let threads = Blocking::start(&self.name, concurrency, erased)?;
                Ok(self.installed.set(Installed::OnThreads(threads)).is_ok())
            }
        }
    }

    fn install_erased(&self, erased: Erased) -> bool {
        self.installed.set(Installed::OnWorker(erased)).is_ok()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// How often it kept a worker from everything else for too long.
    pub(crate) fn stalls(&self) -> u64 {
        self.watch.stalls()
    }

    /// How long its code was at work, over all threads.
    pub(crate) fn busy(&self) -> Duration {
        self.watch.busy()
    }

    /// Lets the service answer the request.
    pub(crate) async fn call(&self, inbound: Box<Inbound>, timeline: &Timeline) -> Result<Response<Body>, Error> {
        let deadline = inbound.deadline;
        let timeout = deadline.into_std().saturating_duration_since(timeline.started());
        let began = Instant::now();
        let answered = match self.installed.get() {
            Some(Installed::OnWorker(service)) => {
                timeline.handed_over(began.into_std());
                timeout_at(deadline, Watch::run(&self.watch, began.into_std(), || service(inbound))).await
            }
            Some(Installed::OnThreads(threads)) => {
                let place = threads.place(began, deadline).await?;
                let now = Instant::now();
                timeline.queued(began.into_std(), now.saturating_duration_since(began));
                timeline.handed_over(now.into_std());
                let answered = timeout_at(deadline, place.run(Arc::clone(&self.watch), inbound)).await;
                // As with every other side, it is there when its worker has it.
                answered.map(|reply| reply.map(|reply| Reply { at: std::time::Instant::now(), ..reply }))
            }
            None => return Err(Error::Panicked { message: "no service was installed".to_owned() }),
        };
        let Reply { head, body, at } = answered.map_err(|_passed| Error::DeadlinePassed { timeout })??;
        timeline.first_byte(at);
        let body = match body {
            Answered::Whole(bytes) => Body::from(bytes),
            Answered::Coming(coming) => Body::stream(coming),
            Answered::Piped(piped) => Body::stream(piped),
        };
        Ok(Response::from_parts(head, body))
    }
}

/// The request as a handler sees it: axum's body, the client's address as axum names it.
fn request_of(inbound: Box<Inbound>) -> Request<axum::body::Body> {
    let Inbound { mut head, body, client, .. } = *inbound;
    head.extensions.insert(ConnectInfo(SocketAddr::new(client.ip, client.port)));
    let body = if body.is_end_stream() { axum::body::Body::empty() } else { axum::body::Body::new(body) };
    Request::from_parts(head, body)
}

fn alive() -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::from(format!("OK - {:.0}\n", jiff::Timestamp::now())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
