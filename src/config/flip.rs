//! Changing one word of the file.
//!
//! The value of `serve` is replaced where it stands, byte for byte: comments, order and layout of an
//! operator's file are none of our business, so nothing else is written anew. What would come out is
//! loaded first, as `check` does; then it replaces the file at once, or not at all.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, did_you_mean};
use super::reader::Node;
use super::{Known, NAME_IT, parse, read, routes, source};

/// A word has been changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flipped {
    pub(crate) route: String,
    /// `routes.toml:11`.
    pub(crate) place: String,
    /// Who served before, as written; `None`: the route inherited it.
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    /// Whether the file was written: it may have said so already.
    pub(crate) changed: bool,
}

impl fmt::Display for Flipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, place, from, to, changed } = self;
        match (changed, from) {
            (false, _) => write!(f, "{route}: {to} already ({place})"),
            (true, Some(from)) => write!(f, "{route}: {from} → {to} ({place})"),
            (true, None) => write!(f, "{route}: what it inherited → {to} ({place})"),
        }
    }
}

/// Why the file is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlipError {
    /// `serve` cannot be this.
    #[error("{message}; {remedy}")]
    BadServe { message: String, remedy: String },
    /// No route of this name.
    #[error("there is no route \"{name}\"{}", Hint(remedy.as_deref()))]
    UnknownRoute { name: String, remedy: Option<String> },
    /// The file has faults, or would have.
    #[error("the file would not load, so it is left as it is\n{0}")]
    Rejected(Faults),
    /// It is not the file that whoever flips has seen, and would not load as it is.
    #[error("the file on disk has faults; mend it first\n{0}")]
    Faulty(Faults),
    /// Somebody else wrote it in between.
    #[error("the file was changed by somebody else meanwhile; try again")]
    ChangedMeanwhile,
    /// It is not the file that whoever flips has seen.
    #[error("{0} has changed since you looked; nothing was written: look at it again, then flip")]
    NotAsSeen(String),
    /// It could not be replaced.
    #[error("cannot write {what}")]
    Write {
        what: String,
        #[source]
        source: io::Error,
    },
}

struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Makes `serve` of the named route say `serve`, in the file. Where `seen` is given, only in the
/// file of that content, as [`crate::admin::ReloadStatus`] tells it.
///
/// # Errors
/// See [`FlipError`]; the file is then as it was.
pub(crate) fn flip(
    path: &Path,
    route: &str,
    serve: &str,
    seen: Option<u64>,
    known: &Known<'_>,
) -> Result<Flipped, FlipError> {
    routes::serve_word(serve).map_err(|(message, remedy)| FlipError::BadServe { message, remedy })?;
    let before = read(path, NAME_IT).map_err(FlipError::Rejected)?;
    if seen.is_some_and(|seen| seen != source::hash(&before)) {
        // To look again helps only who is then shown another file: one with faults never comes into force.
        parse(path, &before, known).map_err(FlipError::Faulty)?;
        return Err(FlipError::NotAsSeen(path.display().to_string()));
    }
    let edit = edit(path, &before, route, known)?;
    let after = edit.apply(&before, serve);
    let flipped = |changed| Flipped {
        route: route.to_owned(),
        place: format!("{}:{}", path.display(), edit.line_in(&after)),
        from: edit.from.clone(),
        to: serve.to_owned(),
        changed,
    };
    parse(path, &after, known).map_err(FlipError::Rejected)?;
    if after == before {
        return Ok(flipped(false));
    }
    replace(path, &before, &after)?;
    Ok(flipped(true))
}

/// What to do to the text.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    at: Range<usize>,
    /// What stands around the word when the key is not there yet.
    around: (String, String),
    from: Option<String>,
}

impl Edit {
    /// The line of the word once it is there.
    fn line_in(&self, after: &str) -> usize {
        let head = after.get(..self.at.start + self.around.0.len()).unwrap_or(after);
        1 + memchr::memchr_iter(b'\n', head.as_bytes()).count()
    }

    fn apply(&self, text: &str, serve: &str) -> String {
        let (before, after) = (text.get(..self.at.start).unwrap_or(text), text.get(self.at.end..).unwrap_or(""));
        let (left, right) = &self.around;
        format!("{before}{left}\"{serve}\"{right}{after}")
    }
}

/// The edit that makes the route say who serves.
fn edit(path: &Path, text: &str, route: &str, known: &Known<'_>) -> Result<Edit, FlipError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // The loader says it better, with all lines shown.
        return Err(parse(path, text, known).map_or_else(FlipError::Rejected, |_| FlipError::ChangedMeanwhile));
    }
    let routes = routes_of(document.get_ref());
    let Some((_, node)) = routes.iter().find(|(name, _)| name == route) else {
        let remedy = did_you_mean(route, routes.iter().map(|(name, _)| name.as_str()));
        return Err(FlipError::UnknownRoute { name: route.to_owned(), remedy });
    };
    Ok(match node.get_ref().get("serve") {
        Some(serve) => {
            Edit { at: serve.span(), around: Default::default(), from: serve.get_ref().as_str().map(str::to_owned) }
        }
        None => insertion(text, node),
    })
}

/// All routes of the file by name. A node that is no route has faults of its own, found by the loader.
fn routes_of<'a>(file: &'a DeTable<'a>) -> Vec<(String, &'a Node<'a>)> {
    let list = |node: Option<&'a Node<'a>>| node.and_then(|node| node.get_ref().as_array()).into_iter().flatten();
    let text =
        |node: &'a Node<'a>, key: &str| node.get_ref().get(key).and_then(|node| node.get_ref().as_str()).unwrap_or("");
    let named = |prefix: &str, node: &'a Node<'a>| match text(node, "name") {
        "" => (format!("{prefix}{}", text(node, "path")), node),
        name => (name.to_owned(), node),
    };
    let grouped = list(file.get("group")).flat_map(|group| {
        let prefix = text(group, "prefix");
        list(group.get_ref().get("route")).map(move |node| named(prefix, node))
    });
    list(file.get("route")).map(|node| named("", node)).chain(grouped).collect()
}

/// Where `serve` goes when it is not there yet: on a line of its own below the sides, laid out like them.
fn insertion(text: &str, route: &Node<'_>) -> Edit {
    let DeValue::Table(table) = route.get_ref() else { return at_the_end(text) };
    let anchor = ["new", "legacy", "path", "name"].into_iter().find_map(|key| table.get_key_value(key));
    let Some((key, value)) = anchor else { return at_the_end(text) };
    let end = value.span().end;
    if text.get(route.span()).is_some_and(|written| written.starts_with('{')) {
        return Edit { at: end..end, around: (", serve = ".to_owned(), String::new()), from: None };
    }
    let line_end = text.get(end..).and_then(|rest| rest.find('\n')).map_or(text.len(), |length| end + length);
    let crlf = text.get(..line_end).is_some_and(|before| before.ends_with('\r'));
    let line_end = if crlf { line_end - 1 } else { line_end };
    let newline = if crlf { "\r\n" } else { "\n" };
    let indent = text.get(..key.span().start).and_then(|before| before.rsplit('\n').next()).unwrap_or("");
    let padding = equals_column(text, key, value).map_or(6, |column| column.max(6));
    let left = format!("{newline}{indent}{:<padding$}= ", "serve");
    Edit { at: line_end..line_end, around: (left, String::new()), from: None }
}

/// How many characters stand between the beginning of a key and its `=`.
fn equals_column(text: &str, key: &Spanned<toml::de::DeString<'_>>, value: &Node<'_>) -> Option<usize> {
    text.get(key.span().start..value.span().start)?.find('=')
}

/// Of a table that the loader refuses anyway.
fn at_the_end(text: &str) -> Edit {
    Edit { at: text.len()..text.len(), around: ("\nserve = ".to_owned(), "\n".to_owned()), from: None }
}

/// Puts `after` in the place of `before`, whole or not at all.
fn replace(path: &Path, before: &str, after: &str) -> Result<(), FlipError> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |source| FlipError::Write { what, source }
    };
    // The file itself, not the symlink that names it, is replaced.
    let real = path.canonicalize().map_err(failed(path))?;
    let folder = real.parent().unwrap_or(&real);
    let mut next = tempfile::Builder::new().prefix(".routes-").tempfile_in(folder).map_err(failed(folder))?;
    let fill = |next: &mut tempfile::NamedTempFile| -> io::Result<()> {
        next.write_all(after.as_bytes())?;
        keep_owner_and_mode(next.as_file(), &real)?;
        next.as_file().sync_all()
    };
    fill(&mut next).map_err(failed(&real))?;
    // Between this look and the rename there are microseconds; an editor's save lost in them is the
    // price of a file without locks.
    if read(path, NAME_IT).map_err(FlipError::Rejected)? != before {
        return Err(FlipError::ChangedMeanwhile);
    }
    next.persist(&real).map_err(|error| failed(&real)(error.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn keep_owner_and_mode(next: &std::fs::File, like: &Path) -> io::Result<()> {
    let (old, new) = (std::fs::metadata(like)?, next.metadata()?);
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        let (owner, group) = (rustix::fs::Uid::from_raw(old.uid()), rustix::fs::Gid::from_raw(old.gid()));
        rustix::fs::fchown(next, Some(owner), Some(group))?;
    }
    next.set_permissions(old.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::config::tests::Fixture;

    const FILE: &str = "\
# The shop.
[listen]
http = \"127.0.0.1:0\"

[upstream.old]   # on its way out
http = \"http://127.0.0.1:1\"

[defaults]
legacy = \"old\"

[[route]]
name    = \"order\"          # the first to go
path    = \"/orders/{id}\"
new     = \"users\"          # compiled in
serve   = 'legacy'          # flip me
timeout = \"5s\"

[[group]]
prefix = \"/api\"
  [[group.route]]
  path = \"/users\"
  new  = \"users\"  # too

[[route]]
path = \"/{*rest}\"
";

    fn flipped(text: &str, route: &str, serve: &str) -> (Result<Flipped, FlipError>, String) {
        let fixture = Fixture::new();
        let path = fixture.write(text);
        let result = flip(&path, route, serve, None, &fixture.known());
        (result, std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn one_word_changes_and_nothing_else() {
        let (result, text) = flipped(FILE, "order", "new");
        let shown = result.unwrap().to_string();
        assert!(shown.starts_with("order: legacy → new (") && shown.ends_with("/routes.toml:15)"), "{shown}");
        assert_eq!(text, FILE.replace("'legacy'", "\"new\""));
    }

    #[test]
    fn an_absent_word_is_put_below_the_sides_laid_out_like_them() {
        let (result, text) = flipped(FILE, "/api/users", "new");
        let done = result.unwrap();
        assert!(done.from.is_none() && done.place.ends_with("routes.toml:23"), "{done}");
        assert_eq!(text, FILE.replace("# too\n", "# too\n  serve = \"new\"\n"));

        let aligned = FILE.replace("serve   = 'legacy'          # flip me\n", "");
        let (_, text) = flipped(&aligned, "order", "new");
        assert_eq!(text, aligned.replace("# compiled in\n", "# compiled in\nserve   = \"new\"\n"));
    }

    #[test]
    fn inline_tables_and_windows_line_ends_are_kept() {
        let inline = "listen.http = \"127.0.0.1:0\"\nroute = [{ path = \"/\", new = \"users\", serve = \"new\" }, \
                      { path = \"/a\", new = \"users\", legacy = \"users\" }]\ndefaults.serve = \"new\"\n";
        let (result, text) = flipped(inline, "/a", "legacy");
        assert!(result.unwrap().changed);
        assert_eq!(text, inline.replace("new = \"users\", legacy", "new = \"users\", serve = \"legacy\", legacy"));

        let windows = FILE.replace('\n', "\r\n");
        let (_, text) = flipped(&windows, "/api/users", "new");
        assert_eq!(text, windows.replace("# too\r\n", "# too\r\n  serve = \"new\"\r\n"));
    }

    #[test]
    fn what_would_not_load_is_not_written() {
        let (result, text) = flipped(FILE, "/{*rest}", "new");
        assert!(matches!(result, Err(FlipError::Rejected(_))), "{result:?}");
        assert_eq!(text, FILE);

        let (result, _) = flipped(FILE, "ordr", "new");
        assert_eq!(result.unwrap_err().to_string(), "there is no route \"ordr\"; did you mean \"order\"?");
        let (result, _) = flipped(FILE, "order", "nwe");
        assert_eq!(result.unwrap_err().to_string(), "serve cannot be \"nwe\"; did you mean \"new\"?");
        let (result, _) = flipped("[listen", "order", "new");
        assert!(matches!(result, Err(FlipError::Rejected(_))), "{result:?}");
    }

    #[test]
    fn what_the_file_says_already_is_not_written_again() {
        let fixture = Fixture::new();
        let path = fixture.write(&FILE.replace("'legacy'", "\"legacy\""));
        let inode = std::fs::metadata(&path).unwrap().ino();
        let result = flip(&path, "order", "legacy", None, &fixture.known()).unwrap();
        assert!(!result.changed);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn a_symlink_stays_one_and_the_mode_is_kept() {
        let fixture = Fixture::new();
        let path = fixture.write(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link: PathBuf = path.with_file_name("link.toml");
        std::os::unix::fs::symlink("routes.toml", &link).unwrap();
        flip(&link, "order", "new", None, &fixture.known()).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(std::fs::read_to_string(&path).unwrap().contains("serve   = \"new\""));
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 3, "a temporary file was left behind");
    }

    #[test]
    fn a_file_that_somebody_else_changed_meanwhile_is_left_alone() {
        let fixture = Fixture::new();
        let path = fixture.write(FILE);
        let result = replace(&path, "something else", "ours");
        assert!(matches!(result, Err(FlipError::ChangedMeanwhile)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), FILE);
    }

    #[test]
    fn a_file_that_is_not_the_one_that_was_seen_is_left_as_it_is() {
        let fixture = Fixture::new();
        let path = fixture.write(FILE);
        let seen = Some(source::hash(FILE));
        std::fs::write(&path, format!("{FILE}# mine\n")).unwrap();
        let error = flip(&path, "order", "new", seen, &fixture.known()).unwrap_err();
        assert!(matches!(error, FlipError::NotAsSeen(_)), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("# mine\n"));
        std::fs::write(&path, FILE.replace("http://", "htp://")).unwrap();
        let error = flip(&path, "order", "new", seen, &fixture.known()).unwrap_err().to_string();
        assert!(
            error.starts_with("the file on disk has faults; mend it first\n") && error.contains("htp://"),
            "{error}"
        );
        std::fs::write(&path, FILE).unwrap();
        assert!(flip(&path, "order", "new", seen, &fixture.known()).unwrap().changed);
    }
}
