//! The login sessions, shared with PHP: its session files, or phpredis keys when `SESSION_STORE` says so.
//!
//! Reads are snapshots: PHP locks a session for as long as a request runs, and a reader that waited for the
//! lock would be as slow as PHP's slowest page. A session is written here only by a login, under an id
//! that nobody else knows yet. Of PHP's serialized values only those without classes are understood,
//! which is what the shop keeps; anything else is no session.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use redis::aio::ConnectionManager;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::share;

/// The cookie's name, as PHP has it.
const NAME: &str = "PHPSESSID";
/// Seconds a session lives unused, as `session.gc_maxlifetime` of the PHP side.
const LIFETIME: u64 = 86_400;
/// Nothing the shop keeps comes near this; a larger session is not read.
const BYTES_MAX: u64 = 1 << 20;
/// How deep arrays in a session may nest.
const DEPTH_MAX: u32 = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("session file")]
    File(#[from] io::Error),
    #[error("session in redis")]
    Redis(#[from] redis::RedisError),
    #[error("no random bytes")]
    Random(#[from] getrandom::Error),
}

#[derive(Clone)]
pub(crate) enum Sessions {
    Files(PathBuf),
    Redis(ConnectionManager),
}

impl Sessions {
    /// `SESSION_STORE`: `redis://…`, `php-files:/dir`, or by default the files below `state`.
    pub(crate) async fn connect(state: &Path) -> Result<Self, Error> {
        let store = env::var("SESSION_STORE").unwrap_or_default();
        if store.starts_with("redis") {
            return Ok(Self::Redis(ConnectionManager::new(redis::Client::open(store)?).await?));
        }
        let dir = store.strip_prefix("php-files:").map_or_else(|| state.join("sessions"), PathBuf::from);
        fs::create_dir_all(&dir)?;
        share(&dir)?;
        Ok(Self::Files(dir))
    }

    /// The user whose session the caller presents, if any; using a session keeps it alive.
    pub(crate) async fn user(&self, headers: &HeaderMap) -> Result<Option<i64>, Error> {
        let Some(id) = presented(headers) else { return Ok(None) };
        for attempt in 0..3 {
            if attempt > 0 {
                sleep(Duration::from_millis(2)).await;
            }
            let Some(data) = self.read(id).await? else { return Ok(None) };
            // What cannot be read may have been caught while PHP was writing it: that takes microseconds.
            if let Some(entries) = entries(&data) {
                return Ok(entries.iter().rev().find(|entry| entry.name == b"user_id").and_then(Entry::integer));
            }
        }
        tracing::warn!("a session holds what this side cannot read");
        Ok(None)
    }

    /// Begins a session of this user under a new id: one known before the login is worth nothing. What a
    /// visitor's session held (the cart) moves over.
    pub(crate) async fn login(&self, headers: &HeaderMap, user: i64) -> Result<String, Error> {
        let mut data = Vec::new();
        if let Some(old) = presented(headers) {
            let before = self.read(old).await?.unwrap_or_default();
            for entry in entries(&before).unwrap_or_default().iter().filter(|entry| entry.name != b"user_id") {
                data.extend_from_slice(entry.whole);
            }
            self.remove(old).await?;
        }
        data.extend_from_slice(format!("user_id|i:{user};").as_bytes());
        let id = new_id()?;
        self.create(&id, &data).await?;
        Ok(id)
    }

    pub(crate) async fn logout(&self, headers: &HeaderMap) -> Result<(), Error> {
        match presented(headers) {
            Some(id) => self.remove(id).await,
            None => Ok(()),
        }
    }

    async fn read(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Files(dir) => {
                let file = match File::open(file(dir, id)).await {
                    Ok(file) => file,
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let mut data = Vec::new();
                let mut limited = file.take(BYTES_MAX);
                limited.read_to_end(&mut data).await?;
                limited.into_inner().into_std().await.set_modified(SystemTime::now())?;
                Ok(Some(data))
            }
            Self::Redis(redis) => {
                let command = redis::cmd("GETEX").arg(key(id)).arg("EX").arg(LIFETIME).to_owned();
                Ok(command.query_async(&mut redis.clone()).await?)
            }
        }
    }

    async fn create(&self, id: &str, data: &[u8]) -> Result<(), Error> {
        match self {
            Self::Files(dir) => {
                let path = file(dir, id);
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await?;
                share(&path)?;
                file.write_all(data).await?;
                Ok(file.flush().await?)
            }
            Self::Redis(redis) => {
                let command = redis::cmd("SETEX").arg(key(id)).arg(LIFETIME).arg(data).to_owned();
                Ok(command.query_async(&mut redis.clone()).await?)
            }
        }
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        match self {
            Self::Files(dir) => match tokio::fs::remove_file(file(dir, id)).await {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
            Self::Redis(redis) => Ok(redis::cmd("DEL").arg(key(id)).query_async(&mut redis.clone()).await?),
        }
    }
}

/// The `Set-Cookie` that begins a session, as PHP writes it.
pub(crate) fn cookie(id: &str) -> String {
    format!("{NAME}={id}; path=/; HttpOnly; SameSite=Lax")
}

/// The `Set-Cookie` that ends one.
pub(crate) fn expired_cookie() -> String {
    format!("{NAME}=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; path=/; HttpOnly; SameSite=Lax")
}

fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("sess_{id}"))
}

fn key(id: &str) -> String {
    format!("PHPREDIS_SESSION:{id}")
}

/// 130 random bits in the letters PHP uses.
fn new_id() -> Result<String, Error> {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut bytes = [0; 26];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32))).map(|&letter| char::from(letter)).collect())
}

/// The id a caller names: mini-programs keep no cookies and send it in a header.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let id = match headers.get(AUTHORIZATION).or_else(|| headers.get("x-token")) {
        Some(token) => {
            let token = token.to_str().ok()?;
            token.strip_prefix("Bearer ").unwrap_or(token)
        }
        // The first cookie of the name counts, as in PHP.
        None => headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))?,
    };
    // The id becomes part of a file's name.
    let good = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b',' || byte == b'-');
    (good && (22..=250).contains(&id.len())).then_some(id)
}

/// One `name|value` of a session.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    name: &'a [u8],
    value: &'a [u8],
    whole: &'a [u8],
}

impl Entry<'_> {
    fn integer(&self) -> Option<i64> {
        let digits = self.value.strip_prefix(b"i:")?.strip_suffix(b";")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// A session in PHP's `php` format, taken apart; nothing when any of it is not understood.
fn entries(data: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut found = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let bar = rest.iter().position(|&byte| byte == b'|')?;
        let length = value_length(rest.get(bar + 1..)?, DEPTH_MAX)?;
        let (whole, after) = rest.split_at_checked(bar + 1 + length)?;
        found.push(Entry { name: rest.get(..bar)?, value: whole.get(bar + 1..)?, whole });
        rest = after;
    }
    Some(found)
}

/// How many bytes the serialized value at the front of `input` takes.
fn value_length(input: &[u8], depth: u32) -> Option<usize> {
    match input.first()? {
        b'N' => input.starts_with(b"N;").then_some(2),
        b'b' | b'i' | b'd' => Some(input.iter().position(|&byte| byte == b';')? + 1),
        b's' => {
            let (length, start) = count(input)?;
            let end = start.checked_add(length)?.checked_add(3)?;
            let quoted = input.get(start..end)?;
            (quoted.first() == Some(&b'"') && quoted.ends_with(b"\";")).then_some(end)
        }
        b'a' => {
            let depth = depth.checked_sub(1)?;
            let (elements, start) = count(input)?;
            let mut at = start + 1;
            for _ in 0..elements.checked_mul(2)? {
                at += value_length(input.get(at..)?, depth)?;
            }
            (input.get(start) == Some(&b'{') && input.get(at) == Some(&b'}')).then_some(at + 1)
        }
        _ => None,
    }
}

/// The number in `s:12:…` or `a:3:…`, and where what it counts begins.
fn count(input: &[u8]) -> Option<(usize, usize)> {
    let digits = input.get(2..)?.split(|&byte| byte == b':').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, 2 + digits.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_written_by_php_is_taken_apart() {
        let data = br#"cart|a:2:{i:3;i:2;s:1:"x";a:0:{}}note|s:15:"user_id|i:99;";";user_id|i:1;last|N;"#;
        let found = entries(data).unwrap();
        let names: Vec<_> = found.iter().map(|entry| String::from_utf8_lossy(entry.name)).collect();
        assert_eq!(names, ["cart", "note", "user_id", "last"]);
        assert_eq!(found[2].integer(), Some(1));
        assert_eq!(found.iter().flat_map(|entry| entry.whole).copied().collect::<Vec<_>>(), data);
    }

    #[test]
    fn what_is_cut_off_or_has_classes_is_no_session() {
        for data in ["user_id", "user_id|", "user_id|i:1", "a|s:9:\"x\";", "a|a:9999999999999:{", "a|O:1:\"C\":0:{}"] {
            assert_eq!(entries(data.as_bytes()), None, "{data}");
        }
        let deep = format!("a|{}{}", "a:1:{i:0;".repeat(100), "}".repeat(100));
        assert_eq!(entries(deep.as_bytes()), None);
    }

    #[test]
    fn only_an_id_that_php_could_have_made_is_looked_up() {
        let cookie = |value: &str| HeaderMap::from_iter([(COOKIE, value.parse().unwrap())]);
        let id = "0123456789abcdefghijklmnop";
        assert_eq!(presented(&cookie(&format!("a=b; PHPSESSID={id}; PHPSESSID=x"))), Some(id));
        assert_eq!(presented(&cookie("PHPSESSID=../../../../../etc/passwd")), None);
        assert_eq!(presented(&cookie(&format!("XPHPSESSID={id}"))), None);
        let token = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {id}").parse().unwrap())]);
        assert_eq!(presented(&token), Some(id));
    }
}
