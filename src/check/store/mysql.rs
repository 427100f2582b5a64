//! The tables of users that WordPress keeps in MySQL or MariaDB, read and never written.
//!
//! A key is a user's login, and its value what WordPress knows of that user, as a JSON object of the columns' names.
//! Every worker has a few connections of its own, each for one reading at a time; they are opened when they are
//! needed and kept. A reading goes on for a while when nobody waits for it any longer, so that a connection that is
//! slow to open is there for the next one. One that did not come to its end is closed.

use std::fmt;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value as Json};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use thread_local::ThreadLocal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::breaker::Breaker;
use super::{Failed, InFlight, LARGEST, in_time};

/// Connections of one worker.
const CONNECTIONS: usize = 4;
/// How long a reading may go on that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How an address begins.
const SCHEME: &str = "mysql://";
/// What is read of a user: whom it is, and what proves a login. The first four are never null.
const COLUMNS: [&str; 6] = ["ID", "user_login", "user_email", "user_pass", "session_tokens", "capabilities"];

/// A database, who connects to it, and the tables in it.
#[derive(Clone)]
pub(crate) struct MysqlAddress(Arc<Parsed>);

struct Parsed {
    /// As written, password included.
    text: String,
    ca: Option<Vec<u8>>,
    options: MySqlConnectOptions,
    table_prefix: String,
    statement: String,
}

impl MysqlAddress {
    /// Whether a text means to be one.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads an address. The tables are WordPress's own until they are [named](Self::with_tables).
    ///
    /// # Errors
    /// What is wrong with it, in words that hold neither user nor password.
    pub(crate) fn parse(text: &str, ca: Option<Vec<u8>>) -> Result<Self, String> {
        let mut options = MySqlConnectOptions::from_str(text)
            .map_err(|_| "it is no address: mysql://user@host:3306/NAME".to_owned())?;
        if options.get_database().is_none() {
            return Err("it does not say the database's name: mysql://user@host:3306/NAME".to_owned());
        }
        if let Some(ca) = &ca {
            options = options.ssl_ca_from_pem(ca.clone()).ssl_mode(MySqlSslMode::VerifyIdentity);
        }
        // Nothing is set in a connection that one statement does not need, and nothing of it is logged: it names users.
        let options =
            options.pipes_as_concat(false).no_engine_substitution(false).timezone(None).disable_statement_logging();
        let parsed =
            Parsed { text: text.to_owned(), ca, options, table_prefix: String::new(), statement: String::new() };
        Ok(Self(Arc::new(parsed)).with_tables("wp_"))
    }

    /// The same with the tables that begin so; `prefix` is letters, digits and underscores alone.
    pub(crate) fn with_tables(&self, prefix: &str) -> Self {
        // What is longer than any session is cut off, and then cannot be read.
        let longest = LARGEST / 4;
        let statement = format!(
            "SELECT CAST(u.ID AS CHAR), u.user_login, u.user_email, u.user_pass, \
             LEFT(t.meta_value, {longest}), LEFT(c.meta_value, {longest}) FROM {prefix}users u \
             LEFT JOIN {prefix}usermeta t ON t.user_id = u.ID AND t.meta_key = 'session_tokens' \
             LEFT JOIN {prefix}usermeta c ON c.user_id = u.ID AND c.meta_key = '{prefix}capabilities' \
             WHERE u.user_login = ? ORDER BY u.ID, t.umeta_id, c.umeta_id LIMIT 1"
        );
        Self(Arc::new(Parsed {
            text: self.0.text.clone(),
            ca: self.0.ca.clone(),
            options: self.0.options.clone(),
            table_prefix: prefix.to_owned(),
            statement,
        }))
    }
}

impl PartialEq for MysqlAddress {
    fn eq(&self, other: &Self) -> bool {
        let parts = |address: &Self| (address.0.text.clone(), address.0.ca.clone(), address.0.table_prefix.clone());
        parts(self) == parts(other)
    }
}

impl Eq for MysqlAddress {}

impl fmt::Display for MysqlAddress {
    /// For people: without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parsed { options, table_prefix, .. } = &*self.0;
        f.write_str(SCHEME)?;
        match options.get_socket() {
            Some(socket) => write!(f, "{}", socket.display())?,
            None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
        }
        write!(f, "/{}/{table_prefix}users", options.get_database().unwrap_or_default())
    }
}

impl fmt::Debug for MysqlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) struct Mysql {
    address: MysqlAddress,
    breaker: Breaker,
    workers: ThreadLocal<Arc<Worker>>,
}

/// What one worker has of it. Its connections belong to the worker's runtime.
struct Worker {
    /// Never waited for: only the worker's own thread takes it.
    idle: Mutex<Vec<MySqlConnection>>,
    places: Arc<Semaphore>,
}

impl Mysql {
    pub(super) fn new(address: MysqlAddress) -> Self {
        Self { address, breaker: Breaker::default(), workers: ThreadLocal::new() }
    }

    /// Reads a user's record.
    pub(super) async fn read(&self, login: &str, place: InFlight) -> Result<Option<Bytes>, Failed> {
        if !self.breaker.admits(Instant::now) {
            return Err(Failed::Rejected);
        }
        let worker = self.workers.get_or(|| Arc::new(Worker::new()));
        let read = in_time(async {
            let held = Arc::clone(&worker.places).acquire_owned().await.map_err(|_| Failed::Error)?;
            let reading =
                Reading { address: self.address.clone(), worker: Arc::clone(worker), login: login.to_owned() };
            tokio::task::spawn_local(reading.finish((held, place))).await.unwrap_or(Err(Failed::Error))
        });
        let read = read.await;
        match read {
            Err(Failed::Error | Failed::Timeout) => self.breaker.failed(&self.address, Instant::now()),
            // What the server refuses, or has in a form of no use, is an answer too.
            _ => self.breaker.succeeded(&self.address),
        }
        read
    }

    pub(super) fn is_up(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Connects and looks for nobody, whatever the breaker says.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let looked = tokio::time::timeout(PATIENCE * 2, async {
            let mut connection = self.address.0.options.connect().await?;
            row(&mut connection, &self.address, "").await?;
            connection.close().await
        });
        match looked.await {
            Ok(looked) => looked.map_err(|error| error.to_string()),
            Err(_) => Err("it gives no answer".to_owned()),
        }
    }
}

impl Worker {
    fn new() -> Self {
        Self { idle: Mutex::default(), places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    fn idle(&self) -> Option<MySqlConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: MySqlConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// One reading, whoever waits for it.
struct Reading {
    address: MysqlAddress,
    worker: Arc<Worker>,
    login: String,
}

impl Reading {
    async fn finish(self, _places: (OwnedSemaphorePermit, InFlight)) -> Result<Option<Bytes>, Failed> {
        tokio::time::timeout(PATIENCE, self.read()).await.unwrap_or(Err(Failed::Timeout))
    }

    async fn read(&self) -> Result<Option<Bytes>, Failed> {
        // The server closes what is idle for long, and all when it is started anew: it is not down for that.
        while let Some(connection) = self.worker.idle() {
            match self.read_over(connection).await {
                Err(Failed::Error) => {}
                done => return done,
            }
        }
        let connection = self.address.0.options.connect().await.map_err(|error| {
            tracing::warn!(store = %self.address, "cannot connect: {error}");
            Failed::Error
        })?;
        self.read_over(connection).await
    }

    async fn read_over(&self, mut connection: MySqlConnection) -> Result<Option<Bytes>, Failed> {
        let read = match row(&mut connection, &self.address, &self.login).await {
            Ok(row) => row.as_ref().map(record).transpose().map_err(|_| Failed::Unfit),
            Err(error) => Err(failed(&error, &self.address)),
        };
        if read != Err(Failed::Error) {
            self.worker.give_back(connection);
        }
        read
    }
}

async fn row(
    connection: &mut MySqlConnection,
    address: &MysqlAddress,
    login: &str,
) -> Result<Option<MySqlRow>, sqlx::Error> {
    // The prefix in it is the only thing that was configured, and has no characters that SQL means anything by.
    sqlx::query(AssertSqlSafe(address.0.statement.as_str())).bind(login).fetch_optional(connection).await
}

/// What an error says: of the connection, or that the server is well and does not do it.
fn failed(error: &sqlx::Error, address: &MysqlAddress) -> Failed {
    match error {
        // It is shutting down, or somebody ended this connection.
        sqlx::Error::Database(said) if matches!(said.code().as_deref(), Some("08S01" | "70100")) => Failed::Error,
        sqlx::Error::Database(_) => {
            tracing::warn!(store = %address, "cannot read: {error}");
            Failed::Refused
        }
        _ => Failed::Error,
    }
}

/// A row as JSON.
fn record(row: &MySqlRow) -> Result<Bytes, sqlx::Error> {
    let mut record = Map::with_capacity(COLUMNS.len());
    for (at, name) in COLUMNS.into_iter().enumerate() {
        let text: Option<String> = row.try_get(at)?;
        record.insert(name.to_owned(), text.map_or(Json::Null, Json::String));
    }
    Ok(Json::Object(record).to_string().into())
}

impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql").field("address", &self.address).field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_database_and_never_tells_who_connects() {
        let read = |text| MysqlAddress::parse(text, None);
        let address = read("mysql://ann:secret@db.example/shop").unwrap();
        assert_eq!(address.to_string(), "mysql://db.example:3306/shop/wp_users");
        assert_eq!(address.with_tables("blog_").to_string(), "mysql://db.example:3306/shop/blog_users");
        assert!(
            address != address.with_tables("blog_") && address == read("mysql://ann:secret@db.example/shop").unwrap()
        );
        assert_eq!(
            read("mysql://localhost/shop?socket=/run/db.sock").unwrap().to_string(),
            "mysql:///run/db.sock/shop/wp_users"
        );
        assert!(!format!("{:?} {:?}", address, Mysql::new(address.clone())).contains("secret"));
        for wrong in ["mysql://ann:secret@db.example", "mysql://ann:secret@db.example:x/shop", "mysql://"] {
            let fault = read(wrong).unwrap_err();
            assert!(!fault.contains("secret"), "{fault}");
        }
    }
}
