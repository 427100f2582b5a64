//! A gateway in front of a PHP application that moves to Rust, route by route.
//!
//! A hot-reloaded `routes.toml` says for every route which **side** serves it: `legacy`, a PHP-FPM
//! pool spoken to in FastCGI, or `new`, a Rust handler in this process or an HTTP service. A binary
//! with handlers of your own is a [`Gateway`] with names for them:
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! fn main() -> std::process::ExitCode {
//!     let users = Router::new().route("/api/v2/users/{id}", get(async || "hello"));
//!     strangler::Gateway::new().handler("users", users).main()
//! }
//! ```
//!
//! # The house
//!
//! Imports point down this list, never up; `check`, `upstream` and `telemetry` do not know each other.
//!
//! | room | what it is for |
//! |---|---|
//! | `cli` | the commands: run, check, explain, flip, sign, top, report |
//! | `config` | routes.toml → a table, or every fault at once; watching the file |
//! | `admin` | the operator's port: metrics, the JSON API, the dashboard |
//! | `server` | workers, listeners, connections, drain |
//! | `gateway` | one request from head to last byte |
//! | `route` | the table: finding a route, choosing the side |
//! | `check` | may this request pass, and who is it? |
//! | `upstream` | a request becomes a response: FastCGI, HTTP, handler |
//! | `telemetry` | what is kept of an exchange |
//! | `http` | plain rules of HTTP, no I/O |
//! | `spool` | bodies kept until they are complete |

mod admin;
mod check;
mod cli;
mod config;
mod gateway;
mod http;
mod route;
mod server;
mod spool;
mod telemetry;
mod upstream;

/// The pure protocol code, bytes in and values out: here so that it can be fuzzed and timed by itself.
/// Its shape follows the gateway's needs and is not promised to anybody.
pub mod protocol {
    pub use crate::check::jwt::jws;
    pub use crate::check::session::format as session;
    pub use crate::check::signature::{algorithm, parameters, rfc9421};
    pub use crate::http::{cookie, path};
    pub use crate::upstream::fastcgi::{record, reply};
}

/// What a handler needs for users of WeChat's mini programs, who logged in by the built-in handler `wechat-login`.
///
/// ```
/// use std::time::Duration;
/// use axum::{Extension, http::StatusCode};
/// use strangler::{Identity, wechat};
///
/// /// `encryptedData` of a mini program, sent as `iv` and data.
/// async fn steps(Extension(identity): Extension<Identity>, (iv, data): (String, String)) -> Result<String, StatusCode> {
///     let login = identity.wechat().ok_or(StatusCode::UNAUTHORIZED)?;
///     wechat::decrypt(&data, &iv, login.session_key(), login.appid(), Duration::from_secs(300))
///         .map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)
/// }
/// ```
pub mod wechat {
    pub use crate::check::wechat::{
        Client, DecryptError, Login, SessionKeyError, check_signature, decrypt, session_key_signature,
    };
}

pub use crate::check::Identity;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::Body;
use tower_service::Service;

use crate::cli::Program;
use crate::http::BoxError;
use crate::upstream::handler::{Handler, Kind};

/// A route could not tell the two apart.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("two handlers have the name \"{name}\"; give each its own (`health` is built in)")]
struct NameTaken {
    name: String,
}

type SetUp<S> = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<S, BoxError>>>>>;
type Install<S> = Box<dyn FnOnce(&S, &Handler) -> std::io::Result<bool>>;

/// A gateway with handlers: a binary of your own with all of `strangler`'s commands.
///
/// A handler is any [`tower`](tower_service)-style service of axum's bodies, an [`axum::Router`]
/// for example. `routes.toml` names it as a route's `new` (or `legacy`) side. It is given the whole
/// request with its original path; a panic in it is a 500 for that request alone.
///
/// ```no_run
/// # use axum::{Router, routing::get};
/// # #[derive(Clone)] struct Shop;
/// # async fn connect() -> Result<Shop, Box<dyn std::error::Error + Send + Sync>> { Ok(Shop) }
/// # fn products(shop: &Shop) -> Router { Router::new() }
/// # fn reports(shop: &Shop) -> Router { Router::new() }
/// # fn main() -> std::process::ExitCode {
/// strangler::Gateway::new()
///     .setup(connect)
///     .handler_with("products", products)
///     .blocking_handler_with("reports", reports)
///     .main()
/// # }
/// ```
pub struct Gateway<S = ()> {
    setup: SetUp<S>,
    handlers: Vec<(Handler, Install<S>)>,
}

impl Gateway {
    /// A gateway with the built-in handler `health` and no other.
    #[must_use]
    pub fn new() -> Self {
        Self { setup: Box::new(|| Box::pin(async { Ok(()) })), handlers: Vec::new() }
    }

    /// Runs `connect` before anything is served; what it gives (a database pool, say) is lent to
    /// every handler made by `*_with`. When it fails, the gateway says so and exits with 1.
    /// No other command than `run` runs it.
    #[must_use]
    pub fn setup<S, F, Fut, E>(self, connect: F) -> Gateway<S>
    where
        F: FnOnce() -> Fut + 'static,
        Fut: Future<Output = Result<S, E>> + 'static,
        E: Into<BoxError>,
    {
        let setup: SetUp<S> = Box::new(|| Box::pin(async { connect().await.map_err(Into::into) }));
        let adopt = |(handler, install): (Handler, Install<()>)| {
            let install: Install<S> = Box::new(move |_, handler| install(&(), handler));
            (handler, install)
        };
        Gateway { setup, handlers: self.handlers.into_iter().map(adopt).collect() }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: 'static> Gateway<S> {
    /// Adds a handler under `name`. It runs on the workers, so it must not block: one that does
    /// holds up every other request of its worker (`strangler_worker_stalls_total` counts it).
    #[must_use]
    pub fn handler<H, B>(self, name: &str, service: H) -> Self
    where
        H: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        H: Clone + Send + Sync + 'static,
        H::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.handler_with(name, |_| service)
    }

    /// Adds a handler that `make` builds from what [`setup`](Gateway::setup) gave.
    #[must_use]
    pub fn handler_with<H, B>(self, name: &str, make: impl FnOnce(&S) -> H + 'static) -> Self
    where
        H: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        H: Clone + Send + Sync + 'static,
        H::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.add(Handler::declare(name, Kind::Worker), make)
    }

    /// Adds a handler that blocks (reads files, computes for long, calls a blocking library): its
    /// requests run on threads of their own, a bounded number at once, off the workers.
    #[must_use]
    pub fn blocking_handler<H, B>(self, name: &str, service: H) -> Self
    where
        H: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        H: Clone + Send + Sync + 'static,
        H::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.blocking_handler_with(name, |_| service)
    }

    /// Adds a handler that blocks, built by `make` from what [`setup`](Gateway::setup) gave.
    #[must_use]
    pub fn blocking_handler_with<H, B>(self, name: &str, make: impl FnOnce(&S) -> H + 'static) -> Self
    where
        H: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        H: Clone + Send + Sync + 'static,
        H::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.add(Handler::declare(name, Kind::BLOCKING), make)
    }

    /// Runs the command given by the program's arguments; `--help` lists them.
    /// Exits with 0 when all is well, 1 when running failed, 2 for wrong usage or a faulty file.
    ///
    /// Two handlers of one name are wrong usage, whatever the command; `health` is the built-in one's.
    #[must_use]
    pub fn main(self) -> ExitCode {
        self.into_program().map_or_else(|taken| cli::misused(&taken), cli::main)
    }

    /// Forgets what the set-up gives: what is left is handlers by name, and one future that makes
    /// them ready to serve.
    fn into_program(self) -> Result<Program, NameTaken> {
        let mut installs = Vec::with_capacity(self.handlers.len());
        let mut handlers = BTreeMap::from([("health".to_owned(), Arc::new(Handler::health()))]);
        for (handler, install) in self.handlers {
            let handler = Arc::new(handler);
            if handlers.insert(handler.name().to_owned(), Arc::clone(&handler)).is_some() {
                return Err(NameTaken { name: handler.name().to_owned() });
            }
            installs.push((handler, install));
        }
        let setup = self.setup;
        let ready = Box::pin(async move {
            let state = setup().await?;
            for (handler, install) in installs {
                let name = handler.name();
                let cannot = |why: &dyn fmt::Display| format!("the handler \"{name}\" cannot run: {why}");
                if !install(&state, &handler).map_err(|error| cannot(&error))? {
                    return Err(cannot(&"it has a service already").into());
                }
            }
            Ok(())
        });
        Ok(Program { handlers, ready })
    }

    fn add<H, B>(mut self, handler: Handler, make: impl FnOnce(&S) -> H + 'static) -> Self
    where
        H: Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>,
        H: Clone + Send + Sync + 'static,
        H::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.handlers.push((handler, Box::new(move |state, handler| handler.install(make(state)))));
        self
    }
}

impl<S> fmt::Debug for Gateway<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("handlers", &self.handlers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;

    use super::*;

    #[test]
    fn two_handlers_of_one_name_are_refused_by_name() {
        let refused = |gateway: Gateway| gateway.into_program().err().map(|taken| taken.name);
        let users = || Gateway::new().handler("users", Router::new());
        assert_eq!(refused(users().blocking_handler("orders", Router::new())), None);
        assert_eq!(refused(users().blocking_handler("users", Router::new())).as_deref(), Some("users"));
        assert_eq!(refused(users().handler("health", Router::new())).as_deref(), Some("health"));
    }
}
