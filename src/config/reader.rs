//! Reading one table of the file, key by key, by what [`spec`] says of it.
//!
//! A [`Reader`] finds unknown keys when it is opened, gives a key's value or its default, and notes
//! on the sheet what cannot be read; `None` then means "already reported". serde's derive is no use
//! here: it stops at the first fault, and an operator should see all of them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Sheet, did_you_mean};
use super::spec::{self, Default, Kind, Section};
use super::units;

/// A value of the file with its place in it.
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// One table of the file.
pub(super) struct Reader<'a> {
    pub(super) sheet: &'a Sheet<'a>,
    section: &'static Section,
    /// `None`: the file does not have it, so that all keys have their defaults.
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    /// Opens the table and notes every key that it should not have and every key that it lacks.
    pub(super) fn open(
        sheet: &'a Sheet<'a>,
        section: &'static Section,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Self {
        let reader = Self { sheet, section, table: Some(table), span };
        for key in table.keys() {
            reader.examine(key.get_ref(), key.span());
        }
        for key in section.keys() {
            if matches!(key.default, Default::Required) && table.get(key.name).is_none() {
                sheet.fault(reader.span.clone(), format!("{} has no \"{}\"", section.title, key.name), add(key.name));
            }
        }
        reader
    }

    /// A table that the file does not have.
    fn absent(sheet: &'a Sheet<'a>, section: &'static Section, span: Range<usize>) -> Self {
        Self { sheet, section, table: None, span }
    }

    /// Opens a node as a table of this section.
    pub(super) fn of_node(sheet: &'a Sheet<'a>, section: &'static Section, node: &'a Node<'a>) -> Option<Self> {
        match node.get_ref() {
            DeValue::Table(table) => Some(Self::open(sheet, section, table, node.span())),
            other => {
                let found = other.type_str();
                sheet.fault(
                    node.span(),
                    format!("found {}, not a table", article(found)),
                    format!("see {}", section.title),
                );
                None
            }
        }
    }

    fn examine(&self, name: &str, span: Range<usize>) {
        match self.section.key(name) {
            Some(spec::Key { kind: Kind::Later(shown, feature), .. }) => {
                self.sheet.fault(span, not_yet(shown, feature), "remove it");
            }
            Some(_) => {}
            None => {
                let names = self.section.keys().map(|key| key.name);
                let elsewhere = || {
                    let home = spec::sections().into_iter().find(|section| section.key(name).is_some())?;
                    Some(format!("it belongs to {}", home.title))
                };
                let remedy = did_you_mean(name, names.clone())
                    .or_else(elsewhere)
                    .unwrap_or_else(|| format!("there are {}", names.collect::<Vec<_>>().join(", ")));
                let what = if std::ptr::eq(self.section, &spec::FILE) { "section" } else { "key" };
                self.sheet.fault(span, format!("{} has no {what} \"{name}\"", self.section.title), remedy);
            }
        }
    }

    /// Where the table is.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The key's value as written, if it is there.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node<'a>> {
        debug_assert!(self.section.key(key).is_some(), "{key} is not described in spec.rs");
        self.table.and_then(|table| table.get(key))
    }

    /// Where the key's value is, or the table where it would be.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.node(key).map_or_else(|| self.span(), Spanned::span)
    }

    /// The key's value, if it is there. The outer `Option` says whether it is.
    pub(super) fn given<T>(&self, key: &str, parse: impl Fn(&Value<'_>) -> Option<T>) -> Option<Option<T>> {
        self.node(key).map(|node| parse(&Value { sheet: self.sheet, key, node }))
    }

    /// The key's value, or its default; `None`: there is neither, or a fault has been noted.
    pub(super) fn get<T>(&self, key: &str, parse: impl Fn(&Value<'_>) -> Option<T>) -> Option<T> {
        if let Some(node) = self.node(key) {
            return parse(&Value { sheet: self.sheet, key, node });
        }
        let text = match self.section.key(key)?.default {
            Default::Value(text) => text.to_owned(),
            Default::List(list) => format!("{list:?}"),
            Default::Required | Default::Absent | Default::Derived(_) => return None,
        };
        let node = DeValue::parse(&text).ok()?;
        parse(&Value { sheet: self.sheet, key, node: &node })
    }

    /// The table below this one; one without keys when the file does not have it.
    pub(super) fn table(&self, key: &str) -> Option<Self> {
        let Some(Kind::Section([section, ..])) = self.section.key(key).map(|key| &key.kind) else { return None };
        match self.node(key) {
            Some(node) => Self::of_node(self.sheet, section, node),
            None => Some(Self::absent(self.sheet, section, self.span())),
        }
    }

    /// The tables below this one, `[[key]]`.
    pub(super) fn tables(&self, key: &str) -> Vec<Self> {
        let Some(Kind::Section([section, ..])) = self.section.key(key).map(|key| &key.kind) else { return Vec::new() };
        match self.node(key).map(|node| (node, node.get_ref())) {
            None => Vec::new(),
            Some((_, DeValue::Array(list))) => {
                list.iter().filter_map(|node| Self::of_node(self.sheet, section, node)).collect()
            }
            Some((node, _)) => {
                self.sheet.fault(node.span(), format!("\"{key}\" is a list of tables"), format!("write [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// The names that the file itself gives below `key`, each with its value.
    pub(super) fn names(&self, key: &str) -> Vec<(&'a Spanned<toml::de::DeString<'a>>, &'a Node<'a>)> {
        match self.node(key).map(|node| (node, node.get_ref())) {
            None => Vec::new(),
            Some((_, DeValue::Table(table))) => table.iter().collect(),
            Some((node, other)) => {
                let found = article(other.type_str());
                self.sheet.fault(
                    node.span(),
                    format!("\"{key}\" is {found}, not a table"),
                    format!("write {key} = {{ … }}"),
                );
                Vec::new()
            }
        }
    }

    /// The same for `what` ("a check"), whose names stand in metrics and on command lines and so are plain.
    pub(super) fn plain_names(
        &self,
        key: &str,
        what: &str,
    ) -> Vec<(&'a Spanned<toml::de::DeString<'a>>, &'a Node<'a>)> {
        let names = self.names(key);
        for (name, _) in &names {
            let text = name.get_ref();
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if text.is_empty() || !text.bytes().all(plain) {
                let message = format!("\"{text}\" cannot name {what}");
                self.sheet.fault(name.span(), message, "use letters, digits, \"-\", \"_\" and \".\"");
            }
        }
        names
    }
}

/// A value about to be read.
pub(super) struct Value<'a> {
    pub(super) sheet: &'a Sheet<'a>,
    pub(super) key: &'a str,
    pub(super) node: &'a Node<'a>,
}

impl Value<'_> {
    pub(super) fn fault(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.sheet.fault(self.node.span(), message, remedy);
    }

    /// Notes that the value is of another type than it should be.
    pub(super) fn wrong<T>(&self, remedy: impl Into<String>) -> Option<T> {
        let found = article(self.node.get_ref().type_str());
        self.fault(format!("\"{}\" cannot be {found}", self.key), remedy);
        None
    }

    /// The text of a string, as it is.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self.node.get_ref() {
            DeValue::String(text) => Some(text),
            DeValue::Integer(number) => self.wrong(format!("write \"{number}\", in quotes")),
            _ => self.wrong("write a string, in quotes"),
        }
    }

    /// Reads each element, or the value itself where one will do for a list.
    fn each<T>(&self, parse: impl Fn(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
        let DeValue::Array(list) = self.node.get_ref() else { return Some(vec![parse(self)?]) };
        let read: Vec<_> = list.iter().map(|node| parse(&Value { node, ..*self })).collect();
        read.into_iter().collect()
    }
}

pub(super) fn text(value: &Value<'_>) -> Option<String> {
    let text = value.as_str()?;
    if text.is_empty() {
        value.fault(format!("\"{}\" is empty", value.key), "write a value or leave the key out");
        return None;
    }
    if text.chars().any(char::is_control) {
        value.fault(format!("\"{}\" contains a control character", value.key), "remove it");
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn boolean(value: &Value<'_>) -> Option<bool> {
    match value.node.get_ref() {
        DeValue::Boolean(set) => Some(*set),
        DeValue::String(text) if matches!(&**text, "true" | "false") => {
            value.wrong(format!("write {text} without quotes"))
        }
        _ => value.wrong("write true or false"),
    }
}

/// A whole number, 0 included.
pub(super) fn number(value: &Value<'_>) -> Option<u64> {
    let integer = match value.node.get_ref() {
        DeValue::Integer(integer) => integer,
        DeValue::String(text) if text.parse::<u64>().is_ok() => {
            return value.wrong(format!("write {text} without quotes"));
        }
        _ => return value.wrong("write a whole number"),
    };
    let Ok(number) = i64::from_str_radix(integer.as_str(), integer.radix()) else {
        value.fault(format!("\"{}\" is too large", value.key), "write a smaller number");
        return None;
    };
    let read = u64::try_from(number).ok();
    if read.is_none() {
        value.fault(format!("\"{}\" is negative", value.key), "write 1 or more");
    }
    read
}

/// A number of things: at least one, and no more than there can be.
pub(super) fn count(value: &Value<'_>) -> Option<usize> {
    const MOST: u64 = 10_000_000;
    match number(value)? {
        0 => {
            value.fault(format!("\"{}\" is 0", value.key), "write 1 or more");
            None
        }
        MOST.. => {
            value.fault(format!("\"{}\" is too large", value.key), format!("write less than {MOST}"));
            None
        }
        number => usize::try_from(number).ok(),
    }
}

/// A duration, 0 included.
pub(super) fn duration_or_zero(value: &Value<'_>) -> Option<Duration> {
    let example = "write one with a unit, like \"5s\"";
    quantity(value, units::duration, |number| format!("write \"{number}s\" (units are ms, s, m, h, d)"), example)
}

pub(super) fn duration(value: &Value<'_>) -> Option<Duration> {
    let duration = duration_or_zero(value)?;
    if duration.is_zero() {
        value.fault(format!("\"{}\" is zero: nothing could ever be in time", value.key), "write \"1ms\" or more");
        return None;
    }
    Some(duration)
}

/// A size, 0 included.
pub(super) fn size(value: &Value<'_>) -> Option<u64> {
    let example = "write one with a unit, like \"64KiB\"";
    quantity(
        value,
        units::size,
        |number| format!("write \"{number}B\" (units are B, KiB, MiB, GiB, TiB, kB, MB, GB)"),
        example,
    )
}

fn quantity<T>(
    value: &Value<'_>,
    read: impl Fn(&str) -> Result<T, units::BadUnit>,
    of_number: impl Fn(&str) -> String,
    example: &str,
) -> Option<T> {
    match value.node.get_ref() {
        DeValue::String(text) => match read(text) {
            Ok(read) => Some(read),
            Err(bad) => {
                value.fault(format!("{} \"{text}\" {}", value.key, bad.what), bad.remedy);
                None
            }
        },
        DeValue::Integer(number) if !number.as_str().starts_with('-') && number.radix() == 10 => {
            value.fault(format!("{} {number} has no unit", value.key), of_number(number.as_str()));
            None
        }
        DeValue::Integer(number) => {
            value.fault(format!("{} {number} has no unit", value.key), example);
            None
        }
        _ => value.wrong(example),
    }
}

pub(super) fn path(value: &Value<'_>) -> Option<PathBuf> {
    Some(value.sheet.resolve(&text(value)?))
}

/// A folder that is there.
pub(super) fn folder(value: &Value<'_>) -> Option<PathBuf> {
    let path = path(value)?;
    let why = match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Some(path),
        Ok(_) => "is not a folder".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be read: {}", cause(&error)),
    };
    let written = value.as_str().unwrap_or_default();
    let remedy = if written.starts_with('/') { "" } else { "a relative path starts at the folder of this file" };
    value.fault(format!("{} \"{written}\" {why}", value.key), remedy);
    None
}

/// A folder that the application may yet make.
pub(super) fn future_folder(value: &Value<'_>) -> Option<PathBuf> {
    let path = path(value)?;
    if path.exists() {
        return folder(value);
    }
    value.sheet.warn(&value.node.span(), format!("{} \"{}\" does not exist yet", value.key, value.as_str()?));
    Some(path)
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Value<'_>) -> Option<T> {
    |value| {
        let text = value.as_str()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let remedy = did_you_mean(text, choices.iter().map(|(word, _)| *word));
            let remedy = remedy.unwrap_or_else(|| format!("write {}", words.join(" or ")));
            value.fault(format!("{} cannot be \"{text}\"", value.key), remedy);
        }
        found
    }
}

/// A list; one value alone will do.
pub(super) fn one_or_list<T>(parse: impl Fn(&Value<'_>) -> Option<T>) -> impl Fn(&Value<'_>) -> Option<Vec<T>> {
    move |value| {
        let list = value.each(&parse)?;
        if list.is_empty() {
            value.fault(format!("\"{}\" is an empty list", value.key), "name at least one, or leave the key out");
            return None;
        }
        Some(list)
    }
}

/// A list, possibly empty.
pub(super) fn list<T>(parse: impl Fn(&Value<'_>) -> Option<T>) -> impl Fn(&Value<'_>) -> Option<Vec<T>> {
    move |value| match value.node.get_ref() {
        DeValue::Array(_) => value.each(&parse),
        DeValue::String(text) => value.wrong(format!("write a list, [\"{text}\"]")),
        _ => value.wrong("write a list, [\"…\"]"),
    }
}

/// Names of `list` that stand in it twice, each once.
pub(super) fn twice<'v>(list: impl IntoIterator<Item = &'v str>) -> Option<&'v str> {
    let mut seen = BTreeSet::new();
    list.into_iter().find(|name| !seen.insert(*name))
}

/// What to say of something whose time has not come.
pub(super) fn not_yet(shown: &str, feature: &str) -> String {
    format!("\"{shown}\": {feature} not part of this version of strangler")
}

/// An I/O error without Rust's `(os error 2)`.
pub(super) fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn add(key: &str) -> String {
    format!("add {key} = …")
}

fn article(kind: &str) -> String {
    format!("{} {kind}", if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}
