//! A local PHP-FPM pool, found out by looking, not by being told: how many processes it may have, what they cost.
//!
//! The socket's peer is the master process (it made the socket), its command line names the
//! configuration, the configuration holds the pool's name and `pm.max_children`; its children carry that
//! name in their titles. Best effort in every step: any doubt is `None`, and all that comes of it is a
//! warning or a figure that is missing. Reads files and /proc; sends the pool nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::Address;

/// A configuration is pages, not books.
const LARGEST: u64 = 1 << 20;
/// Files taken in by `include`: a bound against patterns that match everything.
const MOST_FILES: usize = 256;

/// `pm.max_children` of the pool that listens there; `None`: it cannot be said.
pub(crate) fn max_children(address: &Address) -> Option<usize> {
    let Address::Unix(socket) = address else { return None };
    configured(master_of(socket)?, socket)?.children
}

/// A pool as its configuration has it.
#[derive(Debug, PartialEq, Eq)]
struct Configured {
    name: String,
    children: Option<usize>,
}

/// What the configuration of a master process says of the pool that listens there.
fn configured(master: i32, socket: &Path) -> Option<Configured> {
    let command_line = std::fs::read(format!("/proc/{master}/cmdline")).ok()?;
    let config = config_of(&String::from_utf8_lossy(&command_line))?;
    let mut files = BTreeSet::new();
    let lines = lines_of(&config, &mut files);
    pool_of(&lines, socket)
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
    let is_page = std::fs::metadata(config).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    let Some(text) = is_page.then(|| std::fs::read_to_string(config).ok()).flatten() else { return Vec::new() };
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

/// The pool whose `listen` is this socket.
fn pool_of(lines: &[String], socket: &Path) -> Option<Configured> {
    let (mut listens_here, mut pool) = (false, Configured { name: String::new(), children: None });
    for line in lines {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|line| line.split(']').next()) {
            if listens_here {
                return Some(pool);
            }
            pool = Configured { name: name.to_owned(), children: None };
        }
        match setting(line) {
            Some(("listen", path)) => listens_here = same_file(Path::new(path), socket),
            Some(("pm.max_children", number)) => pool.children = number.parse().ok(),
            _ => {}
        }
    }
    listens_here.then_some(pool)
}

/// What the processes of one pool cost, followed from one look to the next.
#[derive(Debug)]
pub(crate) struct Processes {
    socket: PathBuf,
    pool: Option<Pool>,
    /// CPU time seen so far, of processes that are gone as well.
    cpu: Duration,
}

/// The pool that was found behind the socket.
#[derive(Debug)]
struct Pool {
    master: i32,
    /// When the master was started: another process may get its number.
    born: u64,
    /// How its processes are titled.
    title: String,
    /// The CPU time of each process at the last look, and the time it was started.
    known: BTreeMap<i32, (u64, Duration)>,
    /// That of the master's processes that have ended.
    reaped: Duration,
}

/// What the processes of a pool cost at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// CPU time since the first look.
    pub(crate) cpu: Duration,
    /// Resident memory; what its processes share counts once.
    pub(crate) memory: u64,
}

impl Processes {
    /// Of the pool that listens there; `None` if it is on another machine.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        let Address::Unix(socket) = address else { return None };
        Some(Self { socket: socket.clone(), pool: None, cpu: Duration::ZERO })
    }

    /// Whether it is the pool that listens there.
    pub(crate) fn is_of(&self, address: &Address) -> bool {
        matches!(address, Address::Unix(socket) if *socket == self.socket)
    }

    /// Looks at the processes as they are now.
    pub(crate) fn look(&mut self) -> Option<Cost> {
        let alive =
            self.pool.as_ref().is_some_and(|pool| Stat::of(pool.master).is_some_and(|stat| stat.born == pool.born));
        if !alive {
            self.pool = Pool::find(&self.socket);
        }
        let (spent, memory) = self.pool.as_mut()?.look()?;
        self.cpu += spent;
        Some(Cost { cpu: self.cpu, memory })
    }
}

impl Pool {
    fn find(socket: &Path) -> Option<Self> {
        let master = master_of(socket)?;
        let Stat { born, reaped, .. } = Stat::of(master)?;
        let title = format!("php-fpm: pool {}", configured(master, socket)?.name);
        let mut pool = Self { master, born, title, known: BTreeMap::new(), reaped };
        // What was spent before the first look is not counted.
        pool.look()?;
        Some(pool)
    }

    /// The CPU time spent since the last look, and the memory now.
    fn look(&mut self) -> Option<(Duration, u64)> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.master)).ok()?;
        let reaped = Stat::of(self.master)?.reaped;
        let (mut spent, mut own, mut shared, mut strangers) = (Duration::ZERO, 0, 0, false);
        let mut known = BTreeMap::new();
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
            let title = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&title).trim_end_matches(['\0', ' ']) != self.title {
                strangers = true;
                continue;
            }
            // It may have ended meanwhile.
            let (Some(stat), Some(memory)) = (Stat::of(child), Memory::of(child)) else { continue };
            let before = self.known.remove(&child).filter(|(born, _)| *born == stat.born);
            spent += stat.cpu.saturating_sub(before.map_or(Duration::ZERO, |(_, cpu)| cpu));
            own += memory.own;
            shared = memory.shared.max(shared);
            known.insert(child, (stat.born, stat.cpu));
        }
        // What those that ended had spent since the last look is told by the master, of all its pools at once.
        if !strangers {
            let seen: Duration = self.known.values().map(|(_, cpu)| *cpu).sum();
            spent += reaped.saturating_sub(self.reaped).saturating_sub(seen);
        }
        (self.known, self.reaped) = (known, reaped);
        Some((spent, own + shared))
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug)]
struct Stat {
    cpu: Duration,
    reaped: Duration,
    born: u64,
}

impl Stat {
    fn of(process: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command, which may hold anything, ends at the last parenthesis; the third field follows it.
        let fields: Vec<u64> =
            stat.rsplit_once(") ")?.1.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect();
        // Clock ticks are a hundred a second: part of Linux' interface on every machine we run on.
        let time = |of: [usize; 2]| {
            let ticks = of.iter().map(|at| fields.get(at - 3).copied()).sum::<Option<u64>>()?;
            Some(Duration::from_millis(ticks.saturating_mul(10)))
        };
        Some(Self { cpu: time([14, 15])?, reaped: time([16, 17])?, born: *fields.get(22 - 3)? })
    }
}

/// The resident memory of a process, in bytes.
#[derive(Debug)]
struct Memory {
    own: u64,
    /// Files and what PHP's opcode cache keeps.
    shared: u64,
}

impl Memory {
    fn of(process: i32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
        };
        Some(Self { own: of("RssAnon:")?, shared: of("RssFile:")? + of("RssShmem:")? })
    }
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
        let pool = |name: &str, children| Some(Configured { name: name.to_owned(), children: Some(children) });
        assert_eq!(pool_of(&lines, Path::new("/run/a.sock")), pool("a", 5));
        assert_eq!(pool_of(&lines, Path::new("/run/b.sock")), pool("b", 7));
        assert_eq!(pool_of(&lines, Path::new("/run/c.sock")), None);
    }

    #[test]
    fn a_configuration_that_includes_itself_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("php-fpm.conf");
        std::fs::write(&main, "include=*.conf\n[www]\nlisten = /run/w.sock\npm.max_children = 3\n").unwrap();
        assert_eq!(
            pool_of(&lines_of(&main, &mut BTreeSet::new()), Path::new("/run/w.sock")).unwrap().children,
            Some(3)
        );
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
        let text = "[global]\nerror_log = ERROR\n[other]\nlisten = OTHER\npm = static\npm.max_children = 1\n\
                    [www]\nlisten = SOCKET\npm = static\npm.max_children = 6\n";
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
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut found = None;
        while found.is_none() && std::time::Instant::now() < deadline {
            found = max_children(&Address::Unix(socket.clone()));
            std::thread::yield_now();
        }
        let mut processes = Processes::of(&Address::Unix(socket)).unwrap();
        let mut cost = None;
        while cost.is_none_or(|cost: Cost| cost.memory == 0) && std::time::Instant::now() < deadline {
            cost = processes.look();
        }
        let known = processes.pool.as_ref().unwrap().known.len();
        // TERM, not KILL: a master that is killed leaves its children behind.
        let pid = rustix::process::Pid::from_child(&fpm);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        fpm.wait().unwrap();
        assert_eq!(found, Some(6));
        let cost = cost.unwrap();
        assert!((1..=6).contains(&known) && (1 << 20..1 << 30).contains(&cost.memory), "{known} {cost:?}");
        assert!(cost.cpu < Duration::from_secs(10), "{cost:?}");
        assert_eq!(processes.look(), None, "the pool is gone");
    }

    #[test]
    fn what_a_process_spends_is_told_and_a_child_that_ended_is_charged_to_its_master() {
        let before = Stat::of(std::process::id().cast_signed()).unwrap();
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        std::process::Command::new("sh").args(["-c", burn]).status().unwrap();
        let after = Stat::of(std::process::id().cast_signed()).unwrap();
        assert!(after.reaped > before.reaped && after.born == before.born, "{before:?} {after:?}");
        assert!(Memory::of(std::process::id().cast_signed()).unwrap().own > 1 << 20);
    }
}
