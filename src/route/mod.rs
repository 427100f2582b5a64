//! The route table: finding a route, choosing the side.
//!
//! A table is immutable. The control plane builds the next one, a request takes the current one once
//! and keeps it to its end. Which route wins never depends on the order of the file: a named host
//! before any host, then the more specific path, then a listed method before any, then more
//! conditions before fewer; what is left is a conflict, and such a table is never built.
//!
//! The only room that knows arc-swap. It reads no file and knows no key of routes.toml; it connects
//! to nothing: where a route leads is a [`Place`] that the upstream room made, and what it checks is
//! a [`Check`] of the check room.

mod condition;
mod explain;
mod live;
mod pattern;
mod table;
mod tree;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, Method};

pub(crate) use self::condition::Condition;
pub(crate) use self::explain::{Considered, Explanation, Verdict};
pub(crate) use self::live::LiveTable;
pub(crate) use self::pattern::Pattern;
pub(crate) use self::table::{Found, RouteTable};
use crate::check::Check;
use crate::http::{Limits, Timeouts};
use crate::telemetry::{CheckStats, RouteStats, Side, UpstreamStats};
use crate::upstream::Target;

/// Which side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serve {
    Legacy,
    New,
}

impl Serve {
    /// The word in routes.toml.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::New => "new",
        }
    }
}

/// A target together with what is recorded of it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) target: Target,
    pub(crate) stats: Arc<UpstreamStats>,
}

/// A check of a route together with what is recorded of it there.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) check: Arc<Check>,
    pub(crate) stats: Arc<CheckStats>,
    /// The upstream that the check asks.
    pub(crate) authority: Option<Place>,
}

/// The sides a route has: one at least.
#[derive(Clone, Debug)]
pub(crate) enum Sides {
    Legacy(Place),
    New(Place),
    Both { legacy: Place, new: Place },
}

impl Sides {
    /// `None` without any side: such a route could answer nothing.
    pub(crate) fn of(legacy: Option<Place>, new: Option<Place>) -> Option<Self> {
        match (legacy, new) {
            (Some(legacy), Some(new)) => Some(Self::Both { legacy, new }),
            (Some(legacy), None) => Some(Self::Legacy(legacy)),
            (None, Some(new)) => Some(Self::New(new)),
            (None, None) => None,
        }
    }
}

/// One rule of the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    /// Prefix of its group included.
    pub(crate) pattern: Pattern,
    /// Empty: all. A route that lists `GET` serves `HEAD` too, unless one of the same path lists that.
    pub(crate) methods: Vec<Method>,
    /// In the form that [`crate::http::Host`] has; `None`: any.
    pub(crate) host: Option<String>,
    pub(crate) when: Vec<Condition>,
    /// In the order in which they run.
    pub(crate) checks: Vec<Checked>,
    /// Its answers end the session that the request came with.
    pub(crate) ends_session: bool,
    pub(crate) sides: Sides,
    pub(crate) serve: Serve,
    /// Since when `serve` is what it is.
    pub(crate) since: SystemTime,
    pub(crate) timeout: Duration,
    pub(crate) body_bytes: u64,
    pub(crate) stats: Arc<RouteStats>,
}

impl Route {
    /// The path as written, prefix of its group included.
    pub(crate) fn path(&self) -> &str {
        self.pattern.as_str()
    }

    /// The side that answers the next request, and where that is. A route with one side is served by
    /// that one: a file that says otherwise is faulty and makes no table.
    pub(crate) fn choose(&self) -> (Side, &Place) {
        match (&self.sides, self.serve) {
            (Sides::Legacy(place), _) | (Sides::Both { legacy: place, .. }, Serve::Legacy) => (Side::Legacy, place),
            (Sides::New(place), _) | (Sides::Both { new: place, .. }, Serve::New) => (Side::New, place),
        }
    }

    /// The legacy side, if it has one.
    pub(crate) fn legacy(&self) -> Option<&Place> {
        match &self.sides {
            Sides::Legacy(legacy) | Sides::Both { legacy, .. } => Some(legacy),
            Sides::New(_) => None,
        }
    }

    /// The new side, if it has one.
    pub(crate) fn new_side(&self) -> Option<&Place> {
        match &self.sides {
            Sides::New(new) | Sides::Both { new, .. } => Some(new),
            Sides::Legacy(_) => None,
        }
    }

    /// Its sides, and whom its checks ask.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        let asked = self.checks.iter().filter_map(|checked| checked.authority.as_ref());
        self.legacy().into_iter().chain(self.new_side()).chain(asked)
    }

    fn lists(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// The first condition that the request does not meet.
    fn unmet(&self, asked: &Asked<'_>) -> Option<&Condition> {
        self.when.iter().find(|condition| !condition.holds(asked.query, asked.headers))
    }
}

/// What of a request, beside host and path, decides about its route.
#[derive(Clone, Copy, Debug)]
struct Asked<'r> {
    method: &'r Method,
    query: Option<&'r str>,
    headers: &'r HeaderMap,
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

#[cfg(test)]
impl Place {
    /// A handler of that name, which answers nothing of use.
    pub(crate) fn for_test(name: &str) -> Self {
        let handler = Arc::new(crate::upstream::Handler::new(name));
        Self { target: Target::Handler(handler), stats: Arc::new(UpstreamStats::new(name, 0)) }
    }
}

#[cfg(test)]
impl Route {
    /// A route with one side for any method and host; a test changes what it is about.
    pub(crate) fn for_test(name: &str, path: &str) -> Self {
        Self {
            name: name.into(),
            pattern: Pattern::parse(path).unwrap(),
            methods: Vec::new(),
            host: None,
            when: Vec::new(),
            checks: Vec::new(),
            ends_session: false,
            sides: Sides::Legacy(Place::for_test("legacy")),
            serve: Serve::Legacy,
            since: SystemTime::UNIX_EPOCH,
            timeout: Duration::from_secs(30),
            body_bytes: 8 << 20,
            stats: Arc::new(RouteStats::new(name, 0, std::time::Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_chooses_the_side() {
        let mut route = Route::for_test("cart", "/cart");
        route.sides = Sides::of(Some(Place::for_test("php")), Some(Place::for_test("cart"))).unwrap();
        assert_eq!((route.choose().0, route.choose().1.target.name()), (Side::Legacy, "php"));
        route.serve = Serve::New;
        assert_eq!((route.choose().0, route.choose().1.target.name()), (Side::New, "cart"));
        assert_eq!((route.legacy().unwrap().target.name(), route.new_side().unwrap().target.name()), ("php", "cart"));
        assert_eq!((Serve::Legacy.word(), Serve::New.word()), ("legacy", "new"));
    }

    #[test]
    fn a_route_has_a_side_and_its_only_side_answers() {
        assert!(Sides::of(None, None).is_none());
        let mut route = Route::for_test("cart", "/cart");
        route.sides = Sides::of(None, Some(Place::for_test("cart"))).unwrap();
        assert_eq!(route.choose().0, Side::New);
        assert!(route.legacy().is_none());
    }
}
