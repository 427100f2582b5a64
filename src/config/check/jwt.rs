//! `[check.NAME]` with `kind = "jwt"`.

use ::http::{HeaderName, Uri};

use super::super::reader::{Reader, Value, duration, duration_or_zero, one_of, one_or_list, size, text};
use super::super::upstream::secret;
use super::token;
use crate::check::fetch::Fetcher;
use crate::check::field_header;
use crate::check::jwt::jwks;
use crate::check::jwt::key::{Algorithm, BadKey, Family, Key, Keys, Named};
use crate::check::jwt::{Jwt, Settings};

/// Longer secrets of an HMAC cannot be guessed (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;

pub(super) fn settings(reader: &Reader<'_>) -> Option<Settings> {
    // Read to the end before any `?`, so that every fault is noted.
    let token = token(reader);
    let algorithms = reader.get("algorithms", one_or_list(one_of(&Algorithm::ALL)));
    let algorithms = algorithms.filter(|algorithms| unmixed(reader, algorithms));
    let secrets = algorithms.as_ref().map(|algorithms| algorithms.iter().all(|one| one.family() == Family::Secret));
    let keys = secrets.map(|secrets| keys(reader, secrets));
    let times = ["jwks_refresh", "jwks_keep", "jwks_timeout"].map(|key| reader.get(key, duration));
    let jwks = reader.given("jwks", uri);
    let [issuer, audience] = ["issuer", "audience"].map(|key| reader.given(key, one_or_list(text)));
    let (leeway, user) = (reader.get("leeway", duration_or_zero), reader.get("user", text));
    let (fields, max_bytes) = (fields(reader), reader.get("max_bytes", size));

    let (keys, secrets, [refresh, keep, timeout]) = (keys?, secrets?, times);
    match &jwks {
        None if reader.names("keys").is_empty() => {
            reader.sheet.fault(reader.span(), "there is no key to verify a token with", "add keys or jwks");
        }
        Some(_) if secrets => {
            let message = "jwks publishes keys, and what these algorithms need is secret";
            reader.sheet.fault(reader.span_of("jwks"), message, "write the secrets in keys, or other algorithms");
        }
        Some(_) if audience.is_none() => {
            let message = "without audience, tokens pass that were made for other applications of the same authority";
            reader.sheet.warn(&reader.span_of("jwks"), message);
        }
        _ => {}
    }
    let jwks = match jwks {
        Some(uri) => Some(jwks::Settings { uri: uri?, refresh: refresh?, keep: keep?, timeout: timeout? }),
        None => None,
    };
    Some(Settings {
        token: token?,
        algorithms: algorithms?,
        keys,
        jwks,
        issuer: issuer.unwrap_or(Some(Vec::new()))?,
        audience: audience.unwrap_or(Some(Vec::new()))?,
        leeway: leeway?,
        user: user?,
        fields,
        max_bytes: usize::try_from(max_bytes?).unwrap_or(usize::MAX),
    })
}

/// The check of these settings.
pub(super) fn check(reader: &Reader<'_>, settings: Settings) -> Option<Jwt> {
    let Some(jwks::Settings { timeout, .. }) = settings.jwks else { return Some(Jwt::new(settings, None)) };
    match Fetcher::new(timeout, timeout) {
        Ok(fetcher) => Some(Jwt::new(settings, Some(fetcher))),
        Err(error) => {
            let message = format!("this system has no certificates to know an authority by: {error}");
            reader.sheet.fault(reader.span_of("jwks"), message, "install ca-certificates");
            None
        }
    }
}

/// A public key and a secret in one check are how a token signed with the public key gets in.
fn unmixed(reader: &Reader<'_>, algorithms: &[Algorithm]) -> bool {
    let secret = |algorithm: &Algorithm| algorithm.family() == Family::Secret;
    let good = algorithms.iter().all(secret) || !algorithms.iter().any(secret);
    if !good {
        let message = "algorithms of secrets (HS…) stand beside those of public keys";
        reader.sheet.fault(reader.span_of("algorithms"), message, "make two checks of it");
    }
    good
}

fn keys(reader: &Reader<'_>, secrets: bool) -> Keys {
    let mut keys = Vec::new();
    for (name, node) in reader.names("keys") {
        let kid = name.get_ref();
        let value = Value { sheet: reader.sheet, key: kid, node };
        let Some(text) = secret(&value) else { continue };
        match if secrets { Key::secret(&text) } else { Key::public(&text) } {
            Ok(key) => {
                if secrets && text.len() < SHORTEST_SECRET {
                    let message = format!("the secret \"{kid}\" has fewer than {SHORTEST_SECRET} bytes");
                    reader.sheet.warn(&node.span(), message);
                }
                keys.push(Named { kid: Some((&**kid).into()), only: None, key });
            }
            Err(bad) => value.fault(format!("the key \"{kid}\" {bad}"), mended(bad)),
        }
    }
    Keys(keys)
}

/// What makes a good key of a bad one.
fn mended(bad: BadKey) -> &'static str {
    match bad {
        BadKey::Certificate => "write its public key: openssl x509 -in FILE -pubkey -noout",
        BadKey::Private => "write its public key: openssl pkey -in FILE -pubout",
        BadKey::PemAsSecret => "name the algorithm of the key, like \"RS256\", or write a secret",
        BadKey::NotPem => "write a public key as openssl does: -----BEGIN PUBLIC KEY-----",
        BadKey::UnknownKind => "use RSA, P-256, P-384 or Ed25519",
        BadKey::Broken | BadKey::Size | BadKey::Empty => "write another key",
    }
}

fn fields(reader: &Reader<'_>) -> Vec<(HeaderName, String)> {
    let mut fields = Vec::new();
    for (name, node) in reader.names("fields") {
        let Some(header) = field_header(name.get_ref()) else {
            let message = format!("\"{}\" cannot name a field", name.get_ref());
            let remedy = "use letters, digits, \"-\" and \"_\"; not user, session or side";
            reader.sheet.fault(name.span(), message, remedy);
            continue;
        };
        if let Some(path) = text(&Value { sheet: reader.sheet, key: name.get_ref(), node }) {
            fields.push((header, path));
        }
    }
    fields
}

/// Where keys are published. Whoever can change them on the way can sign tokens, so they come encrypted or
/// from this machine.
fn uri(value: &Value<'_>) -> Option<Uri> {
    let written = text(value)?;
    let uri = Uri::try_from(written.as_str()).ok().filter(|uri| uri.host().is_some());
    let loopback = |uri: &Uri| matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match uri {
        Some(uri) if uri.scheme_str() == Some("https") => Some(uri),
        Some(uri) if uri.scheme_str() == Some("http") && loopback(&uri) => Some(uri),
        Some(uri) if uri.scheme_str() == Some("http") => {
            let message = "keys that come in the clear could be exchanged on the way";
            value.fault(message, format!("write \"https{}\"", written.trim_start_matches("http")));
            None
        }
        _ => {
            value.fault(format!("\"{written}\" is not the address of published keys"), "write \"https://host/path\"");
            None
        }
    }
}
