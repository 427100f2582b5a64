//! Tokens that OpenSSL, libsodium and PHP have signed, and ones that nobody should.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::key::Named;
use super::*;
use crate::check::field_header;

const TOKENS: &str = include_str!("tests/tokens");
const SECRET: &str = include_str!("tests/secret");
const RSA: &str = include_str!("tests/rsa.pem");
const P256: &str = include_str!("tests/p256.pem");
const P384: &str = include_str!("tests/p384.pem");
const ED25519: &str = include_str!("tests/ed25519.pem");

/// 2027-01-15.
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn jwt(algorithms: &[Algorithm], keys: &[(&str, Key)], change: impl FnOnce(&mut Settings)) -> Jwt {
    let named = |(kid, key): &(&str, Key)| Named { kid: Some((*kid).into()), only: None, key: key.clone() };
    let mut settings = Settings {
        token: Vec::new(),
        algorithms: algorithms.to_vec(),
        keys: Keys(keys.iter().map(named).collect()),
        jwks: None,
        issuer: Vec::new(),
        audience: Vec::new(),
        leeway: Duration::from_secs(30),
        user: "sub".to_owned(),
        fields: vec![(field_header("roles").unwrap(), "roles".to_owned())],
        max_bytes: 8 << 10,
    };
    change(&mut settings);
    Jwt::new(settings, None)
}

/// What the check says of a token, the search for it and the memory of it apart.
fn asked(jwt: &Jwt, token: &str) -> Result<Identity, &'static str> {
    let judged = || {
        let (unverified, algorithm) = jwt.read(token.as_bytes())?;
        let key = jwt.settings.keys.find(unverified.kid.as_deref(), algorithm).ok_or(Fault::UnknownKey)?;
        jwt.judge(&unverified, algorithm, key, now()).map(|(identity, _)| identity)
    };
    judged().map_err(Fault::reason)
}

/// A signer of this test's own.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn key(&self) -> Key {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        Key::of_jwk(&json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"key"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn of(family: Family) -> Key {
    match family {
        Family::Secret => Key::secret(SECRET),
        Family::Rsa => Key::public(RSA),
        Family::P256 => Key::public(P256),
        Family::P384 => Key::public(P384),
        Family::Ed25519 => Key::public(ED25519),
    }
    .unwrap()
}

#[test]
fn what_others_have_signed_is_verified_by_every_algorithm() {
    let mut verified = 0;
    for (name, token) in TOKENS.lines().map(|line| line.split_once(' ').unwrap()) {
        let algorithm = Algorithm::named(name).unwrap();
        let jwt = jwt(&[algorithm], &[("key", of(algorithm.family()))], |_| {});
        let identity = asked(&jwt, token).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        assert_eq!((identity.user(), identity.field("roles")), (Some("7"), Some("admin,editor")), "{name}");

        let at = token.rfind('.').unwrap();
        let (message, signature) = token.split_at(at);
        let other = if signature.starts_with(".A") { "B" } else { "A" };
        assert_eq!(asked(&jwt, &format!("{message}.{other}{}", &signature[2..])).unwrap_err(), "signature", "{name}");
        verified += 1;
    }
    assert_eq!(verified, Algorithm::ALL.len());
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    // The oldest trick: what everybody knows, the text of the public key, as the secret of an HMAC.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"key"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(r#"{"sub":"1","exp":4102444800}"#));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, RSA.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
    let token = format!("{message}.{tag}");
    let open = jwt(&[Algorithm::Rs256, Algorithm::Hs256], &[("key", of(Family::Rsa))], |_| {});
    assert_eq!(asked(&open, &token).unwrap_err(), "unknown_key");
    let usual = jwt(&[Algorithm::Rs256], &[("key", of(Family::Rsa))], |_| {});
    assert_eq!(asked(&usual, &token).unwrap_err(), "malformed");
    let none = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"key"}"#));
    assert_eq!(asked(&usual, &none).unwrap_err(), "malformed");
}

#[test]
fn a_token_holds_for_its_time_and_needs_an_end() {
    let signer = Signer::new();
    let jwt = jwt(&[Algorithm::EdDsa], &[("key", signer.key())], |_| {});
    let said = |claims: Value| asked(&jwt, &signer.sign(&claims)).map(|identity| identity.user().unwrap().to_owned());
    assert_eq!(said(json!({"sub": "7", "exp": NOW + 1})).unwrap(), "7");
    assert_eq!(said(json!({"sub": 7, "exp": NOW as f64 + 0.5})).unwrap(), "7");
    assert_eq!(said(json!({"sub": "7", "exp": NOW - 29})).unwrap(), "7");
    assert_eq!(said(json!({"sub": "7", "exp": NOW + 60, "nbf": NOW + 30, "iat": NOW + 29})).unwrap(), "7");
    for (claims, reason) in [
        (json!({"sub": "7", "exp": NOW - 30}), "expired"),
        (json!({"sub": "7"}), "claim"),
        (json!({"sub": "7", "exp": "tomorrow"}), "claim"),
        (json!({"sub": "7", "exp": NOW + 99, "nbf": NOW + 31}), "future"),
        (json!({"sub": "7", "exp": NOW + 99, "iat": NOW + 31}), "future"),
        (json!({"exp": NOW + 99}), "claim"),
        (json!({"sub": "", "exp": NOW + 99}), "claim"),
        (json!({"sub": ["7"], "exp": NOW + 99}), "claim"),
        (json!({"sub": "7\r\nX-Admin: 1", "exp": NOW + 99}), "claim"),
        (json!({"sub": "7", "exp": NOW + 99, "roles": ["a,admin"]}), "claim"),
        (json!({"sub": "7", "exp": NOW + 99, "roles": {"admin": true}}), "claim"),
    ] {
        assert_eq!(said(claims.clone()).unwrap_err(), reason, "{claims}");
    }
    let far = said(json!({"sub": "7", "exp": 1e300}));
    assert_eq!(far.unwrap(), "7");
}

#[test]
fn a_token_made_by_or_for_somebody_else_is_refused() {
    let signer = Signer::new();
    let names = |settings: &mut Settings| {
        settings.issuer = vec!["https://id.shop.example".to_owned()];
        settings.audience = vec!["shop".to_owned(), "admin".to_owned()];
        settings.user = "https://shop.example/user.id".to_owned();
        settings.fields = vec![(field_header("roles").unwrap(), "realm.roles".to_owned())];
    };
    let jwt = jwt(&[Algorithm::EdDsa], &[("key", signer.key())], names);
    let said = |iss: Value, aud: Value| {
        let claims = json!({
            "iss": iss, "aud": aud, "exp": NOW + 9, "https://shop.example/user.id": 12, "realm": {"roles": ["a", 2, true]},
        });
        asked(&jwt, &signer.sign(&claims))
    };
    let known = said(json!("https://id.shop.example"), json!(["other", "shop"])).unwrap();
    assert_eq!((known.user(), known.field("roles")), (Some("12"), Some("a,2,true")));
    assert!(said(json!("https://id.shop.example"), json!("admin")).is_ok());
    for (iss, aud, reason) in [
        (json!("https://id.evil.example"), json!("shop"), "issuer"),
        (json!(null), json!("shop"), "issuer"),
        (json!("https://id.shop.example"), json!("shops"), "audience"),
        (json!("https://id.shop.example"), json!([]), "audience"),
        (json!("https://id.shop.example"), json!(null), "audience"),
    ] {
        assert_eq!(said(iss, aud).unwrap_err(), reason);
    }
}

#[test]
fn a_remembered_token_is_forgotten_with_the_keys_it_was_verified_by() {
    let jwt = jwt(&[Algorithm::EdDsa], &[], |_| {});
    let identity = Identity::new(Some(b"7"), None, []).unwrap();
    let (keys, others) = (Arc::new(Keys::default()), Arc::new(Keys::default()));
    let name = name_of(b"token");
    assert_eq!(jwt.recall(&name, Some(&keys)), None);
    jwt.remember(name, Some(&keys), Duration::from_secs(60), &identity);
    assert_eq!(jwt.recall(&name, Some(&keys)), Some(identity.clone()));
    assert_eq!(jwt.recall(&name, Some(&others)), None);
    assert_eq!(jwt.recall(&name, None), None);
    jwt.remember(name_of(b"other"), Some(&others), Duration::from_secs(60), &identity);
    assert_eq!(jwt.recall(&name, Some(&others)), None);
    jwt.remember(name, Some(&others), Duration::ZERO, &identity);
    assert_eq!(jwt.recall(&name, Some(&others)), None);
}

/// What verifying costs beside remembering; told, not asserted.
#[test]
fn remembering_a_token_spares_its_signature() {
    let per = |work: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..200).for_each(|_| work());
        begun.elapsed() / 200
    };
    for (name, token) in TOKENS.lines().map(|line| line.split_once(' ').unwrap()) {
        let algorithm = Algorithm::named(name).unwrap();
        let jwt = jwt(&[algorithm], &[("key", of(algorithm.family()))], |_| {});
        let verified = per(&mut || _ = asked(&jwt, token).unwrap());
        jwt.remember(name_of(token.as_bytes()), None, Duration::from_secs(600), &asked(&jwt, token).unwrap());
        let recalled = per(&mut || _ = jwt.recall(&name_of(token.as_bytes()), None).unwrap());
        println!("{name}: verified in {verified:?}, recalled in {recalled:?}");
    }
}
