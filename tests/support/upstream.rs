//! HTTP services to put behind the gateway: an axum router for ordinary ones, a script that sees raw
//! bytes for those that break.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, LocalSet};

use super::temp_dir;

/// An axum service, on TCP or a unix socket. It ends with the value.
#[derive(Debug)]
pub struct Service {
    task: JoinHandle<()>,
    address: String,
    _dir: Option<TempDir>,
}

impl Service {
    /// Its URL for `http = […]`.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// Ends it at once, its connections too.
    pub async fn stop(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `router` on a port the system chose.
pub async fn service(router: Router) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    Service { task, address, _dir: None }
}

/// Serves `router` on a unix socket.
pub fn unix_service(router: Router) -> Service {
    let dir = temp_dir("service");
    let path: PathBuf = dir.path().join("service.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    Service { task, address: format!("unix:{}", path.display()), _dir: Some(dir) }
}

/// A scripted server: `script` runs once for each connection.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// One connection of the gateway's, seen from the service.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    read: Vec<u8>,
    open: Arc<AtomicUsize>,
}

/// Starts a scripted server on a thread of its own.
pub fn scripted<S, F>(script: S) -> Scripted
where
    S: Fn(Conn) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("non-blocking");
    let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, opened) = (Arc::clone(&connections), Arc::clone(&open));
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { return };
                        counted.fetch_add(1, Ordering::SeqCst);
                        opened.fetch_add(1, Ordering::SeqCst);
                        tokio::task::spawn_local(script(Conn { stream, read: Vec::new(), open: Arc::clone(&opened) }));
                    }
                }
            }
        });
    });
    Scripted { address, connections, open, _stop: stop }
}

impl Scripted {
    /// Its URL for `http = […]`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many of them the script still holds.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Conn {
    /// Reads one request's head; `None` when the gateway closed.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Reads `length` bytes of a body.
    pub async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    /// Sends raw bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Breaks the connection with RST.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Waits until the gateway closes.
    pub async fn closed(&mut self) {
        while matches!(self.stream.read_buf(&mut self.read).await, Ok(count) if count > 0) {
            self.read.clear();
        }
    }
}

/// `[upstream.NAME]` for these servers; `extra` are further lines of it.
pub fn upstream(name: &str, urls: &[&str], extra: &str) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
    format!("[upstream.{name}]\nhttp = [{}]\n{extra}\n", urls.join(", "))
}
