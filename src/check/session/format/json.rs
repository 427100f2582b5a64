//! Sessions as JSON, read as PHP's `json_decode` reads them: the last of two equal keys counts, and an integer beyond
//! 64 bits is a float.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::field::{Fields, Key, Tree, Value, Wanted};
use super::finder::{Finder, Holder};
use super::{Unreadable, Unwritable};

/// Reads a session: an object, or the list that PHP writes for an empty one.
pub(in super::super) fn read<'a>(data: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
    // Also what is skipped must be text: PHP takes nothing else.
    let text = std::str::from_utf8(data).map_err(|_| Unreadable("it is not UTF-8"))?;
    if !text.trim_ascii_start().starts_with(['{', '[']) {
        return Err(Unreadable("it is not a JSON object"));
    }
    let (mut finder, mut refused) = (Finder::new(wanted), None);
    let mut json = serde_json::Deserializer::from_str(text);
    Walk { finder: &mut finder, refused: &mut refused }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|_| refused.unwrap_or(Unreadable("it is not JSON")))?;
    Ok(finder.finish())
}

/// Takes one JSON value through the finder.
struct Walk<'f, 'w, 'a> {
    finder: &'f mut Finder<'w, 'a>,
    /// Why the finder stopped: the library's errors cannot carry it.
    refused: &'f mut Option<Unreadable>,
}

impl<'a> Walk<'_, '_, 'a> {
    fn pass<E: serde::de::Error>(refused: &mut Option<Unreadable>, result: Result<(), Unreadable>) -> Result<(), E> {
        result.map_err(|why| {
            *refused = Some(why);
            E::custom(why)
        })
    }

    fn scalar<E: serde::de::Error>(self, value: Value<'a>) -> Result<(), E> {
        Self::pass(self.refused, self.finder.scalar(value))
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        self.scalar(Value::Bool(truth))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.scalar(Value::Int(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "as PHP does with what its integers cannot hold")]
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.scalar(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.scalar(Value::Float(number))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'a str) -> Result<(), E> {
        self.scalar(Value::Text(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.scalar(Value::Text(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        Self::pass(self.refused, self.finder.enter(Holder::Array))?;
        // The finder learns of an element before it is read, so also of the one that turns out not to be there:
        // nothing is found under a key that no value follows.
        for at in 0.. {
            Self::pass(self.refused, self.finder.key(Key::Int(at)))?;
            let walk = Walk { finder: &mut *self.finder, refused: &mut *self.refused };
            if list.next_element_seed(walk)?.is_none() {
                break;
            }
        }
        self.finder.leave();
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        Self::pass(self.refused, self.finder.enter(Holder::Array))?;
        while let Some(key) = map.next_key_seed(Name)? {
            Self::pass(self.refused, self.finder.key(Key::of_array(key)))?;
            map.next_value_seed(Walk { finder: &mut *self.finder, refused: &mut *self.refused })?;
        }
        self.finder.leave();
        Ok(())
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, [u8]>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text.as_bytes()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.as_bytes().to_vec()))
    }
}

/// Writes a session.
pub(super) fn write(tree: &Tree<'_>) -> Result<Vec<u8>, Unwritable> {
    let mut out = Vec::new();
    put_tree(&mut out, tree)?;
    Ok(out)
}

fn put_tree(out: &mut Vec<u8>, tree: &Tree<'_>) -> Result<(), Unwritable> {
    match tree {
        Tree::Leaf(value) => put_value(out, value),
        Tree::Branch(children) => {
            out.push(b'{');
            for (at, (key, child)) in children.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                match key {
                    Key::Int(number) => out.extend_from_slice(format!("\"{number}\"").as_bytes()),
                    Key::Text(text) => put_text(out, text)?,
                }
                out.push(b':');
                put_tree(out, child)?;
            }
            out.push(b'}');
            Ok(())
        }
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), Unwritable> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Float(number) if number.is_finite() => out.extend_from_slice(format!("{number:?}").as_bytes()),
        Value::Float(_) => return Err(Unwritable("JSON has no infinity and no NaN")),
        Value::Text(text) => put_text(out, text)?,
        Value::List(values) => {
            out.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put_value(out, value)?;
            }
            out.push(b']');
        }
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Unwritable> {
    const NOT_TEXT: Unwritable = Unwritable("JSON has only text in UTF-8");
    let text = std::str::from_utf8(text).map_err(|_| NOT_TEXT)?;
    serde_json::to_writer(&mut *out, text).map_err(|_| NOT_TEXT)
}
