//! Where a check keeps, or finds, what must outlive a request; one store for all that name one address.

use std::cell::RefCell;
use std::sync::Arc;

use toml::de::DeValue;

use super::super::reader::{Reader, Value, cause, path};
use super::super::upstream::literal_or_secret;
use crate::check::store::{Address, Backend, Folder, MysqlAddress, RedisAddress, Store};
use crate::route::RouteTable;

/// The stores of this file and of the one in force: what is kept in memory outlives a reload, and connections do.
pub(super) struct Stores(RefCell<Vec<Arc<Backend>>>);

impl Stores {
    pub(super) fn of(previous: Option<&RouteTable>) -> Self {
        let checks = previous.into_iter().flat_map(|table| table.checks.values());
        let running = checks.filter_map(|check| check.store()).map(|store| Arc::clone(store.backend()));
        Self(RefCell::new(running.collect()))
    }

    /// The store at an address.
    pub(super) fn store(&self, address: Address) -> Store {
        let mut known = self.0.borrow_mut();
        if let Some(backend) = known.iter().find(|backend| *backend.address() == address) {
            return Store::new(backend);
        }
        let backend = Arc::new(Backend::new(address));
        let store = Store::new(&backend);
        known.push(backend);
        store
    }
}

/// What can be written where any store will do.
pub(super) const ANY: &str = "write \"memory\", \"redis://host:6379\", \"rediss://…\", \"redis+unix:///path\", \
    \"redis-sentinel://…\", \"redis-cluster://…\" or \"php-files:/path\"";

/// Reads the address under `key`, and the certificates under `ca` that go with it. `choice` says what it can be.
pub(super) fn address(reader: &Reader<'_>, key: &str, choice: &str) -> Option<Address> {
    let authorities = reader.given("ca", certificates);
    let ca = match authorities {
        Some(read) => Some(read?),
        None => None,
    };
    reader.get(key, |value| read(value, ca.clone(), choice))
}

fn certificates(value: &Value<'_>) -> Option<Vec<u8>> {
    let path = path(value)?;
    std::fs::read(&path)
        .map_err(|error| value.fault(format!("\"{}\" cannot be read: {}", path.display(), cause(&error)), ""))
        .ok()
}

fn read(value: &Value<'_>, ca: Option<Vec<u8>>, choice: &str) -> Option<Address> {
    let text = literal_or_secret(value)?;
    let literal = matches!(value.node.get_ref(), DeValue::String(_));
    if literal && RedisAddress::has_password(&text) {
        let remedy = format!("write {} = {{ env = \"NAME\" }} or {{ file = \"path\" }}", value.key);
        value.fault("a password does not belong into this file", remedy);
        return None;
    }
    if text == "memory" {
        return Some(Address::Memory);
    }
    if let Some(save_path) = text.strip_prefix("php-files:") {
        return folder(value, save_path);
    }
    if MysqlAddress::is_meant(&text) {
        return MysqlAddress::parse(&text, ca).map(Address::Mysql).map_err(|fault| value.fault(fault, "")).ok();
    }
    if !RedisAddress::is_meant(&text) {
        let shown = if literal { format!("\"{text}\" is") } else { "there is".to_owned() };
        value.fault(format!("{shown} no address of a store"), choice);
        return None;
    }
    RedisAddress::parse(&text, ca).map(Address::Redis).map_err(|fault| value.fault(fault, "")).ok()
}

/// `session.save_path`, as PHP has it: `path`, `N;path` or `N;MODE;path`.
fn folder(value: &Value<'_>, save_path: &str) -> Option<Address> {
    let mut parts = save_path.rsplitn(2, ';');
    let path = parts.next().filter(|path| !path.is_empty());
    let levels = parts.next().map_or(Some(0), |before| before.split(';').next()?.parse().ok());
    match (path, levels) {
        (Some(path), Some(levels @ 0..=16)) => {
            Some(Address::PhpFiles(Folder { path: value.sheet.resolve(path), levels, lifetime: None, owner: None }))
        }
        _ => {
            value.fault(
                format!("\"{save_path}\" is no save_path"),
                "write \"php-files:/path\" or \"php-files:N;/path\"",
            );
            None
        }
    }
}
