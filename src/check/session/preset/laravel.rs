//! Laravel: the encrypted cookie that names a session, and the layers around the session's data.
//!
//! A cookie is `base64(JSON {iv, value, mac, tag})` of `HMAC-SHA1(name v2) | value`, so that no cookie can be given out
//! for another. Keys come as the application has them: the current one and the previous ones, each tried in turn.

use std::borrow::Cow;
use std::fmt;

use aes::{Aes128, Aes256};
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::check::session::format::{FieldPath, Fields, MAX_BYTES, Unreadable, Value, Wanted, json, php};
use crate::http::hex;

/// `sha1('Illuminate\Auth\SessionGuard')`: what the framework's own guard signs its keys with.
const SESSION_GUARD: &str = "59ba36addc2b2f9401580f014c7f58ea4e30989d";
const NO_PAYLOAD: Unreadable = Unreadable("it is not what Laravel encrypts");
const NO_KEY_FITS: Unreadable = Unreadable("none of the keys has encrypted it");

/// An application of Laravel's, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Laravel {
    /// `session.cookie`.
    cookie: String,
    keys: Keys,
    layers: Layers,
    pub(super) remembering: String,
}

impl Laravel {
    pub(crate) fn new(cookie: String, guard: &str, keys: Keys, layers: Layers) -> Self {
        Self { cookie, keys, layers, remembering: format!("remember_{guard}_{SESSION_GUARD}") }
    }

    /// To Laravel a cookie that it did not encrypt is none.
    pub(super) fn session_id(&self, value: &str) -> Option<String> {
        self.keys.session_id(&self.cookie, value).ok()
    }

    pub(super) fn read(&self, stored: &[u8], wanted: &Wanted) -> Result<Fields<'static>, Unreadable> {
        self.layers.read(stored, &self.keys, wanted)
    }
}

/// `app.cipher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes128Cbc,
    Aes256Cbc,
    Aes128Gcm,
    Aes256Gcm,
}

impl Cipher {
    /// All of them, under Laravel's names.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("aes-128-cbc", Self::Aes128Cbc),
        ("aes-256-cbc", Self::Aes256Cbc),
        ("aes-128-gcm", Self::Aes128Gcm),
        ("aes-256-gcm", Self::Aes256Gcm),
    ];

    const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Cbc | Self::Aes128Gcm => 16,
            Self::Aes256Cbc | Self::Aes256Gcm => 32,
        }
    }

    const fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm)
    }
}

/// `APP_KEY` and `APP_PREVIOUS_KEYS`. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    cipher: Cipher,
    keys: Vec<Vec<u8>>,
}

/// A key that the application could not use either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    #[error("after \"base64:\" comes something else")]
    NotBase64,
    #[error("the key has {found} bytes, the cipher takes {right}")]
    Length { found: usize, right: usize },
}

impl Keys {
    /// Reads keys as `.env` has them, `base64:…` or plain, the current one first.
    pub(crate) fn new<'k>(cipher: Cipher, keys: impl IntoIterator<Item = &'k str>) -> Result<Self, KeyFault> {
        let read = |key: &str| {
            let bytes = match key.strip_prefix("base64:") {
                Some(encoded) => BASE64.decode(encoded).map_err(|_| KeyFault::NotBase64)?,
                None => key.as_bytes().to_vec(),
            };
            let (found, right) = (bytes.len(), cipher.key_bytes());
            if found == right { Ok(bytes) } else { Err(KeyFault::Length { found, right }) }
        };
        Ok(Self { cipher, keys: keys.into_iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The id of the session that the cookie of this name stands for.
    pub(crate) fn session_id(&self, cookie: &str, value: &str) -> Result<String, Unreadable> {
        let plain = self.decrypt(value.as_bytes())?;
        let (prefix, id) = plain.split_at_checked(41).ok_or(Unreadable("the cookie says not which cookie it is"))?;
        let known = self.keys.iter().any(|key| {
            let right = hmac_hex::<Hmac<Sha1>>(key, &[cookie.as_bytes(), b"v2"]).map(|mac| mac + "|");
            right.is_some_and(|right| prefix.ct_eq(right.as_bytes()).into())
        });
        if !known {
            return Err(Unreadable("the cookie was given out as another"));
        }
        match std::str::from_utf8(id) {
            Ok(id) if id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Ok(id.to_owned()),
            _ => Err(Unreadable("the cookie holds no session's id")),
        }
    }

    /// What was encrypted, and by one of these keys.
    pub(crate) fn decrypt(&self, payload: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let payload = Payload::parse(payload)?;
        let plain = |key: &Vec<u8>| payload.decrypt(self.cipher, key);
        self.keys.iter().find_map(plain).ok_or(NO_KEY_FITS)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cipher", &self.cipher).field("keys", &self.keys.len()).finish()
    }
}

/// An HMAC of these texts, one after another, as PHP's `hash_hmac` gives it. Keys of any length will do.
fn hmac_hex<M: Mac + KeyInit>(key: &[u8], texts: &[&[u8]]) -> Option<String> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    texts.iter().for_each(|text| mac.update(text));
    Some(hex::text(&mac.finalize().into_bytes()))
}

/// What an encrypter made.
struct Payload {
    /// In base64, as the MAC covers them.
    iv: Vec<u8>,
    value: Vec<u8>,
    mac: Vec<u8>,
    tag: Vec<u8>,
}

impl Payload {
    fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        if text.len() > MAX_BYTES {
            return Err(NO_PAYLOAD);
        }
        let text = BASE64.decode(text).map_err(|_| NO_PAYLOAD)?;
        let names = ["iv", "value", "mac", "tag"].map(|name| FieldPath::of(&[name]));
        let wanted = Wanted::new(names.into()).ok_or(NO_PAYLOAD)?;
        let fields = json::read(&text, &wanted).map_err(|_| NO_PAYLOAD)?;
        let text = |place| match fields.get(place) {
            Some(Value::Text(text)) => Ok(text.to_vec()),
            _ => Err(NO_PAYLOAD),
        };
        // Before there was GCM there was no tag.
        let tag = if fields.get(3).is_some() { text(3)? } else { Vec::new() };
        Ok(Self { iv: text(0)?, value: text(1)?, mac: text(2)?, tag })
    }

    /// The MAC is checked before anything is decrypted: padding tells nobody anything.
    fn decrypt(&self, cipher: Cipher, key: &[u8]) -> Option<Vec<u8>> {
        if !cipher.is_authenticated() {
            let mac = hmac_hex::<Hmac<Sha256>>(key, &[&self.iv, &self.value])?;
            if !bool::from(mac.as_bytes().ct_eq(&self.mac)) {
                return None;
            }
        }
        let (iv, value) = (BASE64.decode(&self.iv).ok()?, BASE64.decode(&self.value).ok()?);
        match cipher {
            Cipher::Aes128Cbc => cbc(Decryptor::<Aes128>::new_from_slices(key, &iv).ok()?, value),
            Cipher::Aes256Cbc => cbc(Decryptor::<Aes256>::new_from_slices(key, &iv).ok()?, value),
            Cipher::Aes128Gcm => self.gcm(&Aes128Gcm::new_from_slice(key).ok()?, &iv, value),
            Cipher::Aes256Gcm => self.gcm(&Aes256Gcm::new_from_slice(key).ok()?, &iv, value),
        }
    }

    fn gcm<A: Aead<NonceSize = aes_gcm::aead::consts::U12>>(
        &self,
        gcm: &A,
        iv: &[u8],
        mut value: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let tag = BASE64.decode(&self.tag).ok().filter(|tag| tag.len() == 16)?;
        value.extend_from_slice(&tag);
        gcm.decrypt(&Nonce::try_from(iv).ok()?, value.as_slice()).ok()
    }
}

fn cbc(cbc: impl BlockModeDecrypt, mut value: Vec<u8>) -> Option<Vec<u8>> {
    cbc.decrypt_padded::<Pkcs7>(&mut value).ok().map(<[u8]>::to_vec)
}

/// What lies around a session's attributes, from outside in: as the application is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    /// `session.driver = redis`: a cache serializes what it keeps.
    pub(crate) cached: bool,
    /// `session.encrypt = true`.
    pub(crate) encrypted: bool,
    /// `session.serialization = json` rather than `php`.
    pub(crate) json: bool,
}

impl Layers {
    /// Reads the wanted attributes of a session as its store has it.
    pub(crate) fn read(self, stored: &[u8], keys: &Keys, wanted: &Wanted) -> Result<Fields<'static>, Unreadable> {
        let mut data = Cow::Borrowed(stored);
        if data.len() > MAX_BYTES {
            return Err(Unreadable("it is larger than 1 MiB"));
        }
        if self.cached {
            data = Cow::Owned(serialized_text(&data)?);
        }
        if self.encrypted {
            data = Cow::Owned(serialized_text(&keys.decrypt(&data)?)?);
        }
        let fields = if self.json { json::read(&data, wanted)? } else { php::read_array(&data, wanted)? };
        Ok(fields.into_owned())
    }
}

/// The text that `serialize()` was given.
fn serialized_text(data: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let fields = php::unserialize(data, &Wanted::one(FieldPath::of(&[])))?;
    match fields.get(0) {
        Some(Value::Text(text)) => Ok(text.to_vec()),
        _ => Err(Unreadable("it is not a serialized text")),
    }
}

/// Where a session keeps who is logged in by this guard (`web`, unless the application has others).
pub(crate) fn user_path(guard: &str) -> FieldPath {
    FieldPath::of(&[&format!("login_{guard}_{SESSION_GUARD}")])
}
