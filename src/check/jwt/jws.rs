//! Tokens as they are written: the compact form of a JWS (RFC 7515) that carries claims (RFC 7519).
//!
//! Pure: bytes in, values out. Strict where another reader could see something else: base64url without
//! padding or loose bits, JSON objects without a name that is there twice, and nothing that says it
//! must be understood (`crit`, and with it `b64`): nothing of the kind is. What a token says of its own
//! key (`jwk`, `jku`, `x5c`) is not read: a stranger's word. The claims are looked at by nobody before
//! the signature holds.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// It is not a token, or one that could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct Malformed;

/// A token whose signature nobody has verified yet.
#[derive(Debug)]
pub struct Unverified<'t> {
    /// What is signed.
    pub message: &'t [u8],
    /// The signature of it.
    pub signature: Vec<u8>,
    /// `alg`: what the token says it is signed with.
    pub algorithm: String,
    /// `kid`: the key's name, if it has one.
    pub kid: Option<String>,
    payload: &'t [u8],
}

/// What a token says of its bearer.
#[derive(Debug, PartialEq)]
pub struct Claims(Map<String, Value>);

impl<'t> Unverified<'t> {
    /// Reads header and signature.
    ///
    /// # Errors
    /// It is not of the compact form, or its header could be read in two ways.
    pub fn parse(token: &'t [u8]) -> Result<Self, Malformed> {
        let end = memchr::memrchr(b'.', token).ok_or(Malformed)?;
        let (message, signature) = token.split_at_checked(end).ok_or(Malformed)?;
        let dot = memchr::memchr(b'.', message).ok_or(Malformed)?;
        let (header, payload) = message.split_at_checked(dot).ok_or(Malformed)?;
        let (payload, signature) = (payload.get(1..).ok_or(Malformed)?, signature.get(1..).ok_or(Malformed)?);
        if [header, payload, signature].iter().any(|part| part.is_empty()) {
            return Err(Malformed);
        }
        let header = object(&decode(header)?)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Malformed),
        };
        if ["crit", "b64", "enc", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err(Malformed);
        }
        let (algorithm, kid) = (text("alg")?.ok_or(Malformed)?, text("kid")?);
        Ok(Self { message, signature: decode(signature)?, algorithm, kid, payload })
    }

    /// The claims, for whoever has verified the signature.
    ///
    /// # Errors
    /// They are not one JSON object, or one that could be read in two ways.
    pub fn claims(&self) -> Result<Claims, Malformed> {
        Ok(Claims(object(&decode(self.payload)?)?))
    }
}

impl Claims {
    /// The claim of that name; else the one that a dotted path leads to.
    ///
    /// Names like `https://shop.example/roles` have dots of their own.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(self.0.get(first)?, |value, name| value.get(name))
    }

    /// A moment, in seconds since 1970: `None`: it is not there.
    ///
    /// # Errors
    /// It is there and is no number of seconds.
    pub fn seconds(&self, name: &str) -> Result<Option<f64>, Malformed> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|number| number.is_finite()).map(Some).ok_or(Malformed),
        }
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed)
}

/// Reads a JSON object whose names are each there once, at any depth.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, Malformed> {
    match serde_json::from_slice(json).map_err(|_| Malformed)? {
        Unique(Value::Object(object)) => Ok(object),
        Unique(_) => Err(Malformed),
    }
}

/// A JSON value in which no object has a name twice; which of them counts, readers disagree about.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(Unique)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = access.next_entry::<String, Unique>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name is there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(header), encode(claims), encode("signature"))
    }

    #[test]
    fn a_token_is_three_parts() {
        let token = token(r#"{"alg":"RS256","kid":"a","typ":"JWT"}"#, r#"{"sub":"7"}"#);
        let read = Unverified::parse(token.as_bytes()).unwrap();
        assert_eq!((&*read.algorithm, read.kid.as_deref(), &*read.signature), ("RS256", Some("a"), &b"signature"[..]));
        assert_eq!(read.message, token.rsplit_once('.').unwrap().0.as_bytes());
        assert_eq!(read.claims().unwrap().at("sub").unwrap(), "7");
        for broken in
            ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", &token[1..], &format!("{token}="), &format!("{token}.a")]
        {
            assert_eq!(Unverified::parse(broken.as_bytes()).err(), Some(Malformed), "{broken}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_token() {
        for header in [
            r#"{"alg":"RS256","alg":"HS256"}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","b64":true}"#,
            r#"{"alg":"RS256","zip":"DEF"}"#,
            r#"{"alg":"RS256","kid":7}"#,
            r#"{"kid":"a"}"#,
            r#"["RS256"]"#,
            r#"{"alg":"RS256""#,
        ] {
            assert_eq!(Unverified::parse(token(header, "{}").as_bytes()).err(), Some(Malformed), "{header}");
        }
        for claims in [r#"{"sub":"1","sub":"2"}"#, r#"{"a":{"b":1,"b":2}}"#, r#"[{"a":1}]"#, "7", "{}{}"] {
            let token = token(r#"{"alg":"RS256"}"#, claims);
            assert_eq!(Unverified::parse(token.as_bytes()).unwrap().claims(), Err(Malformed), "{claims}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(object(deep.as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_path() {
        let claims = Claims(object(br#"{"a":{"b":{"c":1}},"x.y":2,"x":{"y":3}}"#).unwrap());
        assert_eq!(claims.at("a.b.c").unwrap(), 1);
        assert_eq!(claims.at("x.y").unwrap(), 2);
        assert_eq!((claims.at("a.b.d"), claims.at("a.b.c.d"), claims.at("z")), (None, None, None));
    }
}
