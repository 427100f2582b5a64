//! `strangler run`: the control plane, from reading the file to the last worker's end.
//!
//! One thread that may be slow and may fail: nothing here is on a request's path.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::children::Children;
use super::{Program, complain, faulty, print, routes_in_words, with_causes};
use crate::admin::{self, Admin, ReloadStatus};
use crate::config::{self, Context, Faults, Known, Loaded, Watcher};
use crate::http::BoxError;
use crate::route::{LiveTable, RouteTable};
use crate::server::{self, BindError, Drain, Server};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;
use crate::upstream::fastcgi::SpawnError;

/// How often the windows of the comparison move on.
const TICK: Duration = Duration::from_secs(10);
/// How long the last traces may take to be sent.
const LAST_TRACES: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Say where it listens as one line of JSON, and log as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Faults(Faults),
    #[error("the set-up of the handlers failed")]
    SetUp(#[source] BoxError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot open the access log")]
    AccessLog(#[source] std::io::Error),
    #[error("the system refuses what the control plane needs")]
    System(#[from] std::io::Error),
}

pub(super) fn run(file: &Path, json: bool, program: Program) -> u8 {
    start_logging(json);
    let served = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Failure::System)
        .and_then(|runtime| runtime.block_on(serve(file, json, program)));
    match served {
        Ok(()) => 0,
        Err(Failure::Faults(faults)) => faulty(&faults),
        Err(failure) => complain(&with_causes(&failure)),
    }
}

/// Logs go to standard error, at `info` unless `RUST_LOG` says otherwise.
fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .with_target(false);
    // A second subscriber (of a program that has its own) is no reason not to serve.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
}

async fn serve(path: &Path, json: bool, program: Program) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let Program { handlers, ready } = program;

    // Read once to learn how many workers there are, and once more with counters for them.
    let first = load(path, &handlers, &Telemetry::idle())?;
    let telemetry = Telemetry::new(first.workers, &first.access_log).map_err(Failure::AccessLog)?;
    let exporting = first.trace.as_ref().map(|settings| tokio::task::spawn_local(telemetry.trace(settings).run()));
    let Loaded { table, listen, workers, started, warnings, .. } = load(path, &handlers, &telemetry)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Before all that takes long or leaves traces: with the port taken, none of it should have begun.
    let bound = Server::bind(&listen.http, workers)?;
    let admin = listen.admin.map(server::bind_admin).transpose()?;
    ready.await.map_err(Failure::SetUp)?;
    let children = Rc::new(Children::default());
    children.follow(&table).await?;

    let table = Arc::new(LiveTable::new(table));
    let drain = Drain::new();
    let server = bound.start(&table, &telemetry, &drain)?;
    let status = Arc::new(ReloadStatus::default());
    let admin = admin.map(|listener| open_admin(listener, &table, &telemetry, &status)).transpose()?;
    announce(path, json, &server, admin, &table.current());
    telemetry.readiness().set(true);

    let (telemetry_of_routes, live) = (Arc::clone(&telemetry), Arc::clone(&table));
    let context = Context { handlers: Arc::new(handlers), telemetry: telemetry_of_routes, live, status };
    let watcher = Watcher::new(path, started, context);
    let watching = tokio::task::spawn_local(watcher.run(followed_by(&children)));
    let ticking = tokio::task::spawn_local(tick(Arc::clone(&telemetry)));

    let name = signals.next().await;
    let within = table.current().edge.drain;
    tracing::info!(signal = name, ?within, "draining; a second signal ends now");
    telemetry.readiness().set(false);
    watching.abort();
    go_down(server, &drain, within, &mut signals).await;
    ticking.abort();
    children.stop().await;
    telemetry.end_traces();
    if let Some(exporting) = exporting {
        let _ = tokio::time::timeout(LAST_TRACES, exporting).await;
    }
    telemetry.close();
    tracing::info!("ended");
    Ok(())
}

/// Waits for the workers to drain: until all have, until the time is over, or until told again.
async fn go_down(server: Server, drain: &Drain, within: Duration, signals: &mut Signals) {
    let mut finished = pin!(server.finished());
    tokio::select! {
        () = &mut finished => return,
        () = drain.run(within) => {}
        _ = signals.next() => drain.end_now(),
    }
    finished.await;
}

/// What is called with every table that comes into force: its own php-fpm processes must run.
fn followed_by(children: &Rc<Children>) -> impl Fn(Arc<RouteTable>) + use<> {
    let children = Rc::clone(children);
    move |table| {
        let children = Rc::clone(&children);
        tokio::task::spawn_local(async move {
            if let Err(error) = children.follow(&table).await {
                tracing::error!("{}", with_causes(&error));
            }
        });
    }
}

fn load(path: &Path, handlers: &BTreeMap<String, Arc<Handler>>, telemetry: &Telemetry) -> Result<Loaded, Failure> {
    config::load(path, &Known { handlers, telemetry, previous: None }).map_err(Failure::Faults)
}

async fn tick(telemetry: Arc<Telemetry>) {
    loop {
        tokio::time::sleep(TICK).await;
        telemetry.tick(Instant::now());
    }
}

/// Opens the operator's port and gives its real address.
fn open_admin(
    listener: TcpListener,
    table: &Arc<LiveTable>,
    telemetry: &Arc<Telemetry>,
    status: &Arc<ReloadStatus>,
) -> Result<SocketAddr, Failure> {
    let address = listener.local_addr()?;
    let admin = Admin::new(Arc::clone(table), Arc::clone(telemetry), Arc::clone(status));
    tokio::task::spawn_local(admin::serve(listener, admin));
    Ok(address)
}

/// Says where it listens and what it loaded: in a sentence or two for a person, in one line for a machine.
fn announce(path: &Path, json: bool, server: &Server, admin: Option<SocketAddr>, table: &RouteTable) {
    let http: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let admin = admin.map(|address| address.to_string());
    let routes = table.routes.len();
    let text = if json {
        let line = json!({ "http": http, "admin": admin, "routes": routes, "generation": table.generation });
        format!("{line}\n")
    } else {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut text = String::new();
        for address in &http {
            text.push_str(&format!("  serving    http://{address}/\n"));
        }
        if let Some(admin) = admin {
            text.push_str(&format!("  admin      http://{admin}/\n"));
        }
        text + &format!("  the table  {} ({}; save it and it is in force)\n", path.display(), routes_in_words(routes))
    };
    print(&text);
}

/// What ends a gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
