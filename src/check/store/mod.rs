//! Where sessions and spent nonces are kept: in this process, in Redis, in PHP's session files, or in a database.
//!
//! A store holds bytes under keys and knows nothing of what they mean. Whatever state it is in, an
//! operation ends within [`BUDGET`]; only so many may be under way at once, and what goes beyond is
//! turned away rather than queued. Reading never writes: no lock of PHP's is taken and no lifetime
//! is prolonged.

mod breaker;
mod figures;
mod files;
mod memory;
mod mysql;
mod redis;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use thread_local::ThreadLocal;

use self::figures::Figures;
pub(crate) use self::figures::{Outcome, Totals};
pub(crate) use self::files::Folder;
use self::memory::Memory;
use self::mysql::Mysql;
pub(crate) use self::mysql::MysqlAddress;
use self::redis::Redis;
pub(crate) use self::redis::RedisAddress;

/// How long one operation may take, connecting included.
pub(crate) const BUDGET: Duration = Duration::from_millis(50);
/// Bytes of the largest value that is given or taken.
pub(crate) const LARGEST: usize = 1 << 20;
/// Operations of one worker under way at once.
const IN_FLIGHT: usize = 1024;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// In this process; gone when it ends.
    Memory,
    Redis(RedisAddress),
    PhpFiles(Folder),
    /// WordPress's users: read only.
    Mysql(MysqlAddress),
}

impl fmt::Display for Address {
    /// For people: without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Redis(address) => write!(f, "{address}"),
            Self::PhpFiles(folder) => write!(f, "php-files:{}", folder.path.display()),
            Self::Mysql(address) => write!(f, "{address}"),
        }
    }
}

/// Why there is no answer of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The store cannot be reached, is too slow, or takes nothing more.
    #[error("the store is down")]
    Down,
    /// What is there is no value: it is larger than [`LARGEST`], of another type, or changing all the time.
    #[error("what the store holds is no session")]
    Unfit,
}

/// A place that holds values, with what it takes to reach it: shared by all that name the same address.
#[derive(Debug)]
pub(crate) struct Backend {
    address: Address,
    kind: Kind,
    in_flight: ThreadLocal<Arc<AtomicUsize>>,
    made: SystemTime,
}

#[derive(Debug)]
enum Kind {
    Memory(Memory),
    Redis(Box<Redis>),
    PhpFiles(Folder),
    Mysql(Box<Mysql>),
}

/// A backend as one check uses it: with figures of its own.
#[derive(Debug)]
pub(crate) struct Store {
    backend: Arc<Backend>,
    figures: Figures,
}

impl Backend {
    pub(crate) fn new(address: Address) -> Self {
        let kind = match &address {
            Address::Memory => Kind::Memory(Memory::default()),
            Address::Redis(address) => Kind::Redis(Box::new(Redis::new(address.clone()))),
            Address::PhpFiles(folder) => Kind::PhpFiles(folder.clone()),
            Address::Mysql(address) => Kind::Mysql(Box::new(Mysql::new(address.clone()))),
        };
        Self { address, kind, in_flight: ThreadLocal::new(), made: SystemTime::now() }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A place among this thread's operations under way; `None`: there are too many.
    fn enter(&self) -> Option<InFlight> {
        let count = self.in_flight.get_or_default();
        if count.load(Ordering::Relaxed) >= IN_FLIGHT {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(InFlight(Arc::clone(count)))
    }
}

/// One operation, counted until it is over; it may outlive who asked for it, and end on another thread.
#[derive(Debug)]
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How an operation failed, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// An answer that is of no use, or none since the connection broke.
    Error,
    /// There was none in time.
    Timeout,
    /// It was not even tried: too many are under way, or the store is known to be down.
    Rejected,
    /// The server is well, and does not do it.
    Refused,
    Unfit,
}

impl Store {
    pub(crate) fn new(backend: &Arc<Backend>) -> Self {
        Self { backend: Arc::clone(backend), figures: Figures::default() }
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The value of a key. An empty one is none.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.counted(
            |found: &Option<Bytes>| if found.is_some() { Outcome::Hit } else { Outcome::Miss },
            async |place| match &self.backend.kind {
                Kind::Memory(memory) => Ok(memory.read(key, Instant::now())),
                Kind::Redis(redis) => redis.read(key).await,
                Kind::PhpFiles(folder) => files::read(folder, key, place).await,
                Kind::Mysql(mysql) => mysql.read(key, place).await,
            },
        )
        .await
    }

    /// Sets a key for as long as `ttl`. A database is never written to. PHP's files have no lifetime of their own: PHP collects them.
    pub(crate) async fn write(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StoreError> {
        if value.len() > LARGEST {
            return Err(StoreError::Unfit);
        }
        self.counted(
            |()| Outcome::Done,
            async |place| match &self.backend.kind {
                Kind::Memory(memory) => memory.write(key, value, ttl, Instant::now()),
                Kind::Redis(redis) => redis.write(key, &value, ttl).await,
                Kind::PhpFiles(folder) => files::write(folder, key, value, place).await,
                Kind::Mysql(_) => Err(Failed::Refused),
            },
        )
        .await
    }

    /// Gives a key `ttl` from now on, if it is there.
    pub(crate) async fn touch(&self, key: &str, ttl: Duration) -> Result<(), StoreError> {
        self.counted(
            |()| Outcome::Done,
            async |place| match &self.backend.kind {
                Kind::Memory(memory) => {
                    memory.touch(key, ttl, Instant::now());
                    Ok(())
                }
                Kind::Redis(redis) => redis.touch(key, ttl).await,
                Kind::PhpFiles(folder) => files::touch(folder, key, place).await,
                Kind::Mysql(_) => Err(Failed::Refused),
            },
        )
        .await
    }

    /// Forgets a key, if there is one.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.counted(
            |()| Outcome::Done,
            async |place| match &self.backend.kind {
                Kind::Memory(memory) => {
                    memory.delete(key);
                    Ok(())
                }
                Kind::Redis(redis) => redis.delete(key).await,
                Kind::PhpFiles(folder) => files::delete(folder, key, place).await,
                Kind::Mysql(_) => Err(Failed::Refused),
            },
        )
        .await
    }

    /// Sets a key that is not there, for as long as `ttl`, and says whether it was not: of all that try, one does it.
    /// Never tried twice: where it fails, nobody knows whether the key is there now. PHP's files and a
    /// database cannot do this.
    pub(crate) async fn set_if_absent(&self, key: &str, ttl: Duration) -> Result<bool, StoreError> {
        self.counted(
            |_: &bool| Outcome::Done,
            async |_| match &self.backend.kind {
                Kind::Memory(memory) => memory.set_if_absent(key, ttl, Instant::now()),
                Kind::Redis(redis) => redis.set_if_absent(key, ttl).await,
                Kind::PhpFiles(_) | Kind::Mysql(_) => Err(Failed::Refused),
            },
        )
        .await
    }

    /// What was written before this moment may be gone without having been deleted: the store began then, was
    /// started anew, or another server has taken its place. It moves when that is noticed, at a reconnect.
    /// A cluster replaces its servers unseen.
    pub(crate) fn whole_since(&self) -> SystemTime {
        match &self.backend.kind {
            Kind::Memory(_) | Kind::PhpFiles(_) | Kind::Mysql(_) => self.backend.made,
            Kind::Redis(redis) => redis.whole_since().unwrap_or(self.backend.made),
        }
    }

    /// Whether what was deleted can come back: PHP, whose page has a session open meanwhile, writes it into Redis when the
    /// page ends. Into a file that was deleted it writes in vain, and nowhere else.
    pub(crate) fn may_revive(&self) -> bool {
        matches!(self.backend.kind, Kind::Redis(_))
    }

    /// Whether operations are tried at all.
    pub(crate) fn is_up(&self) -> bool {
        match &self.backend.kind {
            Kind::Memory(_) | Kind::PhpFiles(_) => true,
            Kind::Mysql(mysql) => mysql.is_up(),
            Kind::Redis(redis) => redis.is_up(),
        }
    }

    /// How often operations came to what end, and how long they took together.
    pub(crate) fn totals(&self) -> Totals {
        self.figures.totals()
    }

    /// Tries to reach the store, taking its time; what is wrong, if something is, with it as a place for nonces or for
    /// sessions.
    pub(crate) async fn probe(&self, for_nonces: bool) -> Result<(), String> {
        match &self.backend.kind {
            Kind::Redis(redis) => redis.probe(for_nonces).await,
            Kind::Mysql(mysql) => mysql.probe().await,
            Kind::PhpFiles(folder) => files::probe(folder),
            Kind::Memory(_) => Ok(()),
        }
    }

    async fn counted<T>(
        &self,
        outcome: impl FnOnce(&T) -> Outcome,
        operation: impl AsyncFnOnce(InFlight) -> Result<T, Failed>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = match self.backend.enter() {
            Some(place) => operation(place).await,
            None => Err(Failed::Rejected),
        };
        let counted = match &result {
            Ok(value) => outcome(value),
            Err(Failed::Error | Failed::Refused | Failed::Unfit) => Outcome::Error,
            Err(Failed::Timeout) => Outcome::Timeout,
            Err(Failed::Rejected) => Outcome::Rejected,
        };
        self.figures.count(counted, started.elapsed());
        result.map_err(|failed| if failed == Failed::Unfit { StoreError::Unfit } else { StoreError::Down })
    }
}

/// Gives an operation its time and no more.
async fn in_time<T>(operation: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(BUDGET, operation).await.unwrap_or(Err(Failed::Timeout))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_store_that_is_known_to_be_down_is_not_waited_for() {
        // Nothing listens at port 1.
        let redis = RedisAddress::parse("redis://127.0.0.1:1", None).unwrap();
        let mysql = MysqlAddress::parse("mysql://reader@127.0.0.1:1/shop", None).unwrap();
        for address in [Address::Redis(redis), Address::Mysql(mysql)] {
            let store = Store::new(&Arc::new(Backend::new(address)));
            let asking = async {
                while store.is_up() {
                    assert_eq!(store.read("a").await, Err(StoreError::Down));
                }
                let since = Instant::now();
                let answers: Vec<_> = (0..1000).map(|_| store.read("a").now_or_never()).collect();
                let waited = answers.iter().filter(|answer| answer.is_none()).count();
                assert!(waited as u64 <= 1 + since.elapsed().as_secs(), "only one a second tries: {waited}");
                assert!(answers.into_iter().flatten().all(|answer| answer == Err(StoreError::Down)));
            };
            LocalSet::new().run_until(asking).await;
        }
    }
}
