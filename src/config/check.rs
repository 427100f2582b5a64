//! `[check.NAME]`: what a request must meet before a side sees it.
//!
//! A check whose settings are what they were stays the very same across reloads, with what it
//! remembers and whom it is connected to; that is decided here, as it is for upstreams.

mod forward;
mod jwt;
mod preset;
mod session;
mod signature;
mod store;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ::http::HeaderName;

use self::store::Stores;
use super::edge::network;
use super::fault::{Sheet, did_you_mean};
use super::reader::{Node, Reader, Value, list, one_or_list, text};
use super::spec;
use super::upstream::Upstreams;
use crate::check::clock::now;
use crate::check::signature::{Memory, NonceSettings};
use crate::check::store::Address as StoreAddress;
use crate::check::token::Place;
use crate::check::{Address, Check, Forward, Kind, Signature};
use crate::route::RouteTable;
use crate::upstream::Target;

/// The checks of the file by name.
pub(super) type Checks = BTreeMap<String, Declared>;

/// A check of the file.
#[derive(Debug)]
pub(super) struct Declared {
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// `None`: it has faults, which have been noted.
    pub(super) check: Option<Arc<Check>>,
    /// The upstream that it asks.
    pub(super) authority: Option<Target>,
}

pub(super) fn checks(file: &Reader<'_>, upstreams: &Upstreams, previous: Option<&RouteTable>) -> Checks {
    let sheet = file.sheet;
    let context = Context { upstreams, stores: Stores::of(previous), nonces: nonces_of(previous) };
    let mut checks = Checks::new();
    for (name, node) in file.plain_names("check", "a check") {
        let text = name.get_ref();
        let before = sheet.count();
        let running = previous.and_then(|table| table.checks.get(&**text));
        let check = check(sheet, text, node, running, &context).filter(|_| sheet.count() == before);
        let authority = match check.as_ref().map(|check| check.kind()) {
            Some(Kind::Forward(forward)) => upstreams.get(&forward.settings().upstream),
            _ => None,
        };
        let authority = authority.and_then(|upstream| upstream.target.clone());
        checks.insert(text.to_string(), Declared { span: name.span(), check, authority });
    }
    checks
}

/// What is remembered of nonces outlives a reload, and is one for all checks.
fn nonces_of(previous: Option<&RouteTable>) -> Arc<Memory> {
    let mut running =
        previous.into_iter().flat_map(|table| table.checks.values()).filter_map(|check| match check.kind() {
            Kind::Signature(signature) => signature.memory().cloned(),
            _ => None,
        });
    running.next().unwrap_or_else(|| Arc::new(Memory::new(now())))
}

/// What checks are made with beside their own keys.
struct Context<'a> {
    upstreams: &'a Upstreams,
    stores: Stores,
    nonces: Arc<Memory>,
}

fn check<'a>(
    sheet: &'a Sheet<'a>,
    name: &str,
    node: &'a Node<'a>,
    running: Option<&Arc<Check>>,
    context: &Context<'_>,
) -> Option<Arc<Check>> {
    let made = match kind(sheet, name, node)? {
        "address" => {
            let settings = address(&Reader::of_node(sheet, &spec::ADDRESS, node)?)?;
            match running.map(|running| running.kind()) {
                Some(Kind::Address(was)) if *was == settings => return running.cloned(),
                _ => Kind::Address(settings),
            }
        }
        "session" => {
            let reader = Reader::of_node(sheet, &spec::SESSION, node)?;
            let (settings, address) = session::settings(&reader)?;
            match running.and_then(|running| running.session()) {
                Some(was) if *was.settings() == settings && *was.store().backend().address() == address => {
                    return running.cloned();
                }
                _ => Kind::Session(Box::new(session::check(&reader, settings, context.stores.store(address))?)),
            }
        }
        "jwt" => {
            let reader = Reader::of_node(sheet, &spec::JWT, node)?;
            let settings = jwt::settings(&reader)?;
            match running.map(|running| running.kind()) {
                Some(Kind::Jwt(was)) if *was.settings() == settings => return running.cloned(),
                _ => Kind::Jwt(jwt::check(&reader, settings)?),
            }
        }
        "forward" => {
            let settings = forward::settings(&Reader::of_node(sheet, &spec::FORWARD, node)?, context.upstreams)?;
            match running.map(|running| running.kind()) {
                Some(Kind::Forward(was)) if *was.settings() == settings => return running.cloned(),
                _ => Kind::Forward(Forward::new(settings)),
            }
        }
        "signature" => {
            let settings = signature::settings(&Reader::of_node(sheet, &spec::SIGNATURE, node)?)?;
            let was = match running.map(|running| running.kind()) {
                Some(Kind::Signature(was)) if *was.settings() == settings => return running.cloned(),
                Some(Kind::Signature(was)) => Some(&**was),
                _ => None,
            };
            let store = match &settings.nonces {
                NonceSettings::Kept { address: StoreAddress::Redis(address), .. } => {
                    Some(context.stores.store(StoreAddress::Redis(address.clone())))
                }
                _ => None,
            };
            Kind::Signature(Box::new(Signature::new(settings, &context.nonces, store, was)))
        }
        _ => return None,
    };
    Some(Arc::new(Check::new(name, made)))
}

/// The words of `kind`.
const KINDS: [&str; 5] = ["address", "session", "signature", "jwt", "forward"];

/// What kind of check it is; read before anything else, since it decides which keys there are.
fn kind<'a>(sheet: &'a Sheet<'a>, name: &str, node: &'a Node<'a>) -> Option<&'static str> {
    let choice = || format!("write kind = {}", KINDS.map(|kind| format!("\"{kind}\"")).join(" or "));
    let Some(kind) = node.get_ref().get("kind") else {
        sheet.fault(node.span(), format!("check \"{name}\" does not say its kind"), choice());
        return None;
    };
    let value = Value { sheet, key: "kind", node: kind };
    let word = text(&value)?;
    let known = KINDS.into_iter().find(|known| *known == word);
    if known.is_none() {
        let remedy = did_you_mean(&word, KINDS).unwrap_or_else(choice);
        value.fault(format!("there is no check of kind \"{word}\""), remedy);
    }
    known
}

fn address(reader: &Reader<'_>) -> Option<Address> {
    let (allow, deny) = (reader.get("allow", list(network)), reader.get("deny", list(network)));
    let settings = Address { allow: allow?, deny: deny? };
    if settings.allow.is_empty() && settings.deny.is_empty() {
        reader.sheet.fault(reader.span(), "it neither allows nor denies anybody", "add allow = [\"10.0.0.0/8\"]");
    }
    Some(settings)
}

/// `token`: where a request says who it is.
fn token(reader: &Reader<'_>) -> Option<Vec<Place>> {
    reader.get("token", one_or_list(place))
}

/// `header:NAME` or `cookie:NAME`.
fn place(value: &Value<'_>) -> Option<Place> {
    let written = text(value)?;
    match written.split_once(':') {
        Some(("header", name)) => header_name(value, name).map(Place::Header),
        Some(("cookie", name)) if cookie_name(name) => Some(Place::Cookie(name.into())),
        _ => {
            let remedy = "write \"header:authorization\" or \"cookie:NAME\"";
            value.fault(format!("\"{written}\" is no place of a token"), remedy);
            None
        }
    }
}

/// RFC 6265: a token; PHP would see another name in one with a dot or a bracket.
fn cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&'*+-^_`|~".contains(&b))
}

/// A header field that a client can send to here: those with other characters are removed at the edge.
fn header_name(value: &Value<'_>, name: &str) -> Option<HeaderName> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let found = HeaderName::try_from(name).ok().filter(|_| plain);
    if found.is_none() {
        value.fault(format!("\"{name}\" is not the name of a header"), "use letters, digits and \"-\"");
    }
    found
}
