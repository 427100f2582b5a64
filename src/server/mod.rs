//! Workers, listeners, connections, and going down: the only room that binds a socket.
//!
//! A worker is a thread with its own event loop, its own `SO_REUSEPORT` listeners, its own
//! connections to upstreams and its own counters; a request lives and dies on one worker. This
//! room turns bytes of clients into requests and hands each to [`Worker::serve`]; what becomes of
//! a request is none of its business. TLS and HTTP/2 will stand between `listener` and
//! `connection`.

mod census;
mod client_io;
mod connection;
mod drain;
mod listener;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Barrier;

use self::census::Census;
pub(crate) use self::drain::Drain;
pub(crate) use self::listener::BindError;
use self::listener::Listeners;
use self::worker::Common;
use crate::gateway::Worker;
use crate::route::LiveTable;
use crate::telemetry::Telemetry;

/// The running workers.
#[derive(Debug)]
pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// A server that has its addresses and does not serve yet.
#[derive(Debug)]
pub(crate) struct Bound {
    addresses: Vec<SocketAddr>,
    listeners: Vec<Listeners>,
}

impl Server {
    /// Binds every address once for every worker. Clients that connect wait until the workers start.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(crate) fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Bound, BindError> {
        let (addresses, listeners) = listener::bind_for_workers(addresses, workers)?;
        Ok(Bound { addresses, listeners })
    }

    /// Where clients are heard; a port of 0 has become the real one.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until every worker has drained, looking every 20 ms so that the event loop of the
    /// caller goes on.
    pub(crate) async fn finished(self) {
        while !self.threads.iter().all(thread::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Bound {
    /// Starts the workers.
    ///
    /// # Errors
    /// When a thread cannot be started; nothing serves then.
    pub(crate) fn start(
        self,
        table: &Arc<LiveTable>,
        telemetry: &Arc<Telemetry>,
        drain: &Drain,
    ) -> Result<Server, BindError> {
        let Self { addresses, listeners } = self;
        let workers = listeners.len();
        let common = Common {
            phases: drain.listen(),
            census: Arc::new(Census::default()),
            last_one_out: Arc::new(Barrier::new(workers)),
        };
        let (ready, started) = mpsc::channel();
        let mut threads = Vec::with_capacity(workers);
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (table, telemetry) = (Arc::clone(table), Arc::clone(telemetry));
            let (common, ready) = (common.clone(), ready.clone());
            let worker = move || Worker::new(table, telemetry.recorder(index));
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::run(worker, listeners, common, &ready))
                .map_err(BindError::Worker)?;
            threads.push(thread);
        }
        for started in started.iter().take(workers) {
            started.map_err(BindError::Worker)?;
        }
        Ok(Server { addresses, threads })
    }
}

/// Binds the operator's port; on the control plane, so without `SO_REUSEPORT`.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn bind_admin(address: SocketAddr) -> Result<TcpListener, BindError> {
    listener::bind(address, false).and_then(TcpListener::from_std).map_err(|source| BindError::Bind { address, source })
}
