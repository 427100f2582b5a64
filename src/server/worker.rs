//! One worker: its event loop, from accepting to gone.
//!
//! Accepting never ends because of an error: without descriptors it waits a moment and tries
//! again, as clients that leave give theirs back.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::census::Census;
use super::connection::{self, Connection};
use super::drain::Phase;
use super::listener::Listeners;
use crate::gateway::Worker;
use crate::http::Client;

/// First and longest pause of accepting when the system has no descriptors left.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often a worker wakes for nothing.
const TICK: Duration = Duration::from_secs(1);

/// What the workers of a server have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) census: Arc<Census>,
    pub(super) last_one_out: Arc<Barrier>,
}

/// Runs a worker on the calling thread until it has drained; says on `ready` whether it can.
pub(super) fn run(
    worker: impl FnOnce() -> Worker,
    listeners: Listeners,
    common: Common,
    ready: &mpsc::Sender<io::Result<()>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let listeners: io::Result<Vec<_>> = listeners.into_iter().map(TcpListener::from_std).collect();
        let listeners = match listeners {
            Ok(listeners) => listeners,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        let Common { phases, census, last_one_out } = common;
        let worker = Rc::new(worker());
        let logged = Rc::clone(&worker);
        tokio::task::spawn_local(async move { logged.recorder().keep_log_moving().await });
        tokio::task::spawn_local(tick());
        serve(worker, listeners, phases, census).await;
        // A handler's connections (a database pool) may belong to any worker's event loop, so
        // none stops turning before all have answered their last request.
        last_one_out.wait().await;
    });
}

/// Keeps a timer armed that is due before nearly every other.
///
/// Tokio wakes its own event loop, with a write to an eventfd and one more wait, for each timer that is
/// set to fire before all others. Deadlines of requests are seconds away: beside this one, they are not.
async fn tick() {
    loop {
        sleep(TICK).await;
    }
}

/// Accepts until draining, then waits for what is in flight.
async fn serve(
    worker: Rc<Worker>,
    listeners: Vec<TcpListener>,
    mut phases: watch::Receiver<Phase>,
    census: Arc<Census>,
) {
    let closing = Rc::new(Cell::new(false));
    let mut accepting = JoinSet::new();
    let connections = Rc::new(std::cell::RefCell::new(JoinSet::new()));
    for listener in listeners {
        let door = Door {
            worker: Rc::clone(&worker),
            census: Arc::clone(&census),
            closing: Rc::clone(&closing),
            phases: phases.clone(),
            connections: Rc::clone(&connections),
        };
        accepting.spawn_local(door.accept(listener));
    }

    let end = loop {
        let phase = *phases.borrow_and_update();
        match phase {
            Phase::Serving => {}
            Phase::LameDuck => closing.set(true),
            Phase::Draining(end) => break Some(end),
            Phase::Over => break None,
        }
        if phases.changed().await.is_err() {
            break None;
        }
    };
    closing.set(true);
    accepting.shutdown().await;

    let Some(end) = end else { return };
    let mut connections = connections.take();
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = sleep_until(end) => {}
        () = over(&mut phases) => {}
    }
}

/// Waits for the phase in which whatever is left is cut.
async fn over(phases: &mut watch::Receiver<Phase>) {
    let _ = phases.wait_for(|phase| *phase == Phase::Over).await;
}

/// Where connections come in: one for every listener of a worker.
struct Door {
    worker: Rc<Worker>,
    census: Arc<Census>,
    closing: Rc<Cell<bool>>,
    phases: watch::Receiver<Phase>,
    connections: Rc<std::cell::RefCell<JoinSet<()>>>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    self.open(stream, peer);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?pause, "cannot accept; trying again after a pause");
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) {
        let table = self.worker.table();
        let client = peer.ip().to_canonical();
        let Some(admission) = self.census.admit(client, &table.edge) else {
            self.worker.recorder().connection_refused();
            return;
        };
        let Ok(server) = stream.local_addr() else { return };
        let connection = Connection {
            worker: Rc::clone(&self.worker),
            client: Client::of_connection(peer, server),
            limits: table.edge.limits.clone(),
            timeouts: table.edge.timeouts.clone(),
            closing: Rc::clone(&self.closing),
        };
        let phases = self.phases.clone();
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            connection::serve(stream, connection, phases).await;
            drop(admission);
        });
    }
}

/// Errors of a connection that died before it was accepted, not of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;

    use super::*;
    use crate::route::{Edge, LiveTable, RouteTable};
    use crate::telemetry::{Destination, Telemetry};

    fn table() -> RouteTable {
        RouteTable::build(Edge::default(), Vec::new()).unwrap()
    }

    async fn ask(client: &mut TcpStream) {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"</small></p>") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn an_old_table_goes_though_the_connection_that_used_it_stays() {
        let telemetry = Telemetry::new(1, &Destination::Off).unwrap();
        let live = Arc::new(LiveTable::new(table()));
        let worker = Rc::new(Worker::new(Arc::clone(&live), telemetry.recorder(0)));
        let (_phase, phases) = watch::channel(Phase::Serving);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let door = Door { worker, census: Arc::default(), closing: Rc::default(), phases, connections: Rc::default() };
        let used = async {
            tokio::task::spawn_local(door.accept(listener));
            ask(&mut client).await;
            let old = Arc::downgrade(&live.current());
            live.swap(table());
            assert!(old.upgrade().is_none(), "the open connection keeps it");
            ask(&mut client).await;
        };
        LocalSet::new().run_until(used).await;
    }
}
