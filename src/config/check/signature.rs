//! `[check.NAME]` with `kind = "signature"`: keys from where they are kept, and a scheme that holds together.

use std::collections::BTreeSet;

use toml::de::DeValue;

use super::super::fault::did_you_mean;
use super::super::reader::{Node, Reader, Value, count, duration, list, one_of, size, text};
use super::super::upstream::secret_of;
use super::store;
use crate::check::signature::algorithm::{Algorithm, Encoding};
use crate::check::signature::fields::{FieldPlace, Fields};
use crate::check::signature::parameters::Canonical;
use crate::check::signature::template::{PARTS, Part, Template, TemplateFault};
use crate::check::signature::{
    Apps, KeySettings, NonceSettings, OnStoreDown, Profile, SchemeSettings, Secret, Settings, StringScheme, key_fault,
};
use crate::check::store::Address;

/// A scheme's name, and the keys that only it has.
const STRING: (&str, &[&str]) = (
    "string",
    &["string", "canonical", "algorithm", "encoding", "app", "timestamp", "nonce", "signature", "body_sha256"],
);
const RFC9421: (&str, &[&str]) = ("rfc9421", &["components", "tag"]);

pub(super) fn settings(reader: &Reader<'_>) -> Option<Settings> {
    let apps = apps(reader);
    let window = reader.get("window", duration);
    let nonces = nonces(reader);
    let spool = reader.table("spool").map(|spool| (spool.get("memory", size), spool.get("disk", size)));
    let messages = reader.get("scheme", one_of(&[(STRING.0, false), (RFC9421.0, true)]))?;
    let (own, other) = if messages { (RFC9421, STRING) } else { (STRING, RFC9421) };
    for key in other.1.iter().filter(|key| reader.node(key).is_some()) {
        let what = format!("\"{key}\" belongs to scheme = \"{}\"", other.0);
        reader.sheet.fault(reader.span_of(key), what, format!("remove it; this one is \"{}\"", own.0));
    }
    let scheme = if messages {
        examine_public_keys(reader, &apps);
        SchemeSettings::Rfc9421(profile(reader)?)
    } else {
        SchemeSettings::String(Box::new(string_scheme(reader, nonces.as_ref()? != &NonceSettings::Off)?))
    };
    let nonces = nonces?;
    if nonces == NonceSettings::Off {
        let what = "without nonces a signed request can be sent again until its window is over";
        reader.sheet.warn(&reader.span_of("nonces"), what.to_owned());
    }
    let (spool_memory, spool_disk) = spool?;
    Some(Settings { scheme, apps, window: window?, nonces, spool_memory: spool_memory?, spool_disk: spool_disk? })
}

/// Where nonces are kept.
fn nonces(reader: &Reader<'_>) -> Option<NonceSettings> {
    const CHOICE: &str = "write \"memory\", \"off\", \"redis://host:6379\", \"rediss://…\", \"redis+unix:///path\", \
        \"redis-sentinel://…\" or \"redis-cluster://…\"";
    let capacity = reader.get("capacity", count);
    let on_store_down =
        reader.get("on_store_down", one_of(&[("deny", OnStoreDown::Deny), ("memory", OnStoreDown::Memory)]));
    let off = |node: &Node<'_>| matches!(node.get_ref(), DeValue::String(word) if word == "off");
    if reader.node("nonces").is_some_and(off) {
        return Some(NonceSettings::Off);
    }
    let address = store::address(reader, "nonces", CHOICE)?;
    let keeps_none = match address {
        Address::PhpFiles(_) => Some("PHP's session files keep no nonces"),
        Address::Mysql(_) => Some("a database keeps no nonces"),
        Address::Memory | Address::Redis(_) => None,
    };
    if let Some(message) = keeps_none {
        reader.sheet.fault(reader.span_of("nonces"), message, CHOICE);
    }
    if matches!(&address, Address::Redis(redis) if redis.is_cluster()) {
        let what = "a cluster replaces its servers unseen: a nonce that it lost with one could be spent again";
        reader.sheet.warn(&reader.span_of("nonces"), what.to_owned());
    }
    Some(NonceSettings::Kept { address, capacity: capacity?, on_store_down: on_store_down? })
}

/// `keys`: one or two of each app.
fn apps(reader: &Reader<'_>) -> Apps {
    let mut apps = Apps::new();
    for (name, node) in reader.names("keys") {
        let app = name.get_ref();
        if app.is_empty() || app.len() > 128 || !app.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            let what = format!("\"{app}\" cannot name an app");
            reader.sheet.fault(name.span(), what, "use up to 128 visible characters other than \"#\"");
        }
        let value = Value { sheet: reader.sheet, key: app, node };
        let keys: Vec<KeySettings> = match node.get_ref() {
            DeValue::Array(list) => list.iter().filter_map(|node| key(&Value { node, ..value })).collect(),
            _ => key(&value).into_iter().collect(),
        };
        match node.get_ref() {
            DeValue::Array(list) if list.is_empty() => value.fault("no key", "write { env = \"NAME\" }"),
            DeValue::Array(list) if list.len() > 2 => {
                value.fault(format!("{} keys", list.len()), "two can be live at once, the new one and the old one");
            }
            _ => {}
        }
        apps.insert(app.to_string(), keys);
    }
    if apps.is_empty() && reader.node("keys").is_some() {
        reader.sheet.fault(reader.span_of("keys"), "nobody has a key", "write keys = { app = { env = \"NAME\" } }");
    }
    apps
}

/// `{ env = "NAME" }` or `{ file = "path" }`, with `not_after`.
fn key(value: &Value<'_>) -> Option<KeySettings> {
    const REMEDY: &str = "write { env = \"NAME\" } or { file = \"path\" }";
    let table = match value.node.get_ref() {
        DeValue::Table(table) => table,
        DeValue::String(_) => {
            value.fault("a key is never written into this file", REMEDY);
            return None;
        }
        _ => return value.wrong(REMEDY),
    };
    for name in table.keys().filter(|name| !matches!(&**name.get_ref(), "env" | "file" | "not_after")) {
        let what = format!("a key has no \"{}\"", name.get_ref());
        let remedy = did_you_mean(name.get_ref(), ["env", "file", "not_after"]);
        value.sheet.fault(name.span(), what, remedy.unwrap_or_else(|| "there are env, file, not_after".to_owned()));
    }
    let not_after = table.get("not_after").map(|node| instant(&Value { node, key: "not_after", ..*value }));
    let bytes = secret_of(value, table)?;
    if bytes.is_empty() {
        value.fault("the key is empty: anybody could sign", "");
        return None;
    }
    let not_after = match not_after {
        Some(given) => Some(given?),
        None => None,
    };
    Some(KeySettings { secret: Secret::new(bytes.as_bytes()), not_after })
}

/// An instant, in seconds since 1970.
fn instant(value: &Value<'_>) -> Option<u64> {
    let text = match value.node.get_ref() {
        DeValue::Datetime(instant) => instant.to_string(),
        _ => text(value)?,
    };
    let seconds = text.parse::<jiff::Timestamp>().ok().and_then(|instant| u64::try_from(instant.as_second()).ok());
    if seconds.is_none() {
        value.fault(format!("\"{text}\" is not an instant"), "write one like \"2027-01-31T00:00:00Z\"");
    }
    seconds
}

fn examine_public_keys(reader: &Reader<'_>, apps: &Apps) {
    for (app, keys) in apps {
        for fault in keys.iter().filter_map(|key| key_fault(&key.secret)) {
            let what = format!("the key of \"{app}\" is {fault}");
            reader.sheet.fault(reader.span_of("keys"), what, "give a shared secret, or a public key in PEM");
        }
    }
}

fn profile(reader: &Reader<'_>) -> Option<Profile> {
    const DERIVED: [&str; 7] =
        ["@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query"];
    let component = |value: &Value<'_>| {
        let name = text(value)?;
        let field = name.parse::<::http::HeaderName>().is_ok_and(|field| field.as_str() == name);
        if !field && !DERIVED.contains(&&*name) {
            let all = || format!("write one of {}, or a field's name in lower case", DERIVED.join(", "));
            value.fault(format!("\"{name}\" is no component"), did_you_mean(&name, DERIVED).unwrap_or_else(all));
            return None;
        }
        Some(name)
    };
    let components = match reader.given("components", list(component)) {
        Some(given) => given?,
        None => Vec::new(),
    };
    let tag = match reader.given("tag", text) {
        Some(given) => Some(given?),
        None => None,
    };
    Some(Profile { components, tag })
}

fn string_scheme(reader: &Reader<'_>, with_nonce: bool) -> Option<StringScheme> {
    let algorithm = reader.get(
        "algorithm",
        one_of(&[
            ("hmac-sha256", Algorithm::HmacSha256),
            ("hmac-sha1", Algorithm::HmacSha1),
            ("hmac-sha512", Algorithm::HmacSha512),
            ("md5-suffix", Algorithm::Md5Suffix),
        ]),
    );
    let encoding = reader.get("encoding", one_of(&[("hex", Encoding::Hex), ("base64", Encoding::Base64)]));
    let canonical =
        reader.get("canonical", one_of(&[("decoded", Canonical::Decoded), ("percent", Canonical::Percent)]));
    let fields = fields(reader);
    let template = reader.get("string", template);
    let scheme = StringScheme {
        algorithm: algorithm?,
        encoding: encoding?,
        canonical: canonical?,
        template: template?,
        fields: fields?,
    };
    if let Some(open) = scheme.uncovered(with_nonce) {
        let what = format!("the string does not cover the {open}: whoever copies a request could change it");
        reader.sheet.fault(reader.span_of("string"), what, format!("add {{{open}}}"));
    }
    if scheme.template.touching() {
        let what = "two parts have nothing between them: the end of one can pass for the beginning of the other";
        reader.sheet.warn(&reader.span_of("string"), what.to_owned());
    }
    if ![Part::Params, Part::Query].iter().any(|part| scheme.template.has(part)) {
        let what =
            "the string covers no parameters: whoever copies a request could add some; {params} or {query} covers them";
        reader.sheet.warn(&reader.span_of("string"), what.to_owned());
    }
    Some(scheme)
}

fn fields(reader: &Reader<'_>) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut whole = true;
    let places = [
        ("app", &mut fields.app),
        ("timestamp", &mut fields.timestamp),
        ("nonce", &mut fields.nonce),
        ("signature", &mut fields.signature),
        ("body_sha256", &mut fields.body_sha256),
    ];
    let mut taken = BTreeSet::new();
    for (key, field) in places {
        match reader.given(key, place) {
            Some(Some(given)) => *field = given,
            Some(None) => whole = false,
            None => {}
        }
        let names = [field.parameter().map(str::to_owned), field.header().map(|name| format!("header:{name}"))];
        for name in names.into_iter().flatten() {
            if !taken.insert(name.clone()) {
                reader.sheet.fault(
                    reader.span_of(key),
                    format!("\"{name}\" is the place of two fields"),
                    "use another",
                );
            }
        }
    }
    whole.then_some(fields)
}

/// `name` of a parameter, or `header:name`.
fn place(value: &Value<'_>) -> Option<FieldPlace> {
    let text = text(value)?;
    let Some(name) = text.strip_prefix("header:") else { return Some(FieldPlace::Parameter(text)) };
    let header = name.parse().ok();
    if header.is_none() {
        value.fault(format!("\"{name}\" cannot name a header"), "write \"header:x-name\"");
    }
    header.map(FieldPlace::Header)
}

fn template(value: &Value<'_>) -> Option<Template> {
    let (what, remedy) = match Template::parse(value.as_str()?) {
        Ok(template) => return Some(template),
        Err(TemplateFault::Brace) => {
            ("a brace without its partner".to_owned(), "write {{ or }} for a brace of its own".to_owned())
        }
        Err(TemplateFault::Unknown(name)) => {
            let parts = PARTS.map(|part| format!("{{{part}}}")).join(", ");
            let remedy = did_you_mean(&name, PARTS).unwrap_or_else(|| format!("there are {parts}, {{header:x-name}}"));
            (format!("there is no {{{name}}}"), remedy)
        }
        Err(TemplateFault::Header(name)) => {
            (format!("\"{name}\" cannot name a header"), "write {header:x-name}".to_owned())
        }
    };
    value.fault(what, remedy);
    None
}
