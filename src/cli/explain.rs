//! `strangler explain METHOD URL`: which route a request takes and why, without sending it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use clap::Args;

use super::{ConfigFile, FAULTY, complain, faulty, print};
use crate::config::{self, Known};
use crate::http::CanonicalPath;
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The request's method
    method: Method,
    /// Its URL, or only the path
    url: Uri,
    /// A header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    config: ConfigFile,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{error}"))?;
    Ok((name, value))
}

pub(super) fn run(options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let telemetry = Telemetry::idle();
    let known = Known { handlers, telemetry: &telemetry, previous: None };
    let loaded = match config::load(&options.config.path, &known) {
        Ok(loaded) => loaded,
        Err(faults) => return faulty(&faults),
    };
    let path = match CanonicalPath::of(&options.url) {
        Ok(path) => path,
        Err(fault) => {
            complain(&format!("{}: {fault}; the gateway answers 400", options.url));
            return FAULTY;
        }
    };
    let headers: HeaderMap = options.headers.iter().cloned().collect();
    let host = host(&options.url, &headers);
    let explanation = loaded.table.explain(&options.method, &host, &path, options.url.query(), &headers);

    let mut text = String::new();
    let _ = writeln!(text, "{} {path}{}", options.method, if host.is_empty() { String::new() } else { format!(" at {host}") });
    let _ = writeln!(text, "{explanation}");
    print(&text)
}

fn host(url: &Uri, headers: &HeaderMap) -> String {
    let named = headers.get(::http::header::HOST).and_then(|value| value.to_str().ok());
    let host = url.host().or(named).unwrap_or_default();
    host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
}
