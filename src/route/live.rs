//! The table in force, and its exchange for the next one.
//!
//! A swap never waits for requests, nor they for it. An old table lives exactly as long as the last
//! request that took it: whatever it alone held (pools, handlers' set-ups) goes with it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::RouteTable;

/// The table in force.
#[derive(Debug)]
pub(crate) struct LiveTable(ArcSwap<RouteTable>);

impl LiveTable {
    /// Puts the first table in force, as generation 1.
    pub(crate) fn new(mut first: RouteTable) -> Self {
        first.generation = 1;
        Self(ArcSwap::from_pointee(first))
    }

    /// The table for one request, taken once and kept to the request's end.
    pub(crate) fn current(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }

    /// Puts the next table in force and returns its generation. Only the control plane swaps, one
    /// table after the other.
    pub(crate) fn swap(&self, mut next: RouteTable) -> u64 {
        let generation = self.0.load().generation + 1;
        next.generation = generation;
        self.0.store(Arc::new(next));
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Edge;

    fn table() -> RouteTable {
        RouteTable::build(Edge::default(), Vec::new()).unwrap()
    }

    #[test]
    fn generations_rise_with_each_swap() {
        let live = LiveTable::new(table());
        assert_eq!(live.current().generation, 1);
        assert_eq!(live.swap(table()), 2);
        assert_eq!(live.swap(table()), 3);
        assert_eq!(live.current().generation, 3);
    }

    #[test]
    fn an_old_table_is_freed_when_its_last_request_ends() {
        let live = LiveTable::new(table());
        let request = live.current();
        let old = Arc::downgrade(&request);
        live.swap(table());
        assert_eq!(request.generation, 1);
        assert!(old.upgrade().is_some());
        drop(request);
        assert!(old.upgrade().is_none());
    }
}
