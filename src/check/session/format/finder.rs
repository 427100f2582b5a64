//! Follows the wanted paths while a reader walks through a session.
//!
//! The reader says what it meets, in order: [`enter`](Finder::enter) an array or object, a [`key`](Finder::key), the
//! value, [`leave`](Finder::leave). The finder holds the bounds on depth and elements, keeps the last of two equal keys
//! as PHP does, and refuses a wanted field that is more than scalars.

use std::borrow::Cow;

use super::field::{Fields, Key, Value, Wanted};
use super::{MAX_DEPTH, MAX_ELEMENTS, MAX_LIST, Unreadable};

/// What holds other values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Array,
    Object,
}

pub(super) struct Finder<'w, 'a> {
    wanted: &'w Wanted,
    found: Vec<Option<Value<'a>>>,
    /// The arrays and objects around the reader's place: as many as it has come down keys.
    open: Vec<Open<'a>>,
    next: Next<'a>,
    elements: usize,
}

/// What the next value is to the wanted fields, each a bit.
#[derive(Default)]
struct Next<'a> {
    /// Fields that are this very value.
    here: u64,
    /// Fields that lie within it.
    within: u64,
    /// The key under which a list that is wanted has it.
    of_list: Option<Key<'a>>,
}

struct Open<'a> {
    holder: Holder,
    within: u64,
    /// The list that it is to the fields of `here`.
    list: Option<(u64, Vec<(Key<'a>, Value<'a>)>)>,
    /// Properties already met on the way to a field, under their full names.
    properties: Vec<(u64, Key<'a>)>,
}

impl<'w, 'a> Finder<'w, 'a> {
    pub(super) fn new(wanted: &'w Wanted) -> Self {
        let mut next = Next::default();
        for (at, path) in wanted.paths().iter().enumerate() {
            *if path.keys().is_empty() { &mut next.here } else { &mut next.within } |= 1 << at;
        }
        Self { wanted, found: vec![None; wanted.paths().len()], open: Vec::new(), next, elements: 0 }
    }

    /// The next value is an array or an object.
    pub(super) fn enter(&mut self, holder: Holder) -> Result<(), Unreadable> {
        if self.open.len() == MAX_DEPTH {
            return Err(Unreadable("it is nested more than 64 deep"));
        }
        let Next { here, within, of_list } = std::mem::take(&mut self.next);
        if of_list.is_some() {
            return Err(Unreadable("a wanted list holds more than scalars"));
        }
        if here != 0 && holder == Holder::Object {
            return Err(Unreadable("a wanted field is an object"));
        }
        let list = (here != 0).then(|| (here, Vec::new()));
        self.open.push(Open { holder, within, list, properties: Vec::new() });
        Ok(())
    }

    /// The next value has this key in the array or object that was entered last.
    pub(super) fn key(&mut self, key: Key<'a>) -> Result<(), Unreadable> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Unreadable("it has more than 100,000 elements"));
        }
        self.next = Next::default();
        let depth = self.open.len().saturating_sub(1);
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        let property = (open.holder == Holder::Object).then(|| property_name(&key)).transpose()?;
        if open.within != 0 {
            let name = property.as_ref().unwrap_or(&key);
            for (at, path) in self.wanted.paths().iter().enumerate() {
                if open.within & (1 << at) == 0 || path.keys().get(depth) != Some(name) {
                    continue;
                }
                *if path.keys().len() == depth + 1 { &mut self.next.here } else { &mut self.next.within } |= 1 << at;
                // An equal key before this one is overwritten, with all that was in it.
                if let Some(found) = self.found.get_mut(at) {
                    *found = None;
                }
            }
            let fields = self.next.here | self.next.within;
            if property.is_some() && fields != 0 {
                if open.properties.iter().any(|(met, full)| met & fields != 0 && *full != key) {
                    return Err(Unreadable("an object has two properties of one name"));
                }
                open.properties.push((fields, key.clone()));
            }
        }
        self.next.of_list = open.list.is_some().then_some(key);
        Ok(())
    }

    /// The next value is a scalar.
    pub(super) fn scalar(&mut self, value: Value<'a>) -> Result<(), Unreadable> {
        let Next { here, of_list, .. } = std::mem::take(&mut self.next);
        if let (Some(key), Some(Open { list: Some((_, list)), .. })) = (of_list, self.open.last_mut()) {
            let full = list.len() == MAX_LIST;
            match list.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value.clone(),
                None if full => return Err(Unreadable("a wanted list has more than 256 elements")),
                None => list.push((key, value.clone())),
            }
        }
        self.keep(here, value);
        Ok(())
    }

    /// Whether anybody asks for the next value, or for something in it. If not, it need only be skipped.
    pub(super) fn asks(&self) -> bool {
        self.next.here | self.next.within != 0 || self.next.of_list.is_some()
    }

    /// The next value is one whose meaning only PHP knows.
    pub(super) fn opaque(&mut self, why: &'static str) -> Result<(), Unreadable> {
        if self.asks() { Err(Unreadable(why)) } else { Ok(()) }
    }

    /// The array or object that was entered last is complete.
    pub(super) fn leave(&mut self) {
        if let Some((here, list)) = self.open.pop().and_then(|open| open.list) {
            self.keep(here, Value::List(list.into_iter().map(|(_, value)| value).collect()));
        }
    }

    pub(super) fn finish(self) -> Fields<'a> {
        Fields::new(self.found)
    }

    fn keep(&mut self, fields: u64, value: Value<'a>) {
        let mut places =
            self.found.iter_mut().enumerate().filter(|(at, _)| fields & (1 << at) != 0).map(|(_, place)| place);
        let Some(first) = places.next() else { return };
        for place in places {
            *place = Some(value.clone());
        }
        *first = Some(value);
    }
}

/// A property as it is called in the source: without the class or `*` that says who may see it, and as a path has it.
fn property_name<'k>(key: &Key<'k>) -> Result<Key<'k>, Unreadable> {
    let Key::Text(full) = key else { return Ok(key.clone()) };
    let bare = |name: &[u8]| -> Option<usize> {
        let [0, class @ ..] = name else { return Some(0) };
        class.iter().position(|byte| *byte == 0).filter(|length| *length > 0).map(|length| length + 2)
    };
    let start = bare(full).ok_or(Unreadable("an object has a property without a name"))?;
    Ok(Key::of_array(match full {
        Cow::Borrowed(full) => Cow::Borrowed(full.get(start..).unwrap_or_default()),
        Cow::Owned(full) => Cow::Owned(full.get(start..).unwrap_or_default().to_vec()),
    }))
}
