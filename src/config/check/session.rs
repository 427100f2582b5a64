//! `[check.NAME]` with `kind = "session"`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ::http::HeaderName;

use super::super::reader::{Reader, Value, boolean, duration_or_zero, one_of, text};
use super::{preset, store, token};
use crate::check::field_header;
use crate::check::session::format::{FieldPath, PathFault, Wanted};
use crate::check::session::{OnStoreDown, Session, Settings};
use crate::check::store::{Address, Store};

/// How the path of a field is read.
pub(super) type ReadPath = fn(&str) -> Result<FieldPath, PathFault>;

/// What the file says of it, and where its store is.
pub(super) fn settings(reader: &Reader<'_>) -> Option<(Settings, Address)> {
    let address = store::address(reader, "store", store::ANY);
    let token = token(reader);
    let prefix = reader.given("prefix", |value| Some(value.as_str()?.to_owned()));
    let preset = preset::read(reader, token.as_deref(), address.as_ref());
    let fields = fields(reader, preset.as_ref().map_or(FieldPath::dotted, |preset| preset.path));
    let cache = reader.get("cache", duration_or_zero);
    let downs = [("legacy", OnStoreDown::Legacy), ("deny", OnStoreDown::Deny), ("anonymous", OnStoreDown::Anonymous)];
    let on_store_down = reader.get("on_store_down", one_of(&downs));
    let required = reader.get("required", boolean);
    let parity = reader.get("parity", share);
    let login = match reader.given("login", login) {
        Some(login) => Some(login?),
        None => None,
    };
    let owner = reader.given("owner", user);
    let (preset, mut address) = (preset?, address?);
    match (&mut address, &preset.tables) {
        (Address::PhpFiles(folder), _) => {
            folder.lifetime = preset.lifetime;
            folder.owner = match owner {
                Some(owner) => Some(owner?),
                None if is_open_to_all(&folder.path) => {
                    let what = "everybody may write into this folder: a session that anybody made would be believed";
                    let remedy = "say whom PHP runs as, like owner = \"www-data\"";
                    reader.sheet.fault(reader.span_of("store"), what, remedy);
                    return None;
                }
                None => None,
            };
        }
        _ if owner.is_some() => {
            let remedy = "remove it, or name the folder: store = \"php-files:/path\"";
            reader.sheet.fault(reader.span_of("owner"), "\"owner\" is that of PHP's session files", remedy);
            return None;
        }
        (Address::Mysql(database), Some(prefix)) => *database = database.with_tables(prefix),
        _ => {}
    }
    let settings = Settings {
        token: preset.token.map_or(token, |place| Some(vec![place]))?,
        prefix: prefix.unwrap_or_else(|| Some(preset.prefix.to_owned()))?,
        application: preset.application,
        user: preset.user,
        fields: fields?,
        cache: cache?,
        on_store_down: on_store_down?,
        required: required?,
        parity: parity?,
        login,
    };
    Some((settings, address))
}

fn is_open_to_all(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o002 != 0)
}

/// A user of this system, by name or by number.
fn user(value: &Value<'_>) -> Option<u32> {
    let name = text(value)?;
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = users.lines().find_map(|line| line.strip_prefix(&*name)?.strip_prefix(':')?.split(':').nth(1));
    let number = known.unwrap_or(&name).parse().ok();
    if number.is_none() {
        value.fault(format!("this system has no user \"{name}\""), "write a name of /etc/passwd, or a user's number");
    }
    number
}

pub(super) fn check(reader: &Reader<'_>, settings: Settings, store: Store) -> Option<Session> {
    let made = Session::new(settings, store);
    if made.is_none() {
        reader.sheet.fault(
            reader.span_of("fields"),
            "there are too many fields",
            format!("name less than {}", Wanted::MAX),
        );
    }
    made
}

/// Reads the path of a field, as the application means it.
pub(super) fn field(value: &Value<'_>, path: ReadPath) -> Option<FieldPath> {
    let written = text(value)?;
    path(&written).map_err(|fault| value.fault(format!("\"{written}\": {fault}"), "")).ok()
}

fn fields(reader: &Reader<'_>, path: ReadPath) -> Option<Vec<(HeaderName, FieldPath)>> {
    let read = reader.names("fields").into_iter().map(|(name, node)| {
        let header = field_header(name.get_ref());
        if header.is_none() {
            let message = format!("\"{}\" cannot name a field", name.get_ref());
            reader.sheet.fault(
                name.span(),
                message,
                "use letters, digits, \"-\" and \"_\", and not user, session or side",
            );
        }
        let path = field(&Value { sheet: reader.sheet, key: "fields", node }, path);
        Some((header?, path?))
    });
    // All of them are read, so that all faults are found.
    read.collect::<Vec<_>>().into_iter().collect()
}

/// `"1%"` as 0.01.
fn share(value: &Value<'_>) -> Option<f64> {
    let written = text(value)?;
    let percent = written.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let share = percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0);
    if share.is_none() {
        value.fault(format!("\"{written}\" is no share"), "write one like \"1%\"");
    }
    share
}

fn login(value: &Value<'_>) -> Option<String> {
    let written = text(value)?;
    if !written.starts_with('/') {
        value.fault(format!("\"{written}\" is no path"), format!("write \"/{written}\""));
        return None;
    }
    Some(written)
}
