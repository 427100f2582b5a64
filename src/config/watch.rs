//! Seeing that the file changed, and putting the good ones in force.
//!
//! Folders are watched, not the file: editors and Kubernetes replace it, and a watch would stay with
//! the file that is gone. As events can be lost (network file systems, a full queue) it is looked at
//! every second as well. Whether anything changed is said by the content alone. A good file is
//! swapped in; a bad one changes nothing, and is logged once and shown until it is mended. This runs
//! on the control plane; loading is done on a thread that may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::edge::Fixed;
use super::fault::Faults;
use super::{Known, Loaded, Started, parse, read, source};
use crate::admin::ReloadStatus;
use crate::route::{LiveTable, RouteTable};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

/// How often the file is looked at when no event comes.
const POLL: Duration = Duration::from_secs(1);
/// A file that did not change for this long has been written.
const QUIET: Duration = Duration::from_millis(75);
/// A file that is replaced again and again is read after this; each replacement is whole.
const IMPATIENT: Duration = Duration::from_millis(500);
/// A file that does nothing but grow is still being written: its beginning may well be valid TOML.
const GROWING: Duration = Duration::from_secs(30);
/// A bad file is tried again: the folder or the host name that it lacked may be there by now.
const RETRY: Duration = Duration::from_secs(10);
/// Times on disk are coarse: a file younger than this may change again without looking changed.
const COARSE: Duration = Duration::from_secs(2);

/// What a reload needs beside the file.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The handlers compiled in, by name.
    pub(crate) handlers: Arc<BTreeMap<String, Arc<Handler>>>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// The table in force.
    pub(crate) live: Arc<LiveTable>,
    /// Where operators see what became of the file.
    pub(crate) status: Arc<ReloadStatus>,
}

/// Keeps the table in force as the file says.
#[derive(Debug)]
pub(crate) struct Watcher {
    path: PathBuf,
    context: Context,
    /// What the gateway was started with.
    fixed: Fixed,
    /// The content in force.
    good: u64,
    /// The last attempt that failed, while nothing better has been seen.
    bad: Option<Bad>,
    /// The file as it looked when it was last read.
    stamp: Stamp,
    events: Arc<Notify>,
}

#[derive(Debug)]
struct Bad {
    /// Content and faults: what has been logged is not logged again.
    identity: u64,
    tried: Instant,
}

impl Watcher {
    /// For the file that gave the table in force. Nothing is watched before [`run`](Self::run).
    pub(crate) fn new(path: &Path, started: Started, context: Context) -> Self {
        let Started { hash, fixed } = started;
        context.status.accepted(hash, context.live.current().generation, Vec::new());
        Self {
            // The process may change its folder; the file stays where it was.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            context,
            fixed,
            good: hash,
            bad: None,
            stamp: Stamp::default(),
            events: Arc::new(Notify::new()),
        }
    }

    /// Watches until it is dropped, and calls `applied` with each table that came into force.
    pub(crate) async fn run(mut self, applied: impl Fn(Arc<RouteTable>)) {
        let mut folders = Folders::new(Arc::clone(&self.events));
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            folders.follow(&self.path);
            let event = tokio::select! {
                () = self.events.notified() => true,
                _ = poll.tick() => false,
            };
            if event || Stamp::of(&self.path) != self.stamp {
                settle(&self.path).await;
            }
            // What was heard until now is about what is read now; it must not delay the next save.
            tokio::select! {
                biased;
                () = self.events.notified() => {}
                () = std::future::ready(()) => {}
            }
            if self.look().await {
                applied(self.context.live.current());
            }
        }
    }

    /// Reads the file if it may have changed, and acts on what it says now; tells whether a table
    /// came into force.
    async fn look(&mut self) -> bool {
        let stamp = Stamp::of(&self.path);
        let same = stamp == self.stamp && !stamp.is_young();
        let retry = self.bad.as_ref().is_some_and(|bad| !same || bad.tried.elapsed() >= RETRY);
        if same && !retry {
            return false;
        }
        self.stamp = stamp;
        let (path, context, good) = (self.path.clone(), self.context.clone(), self.good);
        // Loading waits for the disk and for the name service.
        let outcome = tokio::task::spawn_blocking(move || attempt(&path, &context, good)).await;
        match outcome {
            Ok(Outcome::Unchanged) => self.mended(),
            Ok(Outcome::Good(loaded)) => {
                self.apply(*loaded);
                return true;
            }
            Ok(Outcome::Bad(content, faults)) => self.refuse(content, &faults.to_string(), faults.count()),
            Err(panicked) => self.refuse(0, &format!("loading the file failed: {panicked}"), 1),
        }
        false
    }

    fn mended(&mut self) {
        if self.bad.take().is_some() {
            self.context.status.mended();
            tracing::info!(file = %self.path.display(), "the route file is again the one in force");
        }
    }

    fn apply(&mut self, loaded: Loaded) {
        let Loaded { table, mut warnings, started: Started { hash, fixed }, .. } = loaded;
        warnings.extend(self.fixed.differences(&fixed));
        let routes = table.routes.len();
        let before = self.context.live.current();
        let generation = self.context.live.swap(table);
        self.context.status.swapped(&before, &self.context.live.current());
        (self.good, self.bad) = (hash, None);
        tracing::info!(file = %self.path.display(), generation, routes, "a new route table is in force");
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.context.status.accepted(hash, generation, warnings);
    }

    fn refuse(&mut self, content: u64, faults: &str, count: usize) {
        let identity = content ^ source::hash(faults);
        let known = self.bad.as_ref().is_some_and(|bad| bad.identity == identity);
        self.bad = Some(Bad { identity, tried: Instant::now() });
        if known {
            return;
        }
        let generation = self.context.live.current().generation;
        tracing::error!(
            file = %self.path.display(), generation, faults = count,
            "the route file is refused; the running table stays in force\n{faults}"
        );
        self.context.status.rejected(faults.to_owned());
    }
}

/// What became of one look at the file.
enum Outcome {
    /// It is what is in force.
    Unchanged,
    Good(Box<Loaded>),
    /// The content that was tried, and why not.
    Bad(u64, Faults),
}

fn attempt(path: &Path, context: &Context, good: u64) -> Outcome {
    let text = match read(path, "put it back") {
        Ok(text) => text,
        Err(faults) => return Outcome::Bad(0, faults),
    };
    let hash = source::hash(&text);
    if hash == good {
        return Outcome::Unchanged;
    }
    let previous = context.live.current();
    let known = Known { handlers: &context.handlers, telemetry: &context.telemetry, previous: Some(&previous) };
    parse(path, &text, &known)
        .map_or_else(|faults| Outcome::Bad(hash, faults), |loaded| Outcome::Good(Box::new(loaded)))
}

/// Waits until whoever writes the file is done with it.
async fn settle(path: &Path) {
    let started = Instant::now();
    let mut growing = true;
    let mut last = Stamp::of(path);
    loop {
        sleep(QUIET).await;
        let now = Stamp::of(path);
        if now == last {
            return;
        }
        growing = growing && now.grew_from(&last);
        if started.elapsed() >= if growing { GROWING } else { IMPATIENT } {
            return;
        }
        last = now;
    }
}

/// What tells two states of a file apart without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    size: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
    missing: Option<io::ErrorKind>,
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(found) => Self {
                device: found.dev(),
                inode: found.ino(),
                mode: found.mode(),
                size: found.size(),
                modified: found.modified().ok(),
                changed: (found.ctime(), found.ctime_nsec()),
                missing: None,
            },
            Err(error) => Self { missing: Some(error.kind()), ..Self::default() },
        }
    }

    fn grew_from(&self, before: &Self) -> bool {
        (self.device, self.inode) == (before.device, before.inode) && self.size > before.size
    }

    fn is_young(&self) -> bool {
        self.modified.is_some_and(|at| at.elapsed().is_ok_and(|age| age < COARSE))
    }
}

/// The folders whose entries decide what the path leads to.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// With their inodes: a folder made anew needs a new watch.
    watched: BTreeMap<PathBuf, u64>,
}

impl Folders {
    fn new(events: Arc<Notify>) -> Self {
        let heard = move |event: notify::Result<Event>| {
            // Opening and reading are no changes; our own reading would wake us for ever.
            let idle = event.is_ok_and(
                |event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)),
            );
            if !idle {
                events.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(heard)
            .inspect_err(|error| tracing::warn!(%error, "no file events; the route file is looked at every second"))
            .ok();
        Self { watcher, watched: BTreeMap::new() }
    }

    /// Watches the folders that matter now, and no others.
    fn follow(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let inode = |folder: &PathBuf| Some((folder.clone(), std::fs::metadata(folder).ok()?.ino()));
        let wanted: BTreeMap<_, _> = folders_of(path).iter().filter_map(inode).collect();
        if wanted == self.watched {
            return;
        }
        for (folder, inode) in &self.watched {
            if wanted.get(folder) != Some(inode) {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
        }
        let new = wanted.into_iter().filter(|(folder, inode)| {
            self.watched.get(folder) == Some(inode) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
        });
        // A folder that cannot be watched now is tried again at the next look.
        self.watched = new.collect();
    }
}

/// The folder of the file, and of each symlink on the way to it.
fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    // What the kernel follows at most.
    const LINKS: usize = 40;
    let mut folders = BTreeSet::new();
    let mut here = path.to_owned();
    for _ in 0..=LINKS {
        let mut prefixes: Vec<&Path> = here.ancestors().collect();
        prefixes.reverse();
        let link = prefixes.into_iter().find_map(|prefix| Some((prefix, std::fs::read_link(prefix).ok()?)));
        let end = link.as_ref().map_or(here.as_path(), |(link, _)| *link);
        folders.extend(end.parent().map(Path::to_owned));
        let Some((link, target)) = link else { break };
        let rest = here.strip_prefix(link).unwrap_or(Path::new(""));
        let next = link.parent().unwrap_or(Path::new("/")).join(target);
        here = if rest.as_os_str().is_empty() { next } else { next.join(rest) };
    }
    folders
}

#[cfg(test)]
mod tests;
