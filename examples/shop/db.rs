//! The shop's database: the SQLite file that PHP uses too, or what `DATABASE_URL` names.
//!
//! The pool is bounded: at most `SHOP_DB_CONNECTIONS` (20) connections, `SHOP_DB_IDLE` (5) of them kept
//! while idle, and nobody waits longer than `SHOP_DB_ACQUIRE` seconds (30) for one. Whoever keeps a
//! connection for more than a second is named in the log: that is what empties a pool.
//! The SQL is what both databases understand; the texts are in the files of products, orders and users.

use std::env;
use std::error::Error;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, raw_sql};

use crate::share;

const SCHEMA: &str = include_str!("schema.sql");
const SEED: &str = include_str!("seed.sql");

/// The SQLite file, in the folder that both sides write to.
const FILE: &str = "shop.sqlite";

/// A connection kept longer than this is worth a line in the log.
const SLOW_HOLDER: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Database {
    pool: AnyPool,
}

impl Database {
    /// Opens the pool; creates and fills the tables when they are not there yet.
    pub(crate) async fn connect(state: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        install_default_drivers();
        let mysql = env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        let sqlite = mysql.is_none();
        let url = mysql.unwrap_or_else(|| format!("sqlite://{}?mode=rwc", state.join(FILE).display()));
        set_up(&url, sqlite.then_some(state)).await?;

        let pool = AnyPoolOptions::new()
            .max_connections(number("SHOP_DB_CONNECTIONS", 20)?)
            .min_connections(number("SHOP_DB_IDLE", 5)?)
            .acquire_timeout(Duration::from_secs(number("SHOP_DB_ACQUIRE", 30)?))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        raw_sql("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        Ok(Self { pool })
    }

    /// Takes a connection; it goes back when the holder is dropped.
    #[track_caller]
    pub(crate) fn hold(&self) -> impl Future<Output = Result<Held, sqlx::Error>> + Send {
        let place = Location::caller();
        let pool = self.pool.clone();
        async move { Ok(Held { connection: pool.acquire().await?, since: Instant::now(), place }) }
    }
}

/// A connection on loan.
pub(crate) struct Held {
    connection: PoolConnection<Any>,
    since: Instant,
    place: &'static Location<'static>,
}

impl Deref for Held {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        if held > SLOW_HOLDER {
            tracing::warn!(place = %self.place, seconds = held.as_secs_f64(), "a database connection was held for long");
        }
    }
}

/// Creates and fills the tables, once. PHP may be at the same: both take the same lock, and the second finds
/// it done.
async fn set_up(url: &str, sqlite_state: Option<&Path>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut connection = AnyConnection::connect(url).await?;
    if let Some(state) = sqlite_state {
        share(&state.join(FILE))?;
    }
    if raw_sql("SELECT version FROM shop_version").fetch_all(&mut connection).await.is_ok() {
        return Ok(());
    }
    if let Some(state) = sqlite_state {
        let path = state.join("setup.lock");
        let lock = File::options().create(true).write(true).truncate(false).open(&path)?;
        share(&path)?;
        lock.lock()?;
        raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
        create_and_fill(&mut connection).await?;
    } else {
        raw_sql("SELECT GET_LOCK('shop_setup', 30)").fetch_all(&mut connection).await?;
        create_and_fill(&mut connection).await?;
        raw_sql("SELECT RELEASE_LOCK('shop_setup')").fetch_all(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

async fn create_and_fill(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    raw_sql(SCHEMA).execute(&mut *connection).await?;
    let mut transaction = connection.begin().await?;
    if raw_sql("SELECT id FROM products LIMIT 1").fetch_all(&mut *transaction).await?.is_empty() {
        raw_sql(SEED).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    // Created last: it is what tells a newcomer that the rest is there.
    raw_sql("CREATE TABLE IF NOT EXISTS shop_version (version INTEGER NOT NULL)").execute(connection).await?;
    Ok(())
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_| format!("{name}={text}: a number is needed")),
        _ => Ok(default),
    }
}
