//! `[defaults]`, `[[route]]` and `[[group]]`: what each route is once everything is inherited.
//!
//! A key is taken from the route, else from its group, else from `[defaults]`, else from the
//! description of the key. Two routes that nothing tells apart are found by the table itself; this
//! file says where in the text they are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{HeaderName, Method};
use toml::de::DeValue;

use super::Known;
use super::check::Checks;
use super::fault::{did_you_mean, nearest};
use super::handler::{self, Handlers};
use super::reader::{Reader, Value, boolean, duration, list, not_yet, one_or_list, size, text, twice};
use super::upstream::Upstreams;
use crate::check::Check;
use crate::http::Host;
use crate::route::{Checked, Condition, Edge, Pattern, Place, Route, RouteTable, Serve, Sides};
use crate::upstream::{Handler, Target};

/// A value that may be inherited: not given, given with a fault, or given.
type Given<T> = Option<Option<T>>;

/// The keys that routes inherit, as one table gives them.
#[derive(Clone, Default)]
struct Inherited {
    legacy: Given<Place>,
    new: Given<Place>,
    serve: Given<Serve>,
    timeout: Given<Duration>,
    body_bytes: Given<u64>,
    methods: Given<Vec<Method>>,
    host: Given<String>,
    when: Option<Vec<Condition>>,
    checks: Given<Vec<Arc<Check>>>,
}

impl Inherited {
    /// What this table says, else what `outer` says.
    fn or(self, outer: &Self) -> Self {
        Self {
            legacy: self.legacy.or_else(|| outer.legacy.clone()),
            new: self.new.or_else(|| outer.new.clone()),
            serve: self.serve.or(outer.serve),
            timeout: self.timeout.or(outer.timeout),
            body_bytes: self.body_bytes.or(outer.body_bytes),
            methods: self.methods.or_else(|| outer.methods.clone()),
            host: self.host.or_else(|| outer.host.clone()),
            when: self.when.or_else(|| outer.when.clone()),
            checks: self.checks.or_else(|| outer.checks.clone()),
        }
    }
}

/// What the names of sides may stand for.
struct Names<'a> {
    known: &'a Known<'a>,
    upstreams: &'a Upstreams,
    checks: &'a Checks,
    handlers: &'a Handlers,
    /// The routes in force: who serves, and since when.
    before: HashMap<&'a str, (Serve, SystemTime)>,
}

/// A route together with where the file says so.
struct Draft {
    route: Route,
    span: Range<usize>,
}

/// Builds the table; `None`: there are faults, which have been noted.
pub(super) fn table(
    file: &Reader<'_>,
    edge: Edge,
    upstreams: &Upstreams,
    checks: &Checks,
    handlers: &Handlers,
    known: &Known<'_>,
) -> Option<RouteTable> {
    let running = known.previous.map(|table| &table.routes).into_iter().flatten();
    let before = running.map(|route| (&*route.name, (route.serve, route.since))).collect();
    let names = Names { known, upstreams, checks, handlers, before };
    names.examine(file);
    let defaults = file.table("defaults").map(|reader| names.defaults(&reader)).unwrap_or_default();
    let mut drafts = Vec::new();
    let listed = file.tables("route");
    let groups = file.tables("group");
    for route in &listed {
        drafts.extend(names.route(route, "", &defaults, &edge));
    }
    let mut empty = listed.is_empty() && file.node("route").is_none();
    for group in &groups {
        let prefix = group.get("prefix", prefix).unwrap_or_default();
        let inherited = names.inherited(group, true).or(&defaults);
        let routes = group.tables("route");
        if routes.is_empty() && group.node("route").is_none() {
            file.sheet.warn(&group.span(), format!("the group \"{prefix}\" has no routes"));
        }
        for route in &routes {
            empty = false;
            drafts.extend(names.route(route, &prefix, &inherited, &edge));
        }
    }
    if empty {
        file.sheet
            .fault_of_file("there is no [[route]]: nothing would be served", "add [[route]] with path = \"/{*rest}\"");
    }
    same_names(file, &drafts);
    unused(file, &drafts, upstreams, checks, handlers);
    build(file, edge, drafts)
}

fn build(file: &Reader<'_>, edge: Edge, drafts: Vec<Draft>) -> Option<RouteTable> {
    // Comparing routes of one path takes the square of their number: not for faults nobody would see.
    if file.sheet.is_full() {
        return None;
    }
    let places: Vec<_> = drafts.iter().map(|draft| (Arc::clone(&draft.route.name), draft.span.clone())).collect();
    let routes = drafts.into_iter().map(|draft| draft.route).collect();
    match RouteTable::build(edge, routes) {
        Ok(table) => Some(table),
        Err(conflicts) => {
            for conflict in conflicts {
                let (first, second) = (conflict.first.min(conflict.second), conflict.first.max(conflict.second));
                let (Some((first, at)), Some((second, span))) = (places.get(first), places.get(second)) else {
                    continue;
                };
                let line = file.sheet.line_of(at.start);
                let message = format!("nothing tells route \"{second}\" apart from route \"{first}\" (line {line})");
                file.sheet.fault(
                    span.clone(),
                    message,
                    "tell them apart by path, host, methods or when, or remove one",
                );
            }
            None
        }
    }
}

/// Names label metrics and are named in commands: each may be there once.
fn same_names(file: &Reader<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<&str, &Draft> = BTreeMap::new();
    for draft in drafts {
        let name = &*draft.route.name;
        let Some(first) = seen.insert(name, draft) else { continue };
        let line = file.sheet.line_of(first.span.start);
        let remedy = format!("give one of them a name of its own: name = \"{}\"", suggestion(&draft.route));
        file.sheet.fault(draft.span.clone(), format!("the route of line {line} is named \"{name}\" too"), remedy);
    }
}

fn suggestion(route: &Route) -> String {
    let words = route.path().split('/').map(|part| part.trim_matches(['{', '}', '*']));
    let method = route.methods.first().map(|method| method.as_str().to_lowercase());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).map(str::to_owned).chain(method).collect();
    words.join("-")
}

fn unused(file: &Reader<'_>, drafts: &[Draft], upstreams: &Upstreams, checks: &Checks, handlers: &Handlers) {
    let uses = |name: &str| {
        let mut places = drafts.iter().flat_map(|draft| draft.route.places());
        let mut asked = checks.values().filter_map(|declared| declared.authority.as_ref());
        places.any(|place| place.target.name() == name) || asked.any(|target| target.name() == name)
    };
    for (name, upstream) in upstreams {
        if upstream.target.is_some() && !uses(name) {
            file.sheet.warn(&upstream.span, format!("no route names the upstream \"{name}\""));
        }
    }
    for (name, configured) in handlers {
        if configured.handler.is_some() && !uses(name) {
            file.sheet.warn(&configured.span, format!("no route names the handler \"{name}\""));
        }
    }
    let demands = |name: &str| {
        let mut checks = drafts.iter().flat_map(|draft| &draft.route.checks);
        checks.any(|checked| checked.check.name() == name)
    };
    for (name, declared) in checks {
        if declared.check.is_some() && !demands(name) {
            file.sheet.warn(&declared.span, format!("no route demands the check \"{name}\""));
        }
    }
}

impl Names<'_> {
    /// An upstream and a handler of one name would leave open which of them a route means.
    fn examine(&self, file: &Reader<'_>) {
        for (name, upstream) in self.upstreams {
            if self.known.handlers.contains_key(name) {
                let message = format!("\"{name}\" is the name of a handler compiled in");
                file.sheet.fault(upstream.span.clone(), message, "give the upstream another name");
            }
        }
        for (name, configured) in self.handlers {
            if self.known.handlers.contains_key(name) || self.upstreams.contains_key(name) {
                let message = format!("\"{name}\" is a built-in handler, and so cannot name another side");
                file.sheet.fault(configured.span.clone(), message, "give that one another name");
            }
        }
    }

    fn defaults(&self, reader: &Reader<'_>) -> Inherited {
        let mut inherited = self.inherited(reader, false);
        // Here, and only here, an absent key gets the default of its description.
        inherited.serve = Some(reader.get("serve", serve));
        inherited.timeout = Some(reader.get("timeout", duration));
        inherited
    }

    fn inherited(&self, reader: &Reader<'_>, conditional: bool) -> Inherited {
        Inherited {
            legacy: reader.given("legacy", |value| self.place(value)),
            new: reader.given("new", |value| self.place(value)),
            serve: reader.given("serve", serve),
            timeout: reader.given("timeout", duration),
            body_bytes: reader.given("body_bytes", size),
            methods: reader.given("methods", one_or_list(method)),
            host: reader.given("host", host),
            when: if conditional { when(reader) } else { None },
            checks: reader.given("check", |value| self.checks(value)),
        }
    }

    /// One route; `None`: it cannot even be compared with others.
    fn route(&self, reader: &Reader<'_>, prefix: &str, outer: &Inherited, edge: &Edge) -> Option<Draft> {
        let pattern = reader.get("path", |value| route_path(value, prefix));
        let name = reader.given("name", name);
        let own = self.inherited(reader, true).or(outer);
        let (pattern, span) = (pattern?, reader.span_of("path"));
        let name: Arc<str> = name.unwrap_or_else(|| Some(pattern.as_str().to_owned()))?.into();
        let serve = own.serve.flatten();
        check_sides(reader, &name, &own, serve);
        let serve = serve.unwrap_or(Serve::Legacy);
        let checked = |check: Arc<Check>| self.checked(&name, check);
        let checks = own.checks.flatten().unwrap_or_default().into_iter().map(checked).collect();
        let before = self.before.get(&*name).filter(|(before, _)| *before == serve);
        let route = Route {
            stats: self.known.telemetry.route(&name),
            since: before.map_or_else(SystemTime::now, |(_, since)| *since),
            name,
            pattern,
            methods: own.methods.unwrap_or(Some(Vec::new()))?,
            host: match own.host {
                Some(host) => Some(host?),
                None => None,
            },
            when: own.when.unwrap_or_default(),
            checks,
            ends_session: reader.get("ends_session", boolean).unwrap_or_default(),
            sides: Sides::of(own.legacy.flatten(), own.new.flatten()).unwrap_or_else(|| self.no_sides()),
            serve,
            timeout: own.timeout.flatten().unwrap_or_default(),
            body_bytes: own.body_bytes.flatten().unwrap_or(edge.limits.body_bytes),
        };
        Some(Draft { route, span })
    }

    /// A check of a route, with whom it asks.
    fn checked(&self, route: &str, check: Arc<Check>) -> Checked {
        let telemetry = self.known.telemetry;
        let authority = self.checks.get(check.name()).and_then(|declared| declared.authority.clone());
        let place = |target: Target| Place { stats: telemetry.upstream(target.name()), target };
        Checked { stats: telemetry.check(route, check.name()), check, authority: authority.map(place) }
    }

    /// Stands in for sides whose faults have been noted, so that the rest of the route can still be
    /// compared with others. A file with faults gives no table: no request ever comes here.
    fn no_sides(&self) -> Sides {
        let target = Target::Handler(Arc::new(Handler::new("-")));
        Sides::Legacy(Place { target, stats: self.known.telemetry.upstream("-") })
    }

    /// The place that a side's name stands for.
    fn place(&self, value: &Value<'_>) -> Option<Place> {
        let name = text(value)?;
        let compiled_in = self.known.handlers.get(&name);
        let target = match (self.upstreams.get(&name), self.handlers.get(&name), compiled_in) {
            (Some(upstream), ..) => upstream.target.clone()?,
            (None, Some(configured), _) => Target::Handler(configured.handler.clone()?),
            (None, None, Some(handler)) => Target::Handler(Arc::clone(handler)),
            (None, None, None) if name == handler::WECHAT_LOGIN => {
                let message = format!("the handler \"{name}\" has no settings");
                value.fault(message, format!("add [handler.{name}] with session, appid and secret"));
                return None;
            }
            (None, None, None) => {
                let names = self.upstreams.keys().chain(self.known.handlers.keys()).map(String::as_str);
                let remedy = did_you_mean(&name, names).unwrap_or_else(|| self.choice(&name));
                let message = match value.key {
                    "legacy" => format!("upstream \"{name}\" is not defined"),
                    _ => format!("\"{name}\" is neither an upstream of this file nor a handler of this program"),
                };
                value.fault(message, remedy);
                return None;
            }
        };
        Some(Place { target, stats: self.known.telemetry.upstream(&name) })
    }

    /// The checks that a list of names stands for. An empty list asks for none, whatever is inherited.
    fn checks(&self, value: &Value<'_>) -> Option<Vec<Arc<Check>>> {
        let named = match value.node.get_ref() {
            DeValue::String(_) => vec![text(value)?],
            _ => list(text)(value)?,
        };
        if let Some(again) = twice(named.iter().map(String::as_str)) {
            value.fault(format!("the check \"{again}\" is there twice"), "remove one");
            return None;
        }
        let found = named.iter().map(|name| match self.checks.get(name) {
            Some(declared) => declared.check.clone(),
            None => {
                let remedy = did_you_mean(name, self.checks.keys().map(String::as_str));
                let remedy = remedy.unwrap_or_else(|| format!("add [check.{name}]"));
                value.fault(format!("check \"{name}\" is not defined"), remedy);
                None
            }
        });
        found.collect::<Vec<_>>().into_iter().collect()
    }

    fn choice(&self, name: &str) -> String {
        let handlers: Vec<_> = self.known.handlers.keys().map(String::as_str).collect();
        let compiled = if handlers.is_empty() {
            "this program has no handlers".to_owned()
        } else {
            format!("handlers are {}", handlers.join(", "))
        };
        format!("add [upstream.{name}]; {compiled}")
    }
}

/// The side that serves must be there.
fn check_sides(reader: &Reader<'_>, name: &str, own: &Inherited, serve: Option<Serve>) {
    if own.legacy.is_none() && own.new.is_none() {
        let message = format!("route \"{name}\" has neither a legacy nor a new side");
        reader.sheet.fault(
            reader.span_of("path"),
            message,
            "add legacy = \"…\" or new = \"…\", or legacy to [defaults]",
        );
        return;
    }
    let (missing, other) = match serve {
        Some(Serve::New) if own.new.is_none() => ("new", "legacy"),
        Some(Serve::Legacy) if own.legacy.is_none() => ("legacy", "new"),
        _ => return,
    };
    let span = if reader.node("serve").is_some() { reader.span_of("serve") } else { reader.span_of("path") };
    let message = format!("route \"{name}\" is served by its {missing} side and has none");
    reader.sheet.fault(span, message, format!("add {missing} = \"…\", or write serve = \"{other}\""));
}

/// Reads which side serves, or says why it is none.
pub(super) fn serve_word(word: &str) -> Result<Serve, (String, String)> {
    let choice = "write \"legacy\" or \"new\"".to_owned();
    match word {
        "legacy" => Ok(Serve::Legacy),
        "new" => Ok(Serve::New),
        "shadow" => Err((not_yet("shadow", "shadowing is"), choice)),
        share if share.strip_suffix('%').is_some_and(|n| n.parse::<f64>().is_ok()) => {
            Err((not_yet(share, "serving a share of requests is"), choice))
        }
        other => {
            Err((format!("serve cannot be \"{other}\""), did_you_mean(other, ["legacy", "new"]).unwrap_or(choice)))
        }
    }
}

fn serve(value: &Value<'_>) -> Option<Serve> {
    serve_word(value.as_str()?).map_err(|(message, remedy)| value.fault(message, remedy)).ok()
}

fn name(value: &Value<'_>) -> Option<String> {
    const LONGEST: usize = 120;
    let name = text(value)?;
    if name == "-" {
        value.fault("\"-\" stands for requests without a route", "choose another name");
        return None;
    }
    if name.len() > LONGEST {
        value.fault(format!("a name of {} bytes labels badly", name.len()), format!("use at most {LONGEST}"));
        return None;
    }
    Some(name)
}

fn method(value: &Value<'_>) -> Option<Method> {
    const USUAL: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE"];
    let word = text(value)?;
    let upper = word.to_ascii_uppercase();
    let remedy = if upper != word {
        Some(format!("write \"{upper}\""))
    } else if USUAL.contains(&&*word) {
        None
    } else if word == "CONNECT" {
        Some("no side can be sent it".to_owned())
    } else if Method::from_bytes(word.as_bytes()).is_err() {
        Some(format!("write one like {}", USUAL.join(", ")))
    } else {
        // A method of an application's own (PURGE) is fine, a slip (GTE) is not.
        nearest(&word, USUAL).map(|usual| format!("did you mean \"{usual}\"?"))
    };
    match remedy {
        Some(remedy) => {
            value.fault(format!("\"{word}\" is not a method"), remedy);
            None
        }
        None => Method::from_bytes(word.as_bytes()).ok(),
    }
}

fn host(value: &Value<'_>) -> Option<String> {
    let written = text(value)?;
    // In the form that requests have it in, or the two would never be equal.
    if let Some(host) = Host::parse(&written).filter(|host| !host.as_str().is_empty() && !written.contains('*')) {
        return Some(host.as_str().to_owned());
    }
    let bare = written.split_once("://").map_or(&*written, |(_, rest)| rest).split(['/', ':']).next();
    let bare = bare.and_then(Host::parse).filter(|bare| !bare.as_str().is_empty());
    let remedy = match bare {
        _ if !written.is_ascii() => "write it in its ASCII form, xn--…".to_owned(),
        _ if written.contains('*') => "write each name out: there are no wildcards".to_owned(),
        Some(bare) => format!("write \"{}\": neither scheme nor port nor path", bare.as_str()),
        None => "write a name like \"shop.example\"".to_owned(),
    };
    value.fault(format!("\"{written}\" is not a host"), remedy);
    None
}

fn prefix(value: &Value<'_>) -> Option<String> {
    let text = text(value)?;
    let trimmed = text.trim_end_matches('/');
    if text.ends_with('/') {
        let remedy = if trimmed.is_empty() {
            "write [[route]] instead of a group".to_owned()
        } else {
            format!("write \"{trimmed}\"")
        };
        value.fault(format!("prefix \"{text}\" ends with \"/\""), remedy);
        return None;
    }
    pattern(value, &text)?;
    if text.contains("{*") {
        value.fault(format!("prefix \"{text}\" already takes the rest of the path"), "use {name} for one segment");
        return None;
    }
    Some(text)
}

/// A route's path, behind the prefix of its group; there it may be empty.
fn route_path(value: &Value<'_>, prefix: &str) -> Option<Pattern> {
    match value.node.get_ref() {
        DeValue::String(empty) if empty.is_empty() && !prefix.is_empty() => pattern(value, prefix),
        _ => {
            let path = text(value)?;
            if !path.starts_with('/') {
                value.fault(format!("path \"{path}\" does not begin with \"/\""), format!("write \"/{path}\""));
                return None;
            }
            pattern(value, &format!("{prefix}{path}"))
        }
    }
}

/// Reads a path, or says what is wrong with it.
fn pattern(value: &Value<'_>, path: &str) -> Option<Pattern> {
    // The matcher takes `:id` and `*` for what they are; who comes from another router means more.
    if let Some(segment) = path.split('/').find(|segment| segment.starts_with([':', '*'])) {
        let (star, name) = (if segment.starts_with('*') { "*" } else { "" }, segment.trim_start_matches([':', '*']));
        let name = if name.is_empty() { "rest" } else { name };
        value.fault(
            format!("\"{segment}\" in \"{path}\" is no placeholder here"),
            format!("write \"{{{star}{name}}}\""),
        );
        return None;
    }
    Pattern::parse(path).map_err(|fault| value.fault(format!("{} \"{path}\": {fault}", value.key), "")).ok()
}

/// The further conditions; `None`: the table has none of its own.
fn when(reader: &Reader<'_>) -> Option<Vec<Condition>> {
    reader.node("when")?;
    let when = reader.table("when")?;
    let mut conditions = Vec::new();
    for (name, value) in strings(&when, "header") {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => conditions.push(Condition::Header { name, value }),
            Err(_) => reader.sheet.fault(when.span_of("header"), format!("\"{name}\" is not a header's name"), ""),
        }
    }
    conditions.extend(strings(&when, "query").into_iter().map(|(name, value)| Condition::Query { name, value }));
    conditions.extend(strings(&when, "cookie").into_iter().map(|(name, value)| Condition::Cookie { name, value }));
    Some(conditions)
}

fn strings(reader: &Reader<'_>, key: &str) -> Vec<(String, String)> {
    let read = reader.names(key).into_iter().filter_map(|(name, node)| {
        let value = Value { sheet: reader.sheet, key: name.get_ref(), node };
        Some((name.get_ref().to_string(), value.as_str()?.to_owned()))
    });
    read.collect()
}
