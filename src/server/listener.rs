//! Binding: one listening socket for every address and worker, all on the same ports.
//!
//! With `SO_REUSEPORT` the kernel spreads connections over the workers' sockets, so that no
//! accept lock and no hand-over between threads is needed.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps waiting for a worker to accept them.
const BACKLOG: i32 = 4096;

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {address}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread or no event loop.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// One listener for every address.
pub(super) type Listeners = Vec<TcpListener>;

/// Binds every address `workers` times. Gives the real addresses and each worker's listeners.
pub(super) fn bind_for_workers(
    addresses: &[SocketAddr],
    workers: usize,
) -> Result<(Vec<SocketAddr>, Vec<Listeners>), BindError> {
    let mut real = Vec::with_capacity(addresses.len());
    let mut listeners: Vec<Listeners> = (0..workers).map(|_| Vec::new()).collect();
    for &address in addresses {
        let mut address = address;
        // A second gateway on the same port would be let in by SO_REUSEPORT and take half of the
        // connections unseen; without it, it is told that the address is taken.
        drop(bind(address, false).map_err(|source| BindError::Bind { address, source })?);
        for worker in &mut listeners {
            let failed = |source| BindError::Bind { address, source };
            let socket = bind(address, true).map_err(failed)?;
            // The first socket settles a port of 0 for those of the other workers.
            address = socket.local_addr().map_err(failed)?;
            worker.push(socket);
        }
        real.push(address);
    }
    Ok((real, listeners))
}

/// Binds and listens, without blocking later.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Inherited by every accepted socket, which saves a system call a connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_the_port_that_the_first_was_given() {
        let (real, listeners) = bind_for_workers(&["127.0.0.1:0".parse().unwrap()], 3).unwrap();
        assert_ne!(real[0].port(), 0);
        assert!(listeners.iter().all(|worker| worker[0].local_addr().unwrap() == real[0]));
    }

    #[test]
    fn a_second_gateway_does_not_share_a_port_unseen() {
        let (real, _listeners) = bind_for_workers(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        assert!(bind_for_workers(&real, 2).is_err());
    }

    #[test]
    fn an_address_that_is_taken_is_named_in_the_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_for_workers(&[address], 1).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}"));
    }
}
