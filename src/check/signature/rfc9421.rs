//! HTTP Message Signatures (RFC 9421) and Content-Digest (RFC 9530).
//!
//! Pure: a head goes in, the signature base comes out, byte for byte as section 2.5 builds it.
//! Parameters of components that this file does not know (`sf`, `key`, `bs`, `req`, `tr`) make a
//! signature one that cannot be checked, which is refused. One signature is looked at: the only one
//! there is, or the only one with the `tag` that the check asks for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderMap, Uri};
use ring::{digest, hmac, signature as public};
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, Parser};
use spki::der::Document;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::Step;
use super::keys::{Apps, Counted, KeyFault, KeyUses, Named, Secret, named};
use crate::http::urlencoded::encoded;

/// Most components of one signature.
const MOST: usize = 64;

/// What a signature must cover and say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Components by name; empty: method, authority, and the whole target.
    pub(crate) components: Vec<String>,
    /// The `tag` of the signature to look at.
    pub(crate) tag: Option<String>,
}

/// A message, as far as a signature can cover it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'r> {
    /// The method.
    pub method: &'r str,
    /// The target as sent.
    pub target: &'r Uri,
    /// Host and port as the client wrote them.
    pub authority: &'r str,
    /// Whether the client's connection is encrypted.
    pub https: bool,
    /// The header fields.
    pub headers: &'r HeaderMap,
}

/// A signature and what it says of itself.
#[derive(Debug)]
pub struct Signed {
    /// Components by their names, in order.
    pub covered: Vec<String>,
    /// When it was made.
    pub created: Option<u64>,
    /// When it ends.
    pub expires: Option<u64>,
    /// What is accepted once.
    pub nonce: Option<String>,
    /// Who made it.
    pub keyid: Option<String>,
    /// How.
    pub alg: Option<String>,
    /// What for.
    pub tag: Option<String>,
    /// The signature itself.
    pub signature: Vec<u8>,
    /// What was signed.
    pub base: String,
}

/// Why a message's signature cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// There is none, or none with the tag.
    Missing,
    /// It is not what RFC 9421 says, covers what is not there, or there are several.
    Malformed,
}

/// The one signature of a message, with its base.
///
/// # Errors
/// There is none to check.
pub fn read(message: &Message<'_>, tag: Option<&str>) -> Result<Signed, Unread> {
    let inputs = dictionary(message.headers, "signature-input").ok_or(Unread::Malformed)?;
    let signatures = dictionary(message.headers, "signature").ok_or(Unread::Malformed)?;
    let wanted = |list: &InnerList| tag.is_none_or(|tag| text(list, "tag").as_deref() == Some(tag));
    let mut candidates = inputs.iter().filter_map(|(label, entry)| match entry {
        ListEntry::InnerList(list) if wanted(list) => Some((label, list)),
        _ => None,
    });
    let (label, list) = match (candidates.next(), candidates.next()) {
        (Some(only), None) => only,
        (None, _) => return Err(Unread::Missing),
        (Some(_), Some(_)) => return Err(Unread::Malformed),
    };
    let Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(signature), .. })) = signatures.get(label) else {
        return Err(Unread::Missing);
    };
    let (base, covered) = base(message, list).ok_or(Unread::Malformed)?;
    Ok(Signed {
        covered,
        created: seconds(list, "created")?,
        expires: seconds(list, "expires")?,
        nonce: text(list, "nonce"),
        keyid: text(list, "keyid"),
        alg: text(list, "alg"),
        tag: text(list, "tag"),
        signature: signature.clone(),
        base,
    })
}

/// A structured dictionary over all lines of a field; empty when there is no such field.
fn dictionary(headers: &HeaderMap, name: &str) -> Option<Dictionary> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    Parser::new(&lines.join(b", ".as_slice())).parse().ok()
}

fn text(list: &InnerList, name: &str) -> Option<String> {
    list.params.get(name)?.as_string().map(|text| text.as_str().to_owned())
}

fn seconds(list: &InnerList, name: &str) -> Result<Option<u64>, Unread> {
    let Some(value) = list.params.get(name) else { return Ok(None) };
    let seconds = value.as_integer().and_then(|seconds| u64::try_from(i64::from(seconds)).ok());
    seconds.map(Some).ok_or(Unread::Malformed)
}

/// Section 2.5, and the names of what it covers.
fn base(message: &Message<'_>, list: &InnerList) -> Option<(String, Vec<String>)> {
    let (mut base, mut covered) = (String::new(), Vec::new());
    if list.items.len() > MOST {
        return None;
    }
    for item in &list.items {
        let identifier = serialize(item)?;
        let name = item.bare_item.as_string()?.as_str();
        let line = format!("{identifier}: {}\n", component(message, name, item)?);
        // A component that is there twice would let two readers see two messages.
        if base.lines().any(|known| known.strip_prefix(&*identifier).is_some_and(|rest| rest.starts_with(": "))) {
            return None;
        }
        base.push_str(&line);
        covered.push(name.to_owned());
    }
    let parameters = serialize_list(list)?;
    let _ = write!(base, "\"@signature-params\": {parameters}");
    Some((base, covered))
}

fn serialize(item: &Item) -> Option<String> {
    let mut serializer = sfv::ListSerializer::new();
    serializer.members(&[ListEntry::Item(item.clone())]);
    serializer.finish()
}

fn serialize_list(list: &InnerList) -> Option<String> {
    let mut serializer = sfv::ListSerializer::new();
    serializer.members(&[ListEntry::InnerList(list.clone())]);
    serializer.finish()
}

/// The value of one component, section 2.1 and 2.2; `None`: it is not there, or not one that is known.
fn component(message: &Message<'_>, name: &str, item: &Item) -> Option<String> {
    if name == "@query-param" {
        let [(key, wanted)] = item.params.iter().collect::<Vec<_>>().try_into().ok()?;
        return if key.as_str() == "name" { query_param(message.target, wanted.as_string()?.as_str()) } else { None };
    }
    if !item.params.is_empty() {
        return None;
    }
    let path = || if message.target.path().is_empty() { "/" } else { message.target.path() };
    let target = || message.target.path_and_query().map_or("/", |target| target.as_str());
    let scheme = if message.https { "https" } else { "http" };
    Some(match name {
        "@method" => message.method.to_owned(),
        "@authority" => authority(message),
        "@scheme" => scheme.to_owned(),
        "@target-uri" => format!("{scheme}://{}{}", authority(message), target()),
        "@request-target" => target().to_owned(),
        "@path" => path().to_owned(),
        "@query" => format!("?{}", message.target.query().unwrap_or_default()),
        _ if name.starts_with('@') || name.bytes().any(|byte| byte.is_ascii_uppercase()) => return None,
        field => {
            let lines: Option<Vec<&str>> =
                message.headers.get_all(field).iter().map(|line| line.to_str().ok().map(str::trim)).collect();
            lines.filter(|lines| !lines.is_empty())?.join(", ")
        }
    })
}

/// In lower case, without the port that the scheme has anyway.
fn authority(message: &Message<'_>) -> String {
    let mut authority = message.authority.to_ascii_lowercase();
    let default = if message.https { ":443" } else { ":80" };
    if authority.ends_with(default) {
        authority.truncate(authority.len() - default.len());
    }
    authority
}

/// Section 2.2.8: the one parameter of that name, decoded and encoded again.
fn query_param(target: &Uri, wanted: &str) -> Option<String> {
    let mut found = None;
    for piece in target.query()?.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        if reencoded(name) == wanted {
            match found {
                None => found = Some(reencoded(value)),
                Some(_) => return None,
            }
        }
    }
    found
}

/// As a browser's form encodes it, but a space as `%20`.
fn reencoded(text: &str) -> String {
    encoded(&super::parameters::decode(text.as_bytes()), b"-._*").map(char::from).collect()
}

/// Whether `Content-Digest` has a digest that is known, and every such one is the body's.
/// `of` computes the body's own digests.
pub(super) struct ContentDigest {
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) sha512: Option<Vec<u8>>,
}

impl ContentDigest {
    /// What the field says; `None`: nothing that is known here.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let all = dictionary(headers, "content-digest")?;
        let bytes = |name: &str| match all.get(name) {
            Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => Some(bytes.clone()),
            _ => None,
        };
        let found = Self { sha256: bytes("sha-256"), sha512: bytes("sha-512") };
        (found.sha256.is_some() || found.sha512.is_some()).then_some(found)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = (&'static digest::Algorithm, &[u8])> {
        let sha256 = self.sha256.as_deref().map(|bytes| (&digest::SHA256, bytes));
        sha256.into_iter().chain(self.sha512.as_deref().map(|bytes| (&digest::SHA512, bytes)))
    }
}

impl Profile {
    /// Whether the signature covers what it must.
    pub(super) fn is_met_by(&self, covered: &[String], has_body: bool) -> bool {
        let covers = |name: &str| covered.iter().any(|known| known == name);
        if !self.components.is_empty() {
            return self.components.iter().all(|name| covers(name)) && (!has_body || covers("content-digest"));
        }
        let target = covers("@target-uri") || covers("@request-target") || covers("@path") && covers("@query");
        covers("@method")
            && (covers("@authority") || covers("@target-uri"))
            && target
            && (!has_body || covers("content-digest"))
    }
}

/// A key that checks signatures.
enum Verifier {
    Hmac(hmac::Key),
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    Rsa(Vec<u8>),
}

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

impl Verifier {
    /// A public key in PEM (`BEGIN PUBLIC KEY`), or a shared secret.
    fn parse(secret: &Secret) -> Result<Self, &'static str> {
        let bytes = secret.reveal();
        if !bytes.starts_with(b"-----BEGIN") {
            return Ok(Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes)));
        }
        let pem = str::from_utf8(bytes).map_err(|_| "a key that is not text")?;
        let (label, document) = Document::from_pem(pem).map_err(|_| "a broken PEM file")?;
        if label != "PUBLIC KEY" {
            return Err("not a public key in PEM (BEGIN PUBLIC KEY)");
        }
        let info: SubjectPublicKeyInfoRef<'_> = document.decode_msg().map_err(|_| "a broken public key")?;
        let key = info.subject_public_key.as_bytes().ok_or("a broken public key")?.to_vec();
        match info.algorithm.oid {
            ED25519 => Ok(Self::Ed25519(key)),
            EC if info.algorithm.parameters_oid() == Ok(P256) => Ok(Self::P256(key)),
            RSA | RSA_PSS => Ok(Self::Rsa(key)),
            _ => Err("a kind of key that is not known: Ed25519, P-256 and RSA are"),
        }
    }

    /// Whether this is a key for `alg`. A signature that names none may be of any kind.
    fn is_for(&self, alg: Option<&str>) -> bool {
        let Some(alg) = alg else { return true };
        match self {
            Self::Hmac(_) => alg == "hmac-sha256",
            Self::Ed25519(_) => alg == "ed25519",
            Self::P256(_) => alg == "ecdsa-p256-sha256",
            Self::Rsa(_) => matches!(alg, "rsa-pss-sha512" | "rsa-v1_5-sha256"),
        }
    }

    /// Whether the key made the signature. A signature that names its `alg` must have been made by that.
    fn verifies(&self, alg: Option<&str>, base: &[u8], signature: &[u8]) -> bool {
        #[cfg(test)]
        VERIFIED.with(|count| count.set(count.get() + 1));
        let by = |algorithm: &'static dyn public::VerificationAlgorithm, key: &[u8]| {
            public::UnparsedPublicKey::new(algorithm, key).verify(base, signature).is_ok()
        };
        self.is_for(alg)
            && match self {
                Self::Hmac(key) => hmac::verify(key, base, signature).is_ok(),
                Self::Ed25519(key) => by(&public::ED25519, key),
                Self::P256(key) => by(&public::ECDSA_P256_SHA256_FIXED, key),
                Self::Rsa(key) if alg == Some("rsa-v1_5-sha256") => by(&public::RSA_PKCS1_2048_8192_SHA256, key),
                Self::Rsa(key) => by(&public::RSA_PSS_2048_8192_SHA512, key),
            }
    }
}

#[cfg(test)]
thread_local! {
    /// How much work was done, for tests that hold it to be the same whatever was given.
    static VERIFIED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Why a key of the file is none.
pub(crate) fn key_fault(secret: &Secret) -> Option<&'static str> {
    Verifier::parse(secret).err()
}

/// The keys of a check, by `keyid`.
pub(super) struct MessageKeys {
    apps: BTreeMap<String, Vec<(Named, Verifier)>>,
    /// Verifications per signature: the most keys that an app has.
    width: usize,
}

impl std::fmt::Debug for MessageKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MessageKeys").field(&self.apps.keys()).finish()
    }
}

impl MessageKeys {
    /// Keys that are none are left out: the file's reader has said so.
    pub(super) fn new(settings: &Apps, counted: Option<Counted<'_>>, uses: &mut KeyUses) -> Self {
        let mut apps = BTreeMap::new();
        for (app, keys) in settings {
            let of_app: Vec<_> = keys
                .iter()
                .enumerate()
                .filter_map(|(at, key)| Some((named(app, at, key, counted, uses), Verifier::parse(&key.secret).ok()?)))
                .collect();
            apps.insert(app.clone(), of_app);
        }
        let width = apps.values().map(Vec::len).max().unwrap_or_default();
        Self { apps, width }
    }

    /// The key that made the signature.
    ///
    /// Where a key is missing, another of the kind that the signature names does its work. A signature that names no
    /// kind is checked by the kind of its key, and by the first one when that is not known.
    pub(super) fn opened_by(&self, signed: &Signed, now: u64) -> Result<&Named, KeyFault> {
        let alg = signed.alg.as_deref();
        let known = signed.keyid.as_ref().and_then(|keyid| self.apps.get(keyid));
        let is_fit = |(_, key): &&(Named, Verifier)| key.is_for(alg);
        let stand_in = known.into_iter().chain(self.apps.values()).flatten().find(is_fit);
        let mut opened = None;
        for place in 0..self.width {
            let own = known.and_then(|keys| keys.get(place)).filter(is_fit);
            let Some((_, key)) = own.or(stand_in) else { break };
            let good = key.verifies(alg, signed.base.as_bytes(), &signed.signature);
            opened = own.filter(|_| good).map(|(named, _)| named).or(opened);
        }
        match (known, opened) {
            (None, _) => Err(KeyFault::Unknown),
            (_, None) => Err(KeyFault::Wrong),
            (_, Some(key)) if key.is_retired(now) => Err(KeyFault::Retired),
            (_, Some(key)) => Ok(key),
        }
    }

    /// Signs with the first key of an app, if that is a shared secret.
    pub(super) fn sign(&self, app: &str, base: &str) -> Option<(Vec<u8>, &Named)> {
        match self.apps.get(app)?.first()? {
            (named, Verifier::Hmac(key)) => Some((hmac::sign(key, base.as_bytes()).as_ref().to_vec(), named)),
            _ => None,
        }
    }
}

impl From<Unread> for Step {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Missing => Self::Missing,
            Unread::Malformed => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    //! The examples of RFC 9421, appendix B.

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;

    use super::super::keys::tests::key;
    use super::*;

    const RSA_PSS: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2\n\
        +QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+\n\
        oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq\n\
        gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W\n\
        Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4\n\
        aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI\n\
        2wIDAQAB\n-----END PUBLIC KEY-----\n";
    const ECC_P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\nw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n-----END PUBLIC KEY-----\n";
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n";
    const SHARED: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    const DIGEST: &str =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    /// The request of B.2 with a signature.
    fn headers(input: &str, signature: &str) -> HeaderMap {
        let fields = [
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
            ("content-digest", DIGEST),
            ("content-length", "18"),
            ("signature-input", input),
            ("signature", signature),
        ];
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        fields.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn signed_of(headers: &HeaderMap, tag: Option<&str>) -> Result<Signed, Unread> {
        let target: Uri = "/foo?param=Value&Pet=dog".parse().unwrap();
        read(&Message { method: "POST", target: &target, authority: "Example.com:80", https: false, headers }, tag)
    }

    fn keys() -> MessageKeys {
        let shared =
            super::super::KeySettings { secret: Secret::new(&STANDARD.decode(SHARED).unwrap()), not_after: None };
        let apps = Apps::from([
            ("test-shared-secret".to_owned(), vec![shared]),
            ("test-key-rsa-pss".to_owned(), vec![key(RSA_PSS, None)]),
            ("test-key-ed25519".to_owned(), vec![key(ED25519, None)]),
            ("test-key-ecc-p256".to_owned(), vec![key(ECC_P256, None)]),
        ]);
        MessageKeys::new(&apps, None, &mut KeyUses::new())
    }

    #[test]
    fn the_requests_of_the_rfc_have_its_bases_and_its_signatures_hold() {
        let examples = [
            (
                "sig-b21=();created=1618884473;keyid=\"test-key-rsa-pss\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"",
                "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:",
                "",
            ),
            (
                "sig-b22=(\"@authority\" \"content-digest\" \"@query-param\";name=\"Pet\");created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\"",
                "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:",
                "\"@authority\": example.com\n\"content-digest\": @DIGEST@\n\"@query-param\";name=\"Pet\": dog\n",
            ),
            (
                "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
                "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
                "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": example.com\n\"content-type\": application/json\n",
            ),
            (
                "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
                "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
                "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\"@authority\": example.com\n\
                 \"content-type\": application/json\n\"content-length\": 18\n",
            ),
        ];
        for (input, signature, base) in examples {
            let signed = signed_of(&headers(input, signature), None).unwrap();
            let parameters = input.split_once('=').unwrap().1;
            let expected = format!("{}\"@signature-params\": {parameters}", base.replace("@DIGEST@", DIGEST));
            assert_eq!(signed.base, expected);
            assert_eq!(signed.created, Some(1_618_884_473));
            let id = keys().opened_by(&signed, 1_618_884_473).map(|key| key.id.to_string());
            assert_eq!(id.ok(), signed.keyid, "{input}");
            let other = Signed { base: signed.base.replace("16188", "16189"), ..signed };
            assert_eq!(keys().opened_by(&other, 0).unwrap_err(), KeyFault::Wrong);
        }
    }

    #[test]
    fn whoever_signs_and_whatever_holds_the_same_work_is_done() {
        let apps = Apps::from([
            ("first".to_owned(), vec![key(RSA_PSS, None)]),
            ("second".to_owned(), vec![key(ED25519, None), key("shared", Some(10))]),
            ("third".to_owned(), vec![key(ED25519, None)]),
        ]);
        let keys = MessageKeys::new(&apps, None, &mut KeyUses::new());
        let work = |keyid: &str, alg: Option<&str>| {
            let input = alg.map_or_else(String::new, |alg| format!(";alg=\"{alg}\""));
            let input = format!("a=();created=1;keyid=\"{keyid}\"{input}");
            let signed = signed_of(&headers(&input, "a=:AAAA:"), None).unwrap();
            let before = VERIFIED.get();
            let _ = keys.opened_by(&signed, 20).unwrap_err();
            VERIFIED.get() - before
        };
        for keyid in ["first", "second", "third", "nobody"] {
            assert_eq!(work(keyid, None), 2, "{keyid}");
            assert_eq!(work(keyid, Some("ed25519")), 2, "{keyid}");
            assert_eq!(work(keyid, Some("hmac-sha256")), 2, "{keyid}");
            assert_eq!(work(keyid, Some("ecdsa-p256-sha256")), 0, "{keyid}: nobody has such a key");
        }
    }

    #[test]
    fn the_response_of_the_rfc_was_signed_by_its_p256_key() {
        let base = "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n\"content-length\": 23\n\"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
        let signature = STANDARD
            .decode("wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==")
            .unwrap();
        let key = Verifier::parse(&Secret::new(ECC_P256.as_bytes())).unwrap();
        assert!(key.verifies(None, base.as_bytes(), &signature));
        assert!(key.verifies(Some("ecdsa-p256-sha256"), base.as_bytes(), &signature));
        assert!(!key.verifies(Some("ed25519"), base.as_bytes(), &signature));
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let unread =
            |input: &str, tag: Option<&str>| signed_of(&headers(input, "a=:AAAA:, b=:AAAA:"), tag).unwrap_err();
        assert_eq!(unread("", None), Unread::Missing);
        assert_eq!(unread("c=(\"@method\")", None), Unread::Missing);
        assert_eq!(unread("a=(\"@method\");tag=\"x\"", Some("y")), Unread::Missing);
        assert!(signed_of(&headers("a=(\"@method\");tag=\"x\", b=()", "a=:AAAA:"), Some("x")).is_ok());
        for input in [
            "a=(\"@method\"), b=(\"@path\")",
            "a=(\"@method\" \"@method\")",
            "a=(\"@status\")",
            "a=(\"@query-param\";name=\"absent\")",
            "a=(\"Date\")",
            "a=(\"x-absent\")",
            "a=(\"date\";bs)",
            "a=(token)",
            "a=();created=-1",
            "a=(",
        ] {
            assert_eq!(unread(input, None), Unread::Malformed, "{input}");
        }
    }

    #[test]
    fn a_signature_must_cover_where_it_goes_and_the_body() {
        let profile = Profile { components: Vec::new(), tag: None };
        let met = |covered: &[&str], body| {
            profile.is_met_by(&covered.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), body)
        };
        assert!(met(&["@method", "@authority", "@path", "@query"], false));
        assert!(met(&["@method", "@target-uri"], false));
        assert!(!met(&["@method", "@authority", "@path"], false));
        assert!(!met(&["@authority", "@path", "@query"], false));
        assert!(!met(&["@method", "@target-uri"], true));
        assert!(met(&["@method", "@target-uri", "content-digest"], true));
    }

    #[test]
    fn only_digests_that_are_known_count() {
        assert!(ContentDigest::read(&headers("", "")).unwrap().sha512.is_some());
        let mut unknown = HeaderMap::new();
        assert!(ContentDigest::read(&unknown).is_none());
        unknown.insert("content-digest", HeaderValue::from_static("md5=:AAAA:"));
        assert!(ContentDigest::read(&unknown).is_none());
    }
}
