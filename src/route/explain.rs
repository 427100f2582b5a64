//! Why a request gets the route it gets: what `strangler explain` prints.
//!
//! Runs beside the request path, over all routes, and says of each what decided. The winner is the
//! one that [`RouteTable::find`] names, so an explanation cannot tell another story than the gateway.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::sync::Arc;

use ::http::{HeaderMap, Method};

use super::{Asked, Condition, Found, Route, RouteTable};
use crate::http::CanonicalPath;

/// What a search found, and how each route fared in it.
#[derive(Debug)]
pub(crate) struct Explanation<'t> {
    pub(crate) found: Found<'t>,
    /// The winner's parameters, in the order of its path.
    pub(crate) params: Vec<(String, String)>,
    /// Every route: the winner first, then those that came near, those with another path last.
    pub(crate) considered: Vec<Considered<'t>>,
}

/// One route, and why it serves the request or does not.
#[derive(Debug)]
pub(crate) struct Considered<'t> {
    pub(crate) route: &'t Arc<Route>,
    pub(crate) verdict: Verdict<'t>,
}

/// Why a route serves a request or does not, in the order of how near it came.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict<'t> {
    /// It serves the request.
    Wins,
    /// It matches, but the winner goes before it.
    Outranked { by: &'t str, because: Precedence },
    /// It asks for something that the request does not have.
    Condition(&'t Condition),
    /// It serves other methods.
    Method(&'t [Method]),
    /// It is for another host.
    Host(&'t str),
    /// It is for other paths.
    Path,
}

/// The rule that put the winner first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precedence {
    NamedHost,
    SpecificPath,
    ListedMethod,
    MoreConditions,
}

impl RouteTable {
    /// Says how each route fares with a request.
    pub(crate) fn explain(
        &self,
        method: &Method,
        host: &str,
        path: &CanonicalPath,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Explanation<'_> {
        let asked = Asked { method, query, headers };
        let found = self.find(method, host, path, query, headers);
        let winner = match &found {
            Found::Route(route) => Some(*route),
            Found::Disputed { .. } | Found::MethodNotAllowed { .. } | Found::Nothing => None,
        };
        let mut considered: Vec<_> = self
            .routes
            .iter()
            .map(|route| Considered { route, verdict: verdict(route, winner, host, path, &asked) })
            .collect();
        considered.sort_by(|one, other| {
            one.verdict
                .distance()
                .cmp(&other.verdict.distance())
                .then_with(|| precedence(one.route, other.route, method))
        });
        let params = winner.and_then(|route| route.pattern.params(path.as_str())).unwrap_or_default();
        let params = params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Explanation { found, params, considered }
    }
}

fn verdict<'t>(
    route: &'t Arc<Route>,
    winner: Option<&'t Arc<Route>>,
    host: &str,
    path: &CanonicalPath,
    asked: &Asked<'_>,
) -> Verdict<'t> {
    if !route.pattern.matches(path.as_str()) {
        return Verdict::Path;
    }
    if let Some(other) = route.host.as_deref().filter(|named| *named != host) {
        return Verdict::Host(other);
    }
    if method_rank(route, asked.method).is_none() {
        return Verdict::Method(&route.methods);
    }
    if let Some(condition) = route.unmet(asked) {
        return Verdict::Condition(condition);
    }
    match winner {
        Some(winner) if !Arc::ptr_eq(winner, route) => {
            Verdict::Outranked { by: &winner.name, because: decider(winner, route, asked.method) }
        }
        _ => Verdict::Wins,
    }
}

/// How well a route's methods fit: the lower, the better; `None` if it does not serve the method.
fn method_rank(route: &Route, method: &Method) -> Option<u8> {
    if route.lists(method) {
        Some(0)
    } else if method == Method::HEAD && route.lists(&Method::GET) {
        Some(1)
    } else {
        route.methods.is_empty().then_some(2)
    }
}

/// The order in which routes that match win; the name decides only between such as cannot both match.
fn precedence(one: &Route, other: &Route, method: &Method) -> Ordering {
    let rank = |route: &Route| method_rank(route, method).unwrap_or(u8::MAX);
    (one.host.is_none().cmp(&other.host.is_none()))
        .then_with(|| one.pattern.cmp_specificity(&other.pattern))
        .then_with(|| rank(one).cmp(&rank(other)))
        .then_with(|| Reverse(one.when.len()).cmp(&Reverse(other.when.len())))
        .then_with(|| one.name.cmp(&other.name))
}

/// The first rule by which the winner differs from a route that matches too.
fn decider(winner: &Route, loser: &Route, method: &Method) -> Precedence {
    if winner.host.is_some() != loser.host.is_some() {
        Precedence::NamedHost
    } else if winner.pattern.cmp_specificity(&loser.pattern).is_ne() {
        Precedence::SpecificPath
    } else if method_rank(winner, method) != method_rank(loser, method) {
        Precedence::ListedMethod
    } else {
        Precedence::MoreConditions
    }
}

impl Verdict<'_> {
    /// How far the route was from serving the request.
    fn distance(&self) -> u8 {
        match self {
            Self::Wins => 0,
            Self::Outranked { .. } => 1,
            Self::Condition(_) => 2,
            Self::Method(_) => 3,
            Self::Host(_) => 4,
            Self::Path => 5,
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wins => f.write_str("serves this request"),
            Self::Outranked { by, because } => write!(f, "matches too, but \"{by}\" {because}"),
            Self::Condition(condition) => write!(f, "asks for {condition}"),
            Self::Method(methods) => {
                f.write_str("serves only")?;
                for (at, method) in methods.iter().enumerate() {
                    write!(f, "{} {method}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Host(host) => write!(f, "is for the host {host}"),
            Self::Path => f.write_str("is for other paths"),
        }
    }
}

impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NamedHost => "names its host",
            Self::SpecificPath => "has the more specific path",
            Self::ListedMethod => "lists the method",
            Self::MoreConditions => "has more conditions",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Edge;

    fn table() -> RouteTable {
        let mut order = Route::for_test("order", "/orders/{id}");
        order.methods = vec![Method::GET];
        let mut any = Route::for_test("order-any", "/orders/{id}");
        any.when = Vec::new();
        let mut beta = Route::for_test("beta", "/orders/{id}");
        beta.methods = vec![Method::GET];
        beta.when = vec![Condition::Cookie { name: "beta".to_owned(), value: "on".to_owned() }];
        let mut write = Route::for_test("write", "/{kind}/{id}");
        write.methods = vec![Method::PUT, Method::POST];
        let mut admin = Route::for_test("admin", "/{*rest}");
        admin.host = Some("admin.example".to_owned());
        let rest = Route::for_test("rest", "/{*rest}");
        let cart = Route::for_test("cart", "/cart");
        RouteTable::build(Edge::default(), vec![cart, rest, admin, write, beta, any, order]).unwrap()
    }

    fn explain(method: &Method, host: &str, path: &str) -> (Vec<(String, String)>, Vec<String>) {
        let table = table();
        let explanation = table.explain(method, host, &CanonicalPath::parse(path).unwrap(), None, &HeaderMap::new());
        let lines = explanation.considered.iter().map(|c| format!("{}: {}", c.route.name, c.verdict)).collect();
        (explanation.params, lines)
    }

    #[test]
    fn each_route_says_why_it_serves_or_not() {
        let (params, lines) = explain(&Method::GET, "shop.example", "/orders/7");
        assert_eq!(params, [("id".to_owned(), "7".to_owned())]);
        assert_eq!(
            lines,
            [
                "order: serves this request",
                "order-any: matches too, but \"order\" lists the method",
                "rest: matches too, but \"order\" has the more specific path",
                "beta: asks for cookie beta = \"on\"",
                "write: serves only PUT, POST",
                "admin: is for the host admin.example",
                "cart: is for other paths",
            ]
        );
    }

    #[test]
    fn a_named_host_is_the_first_reason() {
        let (_, lines) = explain(&Method::GET, "admin.example", "/orders/7");
        assert_eq!(lines[0], "admin: serves this request");
        assert_eq!(lines[1], "order: matches too, but \"admin\" names its host");
    }

    #[test]
    fn without_a_winner_nobody_wins() {
        let mut only = Route::for_test("only", "/a");
        only.methods = vec![Method::PUT];
        let table = RouteTable::build(Edge::default(), vec![only]).unwrap();
        let path = CanonicalPath::parse("/a").unwrap();
        let explanation = table.explain(&Method::GET, "", &path, None, &HeaderMap::new());
        assert!(matches!(&explanation.found, Found::MethodNotAllowed { allow } if allow == "PUT"));
        assert_eq!(explanation.considered[0].verdict, Verdict::Method(&[Method::PUT]));
    }
}
