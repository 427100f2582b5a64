//! A php-fpm that the gateway starts and looks after itself (`spawn = { children = 8 }`).
//!
//! For development and containers, where nobody else runs one. It lives on the control plane: no request
//! passes here, workers only meet the socket it listens on. The gateway does not start php-fpm directly
//! but through a small shell that holds a pipe from the gateway: when the gateway dies, however it dies,
//! the pipe ends and the shell ends php-fpm with all its children, so that no orphan keeps the socket.
//! It does not tune PHP: `php.ini` stays what the system says.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::{Address, Settings};

/// The shell between the gateway and php-fpm.
///
/// A line on the pipe asks php-fpm to finish its requests and end. The end of the pipe gives it two seconds.
/// php-fpm's children survive a master that was killed, and would go on answering on the socket without
/// anyone to look after them. All of them are in the process group that the master leads (`-$php`), as
/// the shells are in one of theirs (`0`): so everything goes when the master goes. The last words come from a
/// shell of their own, because writing them is deadly when the gateway is gone. Status 0 is that of a php-fpm
/// which was asked to end: no news.
const WRAPPER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
php=$!
(
    while read -r _ <&3; do kill -QUIT "$php"; done
    kill -TERM "$php"
    sleep 2
    kill -KILL "-$php"
    kill -KILL 0
) 2>/dev/null &
wait "$php"
status=$?
kill -KILL "-$php" 2>/dev/null
case $status in 0) level=NOTICE ;; *) level=ERROR ;; esac
(echo "$level: php-fpm ended with status $status" >&2)
kill -KILL 0
"#;

/// How long a new php-fpm may take until it listens.
const START: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const START_POLL: Duration = Duration::from_millis(20);
/// How long its requests may take to finish when it is asked to end.
const FINISH: Duration = Duration::from_secs(10);
/// The pause before it is started again: doubled each time, forgotten once it has run steadily.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const STEADY: Duration = Duration::from_secs(10);
/// A request may run this long at least; one that is still at it holds a process for nothing.
const LONGEST_REQUEST: Duration = Duration::from_secs(600);
/// Bytes of a line of output that are kept, and lines kept to explain a failed start.
const LINE: usize = 8 << 10;
const LINES: usize = 5;

/// Why there is no php-fpm.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// There is no such program.
    #[error(
        "php-fpm is not installed (looked in PATH and /usr/sbin); install it, for instance with `apt install php-fpm`"
    )]
    NotInstalled,
    /// PHP must not run as root.
    #[error(
        "PHP does not run as root: give {root} to the user that PHP shall run as, create the user www-data, \
         or start the gateway as another user"
    )]
    NoUser { root: PathBuf },
    /// The system's limit.
    #[error("{path} is too long for a unix socket's name (107 bytes at most)")]
    SocketName { path: PathBuf },
    /// Whoever reaches php-fpm's port can run code.
    #[error("php-fpm is started on a unix socket or a loopback address only, not on {address}")]
    Exposed { address: String },
    /// Quotes and dollar signs mean something in php-fpm's configuration.
    #[error("php-fpm's configuration cannot hold {value:?}; use a name without quotes, dollar signs and backslashes")]
    Unquotable { value: String },
    /// The socket is taken.
    #[error("something else listens on {address} already; end it, or leave out `spawn` to use it")]
    InUse { address: String },
    /// The configuration could not be written.
    #[error("cannot prepare a directory for php-fpm")]
    Prepare(#[source] io::Error),
    /// The program could not be run.
    #[error("cannot run {binary}")]
    Run {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("php-fpm ended while it started; it said: {said}")]
    Ended { said: String },
    /// It does not listen.
    #[error("php-fpm did not listen on {address} within {waited:?}; it said: {said}")]
    Late { address: String, waited: Duration, said: String },
}

/// A php-fpm that runs, and is started again whenever it ends. Dropping it ends php-fpm without grace.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// All that decides what php-fpm was started as.
    configuration: String,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl Spawned {
    /// Starts php-fpm for an upstream; returns when its socket accepts connections.
    pub(crate) async fn start(upstream: &str, settings: &Settings) -> Result<Self, SpawnError> {
        let configuration = planned(upstream, settings)?;
        let recipe = Recipe::new(upstream, &configuration, settings)?;
        if accepts(&recipe.address).await {
            return Err(SpawnError::InUse { address: written(&recipe.address) });
        }
        let running = recipe.run().await?;
        tracing::info!(upstream, binary = %recipe.binary.display(), "php-fpm started");
        let (stop, stopped) = oneshot::channel();
        Ok(Self { configuration, stop, supervisor: spawn_local(supervise(recipe, running, stopped)) })
    }

    /// Whether one started for these settings would be no other than this one.
    ///
    /// # Errors
    /// None could be started for them.
    pub(crate) fn suits(&self, upstream: &str, settings: &Settings) -> Result<bool, SpawnError> {
        Ok(self.configuration == planned(upstream, settings)?)
    }

    /// Lets php-fpm finish its requests, then ends it; returns when it is gone.
    pub(crate) async fn stop(self) {
        // An error means that the supervisor has ended already, and php-fpm with it.
        let _ = self.stop.send(());
        drop(self.supervisor.await);
    }
}

/// Runs until it is told to stop, or nobody is left to tell it.
async fn supervise(recipe: Recipe, mut running: Running, mut stop: oneshot::Receiver<()>) {
    let upstream = recipe.upstream.as_str();
    let mut pause = FIRST_PAUSE;
    loop {
        let since = Instant::now();
        tokio::select! {
            told = &mut stop => return if told.is_ok() { running.finish().await },
            _ = running.shell.wait() => {}
        }
        // Ends the pipe, so that nothing is left of a php-fpm whose shell alone was killed.
        drop(running);
        if since.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        running = loop {
            tracing::error!(upstream, ?pause, "php-fpm ended; starting it again after a pause");
            let again = async {
                sleep(pause).await;
                recipe.run().await
            };
            let started = tokio::select! {
                _ = &mut stop => return,
                started = again => started,
            };
            pause = (pause * 2).min(LONGEST_PAUSE);
            match started {
                Ok(running) => break running,
                Err(error) => {
                    tracing::error!(upstream, error = &error as &dyn std::error::Error, "php-fpm did not start");
                }
            }
        };
    }
}

/// What it takes to start php-fpm, as often as needed.
struct Recipe {
    upstream: String,
    address: Address,
    binary: PathBuf,
    /// Holds the configuration.
    directory: TempDir,
}

impl Recipe {
    fn new(upstream: &str, configuration: &str, settings: &Settings) -> Result<Self, SpawnError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(BINARY_DIRECTORIES.iter().map(PathBuf::from));
        let binary = find_binary(directories).ok_or(SpawnError::NotInstalled)?;
        let directory = tempfile::Builder::new().prefix("strangler-fpm-").tempdir().map_err(SpawnError::Prepare)?;
        fs::write(directory.path().join(CONFIGURATION), configuration).map_err(SpawnError::Prepare)?;
        if let Address::Unix(socket) = &settings.address
            && let Some(parent) = socket.parent()
        {
            // /run/php, say, is there only after the system's own php-fpm has been started once.
            fs::create_dir_all(parent).map_err(SpawnError::Prepare)?;
        }
        Ok(Self { upstream: upstream.to_owned(), address: settings.address.clone(), binary, directory })
    }

    /// Starts it once and waits until it listens.
    async fn run(&self) -> Result<Running, SpawnError> {
        let failed = |source| SpawnError::Run { binary: self.binary.clone(), source };
        let mut shell = self.command().spawn().map_err(failed)?;
        let said = Rc::new(RefCell::new(VecDeque::with_capacity(LINES)));
        let output = shell
            .stderr
            .take()
            .map(|output| spawn_local(forward(BufReader::new(output), self.upstream.clone(), Rc::clone(&said))));
        let mut running = Running { pipe: shell.stdin.take(), shell };
        let since = Instant::now();
        while since.elapsed() < START {
            tokio::select! {
                _ = running.shell.wait() => {
                    if let Some(output) = output {
                        // What it said last is why it ended.
                        drop(timeout(START_POLL * 10, output).await);
                    }
                    return Err(SpawnError::Ended { said: joined(&said) });
                }
                () = sleep(START_POLL) => {}
            }
            if accepts(&self.address).await {
                return Ok(running);
            }
        }
        Err(SpawnError::Late { address: written(&self.address), waited: START, said: joined(&said) })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", WRAPPER, "sh"])
            .arg(&self.binary)
            .args(["--nodaemonize", "--fpm-config"])
            .arg(self.directory.path().join(CONFIGURATION))
            // Addressed to the gateway, not to php-fpm: it would tell systemd that the gateway is ready, or
            // take the gateway's sockets for its own.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("FPM_SOCKETS")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Not the gateway's group: Ctrl-C in a terminal is the gateway's to hear, which then ends PHP in order.
            .process_group(0);
        command
    }
}

/// A php-fpm and the shell around it. Dropping it closes the pipe, which ends both.
struct Running {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Running {
    async fn finish(mut self) {
        if let Some(pipe) = &mut self.pipe {
            // An error means that the shell is gone, which is what is waited for.
            drop(pipe.write_all(b"\n").await);
        }
        // php-fpm keeps to FINISH by itself; the rest is for what it does afterwards.
        if timeout(FINISH + Duration::from_secs(3), self.shell.wait()).await.is_err() {
            drop(self.pipe.take());
            drop(timeout(Duration::from_secs(5), self.shell.wait()).await);
        }
    }
}

const CONFIGURATION: &str = "php-fpm.conf";

/// Where php-fpm is when PATH does not say: `sbin` is not in the PATH of ordinary users.
const BINARY_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin"];

/// Finds `php-fpm`, or the newest of those with a version in their name (`php-fpm8.4`, `php-fpm83`).
fn find_binary(directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let listed = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let found = listed.filter_map(|file| Some((version(file.file_name().to_str()?)?, file.path())));
    found.filter(|(_, path)| path.is_file()).max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, path)| path)
}

/// The version in a program's name; without one, it is the system's own choice and goes before all.
fn version(name: &str) -> Option<(u32, u32)> {
    let version = name.strip_prefix("php-fpm")?.trim_start_matches('-');
    if version.is_empty() {
        return Some((u32::MAX, 0));
    }
    let (major, minor) = version.split_once('.').or_else(|| version.split_at_checked(1))?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whom PHP runs as when the gateway is root: the owner of the application, or the web server's usual user.
fn pool_user(root: &Path) -> Result<(u32, u32), SpawnError> {
    let owner = fs::metadata(root).ok().map(|metadata| (metadata.uid(), metadata.gid()));
    let usual = || {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let mut fields = users.lines().find_map(|line| line.strip_prefix("www-data:"))?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let user = owner.filter(|(uid, _)| *uid != 0).or_else(usual);
    user.ok_or_else(|| SpawnError::NoUser { root: root.to_owned() })
}

/// The configuration for these settings. A running php-fpm is left alone as long as it stays the same.
fn planned(upstream: &str, settings: &Settings) -> Result<String, SpawnError> {
    let user = rustix::process::geteuid().is_root().then(|| pool_user(&settings.root)).transpose()?;
    configuration(upstream, settings, user)
}

/// php-fpm's configuration: one pool, fixed in size, that only this gateway can reach.
fn configuration(upstream: &str, settings: &Settings, user: Option<(u32, u32)>) -> Result<String, SpawnError> {
    let pool: String = upstream.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let longest = (settings.first_byte.max(settings.between_bytes) * 2).max(LONGEST_REQUEST).as_secs();
    let mut text = format!(
        "[global]\nerror_log = /proc/self/fd/2\nlog_limit = {LINE}\nprocess_control_timeout = {finish}s\n\n\
         [{pool}]\nlisten = {listen}\npm = static\npm.max_children = {children}\n\
         request_terminate_timeout = {longest}s\ncatch_workers_output = yes\ndecorate_workers_output = no\n",
        finish = FINISH.as_secs(),
        listen = listen(&settings.address)?,
        children = settings.spawn.unwrap_or(1),
    );
    // Where the gateway starts PHP itself, the application is configured by the environment that both are
    // given (a container's, a developer's shell); php-fpm would empty it by default.
    text.push_str("clear_env = no\n");
    match settings.address {
        Address::Unix(_) => text.push_str("listen.mode = 0600\n"),
        Address::Tcp(_) => text.push_str("listen.allowed_clients = 127.0.0.1,::1\n"),
    }
    if let Some((uid, gid)) = user {
        let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
        text.push_str(&format!("user = {uid}\ngroup = {gid}\nlisten.owner = {own_uid}\nlisten.group = {own_gid}\n"));
    }
    Ok(text)
}

fn listen(address: &Address) -> Result<String, SpawnError> {
    match address {
        // php-fpm would cut the name short and listen there.
        Address::Unix(path) if std::os::unix::net::SocketAddr::from_pathname(path).is_err() => {
            Err(SpawnError::SocketName { path: path.clone() })
        }
        Address::Unix(path) => quoted(&path.to_string_lossy()),
        Address::Tcp(address) if address.ip().is_loopback() => Ok(address.to_string()),
        Address::Tcp(address) => Err(SpawnError::Exposed { address: address.to_string() }),
    }
}

fn quoted(value: &str) -> Result<String, SpawnError> {
    if value.contains(|c: char| c.is_control() || matches!(c, '"' | '$' | '\\' | char::REPLACEMENT_CHARACTER)) {
        return Err(SpawnError::Unquotable { value: value.to_owned() });
    }
    Ok(format!("\"{value}\""))
}

fn written(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Tcp(address) => address.to_string(),
    }
}

async fn accepts(address: &Address) -> bool {
    match address {
        Address::Unix(path) => UnixStream::connect(path).await.is_ok(),
        Address::Tcp(address) => matches!(timeout(START_POLL * 10, TcpStream::connect(address)).await, Ok(Ok(_))),
    }
}

/// Passes what php-fpm and its children say to the log, a line at a time, and remembers the last lines.
async fn forward(mut output: impl AsyncBufReadExt + Unpin, upstream: String, said: Rc<RefCell<VecDeque<String>>>) {
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut output, &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        log(&upstream, text);
        let mut said = said.borrow_mut();
        if said.len() == LINES {
            said.pop_front();
        }
        said.push_back(text.to_owned());
    }
}

/// Reads a line, of which no more than [`LINE`] bytes are kept. `false`: there are no more.
async fn next_line(input: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let bytes = input.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', bytes);
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let room = LINE.saturating_sub(line.len());
        line.extend(part.iter().take(room));
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// `[22-Nov-2026 15:50:01] NOTICE: ready to handle connections`, or whatever a script wrote to stderr.
fn log(upstream: &str, line: &str) {
    let said = line.strip_prefix('[').and_then(|line| line.split_once("] ")).map_or(line, |(_, said)| said);
    match said.split_once(": ") {
        Some(("DEBUG" | "NOTICE", said)) => tracing::debug!(upstream, "php-fpm: {said}"),
        Some(("WARNING", said)) => tracing::warn!(upstream, "php-fpm: {said}"),
        Some(("ERROR" | "ALERT", said)) => tracing::error!(upstream, "php-fpm: {said}"),
        _ => tracing::warn!(upstream, "php: {line}"),
    }
}

fn joined(said: &RefCell<VecDeque<String>>) -> String {
    let said = said.borrow();
    if said.is_empty() { "nothing".to_owned() } else { said.iter().map(String::as_str).collect::<Vec<_>>().join(" / ") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process;

    use tokio::io::AsyncReadExt;
    use tokio::task::LocalSet;

    use super::*;
    use crate::upstream::fastcgi::{OnClientAbort, Scripts};

    const EVENTUALLY: Duration = Duration::from_secs(8);

    fn settings(directory: &Path) -> Settings {
        let long = Duration::from_secs(60);
        Settings {
            address: Address::Unix(directory.join("run/fpm.sock")),
            root: directory.join("public"),
            index: "index.php".to_owned(),
            connections: 2,
            queue: long,
            queue_length: 1,
            keepalive: 0,
            connect: long,
            first_byte: long,
            between_bytes: long,
            try_files: true,
            params: Vec::new(),
            on_client_abort: OnClientAbort::Close,
            spool_memory: 0,
            spool_disk: 0,
            deny: Vec::new(),
            scripts: Scripts::Index,
            internal: Vec::new(),
            symlinks: Vec::new(),
            spawn: Some(2),
        }
    }

    /// A document root that every user may read, in a directory of its own.
    fn place() -> (TempDir, Settings) {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("public")).unwrap();
        let settings = settings(directory.path());
        (directory, settings)
    }

    fn socket(settings: &Settings) -> &Path {
        let Address::Unix(path) = &settings.address else { panic!("no socket") };
        path
    }

    /// The process that listens: php-fpm's master.
    async fn master(settings: &Settings) -> Option<i32> {
        UnixStream::connect(socket(settings)).await.ok()?.peer_cred().unwrap().pid()
    }

    /// The two processes of a master's pool; the socket is there a moment before they are.
    async fn children(pid: i32) -> Vec<i32> {
        let mut children = Vec::new();
        until("the pool has its processes", async || {
            let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            children = listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
            children.len() == 2
        })
        .await;
        children
    }

    fn alive(pid: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie answers nobody; it only waits to be counted.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn kill(pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
        let since = Instant::now();
        while !done().await {
            assert!(since.elapsed() < EVENTUALLY, "not within {EVENTUALLY:?}: {what}");
            sleep(START_POLL).await;
        }
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
    }

    /// Runs a script in the simplest way there is, and returns whatever comes back.
    async fn run(settings: &Settings, source: &str) -> String {
        let script = settings.root.join("index.php");
        fs::write(&script, source).unwrap();
        let mut parameters = Vec::new();
        for (name, value) in [("SCRIPT_FILENAME", script.to_str().unwrap()), ("REQUEST_METHOD", "GET")] {
            parameters.extend([u8::try_from(name.len()).unwrap(), u8::try_from(value.len()).unwrap()]);
            parameters.extend([name.as_bytes(), value.as_bytes()].concat());
        }
        let mut stream = UnixStream::connect(socket(settings)).await.unwrap();
        let request =
            [record(1, &[0, 1, 0, 0, 0, 0, 0, 0]), record(4, &parameters), record(4, &[]), record(5, &[])].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn php_runs_as_the_owner_of_the_root_with_the_environment_of_the_gateway() {
        let (_directory, settings) = place();
        let root = rustix::process::geteuid().is_root();
        if root {
            chown(&settings.root, Some(4321), Some(4321)).unwrap();
        }
        LocalSet::new()
            .run_until(async {
                let spawned = Spawned::start("php", &settings).await.unwrap();
                let answer =
                    run(&settings, "<?php echo getmyuid(), '|', getenv('PATH') !== false, '|', PHP_SAPI;").await;
                assert!(answer.contains("|1|fpm-fcgi"), "{answer}");
                let children = children(master(&settings).await.unwrap()).await;
                let expected = if root { 4321 } else { rustix::process::geteuid().as_raw() };
                // A child is its master's owner's for a moment, and only the one that answered is past it for certain.
                let owner = |child| fs::metadata(format!("/proc/{child}")).unwrap().uid();
                until("all are the owner's", async || children.iter().all(|child| owner(child) == expected)).await;
                spawned.stop().await;
            })
            .await;
    }

    #[tokio::test]
    async fn it_ends_in_order_and_leaves_nothing() {
        let (_directory, settings) = place();
        LocalSet::new()
            .run_until(async {
                let spawned = Spawned::start("php", &settings).await.unwrap();
                let master = master(&settings).await.unwrap();
                let children = children(master).await;
                assert_eq!(fs::metadata(socket(&settings)).unwrap().permissions().mode() & 0o777, 0o600);
                // A request that is being answered is answered to its end.
                let log = tempfile::NamedTempFile::new().unwrap();
                let writer = std::sync::Mutex::new(log.reopen().unwrap());
                let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
                let _logged = tracing::subscriber::set_default(subscriber);
                let slow = run(&settings, "<?php usleep(400000); echo 'whole';");
                let stop = async {
                    sleep(Duration::from_millis(150)).await;
                    spawned.stop().await;
                };
                let (answer, ()) = tokio::join!(slow, stop);
                assert!(answer.contains("whole"), "{answer}");
                assert!(!alive(master) && !children.iter().any(|&child| alive(child)));
                assert!(!socket(&settings).exists());
                assert_eq!(fs::read_to_string(log.path()).unwrap(), "", "an end that was asked for is no news");
            })
            .await;
    }

    #[tokio::test]
    async fn a_killed_master_is_replaced_and_its_children_do_not_stay() {
        let (_directory, settings) = place();
        LocalSet::new()
            .run_until(async {
                let spawned = Spawned::start("php", &settings).await.unwrap();
                let first = master(&settings).await.unwrap();
                let children = children(first).await;
                kill(first);
                until("a new master", async || master(&settings).await.is_some_and(|pid| pid != first)).await;
                assert!(!children.iter().any(|&child| alive(child)));
                assert!(run(&settings, "<?php echo 'again';").await.contains("again"));
                spawned.stop().await;
            })
            .await;
    }

    #[tokio::test]
    async fn a_killed_shell_takes_php_with_it_and_both_come_back() {
        let (_directory, settings) = place();
        LocalSet::new()
            .run_until(async {
                let spawned = Spawned::start("php", &settings).await.unwrap();
                let first = master(&settings).await.unwrap();
                let stat = fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
                let shell = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
                kill(shell);
                until("a new master", async || master(&settings).await.is_some_and(|pid| pid != first)).await;
                assert!(!alive(first));
                spawned.stop().await;
            })
            .await;
    }

    #[tokio::test]
    async fn dropping_it_ends_php() {
        let (_directory, settings) = place();
        let first = LocalSet::new()
            .run_until(async {
                let _spawned = Spawned::start("php", &settings).await.unwrap();
                master(&settings).await.unwrap()
            })
            .await;
        until("php-fpm gone", async || !alive(first)).await;
    }

    const OWNED: &str = "STRANGLER_TEST_SPAWN_IN";

    /// Not a test by itself: the process that the next test kills.
    #[tokio::test]
    #[ignore = "run by php_ends_with_a_gateway_that_is_killed as a process of its own"]
    async fn owner() {
        let Some(directory) = std::env::var_os(OWNED) else { return };
        let settings = settings(Path::new(&directory));
        LocalSet::new()
            .run_until(async {
                let _spawned = Spawned::start("php", &settings).await.unwrap();
                std::future::pending::<()>().await;
            })
            .await;
    }

    #[tokio::test]
    async fn php_ends_with_a_gateway_that_is_killed() {
        let (directory, settings) = place();
        // Should this test be killed first, the process goes as well.
        let mut owner = process::Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "upstream::fastcgi::spawn::tests::owner"])
            .env(OWNED, directory.path())
            // A process that is killed does not tidy up; the directory of this test does.
            .env("TMPDIR", directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("php-fpm started", async || master(&settings).await.is_some()).await;
        let master = master(&settings).await.unwrap();
        let children = children(master).await;
        owner.kill().unwrap();
        owner.wait().unwrap();
        until("php-fpm gone", async || !alive(master) && !children.iter().any(|&child| alive(child))).await;
    }

    #[tokio::test]
    async fn a_taken_socket_is_left_alone() {
        let (_directory, settings) = place();
        fs::create_dir_all(socket(&settings).parent().unwrap()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(socket(&settings)).unwrap();
        let refused = LocalSet::new().run_until(Spawned::start("php", &settings)).await;
        assert!(matches!(refused, Err(SpawnError::InUse { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_php_fpm_that_does_not_start_says_why() {
        let (directory, mut settings) = place();
        settings.address = Address::Unix(directory.path().join("public"));
        let refused = LocalSet::new().run_until(Spawned::start("php", &settings)).await.unwrap_err();
        let SpawnError::Ended { said } = &refused else { panic!("{refused:?}") };
        assert!(said.contains("ERROR") && said.contains("ended with status"), "{said}");
    }

    #[tokio::test]
    async fn a_port_works_too_but_only_on_loopback() {
        let (_directory, mut settings) = place();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        settings.address = Address::Tcp(port);
        LocalSet::new()
            .run_until(async {
                let spawned = Spawned::start("php", &settings).await.unwrap();
                assert!(accepts(&settings.address).await);
                spawned.stop().await;
                assert!(!accepts(&settings.address).await);
            })
            .await;
        settings.address = Address::Tcp("0.0.0.0:9000".parse().unwrap());
        assert!(matches!(configuration("php", &settings, None), Err(SpawnError::Exposed { .. })));
    }

    #[test]
    fn nothing_can_be_written_into_the_configuration_through_a_name() {
        let (_directory, mut settings) = place();
        for name in ["/run/a\"b", "/run/${HOME}", "/run/a\nuser = root", "/run/a\\"] {
            settings.address = Address::Unix(PathBuf::from(name));
            assert!(matches!(configuration("php", &settings, None), Err(SpawnError::Unquotable { .. })), "{name}");
        }
        settings.address = Address::Unix(PathBuf::from("x".repeat(108)));
        assert!(matches!(configuration("php", &settings, None), Err(SpawnError::SocketName { .. })));
        settings.address = Address::Unix(PathBuf::from("/run/with blank.sock"));
        let text = configuration("a]\n[b", &settings, Some((33, 34))).unwrap();
        assert!(text.contains("[a___b]\n") && text.contains("listen = \"/run/with blank.sock\"\n"), "{text}");
        assert!(text.contains("user = 33\ngroup = 34\n") && text.contains("pm.max_children = 2\n"), "{text}");
    }

    #[test]
    fn the_plain_php_fpm_goes_before_versions_and_newer_before_older() {
        let directory = tempfile::tempdir().unwrap();
        let find = || find_binary(std::iter::once(directory.path().to_owned()));
        assert_eq!(find(), None);
        for (name, found) in [
            ("php-fpm.conf", None),
            ("php-fpm8.2", Some("php-fpm8.2")),
            ("php-fpm8.10", Some("php-fpm8.10")),
            ("php-fpm8.4", Some("php-fpm8.10")),
            ("php-fpm83", Some("php-fpm8.10")),
            ("php-fpm", Some("php-fpm")),
        ] {
            fs::write(directory.path().join(name), "").unwrap();
            assert_eq!(find(), found.map(|name| directory.path().join(name)));
        }
        assert_eq!(version("php-fpm83"), Some((8, 3)));
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_the_next_one_is_read_whole() {
        let text = format!("{}\nshort\n\nlast", "x".repeat(3 * LINE));
        let mut input = BufReader::new(text.as_bytes());
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        while next_line(&mut input, &mut line).await.unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [LINE, 5, 0, 4]);
    }
}
