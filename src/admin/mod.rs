//! The operator's port: what the gateway knows of itself, over plain HTTP.
//!
//! It lives on the control plane's thread, so that whatever is asked here, no request of a client
//! waits for it. It reads what the workers count and what the table says. The one thing it changes is a
//! word of the file, and it has that done ([`flip`]). Who may ask is said in [`guard`]. The server room
//! binds the port.

mod answer;
mod body;
mod compare;
mod costs;
mod events;
mod flip;
mod gauges;
mod guard;
mod page;
mod reload;
mod report;
mod routes;
mod series;
mod token;
mod upstreams;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

pub(crate) use self::compare::Question;
pub(crate) use self::costs::Costs;
use self::events::Events;
pub(crate) use self::flip::{Done, Flip, Order, Refused};
pub(crate) use self::reload::ReloadStatus;
pub(crate) use self::token::Token;
use crate::route::LiveTable;
use crate::telemetry::{Courtesy, Telemetry};

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Age at which a connection is asked to end…
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// …and how long its last answer may then take.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEADER_BYTES: usize = 16 << 10;
/// Pause after a connection could not be accepted: the descriptors may be used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the operator's port reads from, and what it has done.
pub(crate) struct Admin {
    table: Arc<LiveTable>,
    telemetry: Arc<Telemetry>,
    reloads: Arc<ReloadStatus>,
    costs: Arc<Costs>,
    /// Where the route file is, for operators to see.
    file: String,
    token: Token,
    flip: Arc<Flip>,
    events: Events,
}

/// What [`Admin`] is made of.
pub(crate) struct Parts {
    pub(crate) table: Arc<LiveTable>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) reloads: Arc<ReloadStatus>,
    pub(crate) costs: Arc<Costs>,
    pub(crate) file: String,
    pub(crate) token: Token,
    pub(crate) flip: Arc<Flip>,
}

impl Admin {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { table, telemetry, reloads, costs, file, token, flip } = parts;
        Self { table, telemetry, reloads, costs, file, token, flip, events: Events::default() }
    }
}

/// Serves the operator's port until it is dropped, on the thread it is called on.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let admin = Rc::new(admin);
    // Of a listener that has no address any more nothing can be accepted either.
    let Ok(bound) = listener.local_addr() else { return };
    tokio::select! {
        () = accept(&listener, bound, &admin) => {}
        () = admin.events.run(async |question| admin.event(question).await) => {}
    }
}

async fn accept(listener: &TcpListener, bound: SocketAddr, admin: &Rc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Rc::clone(admin);
                tokio::task::spawn_local(async move {
                    connection(stream, bound, &admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the admin port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, bound: SocketAddr, admin: &Admin) {
    let cut = Rc::new(Notify::new());
    let service = service_fn(async |request: Request<Incoming>| {
        // What is asked once in a while finds nothing of its in the processor's cache: to be here took long already.
        Courtesy::new().pause().await;
        Ok::<_, Infallible>(admin.respond(request, bound, &cut).await)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    // How a connection of an operator ends is the operator's affair: nothing to log.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cut.notified() => return,
        () = tokio::time::sleep(CONNECTION_AGE) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}

/// A moment as `2026-01-02T03:04:05Z`.
fn rfc3339(moment: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(moment).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::route::{Edge, Place, Route, RouteTable, Serve, Sides};
    use crate::telemetry::Destination;

    impl Admin {
        /// Of a gateway with one route that both sides can answer.
        pub(super) fn for_test() -> Self {
            let telemetry = Telemetry::new(1, &Destination::Off).unwrap();
            let mut route = Route::for_test("order", "/api/v1/orders/{id}");
            route.sides = Sides::of(Some(Place::for_test("php")), Some(Place::for_test("orders"))).unwrap();
            route.serve = Serve::Legacy;
            route.stats = telemetry.route("order");
            let table = RouteTable::build(Edge::default(), vec![route]).unwrap();
            let done = Done { from: Some("legacy".to_owned()), place: "routes.toml:1".to_owned(), changed: true };
            Self::new(Parts {
                table: Arc::new(LiveTable::new(table)),
                telemetry,
                reloads: Arc::default(),
                costs: Arc::default(),
                file: "routes.toml".to_owned(),
                token: Token::random().unwrap(),
                flip: Arc::new(move |_| Ok(done.clone())),
            })
        }
    }

    #[tokio::test]
    async fn the_port_answers_over_a_socket_and_keeps_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(serve(listener, Admin::for_test()));
                let mut stream = TcpStream::connect(address).await.unwrap();
                let asked = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\
                             GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                stream.write_all(asked.as_bytes()).await.unwrap();
                let mut answered = String::new();
                stream.read_to_string(&mut answered).await.unwrap();
                assert!(answered.starts_with("HTTP/1.1 200 OK\r\n"), "{answered}");
                assert!(answered.contains("ok\nHTTP/1.1 404 Not Found\r\n"), "{answered}");
            })
            .await;
    }

    #[test]
    fn moments_are_told_to_the_second() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
    }
}
