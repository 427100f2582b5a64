//! A scripted FastCGI server: for what PHP-FPM never does, or only when it is dying.
//!
//! `fcgi(|mut call| async move { … })` runs the script once for every connection. The script reads
//! requests and answers with whole records, half ones or none.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

use super::temp_dir;

pub const BEGIN: u8 = 1;
pub const END: u8 = 3;
pub const PARAMS: u8 = 4;
pub const STDIN: u8 = 5;
pub const STDOUT: u8 = 6;
pub const STDERR: u8 = 7;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub params: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
    pub keep: bool,
}

/// One connection of the gateway's.
#[derive(Debug)]
pub struct Call {
    stream: UnixStream,
    /// Where this connection is to be counted, until it is.
    uncounted: Option<Arc<AtomicUsize>>,
}

/// A running scripted server.
#[derive(Debug)]
pub struct Fcgi {
    dir: TempDir,
    connections: Arc<AtomicUsize>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// Starts it on a thread of its own; it ends with the value.
pub fn fcgi<S, F>(script: S) -> Fcgi
where
    S: Fn(Call) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let dir = temp_dir("fcgi");
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("fcgi.sock")).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async move {
            let listener = UnixListener::from_std(listener).expect("a listener");
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { return };
                        let uncounted = Some(Arc::clone(&counted));
                        tokio::task::spawn_local(script(Call { stream, uncounted }));
                    }
                }
            }
        });
    });
    Fcgi { dir, connections, _stop: stop }
}

impl Fcgi {
    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("fcgi.sock")
    }

    /// Its document root: an empty directory with an `index.php` nobody runs.
    pub fn root(&self) -> &Path {
        let index = self.dir.path().join("index.php");
        if !index.exists() {
            std::fs::write(index, "<?php\n").expect("index.php");
        }
        self.dir.path()
    }

    /// `[upstream.php]` and a catch-all route to it.
    pub fn table(&self, extra: &str) -> String {
        format!(
            "[upstream.php]\nfastcgi = \"unix:{}\"\nroot = \"{}\"\n{extra}\n\
             [[route]]\nname = \"rest\"\npath = \"/{{*rest}}\"\nlegacy = \"php\"\n",
            self.socket().display(),
            self.root().display()
        )
    }

    /// How many connections came with a record: those that only look whose socket it is come without.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Call {
    /// Reads one whole request; `None` when the gateway closed the connection.
    pub async fn request(&mut self) -> Option<Request> {
        let (mut params, mut stdin, mut keep) = (Vec::new(), Vec::new(), false);
        loop {
            let (kind, content) = self.record().await?;
            match kind {
                BEGIN => keep = content.get(2).is_some_and(|flags| flags & 1 == 1),
                PARAMS => params.push(content),
                STDIN if content.is_empty() => break,
                STDIN => stdin.extend(content),
                other => panic!("a record of type {other} inside a request"),
            }
        }
        let ended = params.pop().is_some_and(|last| last.is_empty());
        assert!(ended, "the parameters do not end with an empty record");
        // PHP-FPM reads the pairs of each record by itself, so does this.
        let params = params.iter().flat_map(|record| pairs(record)).collect();
        Some(Request { params, stdin, keep })
    }

    /// Reads one record.
    pub async fn record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).await.ok()?;
        if let Some(connections) = self.uncounted.take() {
            connections.fetch_add(1, Ordering::SeqCst);
        }
        assert_eq!(header[0], 1, "version");
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = vec![0; length + usize::from(header[6])];
        self.stream.read_exact(&mut content).await.ok()?;
        content.truncate(length);
        Some((header[1], content))
    }

    /// Sends raw bytes; `false` when the gateway has gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends a STDOUT record.
    pub async fn stdout(&mut self, content: impl AsRef<[u8]>) -> bool {
        self.send(record(STDOUT, 1, content.as_ref(), 0)).await
    }

    /// Sends END_REQUEST.
    pub async fn end(&mut self) -> bool {
        self.send(record(END, 1, &[0; 8], 0)).await
    }

    /// A whole answer: head, body, end.
    pub async fn reply(&mut self, answer: &str) {
        self.stdout(answer).await;
        self.end().await;
    }

    /// Waits until the gateway closes.
    pub async fn closed(&mut self) {
        let mut nothing = [0; 1024];
        while matches!(self.stream.read(&mut nothing).await, Ok(count) if count > 0) {}
    }
}

/// One record.
pub fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("at most 65535 bytes in a record").to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], padding, 0];
    bytes.extend(content);
    bytes.extend(std::iter::repeat_n(0, usize::from(padding)));
    bytes
}

/// Name-value pairs of one PARAMS record.
fn pairs(record: &[u8]) -> Vec<(String, String)> {
    let position = Rc::new(Cell::new(0));
    let length = || {
        let at = position.get();
        let first = record[at];
        if first < 128 {
            position.set(at + 1);
            return usize::from(first);
        }
        position.set(at + 4);
        let long = u32::from_be_bytes([first & 0x7f, record[at + 1], record[at + 2], record[at + 3]]);
        usize::try_from(long).expect("a length")
    };
    let take = |count: usize| {
        let at = position.get();
        position.set(at + count);
        String::from_utf8_lossy(&record[at..at + count]).into_owned()
    };
    let mut pairs = Vec::new();
    while position.get() < record.len() {
        let (name, value) = (length(), length());
        pairs.push((take(name), take(value)));
    }
    pairs
}
