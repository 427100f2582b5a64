//! What the tests stand on: real servers started privately, scripted ones for what real ones never
//! do, clients, and waiting without luck.
//!
//! Every server lives in its own temporary directory, listens on a unix socket or a port the system
//! chose, and ends with its value; should the test process die first, the kernel ends it.
//! Nothing here asserts about the gateway: that is the suites' work.

pub mod browser;
pub mod client;
pub mod eventually;
pub mod fcgi;
pub mod gateway;
pub mod mariadb;
pub mod metrics;
pub mod nginx;
pub mod php;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod shop;
pub mod site;
pub mod terminal;
pub mod upstream;
pub mod wordpress;

use std::path::{Path, PathBuf};

pub use self::eventually::{eventually, eventually_within};
pub use self::fcgi::fcgi;
pub use self::gateway::gateway;
pub use self::nginx::nginx;
pub use self::php::php;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A directory of its own for one server, named so that a leftover tells whose it was.
pub fn temp_dir(owner: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(&format!("it-{owner}-")).tempdir().expect("a temporary directory")
}

/// Copies a tree, following symbolic links, so that nothing in the copy leads out of it.
pub fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-rL").arg(from.join(".")).arg(to).status().expect("cp runs");
    // `cp -L` reports links that lead nowhere and copies the rest, which is what is wanted here.
    assert!(status.code().is_some(), "cp was killed");
}

/// A port nobody listens on at this moment, for servers that cannot be told to choose one themselves.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// `length` bytes that follow no short pattern, the same for the same `seed`.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}
