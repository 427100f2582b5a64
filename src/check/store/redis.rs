//! A store in Redis: one server, whichever server Sentinel names, or a cluster.
//!
//! Every worker has one connection, over which all its operations go at once: what is asked in the
//! same moment is sent in one piece, and workers share nothing but the breaker. A connection is
//! opened in the background; an operation waits for it no longer than for an answer. One that broke,
//! that leads to a server which may not be written to, or that has been silent too often, is given
//! up, and the next one is opened to wherever the data are by then.

mod address;

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsMode, Value,
};
use thread_local::ThreadLocal;

pub(crate) use self::address::RedisAddress;
use self::address::Topology;
use super::breaker::Breaker;
use super::{Failed, IN_FLIGHT, LARGEST, in_time};
use crate::check::clock;

/// How long opening a connection may take: operations do not wait for all of it.
const CONNECT: Duration = Duration::from_secs(1);
/// A key that nobody has.
const PROBE: &str = "strangler:probe";
/// Operations in a row without an answer after which a connection is given up: packets may be going nowhere.
const SILENCES: u32 = 3;

pub(super) struct Redis {
    address: RedisAddress,
    breaker: Breaker,
    own: ThreadLocal<RefCell<Own>>,
    /// The run of the server that was met last; looked at when a connection is opened.
    run: Mutex<Option<String>>,
    /// Since when it has not lost anything, in seconds since 1970; 0: none was met. Read for every nonce.
    whole_since: AtomicU64,
    /// When the server's last refusal was logged, in seconds since 1970.
    refused: AtomicU64,
}

/// What one worker has of it.
#[derive(Default)]
struct Own {
    link: Option<Shared<Link>>,
    /// Tells this link apart from those before it.
    number: u64,
    /// The last link whose server has been taken note of.
    met: u64,
    silences: u32,
}

/// A connection, as soon as it is open.
type Link = BoxFuture<'static, Option<Arc<Opened>>>;

struct Opened {
    connection: Connection,
    server: Option<Server>,
}

#[derive(Clone)]
enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The server at the other end, as far as it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// Another one with each start.
    run: String,
    /// Since when it has not lost anything, as far as is known.
    whole_since: SystemTime,
}

impl Redis {
    pub(super) fn new(address: RedisAddress) -> Self {
        Self {
            address,
            breaker: Breaker::default(),
            own: ThreadLocal::new(),
            run: Mutex::default(),
            whole_since: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Reads a value, and never more of it than a session may have.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Bytes>, Failed> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(LARGEST);
        let value: Bytes = self.run_twice(&command).await?;
        match value.len() {
            0 => Ok(None),
            1..=LARGEST => Ok(Some(value)),
            _ => Err(Failed::Unfit),
        }
    }

    pub(super) async fn write(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), Failed> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(millis(ttl));
        self.run_twice(&command).await
    }

    pub(super) async fn touch(&self, key: &str, ttl: Duration) -> Result<(), Failed> {
        let mut command = redis::cmd("PEXPIRE");
        command.arg(key).arg(millis(ttl));
        self.run_twice(&command).await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Failed> {
        let mut command = redis::cmd("DEL");
        command.arg(key);
        self.run_twice(&command).await
    }

    pub(super) async fn set_if_absent(&self, key: &str, ttl: Duration) -> Result<bool, Failed> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(1).arg("NX").arg("PX").arg(millis(ttl));
        let set: Option<String> = in_time(self.run(&command)).await.inspect_err(|failed| self.note(*failed))?;
        Ok(set.is_some())
    }

    pub(super) fn whole_since(&self) -> Option<SystemTime> {
        let seconds = Some(self.whole_since.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    pub(super) fn is_up(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Connects and asks for a sign of life, whatever the breaker says; of a place for nonces, all that they need.
    pub(super) async fn probe(&self, for_nonces: bool) -> Result<(), String> {
        let answer = tokio::time::timeout(CONNECT * 2, async {
            let mut connection = connect(&self.address).await?.connection;
            if !for_nonces {
                let mut read = redis::cmd("GETRANGE");
                return read.arg(PROBE).arg(0).arg(0).query_async::<Value>(&mut connection).await.map(|_| None);
            }
            let mut set = redis::cmd("SET");
            set.arg(PROBE).arg(1).arg("NX").arg("PX").arg(1).query_async::<Value>(&mut connection).await?;
            let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
            let value = |name| info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
            // Without a limit nothing is evicted.
            Ok(value("maxmemory_policy:").filter(|_| value("maxmemory:").is_some_and(|limit| limit != "0")))
        });
        match answer.await {
            Ok(Ok(Some(policy))) if policy != "noeviction" => {
                Err(format!("it may forget nonces: its maxmemory-policy is {policy}, and has to be noeviction"))
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it gives no answer".to_owned()),
        }
    }

    /// Runs a command that may be run twice: once more where the connection turns out to be gone, since a server
    /// that was started anew, or closes what is idle, is not down.
    async fn run_twice<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failed> {
        let run = in_time(async {
            match self.run(command).await {
                Err(Failed::Error) if self.own(|own| own.link.is_none()) => self.run(command).await,
                done => done,
            }
        });
        run.await.inspect_err(|failed| self.note(*failed))
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failed> {
        if !self.breaker.admits(Instant::now) {
            return Err(Failed::Rejected);
        }
        let (number, link) = self.link();
        let Some(opened) = link.await else {
            self.give_up(number);
            return Err(Failed::Error);
        };
        // Once for each link: what it leads to does not change.
        if self.own(|own| std::mem::replace(&mut own.met, number)) != number
            && let Some(server) = &opened.server
        {
            self.met(server);
        }
        match command.query_async(&mut opened.connection.clone()).await {
            Ok(value) => {
                self.own(|own| own.silences = 0);
                self.breaker.succeeded(&self.address);
                Ok(value)
            }
            Err(error) => Err(self.failed(&error, number)),
        }
    }

    /// What an error says: of this value, of the server, or of the connection.
    fn failed(&self, error: &RedisError, number: u64) -> Failed {
        use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        match error.kind() {
            ErrorKind::Server(ReadOnly | Moved | MasterDown | BusyLoading | ClusterDown | TryAgain) => {
                self.give_up(number);
                Failed::Error
            }
            // The server is well and says no: it is full, or this user may not, or the key is of another type.
            ErrorKind::Server(_) | ErrorKind::Extension => {
                self.breaker.succeeded(&self.address);
                if error.code() == Some("WRONGTYPE") {
                    return Failed::Unfit;
                }
                self.say_refused(error.code().unwrap_or("ERR"));
                Failed::Refused
            }
            ErrorKind::UnexpectedReturnType => Failed::Unfit,
            _ => {
                self.give_up(number);
                Failed::Error
            }
        }
    }

    /// Logs that the server refuses, once a minute: it does so for as long as nobody mends it.
    fn say_refused(&self, code: &str) {
        let (now, last) = (clock::now(), self.refused.load(Ordering::Relaxed));
        let due = now >= last.saturating_add(60);
        if due && self.refused.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(store = %self.address, code, "the server refuses an operation: OOM is that it is full, NOPERM that this user may not");
        }
    }

    /// Counts a failure, once an operation has come to its end.
    fn note(&self, failed: Failed) {
        match failed {
            Failed::Unfit | Failed::Rejected | Failed::Refused => return,
            Failed::Error => {}
            Failed::Timeout => self.own(|own| {
                own.silences += 1;
                if own.silences >= SILENCES {
                    own.link = None;
                }
            }),
        }
        self.breaker.failed(&self.address, Instant::now());
    }

    /// This worker's link, and its number; opened if there is none.
    fn link(&self) -> (u64, Shared<Link>) {
        self.own(|own| {
            let link = own.link.get_or_insert_with(|| {
                (own.number, own.silences) = (own.number + 1, 0);
                open(&self.address)
            });
            (own.number, link.clone())
        })
    }

    /// Closes a link, unless it has been followed by another already.
    fn give_up(&self, number: u64) {
        self.own(|own| {
            if own.number == number {
                own.link = None;
            }
        });
    }

    /// Takes note of the server that was met: another one than before may lack what the other one was told last.
    fn met(&self, server: &Server) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let whole_since = match &*run {
            Some(known) if *known == server.run => return,
            Some(_) => SystemTime::now(),
            None => server.whole_since,
        };
        *run = Some(server.run.clone());
        self.whole_since.store(clock::seconds(whole_since), Ordering::Relaxed);
    }

    // Nothing that is called inside comes back here.
    fn own<T>(&self, work: impl FnOnce(&mut Own) -> T) -> T {
        work(&mut self.own.get_or_default().borrow_mut())
    }
}

/// Begins to open a connection; that goes on whether or not anybody waits for it.
fn open(address: &RedisAddress) -> Shared<Link> {
    let address = address.clone();
    let opening = tokio::task::spawn_local(async move {
        match tokio::time::timeout(CONNECT, connect(&address)).await {
            Ok(Ok(opened)) => return Some(Arc::new(opened)),
            Ok(Err(error)) => tracing::warn!(store = %address, "cannot connect: {error}"),
            Err(_) => tracing::warn!(store = %address, "cannot connect: no answer in time"),
        }
        None
    });
    async move { opening.await.ok().flatten() }.boxed().shared()
}

async fn connect(address: &RedisAddress) -> RedisResult<Opened> {
    // Deadlines are kept here, once for all that an operation waits for.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(IN_FLIGHT);
    let connection = match address.topology() {
        Topology::Server(info) => {
            client(info.clone(), address)?.get_multiplexed_async_connection_with_config(&config).await?
        }
        Topology::Sentinel { sentinels, master, node } => {
            let mut builder = SentinelClientBuilder::new(sentinels.clone(), master, SentinelServerType::Master)?
                .set_client_to_redis_db(node.db());
            if let Some(user) = node.username() {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = node.password() {
                builder = builder.set_client_to_redis_password(password);
            }
            if address.is_tls() {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure);
            }
            if let Some(certificates) = address.certificates() {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            builder.build()?.get_async_connection_with_config(&config).await?
        }
        Topology::Cluster(nodes) => {
            let mut builder = redis::cluster::ClusterClientBuilder::new(nodes.clone())
                .connection_timeout(CONNECT)
                .response_timeout(super::BUDGET)
                .overall_response_timeout(None)
                .retries(1);
            if let Some(certificates) = address.certificates() {
                builder = builder.certs(certificates);
            }
            let connection = builder.build()?.get_async_connection().await?;
            return Ok(Opened { connection: Connection::Cluster(connection), server: None });
        }
    };
    let server = server(&connection).await;
    Ok(Opened { connection: Connection::Server(connection), server })
}

fn client(info: redis::ConnectionInfo, address: &RedisAddress) -> RedisResult<Client> {
    match address.certificates() {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
}

/// Asks a server who it is. One that may not say is taken for another one each time.
async fn server(connection: &MultiplexedConnection) -> Option<Server> {
    let now = SystemTime::now();
    let info: RedisResult<String> = redis::cmd("INFO").query_async(&mut connection.clone()).await;
    let told = info.unwrap_or_default();
    let value = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let uptime = value("uptime_in_seconds").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    // It took the place of another one not long ago, and may not have been told all that one was.
    let promoted = value("master_replid2").is_some_and(|id| id.trim().bytes().any(|byte| byte != b'0'));
    Some(Server {
        run: value("run_id").map_or_else(|| format!("{:x}", fastrand::u128(..)), str::to_owned),
        whole_since: uptime.filter(|_| !promoted).and_then(|uptime| now.checked_sub(uptime)).unwrap_or(now),
    })
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64)
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).field("breaker", &self.breaker).finish_non_exhaustive()
    }
}
