//! PHP's own serialization: what `serialize()` writes, and the three session formats made of it.
//!
//! Stricter than PHP wherever PHP is lenient with what it never writes (a sign `+`, numbers out of range, bytes after
//! the end, `!` before a key, which PHP 5 read otherwise than PHP 8): whatever is accepted here PHP accepts, and reads
//! the same. Objects are walked as written; their classes, and what `__wakeup` and `__unserialize` make of them, are
//! PHP's.

use std::borrow::Cow;

use super::field::{Fields, Key, Tree, Value, Wanted};
use super::finder::{Finder, Holder};
use super::{Unreadable, Unwritable};
use crate::http::hex;

const CUT_OFF: Unreadable = Unreadable("it ends before its time");
const MALFORMED: Unreadable = Unreadable("it is not what PHP's serializer writes");
const TRAILING: Unreadable = Unreadable("bytes follow after its end");

/// Takes the key of a session variable off the front of what is left.
type TakeKey = for<'a> fn(&mut Input<'a>) -> Result<&'a [u8], Unreadable>;

/// Reads `php` or `php_binary`: keys and values in turn, each value serialized by itself.
pub(super) fn read_keyed<'a>(data: &'a [u8], wanted: &Wanted, key: TakeKey) -> Result<Fields<'a>, Unreadable> {
    let (mut reader, mut finder) = (Reader::new(data), Finder::new(wanted));
    finder.enter(Holder::Array)?;
    while !reader.input.0.is_empty() {
        // Not made an integer when it looks like one: PHP then has a variable that no script can name.
        finder.key(Key::Text(Cow::Borrowed(key(&mut reader.input)?)))?;
        reader.value(&mut finder)?;
    }
    finder.leave();
    Ok(finder.finish())
}

/// Reads `php_serialize`.
pub(in super::super) fn read_array<'a>(data: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
    if data.starts_with(b"a:") { unserialize(data, wanted) } else { Err(Unreadable("it is not an array")) }
}

/// Reads any one serialized value.
pub(in super::super) fn unserialize<'a>(data: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
    let (mut reader, mut finder) = (Reader::new(data), Finder::new(wanted));
    reader.value(&mut finder)?;
    if reader.input.0.is_empty() { Ok(finder.finish()) } else { Err(TRAILING) }
}

/// `php`: the key ends with `|`.
pub(super) fn take_delimited_key<'a>(input: &mut Input<'a>) -> Result<&'a [u8], Unreadable> {
    match input.until(b'|')? {
        [b'!', ..] => Err(Unreadable("a key begins with an exclamation mark")),
        key => Ok(key),
    }
}

/// `php_binary`: the key comes after its length. The length's high bit said "no value follows" once and nothing now.
pub(super) fn take_counted_key<'a>(input: &mut Input<'a>) -> Result<&'a [u8], Unreadable> {
    match input.byte()? {
        0x80.. => Err(Unreadable("a key is marked as having no value")),
        length => input.take(usize::from(length)),
    }
}

/// What is left to read.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(taken)
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Unreadable> {
        self.0 = self.0.strip_prefix(text).ok_or(if text.starts_with(self.0) { CUT_OFF } else { MALFORMED })?;
        Ok(())
    }

    /// What stands before the next `end`, which is skipped.
    fn until(&mut self, end: u8) -> Result<&'a [u8], Unreadable> {
        let length = memchr::memchr(end, self.0).ok_or(CUT_OFF)?;
        let taken = self.take(length)?;
        self.byte()?;
        Ok(taken)
    }

    /// A length or number of elements, without a sign.
    fn count(&mut self, end: u8) -> Result<usize, Unreadable> {
        match self.until(end)? {
            digits @ [b'0'..=b'9', ..] => parse(digits),
            _ => Err(MALFORMED),
        }
    }

    fn int(&mut self) -> Result<i64, Unreadable> {
        match self.until(b';')? {
            digits @ [b'-' | b'0'..=b'9', ..] => parse(digits),
            _ => Err(MALFORMED),
        }
    }

    /// Text of a length that is given before it, in quotes.
    fn quoted(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = self.count(b':')?;
        self.expect(b"\"")?;
        let text = self.take(length)?;
        self.expect(b"\"")?;
        Ok(text)
    }

    /// The same with `\xx` for bytes, as PHP 6 would have written: the length is that of what it stands for.
    fn quoted_escaped(&mut self) -> Result<Vec<u8>, Unreadable> {
        let length = self.count(b':')?;
        self.expect(b"\"")?;
        let mut text = Vec::with_capacity(length.min(self.0.len()));
        while text.len() < length {
            text.push(match self.byte()? {
                b'\\' => hex::byte(self.byte()?, self.byte()?).ok_or(MALFORMED)?,
                plain => plain,
            });
        }
        self.expect(b"\"")?;
        Ok(text)
    }

    fn float(&mut self) -> Result<f64, Unreadable> {
        match self.until(b';')? {
            b"NAN" => Ok(f64::NAN),
            b"INF" => Ok(f64::INFINITY),
            b"-INF" => Ok(f64::NEG_INFINITY),
            text @ ([b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..]) => parse(text),
            _ => Err(MALFORMED),
        }
    }

    fn class(&mut self) -> Result<(), Unreadable> {
        let name = self.quoted()?;
        let valid = |byte: &u8| matches!(byte, b'\\' | b'_' | 0x80.. | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        if name.is_empty() || name.starts_with(b"\\") || !name.iter().all(valid) {
            return Err(MALFORMED);
        }
        Ok(())
    }

    /// The key of an array or property.
    fn key(&mut self) -> Result<Key<'a>, Unreadable> {
        match self.take(2)? {
            b"i:" => Ok(Key::Int(self.int()?)),
            b"s:" => {
                let text = self.quoted()?;
                self.expect(b";")?;
                Ok(Key::of_array(Cow::Borrowed(text)))
            }
            b"S:" => {
                let text = self.quoted_escaped()?;
                self.expect(b";")?;
                Ok(Key::of_array(Cow::Owned(text)))
            }
            _ => Err(MALFORMED),
        }
    }
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Result<T, Unreadable> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(MALFORMED)
}

struct Reader<'a> {
    input: Input<'a>,
    /// How many values there have been that references can name: each gets a number, but for `R:` and for keys.
    slots: usize,
    /// The numbers of those that are objects, rising: only they can be named by `r:`.
    objects: Vec<usize>,
    /// The number of the first object that wrote itself: how many values it counted is not to be seen from here.
    counted: Option<usize>,
}

impl<'a> Reader<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { input: Input(data), slots: 0, objects: Vec::new(), counted: None }
    }

    /// Reads one value with all that is in it.
    fn value(&mut self, finder: &mut Finder<'_, 'a>) -> Result<(), Unreadable> {
        // The arrays and objects that are open, each with the number of elements still to come.
        let mut open: Vec<usize> = Vec::new();
        loop {
            if let Some(elements) = self.begin(finder)? {
                open.push(elements);
            }
            loop {
                match open.last_mut() {
                    None => return Ok(()),
                    Some(0) => {
                        self.input.expect(b"}")?;
                        finder.leave();
                        open.pop();
                    }
                    Some(elements) => {
                        *elements -= 1;
                        finder.key(self.input.key()?)?;
                        break;
                    }
                }
            }
        }
    }

    /// Reads a value, or the beginning of one that has elements: then their number.
    fn begin(&mut self, finder: &mut Finder<'_, 'a>) -> Result<Option<usize>, Unreadable> {
        let kind = self.input.byte()?;
        self.slots += usize::from(kind != b'R');
        if kind == b'N' {
            self.input.expect(b";")?;
            finder.scalar(Value::Null)?;
            return Ok(None);
        }
        self.input.expect(b":")?;
        match kind {
            b'b' => {
                let truth = match self.input.take(2)? {
                    b"0;" => false,
                    b"1;" => true,
                    _ => return Err(MALFORMED),
                };
                finder.scalar(Value::Bool(truth))?;
            }
            b'i' => finder.scalar(Value::Int(self.input.int()?))?,
            b'd' => finder.scalar(Value::Float(self.input.float()?))?,
            b's' => {
                let text = self.input.quoted()?;
                self.input.expect(b";")?;
                finder.scalar(Value::Text(Cow::Borrowed(text)))?;
            }
            b'S' => {
                let text = self.input.quoted_escaped()?;
                self.input.expect(b";")?;
                finder.scalar(Value::Text(Cow::Owned(text)))?;
            }
            b'a' => return self.elements(finder, Holder::Array).map(Some),
            b'O' => {
                self.objects.push(self.slots);
                self.input.class()?;
                self.input.expect(b":")?;
                return self.elements(finder, Holder::Object).map(Some);
            }
            b'C' => self.custom(finder)?,
            b'E' => self.case(finder)?,
            b'r' | b'R' => self.reference(kind, finder)?,
            _ => return Err(MALFORMED),
        }
        Ok(None)
    }

    fn elements(&mut self, finder: &mut Finder<'_, 'a>, holder: Holder) -> Result<usize, Unreadable> {
        let elements = self.input.count(b':')?;
        self.input.expect(b"{")?;
        finder.enter(holder)?;
        Ok(elements)
    }

    /// An object of a class that writes its own format.
    fn custom(&mut self, finder: &mut Finder<'_, 'a>) -> Result<(), Unreadable> {
        self.objects.push(self.slots);
        self.counted.get_or_insert(self.slots);
        self.input.class()?;
        self.input.expect(b":")?;
        let length = self.input.count(b':')?;
        self.input.expect(b"{")?;
        self.input.take(length)?;
        self.input.expect(b"}")?;
        finder.opaque("a wanted field is in an object that writes its own format")
    }

    /// The case of an enumeration: `Class:Case`.
    fn case(&mut self, finder: &mut Finder<'_, 'a>) -> Result<(), Unreadable> {
        self.objects.push(self.slots);
        let name = self.input.quoted()?;
        self.input.expect(b";")?;
        if !name.contains(&b':') {
            return Err(MALFORMED);
        }
        finder.opaque("a wanted field is the case of an enumeration")
    }

    /// What stands here is what has this number (`R:`: and remains it, when one of them is set).
    fn reference(&mut self, kind: u8, finder: &mut Finder<'_, 'a>) -> Result<(), Unreadable> {
        let named = self.input.count(b';')?;
        if self.counted.is_some_and(|counted| named > counted) {
            return Err(Unreadable("a reference leads past an object that writes its own format"));
        }
        let exists = match kind {
            b'R' => (1..=self.slots).contains(&named),
            _ => self.objects.binary_search(&named).is_ok(),
        };
        if !exists {
            return Err(Unreadable("a reference leads nowhere"));
        }
        if kind == b'r' {
            self.objects.push(self.slots);
        }
        finder.opaque("a wanted field is behind a reference")
    }
}

/// Puts the key of a session variable before its value.
type PutKey = fn(&mut Vec<u8>, &[u8]) -> Result<(), Unwritable>;

/// Writes `php` or `php_binary`.
pub(super) fn write_keyed(tree: &Tree<'_>, put_key: PutKey) -> Result<Vec<u8>, Unwritable> {
    let mut out = Vec::new();
    let Tree::Branch(variables) = tree else { return Ok(out) };
    for (key, value) in variables {
        let Key::Text(name) = key else {
            return Err(Unwritable("PHP keeps no session variable whose name is a number"));
        };
        put_key(&mut out, name)?;
        put_tree(&mut out, value);
    }
    Ok(out)
}

/// Writes `php_serialize`.
pub(super) fn write_array(tree: &Tree<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_tree(&mut out, tree);
    out
}

pub(super) fn put_delimited_key(out: &mut Vec<u8>, key: &[u8]) -> Result<(), Unwritable> {
    if key.iter().any(|byte| matches!(byte, b'|' | b'!')) {
        return Err(Unwritable("a name has a character that PHP's format uses itself: | or !"));
    }
    out.extend_from_slice(key);
    out.push(b'|');
    Ok(())
}

pub(super) fn put_counted_key(out: &mut Vec<u8>, key: &[u8]) -> Result<(), Unwritable> {
    match u8::try_from(key.len()) {
        Ok(length @ ..0x80) => out.push(length),
        _ => return Err(Unwritable("a name is longer than 127 bytes")),
    }
    out.extend_from_slice(key);
    Ok(())
}

fn put_tree(out: &mut Vec<u8>, tree: &Tree<'_>) {
    match tree {
        Tree::Leaf(value) => put_value(out, value),
        Tree::Branch(children) => {
            out.extend_from_slice(format!("a:{}:{{", children.len()).as_bytes());
            for (key, child) in children {
                match key {
                    Key::Int(number) => put_value(out, &Value::Int(*number)),
                    Key::Text(text) => put_text(out, text),
                }
                put_tree(out, child);
            }
            out.push(b'}');
        }
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"N;"),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"b:1;" } else { b"b:0;" }),
        Value::Int(number) => out.extend_from_slice(format!("i:{number};").as_bytes()),
        Value::Float(number) if number.is_nan() => out.extend_from_slice(b"d:NAN;"),
        Value::Float(number) if number.is_infinite() => {
            out.extend_from_slice(if number.is_sign_positive() { b"d:INF;" } else { b"d:-INF;" });
        }
        Value::Float(number) => out.extend_from_slice(format!("d:{number:?};").as_bytes()),
        Value::Text(text) => put_text(out, text),
        Value::List(values) => {
            out.extend_from_slice(format!("a:{}:{{", values.len()).as_bytes());
            for (at, value) in values.iter().enumerate() {
                out.extend_from_slice(format!("i:{at};").as_bytes());
                put_value(out, value);
            }
            out.push(b'}');
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(format!("s:{}:\"", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\";");
}
