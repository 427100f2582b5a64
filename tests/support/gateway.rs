//! The gateway itself: the real binary on ports the system chose, with a table the test writes.
//!
//! `gateway().toml("…").start().await` gives a [`Gateway`] that can be asked over HTTP, whose table can
//! be edited as an operator would, and whose metrics, access log and own log can be read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::metrics::Metrics;
use super::php::Php;
use super::process::Process;
use super::upstream::{Service, upstream};
use super::{eventually, temp_dir};

/// The `strangler` binary.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_strangler"))
}

/// The example binary that brings the Rust handlers of `tests/support/probe.rs`.
pub fn probe_binary() -> PathBuf {
    example("probe")
}

/// The shop, with its Rust side.
pub fn shop_binary() -> PathBuf {
    example("shop")
}

fn example(name: &str) -> PathBuf {
    let path = binary().parent().expect("the target directory").join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --example {name}`", path.display());
    path
}

/// A gateway to be.
pub fn gateway() -> Builder {
    Builder {
        command: as_a_service(&binary()),
        server: String::new(),
        table: String::new(),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: 2,
        access_log: None,
    }
}

#[derive(Debug)]
pub struct Builder {
    command: Command,
    server: String,
    table: String,
    admin: SocketAddr,
    workers: u32,
    access_log: Option<PathBuf>,
}

impl Builder {
    /// Text of routes.toml after `[listen]` and `[server]`; said again, it is appended.
    pub fn toml(mut self, text: impl AsRef<str>) -> Self {
        self.table.push_str(text.as_ref());
        self.table.push('\n');
        self
    }

    /// One route for everything, `page`, that PHP serves until it is flipped to the service.
    pub fn two_sided(self, php: &Php, new: &Service) -> Self {
        self.toml(php.upstream("php = \"files\"")).toml(upstream("fresh", &[new.url()], "")).toml(
            "[[route]]\nname = \"page\"\npath = \"/{*rest}\"\nlegacy = \"php\"\nnew = \"fresh\"\nserve = \"legacy\"\n",
        )
    }

    /// A catch-all route to PHP on this pool.
    pub fn php(self, php: &Php) -> Self {
        let upstream = php.upstream("php = \"files\"");
        self.toml(upstream).toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"\n")
    }

    /// Further lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self.server.push('\n');
        self
    }

    /// Runs the binary with the Rust handlers.
    pub fn probe(mut self) -> Self {
        self.command = as_a_service(&probe_binary());
        self
    }

    /// Runs the shop with these variables, as the user who tests: root shares its files with the user of PHP.
    pub fn shop(mut self, environment: &[(&str, String)]) -> Self {
        self.command = Command::new(shop_binary());
        self.command.envs(environment.iter().map(|(name, value)| (name, value)));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another place for the access log than a file of its own directory.
    pub fn access_log(mut self, path: &str) -> Self {
        self.access_log = Some(PathBuf::from(path));
        self
    }

    /// Another admin port than the system would choose: that of a gateway that has ended.
    pub fn admin_at(mut self, address: SocketAddr) -> Self {
        self.admin = address;
        self
    }

    /// How many worker threads.
    pub fn workers(mut self, count: u32) -> Self {
        self.workers = count;
        self
    }

    /// Starts it and waits until it serves.
    pub async fn start(self) -> Gateway {
        let dir = temp_dir("gateway");
        let access_log = self.access_log.unwrap_or_else(|| dir.path().join("access.log"));
        let preamble = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"{}\"\n\n[server]\nworkers = {}\naccess_log = \"{}\"\n{}\n",
            self.admin,
            self.workers,
            access_log.display(),
            self.server
        );
        let table = dir.path().join("conf/routes.toml");
        std::fs::create_dir(dir.path().join("conf")).expect("its directory");
        std::fs::write(&table, format!("{preamble}{}", self.table)).expect("routes.toml");

        let mut command = self.command;
        command.arg("run").arg("-c").arg(&table).arg("--json").current_dir(dir.path());
        let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
        let mut process = Process::start("strangler", &command, &stderr, Some(&stdout), Signal::KILL);
        let ready = until_ready(&mut process, &stdout).await;
        let address = |value: &Value| value.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        let http = address(&ready["http"][0]).expect("the address it serves on");
        let admin = address(&ready["admin"]).expect("the admin address");
        let admin_token = ready["admin_token"].as_str().unwrap_or_default().to_owned();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("an HTTP client");
        Gateway { process, dir, preamble, table, access_log, http, admin, admin_token, client }
    }
}

/// Even where the tests run as root, the gateway respects permissions, as a service does.
fn as_a_service(binary: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg("--").arg(binary);
    command
}

async fn until_ready(process: &mut Process, stdout: &Path) -> Value {
    let process = std::cell::RefCell::new(process);
    eventually("the gateway serves", || async {
        if let Some(status) = process.borrow_mut().ended() {
            panic!("the gateway ended with {status}");
        }
        let printed = std::fs::read_to_string(stdout).ok()?;
        let (line, _) = printed.split_once('\n')?;
        Some(serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}")))
    })
    .await
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    // Before the directory, so that the process ends before its files go.
    process: Process,
    dir: TempDir,
    preamble: String,
    table: PathBuf,
    access_log: PathBuf,
    http: SocketAddr,
    admin: SocketAddr,
    admin_token: String,
    client: reqwest::Client,
}

impl Gateway {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// A request to be completed by the test; redirects are not followed, connections are reused.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, self.url(path))
    }

    /// GET, which must be answered in some way.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.request("GET", path).send().await.expect("an answer")
    }

    /// GET, of which only status and text matter.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await;
        (response.status().as_u16(), response.text().await.expect("the whole body"))
    }

    // --- The table, as an operator treats it ---

    /// The file itself.
    pub fn table(&self) -> &Path {
        &self.table
    }

    /// What the file says now.
    pub fn read_table(&self) -> String {
        std::fs::read_to_string(&self.table).expect("routes.toml")
    }

    /// Writes the file as a whole, byte for byte.
    pub fn write_table(&self, text: &str) {
        std::fs::write(&self.table, text).expect("routes.toml");
    }

    /// Writes the routes, keeping `[listen]` and `[server]`.
    pub fn write_routes(&self, text: &str) {
        self.write_table(&format!("{}{text}", self.preamble));
    }

    /// Edits the file in place; the edit must change something.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let before = self.read_table();
        let after = change(&before);
        assert_ne!(before, after, "the edit changed nothing");
        self.write_table(&after);
    }

    /// The generation that serves.
    pub async fn generation(&self) -> u64 {
        self.admin_json("/api/routes").await["generation"].as_u64().expect("a generation")
    }

    /// Waits until a table newer than `generation` serves, for at most a second after the save.
    pub async fn until_newer(&self, generation: u64) -> u64 {
        let what = format!("a table newer than generation {generation} serves\n{}", self.read_table());
        super::eventually_within(Duration::from_secs(3), &what, || async {
            let now = self.generation().await;
            (now > generation).then_some(now)
        })
        .await
    }

    // --- What it says about itself ---

    /// A request to the admin port, to be completed by the test.
    pub fn admin_request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        self.client.request(method, format!("http://{}{path}", self.admin))
    }

    /// The token that it made for its admin port.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The address of the dashboard that was announced.
    pub fn dashboard(&self) -> String {
        format!("http://{}/#token={}", self.admin, self.admin_token)
    }

    /// The address of a view of the dashboard, as somebody else would send it: `/route/order`.
    pub fn dashboard_at(&self, view: &str) -> String {
        format!("http://{}/#{view}", self.admin)
    }

    /// The text of a path of the admin port.
    pub async fn admin_text(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.admin)).send().await.expect("the admin port");
        (response.status().as_u16(), response.text().await.expect("its body"))
    }

    /// Where the admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The metrics in a format: status, content type, bytes.
    pub async fn metrics_as(&self, accept: &str) -> (u16, String, Vec<u8>) {
        let url = format!("http://{}/metrics", self.admin);
        let response = self.client.get(url).header("accept", accept).send().await.expect("the admin port");
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        (response.status().as_u16(), kind, response.bytes().await.expect("its body").to_vec())
    }

    /// The JSON of a path of the admin port.
    pub async fn admin_json(&self, path: &str) -> Value {
        let (status, text) = self.admin_text(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path} is not JSON ({error}): {text}"))
    }

    /// All metrics now.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.admin_text("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// Waits until the samples of `name` with these labels sum up to at least `least`.
    pub async fn until_metric(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name}{labels:?} >= {least}"), || async {
            (self.metrics().await.sum(name, labels) >= least).then_some(())
        })
        .await;
    }

    /// Waits until the samples of `name` with these labels sum up to exactly `value`.
    pub async fn until_gauge(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{name}{labels:?} == {value}"), || async {
            ((self.metrics().await.sum(name, labels) - value).abs() < 0.5).then_some(())
        })
        .await;
    }

    /// The access log so far: complete lines, each of which must be one JSON object.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read(&self.access_log).unwrap_or_default();
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &text[..end]);
        complete
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let line = std::str::from_utf8(line).expect("the access log is UTF-8");
                serde_json::from_str(line).unwrap_or_else(|error| panic!("not a record ({error}): {line}"))
            })
            .collect()
    }

    /// Waits for at least `count` records and gives them all.
    pub async fn until_records(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} records in the access log"), || async {
            let records = self.records();
            (records.len() >= count).then_some(records)
        })
        .await
    }

    /// The record of the request with this `X-Request-Id`.
    pub async fn until_record_of(&self, request_id: &str) -> Value {
        eventually(&format!("the record of {request_id}"), || async {
            self.records().into_iter().find(|record| record["request_id"] == request_id)
        })
        .await
    }

    /// Where records are written.
    pub fn access_log(&self) -> &Path {
        &self.access_log
    }

    /// What it has logged on stderr.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until its log contains `text`.
    pub async fn until_logged(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || async { self.log().contains(text).then_some(()) }).await;
    }

    // --- Its life ---

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        self.process.end(within).await
    }
}

/// Runs `strangler` with these arguments to its end: exit code, stdout, stderr.
pub fn run(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).current_dir(directory).output().expect("strangler runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
