//! What a route's `path` means: a list of segments, compared with the canonical path of a request.
//!
//! `/orders/{id}` and `/files/{*rest}`: a parameter is a whole segment. `{id}` is one segment that is
//! not empty, `{*rest}` is all that follows, also when that is nothing (`/files/`, but not `/files`).
//! Everything else is literal, and written decoded. A pattern that could never match a canonical path
//! is a fault, with its remedy in the text, because it would be a route that silently never serves.
//! Pure: no table, no precedence between routes beyond the order of two patterns.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;

use crate::http::hex;

/// Deepest pattern: the search for a route goes as deep as the deepest one.
const SEGMENTS_MAX: usize = 64;

/// A route's path, as written and as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// What one part of the path between slashes must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Just this, in canonical text; empty only as the last one, after a trailing slash.
    Fixed(Box<str>),
    /// `{name}`: one segment, not empty.
    One(Box<str>),
    /// `{*name}`: all that follows, slashes included, also when it is empty.
    Rest(Box<str>),
}

/// Why a path is no pattern. The text says what was found and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternFault {
    #[error("the path does not begin with a slash; write \"/{0}\"")]
    NotAbsolute(String),
    #[error("the path has an empty segment (`//`), which no request has; write one slash")]
    EmptySegment,
    #[error("the path has the segment \"{0}\", which no request has; write the path it leads to")]
    DotSegment(String),
    #[error("\"{0}\" has a brace that is not one of a pair; a parameter is a whole segment: `{{name}}` or `{{*rest}}`")]
    Brace(String),
    #[error("\"{0}\" is only in part a parameter; a parameter is a whole segment: `{{name}}` or `{{*rest}}`")]
    PartOfSegment(String),
    #[error("\"{0}\" has no name; write `{{name}}` or `{{*rest}}`")]
    NoName(String),
    #[error("\"{0}\" is not a name; use letters, digits and `_`")]
    BadName(String),
    #[error("two parameters are called \"{0}\"; give each its own name")]
    DuplicateName(String),
    #[error("\"{0}\" takes all that follows; it can only be the last segment")]
    RestNotLast(String),
    #[error("\"{escape}\" is an escape; paths are written decoded: {remedy}")]
    Escape { escape: String, remedy: String },
    #[error("{0:?} cannot be in a path")]
    BadCharacter(char),
    #[error("a path has no query or fragment, but here is {0:?}; ask for a parameter with `when = {{ query = … }}`")]
    Query(char),
    #[error("the path has more than {SEGMENTS_MAX} segments")]
    TooDeep,
}

impl Pattern {
    /// Reads a path as it is written in routes.toml, its group's prefix before it.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternFault> {
        let inner = text.strip_prefix('/').ok_or_else(|| PatternFault::NotAbsolute(text.to_owned()))?;
        let segments = inner.split('/').map(Segment::parse).collect::<Result<Box<[_]>, _>>()?;
        let (_, before_last) = segments.split_last().ok_or(PatternFault::EmptySegment)?;
        for segment in before_last {
            match segment {
                Segment::Fixed(text) if text.is_empty() => return Err(PatternFault::EmptySegment),
                Segment::Rest(name) => return Err(PatternFault::RestNotLast(format!("{{*{name}}}"))),
                Segment::Fixed(_) | Segment::One(_) => {}
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = segments.iter().filter_map(Segment::name).find(|name| !names.insert(*name)) {
            return Err(PatternFault::DuplicateName(twice.to_owned()));
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(PatternFault::TooDeep);
        }
        Ok(Self { text: text.into(), segments })
    }

    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a canonical path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.params(path).is_some()
    }

    /// The parameters a canonical path gives, by name and in order; `None` if it does not match.
    pub(crate) fn params<'p>(&'p self, path: &'p str) -> Option<Vec<(&'p str, &'p str)>> {
        let mut params = Vec::new();
        let mut left = path.strip_prefix('/');
        for segment in &self.segments {
            let path = left?;
            let (here, behind) = split_segment(path);
            match segment {
                Segment::Fixed(text) if **text == *here => {}
                Segment::One(name) if !here.is_empty() => params.push((&**name, here)),
                Segment::Rest(name) => {
                    params.push((name, path));
                    return Some(params);
                }
                Segment::Fixed(_) | Segment::One(_) => return None,
            }
            left = behind;
        }
        left.is_none().then_some(params)
    }

    /// The more specific pattern first: segment by segment from the left, a fixed one before `{x}`
    /// before `{*rest}`. Of two patterns that match one path it is never `Equal` unless they have the
    /// same shape; names of parameters do not count.
    pub(crate) fn cmp_specificity(&self, other: &Self) -> Ordering {
        self.segments.iter().map(Segment::rank).cmp(other.segments.iter().map(Segment::rank))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first segment of `path`, and what stands behind the slash that ends it.
pub(super) fn split_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, behind)) => (segment, Some(behind)),
        None => (path, None),
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternFault> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        match inner {
            Some(inner) if !inner.contains(['{', '}']) => Self::parameter(text, inner),
            _ if text.contains(['{', '}']) => Err(brace_fault(text)),
            _ => fixed(text).map(Self::Fixed),
        }
    }

    fn parameter(text: &str, inner: &str) -> Result<Self, PatternFault> {
        let (name, make): (_, fn(Box<str>) -> Self) = match inner.strip_prefix('*') {
            Some(name) => (name, Self::Rest),
            None => (inner, Self::One),
        };
        if name.is_empty() {
            return Err(PatternFault::NoName(text.to_owned()));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(PatternFault::BadName(name.to_owned()));
        }
        Ok(make(name.into()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }

    fn rank(&self) -> (u8, &str) {
        match self {
            Self::Fixed(text) => (0, text),
            Self::One(_) => (1, ""),
            Self::Rest(_) => (2, ""),
        }
    }
}

/// Braces somewhere in a segment that is not one parameter.
fn brace_fault(text: &str) -> PatternFault {
    let mut open = false;
    for brace in text.chars().filter(|c| matches!(c, '{' | '}')) {
        if (brace == '{') == open {
            return PatternFault::Brace(text.to_owned());
        }
        open = !open;
    }
    if open { PatternFault::Brace(text.to_owned()) } else { PatternFault::PartOfSegment(text.to_owned()) }
}

/// Checks a literal segment and gives it its canonical text.
fn fixed(text: &str) -> Result<Box<str>, PatternFault> {
    if matches!(text, "." | "..") {
        return Err(PatternFault::DotSegment(text.to_owned()));
    }
    for (at, character) in text.char_indices() {
        match character {
            '?' | '#' => return Err(PatternFault::Query(character)),
            '\\' => return Err(PatternFault::BadCharacter(character)),
            '%' => check_percent(text.get(at..).unwrap_or_default())?,
            _ if character.is_ascii_control() => return Err(PatternFault::BadCharacter(character)),
            _ => {}
        }
    }
    Ok(text.replace('%', "%25").into())
}

/// A percent sign may stand for itself, but not look like an escape.
fn check_percent(text: &str) -> Result<(), PatternFault> {
    let escape = text.get(..3).unwrap_or_default();
    let [b'%', high, low] = escape.as_bytes() else { return Ok(()) };
    let Some(byte) = hex::byte(*high, *low) else { return Ok(()) };
    let remedy = match byte {
        b'/' => "an escaped slash can only be matched by a parameter".to_owned(),
        0x21..=0x7E => format!("write \"{}\"", char::from(byte)),
        _ => "write the character itself".to_owned(),
    };
    Err(PatternFault::Escape { escape: escape.to_owned(), remedy })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::CanonicalPath;

    #[test]
    fn a_pattern_matches_whole_paths_and_names_their_parts() {
        type Params<'t> = Option<&'t [(&'t str, &'t str)]>;
        let cases: [(&str, &str, Params<'_>); 19] = [
            ("/", "/", Some(&[])),
            ("/", "/a", None),
            ("/a", "/a", Some(&[])),
            ("/a", "/a/", None),
            ("/a/", "/a/", Some(&[])),
            ("/a/", "/a", None),
            ("/a/{id}", "/a/7", Some(&[("id", "7")])),
            ("/a/{id}", "/a/", None),
            ("/a/{id}", "/a/7/", None),
            ("/a/{id}/", "/a/7/", Some(&[("id", "7")])),
            ("/{a}/{b}", "/1/2", Some(&[("a", "1"), ("b", "2")])),
            ("/a/{*rest}", "/a/", Some(&[("rest", "")])),
            ("/a/{*rest}", "/a/b/c/", Some(&[("rest", "b/c/")])),
            ("/a/{*rest}", "/a", None),
            ("/{*rest}", "/", Some(&[("rest", "")])),
            ("/{x}/{*rest}", "/", None),
            ("/100%", "/100%25", Some(&[])),
            ("/café/{x}", "/café/a%2Fb", Some(&[("x", "a%2Fb")])),
            ("/b", "/a", None),
        ];
        for (pattern, path, wanted) in cases {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.params(path).as_deref(), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_could_not_serve_is_a_fault_with_its_remedy() {
        for (text, said) in [
            ("a", "the path does not begin with a slash; write \"/a\""),
            ("/a//b", "the path has an empty segment (`//`), which no request has; write one slash"),
            ("/a/../b", "the path has the segment \"..\", which no request has; write the path it leads to"),
            (
                "/{id",
                "\"{id\" has a brace that is not one of a pair; a parameter is a whole segment: `{name}` or `{*rest}`",
            ),
            (
                "/{{id}}",
                "\"{{id}}\" has a brace that is not one of a pair; a parameter is a whole segment: `{name}` or `{*rest}`",
            ),
            ("/a{id}", "\"a{id}\" is only in part a parameter; a parameter is a whole segment: `{name}` or `{*rest}`"),
            (
                "/{a}{b}",
                "\"{a}{b}\" is only in part a parameter; a parameter is a whole segment: `{name}` or `{*rest}`",
            ),
            ("/{}", "\"{}\" has no name; write `{name}` or `{*rest}`"),
            ("/{*}", "\"{*}\" has no name; write `{name}` or `{*rest}`"),
            ("/{a-b}", "\"a-b\" is not a name; use letters, digits and `_`"),
            ("/{a}/{a}", "two parameters are called \"a\"; give each its own name"),
            ("/{*rest}/a", "\"{*rest}\" takes all that follows; it can only be the last segment"),
            ("/{*rest}/", "\"{*rest}\" takes all that follows; it can only be the last segment"),
            ("/a%62", "\"%62\" is an escape; paths are written decoded: write \"b\""),
            (
                "/a%2Fb",
                "\"%2F\" is an escape; paths are written decoded: an escaped slash can only be matched by a parameter",
            ),
            ("/a%20b", "\"%20\" is an escape; paths are written decoded: write the character itself"),
            ("/a\\b", "'\\\\' cannot be in a path"),
            ("/a\tb", "'\\t' cannot be in a path"),
            (
                "/a?b=c",
                "a path has no query or fragment, but here is '?'; ask for a parameter with `when = { query = … }`",
            ),
        ] {
            assert_eq!(Pattern::parse(text).map_err(|fault| fault.to_string()), Err(said.to_owned()), "{text}");
        }
        assert_eq!(Pattern::parse(&"/a".repeat(65)), Err(PatternFault::TooDeep));
        assert!(Pattern::parse(&"/a".repeat(64)).is_ok());
    }

    #[test]
    fn the_more_specific_pattern_comes_first() {
        let mut patterns =
            ["/{*r}", "/{x}/b", "/a/{*r}", "/a/{y}", "/a/b", "/{z}"].map(|text| Pattern::parse(text).unwrap());
        patterns.sort_by(Pattern::cmp_specificity);
        assert_eq!(patterns.each_ref().map(Pattern::as_str), ["/a/b", "/a/{y}", "/a/{*r}", "/{z}", "/{x}/b", "/{*r}"]);
    }

    proptest! {
        #[test]
        fn nothing_written_makes_it_panic(text in "/?[a-c/{}*%.2Fé?]{0,16}") {
            let _ = Pattern::parse(&text).map(|pattern| pattern.matches(&text));
        }

        #[test]
        fn a_literal_pattern_matches_the_request_for_it(text in "(/[a-c %é;=]{1,3}){1,4}/?") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let raw: String = text.bytes().map(|byte| match byte {
                    b'%' | b' ' | 0x80.. => format!("%{byte:02x}"),
                    byte => char::from(byte).into(),
                }).collect();
                let path = CanonicalPath::parse(&raw).unwrap();
                prop_assert!(pattern.matches(path.as_str()), "{} {}", pattern, path);
            }
        }
    }
}
