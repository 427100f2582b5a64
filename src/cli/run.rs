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
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::children::Children;
use super::{Program, block_on, coloured, complain, faulty, flip, print, routes_in_words, with_causes};
use crate::admin::{self, Admin, Costs, ReloadStatus, Token};
use crate::config::{self, Context, Faults, Known, Loaded, Watcher};
use crate::http::BoxError;
use crate::route::{LiveTable, RouteTable};
use crate::server::{self, BindError, Drain, Server};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;
use crate::upstream::fastcgi::SpawnError;

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
    match block_on(serve(file, json, program)).map_err(Failure::System).flatten() {
        Ok(()) => 0,
        Err(Failure::Faults(faults)) => faulty(&faults),
        Err(failure) => complain(&with_causes(&failure)),
    }
}

/// Logs go to standard error, at `info` unless `RUST_LOG` says otherwise.
fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured(std::io::stderr().is_terminal()))
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
    let context = Context {
        handlers: Arc::new(handlers),
        telemetry: Arc::clone(&telemetry),
        live: Arc::clone(&table),
        status: Arc::clone(&status),
    };
    let costs = Arc::new(Costs::default());
    let keeping = tokio::task::spawn_local(Arc::clone(&costs).keep(Arc::clone(&table), Arc::clone(&telemetry)));
    let admin = admin.map(|listener| open_admin(listener, path, listen.admin_token, &context, costs)).transpose()?;
    announce(path, json, &server, admin.as_ref(), &table.current());
    telemetry.readiness().set(true);

    let watcher = Watcher::new(path, started, context);
    let watching = tokio::task::spawn_local(watcher.run(followed_by(&children)));

    let name = signals.next().await;
    let within = table.current().edge.drain;
    tracing::info!(signal = name, ?within, "draining; a second signal ends now");
    telemetry.readiness().set(false);
    watching.abort();
    go_down(server, &drain, within, &mut signals).await;
    keeping.abort();
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

/// The operator's port once it is open.
struct Opened {
    address: SocketAddr,
    /// Made here, and so known to nobody yet; `None`: the operator chose one.
    token: Option<Token>,
}

fn open_admin(
    listener: TcpListener,
    path: &Path,
    chosen: Option<Token>,
    context: &Context,
    costs: Arc<Costs>,
) -> Result<Opened, Failure> {
    let address = listener.local_addr()?;
    let (token, made) = match chosen {
        Some(token) => (token, None),
        None => Token::random().map(|token| (token.clone(), Some(token)))?,
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let admin = Admin::new(admin::Parts {
        table: Arc::clone(&context.live),
        telemetry: Arc::clone(&context.telemetry),
        reloads: Arc::clone(&context.status),
        costs,
        file: path.display().to_string(),
        token,
        flip: flip::by_order(path, Arc::clone(&context.handlers)),
    });
    tokio::task::spawn_local(admin::serve(listener, admin));
    Ok(Opened { address, token: made })
}

/// Says where it listens and what it loaded: in a sentence or two for a person, in one line for a machine.
/// The token that was made is told to them, and not to a file that the terminal's text may end in.
fn announce(path: &Path, json: bool, server: &Server, admin: Option<&Opened>, table: &RouteTable) {
    let http: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let routes = table.routes.len();
    let text = if json {
        let address = admin.map(|admin| admin.address.to_string());
        let token = admin.and_then(|admin| admin.token.as_ref()).map(Token::reveal);
        let generation = table.generation;
        let line =
            json!({ "http": http, "admin": address, "admin_token": token, "routes": routes, "generation": generation });
        format!("{line}\n")
    } else {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut text = String::new();
        for address in &http {
            text.push_str(&format!("  serving    http://{address}/\n"));
        }
        if let Some(Opened { address, token }) = admin {
            let token = token.as_ref().filter(|_| std::io::stdout().is_terminal());
            let fragment = token.map(|token| format!("#token={}", token.reveal())).unwrap_or_default();
            text.push_str(&format!("  dashboard  http://{address}/{fragment}\n"));
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
