//! What became of the route file's last versions, for operators to see.
//!
//! The watcher in `config` writes it, the admin port and the metrics read it. It stands in this room
//! because imports point down: `config` may know `admin`, never the reverse.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::route::RouteTable;

/// How many flips are remembered.
const FLIPS: usize = 100;

/// The state of reloading, shared by the watcher and whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct ReloadStatus(Mutex<Reloads>);

/// What happened so far. The file read at the start counts as the first that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloads {
    /// Files put in force.
    pub(crate) accepted: u64,
    /// Distinct faulty files, those that could not be read included.
    pub(crate) rejected: u64,
    /// The file as it is now, when that is faulty; `None`: what is on disk is in force.
    pub(crate) last_rejected: Option<Rejected>,
    /// The file in force.
    pub(crate) last_good: Option<Good>,
    /// The last changes of who serves, the oldest first.
    pub(crate) flips: VecDeque<Flip>,
}

/// Another side serves a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flip {
    pub(crate) route: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) when: SystemTime,
    /// The table that it came with.
    pub(crate) generation: u64,
}

/// A file that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) when: SystemTime,
    /// All of its faults, as the log shows them.
    pub(crate) faults: String,
}

/// A file that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Good {
    pub(crate) when: SystemTime,
    /// Tells contents apart within one process; shown as hexadecimal.
    pub(crate) hash: u64,
    /// The table made of it.
    pub(crate) generation: u64,
    /// What is no fault but deserves a look.
    pub(crate) warnings: Vec<String>,
}

impl ReloadStatus {
    /// A file has been put in force.
    pub(crate) fn accepted(&self, hash: u64, generation: u64, warnings: Vec<String>) {
        let mut state = self.lock();
        state.accepted += 1;
        state.last_rejected = None;
        state.last_good = Some(Good { when: SystemTime::now(), hash, generation, warnings });
    }

    /// The table in force gave way to the next one.
    pub(crate) fn swapped(&self, before: &RouteTable, after: &RouteTable) {
        let serving: HashMap<&str, &str> =
            before.routes.iter().map(|route| (&*route.name, route.serve.word())).collect();
        let mut state = self.lock();
        for route in &after.routes {
            let to = route.serve.word();
            let Some(from) = serving.get(&*route.name).filter(|from| **from != to) else { continue };
            if state.flips.len() >= FLIPS {
                state.flips.pop_front();
            }
            state.flips.push_back(Flip {
                route: (*route.name).to_owned(),
                from: (*from).to_owned(),
                to: to.to_owned(),
                when: SystemTime::now(),
                generation: after.generation,
            });
        }
    }

    /// A file has been refused.
    pub(crate) fn rejected(&self, faults: String) {
        let mut state = self.lock();
        state.rejected += 1;
        state.last_rejected = Some(Rejected { when: SystemTime::now(), faults });
    }

    /// The file is what is in force again.
    pub(crate) fn mended(&self) {
        self.lock().last_rejected = None;
    }

    /// How things are now.
    pub(crate) fn snapshot(&self) -> Reloads {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reloads> {
        // Each change is whole in itself: after a panic elsewhere the state still is what it says.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Edge, Route, Serve};

    fn table(routes: &[(&str, Serve)], generation: u64) -> RouteTable {
        let route = |(name, serve): &(&str, Serve)| {
            let mut route = Route::for_test(name, &format!("/{name}"));
            route.serve = *serve;
            route
        };
        let mut table = RouteTable::build(Edge::default(), routes.iter().map(route).collect()).unwrap();
        table.generation = generation;
        table
    }

    #[test]
    fn the_last_flips_are_remembered_and_no_more() {
        let status = ReloadStatus::default();
        let (old, new) = (Serve::Legacy, Serve::New);
        status.swapped(
            &table(&[("cart", old), ("order", old)], 1),
            &table(&[("cart", old), ("order", new), ("added", new)], 2),
        );
        let flips = status.snapshot().flips;
        assert_eq!(flips.len(), 1);
        let told = (&*flips[0].route, &*flips[0].from, &*flips[0].to, flips[0].generation);
        assert_eq!(told, ("order", "legacy", "new", 2));
        for generation in 3..200 {
            let (from, to) = if generation % 2 == 0 { (old, new) } else { (new, old) };
            status.swapped(&table(&[("order", from)], generation - 1), &table(&[("order", to)], generation));
        }
        let flips = status.snapshot().flips;
        assert_eq!((flips.len(), flips.back().unwrap().generation), (FLIPS, 199));
    }

    #[test]
    fn a_rejected_file_is_shown_until_it_is_mended() {
        let status = ReloadStatus::default();
        status.accepted(1, 1, Vec::new());
        status.rejected("1 fault".to_owned());
        assert_eq!(status.snapshot().last_rejected.unwrap().faults, "1 fault");
        status.mended();
        let shown = status.snapshot();
        assert_eq!((shown.accepted, shown.rejected, shown.last_rejected), (1, 1, None));
        assert_eq!(shown.last_good.unwrap().hash, 1);
    }
}
