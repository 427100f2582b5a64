//! The keys that an authority publishes (JWKS, RFC 7517), kept fresh.
//!
//! They are fetched when the first token comes, then in the background, so that no request waits for
//! a rotation that was announced in time. A token with an unknown key has them fetched at once, but no
//! more than once a minute, since anybody can make up such tokens. While the authority is down the keys
//! stay in use for as long as `jwks_keep` says, and no longer. A fetch is a task of its own: a client
//! that leaves does not take it away from the others.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::http::{StatusCode, Uri};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::jws;
use super::key::{Algorithm, Key, Keys, Named};
use crate::check::fetch::Fetcher;

/// Between two fetches that made-up tokens can cause.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);
/// Between two fetches of an authority that does not answer.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// More keys than anybody rotates.
const MOST_KEYS: usize = 64;

/// `jwks` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) uri: Uri,
    /// Age at which keys are fetched anew.
    pub(crate) refresh: Duration,
    /// Age at which keys that could not be fetched anew are no longer believed.
    pub(crate) keep: Duration,
    /// How long fetching them may take.
    pub(crate) timeout: Duration,
}

/// The keys of one authority.
#[derive(Debug)]
pub(super) struct Jwks {
    settings: Settings,
    fetcher: Fetcher,
    held: RwLock<Held>,
    /// Held by whoever is fetching.
    fetching: Mutex<()>,
}

/// What is known of the authority now.
#[derive(Clone, Debug, Default)]
struct Held {
    keys: Option<Arc<Keys>>,
    /// When the keys came.
    fetched: Option<Instant>,
    /// When they were last asked for.
    tried: Option<Instant>,
    /// When they were last asked for because of an unknown key.
    sought: Option<Instant>,
    /// How often they have been asked for.
    times: u64,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The authority has none of that name.
    Unknown,
    /// The authority is down, and what it said is too old or never came.
    Unavailable,
}

impl Jwks {
    pub(super) fn new(settings: Settings, fetcher: Fetcher) -> Arc<Self> {
        Arc::new(Self { settings, fetcher, held: RwLock::default(), fetching: Mutex::new(()) })
    }

    /// The keys as they are, if they may still be used; has them fetched anew when it is time.
    pub(super) fn current(self: &Arc<Self>) -> Option<Arc<Keys>> {
        let held = self.held();
        let age = held.fetched?.elapsed();
        let pause = self.settings.refresh.min(FAILED_PAUSE);
        if age >= self.settings.refresh && older(held.tried, pause) && self.fetching.try_lock().is_ok() {
            tokio::task::spawn_local(Arc::clone(self).fetch(held.times));
        }
        held.keys.filter(|_| age < self.settings.keep)
    }

    /// The keys, among them the one that is asked for.
    pub(super) async fn with(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
        deadline: Instant,
    ) -> Result<Arc<Keys>, NoKey> {
        let has = |keys: &Arc<Keys>| keys.find(kid, algorithm).is_some();
        let (current, held) = (self.current(), self.held());
        match current {
            Some(keys) if has(&keys) => return Ok(keys),
            Some(_) if !older(held.sought, UNKNOWN_PAUSE) => return Err(NoKey::Unknown),
            Some(_) => self.change(|held| held.sought = Some(Instant::now())),
            // Whoever waits for a fetch that is under way has the next one's turn already.
            None if !older(held.tried, FAILED_PAUSE) && self.fetching.try_lock().is_ok() => {
                return Err(NoKey::Unavailable);
            }
            None => {}
        }
        let fetch = tokio::task::spawn_local(Arc::clone(self).fetch(held.times));
        let _ = timeout_at(deadline, fetch).await;
        match self.current() {
            Some(keys) if has(&keys) => Ok(keys),
            Some(_) => Err(NoKey::Unknown),
            None => Err(NoKey::Unavailable),
        }
    }

    /// Fetches the keys, unless somebody else has done so since it was the `times`th time.
    async fn fetch(self: Arc<Self>, times: u64) {
        let _one_at_a_time = self.fetching.lock().await;
        if self.held().times != times {
            return;
        }
        let asked = self.ask().await;
        self.change(|held| {
            held.tried = Some(Instant::now());
            held.times += 1;
        });
        match asked {
            Ok(keys) => self.change(|held| {
                held.fetched = Some(Instant::now());
                // The very same ones stay: what was verified by them stays verified.
                if held.keys.as_deref() != Some(&keys) {
                    held.keys = Some(Arc::new(keys));
                }
            }),
            Err(why) => tracing::warn!(host = self.settings.uri.host(), "cannot get the keys of tokens: {why}"),
        }
    }

    async fn ask(&self) -> Result<Keys, String> {
        let answer = self.fetcher.get(self.settings.uri.clone()).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("the authority answers {}", answer.status));
        }
        read(&answer.body).ok_or_else(|| "the answer is no set of keys that could be used".to_owned())
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn older(moment: Option<Instant>, than: Duration) -> bool {
    moment.is_none_or(|moment| moment.elapsed() >= than)
}

/// The keys of a set that verify signatures; `None`: it is no set, or has no such key.
fn read(json: &[u8]) -> Option<Keys> {
    let set = jws::object(json).ok()?;
    let text = |jwk: &Value, name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
    let keys = set.get("keys")?.as_array()?.iter().take(MOST_KEYS);
    let usable = keys.filter(|jwk| text(jwk, "use").is_none_or(|is| is == "sig")).filter_map(|jwk| {
        let only = match text(jwk, "alg") {
            Some(name) => Some(Algorithm::named(&name)?),
            None => None,
        };
        Some(Named { kid: text(jwk, "kid").map(Into::into), only, key: Key::of_jwk(jwk).ok()? })
    });
    Some(Keys(usable.collect())).filter(|keys| !keys.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::key::Family;
    use super::*;

    #[test]
    fn of_a_set_the_keys_that_can_be_used_are_taken() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let set = format!(
            r#"{{"keys":[{{"kty":"oct","k":"c2VjcmV0","kid":"s"}},
                {{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"a","use":"sig"}},
                {{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"b","use":"enc"}},
                {{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"c","alg":"ES512"}},
                {{"kty":"OKP","crv":"X25519","x":"{x}","kid":"d"}},
                {{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"small"}},{{}},7]}}"#
        );
        let keys = read(set.as_bytes()).unwrap();
        let kids: Vec<_> = keys.0.iter().map(|named| (named.kid.as_deref().unwrap(), named.key.family())).collect();
        assert_eq!(kids, [("a", Family::Ed25519)]);
        for nothing in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>"] {
            assert_eq!(read(nothing.as_bytes()), None);
        }
    }
}
