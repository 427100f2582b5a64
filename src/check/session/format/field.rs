//! What is asked of a session and what it answers: paths, and the values found there.

use std::borrow::Cow;
use std::fmt;

use super::Unwritable;

/// One key of a PHP array.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Int(i64),
    Text(Cow<'a, [u8]>),
}

impl<'a> Key<'a> {
    /// A string as the key of an array: PHP turns decimal ones into integers, so that `"7"` and `7` are one key.
    pub(super) fn of_array(text: Cow<'a, [u8]>) -> Self {
        decimal(&text).map_or(Self::Text(text), Self::Int)
    }
}

/// The integer that PHP makes of such a key: no sign but `-`, no leading zero, within 64 bits.
fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
        [] => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Where in a session a field is: `auth.user_id` is `$_SESSION['auth']['user_id']`.
///
/// It leads through arrays and through the properties of objects, whatever their visibility.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldPath {
    keys: Box<[Key<'static>]>,
}

/// What is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing, or nothing between two dots.
    #[error("a key of the path is empty")]
    EmptyKey,
    /// More keys than [`FieldPath::MAX_KEYS`].
    #[error("the path has more than 16 keys")]
    TooDeep,
}

impl FieldPath {
    /// The most keys of a path.
    pub const MAX_KEYS: usize = 16;

    /// Reads a path whose keys are separated by dots.
    ///
    /// # Errors
    /// A key is empty, or there are too many.
    pub fn dotted(path: &str) -> Result<Self, PathFault> {
        let keys: Vec<&str> = path.split('.').collect();
        if keys.len() > Self::MAX_KEYS {
            return Err(PathFault::TooDeep);
        }
        if keys.contains(&"") {
            return Err(PathFault::EmptyKey);
        }
        Ok(Self::of(&keys))
    }

    /// A path of keys that may have dots in them. Without keys it leads to the value that holds all others.
    pub(in super::super) fn of(keys: &[&str]) -> Self {
        let key = |key: &&str| Key::of_array(Cow::Owned(key.as_bytes().to_vec()));
        Self { keys: keys.iter().map(key).collect() }
    }

    pub(super) fn keys(&self) -> &[Key<'static>] {
        &self.keys
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.keys.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            match key {
                Key::Int(number) => write!(f, "{dot}{number}")?,
                Key::Text(text) => write!(f, "{dot}{}", text.escape_ascii())?,
            }
        }
        Ok(())
    }
}

/// The fields that one reading looks for: at most 64, each a bit of a `u64` to the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    paths: Box<[FieldPath]>,
}

impl Wanted {
    /// The most fields.
    pub const MAX: usize = 64;

    /// These fields, unless there are more than [`Wanted::MAX`]. Answers come in the same order.
    #[must_use]
    pub fn new(paths: Vec<FieldPath>) -> Option<Self> {
        (paths.len() <= Self::MAX).then(|| Self { paths: paths.into() })
    }

    /// One field only.
    #[must_use]
    pub fn one(path: FieldPath) -> Self {
        Self { paths: Box::new([path]) }
    }

    pub(super) fn paths(&self) -> &[FieldPath] {
        &self.paths
    }
}

/// The values of the wanted fields, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields<'a> {
    values: Vec<Option<Value<'a>>>,
}

impl<'a> Fields<'a> {
    pub(super) fn none(wanted: &Wanted) -> Self {
        Self { values: vec![None; wanted.paths.len()] }
    }

    pub(super) fn new(values: Vec<Option<Value<'a>>>) -> Self {
        Self { values }
    }

    /// The value of the field that was named at this place, unless the session has none.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Value<'a>> {
        self.values.get(place)?.as_ref()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&Value<'a>>> {
        self.values.iter().map(Option::as_ref)
    }

    /// The same, free of the session's bytes.
    #[must_use]
    pub fn into_owned(self) -> Fields<'static> {
        Fields { values: self.values.into_iter().map(|value| value.map(Value::into_owned)).collect() }
    }
}

/// A value of a session. Its `Debug` tells no text: that may be a secret.
#[derive(Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float; PHP has infinities and NaN as well.
    Float(f64),
    /// A string. PHP's are bytes.
    Text(Cow<'a, [u8]>),
    /// An array of the above, without its keys.
    List(Vec<Value<'a>>),
}

impl Value<'_> {
    /// What can say who somebody is: a text that is not empty, or an integer. Nothing else: `false`, `null`, `0.5`
    /// and lists are no users, nor is a zero, which is false to PHP in either form and the id of nobody.
    #[must_use]
    pub fn as_id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Int(0) => None,
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            Self::Text(text) if !matches!(&**text, b"" | b"0") => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// The same, free of the session's bytes.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(truth) => write!(f, "Bool({truth})"),
            Self::Int(number) => write!(f, "Int({number})"),
            Self::Float(number) => write!(f, "Float({number})"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::List(values) => f.debug_list().entries(values).finish(),
        }
    }
}

/// Fields to be written, joined where their paths begin alike. As deep as the longest path.
pub(super) enum Tree<'v> {
    Leaf(&'v Value<'v>),
    Branch(Vec<(&'v Key<'static>, Tree<'v>)>),
}

impl<'v> Tree<'v> {
    pub(super) fn grow(fields: &'v [(&'v FieldPath, Value<'v>)]) -> Result<Self, Unwritable> {
        let mut root = Self::Branch(Vec::new());
        for (path, value) in fields {
            let mut node = &mut root;
            for key in path.keys() {
                let Self::Branch(children) = node else { return Err(TWICE) };
                let at = children.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                    children.push((key, Self::Branch(Vec::new())));
                    children.len() - 1
                });
                node = children.get_mut(at).map(|(_, child)| child).ok_or(TWICE)?;
            }
            match node {
                Self::Branch(children) if children.is_empty() && !path.keys().is_empty() => *node = Self::Leaf(value),
                _ => return Err(TWICE),
            }
        }
        Ok(root)
    }
}

const TWICE: Unwritable = Unwritable("two fields are at one place");

/// A path of any bytes, which no configuration can hold.
#[cfg(test)]
pub(super) fn path_of_bytes(keys: &[Vec<u8>]) -> FieldPath {
    FieldPath { keys: keys.iter().map(|key| Key::of_array(Cow::Owned(key.clone()))).collect() }
}
