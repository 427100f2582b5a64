//! What an application does with a `session_key`: checking what WeChat signed, reading what it encrypted.
//!
//! Pure, but for the one clock that says how old a watermark is.

use std::time::{Duration, SystemTime};

use aes::Aes128;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::http::hex;

/// How far the clocks of WeChat and of this machine may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Why encrypted data is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// It does not become data with this key: most often WeChat has given the user another `session_key` since.
    /// Have the mini program call `wx.login()` and log in again *before* it asks for the data anew.
    #[error("it cannot be decrypted with this session_key")]
    Undecipherable,
    /// Its watermark names another mini program.
    #[error("it is of another mini program")]
    OtherApp,
    /// Its watermark is older than it may be, or of the future.
    #[error("it is too old")]
    Stale,
}

/// Whether `signature` is WeChat's for `raw_data`: the `rawData` that a mini program was given together with it.
///
/// Says yes only to those who know the `session_key`; compared in constant time.
///
/// ```
/// let key = "HyVFkGl5F5OQWJZZaNzBBg==";
/// assert!(!strangler::wechat::check_signature(r#"{"nickName":"Band"}"#, key, "75e81ceda165f4ffa64f4068af58c64b8f54b88c"));
/// ```
#[must_use]
pub fn check_signature(raw_data: &str, session_key: &str, signature: &str) -> bool {
    let right = hex::text(&Sha1::new().chain_update(raw_data).chain_update(session_key).finalize());
    right.as_bytes().ct_eq(signature.as_bytes()).into()
}

/// The signature with which a server shows WeChat that it knows the `session_key`: over the body of a POST,
/// over `""` for a GET.
#[must_use]
pub fn session_key_signature(session_key: &str, message: &str) -> String {
    // The key is the text as it is, not what it decodes to. HMAC takes a key of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(session_key.as_bytes()) else { return String::new() };
    hex::text(&mac.chain_update(message).finalize().into_bytes())
}

/// Decrypts the `encryptedData` that a mini program was given together with `iv`, and gives back its JSON.
///
/// It must be of the mini program `appid` and no older than `max_age` by its watermark.
///
/// # Errors
/// It is not believed; see [`DecryptError`].
pub fn decrypt(
    encrypted_data: &str,
    iv: &str,
    session_key: &str,
    appid: &str,
    max_age: Duration,
) -> Result<String, DecryptError> {
    decrypt_at(encrypted_data, iv, session_key, appid, max_age, SystemTime::now())
}

fn decrypt_at(
    encrypted_data: &str,
    iv: &str,
    session_key: &str,
    appid: &str,
    max_age: Duration,
    now: SystemTime,
) -> Result<String, DecryptError> {
    // One error for all that can go wrong on the way: which it was would help somebody who guesses.
    let text = plain(encrypted_data, iv, session_key).ok_or(DecryptError::Undecipherable)?;
    let data: Value = serde_json::from_str(&text).map_err(|_| DecryptError::Undecipherable)?;
    let mark = data.get("watermark").ok_or(DecryptError::Undecipherable)?;
    if mark.get("appid").and_then(Value::as_str) != Some(appid) {
        return Err(DecryptError::OtherApp);
    }
    let made = mark.get("timestamp").and_then(Value::as_u64).ok_or(DecryptError::Stale)?;
    let made = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(made)).ok_or(DecryptError::Stale)?;
    let fresh = match now.duration_since(made) {
        Ok(age) => age <= max_age,
        Err(ahead) => ahead.duration() <= SKEW,
    };
    if fresh { Ok(text) } else { Err(DecryptError::Stale) }
}

fn plain(encrypted_data: &str, iv: &str, session_key: &str) -> Option<String> {
    let mut data = STANDARD.decode(encrypted_data).ok()?;
    let (key, iv) = (STANDARD.decode(session_key).ok()?, STANDARD.decode(iv).ok()?);
    let cipher = Decryptor::<Aes128>::new_from_slices(&key, &iv).ok()?;
    let plain = cipher.decrypt_padded::<Pkcs7>(&mut data).ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = r#"{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}"#;

    /// The example of WeChat's own documentation.
    const ENCRYPTED: &str = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew==";
    const IV: &str = "r7BXXKkLb8qrSNn05n0qiA==";
    const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";
    const APP: &str = "wx4f4bc4dec97d474b";
    /// Its watermark.
    const MADE: u64 = 1_477_314_187;

    fn at(seconds: u64, iv: &str, key: &str, appid: &str) -> Result<String, DecryptError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        decrypt_at(ENCRYPTED, iv, key, appid, Duration::from_secs(300), now)
    }

    #[test]
    fn the_signature_over_raw_data_is_that_of_the_documentation() {
        let (key, right) = ("HyVFkGl5F5OQWJZZaNzBBg==", "75e81ceda165f4ffa64f4068af58c64b8f54b88c");
        assert!(check_signature(RAW, key, right));
        assert!(!check_signature(RAW, key, &right.replace("75", "76")));
        assert!(!check_signature(&RAW.replace("Band", "Bond"), key, right));
        assert!(!check_signature(RAW, key, ""));
    }

    #[test]
    fn the_session_key_signs_as_a_text() {
        let key = "o0q0otL8aEzpcZL/FT9WsQ==";
        assert_eq!(
            session_key_signature(key, r#"{"foo":"bar"}"#),
            "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
        );
        assert_eq!(session_key_signature(key, ""), "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128");
    }

    #[test]
    fn the_documentations_example_is_decrypted() {
        let data: Value = serde_json::from_str(&at(MADE + 10, IV, KEY, APP).unwrap()).unwrap();
        assert_eq!((&data["nickName"], &data["openId"]), (&"Band".into(), &"oGZUI0egBJY1zhBYw2KhdUfwVJJE".into()));
    }

    #[test]
    fn data_of_another_app_or_another_time_is_not_believed() {
        assert_eq!(at(MADE, IV, KEY, "wx0000000000000000"), Err(DecryptError::OtherApp));
        assert_eq!(at(MADE + 301, IV, KEY, APP), Err(DecryptError::Stale));
        assert_eq!(at(MADE - 61, IV, KEY, APP), Err(DecryptError::Stale));
        assert!(at(MADE - 60, IV, KEY, APP).is_ok());
    }

    #[test]
    fn another_key_deciphers_nothing() {
        for (iv, key) in [(IV, "HyVFkGl5F5OQWJZZaNzBBg=="), (IV, "short"), ("", KEY), (IV, ""), ("AAAA", KEY)] {
            assert_eq!(at(MADE, iv, key, APP), Err(DecryptError::Undecipherable), "{iv} {key}");
        }
        assert_eq!(plain("AAAA", IV, KEY), None);
        assert_eq!(plain("", IV, KEY), None);
    }
}
