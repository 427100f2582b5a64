//! How many processes a local PHP-FPM pool may have, found out by looking, not by being told.
//!
//! The socket's peer is the master process (it made the socket), its command line names the
//! configuration, the configuration holds `pm.max_children`. Best effort in every step: any doubt is
//! `None`, and all that comes of it is a warning. Reads files and /proc; sends the pool nothing.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::source;
use crate::upstream::fastcgi::Address;

/// A configuration is pages, not books.
const LARGEST: u64 = 1 << 20;
/// Files taken in by `include`: a bound against patterns that match everything.
const MOST_FILES: usize = 256;

/// `pm.max_children` of the pool that listens there; `None`: it cannot be said.
pub(super) fn max_children(address: &Address) -> Option<usize> {
    let Address::Unix(socket) = address else { return None };
    let master = master_of(socket)?;
    let command_line = std::fs::read(format!("/proc/{master}/cmdline")).ok()?;
    let config = config_of(&String::from_utf8_lossy(&command_line))?;
    let mut files = BTreeSet::new();
    let lines = lines_of(&config, &mut files);
    children_of(&lines, socket)
}

/// The process that listens on a socket.
fn master_of(socket: &Path) -> Option<i32> {
    // NONBLOCK: a pool whose backlog is full would have us wait.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let connection: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&connection, &SocketAddrUnix::new(socket).ok()?).ok()?;
    let peer = sockopt::socket_peercred(&connection).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// The configuration that a master process names: in its title, or in its arguments.
fn config_of(command_line: &str) -> Option<PathBuf> {
    let title = command_line.trim_end_matches(['\0', ' ']);
    if let Some((_, rest)) = title.split_once("master process (") {
        return rest.strip_suffix(')').map(PathBuf::from);
    }
    let mut arguments = command_line.split('\0');
    while let Some(argument) = arguments.next() {
        if matches!(argument, "-y" | "--fpm-config") {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.strip_prefix("--fpm-config=") {
            return Some(PathBuf::from(path));
        }
    }
    None
}

/// The lines of a configuration and of those that it includes, in order.
fn lines_of(config: &Path, files: &mut BTreeSet<PathBuf>) -> Vec<String> {
    if files.len() >= MOST_FILES || !files.insert(config.to_owned()) {
        return Vec::new();
    }
    let Ok(text) = source::read(config, LARGEST) else { return Vec::new() };
    let mut lines = Vec::new();
    for line in text.lines() {
        match setting(line) {
            Some(("include", pattern)) => {
                for path in matching(&config.with_file_name(pattern)) {
                    lines.extend(lines_of(&path, files));
                }
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// The files that `folder/*.conf` or a plain path means, in order.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let Some((head, tail)) = pattern.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('*'))
    else {
        return vec![pattern.to_owned()];
    };
    let Some(Ok(folder)) = pattern.parent().map(std::fs::read_dir) else { return Vec::new() };
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail))
    };
    let mut found: Vec<_> = folder.flatten().map(|entry| entry.path()).filter(fits).take(MOST_FILES).collect();
    found.sort();
    found
}

/// `pm.max_children` of the pool whose `listen` is this socket.
fn children_of(lines: &[String], socket: &Path) -> Option<usize> {
    let (mut listens_here, mut children) = (false, None);
    for line in lines {
        if line.trim_start().starts_with('[') {
            if listens_here && children.is_some() {
                return children;
            }
            (listens_here, children) = (false, None);
        }
        match setting(line) {
            Some(("listen", path)) => listens_here = same_file(Path::new(path), socket),
            Some(("pm.max_children", number)) => children = number.parse().ok(),
            _ => {}
        }
    }
    children.filter(|_| listens_here)
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// `key = value` of one line, without comment and quotes.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.split(';').next().unwrap_or_default();
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim().trim_matches(['"', '\''])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_found_in_the_title_or_in_the_arguments() {
        let title = "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\0\0\0";
        assert_eq!(config_of(title), Some(PathBuf::from("/etc/php/8.2/fpm/php-fpm.conf")));
        assert_eq!(config_of("php-fpm8.2\0-F\0-y\0/tmp/fpm.conf\0"), Some(PathBuf::from("/tmp/fpm.conf")));
        assert_eq!(config_of("php-fpm8.2\0--fpm-config=/tmp/fpm.conf\0"), Some(PathBuf::from("/tmp/fpm.conf")));
        assert_eq!(config_of("nginx: worker process\0"), None);
    }

    #[test]
    fn the_number_is_that_of_the_pool_that_listens_there() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("php-fpm.conf");
        std::fs::create_dir(folder.path().join("pool.d")).unwrap();
        std::fs::write(&main, format!("[global]\ninclude={}/pool.d/*.conf\n", folder.path().display())).unwrap();
        let pool = |name: &str, children: u32| {
            format!(
                "[{name}]\n; pm.max_children = 99\nlisten = /run/{name}.sock ; here\npm.max_children = {children}\n"
            )
        };
        std::fs::write(folder.path().join("pool.d/a.conf"), pool("a", 5)).unwrap();
        std::fs::write(folder.path().join("pool.d/b.conf"), pool("b", 7)).unwrap();
        std::fs::write(folder.path().join("pool.d/c.conf.bak"), pool("b", 9)).unwrap();

        let lines = lines_of(&main, &mut BTreeSet::new());
        assert_eq!(children_of(&lines, Path::new("/run/a.sock")), Some(5));
        assert_eq!(children_of(&lines, Path::new("/run/b.sock")), Some(7));
        assert_eq!(children_of(&lines, Path::new("/run/c.sock")), None);
    }

    #[test]
    fn a_configuration_that_includes_itself_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("php-fpm.conf");
        std::fs::write(&main, "include=*.conf\n[www]\nlisten = /run/w.sock\npm.max_children = 3\n").unwrap();
        assert_eq!(children_of(&lines_of(&main, &mut BTreeSet::new()), Path::new("/run/w.sock")), Some(3));
    }

    #[test]
    fn a_socket_that_is_not_php_fpm_gives_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(master_of(&path), i32::try_from(std::process::id()).ok());
        assert_eq!(max_children(&Address::Unix(path)), None);
        assert_eq!(max_children(&Address::Unix(folder.path().join("absent"))), None);
    }

    #[test]
    fn a_running_pool_is_asked_by_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let (config, socket) = (folder.path().join("fpm.conf"), folder.path().join("fpm.sock"));
        let text = "[global]\nerror_log = ERROR\n[other]\nlisten = OTHER\npm = ondemand\npm.max_children = 1\n\
                    [www]\nlisten = SOCKET\npm = ondemand\npm.max_children = 6\n";
        let other = folder.path().join("other.sock");
        let places = [("ERROR", folder.path().join("log")), ("OTHER", other), ("SOCKET", socket.clone())];
        let text = places.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, path.to_str().unwrap()));
        std::fs::write(&config, text).unwrap();
        let mut fpm = std::process::Command::new("setpriv")
            // Should this test be killed, it goes as well. As root it refuses to serve without -R.
            .args(["--pdeathsig", "TERM", "--", "php-fpm8.2", "-n", "-F", "-R", "-y"])
            .arg(&config)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut found = None;
        while found.is_none() && std::time::Instant::now() < deadline {
            found = max_children(&Address::Unix(socket.clone()));
            std::thread::yield_now();
        }
        // TERM, not KILL: a master that is killed leaves its children behind.
        let pid = rustix::process::Pid::from_child(&fpm);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        fpm.wait().unwrap();
        assert_eq!(found, Some(6));
    }
}
