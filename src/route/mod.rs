//! The route table: finding a route, choosing the side. (Stub.)
//!
//! The only room that knows matchit and arc-swap.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, Method};

use crate::http::{CanonicalPath, Limits, Timeouts};
use crate::telemetry::{RouteStats, Side, UpstreamStats};
use crate::upstream::Target;

/// Which side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serve {
    Legacy,
    New,
}

/// A target together with what is recorded of it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) target: Target,
    pub(crate) stats: Arc<UpstreamStats>,
}

/// One further condition of a route (`when`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The header is there with exactly this value.
    Header { name: HeaderName, value: String },
    /// The query has this parameter with exactly this value.
    Query { name: String, value: String },
    /// The cookie is there with exactly this value.
    Cookie { name: String, value: String },
}

/// One rule of the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    /// As written, prefix of its group included.
    pub(crate) path: String,
    /// Empty: all.
    pub(crate) methods: Vec<Method>,
    /// Lower case; `None`: any.
    pub(crate) host: Option<String>,
    pub(crate) when: Vec<Condition>,
    pub(crate) legacy: Option<Place>,
    pub(crate) new: Option<Place>,
    pub(crate) serve: Serve,
    /// Since when `serve` is what it is.
    pub(crate) since: SystemTime,
    pub(crate) timeout: Duration,
    pub(crate) body_bytes: u64,
    pub(crate) stats: Arc<RouteStats>,
}

impl Route {
    /// The side that answers the next request, and where that is.
    pub(crate) fn choose(&self) -> (Side, &Place) {
        todo!()
    }
}

/// What the edge itself goes by; swapped with the routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edge {
    pub(crate) trusted_proxies: Vec<ipnet::IpNet>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    /// Adds `X-Strangler-Side` to answers.
    pub(crate) reveal: bool,
    pub(crate) drain: Duration,
}

/// Two routes that nothing tells apart: indexes into the list given to `RouteTable::build`.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// The immutable set of all routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    pub(crate) generation: u64,
    pub(crate) edge: Edge,
    pub(crate) routes: Vec<Arc<Route>>,
}

/// What became of looking for a route.
#[derive(Debug)]
pub(crate) enum Found<'t> {
    Route(&'t Arc<Route>),
    MethodNotAllowed { allow: String },
    Nothing,
}

impl RouteTable {
    pub(crate) fn build(edge: Edge, routes: Vec<Route>) -> Result<Self, Vec<Conflict>> {
        Ok(Self { generation: 0, edge, routes: routes.into_iter().map(Arc::new).collect() })
    }
    pub(crate) fn find(
        &self,
        _method: &Method,
        _host: &str,
        _path: &CanonicalPath,
        _query: Option<&str>,
        _headers: &HeaderMap,
    ) -> Found<'_> {
        Found::Nothing
    }
}

/// The table in force.
#[derive(Debug)]
pub(crate) struct LiveTable(arc_swap::ArcSwap<RouteTable>);

impl LiveTable {
    pub(crate) fn new(mut first: RouteTable) -> Self {
        first.generation = 1;
        Self(arc_swap::ArcSwap::from_pointee(first))
    }
    pub(crate) fn current(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
    /// Puts the next table in force and returns its generation.
    pub(crate) fn swap(&self, mut next: RouteTable) -> u64 {
        let g = self.current().generation + 1;
        next.generation = g;
        self.0.store(Arc::new(next));
        g
    }
}
