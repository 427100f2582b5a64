//! Tokens of logins: what a client is given, and the id under which the store knows it.
//!
//! A token is 256 random bits, the store's id is its SHA-256: who reads the store cannot call in a
//! user's name. The two are told apart by how they begin, and both from the session ids of PHP: a
//! token has a `_`, which no id of PHP's has, and an id is one that PHP can open.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::http::hex;

/// How a token begins.
const TOKEN: &str = "sg_";
/// How the id begins under which a token is kept.
const ID: &str = "sg-";
/// The length of 256 bits in base64.
const LETTERS: usize = 43;

/// A new token.
pub(super) fn new() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode(bits)))
}

/// The id of the session of a token; `None`: it is no token of a login, but perhaps an id of PHP's.
pub(crate) fn id_of(token: &str) -> Option<String> {
    let random = token.strip_prefix(TOKEN)?;
    let good = random.len() == LETTERS && random.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    good.then(|| format!("{ID}{}", hex::text(&Sha256::digest(token))))
}

/// Whether this is the id of a login: nobody outside knows one, so that nobody who presents it is the user.
pub(crate) fn is_id(id: &str) -> bool {
    id.strip_prefix(ID).is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_under_what_does_not_tell_it() {
        let token = new().unwrap();
        let id = id_of(&token).unwrap();
        assert_ne!(new().unwrap(), token);
        assert!(is_id(&id) && !is_id(&token) && id_of(&id).is_none(), "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "PHP can open it: {id}");
        assert_eq!(id_of(&token).as_ref(), Some(&id));
    }

    #[test]
    fn an_id_of_php_is_no_token() {
        for id in ["0123456789abcdefghijklmnop", "sg_short", "", "sg_", &format!("sg_{}", "/".repeat(43))] {
            assert_eq!(id_of(id), None, "{id}");
        }
    }
}
