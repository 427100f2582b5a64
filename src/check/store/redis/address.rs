//! Where a Redis is, as it is written in routes.toml.

use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates};

/// The address of one server, of Sentinels, or of a cluster's nodes, with who connects and whose word is believed.
#[derive(Clone)]
pub(crate) struct RedisAddress(Arc<Parsed>);

struct Parsed {
    /// As written, password included.
    text: String,
    /// The same for people: without user and password.
    shown: String,
    topology: Topology,
    tls: bool,
    /// Certificates (PEM) of the authorities that are believed, in place of the system's.
    ca: Option<Vec<u8>>,
}

pub(super) enum Topology {
    Server(ConnectionInfo),
    Sentinel { sentinels: Vec<ConnectionAddr>, master: String, node: RedisConnectionInfo },
    Cluster(Vec<ConnectionInfo>),
}

/// How an address begins, what such a one is called in the library, and whether TLS is spoken.
const SCHEMES: [(&str, &str, bool); 7] = [
    ("redis://", "redis", false),
    ("rediss://", "rediss", true),
    ("redis+unix://", "redis+unix", false),
    ("redis-sentinel://", "redis", false),
    ("rediss-sentinel://", "rediss", true),
    ("redis-cluster://", "redis", false),
    ("rediss-cluster://", "rediss", true),
];

impl RedisAddress {
    /// Whether a text means to be one.
    pub(crate) fn is_meant(text: &str) -> bool {
        SCHEMES.iter().any(|(start, ..)| text.starts_with(start))
    }

    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold neither user nor password.
    pub(crate) fn parse(text: &str, ca: Option<Vec<u8>>) -> Result<Self, String> {
        let (start, scheme, tls) =
            SCHEMES.into_iter().find(|(start, ..)| text.starts_with(start)).ok_or("it is no address of a Redis")?;
        let rest = text.strip_prefix(start).unwrap_or_default();
        if rest.contains('#') {
            return Err("TLS that believes anybody is not offered: name the authority with ca = \"…\"".to_owned());
        }
        if ca.is_some() && !tls {
            return Err("an authority is for rediss:// alone".to_owned());
        }
        let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let shown = format!("{start}{place}");
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        let one = |place: &str| -> Result<ConnectionInfo, String> {
            let read = format!("{scheme}://{at}{place}").into_connection_info();
            read.map_err(|error| error.detail().map_or_else(|| error.to_string(), str::to_owned).to_lowercase())
        };
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let topology = if start.contains("sentinel") {
            let (master, db) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("it does not say the master's name: redis-sentinel://host:26379/NAME".to_owned());
            }
            let nodes = hosts.split(',').map(|host| one(&format!("{}/{db}", with_port(host, 26379))));
            let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
            let node = nodes.first().map(|node| node.redis_settings().clone()).unwrap_or_default();
            let sentinels = nodes.iter().map(|node| node.addr().clone()).collect();
            Topology::Sentinel { sentinels, master: master.to_owned(), node }
        } else if start.contains("cluster") {
            if !path.is_empty() {
                return Err("a cluster has one database only".to_owned());
            }
            Topology::Cluster(hosts.split(',').map(one).collect::<Result<_, _>>()?)
        } else {
            Topology::Server(one(place)?)
        };
        Ok(Self(Arc::new(Parsed { text: text.to_owned(), shown, topology, tls, ca })))
    }

    /// Whether a password stands in the text.
    pub(crate) fn has_password(text: &str) -> bool {
        let (user, rest) = text.rsplit_once('@').unwrap_or(("", text));
        user.split_once("://").is_some_and(|(_, user)| user.contains(':')) || rest.contains("pass=")
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.0.topology
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0.topology, Topology::Cluster(_))
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.tls
    }

    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        let ca = self.0.ca.clone()?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(ca) })
    }
}

fn with_port(host: &str, port: u16) -> String {
    // An IPv6 address has colons of its own, inside brackets.
    let named = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
    if named { host.to_owned() } else { format!("{host}:{port}") }
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text && self.0.ca == other.0.ca
    }
}

impl Eq for RedisAddress {}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A socket's address has its password behind the path.
        f.write_str(self.0.shown.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_never_shows_who() {
        for (text, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            ("rediss://app:s3cret@cache.example:6380/2", "rediss://cache.example:6380/2"),
            ("redis+unix:///run/redis.sock?db=1&pass=s3cret", "redis+unix:///run/redis.sock"),
            ("redis-sentinel://:s3cret@a,b:26380,[::1]/shop/3", "redis-sentinel://a,b:26380,[::1]/shop/3"),
            ("redis-cluster://a:7000,b:7001", "redis-cluster://a:7000,b:7001"),
        ] {
            let address = RedisAddress::parse(text, None).unwrap();
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("s3cret"));
            assert_eq!(RedisAddress::has_password(text), text.contains("s3cret"), "{text}");
        }
        let address = RedisAddress::parse("redis-sentinel://:s3cret@a,b:26380/shop/3", None).unwrap();
        let Topology::Sentinel { sentinels, master, node } = address.topology() else { panic!("{address}") };
        let named: Vec<String> = sentinels.iter().map(ToString::to_string).collect();
        assert_eq!((&*named, &**master), (&["a:26379".to_owned(), "b:26380".to_owned()][..], "shop"));
        assert_eq!((node.db(), node.password()), (3, Some("s3cret")));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_secrets() {
        for text in [
            "redis://:s3cret@",
            "redis://:s3cret@host/db",
            "redis-sentinel://:s3cret@host",
            "redis-cluster://:s3cret@host/1",
            "rediss://:s3cret@host/#insecure",
        ] {
            let fault = RedisAddress::parse(text, None).err().unwrap();
            assert!(!fault.contains("s3cret"), "{fault}");
        }
        assert!(RedisAddress::parse("redis://host", Some(vec![1])).is_err());
    }
}
