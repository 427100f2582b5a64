//! `[listen]` and `[server]`: the edge as the file writes it, turned into the edge as it runs.
//!
//! Addresses and networks are read here. What cannot change while the gateway runs ([`Fixed`]) is
//! kept apart from what is swapped with the routes ([`Edge`]). Nothing is bound here.

use std::net::{IpAddr, SocketAddr};

use ::http::Uri;
use ipnet::IpNet;

use super::reader::{
    Reader, Value, boolean, count, duration, duration_or_zero, list, number, one_or_list, path, size, text, twice,
};
use super::upstream::secret;
use crate::admin::Token;
use crate::http::{Limits, Timeouts};
use crate::route::Edge;
use crate::telemetry::{Destination, TRACES_WHOLE, TraceSettings};

/// Where the gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listen {
    /// For clients; never empty.
    pub(crate) http: Vec<SocketAddr>,
    /// For operators; `None`: there is no admin port.
    pub(crate) admin: Option<SocketAddr>,
    /// What changing something there takes; `None`: made at the start.
    pub(crate) admin_token: Option<Token>,
}

/// What is read once, at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) listen: Listen,
    pub(super) workers: usize,
    pub(super) access_log: Destination,
    pub(super) trace: Option<TraceSettings>,
}

impl Fixed {
    /// What of a reloaded file has to wait for the next start.
    pub(super) fn differences(&self, next: &Self) -> Vec<String> {
        let changed = [
            ("[listen]", self.listen != next.listen),
            ("workers", self.workers != next.workers),
            ("access_log", self.access_log != next.access_log),
            ("[trace]", self.trace != next.trace),
        ];
        let changed = changed.into_iter().filter(|(_, changed)| *changed);
        changed
            .map(|(key, _)| format!("{key} changed, and cannot while running: it takes effect at the next start"))
            .collect()
    }
}

pub(super) fn listen(file: &Reader<'_>) -> Listen {
    if file.node("listen").is_none() {
        file.sheet.fault_of_file("there is no [listen]", "add [listen] with http = \"127.0.0.1:8080\"");
        return Listen::default();
    }
    let Some(reader) = file.table("listen") else { return Listen::default() };
    let http = reader.get("http", one_or_list(listen_address)).unwrap_or_default();
    let admin = reader.get("admin", listen_address);
    // Port 0 asks the kernel for a free one, so two of them are two.
    let all: Vec<String> = http.iter().chain(&admin).filter(|at| at.port() != 0).map(ToString::to_string).collect();
    if let Some(again) = twice(all.iter().map(String::as_str)) {
        reader.sheet.fault(reader.span_of("http"), format!("\"{again}\" is listened on twice"), "name it once");
    }
    if let Some(admin) = admin.filter(|admin| !admin.ip().is_loopback()) {
        let message =
            format!("admin {admin} can be reached from other machines, and gives its metrics to everybody there");
        reader.sheet.warn(&reader.span_of("admin"), message);
    }
    Listen { http, admin, admin_token: reader.get("admin_token", admin_token) }
}

/// The admin port alone, for whoever asks there.
pub(super) fn admin(file: &Reader<'_>) -> Option<(SocketAddr, Option<Token>)> {
    let reader = file.table("listen")?;
    Some((reader.get("admin", listen_address)?, reader.get("admin_token", admin_token)))
}

pub(super) fn server(file: &Reader<'_>) -> (Edge, usize, Destination) {
    let Some(reader) = file.table("server") else { return (Edge::default(), 0, Destination::default()) };
    let workers = reader.get("workers", workers).unwrap_or_default();
    let access_log = reader.get("access_log", access_log).unwrap_or_default();
    let edge = Edge {
        trusted_proxies: reader.get("trusted_proxies", list(network)).unwrap_or_default(),
        limits: limits(&reader),
        timeouts: timeouts(&reader),
        reveal: reader.get("reveal", boolean).unwrap_or_default(),
        drain: reader.get("drain", duration_or_zero).unwrap_or_default(),
    };
    (edge, workers, access_log)
}

pub(super) fn trace(file: &Reader<'_>) -> Option<TraceSettings> {
    file.node("trace")?;
    let reader = file.table("trace")?;
    let (endpoint, sample) = (reader.get("endpoint", collector), reader.get("sample", percentage));
    Some(TraceSettings { endpoint: endpoint?, sample: sample? })
}

/// `http://host:port`, to which OTLP's own path is added.
fn collector(value: &Value<'_>) -> Option<Uri> {
    let text = text(value)?;
    let plain = text.strip_prefix("http://").filter(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
    let endpoint = plain.and_then(|rest| format!("http://{}/v1/traces", rest.trim_end_matches('/')).parse().ok());
    if endpoint.is_none() {
        let remedy = "write one like \"http://127.0.0.1:4318\"; a collector that wants TLS gets traces through one beside the gateway";
        value.fault(format!("\"{text}\" is not a collector's address"), remedy);
    }
    endpoint
}

/// `"1%"`, `"0.05%"`: in parts of a whole.
fn percentage(value: &Value<'_>) -> Option<u32> {
    let text = text(value)?;
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let Some(percent) = percent.filter(|percent| (0.0..=100.0).contains(percent)) else {
        value.fault(
            format!("\"{text}\" is not a share of all requests"),
            "write \"0%\" to \"100%\", like \"1%\" or \"0.1%\"",
        );
        return None;
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a whole is at most that")]
    Some((percent / 100.0 * f64::from(TRACES_WHOLE)).round() as u32)
}

// A key that cannot be read leaves the default: the fault is noted, the table will not be used.
fn limits(server: &Reader<'_>) -> Limits {
    let limits = Limits::default();
    let Some(reader) = server.table("limits") else { return limits };
    let bytes = |key| reader.get(key, head_size);
    Limits {
        header_bytes: bytes("header_bytes").unwrap_or(limits.header_bytes),
        headers: reader.get("headers", header_count).unwrap_or(limits.headers),
        uri_bytes: bytes("uri_bytes").unwrap_or(limits.uri_bytes),
        body_bytes: reader.get("body_bytes", size).unwrap_or(limits.body_bytes),
        connections: reader.get("connections", count),
        connections_per_client: reader.get("connections_per_client", count).unwrap_or(limits.connections_per_client),
    }
}

fn timeouts(server: &Reader<'_>) -> Timeouts {
    let timeouts = Timeouts::default();
    let Some(reader) = server.table("timeouts") else { return timeouts };
    let time = |key, otherwise| reader.get(key, duration).unwrap_or(otherwise);
    Timeouts {
        header: time("header", timeouts.header),
        body_gap: time("body_gap", timeouts.body_gap),
        write_gap: time("write_gap", timeouts.write_gap),
        idle: time("idle", timeouts.idle),
        requests_per_connection: reader
            .get("requests_per_connection", count)
            .and_then(|requests| u64::try_from(requests).ok())
            .unwrap_or(timeouts.requests_per_connection),
        connection_age: time("connection_age", timeouts.connection_age),
    }
}

fn workers(value: &Value<'_>) -> Option<usize> {
    const MOST: u64 = 1024;
    let workers = number(value)?;
    if workers > MOST {
        value.fault(format!("{workers} workers are more than any machine has cores"), "write 0 for one per core");
        return None;
    }
    usize::try_from(workers).ok()
}

/// A part of a request's head: it is held in memory for each connection.
fn head_size(value: &Value<'_>) -> Option<usize> {
    let bytes = size(value)?;
    if !(1 << 10..=1 << 20).contains(&bytes) {
        value
            .fault(format!("{} of {bytes} bytes is outside of what can work", value.key), "write \"1KiB\" to \"1MiB\"");
        return None;
    }
    usize::try_from(bytes).ok()
}

/// Lines of a request's head: room for each is kept while it is read.
fn header_count(value: &Value<'_>) -> Option<usize> {
    const MOST: usize = 1000;
    let count = count(value)?;
    if count > MOST {
        value.fault(format!("{count} header lines are more than any client needs"), format!("write at most {MOST}"));
        return None;
    }
    Some(count)
}

fn access_log(value: &Value<'_>) -> Option<Destination> {
    Some(match value.as_str()? {
        "stdout" => Destination::Stdout,
        "off" => Destination::Off,
        word if !word.contains('/') => {
            let remedy = format!("write \"stdout\", \"off\" or a path like \"./{word}\"");
            value.fault(format!("access_log cannot be \"{word}\""), remedy);
            return None;
        }
        _ => Destination::File(path(value)?),
    })
}

fn admin_token(value: &Value<'_>) -> Option<Token> {
    let token = Token::chosen(&secret(value)?);
    if token.is_none() {
        let message = format!("an admin token has {} visible ASCII characters or more", Token::SHORTEST);
        value.fault(message, "make one with `openssl rand -hex 16`");
    }
    token
}

pub(super) fn network(value: &Value<'_>) -> Option<IpNet> {
    let text = text(value)?;
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(network) if network.addr() != network.network() => {
            let remedy = format!("write \"{}\"", network.trunc());
            value.fault(format!("\"{text}\" names an address inside of its network"), remedy);
            None
        }
        Ok(network) => Some(network),
        Err(_) => {
            value.fault(format!("\"{text}\" is not a network"), "write one like \"10.0.0.0/8\" or \"fd00::/8\"");
            None
        }
    }
}

fn listen_address(value: &Value<'_>) -> Option<SocketAddr> {
    let text = text(value)?;
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.clone(), |port| format!("127.0.0.1:{port}"));
    if let Ok(address) = numeric.parse() {
        return Some(address);
    }
    let remedy = if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        format!("write \"0.0.0.0:{port}\" for all interfaces")
    } else if text.parse::<u16>().is_ok() {
        format!("write \"0.0.0.0:{text}\" for all interfaces")
    } else if text.parse::<IpAddr>().is_ok() {
        "add a port, like \"127.0.0.1:8080\"".to_owned()
    } else {
        "write the IP address of an interface and a port, like \"127.0.0.1:8080\"".to_owned()
    };
    value.fault(format!("\"{text}\" is not an address to listen on"), remedy);
    None
}
