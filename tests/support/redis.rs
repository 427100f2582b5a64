//! A real Redis in a directory of its own.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{eventually, eventually_within, free_port, temp_dir};

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    _dir: TempDir,
    port: u16,
}

/// Starts it without persistence.
pub async fn redis() -> Redis {
    redis_with(&[]).await
}

/// The same with further settings.
pub async fn redis_with(settings: &[&str]) -> Redis {
    let dir = temp_dir("redis");
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(dir.path()).args(settings);
    let process = Process::start("redis-server", &command, &dir.path().join("redis.out"), None, Signal::KILL);
    let redis = Redis { process, _dir: dir, port };
    redis.until_it_answers().await;
    redis
}

/// Starts a Sentinel that watches a Redis under the name `shop` and decides alone.
async fn sentinel(of: &Redis) -> Redis {
    let dir = temp_dir("sentinel");
    let port = free_port();
    let conf = dir.path().join("sentinel.conf");
    let settings = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 300\n\
         sentinel failover-timeout shop 3000\n",
        dir.path().display(),
        of.port
    );
    std::fs::write(&conf, settings).expect("its settings");
    let mut command = Command::new("redis-server");
    command.arg(&conf).arg("--sentinel");
    let process = Process::start("sentinel", &command, &dir.path().join("sentinel.out"), None, Signal::KILL);
    let sentinel = Redis { process, _dir: dir, port };
    sentinel.until_it_answers().await;
    sentinel
}

/// A primary, its replica, and a Sentinel that knows both.
#[derive(Debug)]
pub struct Replicated {
    pub primary: Redis,
    pub replica: Redis,
    sentinel: Redis,
}

/// Starts all three.
pub async fn replicated() -> Replicated {
    let primary = redis().await;
    let replica = redis_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]).await;
    let sentinel = sentinel(&primary).await;
    eventually_within(Duration::from_secs(20), "the replica is known", async || {
        let replicas = sentinel.command(&["SENTINEL", "REPLICAS", "shop"]);
        let connected = replica.command(&["ROLE"]).contains("connected");
        (connected && replicas.contains(&replica.port().to_string())).then_some(())
    })
    .await;
    Replicated { primary, replica, sentinel }
}

impl Replicated {
    /// As a store is named.
    pub fn url(&self) -> String {
        format!("redis-sentinel://{}/shop", self.sentinel.address())
    }

    /// Kills the primary and waits until the replica has taken its place; gives what is left.
    pub async fn fail_over(self) -> (Redis, Redis) {
        let Self { primary, replica, sentinel } = self;
        drop(primary);
        eventually_within(Duration::from_secs(10), "another primary", async || {
            let named = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"]);
            let promoted = replica.command(&["ROLE"]).contains("master");
            (promoted && named.contains(&replica.port().to_string())).then_some(())
        })
        .await;
        (replica, sentinel)
    }
}

impl Redis {
    async fn until_it_answers(&self) {
        eventually("Redis answers", || async { (self.command(&["PING"]).trim() == "PONG").then_some(()) }).await;
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it where it is, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How often this command was run.
    pub fn calls(&self, command: &str) -> usize {
        let told = self.command(&["INFO", "commandstats"]);
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// Runs one command by `redis-cli` and gives what it prints.
    pub fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-p").arg(self.port.to_string()).args(words).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned()
    }
}
