//! The check `jwt`: a token that says who its bearer is, signed by somebody who is believed.
//!
//! A token is read (`jws.rs`), its key is found among those of the file or of the authority (`jwks.rs`),
//! its signature is verified (`key.rs`), and only then is looked at what it says. It must end some time.
//! Tokens signed with public keys are remembered by digest for as long as they hold, since such a
//! signature costs more than the rest of the request; when the authority's keys change, all of them are
//! verified anew.

pub(crate) mod jwks;
pub mod jws;
pub(crate) mod key;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::HeaderName;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use thread_local::ThreadLocal;

use self::jwks::{Jwks, NoKey};
use self::jws::{Claims, Unverified};
use self::key::{Algorithm, Family, Key, Keys};
use super::fetch::Fetcher;
use super::recent::{Digest, Recent};
use super::token::{self, NoToken, Place};
use super::{Identity, Refused, Subject, Verdict};
use crate::http::Answer;

/// Verified tokens that a worker remembers.
const REMEMBERED: usize = 4096;

/// `[check.NAME]` with `kind = "jwt"`, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) token: Vec<Place>,
    pub(crate) algorithms: Vec<Algorithm>,
    /// Those of the file.
    pub(crate) keys: Keys,
    pub(crate) jwks: Option<jwks::Settings>,
    /// Who may have made the token; empty: anybody with a key.
    pub(crate) issuer: Vec<String>,
    /// For whom it may have been made; empty: anybody.
    pub(crate) audience: Vec<String>,
    pub(crate) leeway: Duration,
    /// The claim that is the user's id.
    pub(crate) user: String,
    /// Further claims that the sides are told.
    pub(crate) fields: Vec<(HeaderName, String)>,
    pub(crate) max_bytes: usize,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Malformed,
    UnknownKey,
    Signature,
    Expired,
    Future,
    Issuer,
    Audience,
    Claim,
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
        }
    }
}

impl From<jws::Malformed> for Fault {
    fn from(_: jws::Malformed) -> Self {
        Self::Malformed
    }
}

/// Tokens that were found good.
#[derive(Debug)]
struct Remembered {
    /// The keys that the authority had when they were.
    keys: Option<Arc<Keys>>,
    tokens: Recent<Identity>,
}

/// The check.
pub(crate) struct Jwt {
    settings: Settings,
    authority: Option<Arc<Jwks>>,
    remembered: ThreadLocal<RefCell<Remembered>>,
}

impl Jwt {
    /// `fetcher` asks the authority, where the settings name one.
    pub(crate) fn new(settings: Settings, fetcher: Option<Fetcher>) -> Self {
        let authority = settings.jwks.clone().zip(fetcher).map(|(settings, fetcher)| Jwks::new(settings, fetcher));
        Self { settings, authority, remembered: ThreadLocal::new() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn examine(&self, subject: &Subject<'_>) -> Verdict {
        let refused = |fault: Fault| Verdict::Refuse(Refused::new(Answer::TokenRefused, fault.reason()));
        let token = match token::find(&self.settings.token, &subject.head.headers) {
            Ok(token) if token.len() <= self.settings.max_bytes => token,
            Ok(_) | Err(NoToken::Doubtful) => return refused(Fault::Malformed),
            Err(NoToken::Missing) => return refused(Fault::Missing),
        };
        let published = self.authority.as_ref().and_then(Jwks::current);
        let remembers = self.settings.algorithms.iter().any(|algorithm| algorithm.family() != Family::Secret);
        let name = remembers.then(|| name_of(token.as_bytes()));
        if let Some(identity) = name.and_then(|name| self.recall(&name, published.as_ref())) {
            return Verdict::Pass(Some(identity));
        }
        let (unverified, algorithm) = match self.read(token.as_bytes()) {
            Ok(read) => read,
            Err(fault) => return refused(fault),
        };
        let kid = unverified.kid.as_deref();
        let published = match (&self.authority, self.settings.keys.find(kid, algorithm)) {
            (_, Some(_)) => published,
            (None, None) => return refused(Fault::UnknownKey),
            (Some(authority), None) => match authority.with(kid, algorithm, subject.deadline).await {
                Ok(published) => Some(published),
                Err(NoKey::Unknown) => return refused(Fault::UnknownKey),
                Err(NoKey::Unavailable) => {
                    return Verdict::Refuse(Refused::new(Answer::CheckUnavailable, "authority_down"));
                }
            },
        };
        let found = || self.settings.keys.find(kid, algorithm).or_else(|| published.as_ref()?.find(kid, algorithm));
        let Some(key) = found() else { return refused(Fault::UnknownKey) };
        match self.judge(&unverified, algorithm, key, SystemTime::now()) {
            Ok((identity, left)) => {
                if let Some(name) = name {
                    self.remember(name, published.as_ref(), left, &identity);
                }
                Verdict::Pass(Some(identity))
            }
            Err(fault) => refused(fault),
        }
    }

    /// Reads a token that is signed in one of the ways that are accepted.
    fn read<'t>(&self, token: &'t [u8]) -> Result<(Unverified<'t>, Algorithm), Fault> {
        let unverified = Unverified::parse(token)?;
        let algorithm = Algorithm::named(&unverified.algorithm).ok_or(Fault::Malformed)?;
        if !self.settings.algorithms.contains(&algorithm) {
            return Err(Fault::Malformed);
        }
        Ok((unverified, algorithm))
    }

    /// Who the bearer is, and for how long that may be believed.
    fn judge(
        &self,
        unverified: &Unverified<'_>,
        algorithm: Algorithm,
        key: &Key,
        now: SystemTime,
    ) -> Result<(Identity, Duration), Fault> {
        if !key.verify(algorithm, unverified.message, &unverified.signature) {
            return Err(Fault::Signature);
        }
        let claims = unverified.claims()?;
        let left = self.time_left(&claims, now)?;
        self.check_names(&claims)?;
        Ok((self.identity(&claims)?, left))
    }

    fn time_left(&self, claims: &Claims, now: SystemTime) -> Result<Duration, Fault> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = self.settings.leeway.as_secs_f64();
        let moment = |name: &str| claims.seconds(name).map_err(|_| Fault::Claim);
        for beginning in ["nbf", "iat"] {
            if moment(beginning)?.is_some_and(|beginning| beginning > now + leeway) {
                return Err(Fault::Future);
            }
        }
        let left = moment("exp")?.ok_or(Fault::Claim)? + leeway - now;
        if left <= 0.0 {
            return Err(Fault::Expired);
        }
        // Whoever makes a token for centuries has it looked at once a day.
        Ok(Duration::from_secs_f64(left.min(86_400.0)))
    }

    fn check_names(&self, claims: &Claims) -> Result<(), Fault> {
        let Settings { issuer, audience, .. } = &self.settings;
        let among =
            |list: &[String], claim: &Value| claim.as_str().is_some_and(|name| list.iter().any(|one| one == name));
        if !issuer.is_empty() && !claims.at("iss").is_some_and(|claim| among(issuer, claim)) {
            return Err(Fault::Issuer);
        }
        let meant = match claims.at("aud") {
            _ if audience.is_empty() => true,
            Some(Value::Array(several)) => several.iter().any(|claim| among(audience, claim)),
            Some(claim) => among(audience, claim),
            None => false,
        };
        if meant { Ok(()) } else { Err(Fault::Audience) }
    }

    fn identity(&self, claims: &Claims) -> Result<Identity, Fault> {
        let user = match claims.at(&self.settings.user) {
            Some(claim @ (Value::String(_) | Value::Number(_))) => told(claim).filter(|user| !user.is_empty()),
            _ => None,
        };
        let mut fields = Vec::with_capacity(self.settings.fields.len());
        for (header, path) in &self.settings.fields {
            match claims.at(path) {
                None | Some(Value::Null) => {}
                Some(claim) => fields.push((header, told(claim).ok_or(Fault::Claim)?)),
            }
        }
        let user = user.ok_or(Fault::Claim)?;
        let fields = fields.iter().map(|(header, value)| (*header, value.as_bytes()));
        Identity::new(Some(user.as_bytes()), None, fields).map_err(|_| Fault::Claim)
    }

    fn recall(&self, name: &Digest, published: Option<&Arc<Keys>>) -> Option<Identity> {
        let mut remembered = self.remembered.get()?.borrow_mut();
        if !same(remembered.keys.as_ref(), published) {
            return None;
        }
        remembered.tokens.get(name, Instant::now())
    }

    fn remember(&self, name: Digest, published: Option<&Arc<Keys>>, left: Duration, identity: &Identity) {
        let fresh = || RefCell::new(Remembered { keys: None, tokens: Recent::new(REMEMBERED) });
        let mut remembered = self.remembered.get_or(fresh).borrow_mut();
        if !same(remembered.keys.as_ref(), published) {
            remembered.tokens.clear();
            remembered.keys = published.cloned();
        }
        remembered.tokens.put(name, Instant::now() + left, identity.clone());
    }
}

fn same(one: Option<&Arc<Keys>>, other: Option<&Arc<Keys>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn name_of(token: &[u8]) -> Digest {
    digest(&SHA256, token).as_ref().try_into().unwrap_or_default()
}

/// A claim as a header has it; several values are joined by `,`, which none of them may have.
fn told(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(set) => Some(set.to_string()),
        Value::Array(several) => {
            let several: Option<Vec<String>> = several
                .iter()
                .map(|one| match one {
                    Value::Array(_) => None,
                    one => told(one).filter(|text| !text.contains(',')),
                })
                .collect();
            Some(several?.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("settings", &self.settings).finish_non_exhaustive()
    }
}
