//! Who is at the other end of a connection, after trusted proxies have been heard.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of one exchange as both sides shall see it.
///
/// Cheap to clone: the texts of addresses are made once a connection, not once a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The client's address: the connection's peer, or whom a trusted proxy named.
    pub(crate) ip: IpAddr,
    /// `ip` as text, without port or brackets (`REMOTE_ADDR`).
    pub(crate) ip_text: Arc<str>,
    /// The peer's port (`REMOTE_PORT`); 0 when a trusted proxy spoke for the client.
    pub(crate) port: u16,
    /// The address of the gateway that the client reached (`SERVER_ADDR`, `SERVER_PORT`).
    pub(crate) server: SocketAddr,
    /// Its address as text, without port or brackets.
    pub(crate) server_ip_text: Arc<str>,
    /// Whether the client's own connection was encrypted (ours, or the trusted proxy's).
    pub(crate) https: bool,
    /// Whether the peer of the connection is a trusted proxy, whose X-Forwarded-* are believed.
    pub(crate) via_trusted_proxy: bool,
}

impl Client {
    /// The client of a cleartext connection from `peer` to `server`.
    pub(crate) fn of_connection(peer: SocketAddr, server: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        Self {
            ip,
            ip_text: ip.to_string().into(),
            port: peer.port(),
            server,
            server_ip_text: server.ip().to_canonical().to_string().into(),
            https: false,
            via_trusted_proxy: false,
        }
    }

    /// The client of one request on this connection: the peer itself, or, if that is a trusted proxy,
    /// whom it speaks for.
    ///
    /// `X-Forwarded-For` is read from the right, where the proxies nearest to us write, up to the
    /// first address that is not a trusted proxy's: what stands left of it, a client can make up.
    pub(crate) fn behind(&self, trusted: &[IpNet], headers: &HeaderMap) -> Self {
        if !is_trusted(self.ip, trusted) {
            return Self { via_trusted_proxy: false, ..self.clone() };
        }
        let mut client = Self { via_trusted_proxy: true, ..self.clone() };
        let mut ip = self.ip;
        // A hop that is no address ends the walk: the proxy that wrote it is all that is known then.
        for hop in from_the_right(headers, &X_FORWARDED_FOR).map_while(address) {
            ip = hop;
            if !is_trusted(hop, trusted) {
                break;
            }
        }
        if ip != self.ip {
            client.ip = ip;
            client.ip_text = ip.to_string().into();
            client.port = 0;
        }
        match from_the_right(headers, &X_FORWARDED_PROTO).next() {
            Some("https" | "wss") => client.https = true,
            Some("http" | "ws") => client.https = false,
            _ => {}
        }
        client
    }
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&ip))
}

/// The elements of a list over all of its lines, the last first.
fn from_the_right<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .rev()
        // A line that is not text is one element that is no address.
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
        .map(str::trim)
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`: proxies write them all.
fn address(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    hop.parse().ok().or_else(with_port).or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn behind(peer: &str, lines: &[(&'static str, &'static str)]) -> Client {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 5000);
        Client::of_connection(peer, "127.0.0.1:80".parse().unwrap()).behind(&trusted, &headers)
    }

    fn forwarded_for(lines: &[&'static str]) -> String {
        let lines: Vec<_> = lines.iter().map(|value| ("x-forwarded-for", *value)).collect();
        behind("10.0.0.1", &lines).ip_text.to_string()
    }

    #[test]
    fn an_untrusted_peer_speaks_for_nobody() {
        let client = behind("203.0.113.9", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        assert_eq!(&*client.ip_text, "203.0.113.9");
        assert_eq!((client.port, client.https, client.via_trusted_proxy), (5000, false, false));
    }

    #[test]
    fn a_trusted_proxy_speaks_for_its_client() {
        let client = behind("::ffff:10.0.0.1", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        assert_eq!(&*client.ip_text, "1.2.3.4");
        assert_eq!((client.port, client.https, client.via_trusted_proxy), (0, true, true));
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        assert_eq!(forwarded_for(&["6.6.6.6, 1.2.3.4, 10.0.0.7"]), "1.2.3.4");
        assert_eq!(forwarded_for(&["6.6.6.6", "1.2.3.4", "10.0.0.7"]), "1.2.3.4");
        assert_eq!(forwarded_for(&["2001:db8::1, fd00::7"]), "2001:db8::1");
        assert_eq!(forwarded_for(&["10.0.0.9, 10.0.0.8"]), "10.0.0.9");
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_walk() {
        assert_eq!(forwarded_for(&["1.2.3.4, unknown, 10.0.0.7"]), "10.0.0.7");
        assert_eq!(forwarded_for(&["1.2.3.4,"]), "10.0.0.1");
        assert_eq!(forwarded_for(&[]), "10.0.0.1");
    }

    #[test]
    fn addresses_may_come_with_port_and_brackets() {
        assert_eq!(forwarded_for(&["1.2.3.4:567"]), "1.2.3.4");
        assert_eq!(forwarded_for(&["[2001:db8::1]:567"]), "2001:db8::1");
        assert_eq!(forwarded_for(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(forwarded_for(&["::ffff:1.2.3.4"]), "1.2.3.4");
    }
}
