//! The immutable set of all routes, and the search in it.
//!
//! A search costs one look into a tree for each segment of the path, however many routes there are,
//! and allocates only for an answer of 405. It sees the canonical path and host alone, so the route a
//! request gets does not depend on its spelling.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, Method};

use super::tree::Tree;
use super::{Asked, Checked, Edge, Place, Route};
use crate::check::{Check, Session};
use crate::http::CanonicalPath;
use crate::upstream::Target;

/// Two routes that nothing tells apart: indexes into the list given to [`RouteTable::build`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// The immutable set of all routes.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub(crate) generation: u64,
    pub(crate) edge: Edge,
    /// In the order of the file, which is for people only.
    pub(crate) routes: Vec<Arc<Route>>,
    /// Where requests may go, by names: the sides of all routes, and whom their checks ask.
    pub(crate) places: BTreeMap<Box<str>, Place>,
    /// The checks of all routes, by names.
    pub(crate) checks: BTreeMap<Box<str>, Arc<Check>>,
    /// The checks of sessions, each once: an answer of any route may end a session.
    pub(crate) sessions: Vec<Arc<Check>>,
    /// The header fields in which requests name those sessions, each once.
    pub(crate) session_fields: Vec<HeaderName>,
    /// The header fields that its checks set, on whichever route: what a client sends under these names is removed.
    pub(crate) owned_fields: Vec<HeaderName>,
    hosts: HashMap<Box<str>, Tree>,
    any_host: Tree,
}

/// What became of looking for a route.
#[derive(Debug)]
pub(crate) enum Found<'t> {
    /// This route serves the request.
    Route(&'t Arc<Route>),
    /// This route would, but PHP may read the path as that of another one, which checks what this one does not.
    Disputed { route: &'t Route, guarded: &'t Route },
    /// Nothing does, but with one of these methods (sorted, as `Allow` has them) something would.
    MethodNotAllowed { allow: String },
    /// No route knows the path.
    Nothing,
}

impl RouteTable {
    /// The upstreams and handlers that requests may go to, each once.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.places.values().map(|place| &place.target)
    }

    /// Makes a table, unless two of the routes could match one request and nothing decides between
    /// them. Each route that conflicts is named once, with the first that it conflicts with.
    pub(crate) fn build(edge: Edge, routes: Vec<Route>) -> Result<Self, Vec<Conflict>> {
        let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
        let mut hosts: HashMap<Box<str>, Tree> = HashMap::new();
        let mut any_host = Tree::default();
        let mut conflicts = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let tree = match &route.host {
                Some(host) => hosts.entry(host.as_str().into()).or_default(),
                None => &mut any_host,
            };
            if let Some(first) = tree.shape(&route.pattern).add(index, route) {
                conflicts.push(Conflict { first, second: index });
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut table = Self { edge, hosts, any_host, ..Self::default() };
        for place in routes.iter().flat_map(|route| route.places()) {
            table.places.entry(place.target.name().into()).or_insert_with(|| place.clone());
        }
        for Checked { check, .. } in routes.iter().flat_map(|route| &route.checks) {
            table.checks.entry(check.name().into()).or_insert_with(|| Arc::clone(check));
        }
        table.sessions = table.checks.values().filter(|check| check.session().is_some()).cloned().collect();
        let named_in = table.sessions.iter().filter_map(|check| check.session()).flat_map(Session::token_fields);
        table.session_fields = named_in.collect::<HashSet<_>>().into_iter().collect();
        let owned: HashSet<_> = table.checks.values().flat_map(|check| check.owned()).cloned().collect();
        table.owned_fields = owned.into_iter().collect();
        Ok(Self { routes, ..table })
    }

    /// Finds the route of a request; `host` as [`crate::http::Host`] has it.
    pub(crate) fn find(
        &self,
        method: &Method,
        host: &str,
        path: &CanonicalPath,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Found<'_> {
        let asked = Asked { method, query, headers };
        match self.best(host, path.as_str(), &asked) {
            Some(route) => match self.guarded_reading(route, host, path.as_str(), &asked) {
                Some(guarded) => Found::Disputed { route, guarded },
                None => Found::Route(route),
            },
            None => self.not_found(host, path, &asked),
        }
    }

    fn best(&self, host: &str, path: &str, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        self.trees(host).find_map(|tree| tree.walk(path, &mut |shape| shape.best(asked)))
    }

    /// The route of another path that PHP may take this one for, where that route has checks which this one has not:
    /// `/index.php/cart` is `/cart` to an application, and must not be the way around what is asked of `/cart`.
    fn guarded_reading(&self, route: &Route, host: &str, path: &str, asked: &Asked<'_>) -> Option<&Route> {
        let legacy = route.legacy().filter(|_| !self.checks.is_empty())?;
        let has = |check| route.checks.iter().any(|own| Arc::ptr_eq(&own.check, check));
        let readings = legacy.target.readings(path).into_iter();
        let mut routes = readings.filter_map(|reading| self.best(host, &reading, asked));
        routes.find(|other| other.checks.iter().any(|checked| !has(&checked.check))).map(|other| &**other)
    }

    /// The trees a host's requests are looked for in, the more specific first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &Tree> {
        self.hosts.get(host).into_iter().chain([&self.any_host])
    }

    fn not_found(&self, host: &str, path: &CanonicalPath, asked: &Asked<'_>) -> Found<'_> {
        let mut allowed = Vec::new();
        for tree in self.trees(host) {
            let _: Option<()> = tree.walk(path.as_str(), &mut |shape| {
                allowed.extend(shape.allowed(asked).map(Method::as_str));
                None
            });
        }
        if allowed.is_empty() {
            return Found::Nothing;
        }
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        allowed.dedup();
        Found::MethodNotAllowed { allow: allowed.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::route::{Condition, Pattern};

    fn table(routes: Vec<Route>) -> RouteTable {
        RouteTable::build(Edge::default(), routes).unwrap()
    }

    /// `METHODS HOST/PATH when`, or parts of it: `GET,PUT`, `*` for any; name is the text itself.
    fn route(text: &str) -> Route {
        let mut words = text.split(' ');
        let (methods, target) = (words.next().unwrap(), words.next().unwrap());
        let (host, path) = target.split_at(target.find('/').unwrap());
        let mut route = Route::for_test(text, path);
        if methods != "*" {
            route.methods = methods.split(',').map(|method| method.parse().unwrap()).collect();
        }
        route.host = (!host.is_empty()).then(|| host.to_owned());
        route.when = words
            .map(|word| {
                let (name, value) = word.split_once('=').unwrap();
                Condition::Header { name: HeaderName::from_bytes(name.as_bytes()).unwrap(), value: value.to_owned() }
            })
            .collect();
        route
    }

    fn routes(texts: &[&str]) -> Vec<Route> {
        texts.iter().map(|text| route(text)).collect()
    }

    /// The winner's name, the `Allow` list in brackets, or `-`.
    fn find(table: &RouteTable, text: &str) -> String {
        let asked = route(text);
        let path = CanonicalPath::parse(&asked.pattern.to_string()).unwrap();
        let headers = asked
            .when
            .iter()
            .filter_map(|condition| match condition {
                Condition::Header { name, value } => Some((name.clone(), HeaderValue::from_str(value).unwrap())),
                Condition::Query { .. } | Condition::Cookie { .. } => None,
            })
            .collect();
        match table.find(&asked.methods[0], asked.host.as_deref().unwrap_or_default(), &path, None, &headers) {
            Found::Route(route) => route.name.to_string(),
            Found::MethodNotAllowed { allow } => format!("[{allow}]"),
            Found::Disputed { .. } | Found::Nothing => "-".to_owned(),
        }
    }

    #[test]
    fn the_more_specific_path_wins() {
        let table = table(routes(&["* /{*rest}", "* /{lang}/cart", "* /a/{id}", "* /a/b", "* /a/{*rest}", "* /a/"]));
        for (asked, wanted) in [
            ("GET /a/b", "* /a/b"),
            ("GET /a/c", "* /a/{id}"),
            ("GET /a/cart", "* /a/{id}"),
            ("GET /b/cart", "* /{lang}/cart"),
            ("GET /b/cart/", "* /{*rest}"),
            ("GET /a/b/c", "* /a/{*rest}"),
            ("GET /a/", "* /a/"),
            ("GET /a", "* /{*rest}"),
            ("GET /", "* /{*rest}"),
        ] {
            assert_eq!(find(&table, asked), wanted, "{asked}");
        }
    }

    #[test]
    fn a_named_host_goes_before_a_more_specific_path() {
        let table = table(routes(&["* shop/{*rest}", "* /a/b", "GET only/a"]));
        assert_eq!(find(&table, "GET shop/a/b"), "* shop/{*rest}");
        assert_eq!(find(&table, "GET other/a/b"), "* /a/b");
        assert_eq!(find(&table, "GET only/a/b"), "* /a/b");
        assert_eq!(find(&table, "GET other/a"), "-");
    }

    #[test]
    fn a_listed_method_goes_before_more_conditions() {
        let table = table(routes(&["* /a x=1 y=2", "GET /a", "GET /a x=1"]));
        assert_eq!(find(&table, "GET /a y=2"), "GET /a");
        assert_eq!(find(&table, "GET /a x=1 y=2"), "GET /a x=1");
        assert_eq!(find(&table, "POST /a x=1 y=2"), "* /a x=1 y=2");
        assert_eq!(find(&table, "POST /a x=1"), "[GET, HEAD]");
    }

    #[test]
    fn what_a_route_does_not_serve_is_left_to_less_specific_ones() {
        let table = table(routes(&["GET /a/{id}", "PUT /{x}/1", "* /{*rest} x=1"]));
        assert_eq!(find(&table, "GET /a/1"), "GET /a/{id}");
        assert_eq!(find(&table, "PUT /a/1"), "PUT /{x}/1");
        assert_eq!(find(&table, "POST /a/1 x=1"), "* /{*rest} x=1");
        assert_eq!(find(&table, "POST /a/1"), "[GET, HEAD, PUT]");
        assert_eq!(find(&table, "POST /a/2"), "[GET, HEAD]");
        assert_eq!(find(&table, "POST /b"), "-");
    }

    #[test]
    fn head_is_served_by_get_unless_a_route_of_the_path_lists_it() {
        let got = table(routes(&["GET /a", "* /{*rest}"]));
        assert_eq!(find(&got, "HEAD /a"), "GET /a");
        let listed = table(routes(&["GET /a x=1", "HEAD /a"]));
        assert_eq!(find(&listed, "HEAD /a x=1"), "HEAD /a");
    }

    #[test]
    fn allow_names_only_methods_that_would_be_served() {
        let table = table(routes(&["PUT shop/a", "POST,DELETE /a", "PATCH /a x=1"]));
        assert_eq!(find(&table, "GET shop/a"), "[DELETE, POST, PUT]");
        assert_eq!(find(&table, "GET shop/a x=1"), "[DELETE, PATCH, POST, PUT]");
        assert_eq!(find(&table, "PATCH other/a"), "[DELETE, POST]");
    }

    #[test]
    fn two_routes_that_nothing_tells_apart_are_a_conflict() {
        let conflicts =
            |texts: &[&str]| RouteTable::build(Edge::default(), routes(texts)).map_or_else(|c| c, |_| vec![]);
        let between = |first, second| vec![Conflict { first, second }];
        assert_eq!(conflicts(&["* /a", "* /b", "* /a"]), between(0, 2));
        assert_eq!(conflicts(&["* /{x}", "* /{y}"]), between(0, 1));
        assert_eq!(conflicts(&["GET,PUT /a", "PUT,POST /a"]), between(0, 1));
        assert_eq!(conflicts(&["* /a x=1", "* /a y=1"]), between(0, 1));
        assert_eq!(conflicts(&["* /a x=1", "* /a x=1"]), between(0, 1));
        assert_eq!(conflicts(&["* shop/a", "* shop/a"]), between(0, 1));
        assert_eq!(conflicts(&["* /a", "* /a", "* /a"]), [between(0, 1), between(0, 2)].concat());
        for decided in [
            ["GET /a", "* /a"],
            ["GET /a", "PUT /a"],
            ["GET /a", "HEAD /a"],
            ["* /a x=1", "* /a x=2"],
            ["* /a x=1", "* /a"],
            ["* /a x=1", "* /a y=1 z=1"],
            ["* /a", "* shop/a"],
            ["* /a", "* /a/"],
            ["* /{x}", "* /{*x}"],
        ] {
            assert_eq!(conflicts(&decided), [], "{decided:?}");
        }
    }

    #[test]
    fn ten_thousand_routes_build_and_are_found_quickly() {
        let mut texts: Vec<String> = (0..5_000).map(|n| format!("GET /api/v1/r{n}/{{id}}")).collect();
        texts.extend((0..4_999).map(|n| format!("* /{{tenant}}/s{n}")));
        texts.push("* /{*rest}".to_owned());
        let started = Instant::now();
        let table = table(texts.iter().map(|text| route(text)).collect());
        // Generous for a debug build on a busy machine: a quadratic build takes minutes.
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        assert_eq!(find(&table, "GET /api/v1/r4711/7"), "GET /api/v1/r4711/{id}");
        assert_eq!(find(&table, "POST /api/v1/r4711/7"), "* /{*rest}");
        assert_eq!(find(&table, "GET /x/s4711"), "* /{tenant}/s4711");
    }

    /// The rules of precedence said once more, slowly: filter, then take the smallest.
    fn oracle(routes: &[Route], asked: &Route, headers: &HeaderMap) -> String {
        let host = asked.host.as_deref();
        let path = asked.pattern.to_string();
        let method = &asked.methods[0];
        let served = |route: &Route| {
            (route.host.is_none() || route.host.as_deref() == host)
                && path_matches(&route.pattern, &path)
                && route.when.iter().all(|condition| condition.holds(None, headers))
        };
        let method_rank = |route: &Route| match &route.methods[..] {
            [] => Some(2),
            listed if listed.contains(method) => Some(0),
            listed if method == Method::HEAD && listed.contains(&Method::GET) => Some(1),
            _ => None,
        };
        let kinds = |route: &Route| -> Vec<u8> {
            let kind = |segment: &str| if segment.starts_with("{*") { 2 } else { u8::from(segment.starts_with('{')) };
            route.path().split('/').map(kind).collect()
        };
        let best = routes.iter().filter(|route| served(route)).filter_map(|route| {
            Some((
                (route.host.is_none(), kinds(route), method_rank(route)?, usize::MAX - route.when.len()),
                &route.name,
            ))
        });
        if let Some((_, name)) = best.min() {
            return name.to_string();
        }
        let mut allow: Vec<&str> =
            routes.iter().filter(|route| served(route)).flat_map(|r| &r.methods).map(Method::as_str).collect();
        if allow.contains(&"GET") {
            allow.push("HEAD");
        }
        allow.sort_unstable();
        allow.dedup();
        if allow.is_empty() { "-".to_owned() } else { format!("[{}]", allow.join(", ")) }
    }

    fn path_matches(pattern: &Pattern, path: &str) -> bool {
        let (wanted, sent): (Vec<_>, Vec<_>) = (pattern.as_str().split('/').collect(), path.split('/').collect());
        match wanted.split_last() {
            Some((last, before)) if last.starts_with("{*") => {
                sent.len() > before.len() && before.iter().zip(&sent).all(|(wanted, sent)| part_matches(wanted, sent))
            }
            _ => {
                wanted.len() == sent.len() && wanted.iter().zip(&sent).all(|(wanted, sent)| part_matches(wanted, sent))
            }
        }
    }

    fn part_matches(wanted: &str, sent: &str) -> bool {
        wanted == sent || (wanted.starts_with('{') && !sent.is_empty())
    }

    fn route_texts() -> impl Strategy<Value = String> {
        let methods = prop_oneof![3 => Just("*"), 2 => Just("GET"), 1 => Just("HEAD"), 1 => Just("GET,PUT"), 1 => Just("PUT,POST")];
        let host = prop_oneof![3 => Just(""), 1 => Just("shop"), 1 => Just("api")];
        let path = "(/(a|b|\\{x\\})){0,3}(/|/a|/\\{x\\}|/\\{\\*r\\})";
        let when =
            prop_oneof![4 => Just(""), 1 => Just(" h=1"), 1 => Just(" h=2"), 1 => Just(" g=1"), 1 => Just(" g=1 h=1")];
        (methods, host, path, when).prop_map(|(methods, host, path, when)| {
            // Each parameter needs a name of its own.
            let path: Vec<_> =
                path.split('/').enumerate().map(|(at, s)| s.replace("{x}", &format!("{{x{at}}}"))).collect();
            format!("{methods} {host}{}{when}", path.join("/"))
        })
    }

    /// Routes that differ in little, so that many tie.
    fn close_route_texts() -> impl Strategy<Value = String> {
        ("(GET|GET,PUT|\\*)", "(/a|/\\{x\\})", "( h=1| h=2| g=1| g=1 h=1)?")
            .prop_map(|(methods, path, when)| methods + " " + &path + &when)
    }

    fn request_texts() -> impl Strategy<Value = String> {
        let method = prop_oneof![Just("GET"), Just("HEAD"), Just("PUT"), Just("POST"), Just("PATCH")];
        let host = prop_oneof![Just(""), Just("shop"), Just("api"), Just("other")];
        let when = prop_oneof![Just(""), Just(" h=1"), Just(" h=2"), Just(" g=1"), Just(" g=1 h=1"), Just(" g=1 h=2")];
        (method, host, "(/(a|b|c)){0,4}/?", when).prop_filter_map("a path", |(method, host, path, when)| {
            path.starts_with('/').then(|| format!("{method} {host}{path}{when}"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn every_order_of_the_file_gives_the_oracles_answer(
            (texts, shuffled) in proptest::collection::vec(route_texts(), 1..12)
                .prop_flat_map(|texts| (Just(texts.clone()), Just(texts).prop_shuffle())),
            requests in proptest::collection::vec(request_texts(), 1..20),
        ) {
            let built = [&texts, &shuffled].map(|texts| {
                RouteTable::build(Edge::default(), texts.iter().map(|text| route(text)).collect())
            });
            let [Ok(one), Ok(other)] = built else {
                // A conflict in one order is a conflict in the other.
                prop_assert!(built.iter().all(Result::is_err));
                return Ok(());
            };
            let slow: Vec<Route> = texts.iter().map(|text| route(text)).collect();
            for request in &requests {
                let asked = route(request);
                let headers: HeaderMap = asked.when.iter().filter_map(|condition| match condition {
                    Condition::Header { name, value } => Some((name.clone(), HeaderValue::from_str(value).unwrap())),
                    Condition::Query { .. } | Condition::Cookie { .. } => None,
                }).collect();
                let wanted = oracle(&slow, &asked, &headers);
                prop_assert_eq!(find(&one, request), &*wanted, "{}", request);
                prop_assert_eq!(find(&other, request), &*wanted, "{} shuffled", request);
            }
        }

        #[test]
        fn a_table_without_conflict_never_leaves_a_choice(
            texts in proptest::collection::vec(close_route_texts(), 2..6),
            request in "(GET|PUT|POST) /a( h=1| h=2| g=1| g=1 h=1| g=1 h=2)?",
        ) {
            // With the names turned around, a choice by name would show.
            let named = |turned: bool| {
                let routes = texts.iter().enumerate().map(|(at, text)| {
                    let mut route = route(text);
                    route.name = format!("{}", if turned { 9 - at } else { at }).into();
                    route
                });
                RouteTable::build(Edge::default(), routes.collect())
            };
            if let (Ok(straight), Ok(turned)) = (named(false), named(true)) {
                let turn = |name: String| name.parse::<usize>().map_or(name.clone(), |at| (9 - at).to_string());
                prop_assert_eq!(find(&straight, &request), turn(find(&turned, &request)));
            }
        }
    }
}
