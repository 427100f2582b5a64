//! `[check.NAME]`: what a request must meet before a side sees it.
//!
//! A check whose settings are what they were stays the very same across reloads, with what it
//! remembers and whom it is connected to; that is decided here, as it is for upstreams.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::edge::network;
use super::fault::{Sheet, did_you_mean};
use super::reader::{Node, Reader, Value, list, text};
use super::store::Stores;
use super::{session, spec};
use crate::check::{Address, Check, Kind};
use crate::route::RouteTable;

/// The checks of the file by name.
pub(super) type Checks = BTreeMap<String, Declared>;

/// A check of the file.
#[derive(Debug)]
pub(super) struct Declared {
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// `None`: it has faults, which have been noted.
    pub(super) check: Option<Arc<Check>>,
}

pub(super) fn checks(file: &Reader<'_>, previous: Option<&RouteTable>) -> Checks {
    let sheet = file.sheet;
    let stores = Stores::of(previous);
    let mut checks = Checks::new();
    for (name, node) in file.names("check") {
        let text = name.get_ref();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            let message = format!("\"{text}\" cannot name a check");
            sheet.fault(name.span(), message, "use letters, digits, \"-\", \"_\" and \".\"");
        }
        let before = sheet.count();
        let running = previous.into_iter().flat_map(RouteTable::checks).find(|check| check.name() == &**text);
        let check = check(sheet, text, node, running, &stores).filter(|_| sheet.count() == before);
        checks.insert(text.to_string(), Declared { span: name.span(), check });
    }
    checks
}

fn check<'a>(
    sheet: &'a Sheet<'a>,
    name: &str,
    node: &'a Node<'a>,
    running: Option<&Arc<Check>>,
    stores: &Stores,
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
                _ => Kind::Session(Box::new(session::check(&reader, settings, stores.store(address))?)),
            }
        }
        _ => return None,
    };
    Some(Arc::new(Check::new(name, made)))
}

/// The words of `kind`.
const KINDS: [&str; 2] = ["address", "session"];

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
