//! Who is at the other end of a connection, after trusted proxies have been heard.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The client of one exchange as both sides shall see it.
///
/// Cheap to clone: the text of the address is made once a connection, not once a request.
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
    /// Whether the client's own connection was encrypted (ours, or the trusted proxy's).
    pub(crate) https: bool,
    /// Whether the peer of the connection is a trusted proxy, whose X-Forwarded-* are believed.
    pub(crate) via_trusted_proxy: bool,
}

impl Client {
    /// The client of a cleartext connection from `peer` to `server`.
    pub(crate) fn of_connection(peer: SocketAddr, server: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        Self { ip, ip_text: ip.to_string().into(), port: peer.port(), server, https: false, via_trusted_proxy: false }
    }
}
