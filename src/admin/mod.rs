//! The operator's port: what the gateway knows of itself, over plain HTTP.
//!
//! It lives on the control plane's thread, so that whatever is asked here, no request of a client
//! waits for it. It reads what the workers count and what the table says, and changes nothing.
//! There is no password: the port belongs on a loopback address, where [`answer`] refuses names that
//! are not local, or on a network of its own. The server room binds it.

mod answer;
mod compare;
mod costs;
mod gauges;
mod reload;
mod report;
mod routes;
mod series;

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
use tokio::sync::Semaphore;

pub(crate) use self::costs::Costs;
pub(crate) use self::reload::ReloadStatus;
use crate::route::LiveTable;
use crate::telemetry::Telemetry;

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

/// What the operator's port reads from.
#[derive(Debug)]
pub(crate) struct Admin {
    table: Arc<LiveTable>,
    telemetry: Arc<Telemetry>,
    reloads: Arc<ReloadStatus>,
    costs: Arc<Costs>,
}

impl Admin {
    pub(crate) fn new(
        table: Arc<LiveTable>,
        telemetry: Arc<Telemetry>,
        reloads: Arc<ReloadStatus>,
        costs: Arc<Costs>,
    ) -> Self {
        Self { table, telemetry, reloads, costs }
    }
}

/// Serves the operator's port until it is dropped, on the thread it is called on.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let admin = Rc::new(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Of a listener that has no address any more nothing can be accepted either.
    let Ok(bound) = listener.local_addr() else { return };
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Rc::clone(&admin);
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
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(admin.answer(request.method(), request.uri(), request.headers(), bound))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    // How a connection of an operator ends is the operator's affair: nothing to log.
    if tokio::time::timeout(CONNECTION_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
    }
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
            Self::new(Arc::new(LiveTable::new(table)), telemetry, Arc::default(), Arc::default())
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
