//! A real Redis in a directory of its own.

use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, temp_dir};

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    _process: Process,
    _dir: TempDir,
    port: u16,
}

/// Starts it without persistence.
pub async fn redis() -> Redis {
    let dir = temp_dir("redis");
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(dir.path());
    let process = Process::start("redis-server", &command, &dir.path().join("redis.out"), None, Signal::KILL);
    let redis = Redis { _process: process, _dir: dir, port };
    eventually("Redis answers", || async { (redis.command(&["PING"]).trim() == "PONG").then_some(()) }).await;
    redis
}

impl Redis {
    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs one command by `redis-cli` and gives what it prints.
    pub fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-p").arg(self.port.to_string()).args(words).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned()
    }
}
