//! routes.toml becomes a route table, or every fault in it at once.
//!
//! As written → as run: [`source`] gets the text, the TOML parser makes a tree in which every value
//! knows its place, readers ([`edge`], [`upstream`], [`routes`]) walk it by what [`spec`] says of each
//! key and note faults on a [`fault::Sheet`]. Either no fault was noted and there is a table, or
//! nothing is used. [`watch`] does this whenever the file changes, [`mod@flip`] after changing one word.
//!
//! The only room with toml and notify. It never answers a request and is never waited for by one.

mod check;
mod edge;
mod fault;
mod flip;
mod handler;
mod reader;
mod routes;
mod source;
mod spec;
mod units;
mod upstream;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use self::edge::Fixed;
pub(crate) use self::edge::Listen;
pub(crate) use self::fault::Faults;
use self::fault::Sheet;
pub(crate) use self::flip::{FlipError, flip};
use self::reader::Reader;
pub(crate) use self::watch::{Context, Watcher};
use crate::admin::Token;
use crate::route::RouteTable;
use crate::telemetry::{Destination, Telemetry, TraceSettings};
use crate::upstream::fastcgi::local;
use crate::upstream::{Handler, Target};

/// What the file may refer to without saying it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The handlers compiled in, by name.
    pub(crate) handlers: &'a BTreeMap<String, Arc<Handler>>,
    /// Gives routes and upstreams the counters of their name.
    pub(crate) telemetry: &'a Telemetry,
    /// The table in force: what has not changed is taken over from it.
    pub(crate) previous: Option<&'a RouteTable>,
}

/// A good file.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) table: RouteTable,
    pub(crate) listen: Listen,
    /// Never 0: one per core has become their number.
    pub(crate) workers: usize,
    pub(crate) access_log: Destination,
    pub(crate) trace: Option<TraceSettings>,
    /// What a watcher compares later files with.
    pub(crate) started: Started,
    /// What is no fault but deserves a look, each with its place.
    pub(crate) warnings: Vec<String>,
}

/// The file that a table came from, as far as later versions of it are compared with it.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// Tells the text apart from others, within this process.
    hash: u64,
    fixed: Fixed,
}

/// Reads the file at `path` and makes a table of it.
///
/// Waits for the disk, and for the name service where an upstream is given by name: never to be
/// called on a worker.
///
/// # Errors
/// Every fault of the file; nothing of a faulty file is used.
pub(crate) fn load(path: &Path, known: &Known<'_>) -> Result<Loaded, Faults> {
    parse(path, &read(path, NAME_IT)?, known)
}

/// What helps a command that finds no file.
const NAME_IT: &str = "name the file with -c FILE";

/// Where the file at `path` has the admin port, and the token that it takes there if that can be read.
///
/// Nothing else of the file is looked at: whoever watches a gateway does so when its file is broken as well, and
/// need not be able to read its secrets. `None`: the file has no admin port.
///
/// # Errors
/// There is no file, or it does not say where the port is in a way that can be understood.
pub(crate) fn admin(path: &Path) -> Result<Option<(SocketAddr, Option<Token>)>, Faults> {
    let text = read(path, NAME_IT)?;
    let sheet = Sheet::new(path, &text);
    let (document, errors) = DeTable::parse_recoverable(&text);
    let found = edge::admin(&Reader::open(&sheet, &spec::FILE, document.get_ref(), 0..0));
    if found.is_none() {
        note(&sheet, errors);
        sheet.verdict()?;
    }
    Ok(found)
}

/// The text of a route file; `when_absent` is what helps when there is none.
fn read(path: &Path, when_absent: &str) -> Result<String, Faults> {
    source::read(path, source::LARGEST).map_err(|unread| {
        let remedy = if path.exists() { "" } else { when_absent };
        Faults::unreadable(path, unread.to_string(), remedy)
    })
}

/// Makes a table of a text that came from `path`.
fn parse(path: &Path, text: &str, known: &Known<'_>) -> Result<Loaded, Faults> {
    let sheet = Sheet::new(path, text);
    let read = read_sheet(&sheet, text, known);
    let warnings = sheet.verdict()?;
    // Without a fault there is a table: whoever gives none notes why. Were that ever not so, the
    // file is refused rather than half used.
    let Some((table, mut fixed)) = read else {
        return Err(Faults::unreadable(path, "gives no table".to_owned(), ""));
    };
    if fixed.workers == 0 {
        fixed.workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    }
    let Fixed { listen, workers, access_log, trace } = fixed.clone();
    let mut loaded = Loaded {
        table,
        listen,
        workers,
        access_log,
        trace,
        started: Started { hash: source::hash(text), fixed },
        warnings,
    };
    loaded.warnings.extend(pool_warnings(&loaded.table));
    Ok(loaded)
}

fn read_sheet(sheet: &Sheet<'_>, text: &str, known: &Known<'_>) -> Option<(RouteTable, Fixed)> {
    let (document, errors) = DeTable::parse_recoverable(text);
    // What the parser makes of the rest after an error is a guess; faults found in a guess mislead.
    if !errors.is_empty() {
        note(sheet, errors);
        return None;
    }
    let file = Reader::open(sheet, &spec::FILE, document.get_ref(), 0..0);
    let listen = edge::listen(&file);
    let trace = edge::trace(&file);
    let (edge, workers, access_log) = edge::server(&file);
    let upstreams = upstream::upstreams(&file, known.previous);
    let checks = check::checks(&file, &upstreams, known.previous);
    let handlers = handler::handlers(&file, &checks, known.previous);
    let table = routes::table(&file, edge, &upstreams, &checks, &handlers, known)?;
    Some((table, Fixed { listen, workers, access_log, trace }))
}

/// Notes what the TOML parser found.
fn note(sheet: &Sheet<'_>, errors: Vec<toml::de::Error>) {
    for error in errors {
        sheet.fault(error.span().unwrap_or(0..0), error.message(), "");
    }
}

/// A local pool with fewer processes than the gateway may keep busy makes requests wait unseen, in
/// the socket's backlog instead of the gateway's queue.
fn pool_warnings(table: &RouteTable) -> Vec<String> {
    let warning = |target: &Target| {
        let Target::Php(php) = target else { return None };
        let (name, connections) = (php.name(), php.settings().connections);
        let children = match php.settings().spawn {
            Some(children) => usize::try_from(children).ok(),
            None => local::max_children(&php.settings().address),
        };
        let children = children.filter(|children| *children < connections)?;
        Some(format!(
            "upstream \"{name}\": connections = {connections}, but its pool has {children} processes (pm.max_children)"
        ))
    };
    table.targets().filter_map(warning).collect()
}

#[cfg(test)]
mod tests;
