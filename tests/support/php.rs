//! A real PHP-FPM pool on a unix socket of its own, running the scripts of `tests/php`.
//!
//! The scripts are copied, so that a test may add files to the root. The pool is static: as many
//! workers as the test says, so that "all are busy" means something.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{self, Process};
use super::{copy_tree, eventually, repository, temp_dir};

/// A pool to be: `php().children(2).start().await`.
pub fn php() -> Builder {
    Builder { children: 4, root: None, ini: String::new(), global: String::new() }
}

#[derive(Debug)]
pub struct Builder {
    children: u32,
    root: Option<PathBuf>,
    ini: String,
    global: String,
}

impl Builder {
    /// How many PHP processes there are (`pm.max_children`, static).
    pub fn children(mut self, count: u32) -> Self {
        self.children = count;
        self
    }

    /// An application of its own instead of a copy of `tests/php`.
    pub fn root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// One ini setting (`php_admin_value[name] = value`).
    pub fn ini(mut self, name: &str, value: &str) -> Self {
        self.ini.push_str(&format!("php_admin_value[{name}] = {value}\n"));
        self
    }

    /// One line of the `[global]` section.
    pub fn global(mut self, line: &str) -> Self {
        self.global.push_str(line);
        self.global.push('\n');
        self
    }

    /// Starts it and waits until it accepts.
    pub async fn start(self) -> Php {
        let dir = temp_dir("php");
        let root = self.root.unwrap_or_else(|| {
            let root = dir.path().join("root");
            std::fs::create_dir(&root).expect("the root");
            copy_tree(&repository("tests/php"), &root);
            root
        });
        let socket = dir.path().join("fpm.sock");
        let log = dir.path().join("fpm.log");
        let conf = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n{global}\n\
             [www]\n{user}listen = {socket}\nlisten.mode = 0666\npm = static\npm.max_children = {children}\n\
             pm.status_path = /fpm-status\ncatch_workers_output = yes\nclear_env = yes\n\
             php_value[session.save_path] = {dir}\nphp_admin_value[upload_tmp_dir] = {dir}\n{ini}\n",
            log = log.display(),
            global = self.global,
            user = if rustix::process::getuid().is_root() { "user = root\ngroup = root\n" } else { "" },
            socket = socket.display(),
            children = self.children,
            dir = dir.path().display(),
            ini = self.ini,
        );
        std::fs::write(dir.path().join("fpm.conf"), conf).expect("the pool's file");
        let mut php = Php { dir, root, socket, children: self.children, process: None };
        php.launch().await;
        php
    }
}

/// A running pool.
#[derive(Debug)]
pub struct Php {
    // Before the directory, so that the process ends before its files go.
    process: Option<Process>,
    dir: TempDir,
    root: PathBuf,
    socket: PathBuf,
    children: u32,
}

impl Php {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The document root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory it shares with nobody, outside the root.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a file under the root.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.root.join(path);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("its directory");
        std::fs::write(&file, content).expect("the file");
        file
    }

    /// `[upstream.php]` for routes.toml; `extra` are further lines of it.
    pub fn upstream(&self, extra: &str) -> String {
        self.upstream_with_connections(self.children, extra)
    }

    /// The same, using no more than `connections` of its processes.
    pub fn upstream_with_connections(&self, connections: u32, extra: &str) -> String {
        format!(
            "[upstream.php]\nfastcgi = \"unix:{}\"\nroot = \"{}\"\nconnections = {connections}\n{extra}\n",
            self.socket.display(),
            self.root.display(),
        )
    }

    /// What the master and PHP itself have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("fpm.log")).unwrap_or_default()
    }

    /// The PHP processes living now.
    pub fn workers(&self) -> Vec<u32> {
        self.process.as_ref().map(|master| process::children(master.pid())).unwrap_or_default()
    }

    /// Kills one PHP process at once, as the kernel does when memory runs out.
    pub fn kill_worker(&self, pid: u32) {
        assert!(self.workers().contains(&pid), "{pid} is no process of this pool");
        process::send(pid, Signal::KILL);
    }

    /// Stops the whole pool at once: requests in flight are cut, the socket's file stays.
    pub async fn stop(&mut self) {
        if let Some(mut master) = self.process.take() {
            master.signal(Signal::TERM);
            master.end(Duration::from_secs(10)).await;
        }
    }

    /// Kills master and workers, which leaves a socket file that refuses.
    pub async fn crash(&mut self) {
        if let Some(mut master) = self.process.take() {
            let workers = process::children(master.pid());
            master.signal(Signal::KILL);
            for worker in &workers {
                process::send(*worker, Signal::KILL);
            }
            master.end(Duration::from_secs(10)).await;
            // Each of them holds the socket: it refuses once the last one is gone.
            eventually("the socket refuses", || async {
                std::os::unix::net::UnixStream::connect(&self.socket).is_err().then_some(())
            })
            .await;
        }
    }

    /// Starts it again after `stop` or `crash`.
    pub async fn launch(&mut self) {
        let mut command = Command::new("php-fpm8.2");
        command.arg("--nodaemonize").arg("--allow-to-run-as-root");
        command.arg("--fpm-config").arg(self.dir.path().join("fpm.conf"));
        let output = self.dir.path().join("fpm.out");
        self.process = Some(Process::start("php-fpm", &command, &output, None, Signal::TERM));
        let socket = &self.socket;
        eventually("php-fpm listens", || async { std::os::unix::net::UnixStream::connect(socket).ok() }).await;
        let master = self.process.as_ref().expect("just started").pid();
        let wanted = usize::try_from(self.children).expect("a small number");
        eventually("all PHP processes run", || async { (process::children(master).len() >= wanted).then_some(()) })
            .await;
    }

    /// Stops and starts it, as `systemctl restart` does.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.launch().await;
    }

    /// Asks for a graceful reload (SIGUSR2) and waits until all processes are new ones.
    pub async fn reload(&self) {
        let before = self.workers();
        self.process.as_ref().expect("it runs").signal(Signal::USR2);
        let wanted = usize::try_from(self.children).expect("a small number");
        eventually("php-fpm has reloaded", || async {
            let now = self.workers();
            (now.len() >= wanted && now.iter().all(|pid| !before.contains(pid))).then_some(())
        })
        .await;
    }

    /// Takes the socket's file away while the pool goes on listening on what nobody can reach any more.
    pub fn delete_socket(&self) {
        std::fs::remove_file(&self.socket).expect("the socket's file");
    }
}
