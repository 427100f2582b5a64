//! WordPress: the cookie `wordpress_logged_in_<hash>`, which holds no session but proves a login.
//!
//! `user_login|expiration|token|hmac`, keyed with the site's salts and four characters of the user's password hash, so
//! that a new password ends all logins. It is good only as long as the token is among the user's `session_tokens`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::check::session::format::{FieldPath, Fields, Format, Unreadable, Value, Wanted, php};
use crate::http::hex;

/// A site, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WordPress {
    pub(crate) salt: Salt,
}

/// What says who a user is.
pub(crate) fn user_path() -> FieldPath {
    FieldPath::of(&["ID"])
}

/// The name of the cookie, which the site's address (`siteurl`) is part of.
pub(crate) fn cookie_name(site_url: &str) -> String {
    format!("wordpress_logged_in_{}", hex::text(&Md5::digest(site_url)))
}

impl WordPress {
    /// The login under which the store has the user whom a cookie, that is one, is about.
    pub(super) fn login<'c>(&self, cookie: &'c str) -> &'c str {
        LoginCookie::parse(cookie).map_or("", |cookie| cookie.user_login)
    }

    /// The session that a cookie names, without what proves it.
    pub(super) fn session(&self, cookie: &str) -> String {
        LoginCookie::parse(cookie).map_or_else(|_| String::new(), |cookie| cookie.verifier())
    }

    /// Why a cookie logs nobody in although it names a user; `None`: it does.
    pub(super) fn objection(&self, cookie: &str, record: &[u8], now: i64) -> Result<Option<&'static str>, Unreadable> {
        let (cookie, record) = (LoginCookie::parse(cookie)?, Record::read(record)?);
        Ok(if cookie.is_expired(now) {
            Some("expired")
        } else if !cookie.is_genuine(record.text("user_pass"), &self.salt)? {
            Some("signature")
        } else if !cookie.is_among(record.text("session_tokens").as_bytes(), now)? {
            Some("unknown")
        } else {
            None
        })
    }

    /// What may be told of a user: `ID`, `user_login`, `user_email` and `roles`.
    pub(super) fn read(record: &[u8], wanted: &Wanted) -> Result<Fields<'static>, Unreadable> {
        let record = Record::read(record)?;
        let mut told: Map<String, Json> = ["ID", "user_login", "user_email"]
            .map(|name| (name.to_owned(), record.text(name).into()))
            .into_iter()
            .collect();
        told.insert("roles".to_owned(), roles(record.text("capabilities"))?.into());
        Ok(Format::Json.read(Json::Object(told).to_string().as_bytes(), wanted)?.into_owned())
    }
}

/// What the database has of a user.
struct Record(Json);

impl Record {
    fn read(record: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(record).map(Self).map_err(|_| Unreadable("the user's record is not JSON"))
    }

    /// A column; what is not there is empty.
    fn text(&self, column: &str) -> &str {
        self.0.get(column).and_then(Json::as_str).unwrap_or_default()
    }
}

/// The names in a user's capabilities that are granted: roles, and what this user alone was given. Nothing at all is
/// none.
fn roles(capabilities: &str) -> Result<Vec<&str>, Unreadable> {
    const UNREADABLE: Unreadable = Unreadable("the capabilities are not names that are granted or not");
    let mut roles = Vec::new();
    if capabilities.is_empty() {
        return Ok(roles);
    }
    let (_, inner) = capabilities.strip_prefix("a:").and_then(|rest| rest.split_once(":{")).ok_or(UNREADABLE)?;
    let mut rest = inner.strip_suffix('}').ok_or(UNREADABLE)?;
    while !rest.is_empty() {
        let (length, text) = rest.strip_prefix("s:").and_then(|rest| rest.split_once(":\"")).ok_or(UNREADABLE)?;
        let length: usize = length.parse().map_err(|_| UNREADABLE)?;
        let name = text.get(..length).ok_or(UNREADABLE)?;
        let after = text.get(length..).and_then(|after| after.strip_prefix("\";")).ok_or(UNREADABLE)?;
        let granted;
        (granted, rest) = after.split_once(';').ok_or(UNREADABLE)?;
        match granted {
            "b:1" | "i:1" | "s:1:\"1\"" => roles.push(name),
            "b:0" | "i:0" | "N" => {}
            _ => return Err(UNREADABLE),
        }
    }
    Ok(roles)
}

/// `LOGGED_IN_KEY` and `LOGGED_IN_SALT`. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Salt(Vec<u8>);

impl Salt {
    /// Nothing when WordPress would not take them from its configuration either, but from its database.
    pub(crate) fn new(key: &str, salt: &str) -> Option<Self> {
        let usable = |text: &str| !matches!(text, "" | "put your unique phrase here");
        (usable(key) && usable(salt) && key != salt).then(|| Self([key, salt].concat().into_bytes()))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

/// A cookie that says who it is for: not yet that it is true.
pub(crate) struct LoginCookie<'c> {
    user_login: &'c str,
    expiration: &'c str,
    expires: i64,
    token: &'c str,
    hmac: &'c str,
}

impl<'c> LoginCookie<'c> {
    /// Whether a text can be one: no login of WordPress's is longer than 60 characters.
    pub(crate) fn is_one(value: &str) -> bool {
        value.len() <= 512 && LoginCookie::parse(value).is_ok()
    }

    pub(crate) fn parse(value: &'c str) -> Result<Self, Unreadable> {
        let parts: Vec<&str> = value.splitn(5, '|').collect();
        let &[user_login, expiration, token, hmac] = parts.as_slice() else {
            return Err(Unreadable("the cookie has not four parts"));
        };
        // PHP would make a number of anything; WordPress itself writes digits.
        let digits = !expiration.is_empty() && expiration.bytes().all(|byte| byte.is_ascii_digit());
        let expires =
            expiration.parse().ok().filter(|_| digits).ok_or(Unreadable("the cookie does not say how long"))?;
        Ok(Self { user_login, expiration, expires, token, hmac })
    }

    /// Whose session it names, as the database keeps it.
    pub(crate) fn verifier(&self) -> String {
        hex::text(&Sha256::digest(self.token.as_bytes()))
    }

    /// Whether its time is over, in seconds since 1970. WordPress grants requests that send something an hour more, but
    /// not the token, which ends with the cookie.
    pub(crate) fn is_expired(&self, now: i64) -> bool {
        self.expires < now
    }

    /// Whether this site gave it out to the user with this password hash.
    ///
    /// # Errors
    /// Which part of the hash counts depends on WordPress's version.
    pub(crate) fn is_genuine(&self, password_hash: &str, salt: &Salt) -> Result<bool, Unreadable> {
        let Self { user_login, expiration, token, hmac, .. } = self;
        let fragment = fragment(password_hash)?;
        let signed = format!("{user_login}|{expiration}|{token}");
        let keyed = [user_login.as_bytes(), b"|", fragment, b"|", expiration.as_bytes(), b"|", token.as_bytes()];
        let (Ok(mut key), keyed) = (Hmac::<Md5>::new_from_slice(&salt.0), keyed.concat()) else { return Ok(false) };
        key.update(&keyed);
        // Its hexadecimal text is the key, not the bytes it stands for.
        let Ok(mut expected) = Hmac::<Sha256>::new_from_slice(hex::text(&key.finalize().into_bytes()).as_bytes())
        else {
            return Ok(false);
        };
        expected.update(signed.as_bytes());
        Ok(hex::text(&expected.finalize().into_bytes()).as_bytes().ct_eq(hmac.as_bytes()).into())
    }

    /// Whether the user's `session_tokens` (the value of `wp_usermeta`) still have it.
    pub(crate) fn is_among(&self, session_tokens: &[u8], now: i64) -> Result<bool, Unreadable> {
        if session_tokens.is_empty() {
            return Ok(false);
        }
        let verifier = self.verifier();
        let expires = |path: &[&str]| {
            let fields = php::unserialize(session_tokens, &Wanted::one(FieldPath::of(path)))?;
            Ok(match fields.get(0) {
                Some(Value::Int(expires)) => Some(*expires),
                _ => None,
            })
        };
        // Old ones are the time alone.
        let until = match expires(&[&verifier, "expiration"])? {
            None => expires(&[&verifier])?,
            found => found,
        };
        Ok(until.is_some_and(|until| until >= now))
    }
}

impl fmt::Debug for LoginCookie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCookie").field("user_login", &self.user_login).finish_non_exhaustive()
    }
}

/// The four characters of a password hash that go into the key. WordPress 6.8 hashes anew (`$wp$2y$`), and since then
/// takes the last four of all that it did not make before.
fn fragment(password_hash: &str) -> Result<&[u8], Unreadable> {
    let hash = password_hash.as_bytes();
    let fragment = if hash.starts_with(b"$P$") || hash.starts_with(b"$2y$") {
        hash.get(8..12)
    } else if hash.starts_with(b"$wp$") {
        hash.last_chunk::<4>().map(<[u8; 4]>::as_slice)
    } else {
        None
    };
    fragment.ok_or(Unreadable("the password's hash is of no kind that all versions of WordPress treat alike"))
}
