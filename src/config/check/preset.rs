//! Whose sessions a session check reads: `preset`, the keys that come with one, and what it leaves nobody to say.

use std::time::Duration;

use super::super::reader::{Reader, Value, boolean, duration, list, one_of, text};
use super::super::spec;
use super::super::upstream::secret;
use super::session::{ReadPath, field};
use crate::check::session::format::{FieldPath, Format};
use crate::check::session::preset::Application;
use crate::check::session::preset::laravel::{self, Cipher, Keys, Laravel, Layers};
use crate::check::session::preset::symfony::{self, Symfony};
use crate::check::session::preset::wordpress::{self, Salt, WordPress};
use crate::check::store::Address;
use crate::check::token::Place;

/// What the application decides of a check.
pub(super) struct Preset {
    pub(super) application: Application,
    /// What comes before the id in the store unless the file says otherwise.
    pub(super) prefix: &'static str,
    pub(super) user: FieldPath,
    /// How it means the paths of further fields.
    pub(super) path: ReadPath,
    /// How long a session in files lives that nobody uses.
    pub(super) lifetime: Option<Duration>,
    /// The tables of a database.
    pub(super) tables: Option<String>,
    /// Where it has its token, where the file does not say.
    pub(super) token: Option<Place>,
}

#[derive(Clone, Copy, PartialEq)]
enum Framework {
    Laravel,
    Symfony,
    WordPress,
}

pub(super) fn read(reader: &Reader<'_>, tokens: Option<&[Place]>, address: Option<&Address>) -> Option<Preset> {
    let framework = match reader.given("preset", framework) {
        Some(framework) => Some(framework?),
        None => None,
    };
    let keys_of = [
        (Framework::Laravel, spec::LARAVEL, "laravel"),
        (Framework::Symfony, spec::SYMFONY, "symfony"),
        (Framework::WordPress, spec::WORDPRESS, "wordpress"),
    ];
    for (_, keys, whose) in keys_of.into_iter().filter(|(of, ..)| framework != Some(*of)) {
        foreign(reader, keys, whose);
    }
    if framework != Some(Framework::WordPress) && matches!(address, Some(Address::Mysql(_))) {
        let remedy = "name the store of the sessions, or add preset = \"wordpress\"";
        reader.sheet.fault(reader.span_of("store"), "a database holds no sessions but WordPress's", remedy);
    }
    match framework {
        None => plain(reader, address),
        Some(Framework::Laravel) => {
            elsewhere(reader, address);
            laravel(reader, tokens, address)
        }
        Some(Framework::Symfony) => {
            elsewhere(reader, address);
            symfony(reader, address)
        }
        Some(Framework::WordPress) => wordpress(reader, tokens, address),
    }
}

fn framework(value: &Value<'_>) -> Option<Framework> {
    one_of(&[("laravel", Framework::Laravel), ("symfony", Framework::Symfony), ("wordpress", Framework::WordPress)])(
        value,
    )
}

/// Keys of another preset than this one.
fn foreign(reader: &Reader<'_>, keys: &[spec::Key], whose: &str) {
    for name in keys.iter().map(|key| key.name).filter(|name| reader.node(name).is_some()) {
        let message = format!("\"{name}\" belongs to preset = \"{whose}\"");
        reader.sheet.fault(reader.span_of(name), message, "remove it, or name that preset");
    }
}

/// What the framework says itself.
fn decided(reader: &Reader<'_>, key: &str, remedy: &str) {
    if reader.node(key).is_some() {
        reader.sheet.fault(reader.span_of(key), format!("the preset decides \"{key}\""), remedy);
    }
}

/// PHP's sessions are not in this process.
fn elsewhere(reader: &Reader<'_>, address: Option<&Address>) {
    if address == Some(&Address::Memory) {
        let message = "PHP keeps no sessions in the gateway's memory";
        reader.sheet.fault(
            reader.span_of("store"),
            message,
            "name the store of the application: redis://… or php-files:…",
        );
    }
}

fn needed<T>(reader: &Reader<'_>, key: &str, example: &str, parse: impl Fn(&Value<'_>) -> Option<T>) -> Option<T> {
    let given = reader.given(key, parse);
    if given.is_none() {
        reader.sheet.fault(
            reader.span_of("preset"),
            format!("the preset needs \"{key}\""),
            format!("add {key} = {example}"),
        );
    }
    given?
}

fn in_files(address: Option<&Address>) -> bool {
    matches!(address, Some(Address::PhpFiles(_)))
}

/// An application that keeps its fields itself.
fn plain(reader: &Reader<'_>, address: Option<&Address>) -> Option<Preset> {
    let format = reader.get("format", one_of(&Format::NAMES));
    let user = reader.get("user", |value| field(value, FieldPath::dotted));
    Some(Preset {
        application: Application::Plain(format?),
        prefix: if in_files(address) { "sess_" } else { "strangler:session:" },
        user: user?,
        path: FieldPath::dotted,
        lifetime: None,
        tables: None,
        token: None,
    })
}

fn laravel(reader: &Reader<'_>, tokens: Option<&[Place]>, address: Option<&Address>) -> Option<Preset> {
    decided(reader, "user", "remove it; guard says where Laravel has it");
    decided(reader, "format", "remove it; serialization says how Laravel writes");
    let cookie = match tokens {
        Some([Place::Cookie(name)]) => Some(name.to_string()),
        Some(_) => {
            let message = "Laravel names its session in one cookie, which only the application knows";
            reader.sheet.fault(reader.span_of("token"), message, "write token = \"cookie:NAME\", its session.cookie");
            None
        }
        None => None,
    };
    if matches!(address, Some(Address::Redis(_))) && reader.node("prefix").is_none() {
        let message = "nothing says what comes before the id in Redis";
        let remedy =
            "add prefix, that of Laravel's Redis connection and then that of its cache: \"shop-database-shop-cache-\"";
        reader.sheet.fault(reader.span_of("preset"), message, remedy);
    }
    let keys = keys(reader);
    let guard = reader.get("guard", text);
    let encrypted = reader.get("encrypted", boolean);
    let json = reader.get("serialization", one_of(&[("php", false), ("json", true)]));
    let lifetime = reader.get("lifetime", duration);
    let layers = Layers { cached: !in_files(address), encrypted: encrypted?, json: json? };
    let guard = guard?;
    Some(Preset {
        user: laravel::user_path(&guard),
        application: Application::Laravel(Laravel::new(cookie?, &guard, keys?, layers)),
        prefix: "",
        path: FieldPath::dotted,
        lifetime: Some(lifetime?),
        tables: None,
        token: None,
    })
}

fn keys(reader: &Reader<'_>) -> Option<Keys> {
    let cipher = reader.get("cipher", one_of(&Cipher::NAMES));
    let key = |value: &Value<'_>| {
        let key = secret(value)?;
        let fault = cipher.and_then(|cipher| Keys::new(cipher, [&*key]).err());
        if let Some(fault) = fault {
            value.fault(
                format!("\"{}\": {fault}", value.key),
                "write the application's key, and its app.cipher as cipher",
            );
        }
        Some(key)
    };
    let current = needed(reader, "app_key", "{ env = \"APP_KEY\" }", key);
    let (previous, current) = (reader.get("previous_keys", list(key))?, current?);
    Keys::new(cipher?, std::iter::once(&current).chain(&previous).map(String::as_str)).ok()
}

fn symfony(reader: &Reader<'_>, address: Option<&Address>) -> Option<Preset> {
    decided(reader, "user", "remove it; user_property says what Symfony's user is known by");
    let format = reader.get("format", one_of(&Format::NAMES));
    let firewall = reader.get("firewall", text);
    let property = needed(reader, "user_property", "\"email\"", text);
    Some(Preset {
        application: Application::Symfony(Symfony { format: format?, property: property? }),
        prefix: if in_files(address) { "sess_" } else { "sf_s" },
        user: symfony::token_path(&firewall?),
        path: symfony::attribute_path,
        lifetime: None,
        tables: None,
        token: None,
    })
}

fn wordpress(reader: &Reader<'_>, tokens: Option<&[Place]>, address: Option<&Address>) -> Option<Preset> {
    decided(reader, "user", "remove it; it is the ID of WordPress's user");
    decided(reader, "format", "remove it");
    decided(reader, "prefix", "remove it; table_prefix says how WordPress's tables begin");
    if address.is_some_and(|address| !matches!(address, Address::Mysql(_))) {
        let message = "WordPress keeps its logins in its database";
        reader.sheet.fault(reader.span_of("store"), message, "write store = \"mysql://user@host:3306/NAME\"");
    }
    let site_url = match reader.given("siteurl", text) {
        Some(site_url) => Some(site_url?),
        None => None,
    };
    let token = match (&site_url, reader.node("token").and(tokens)) {
        (Some(_), Some(_)) => {
            let message = "siteurl says already which cookie it is";
            reader.sheet.fault(reader.span_of("token"), message, "remove one of the two");
            None
        }
        (Some(site_url), None) => Some(Place::Cookie(wordpress::cookie_name(site_url).into())),
        (None, Some([Place::Cookie(_)])) => tokens?.first().cloned(),
        (None, _) => {
            let message = "WordPress has the login in a cookie whose name only the site knows";
            let remedy = "add siteurl = \"https://…\", WordPress's option of that name, or token = \"cookie:NAME\"";
            reader.sheet.fault(reader.span_of("token"), message, remedy);
            None
        }
    };
    let key = needed(reader, "logged_in_key", "{ env = \"LOGGED_IN_KEY\" }", secret);
    let salt = needed(reader, "logged_in_salt", "{ env = \"LOGGED_IN_SALT\" }", secret);
    let tables = reader.get("table_prefix", table_prefix);
    let (key, salt) = (key?, salt?);
    let made = Salt::new(&key, &salt);
    if made.is_none() {
        let message =
            "WordPress would not use this key with this salt: one is empty or its placeholder, or both are the same";
        let remedy = "write both in wp-config.php; those that WordPress made itself are in its table of options";
        reader.sheet.fault(reader.span_of("logged_in_key"), message, remedy);
    }
    Some(Preset {
        application: Application::WordPress(WordPress { salt: made? }),
        prefix: "",
        user: wordpress::user_path(),
        path: FieldPath::dotted,
        lifetime: None,
        tables: Some(tables?),
        token: Some(token?),
    })
}

/// What a table's name may begin with, which stands in a statement as it is.
fn table_prefix(value: &Value<'_>) -> Option<String> {
    let prefix = text(value)?;
    if prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        value.fault(format!("\"{prefix}\" cannot begin a table's name"), "use letters, digits and \"_\"");
        return None;
    }
    Some(prefix)
}
