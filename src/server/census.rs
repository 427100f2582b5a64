//! How many connections there are: in all, and of one client address.
//!
//! Asked once a connection, never on a request's way, so a lock is affordable here. A connection
//! is counted as long as its [`Admission`] lives.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};

use crate::route::Edge;

/// Descriptors kept free of clients: for upstreams, files, the log and the admin port.
const RESERVED_DESCRIPTORS: u64 = 256;

/// The connections of all workers.
#[derive(Debug, Default)]
pub(super) struct Census {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A connection's place in the census; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    census: Arc<Census>,
    client: IpAddr,
}

impl Census {
    /// Counts a connection of `client`, or refuses it when the edge's limits are reached.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr, edge: &Edge) -> Option<Admission> {
        let most = edge.limits.connections.unwrap_or_else(from_descriptor_limit);
        let trusted = edge.trusted_proxies.iter().any(|proxy: &IpNet| proxy.contains(&client));
        let most_of_client = if trusted { usize::MAX } else { edge.limits.connections_per_client };

        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
        if counts.all >= most || of_client >= most_of_client {
            return None;
        }
        counts.all += 1;
        counts.by_client.insert(client, of_client + 1);
        Some(Admission { census: Arc::clone(self), client })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.census.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        match counts.by_client.get_mut(&self.client) {
            Some(1) | None => {
                counts.by_client.remove(&self.client);
            }
            Some(of_client) => *of_client -= 1,
        }
    }
}

/// Half of the descriptors, as every exchange may need one more for its upstream.
fn from_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((limit / 2).saturating_sub(RESERVED_DESCRIPTORS).max(16)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Limits;

    fn edge(connections: usize, per_client: usize) -> Edge {
        let limits = Limits { connections: Some(connections), connections_per_client: per_client, ..Limits::default() };
        Edge { limits, trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Edge::default() }
    }

    #[test]
    fn a_client_is_refused_at_its_limit_and_admitted_again_when_one_of_its_connections_ends() {
        let (census, edge) = (Arc::new(Census::default()), edge(100, 2));
        let client = "192.0.2.1".parse().unwrap();
        let first = census.admit(client, &edge).unwrap();
        let _second = census.admit(client, &edge).unwrap();
        assert!(census.admit(client, &edge).is_none());
        assert!(census.admit("192.0.2.2".parse().unwrap(), &edge).is_some());
        drop(first);
        assert!(census.admit(client, &edge).is_some());
    }

    #[test]
    fn a_trusted_proxy_has_the_limit_of_all_alone() {
        let (census, edge) = (Arc::new(Census::default()), edge(3, 1));
        let proxy = "10.1.2.3".parse().unwrap();
        let admitted: Vec<_> = (0..5).filter_map(|_| census.admit(proxy, &edge)).collect();
        assert_eq!(admitted.len(), 3);
    }
}
