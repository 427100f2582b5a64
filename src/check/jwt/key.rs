//! Keys that tokens are signed with, and the closed list of algorithms.
//!
//! A key has one family and verifies nothing of another one, whatever a token says of itself: a public
//! key can never be taken for the secret of an HMAC, and `none` is no algorithm. The cryptography is
//! ring's; this file only decides which of it applies.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self as rings, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{hmac, signature::VerificationAlgorithm};
use serde_json::Value;
use spki::der::asn1::UintRef;
use spki::der::{Decode as _, Reader as _, SliceReader, pem};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// How a token may be signed (RFC 7518, 3.1; RFC 8037), as far as ring verifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// Which keys an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// Every one, by its name in tokens and in routes.toml.
    pub(crate) const ALL: [(&str, Self); 12] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Family::Secret,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Family::Rsa,
            Self::Es256 => Family::P256,
            Self::Es384 => Family::P384,
            Self::EdDsa => Family::Ed25519,
        }
    }
}

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Material);

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Secret(Box<[u8]>),
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// A point, uncompressed; which curve's, the family says.
    Point(Family, Box<[u8]>),
}

/// Why something is no key. Never says what was found: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("is not a key in PEM form")]
    NotPem,
    #[error("is a private key")]
    Private,
    #[error("is a certificate")]
    Certificate,
    #[error("is a key of a kind that no algorithm here uses")]
    UnknownKind,
    #[error("is broken")]
    Broken,
    #[error("has fewer than 2048 bits, or more than 8192")]
    Size,
    #[error("is empty")]
    Empty,
    #[error("is a PEM document: a public key is known to everybody, and no secret")]
    PemAsSecret,
}

impl Key {
    /// The shared secret of an HMAC.
    pub(crate) fn secret(text: &str) -> Result<Self, BadKey> {
        match text {
            "" => Err(BadKey::Empty),
            _ if text.contains("-----BEGIN ") => Err(BadKey::PemAsSecret),
            _ => Ok(Self(Material::Secret(text.as_bytes().into()))),
        }
    }

    /// A public key in PEM form, as `openssl pkey -pubout` writes it.
    pub(crate) fn public(text: &str) -> Result<Self, BadKey> {
        let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|_| BadKey::NotPem)?;
        match label {
            "PUBLIC KEY" => Self::of_spki(&der),
            "RSA PUBLIC KEY" => Self::of_pkcs1(&der),
            "CERTIFICATE" => Err(BadKey::Certificate),
            _ if label.ends_with("PRIVATE KEY") => Err(BadKey::Private),
            _ => Err(BadKey::NotPem),
        }
    }

    fn of_spki(der: &[u8]) -> Result<Self, BadKey> {
        const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
        const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
        const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
        let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| BadKey::Broken)?;
        let bytes = info.subject_public_key.as_bytes().ok_or(BadKey::Broken)?;
        match (info.algorithm.oid, info.algorithm.parameters_oid().ok()) {
            (RSA, _) => Self::of_pkcs1(bytes),
            (EC, Some(P256)) => Self::point(Family::P256, bytes),
            (EC, Some(P384)) => Self::point(Family::P384, bytes),
            (ED25519, None) => Self::point(Family::Ed25519, bytes),
            _ => Err(BadKey::UnknownKind),
        }
    }

    fn of_pkcs1(der: &[u8]) -> Result<Self, BadKey> {
        let numbers = SliceReader::new(der)
            .and_then(|mut reader| reader.sequence(|inner| Ok((UintRef::decode(inner)?, UintRef::decode(inner)?))));
        let (n, e): (UintRef<'_>, UintRef<'_>) = numbers.map_err(|_: spki::der::Error| BadKey::Broken)?;
        Self::rsa(n.as_bytes(), e.as_bytes())
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, BadKey> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        if !(256..=1024).contains(&n.len()) || e.is_empty() || e.len() > 8 {
            return Err(BadKey::Size);
        }
        Ok(Self(Material::Rsa { n: n.into(), e: e.into() }))
    }

    fn point(family: Family, bytes: &[u8]) -> Result<Self, BadKey> {
        let good = match family {
            Family::P256 => bytes.len() == 65 && bytes.first() == Some(&4),
            Family::P384 => bytes.len() == 97 && bytes.first() == Some(&4),
            Family::Ed25519 => bytes.len() == 32,
            Family::Secret | Family::Rsa => false,
        };
        if good { Ok(Self(Material::Point(family, bytes.into()))) } else { Err(BadKey::Broken) }
    }

    /// One key of a JWK set (RFC 7517). Secrets are not taken from one: whoever could read it could sign.
    pub(super) fn of_jwk(jwk: &Value) -> Result<Self, BadKey> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).ok_or(BadKey::Broken);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).map_err(|_| BadKey::Broken);
        let uncompressed = || Ok([&[4][..], &bytes("x")?, &bytes("y")?].concat());
        match (text("kty")?, jwk.get("crv").and_then(Value::as_str)) {
            ("RSA", _) => Self::rsa(&bytes("n")?, &bytes("e")?),
            ("EC", Some("P-256")) => Self::point(Family::P256, &uncompressed()?),
            ("EC", Some("P-384")) => Self::point(Family::P384, &uncompressed()?),
            ("OKP", Some("Ed25519")) => Self::point(Family::Ed25519, &bytes("x")?),
            _ => Err(BadKey::UnknownKind),
        }
    }

    pub(crate) fn family(&self) -> Family {
        match &self.0 {
            Material::Secret(_) => Family::Secret,
            Material::Rsa { .. } => Family::Rsa,
            Material::Point(family, _) => *family,
        }
    }

    /// Whether `signature` is this key's of `message`. Of another family's algorithm it never is.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.0, algorithm) {
            (Material::Secret(secret), Algorithm::Hs256) => mac(hmac::HMAC_SHA256, secret, message, signature),
            (Material::Secret(secret), Algorithm::Hs384) => mac(hmac::HMAC_SHA384, secret, message, signature),
            (Material::Secret(secret), Algorithm::Hs512) => mac(hmac::HMAC_SHA512, secret, message, signature),
            (Material::Rsa { n, e }, _) => {
                let key = RsaPublicKeyComponents { n, e };
                rsa_parameters(algorithm).is_some_and(|how| key.verify(how, message, signature).is_ok())
            }
            (Material::Point(family, point), _) if *family == algorithm.family() => {
                let how: &'static dyn VerificationAlgorithm = match family {
                    Family::P256 => &rings::ECDSA_P256_SHA256_FIXED,
                    Family::P384 => &rings::ECDSA_P384_SHA384_FIXED,
                    Family::Ed25519 => &rings::ED25519,
                    Family::Secret | Family::Rsa => return false,
                };
                UnparsedPublicKey::new(how, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &rings::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &rings::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &rings::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &rings::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &rings::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &rings::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Compared in constant time.
fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8], signature: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
}

/// Some write a number with a sign's worth of zeros before it.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.family()).finish_non_exhaustive()
    }
}

/// A key as tokens name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `kid`; a set may hold keys without one.
    pub(crate) kid: Option<Box<str>>,
    /// The only algorithm it may be used with, where it says so.
    pub(crate) only: Option<Algorithm>,
    pub(crate) key: Key,
}

/// The keys of one check, or of one authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys(pub(crate) Vec<Named>);

impl Keys {
    /// The key that a token names; of a token that names none, the only one that fits.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let fits = |named: &&Named| {
            named.key.family() == algorithm.family() && named.only.is_none_or(|only| only == algorithm)
        };
        let mut fitting = self.0.iter().filter(fits).filter(|named| kid.is_none() || named.kid.as_deref() == kid);
        let first = fitting.next()?;
        (kid.is_some() || fitting.next().is_none()).then_some(&first.key)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn a_key_verifies_nothing_of_another_family() {
        let secret = Key::secret("s3cret").unwrap();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3cret"), b"message");
        for (name, algorithm) in Algorithm::ALL {
            assert_eq!(secret.verify(algorithm, b"message", tag.as_ref()), name == "HS256", "{name}");
        }
        assert_eq!(Algorithm::named("none"), None);
        assert_eq!(Algorithm::named("rs256"), None);
    }

    #[test]
    fn what_is_no_key_is_told_by_its_kind_and_never_shown() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        assert_eq!(Key::public(&pem("PRIVATE KEY")).unwrap_err(), BadKey::Private);
        assert_eq!(Key::public(&pem("CERTIFICATE")).unwrap_err(), BadKey::Certificate);
        assert_eq!(Key::public(&pem("PUBLIC KEY")).unwrap_err(), BadKey::Broken);
        assert_eq!(Key::public("s3cret").unwrap_err(), BadKey::NotPem);
        assert_eq!(Key::secret(&pem("PUBLIC KEY")).unwrap_err(), BadKey::PemAsSecret);
        assert_eq!(Key::secret("").unwrap_err(), BadKey::Empty);
        assert!(!format!("{:?}", Key::secret("s3cret").unwrap()).contains("s3cret"));
    }

    #[test]
    fn a_token_without_a_kid_has_a_key_where_only_one_fits() {
        let named = |kid: &str| Named { kid: Some(kid.into()), only: None, key: Key::secret(kid).unwrap() };
        let one = Keys(vec![named("a")]);
        assert!(one.find(None, Algorithm::Hs256).is_some() && one.find(None, Algorithm::Rs256).is_none());
        let two = Keys(vec![named("a"), named("b")]);
        assert!(two.find(None, Algorithm::Hs256).is_none());
        assert_eq!(two.find(Some("b"), Algorithm::Hs256), Some(&two.0[1].key));
        assert!(two.find(Some("c"), Algorithm::Hs256).is_none());
        let only = Keys(vec![Named { only: Some(Algorithm::Hs512), ..named("a") }]);
        assert!(only.find(Some("a"), Algorithm::Hs256).is_none());
    }
}
