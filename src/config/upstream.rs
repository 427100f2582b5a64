//! `[upstream.NAME]`: PHP-FPM pools and HTTP services.
//!
//! Gives the targets that routes may name. An upstream whose settings are those of the table in
//! force is taken over from there, so that its connections outlive a reload. Nothing is connected
//! to here, but a host name of a PHP-FPM pool is looked up.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::fault::Sheet;
use super::reader::{
    Node, Reader, Value, boolean, count, duration, folder, future_folder, list, not_yet, one_of, one_or_list, path,
    size, text, twice,
};
use super::source;
use super::spec;
use crate::route::RouteTable;
use crate::upstream::{Target, fastcgi, http};

/// A secret is a token or a password, never a document.
const SECRET_BYTES: u64 = 64 << 10;

/// The upstreams of the file by name.
pub(super) type Upstreams = BTreeMap<String, Upstream>;

/// An upstream of the file.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// `None`: it has faults, which have been noted.
    pub(super) target: Option<Target>,
}

pub(super) fn upstreams(file: &Reader<'_>, previous: Option<&RouteTable>) -> Upstreams {
    let sheet = file.sheet;
    let mut upstreams = Upstreams::new();
    for (name, node) in file.plain_names("upstream", "an upstream") {
        let text = name.get_ref();
        let before = sheet.count();
        let target = upstream(sheet, text, node, previous);
        let target = target.filter(|_| sheet.count() == before);
        upstreams.insert(text.to_string(), Upstream { span: name.span(), target });
    }
    upstreams
}

fn upstream<'a>(sheet: &'a Sheet<'a>, name: &str, node: &'a Node<'a>, previous: Option<&RouteTable>) -> Option<Target> {
    let has = |key: &str| node.get_ref().get(key);
    let running = previous.into_iter().flat_map(RouteTable::targets).find(|target| target.name() == name);
    match (has("fastcgi"), has("http")) {
        (Some(_), Some(http)) => {
            let message = format!("upstream \"{name}\" is both a PHP-FPM pool (fastcgi) and an HTTP service (http)");
            sheet.fault(http.span(), message, "make two upstreams of it");
            None
        }
        (None, None) if node.get_ref().is_table() => {
            let message = format!("upstream \"{name}\" says neither fastcgi nor http");
            sheet.fault(node.span(), message, "add fastcgi = \"unix:/path\" or http = \"http://host:port\"");
            None
        }
        (None, Some(_)) => {
            let settings = service(&Reader::of_node(sheet, &spec::HTTP, node)?)?;
            Some(match running {
                Some(Target::Http(running)) if *running.settings() == settings => Target::Http(Arc::clone(running)),
                _ => Target::Http(Arc::new(http::Service::new(name, settings))),
            })
        }
        _ => {
            let settings = pool(&Reader::of_node(sheet, &spec::PHP, node)?)?;
            Some(match running {
                Some(Target::Php(running)) if *running.settings() == settings => Target::Php(Arc::clone(running)),
                _ => Target::Php(Arc::new(fastcgi::Php::new(name, settings))),
            })
        }
    }
}

fn pool(reader: &Reader<'_>) -> Option<fastcgi::Settings> {
    // Read to the end before any `?`, so that every fault is noted.
    let (address, root) = (reader.get("fastcgi", fastcgi_address), reader.get("root", folder));
    let (index, connections) = (reader.get("index", index), reader.get("connections", count));
    let (queue, queue_length) = (reader.get("queue", duration), reader.given("queue_length", count));
    let keepalive = reader.get("keepalive", keepalive);
    let (connect, first_byte) = (reader.get("connect", duration), reader.get("first_byte", duration));
    let (between_bytes, try_files) = (reader.get("between_bytes", duration), reader.get("try_files", boolean));
    let (params, internal) = (params(reader), internal(reader));
    let aborts = [("close", fastcgi::OnClientAbort::Close), ("finish", fastcgi::OnClientAbort::Finish)];
    let on_client_abort = reader.get("on_client_abort", one_of(&aborts));
    let spool = reader.table("spool").map(|spool| (spool.get("memory", size), spool.get("disk", size)));
    let deny = reader.get("deny", list(text));
    let scripts = reader.get("php", one_of(&[("index", fastcgi::Scripts::Index), ("files", fastcgi::Scripts::Files)]));
    let symlinks = reader.get("symlinks", list(future_folder));
    let spawn = reader.node("spawn").map(|_| spawn(reader));

    let (root, index, connections, keepalive) = (root?, index?, connections?, keepalive?);
    if keepalive > connections {
        let message = format!("keepalive {keepalive} is more than the {connections} connections there may be");
        reader.sheet.fault(reader.span_of("keepalive"), message, format!("write at most {connections}"));
    }
    if !root.join(&index).is_file() {
        reader.sheet.warn(&reader.span_of("root"), format!("root has no {index}"));
    }
    let (spool_memory, spool_disk) = spool?;
    Some(fastcgi::Settings {
        address: address?,
        root,
        index,
        connections,
        queue: queue?,
        queue_length: queue_length.unwrap_or_else(|| Some(connections.saturating_mul(4)))?,
        keepalive,
        connect: connect?,
        first_byte: first_byte?,
        between_bytes: between_bytes?,
        try_files: try_files?,
        params,
        on_client_abort: on_client_abort?,
        spool_memory: spool_memory?,
        spool_disk: spool_disk?,
        deny: deny?,
        scripts: scripts?,
        internal,
        symlinks: symlinks?,
        spawn: spawn.flatten(),
    })
}

fn service(reader: &Reader<'_>) -> Option<http::Settings> {
    let servers = reader.get("http", one_or_list(server));
    let time = |key: &str| -> Option<Duration> { reader.get(key, duration) };
    let (connect, first_byte) = (time("connect"), time("first_byte"));
    let (between_bytes, idle) = (time("between_bytes"), time("idle"));
    let _the_only_one = reader.get("balance", balance);
    let host = reader.get("host", host_policy);
    Some(http::Settings {
        servers: servers?,
        connect: connect?,
        first_byte: first_byte?,
        between_bytes: between_bytes?,
        idle: idle?,
        host: host?,
    })
}

fn spawn(pool: &Reader<'_>) -> Option<u32> {
    let children = pool.table("spawn")?.get("children", count)?;
    u32::try_from(children).ok()
}

fn keepalive(value: &Value<'_>) -> Option<usize> {
    match value.node.get_ref() {
        DeValue::String(text) if text == "off" => Some(0),
        DeValue::Integer(_) => count(value),
        _ => value.wrong("write \"off\" or a number of connections"),
    }
}

fn fastcgi_address(value: &Value<'_>) -> Option<fastcgi::Address> {
    let text = text(value)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(value, path).map(fastcgi::Address::Unix);
    }
    if text.starts_with('/') {
        value.fault(format!("\"{text}\" is not an address"), format!("write \"unix:{text}\""));
        return None;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(fastcgi::Address::Tcp(address));
    }
    if host_and_port(&text).is_none() {
        value.fault(format!("\"{text}\" is not an address"), "write \"unix:/path\" or \"host:port\"");
        return None;
    }
    match text.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => Some(fastcgi::Address::Tcp(address)),
        Ok(None) | Err(_) => {
            value.fault(format!("the host of \"{text}\" has no address"), "check the name, or write an IP address");
            None
        }
    }
}

fn unix_path(value: &Value<'_>, path: &str) -> Option<PathBuf> {
    // What the kernel's sockaddr_un takes, its closing NUL not counted.
    const LONGEST: usize = 107;
    if path.is_empty() {
        value.fault("the address names no socket", "write \"unix:/path\"");
        return None;
    }
    let path = value.sheet.resolve(path);
    if path.as_os_str().len() > LONGEST {
        value.fault(format!("the socket's path is longer than {LONGEST} bytes"), "use a shorter one");
        return None;
    }
    Some(path)
}

/// Splits `host:port` where both can be what they say.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    good.then(|| (inner.unwrap_or(host).to_owned(), port))
}

fn server(value: &Value<'_>) -> Option<http::Server> {
    let text = text(value)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(value, path).map(http::Server::Unix);
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", &text));
    match scheme {
        "http" => {}
        "https" => {
            value.fault(not_yet("https://", "TLS is"), "write \"http://host:port\"");
            return None;
        }
        "h2c" => {
            value.fault(not_yet("h2c://", "HTTP/2 is"), "write \"http://host:port\"");
            return None;
        }
        _ => {
            let remedy = match host_and_port(&text) {
                Some(_) => format!("write \"http://{text}\""),
                None => "write \"http://host:port\" or \"unix:/path\"".to_owned(),
            };
            value.fault(format!("\"{text}\" is not the address of an HTTP service"), remedy);
            return None;
        }
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some((authority, path)) = authority.split_once('/') {
        let message = format!("\"/{path}\" in \"{text}\" would be ignored: the client's path is sent as it is");
        value.fault(message, format!("write \"http://{authority}\""));
        return None;
    }
    let found = host_and_port(authority).or_else(|| host_and_port(&format!("{authority}:80")));
    if found.is_none() {
        value.fault(format!("\"{authority}\" is not a host and port"), "write \"http://host:port\"");
    }
    found.map(|(host, port)| http::Server::Tcp { host, port })
}

fn balance(value: &Value<'_>) -> Option<()> {
    match value.as_str()? {
        "p2c" => Some(()),
        other => {
            value.fault(not_yet(other, "balancing by anything but \"p2c\" is"), "write \"p2c\" or leave the key out");
            None
        }
    }
}

fn host_policy(value: &Value<'_>) -> Option<http::HostPolicy> {
    let text = text(value)?;
    if text == "keep" {
        return Some(http::HostPolicy::Keep);
    }
    if ::http::uri::Authority::try_from(text.as_str()).is_err() || text.contains('@') {
        value.fault(format!("\"{text}\" is not a host name"), "write \"keep\" or a name");
        return None;
    }
    Some(http::HostPolicy::Name(text))
}

fn index(value: &Value<'_>) -> Option<String> {
    let text = text(value)?;
    if text.starts_with('/') || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        value.fault(format!("index \"{text}\" is not a file below root"), "write a relative path like \"index.php\"");
        return None;
    }
    Some(text)
}

/// `internal`: prefixes and the folders they stand for.
fn internal(reader: &Reader<'_>) -> Vec<(String, PathBuf)> {
    let mut prefixes = Vec::new();
    for (name, node) in reader.names("internal") {
        let prefix = name.get_ref();
        if !prefix.starts_with('/') || !prefix.ends_with('/') {
            let remedy = format!("write \"/{}/\"", prefix.trim_matches('/'));
            reader.sheet.fault(name.span(), format!("\"{prefix}\" does not begin and end with \"/\""), remedy);
        }
        if let Some(folder) = future_folder(&Value { sheet: reader.sheet, key: "internal", node }) {
            prefixes.push((prefix.to_string(), folder));
        }
    }
    prefixes
}

/// `params`: what PHP is told beyond what the request says.
fn params(reader: &Reader<'_>) -> Vec<(String, String)> {
    let mut params = Vec::new();
    for (name, node) in reader.names("params") {
        let text = name.get_ref();
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let remedy = "use letters, digits and \"_\", not beginning with a digit";
            reader.sheet.fault(name.span(), format!("\"{text}\" cannot name a FastCGI parameter"), remedy);
        }
        if let Some(held) = literal_or_secret(&Value { sheet: reader.sheet, key: text, node }) {
            params.push((text.to_string(), held));
        }
    }
    if let Some(again) = twice(params.iter().map(|(name, _)| name.as_str())) {
        reader.sheet.fault(reader.span_of("params"), format!("\"{again}\" is there twice"), "remove one");
    }
    params
}

/// A string of the file, or one that the file only says where to find.
pub(super) fn literal_or_secret(value: &Value<'_>) -> Option<String> {
    let text = match value.node.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Table(table) if table.len() == 1 => secret_of(value, table)?,
        DeValue::Table(_) => return value.wrong("write { env = \"NAME\" } or { file = \"path\" }"),
        _ => return value.wrong("write a string, { env = \"NAME\" } or { file = \"path\" }"),
    };
    if text.contains('\0') {
        value.fault(format!("\"{}\" contains a NUL byte", value.key), "remove it");
        return None;
    }
    Some(text)
}

/// A string that the file only says where to find.
pub(super) fn secret(value: &Value<'_>) -> Option<String> {
    match value.node.get_ref() {
        DeValue::Table(table) if table.len() == 1 => secret_of(value, table),
        _ => value.wrong("write { env = \"NAME\" } or { file = \"path\" }"),
    }
}

/// What `env` or `file` of a table names, which the file itself does not hold.
pub(super) fn secret_of(value: &Value<'_>, table: &DeTable<'_>) -> Option<String> {
    let found = match (table.get("env"), table.get("file")) {
        (Some(node), None) => {
            let name = text(&Value { sheet: value.sheet, key: "env", node })?;
            std::env::var(&name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment has no \"{name}\""),
                std::env::VarError::NotUnicode(_) => format!("\"{name}\" of the environment is not UTF-8"),
            })
        }
        (None, Some(node)) => {
            let written = Value { sheet: value.sheet, key: "file", node };
            let path = path(&written)?;
            source::read(&path, SECRET_BYTES)
                .map(|secret| secret.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|unread| format!("\"{}\" {unread}", written.as_str().unwrap_or_default()))
        }
        _ => return value.wrong("write { env = \"NAME\" } or { file = \"path\" }"),
    };
    found.map_err(|message| value.fault(message, "")).ok()
}
