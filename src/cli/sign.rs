//! `strangler sign CHECK METHOD URL`: a request signed as a `signature` check wants it, and what was signed.
//!
//! For whoever writes a client and finds it refused: the string is shown byte for byte, since that is
//! where two signers differ.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use clap::Args;

use super::{FAULTY, complain, explain, look_at, print, with_causes};
use crate::check::signature::{Signature, SignedRequest, Unsigned};
use crate::check::{Kind, clock};
use crate::config::Listen;
use crate::http::{Host, request_id};
use crate::upstream::Handler;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The check, by its name
    check: String,
    /// The request's method
    method: Method,
    /// Its URL, or only the path
    url: Uri,
    /// The request's body; a urlencoded form unless a Content-Type says otherwise
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Who signs; the check's only app, or its first one, if not said
    #[arg(long)]
    app: Option<String>,
    /// When, in seconds since 1970; now, if not said
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<u64>,
    /// What is accepted once; a fresh one, if not said
    #[arg(long)]
    nonce: Option<String>,
    /// A header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = explain::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(file: &Path, options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let loaded = match look_at(file, handlers) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let check = loaded.table.checks.get(&*options.check);
    let Some(Kind::Signature(signature)) = check.map(|check| check.kind()) else {
        complain(&format!("no route demands a check of kind \"signature\" that is named \"{}\"", options.check));
        return FAULTY;
    };
    let signed = match unsigned(options, signature, &loaded.listen).map(|unsigned| signature.sign(unsigned)) {
        Ok(Ok(signed)) => signed,
        Ok(Err(cannot)) => {
            complain(&with_causes(&cannot));
            return FAULTY;
        }
        Err(why) => {
            complain(why);
            return FAULTY;
        }
    };
    print(&if options.json { as_json(&signed, options) } else { as_text(&signed, options) })
}

/// The request as it was asked for.
fn unsigned(options: &Options, signature: &Signature, listen: &Listen) -> Result<Unsigned, &'static str> {
    let mut headers: HeaderMap = options.headers.iter().cloned().collect();
    if options.data.is_some() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    let url = absolute(&options.url, headers.get(HOST), listen).ok_or("the URL cannot be made a whole one")?;
    let host = Host::of(Version::HTTP_10, &url, &headers).map_err(|_| "the URL and the headers name no valid host")?;
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri, head.headers) = (options.method.clone(), url, headers);
    let app = options.app.clone().or_else(|| signature.settings().apps.keys().next().cloned());
    Ok(Unsigned {
        host: host.as_str().to_owned(),
        head,
        body: options.data.clone().unwrap_or_default().into_bytes(),
        app: app.ok_or("the check has no app")?,
        timestamp: options.timestamp.unwrap_or_else(clock::now),
        nonce: options.nonce.clone().unwrap_or_else(fresh_nonce),
    })
}

fn fresh_nonce() -> String {
    let id = request_id::of(&HeaderMap::new(), false);
    id.to_str().unwrap_or_default().to_owned()
}

/// A bare path is one of the gateway's own.
fn absolute(url: &Uri, host: Option<&HeaderValue>, listen: &Listen) -> Option<Uri> {
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let (scheme, authority) = match (url.scheme_str(), url.authority(), host) {
        (scheme, Some(authority), _) => (scheme.unwrap_or("http"), authority.to_string()),
        (_, None, Some(host)) => ("http", host.to_str().ok()?.to_owned()),
        (_, None, None) => {
            let mut address = *listen.http.first()?;
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            ("http", address.to_string())
        }
    };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().ok()
}

/// What was signed, with control characters as escapes.
fn visible(string: &[u8]) -> String {
    let mut out = String::new();
    for chunk in string.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                letter if letter.is_control() => out.extend(letter.escape_default()),
                letter => out.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

fn as_text(signed: &SignedRequest, options: &Options) -> String {
    format!(
        "key        {}\nsigned     {}\nsignature  {}\n\n{}\n",
        signed.key,
        visible(&signed.string),
        signed.signature,
        curl(&signed.head, options.data.as_deref())
    )
}

fn as_json(signed: &SignedRequest, options: &Options) -> String {
    let headers = signed.head.headers.iter();
    let headers: Vec<[String; 2]> = headers
        .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let json = serde_json::json!({
        "method": signed.head.method.as_str(),
        "url": signed.head.uri.to_string(),
        "headers": headers,
        "body": options.data,
        "key": signed.key,
        "string": String::from_utf8_lossy(&signed.string),
        "signature": signed.signature,
        "curl": curl(&signed.head, options.data.as_deref()),
    });
    format!("{json}\n")
}

fn curl(head: &request::Parts, body: Option<&str>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut line = format!("curl -X {} {}", head.method, quoted(&head.uri.to_string()));
    let own_host = head.uri.authority().map(::http::uri::Authority::as_str);
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        if *name != HOST || Some(&*value) != own_host {
            line.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
        }
    }
    if let Some(body) = body {
        line.push_str(&format!(" --data-binary {}", quoted(body)));
    }
    line
}
