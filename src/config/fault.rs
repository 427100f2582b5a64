//! Faults of the file: where, what was found, what would be right, with the line shown.
//!
//! A [`Sheet`] is the text being read together with the faults found in it so far. Readers note a
//! fault and go on, so that an operator mends a file once and not fault by fault; whoever is done
//! asks the sheet for its verdict. Nothing here knows what a key means.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// More than this helps nobody, and a hostile or binary file could give millions.
const MOST: usize = 100;
/// Longest part of a line that is shown.
const WIDEST: usize = 160;

/// One fault of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// `None`: the file as a whole.
    place: Option<Place>,
    message: String,
    remedy: String,
}

/// Where in the file, counted from 1, and the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    /// The line, indentation removed, cut to what fits.
    text: String,
    /// What stands left of the caret: tabs are kept, so that the caret stays under its value.
    indent: String,
    /// How many carets.
    width: usize,
}

/// Every fault of one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Faults {
    file: PathBuf,
    list: Vec<Fault>,
    /// How many more there are than are kept.
    more: usize,
}

impl Faults {
    /// The only fault there is to report: the file cannot be had at all.
    pub(super) fn unreadable(file: &Path, message: String, remedy: &str) -> Self {
        Self { file: file.to_owned(), list: vec![Fault { place: None, message, remedy: remedy.to_owned() }], more: 0 }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.list.len() + self.more
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for Fault { place, message, remedy } in &self.list {
            match place {
                Some(place) => write!(f, "{file}:{}:{}: {message}", place.line, place.column)?,
                None => write!(f, "{file}: {message}")?,
            }
            if !remedy.is_empty() {
                write!(f, "; {remedy}")?;
            }
            writeln!(f)?;
            if let Some(place) = place {
                writeln!(f, "    {}\n    {}{}", place.text, place.indent, "^".repeat(place.width))?;
            }
        }
        if self.more > 0 {
            writeln!(f, "… and {} more", self.more)?;
        }
        let count = self.count();
        write!(f, "{count} {}", if count == 1 { "fault" } else { "faults" })
    }
}

impl std::error::Error for Faults {}

/// A file being read: its text, and what was found wrong in it so far.
#[derive(Debug)]
pub(super) struct Sheet<'t> {
    path: &'t Path,
    /// Absolute: what relative paths in the file are relative to.
    folder: PathBuf,
    text: &'t str,
    /// Where each line starts, in bytes.
    lines: Vec<usize>,
    faults: RefCell<Vec<(usize, Fault)>>,
    more: Cell<usize>,
    warnings: RefCell<Vec<String>>,
}

impl<'t> Sheet<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            path,
            folder: absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
            text,
            lines: std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect(),
            faults: RefCell::default(),
            more: Cell::new(0),
            warnings: RefCell::default(),
        }
    }

    /// A path of the file as an absolute one. Symlinks stay: a deploy swaps what they point to.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path).components().collect()
    }

    /// The line of a byte, counted from 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Notes a fault at these bytes of the file.
    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) {
        if self.is_full() {
            self.more.set(self.more.get() + 1);
            return;
        }
        let (start, place) = (span.start, Some(self.place(span)));
        let fault = Fault { place, message: bounded(&message.into()), remedy: bounded(&remedy.into()) };
        self.faults.borrow_mut().push((start, fault));
    }

    /// Notes a fault of the file as a whole.
    pub(super) fn fault_of_file(&self, message: &str, remedy: &str) {
        let fault = Fault { place: None, message: message.to_owned(), remedy: remedy.to_owned() };
        self.faults.borrow_mut().push((0, fault));
    }

    /// Notes what is no fault but deserves a look; shown by `check` and at every load.
    pub(super) fn warn(&self, span: &Range<usize>, message: impl fmt::Display) {
        self.warnings.borrow_mut().push(format!("{}:{}: {message}", self.path.display(), self.line_of(span.start)));
    }

    /// Whether further faults would only be counted.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= MOST
    }

    /// How many faults so far: a reader that compares knows whether what it read is whole.
    pub(super) fn count(&self) -> usize {
        self.faults.borrow().len() + self.more.get()
    }

    /// The warnings, when there is no fault; else every fault.
    pub(super) fn verdict(self) -> Result<Vec<String>, Faults> {
        let mut faults = self.faults.into_inner();
        if faults.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        faults.sort_by_key(|(at, _)| *at);
        // What several routes inherit is read for each of them, and is one fault all the same.
        let mut list: Vec<Fault> = Vec::new();
        for (_, fault) in faults {
            if !list.contains(&fault) {
                list.push(fault);
            }
        }
        Err(Faults { file: self.path.to_owned(), list, more: self.more.get() })
    }

    fn place(&self, span: Range<usize>) -> Place {
        let line = self.line_of(span.start);
        let start = line.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or(0);
        let whole = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let before = self.text.get(start..span.start).unwrap_or("");
        let marked = self.text.get(span).and_then(|marked| marked.lines().next()).unwrap_or("");
        let (column, width) = (before.chars().count() + 1, marked.chars().count());
        // A minified line is shown from shortly before the fault on.
        let indented = whole.chars().take_while(|c| c.is_whitespace()).count().min(column - 1);
        let skip = if column + width > WIDEST { indented.max(column.saturating_sub(WIDEST / 2)) } else { indented };
        let text: String =
            whole.chars().skip(skip).take(WIDEST).map(|c| if c.is_control() && c != '\t' { '·' } else { c }).collect();
        let indent: String = before.chars().skip(skip).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        Place { line, column, text, indent, width: width.clamp(1, WIDEST) }
    }
}

/// A message that quotes the file, cut to what a line of a log holds; controls are the terminal's.
fn bounded(text: &str) -> String {
    const LONGEST: usize = 400;
    let shown = text.chars().map(|c| if c.is_control() { '·' } else { c });
    let mut shown: String = shown.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// The remedy of a slip: the name that was most likely meant.
pub(super) fn did_you_mean<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(found, known).map(|name| format!("did you mean \"{name}\"?"))
}

/// The known name that `found` is most likely a slip of.
pub(super) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is that long, and comparing costs length times length.
    if found.len() > 64 {
        return None;
    }
    let near = known.into_iter().map(|name| (strsim::osa_distance(found, name), name)).min_by_key(|(far, _)| *far);
    near.filter(|(far, name)| *far <= 1 + name.len().min(found.len()) / 4 && *far < name.len()).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_its_line_with_carets_under_the_value() {
        let text = "a = 1\n\tb = \"ü\" # x\n";
        let sheet = Sheet::new(Path::new("routes.toml"), text);
        let at = text.find("\"ü\"").unwrap();
        sheet.fault(at..at + 4, "b is wrong", "write 2");
        sheet.fault(0..1, "a is wrong", "");
        let shown = sheet.verdict().unwrap_err().to_string();
        assert_eq!(
            shown,
            "routes.toml:1:1: a is wrong\n    a = 1\n    ^\n\
             routes.toml:2:6: b is wrong; write 2\n    b = \"ü\" # x\n        ^^^\n2 faults"
        );
    }

    #[test]
    fn a_fault_at_the_end_of_the_file_or_on_a_huge_line_is_shown_all_the_same() {
        let text = format!("a = \"{}\"", "x".repeat(10_000));
        let sheet = Sheet::new(Path::new("f"), &text);
        sheet.fault(text.len()..text.len(), "ends too early", "");
        sheet.fault(4..text.len(), "too long", "");
        for line in sheet.verdict().unwrap_err().to_string().lines() {
            assert!(line.chars().count() < 400, "{line}");
        }
    }

    #[test]
    fn only_so_many_faults_are_kept_but_all_are_counted() {
        let sheet = Sheet::new(Path::new("f"), "x");
        for n in 0..250 {
            sheet.fault(0..1, format!("bad {n}"), "");
        }
        let faults = sheet.verdict().unwrap_err();
        assert_eq!(faults.count(), 250);
        assert!(faults.to_string().ends_with("… and 150 more\n250 faults"));
    }

    #[test]
    fn what_is_found_twice_is_one_fault() {
        let sheet = Sheet::new(Path::new("f"), "x y");
        for (at, message) in [(0, "bad"), (0, "odd"), (0, "bad"), (2, "bad")] {
            sheet.fault(at..at + 1, message, "");
        }
        assert_eq!(sheet.verdict().unwrap_err().count(), 3);
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("phpp", ["php", "orders"]), Some("php"));
        assert_eq!(nearest("tiemout", ["timeout", "drain"]), Some("timeout"));
        assert_eq!(nearest("zebra", ["timeout", "drain"]), None);
        assert_eq!(nearest("a", ["b"]), None);
    }
}
