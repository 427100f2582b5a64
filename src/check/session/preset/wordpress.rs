//! WordPress: the cookie `wordpress_logged_in_<hash>`, which holds no session but proves a login.
//!
//! `user_login|expiration|token|hmac`, keyed with the site's salts and four characters of the user's password hash, so
//! that a new password ends all logins. It is good only as long as the token is among the user's `session_tokens`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::check::session::format::{FieldPath, Unreadable, Value, Wanted, php};
use crate::http::hex;

/// How much longer than it says a cookie is good for what was begun before: POST requests and those of scripts.
pub(crate) const GRACE_SECONDS: i64 = 3600;

/// `LOGGED_IN_KEY` and `LOGGED_IN_SALT`. Never shown.
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

    /// Whose it is, if it is genuine: the login under which the user's record is found.
    pub(crate) fn user_login(&self) -> &'c str {
        self.user_login
    }

    /// Whether its time is over, in seconds since 1970. `grace` as WordPress grants it: see [`GRACE_SECONDS`].
    pub(crate) fn is_expired(&self, now: i64, grace: i64) -> bool {
        self.expires.saturating_add(grace) < now
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
        let verifier = hex::text(&Sha256::digest(self.token.as_bytes()));
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
