//! `strangler explain METHOD URL`: which route a request takes and why, without sending it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use std::path::Path;

use ::http::header::HOST;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use clap::Args;

use super::{FAULTY, complain, look_at, print};
use crate::http::{CanonicalPath, Host};
use crate::route::{Considered, Explanation, Found, Route, Verdict};
use crate::upstream::{Handler, Target};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The request's method
    method: Method,
    /// Its URL, or only the path
    url: Uri,
    /// A header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub(super) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{error}"))?;
    Ok((name, value))
}

pub(super) fn run(file: &Path, options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let loaded = match look_at(file, handlers) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let path = match CanonicalPath::of(&options.url) {
        Ok(path) => path,
        Err(fault) => {
            complain(&format!("{}: {fault}; the gateway answers 400", options.url));
            return FAULTY;
        }
    };
    let headers: HeaderMap = options.headers.iter().cloned().collect();
    // The version in which a request may do without a host, as a bare path does here.
    let Ok(host) = Host::of(Version::HTTP_10, &options.url, &headers) else {
        complain("the URL and the headers do not name one valid host; the gateway answers 400");
        return FAULTY;
    };
    let host = host.as_str();
    let explanation = loaded.table.explain(&options.method, host, &path, options.url.query(), &headers);

    let at = if host.is_empty() { String::new() } else { format!(" at {host}") };
    let asked = Asked { method: &options.method, url: &options.url, path: &path, host: headers.get(HOST) };
    print(&format!("{} {path}{at}\n\n{}", options.method, describe(&explanation, &asked)))
}

/// The request, as far as the sides are told of it.
struct Asked<'a> {
    method: &'a Method,
    url: &'a Uri,
    path: &'a CanonicalPath,
    host: Option<&'a HeaderValue>,
}

/// The route and where it leads, then the other routes that came near, nearest first.
fn describe(explanation: &Explanation<'_>, asked: &Asked<'_>) -> String {
    let mut text = match &explanation.found {
        Found::Route(route) => describe_route(route, &explanation.params, asked),
        Found::Disputed { route, guarded } => format!(
            "answer    404; {} has the path, but PHP may read it as one of {}, which checks more\n",
            route.name, guarded.name
        ),
        Found::MethodNotAllowed { allow } => format!("answer    405; this path is served for {allow}\n"),
        Found::Nothing => "answer    404; no route matches\n".to_owned(),
    };
    let near = |considered: &&Considered<'_>| !matches!(considered.verdict, Verdict::Wins | Verdict::Path);
    let mut others = explanation.considered.iter().filter(near).peekable();
    if others.peek().is_some() {
        text.push_str("\nother routes for this path\n");
    }
    for Considered { route, verdict } in others {
        let _ = writeln!(text, "  {}  {}  {verdict}", route.name, route.path());
    }
    text
}

fn describe_route(route: &Route, params: &[(String, String)], asked: &Asked<'_>) -> String {
    let (side, place) = route.choose();
    let mut text = format!("route     {}  {}\n", route.name, route.path());
    for (name, value) in params {
        let _ = writeln!(text, "          {{{name}}} = {value}");
    }
    for checked in &route.checks {
        let _ = writeln!(text, "checks    {} ({})", checked.check.name(), checked.check.kind().word());
    }
    let _ = writeln!(text, "served by {} ({})", side.word(), describe_target(&place.target));
    if let Some(sent) = sent(&place.target, asked) {
        let _ = writeln!(text, "is sent   {sent}");
    }
    let other = if side.word() == "legacy" { route.new_side() } else { route.legacy() };
    if let Some(other) = other {
        let _ = writeln!(text, "or by     the other side ({}), after a flip", describe_target(&other.target));
    }
    let _ = writeln!(text, "timeout   {:?}; a body of at most {} bytes", route.timeout, route.body_bytes);
    text
}

/// What the side would be given; a handler is given the request as it is.
fn sent(target: &Target, asked: &Asked<'_>) -> Option<String> {
    match target {
        Target::Php(php) => Some(php.explain(asked.path, asked.method)),
        Target::Http(service) => {
            let authority = asked.url.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
            let host = service.host(authority.as_ref().or(asked.host));
            let path = asked.url.path_and_query().map_or("/", |path| path.as_str());
            Some(format!("{} {path}, Host: {}", asked.method, String::from_utf8_lossy(host.as_bytes())))
        }
        Target::Handler(_) => None,
    }
}

fn describe_target(target: &Target) -> String {
    match target {
        Target::Php(php) => format!("PHP-FPM \"{}\", root {}", php.name(), php.settings().root.display()),
        Target::Http(service) => {
            let servers: Vec<String> = service.settings().servers.iter().map(ToString::to_string).collect();
            format!("HTTP service \"{}\" at {}", service.name(), servers.join(", "))
        }
        Target::Handler(handler) => format!("handler \"{}\"", handler.name()),
    }
}
