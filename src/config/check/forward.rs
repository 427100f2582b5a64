//! `[check.NAME]` with `kind = "forward"`.

use ::http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, TRANSFER_ENCODING};
use ::http::{HeaderName, Uri};

use super::super::fault::did_you_mean;
use super::super::reader::{Reader, Value, duration, duration_or_zero, list, one_of, text};
use super::super::upstream::Upstreams;
use super::{header_name, place};
use crate::check::forward::{CacheBy, OnDown, Settings, Speaker};
use crate::http::CanonicalPath;

/// What a request is, or is from whom: not an authority's to set.
const NOT_COPIED: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, TRANSFER_ENCODING];

pub(super) fn settings(reader: &Reader<'_>, upstreams: &Upstreams) -> Option<Settings> {
    // Read to the end before any `?`, so that every fault is noted.
    let upstream = reader.get("upstream", |value| upstream(value, upstreams));
    let (target, timeout) = (reader.get("path", target), reader.get("timeout", duration));
    let speakers = [("authority", Speaker::Authority), ("gateway", Speaker::Gateway)];
    let answer = reader.get("answer", one_of(&speakers));
    let on_down = reader.get("on_down", one_of(&[("deny", OnDown::Deny), ("legacy", OnDown::Legacy)]));
    let (copy, user) = (reader.get("copy", list(copied)), reader.given("user", user));
    let (cache, cache_by) = (reader.get("cache", duration_or_zero), reader.get("cache_by", list(cache_by)));

    let (cache, cache_by) = (cache?, cache_by?);
    if !cache.is_zero() && !cache_by.iter().any(|by| matches!(by, CacheBy::Caller(_))) {
        let message = "nothing says whose verdict is remembered";
        reader.sheet.fault(reader.span_of("cache"), message, "add cache_by = [\"cookie:PHPSESSID\"]");
    }
    let (target, path) = target?;
    Some(Settings {
        upstream: upstream?,
        target,
        path,
        timeout: timeout?,
        answer: answer?,
        on_down: on_down?,
        copy: copy?,
        user: match user {
            Some(user) => Some(user?),
            None => None,
        },
        cache,
        cache_by,
    })
}

fn upstream(value: &Value<'_>, upstreams: &Upstreams) -> Option<String> {
    let name = text(value)?;
    if !upstreams.contains_key(&name) {
        let remedy = did_you_mean(&name, upstreams.keys().map(String::as_str));
        let remedy = remedy.unwrap_or_else(|| format!("add [upstream.{name}]"));
        value.fault(format!("upstream \"{name}\" is not defined"), remedy);
        return None;
    }
    Some(name)
}

fn target(value: &Value<'_>) -> Option<(Uri, CanonicalPath)> {
    let written = text(value)?;
    let uri = Uri::try_from(written.as_str()).ok().filter(|_| written.starts_with('/'));
    let read = uri.and_then(|uri| CanonicalPath::of(&uri).ok().map(|path| (uri, path)));
    if read.is_none() {
        value.fault(format!("\"{written}\" is not a path"), "write one like \"/auth\"");
    }
    read
}

fn copied(value: &Value<'_>) -> Option<HeaderName> {
    let name = header_name(value, &text(value)?)?;
    let edge = name.as_str().starts_with("x-strangler-") || name.as_str().starts_with("x-forwarded-");
    if edge || NOT_COPIED.contains(&name) {
        value.fault(format!("\"{name}\" is not an authority's to set"), "remove it");
        return None;
    }
    Some(name)
}

fn user(value: &Value<'_>) -> Option<HeaderName> {
    let written = text(value)?;
    match written.strip_prefix("header:") {
        Some(name) => header_name(value, name),
        None => {
            value.fault(format!("user \"{written}\" is no field of an answer"), format!("write \"header:{written}\""));
            None
        }
    }
}

fn cache_by(value: &Value<'_>) -> Option<CacheBy> {
    match value.as_str()? {
        "host" => Some(CacheBy::Host),
        "method" => Some(CacheBy::Method),
        "uri" => Some(CacheBy::Uri),
        _ => place(value).map(CacheBy::Caller),
    }
}
