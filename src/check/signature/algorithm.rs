//! How a string becomes a signature, and how a given one is compared with it.
//!
//! Pure, and in constant time where a secret is concerned: a mac is compared byte by byte without
//! stopping, and a text that is no mac at all is compared like any other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::http::hex;

/// What is computed over string and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256, the default.
    HmacSha256,
    /// HMAC-SHA1.
    HmacSha1,
    /// HMAC-SHA512.
    HmacSha512,
    /// MD5 of the string with the key behind it: only to match what an application has already.
    Md5Suffix,
}

/// How a mac is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lower case; upper case as well for `md5-suffix`, which older schemes write so.
    Hex,
    /// RFC 4648's own alphabet, padded.
    Base64,
}

/// The longest mac there is.
const LONGEST: usize = 64;

/// A mac: bytes of one algorithm.
#[derive(Clone, Copy)]
pub struct Mac {
    bytes: [u8; LONGEST],
    length: usize,
}

/// A key, ready for its algorithm.
#[derive(Clone)]
pub enum MacKey {
    /// For any of the HMACs.
    Hmac(hmac::Key),
    /// For `md5-suffix`.
    Suffix(Box<[u8]>),
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey")
    }
}

impl MacKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Self {
        let hmac = |of| Self::Hmac(hmac::Key::new(of, secret));
        match algorithm {
            Algorithm::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Algorithm::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Algorithm::Md5Suffix => Self::Suffix(secret.into()),
        }
    }

    /// The mac of a string.
    #[must_use]
    pub fn mac(&self, string: &[u8]) -> Mac {
        #[cfg(test)]
        MACS.with(|macs| macs.set(macs.get() + 1));
        match self {
            Self::Hmac(key) => Mac::of(hmac::sign(key, string).as_ref()),
            Self::Suffix(key) => Mac::of(&Md5::new().chain_update(string).chain_update(key).finalize()),
        }
    }
}

impl Mac {
    fn of(bytes: &[u8]) -> Self {
        let mut mac = Self { bytes: [0; LONGEST], length: bytes.len().min(LONGEST) };
        mac.bytes.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        mac
    }

    /// Reads a signature as a client wrote it; a text that is none gives a mac of no bytes, which
    /// equals no other.
    #[must_use]
    pub fn read(text: &[u8], algorithm: Algorithm, encoding: Encoding) -> Self {
        let none = Self::of(b"");
        match encoding {
            Encoding::Hex => read_hex(text, algorithm == Algorithm::Md5Suffix).unwrap_or(none),
            Encoding::Base64 => {
                let mut bytes = [0; LONGEST + 2];
                STANDARD
                    .decode_slice(text, &mut bytes)
                    .ok()
                    .filter(|length| *length <= LONGEST)
                    .and_then(|length| bytes.get(..length))
                    .map_or(none, Self::of)
            }
        }
    }

    /// As it is written.
    #[must_use]
    pub fn write(&self, encoding: Encoding) -> String {
        match encoding {
            Encoding::Hex => hex::text(self.bytes()),
            Encoding::Base64 => STANDARD.encode(self.bytes()),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether both are the same, in a time that does not say where they differ. A mac of no bytes equals nothing.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        // How many bytes a mac has is no secret: its algorithm says so.
        !self.bytes().is_empty() && self.bytes().ct_eq(other.bytes()).into()
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mac")
    }
}

fn read_hex(text: &[u8], any_case: bool) -> Option<Mac> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > LONGEST || !any_case && text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut mac = Mac { bytes: [0; LONGEST], length: pairs.len() };
    for (byte, [high, low]) in mac.bytes.iter_mut().zip(pairs) {
        *byte = hex::byte(*high, *low)?;
    }
    Some(mac)
}

#[cfg(test)]
thread_local! {
    static MACS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How much work was done, for tests that hold it to be the same whatever was given.
#[cfg(test)]
pub(super) fn macs_of_this_thread() -> u64 {
    MACS.with(std::cell::Cell::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 4] =
        [Algorithm::HmacSha256, Algorithm::HmacSha1, Algorithm::HmacSha512, Algorithm::Md5Suffix];

    fn signed(algorithm: Algorithm, secret: &str, string: &str) -> String {
        MacKey::new(algorithm, secret.as_bytes()).mac(string.as_bytes()).write(Encoding::Hex)
    }

    #[test]
    fn the_published_vector_of_the_default_scheme_holds() {
        assert_eq!(
            signed(Algorithm::HmacSha256, "s3cret", "app=shop-app&nonce=n-1&sku=A 1/b&timestamp=1700000000"),
            "7794e3a1cb6a96955d3834bac756abc400774997c40a170234d93cda4db1d301"
        );
    }

    #[test]
    fn the_other_algorithms_hold_their_vectors() {
        let fox = "The quick brown fox jumps over the lazy dog";
        assert_eq!(signed(Algorithm::HmacSha1, "key", fox), "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9");
        assert!(signed(Algorithm::HmacSha512, "key", fox).starts_with("b42af09057bac1e2d41708e48a902e09b5ff7f12"));
        assert_eq!(
            signed(Algorithm::Md5Suffix, "lazy dog", "The quick brown fox jumps over the "),
            "9e107d9d372bb6826bd81d3542a419d6"
        );
    }

    #[test]
    fn a_mac_is_read_as_it_is_written_and_equals_only_itself() {
        for algorithm in ALL {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let mac = MacKey::new(algorithm, b"k").mac(b"string");
                let other = MacKey::new(algorithm, b"k").mac(b"strinG");
                let read = Mac::read(mac.write(encoding).as_bytes(), algorithm, encoding);
                assert!(read.equals(&mac) && !read.equals(&other), "{algorithm:?} {encoding:?}");
            }
        }
    }

    #[test]
    fn what_is_no_mac_equals_nothing() {
        let mac = MacKey::new(Algorithm::HmacSha256, b"k").mac(b"string");
        let text = mac.write(Encoding::Hex);
        let longer = format!("{text}00");
        for text in ["", "zz", &text[..62], &text[..63], &longer, &text.to_uppercase(), &"0".repeat(4096)] {
            assert!(!Mac::read(text.as_bytes(), Algorithm::HmacSha256, Encoding::Hex).equals(&mac), "{text}");
        }
        let none = Mac::read(b"", Algorithm::HmacSha256, Encoding::Base64);
        assert!(!none.equals(&none));
    }

    #[test]
    fn upper_case_is_read_where_old_schemes_write_it() {
        let mac = MacKey::new(Algorithm::Md5Suffix, b"k").mac(b"string");
        let upper = mac.write(Encoding::Hex).to_uppercase();
        assert!(Mac::read(upper.as_bytes(), Algorithm::Md5Suffix, Encoding::Hex).equals(&mac));
    }
}
