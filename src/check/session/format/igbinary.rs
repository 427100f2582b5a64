//! The extension igbinary's format, versions 1 and 2: one array with all of the session.
//!
//! Each value begins with a byte that says what it is; lengths and numbers follow big-endian. A string is written once
//! and named by its number afterwards; so is an array that PHP holds only once, which every two empty ones are. Objects
//! are walked as written, as in PHP's own serialization.

use std::borrow::Cow;

use super::Unreadable;
use super::field::{Fields, Key, Value, Wanted};
use super::finder::{Finder, Holder};

const CUT_OFF: Unreadable = Unreadable("it ends before its time");
const MALFORMED: Unreadable = Unreadable("it is not what igbinary writes");

/// Reads a session.
pub(super) fn read<'a>(data: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
    let Some((&[0, 0, 0, 1 | 2], body)) = data.split_first_chunk() else {
        return Err(Unreadable("it is not of igbinary's version 1 or 2"));
    };
    if !matches!(body.first(), Some(0x14..=0x16)) {
        return Err(Unreadable("it is not an array"));
    }
    let mut reader = Reader { rest: body, strings: Vec::new(), shared: Vec::new(), repeating: 0 };
    let mut finder = Finder::new(wanted);
    reader.value(&mut finder)?;
    if reader.rest.is_empty() { Ok(finder.finish()) } else { Err(Unreadable("bytes follow after its end")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// The strings so far, in the order of their numbers. Names of classes are among them.
    strings: Vec<&'a [u8]>,
    /// Where the values begin that references can name: arrays, objects, and scalars marked for it.
    shared: Vec<&'a [u8]>,
    /// How many references it is following: what it reads then has its numbers already.
    repeating: usize,
}

/// An array or object that is being read.
struct Open<'a> {
    /// The elements still to come.
    elements: usize,
    /// Where to go on after it, when a reference led to it.
    back: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    /// Reads one value with all that is in it.
    fn value(&mut self, finder: &mut Finder<'_, 'a>) -> Result<(), Unreadable> {
        let mut open: Vec<Open<'a>> = Vec::new();
        loop {
            let back = self.follow(finder)?;
            match self.begin(finder)? {
                Some(elements) => open.push(Open { elements, back }),
                None => self.go_back(back),
            }
            loop {
                match open.last_mut() {
                    None => return Ok(()),
                    Some(Open { elements: 0, back }) => {
                        self.go_back(*back);
                        finder.leave();
                        open.pop();
                    }
                    Some(Open { elements, .. }) => {
                        *elements -= 1;
                        // An element that went missing while it was written has a null for its key, and no value.
                        if let Some(key) = self.key()? {
                            finder.key(key)?;
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Goes where the next value is written when it is a reference and asked for, and says where to come back to.
    /// A reference may lead into what it stands in: each costs a key of the paths, so there is an end.
    fn follow(&mut self, finder: &Finder<'_, 'a>) -> Result<Option<&'a [u8]>, Unreadable> {
        let rest = match self.rest {
            [0x25, rest @ ..] | rest => rest,
        };
        if !finder.asks() || !matches!(rest.first(), Some(0x01..=0x03 | 0x22..=0x24)) {
            return Ok(None);
        }
        self.rest = rest;
        let kind = self.byte()?;
        let written = self.reference(kind)?;
        self.repeating += 1;
        Ok(Some(std::mem::replace(&mut self.rest, written)))
    }

    fn go_back(&mut self, back: Option<&'a [u8]>) {
        if let Some(rest) = back {
            self.rest = rest;
            self.repeating -= 1;
        }
    }

    /// Reads a value, or the beginning of one that has elements: then their number.
    fn begin(&mut self, finder: &mut Finder<'_, 'a>) -> Result<Option<usize>, Unreadable> {
        let start = self.rest;
        let mut kind = self.byte()?;
        // Other values are this one as well, and change with it. What it is now is written here all the same.
        let marked = kind == 0x25;
        if marked {
            kind = self.byte()?;
        }
        match kind {
            0x14..=0x16 => {
                self.share(start);
                let elements = self.number(kind - 0x14)?;
                finder.enter(Holder::Array)?;
                return Ok(Some(elements));
            }
            0x17..=0x1c => return self.object(kind, start, finder),
            0x01..=0x03 | 0x22..=0x24 => {
                self.reference(kind)?;
                finder.opaque("a wanted field is behind a reference to a reference")?;
            }
            _ => {
                let scalar = match kind {
                    0x00 => Value::Null,
                    0x04 => Value::Bool(false),
                    0x05 => Value::Bool(true),
                    0x06..=0x0b | 0x20 | 0x21 => Value::Int(self.int(kind)?),
                    0x0c => Value::Float(f64::from_be_bytes(self.chunk()?)),
                    _ => Value::Text(Cow::Borrowed(self.text(kind)?)),
                };
                finder.scalar(scalar)?;
                if marked {
                    self.share(start);
                }
            }
        }
        Ok(None)
    }

    fn object(&mut self, kind: u8, start: &'a [u8], finder: &mut Finder<'_, 'a>) -> Result<Option<usize>, Unreadable> {
        self.text(match kind {
            0x17..=0x19 => kind - 0x17 + 0x11,
            _ => kind - 0x1a + 0x0e,
        })?;
        self.share(start);
        match self.byte()? {
            size @ 0x14..=0x16 => {
                let elements = self.number(size - 0x14)?;
                finder.enter(Holder::Object)?;
                return Ok(Some(elements));
            }
            size @ 0x1d..=0x1f => {
                let length = self.number(size - 0x1d)?;
                self.take(length)?;
                finder.opaque("a wanted field is in an object that writes its own format")?;
            }
            0x27 => {
                let name = self.byte()?;
                self.text(name)?;
                finder.opaque("a wanted field is the case of an enumeration")?;
            }
            _ => return Err(MALFORMED),
        }
        Ok(None)
    }

    /// Where the value is written that a reference of this kind names.
    fn reference(&mut self, kind: u8) -> Result<&'a [u8], Unreadable> {
        let named = self.number(if kind < 0x22 { kind - 0x01 } else { kind - 0x22 })?;
        self.shared.get(named).copied().ok_or(Unreadable("a reference leads nowhere"))
    }

    fn share(&mut self, start: &'a [u8]) {
        if self.repeating == 0 {
            self.shared.push(start);
        }
    }

    fn key(&mut self) -> Result<Option<Key<'a>>, Unreadable> {
        Ok(match self.byte()? {
            0x00 => None,
            kind @ (0x06..=0x0b | 0x20 | 0x21) => Some(Key::Int(self.int(kind)?)),
            // Not made an integer when it looks like one: igbinary does not, and no script can then name it.
            kind => Some(Key::Text(Cow::Borrowed(self.text(kind)?))),
        })
    }

    /// A string: empty, by its number, or written out.
    fn text(&mut self, kind: u8) -> Result<&'a [u8], Unreadable> {
        match kind {
            0x0d => Ok(b""),
            0x0e..=0x10 => {
                let number = self.number(kind - 0x0e)?;
                self.strings.get(number).copied().ok_or(Unreadable("a string is named that was not there"))
            }
            0x11..=0x13 => {
                let length = self.number(kind - 0x11)?;
                let text = self.take(length)?;
                if self.repeating == 0 {
                    self.strings.push(text);
                }
                Ok(text)
            }
            _ => Err(MALFORMED),
        }
    }

    /// A number of 1, 2 or 4 bytes, for the sizes 0, 1 and 2.
    fn number(&mut self, size: u8) -> Result<usize, Unreadable> {
        match size {
            0 => self.byte().map(usize::from),
            1 => Ok(usize::from(u16::from_be_bytes(self.chunk()?))),
            2 => usize::try_from(u32::from_be_bytes(self.chunk()?)).map_err(|_| MALFORMED),
            _ => Err(MALFORMED),
        }
    }

    /// Integers are written as their absolute value; the even kinds are positive.
    fn int(&mut self, kind: u8) -> Result<i64, Unreadable> {
        let absolute = match kind {
            0x06 | 0x07 => u64::from(self.byte()?),
            0x08 | 0x09 => u64::from(u16::from_be_bytes(self.chunk()?)),
            0x0a | 0x0b => u64::from(u32::from_be_bytes(self.chunk()?)),
            _ => u64::from_be_bytes(self.chunk()?),
        };
        let positive = kind.is_multiple_of(2);
        let within = if positive { i64::try_from(absolute).ok() } else { 0i64.checked_sub_unsigned(absolute) };
        within.ok_or(Unreadable("an integer is out of range"))
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.chunk().map(|[byte]| byte)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(taken)
    }
}
