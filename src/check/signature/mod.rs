//! Signed requests: made by somebody who has a key, just now, and not heard before.
//!
//! Two schemes: a mac over a string that `string` describes ([`string`]), and HTTP Message Signatures
//! ([`rfc9421`]). What both share is here: the body is received whole before it is believed, the same
//! work is done and the same answer given whatever does not hold, and the nonce is spent last, when
//! all else holds. Why a request was refused is in the log and the metrics, never in the answer.
//!
//! What stays open, and is not this file's to close: a scheme whose string leaves out method or path
//! lets a signed request be sent elsewhere, once.

pub mod algorithm;
pub(crate) mod fields;
mod keys;
mod nonce;
pub mod parameters;
pub mod rfc9421;
mod string;
pub(crate) mod template;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{HeaderMap, HeaderName, Uri, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use tokio::time::timeout_at;

use self::algorithm::Mac;
pub(crate) use self::keys::{Apps, KeySettings, KeyUses, Secret};
use self::keys::{Counted, KeyFault, MacKeys, Named};
pub(crate) use self::nonce::{Memory, OnStoreDown};
use self::nonce::{Nonces, Spending, mark};
use self::parameters::Ambiguous;
use self::rfc9421::{ContentDigest, Message, MessageKeys};
pub(crate) use self::rfc9421::{Profile, key_fault};
pub(crate) use self::string::StringScheme;
use self::string::{Claim, Digest, View};
use super::clock::now;
use super::store::Address;
use super::{Identity, Refused, Store, Subject, Verdict};
use crate::http::{Answer, BodyFault, hex};
use crate::spool::{Disk, Fault, Spooled};

/// `[check.NAME]` with `kind = "signature"`, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) scheme: SchemeSettings,
    pub(crate) apps: Apps,
    /// How far a timestamp may be from the clock, either way.
    pub(crate) window: Duration,
    pub(crate) nonces: NonceSettings,
    pub(crate) spool_memory: u64,
    pub(crate) spool_disk: u64,
}

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SchemeSettings {
    /// A mac over a string.
    String(Box<StringScheme>),
    /// HTTP Message Signatures.
    Rfc9421(Profile),
}

/// Where spent nonces are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NonceSettings {
    /// Nowhere: none is asked for, and a request can be sent again within its window.
    Off,
    /// In this process, up to `capacity`; and in a store, if the address is that of one.
    Kept { address: Address, capacity: usize, on_store_down: OnStoreDown },
}

/// The step at which a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// App, timestamp, nonce or signature is not there.
    Missing,
    /// One of them is there twice, or not what it must be.
    Malformed,
    /// The parameters have no one reading.
    Ambiguous,
    /// The body is not the one that was signed, or none was signed.
    Digest,
    /// Nobody has this key.
    UnknownKey,
    /// The key's time is over.
    RetiredKey,
    /// The signature is not that of the request.
    Signature,
    /// Not all is covered that must be.
    Uncovered,
    /// Signed too long ago.
    Stale,
    /// Signed in the future.
    Future,
    /// Signed before this process, or the store, can have known all nonces.
    Restarted,
    /// Accepted before.
    Replay,
    /// No room to remember another nonce.
    NoncesFull,
    /// The store of nonces gives no answer, or takes nothing more.
    StoreDown,
}

impl Step {
    /// The `reason` in metrics and logs.
    fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Digest => "digest",
            Self::UnknownKey => "unknown_key",
            Self::RetiredKey => "retired_key",
            Self::Signature => "signature",
            Self::Uncovered => "uncovered",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Restarted => "restarted",
            Self::Replay => "replay",
            Self::NoncesFull => "nonces_full",
            Self::StoreDown => "store_down",
        }
    }
}

impl From<Step> for Refused {
    /// One answer for all that is wrong with a request; that a store is down is no fault of its client's.
    fn from(step: Step) -> Self {
        let answer = if step == Step::StoreDown { Answer::CheckUnavailable } else { Answer::SignatureRefused };
        Self::new(answer, step.reason())
    }
}

impl From<Ambiguous> for Step {
    fn from(_: Ambiguous) -> Self {
        Self::Ambiguous
    }
}

impl From<fields::Twice> for Step {
    fn from(_: fields::Twice) -> Self {
        Self::Malformed
    }
}

impl From<KeyFault> for Step {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Unknown => Self::UnknownKey,
            KeyFault::Retired => Self::RetiredKey,
            KeyFault::Wrong => Self::Signature,
        }
    }
}

/// The keys, ready for the scheme.
#[derive(Debug)]
enum Scheme {
    String(Box<StringScheme>, Box<MacKeys>),
    Rfc9421(Profile, MessageKeys),
}

/// A check of signatures.
#[derive(Debug)]
pub(crate) struct Signature {
    settings: Settings,
    scheme: Scheme,
    uses: KeyUses,
    nonces: Option<Nonces>,
    disk: Arc<Disk>,
}

/// What holds of a request whose signature was found good.
struct Good<'s> {
    key: &'s Named,
    spending: Spending,
}

impl Signature {
    /// A check by these settings, with the store that they name and the memory of all checks. The uses that `running`
    /// has counted go on.
    pub(crate) fn new(settings: Settings, memory: &Arc<Memory>, store: Option<Store>, running: Option<&Self>) -> Self {
        let mut uses = KeyUses::new();
        let counted = running.map(|running| Counted { apps: &running.settings.apps, uses: &running.uses });
        let scheme = match &settings.scheme {
            SchemeSettings::String(scheme) => {
                let keys = MacKeys::new(scheme.algorithm, &settings.apps, counted, &mut uses);
                Scheme::String(scheme.clone(), Box::new(keys))
            }
            SchemeSettings::Rfc9421(profile) => {
                Scheme::Rfc9421(profile.clone(), MessageKeys::new(&settings.apps, counted, &mut uses))
            }
        };
        let nonces = match settings.nonces {
            NonceSettings::Off => None,
            NonceSettings::Kept { capacity, on_store_down, .. } => {
                let known = running.and_then(|old| old.nonces.as_ref());
                Some(Nonces::new(Arc::clone(memory), capacity, store, on_store_down, settings.window, known))
            }
        };
        let disk = match running {
            Some(old) if old.settings.spool_disk == settings.spool_disk => Arc::clone(&old.disk),
            _ => Disk::new(settings.spool_disk),
        };
        Self { settings, scheme, uses, nonces, disk }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where nonces are kept in this process, if they are.
    pub(crate) fn memory(&self) -> Option<&Arc<Memory>> {
        self.nonces.as_ref().map(Nonces::memory)
    }

    /// Where nonces are kept for all gateways, if they are.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.nonces.as_ref()?.store()
    }

    /// How often each key opened a signature, by its id.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&str, u64)> {
        self.uses.iter().map(|(id, uses)| (&**id, uses.total()))
    }

    /// Says whether the request may pass.
    pub(crate) async fn examine(&self, subject: &mut Subject<'_>) -> Verdict {
        match self.accept(subject).await {
            Ok(identity) => Verdict::Pass(identity),
            Err(refused) => Verdict::Refuse(refused),
        }
    }

    async fn accept(&self, subject: &mut Subject<'_>) -> Result<Option<Identity>, Refused> {
        let body = self.receive(subject).await?;
        let good = match &self.scheme {
            Scheme::String(scheme, keys) => self.by_string(scheme, keys, subject, &body).await?,
            Scheme::Rfc9421(profile, keys) => self.by_message(profile, keys, subject, &body).await?,
        };
        if let Some(nonces) = &self.nonces {
            nonces.spend(good.spending).await?;
        }
        good.key.uses.add();
        Ok(good.key.identity.clone())
    }

    /// The whole body, kept for the side as well.
    async fn receive(&self, subject: &mut Subject<'_>) -> Result<Spooled, Refused> {
        if subject.body.declared_length() == Some(0) {
            return Ok(Spooled::Empty);
        }
        let receiving = subject.body.keep(self.settings.spool_memory, &self.disk);
        let received = timeout_at(subject.deadline, receiving).await;
        let fault = |fault: BodyFault| {
            if let BodyFault::Spool(Fault::Disk(error)) = &fault {
                tracing::warn!(request_id = ?subject.request_id, %error, "cannot keep the body of a signed request");
            }
            Refused::new(fault.answer(), "body")
        };
        received.map_err(|_| Refused::new(Answer::DeadlinePassed, "body"))?.map_err(fault)
    }

    /// A mac over a string.
    async fn by_string<'s>(
        &'s self,
        scheme: &StringScheme,
        keys: &'s MacKeys,
        subject: &Subject<'_>,
        body: &Spooled,
    ) -> Result<Good<'s>, Refused> {
        let view = view(subject.head, subject.host.as_str());
        let form = match body {
            _ if !scheme.signs_forms() || !is_form(view.headers) => &[],
            Spooled::Empty => &[],
            Spooled::Memory(bytes) => &**bytes,
            // Parameters are read in memory, and a form is no place for more.
            Spooled::File(_) => return Err(Refused::new(Answer::BodyTooLarge, "body")),
        };
        let parameters = scheme.parameters(&view, form)?;
        let unsigned = form.is_empty() && body.length() > 0;
        let digest = if unsigned || scheme.wants_digest(&parameters, view.headers) {
            Some(hex::text(digest_of(&digest::SHA256, body).await?.as_ref()))
        } else {
            None
        };
        let digest = digest.as_deref().map_or(Digest::NotNeeded, Digest::Of);
        let claim = scheme.claim(&view, &parameters, digest, self.nonces.is_some())?;
        let given = Mac::read(claim.signature, scheme.algorithm, scheme.encoding);
        let now = now();
        let key = keys.opened_by(claim.app, &claim.string, &given, now).map_err(Step::from)?;
        self.in_time(claim.timestamp, now)?;
        // Where parts touch, the same string can be read as that of another nonce: then it is the string that counts.
        let once = if scheme.template.touching() { given.bytes() } else { claim.nonce };
        let (mark, safe) = (mark(&key.app, once), subject.head.method.is_safe());
        Ok(Good { key, spending: Spending { mark, timestamp: claim.timestamp, safe, now } })
    }

    /// An HTTP Message Signature.
    async fn by_message<'s>(
        &'s self,
        profile: &Profile,
        keys: &'s MessageKeys,
        subject: &Subject<'_>,
        body: &Spooled,
    ) -> Result<Good<'s>, Refused> {
        let message = message(subject.head, subject.client.https);
        let signed = rfc9421::read(&message, profile.tag.as_deref()).map_err(Step::from)?;
        let now = now();
        let key = keys.opened_by(&signed, now);
        let digest = if body.length() > 0 { content_digest_holds(message.headers, body).await? } else { true };
        let key = key.map_err(Step::from)?;
        if !profile.is_met_by(&signed.covered, body.length() > 0) {
            return Err(Step::Uncovered.into());
        }
        if !digest {
            return Err(Step::Digest.into());
        }
        let created = signed.created.ok_or(Step::Missing)?;
        self.in_time(created, now)?;
        if signed.expires.is_some_and(|expires| now > expires) {
            return Err(Step::Stale.into());
        }
        let nonce = match (signed.nonce, &self.nonces) {
            (None, Some(_)) => return Err(Step::Missing.into()),
            (nonce, _) => nonce.unwrap_or_default(),
        };
        let (mark, safe) = (mark(&key.app, nonce.as_bytes()), subject.head.method.is_safe());
        Ok(Good { key, spending: Spending { mark, timestamp: created, safe, now } })
    }

    fn in_time(&self, timestamp: u64, now: u64) -> Result<(), Step> {
        let window = self.settings.window.as_secs();
        if timestamp.saturating_add(window) < now {
            return Err(Step::Stale);
        }
        if timestamp > now.saturating_add(window) { Err(Step::Future) } else { Ok(()) }
    }
}

/// A request that is about to be signed.
#[derive(Debug)]
pub(crate) struct Unsigned {
    pub(crate) head: request::Parts,
    pub(crate) host: String,
    pub(crate) body: Vec<u8>,
    pub(crate) app: String,
    pub(crate) timestamp: u64,
    pub(crate) nonce: String,
}

/// A request that was signed.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    pub(crate) head: request::Parts,
    /// What was signed, byte for byte.
    pub(crate) string: Vec<u8>,
    pub(crate) signature: String,
    /// The id of the key.
    pub(crate) key: String,
}

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotSign {
    #[error("there is no key of \"{0}\"")]
    NoKey(String),
    #[error("the key of \"{0}\" is a public one: it checks signatures and makes none")]
    PublicKey(String),
    #[error("the request cannot be signed: {0}")]
    Refused(&'static str),
    #[error("a field that no request can carry")]
    Field,
}

impl Signature {
    /// Signs a request as a client would.
    pub(crate) fn sign(&self, mut unsigned: Unsigned) -> Result<SignedRequest, CannotSign> {
        if !self.settings.apps.contains_key(&unsigned.app) {
            return Err(CannotSign::NoKey(unsigned.app));
        }
        match &self.scheme {
            Scheme::String(scheme, keys) => sign_string(scheme, keys, &mut unsigned, self.nonces.is_some())
                .map(|(string, signature, key)| SignedRequest { head: unsigned.head, string, signature, key }),
            Scheme::Rfc9421(profile, keys) => sign_message(profile, keys, &mut unsigned)
                .map(|(string, signature, key)| SignedRequest { head: unsigned.head, string, signature, key }),
        }
    }
}

type Made = (Vec<u8>, String, String);

fn sign_string(
    scheme: &StringScheme,
    keys: &MacKeys,
    unsigned: &mut Unsigned,
    with_nonce: bool,
) -> Result<Made, CannotSign> {
    let digest = hex::text(digest::digest(&digest::SHA256, &unsigned.body).as_ref());
    let form = scheme.signs_forms() && is_form(&unsigned.head.headers);
    let fields = &scheme.fields;
    let declares = !unsigned.body.is_empty() && !form && scheme.digest_is_declared();
    let mut given = vec![(&fields.app, unsigned.app.clone()), (&fields.timestamp, unsigned.timestamp.to_string())];
    if with_nonce {
        given.push((&fields.nonce, unsigned.nonce.clone()));
    }
    if declares {
        given.push((&fields.body_sha256, digest.clone()));
    }
    for (place, value) in given {
        put(&mut unsigned.head, place, &value)?;
    }
    // A stand-in, since a claim has to have one; it is taken out again.
    let before = unsigned.head.clone();
    put(&mut unsigned.head, &fields.signature, "0")?;
    let view = view(&unsigned.head, &unsigned.host);
    let parameters = scheme.parameters(&view, if form { &unsigned.body } else { b"" }).map_err(refused)?;
    let needed = !unsigned.body.is_empty() && !form || scheme.wants_digest(&parameters, view.headers);
    let digest = if needed { Digest::Of(&digest) } else { Digest::NotNeeded };
    let Claim { string, .. } = scheme.claim(&view, &parameters, digest, with_nonce).map_err(refused)?;
    let (mac, key) =
        keys.sign(unsigned.app.as_bytes(), &string).ok_or_else(|| CannotSign::NoKey(unsigned.app.clone()))?;
    let signature = mac.write(scheme.encoding);
    unsigned.head = before;
    put(&mut unsigned.head, &fields.signature, &signature)?;
    Ok((string, signature, key.id.to_string()))
}

fn sign_message(profile: &Profile, keys: &MessageKeys, unsigned: &mut Unsigned) -> Result<Made, CannotSign> {
    let mut components: Vec<String> = match &*profile.components {
        [] => ["@method", "@authority", "@path", "@query"].map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    if !unsigned.body.is_empty() {
        let digest = STANDARD.encode(digest::digest(&digest::SHA256, &unsigned.body));
        insert(&mut unsigned.head, "content-digest", &format!("sha-256=:{digest}:"))?;
        if !components.iter().any(|name| name == "content-digest") {
            components.push("content-digest".to_owned());
        }
    }
    let names: Vec<String> = components.iter().map(|name| format!("\"{name}\"")).collect();
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut input = format!(
        "sig1=({});created={};keyid=\"{}\";nonce=\"{}\"",
        names.join(" "),
        unsigned.timestamp,
        quoted(&unsigned.app),
        quoted(&unsigned.nonce)
    );
    if let Some(tag) = &profile.tag {
        input.push_str(&format!(";tag=\"{}\"", quoted(tag)));
    }
    insert(&mut unsigned.head, "signature-input", &input)?;
    insert(&mut unsigned.head, "signature", "sig1=:AAAA:")?;
    if !unsigned.head.headers.contains_key(HOST) {
        // With the port, where the target names one: it is part of `@authority`.
        let authority = unsigned.head.uri.authority().map(|authority| authority.as_str().to_owned());
        insert(&mut unsigned.head, "host", authority.as_deref().unwrap_or(&unsigned.host.clone()))?;
    }
    let message = message(&unsigned.head, unsigned.head.uri.scheme_str() == Some("https"));
    let signed = rfc9421::read(&message, profile.tag.as_deref()).map_err(|unread| refused(unread.into()))?;
    let (bytes, key) =
        keys.sign(&unsigned.app, &signed.base).ok_or_else(|| CannotSign::PublicKey(unsigned.app.clone()))?;
    let signature = STANDARD.encode(bytes);
    insert(&mut unsigned.head, "signature", &format!("sig1=:{signature}:"))?;
    Ok((signed.base.into_bytes(), signature, key.id.to_string()))
}

fn refused(step: Step) -> CannotSign {
    CannotSign::Refused(step.reason())
}

/// Puts a field where a client would put it: a parameter where it may be one.
fn put(head: &mut request::Parts, place: &fields::FieldPlace, value: &str) -> Result<(), CannotSign> {
    let Some(name) = place.parameter() else {
        let header = place.header().map_or("", HeaderName::as_str).to_owned();
        return insert(head, &header, value);
    };
    let mut target = head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes().to_vec();
    target.push(if head.uri.query().is_some() { b'&' } else { b'?' });
    parameters::encode(name.as_bytes(), &mut target);
    target.push(b'=');
    parameters::encode(value.as_bytes(), &mut target);
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.path_and_query = Some(target.as_slice().try_into().map_err(|_| CannotSign::Field)?);
    head.uri = Uri::from_parts(uri).map_err(|_| CannotSign::Field)?;
    Ok(())
}

fn insert(head: &mut request::Parts, name: &str, value: &str) -> Result<(), CannotSign> {
    let name: HeaderName = name.parse().map_err(|_| CannotSign::Field)?;
    head.headers.insert(name, value.parse().map_err(|_| CannotSign::Field)?);
    Ok(())
}

/// What a string can be made of.
fn view<'r>(head: &'r request::Parts, host: &'r str) -> View<'r> {
    View {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        host,
        headers: &head.headers,
    }
}

fn message(head: &request::Parts, https: bool) -> Message<'_> {
    let field = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(::http::uri::Authority::as_str).or_else(field).unwrap_or_default();
    Message { method: head.method.as_str(), target: &head.uri, authority, https, headers: &head.headers }
}

/// Whether the body is one whose parameters PHP reads.
fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().split(|byte| *byte == b';').next());
    kind.flatten().is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
}

/// Whether every digest of `Content-Digest` that is known here is the body's, and there is one.
async fn content_digest_holds(headers: &HeaderMap, body: &Spooled) -> Result<bool, Refused> {
    let Some(declared) = ContentDigest::read(headers) else { return Ok(false) };
    let mut holds = true;
    for (algorithm, wanted) in declared.wanted() {
        holds &= digest_of(algorithm, body).await?.as_ref() == wanted;
    }
    Ok(holds)
}

/// The digest of a whole body.
async fn digest_of(algorithm: &'static digest::Algorithm, body: &Spooled) -> Result<digest::Digest, Refused> {
    match body {
        Spooled::Empty => Ok(digest::digest(algorithm, b"")),
        Spooled::Memory(bytes) => Ok(digest::digest(algorithm, bytes)),
        Spooled::File(file) => {
            let (mut context, mut position) = (digest::Context::new(algorithm), 0);
            while position < file.length() {
                let read = file.read(position).await.map_err(io::Error::other).flatten();
                let bytes = read.map_err(|_| Refused::new(Answer::Internal, "body"))?;
                context.update(&bytes);
                position += bytes.len() as u64;
            }
            Ok(context.finish())
        }
    }
}

#[cfg(test)]
mod tests;
