//! `[handler.NAME]`: what the handlers need to know that come with the gateway.
//!
//! A handler that is described as before is taken over from the table in force, with what it
//! remembers and whom it is connected to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::check::Checks;
use super::fault::did_you_mean;
use super::reader::{Node, Reader, Value, duration, one_of, text};
use super::spec;
use super::upstream::secret;
use crate::check::{Check, wechat};
use crate::route::RouteTable;
use crate::upstream::{Handler, Target};

pub(super) const WECHAT_LOGIN: &str = "wechat-login";

/// The handlers of the file by name.
pub(super) type Handlers = BTreeMap<String, Configured>;

/// A handler of the file.
#[derive(Debug)]
pub(super) struct Configured {
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// `None`: it has faults, which have been noted.
    pub(super) handler: Option<Arc<Handler>>,
}

pub(super) fn handlers(file: &Reader<'_>, checks: &Checks, previous: Option<&RouteTable>) -> Handlers {
    let sheet = file.sheet;
    let mut handlers = Handlers::new();
    for (name, node) in file.names("handler") {
        let text = name.get_ref();
        if *text != WECHAT_LOGIN {
            let remedy = did_you_mean(text, [WECHAT_LOGIN]).unwrap_or_else(|| format!("there is {WECHAT_LOGIN}"));
            sheet.fault(name.span(), format!("no built-in handler \"{text}\" has settings"), remedy);
            continue;
        }
        let before = sheet.count();
        let handler = wechat_login(file, node, checks, previous).filter(|_| sheet.count() == before);
        handlers.insert(text.to_string(), Configured { span: name.span(), handler });
    }
    handlers
}

/// How the file describes the login, by which a running one is known.
struct Described(wechat::Settings, Arc<Check>);

impl PartialEq for Described {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 && Arc::ptr_eq(&self.1, &other.1)
    }
}

fn wechat_login<'a>(
    file: &Reader<'a>,
    node: &'a Node<'a>,
    checks: &Checks,
    previous: Option<&RouteTable>,
) -> Option<Arc<Handler>> {
    let reader = Reader::of_node(file.sheet, &spec::WECHAT_LOGIN, node)?;
    let session = reader.get("session", |value| session(value, checks));
    let settings = settings(&reader);
    let described = Described(settings?, session?);
    let running = previous.into_iter().flat_map(RouteTable::targets).find_map(|target| match target {
        Target::Handler(handler) if handler.settings() == Some(&described) => Some(Arc::clone(handler)),
        _ => None,
    });
    if running.is_some() {
        return running;
    }
    let service = wechat::Service::new(described.0.clone(), Arc::clone(&described.1));
    let handler = Handler::configured(WECHAT_LOGIN, described);
    match service.and_then(|service| handler.install(service)) {
        Ok(_) => Some(Arc::new(handler)),
        Err(error) => {
            let remedy = "install the certificates of the system (ca-certificates), or name a file in SSL_CERT_FILE";
            file.sheet.fault(reader.span_of("api"), format!("WeChat cannot be asked over HTTPS: {error}"), remedy);
            None
        }
    }
}

fn settings(reader: &Reader<'_>) -> Option<wechat::Settings> {
    // Read to the end before any `?`, so that every fault is noted.
    let (appid, secret, api) = (reader.get("appid", text), reader.get("secret", secret), reader.get("api", api));
    let (connect, timeout) = (reader.get("connect", duration), reader.get("timeout", duration));
    let user = reader.get("user", one_of(&[("openid", wechat::User::Openid), ("unionid", wechat::User::Unionid)]));
    let (idle, lifetime) = (reader.get("idle", whole_seconds), reader.get("lifetime", whole_seconds));
    let (idle, lifetime) = (idle?, lifetime?);
    if idle > lifetime {
        let message = "a session would live longer unused than it lives at all";
        reader.sheet.fault(reader.span_of("idle"), message, "write an idle shorter than lifetime");
    }
    Some(wechat::Settings {
        appid: appid?,
        secret: secret?,
        api: api?,
        connect: connect?,
        timeout: timeout?,
        user: user?,
        idle,
        lifetime,
    })
}

/// The check that has the store.
fn session(value: &Value<'_>, checks: &Checks) -> Option<Arc<Check>> {
    let name = text(value)?;
    let Some(declared) = checks.get(&name) else {
        let remedy = did_you_mean(&name, checks.keys().map(String::as_str));
        let remedy = remedy.unwrap_or_else(|| format!("add [check.{name}] with kind = \"session\""));
        value.fault(format!("check \"{name}\" is not defined"), remedy);
        return None;
    };
    let check = declared.check.clone()?;
    if !check.kind().has_sessions() {
        let message = format!("check \"{name}\" is of kind \"{}\" and keeps no sessions", check.kind().word());
        value.fault(message, "name a check of kind \"session\"");
        return None;
    }
    Some(check)
}

fn api(value: &Value<'_>) -> Option<wechat::Api> {
    let text = text(value)?;
    let Some(api) = wechat::Api::new(&text) else {
        value.fault(format!("\"{text}\" is not the address of an API"), "write one like \"https://api.weixin.qq.com\"");
        return None;
    };
    if api.is_open() {
        let message = format!("the secret goes to {text} unencrypted, for everybody on the way to read");
        value.sheet.warn(&value.node.span(), message);
    }
    Some(api)
}

/// Stores count the lives of sessions in seconds.
fn whole_seconds(value: &Value<'_>) -> Option<std::time::Duration> {
    let duration = duration(value)?;
    if duration.subsec_nanos() != 0 {
        value.fault(format!("\"{}\" is no whole number of seconds", value.key), "write one like \"2h\"");
        return None;
    }
    Some(duration)
}
