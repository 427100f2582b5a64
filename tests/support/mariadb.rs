//! A real MariaDB in a directory of its own: a unix socket and a port the system chose.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, temp_dir};

/// A running MariaDB.
#[derive(Debug)]
pub struct Mariadb {
    process: Process,
    _dir: TempDir,
    socket: PathBuf,
    port: u16,
}

/// Creates the system tables and starts it; root has no password.
pub async fn mariadb() -> Mariadb {
    mariadb_with(&[]).await
}

/// The same with further settings.
pub async fn mariadb_with(settings: &[String]) -> Mariadb {
    let dir = temp_dir("mariadb");
    let data = dir.path().join("data");
    let made = Command::new("mariadb-install-db")
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
        .output()
        .expect("mariadb-install-db runs");
    assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
    let (socket, port) = (dir.path().join("db.sock"), free_port());
    let mut command = Command::new("mariadbd");
    command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--port={port}"))
        .arg(format!("--pid-file={}", dir.path().join("db.pid").display()))
        .args(["--bind-address=127.0.0.1", "--user=root", "--innodb-flush-log-at-trx-commit=0"])
        .args(["--innodb-buffer-pool-size=32M", "--performance-schema=OFF", "--skip-name-resolve"])
        .args(settings);
    let process = Process::start("mariadbd", &command, &dir.path().join("db.out"), None, Signal::KILL);
    let database = Mariadb { process, _dir: dir, socket, port };
    eventually("MariaDB answers", || async { database.try_sql("select 1").ok() }).await;
    database
}

impl Mariadb {
    /// Its unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it where it is, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Runs statements and gives what they print.
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).expect("the statements run")
    }

    fn try_sql(&self, statements: &str) -> Result<String, String> {
        let socket = format!("--socket={}", self.socket.display());
        let output = Command::new("mariadb")
            .args(["--no-defaults", &socket, "--user=root", "--batch", "--skip-column-names", "-e", statements])
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
