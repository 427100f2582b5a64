//! Names that are never answered: what lies about in a document root and is nobody's business.
//!
//! [`script`](super::script) asks here before it looks at the file system, and again where a link has
//! led. Pure: a path in, yes or no out. What a list cannot switch off is [`is_source`]: PHP's source
//! is not served as bytes whatever `deny` says.

/// What `deny` is when routes.toml does not say.
///
/// A pattern is matched against each segment of the path, without regard to case; `*` is any number of
/// characters, `?` one. With slashes it is matched against several segments, each somewhere below the one
/// before. `/.well-known/` is never denied.
pub(crate) const DEFAULT_DENY: &[&str] = &[
    // .env, .git, .svn, .htaccess, .user.ini, …
    ".*",
    // What editors, backups and dumps leave behind.
    "*~",
    "*.bak",
    "*.old",
    "*.orig",
    "*.save",
    "*.swp",
    "*.swo",
    "*.sql",
    "*.sql.*",
    "*.sqlite",
    "*.sqlite3",
    // PHP that PHP would not run: index.php.old, wp-config.php.txt, a.php5.
    "*.php?*",
    // What the application was built from and with.
    "composer.json",
    "composer.lock",
    "composer.phar",
    "package.json",
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "phpunit.xml",
    "phpunit.xml.dist",
    "dockerfile",
    "docker-compose*.yml",
    "docker-compose*.yaml",
    "node_modules",
    // Logs where WordPress and PHP write them by default.
    "debug.log",
    "error_log",
    // Libraries are for the application, not for callers. Deep enough to spare a site's own /vendor/ pages,
    // and scripts only, because packages publish styles and images below vendor/.
    "vendor/composer",
    "vendor/autoload.php",
    "vendor/*/*/*.php",
    // What visitors put there is not to run.
    "uploads/*.php",
];

/// The patterns of `deny`. Every request is held against all of them.
#[derive(Debug)]
pub(crate) struct Deny {
    /// Patterns of one segment by the letter that ends them: nearly all names are through with that.
    ending: Vec<Vec<Part>>,
    /// Patterns of one segment with a wildcard at their end.
    open: Vec<Part>,
    /// Patterns of several segments.
    runs: Vec<Vec<Part>>,
}

/// What one segment is matched against.
#[derive(Debug)]
struct Part {
    pattern: Box<[u8]>,
    /// The letters a segment must begin and end with, in lower case; `None` where a wildcard stands.
    first: Option<u8>,
    last: Option<u8>,
    /// A byte, no letter, that a segment must have somewhere: the dot of nearly all patterns.
    has: Option<u8>,
}

impl Deny {
    pub(super) fn new(patterns: &[String]) -> Self {
        let mut deny = Self { ending: Vec::new(), open: Vec::new(), runs: Vec::new() };
        deny.ending.resize_with(1 << u8::BITS, Vec::new);
        for pattern in patterns {
            let mut parts: Vec<Part> = pattern.split('/').filter(|part| !part.is_empty()).map(Part::new).collect();
            match (parts.pop(), parts.is_empty()) {
                (Some(only), true) => deny.place_of(only.last).push(only),
                (Some(last), false) => {
                    parts.push(last);
                    deny.runs.push(parts);
                }
                (None, _) => {}
            }
        }
        deny
    }

    fn place_of(&mut self, last: Option<u8>) -> &mut Vec<Part> {
        last.and_then(|letter| self.ending.get_mut(usize::from(letter))).unwrap_or(&mut self.open)
    }

    /// Whether a path is not to be answered.
    pub(super) fn hides(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        let path =
            path.strip_prefix(".well-known").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
        let segments = || path.as_bytes().split(|&byte| byte == b'/').filter(|segment| !segment.is_empty());
        let several = segments().nth(1).is_some();
        segments().any(|segment| self.hides_name(segment))
            || several
                && self.runs.iter().any(|parts| {
                    let mut segments = segments();
                    parts.iter().all(|part| segments.any(|segment| part.matches(segment)))
                })
    }

    fn hides_name(&self, name: &[u8]) -> bool {
        let ending = name.last().and_then(|last| self.ending.get(usize::from(last.to_ascii_lowercase())));
        ending.into_iter().flatten().chain(&self.open).any(|part| part.matches(name))
    }
}

impl Part {
    fn new(pattern: &str) -> Self {
        let letter = |byte: &u8| (!matches!(byte, b'*' | b'?')).then(|| byte.to_ascii_lowercase());
        let pattern: Box<[u8]> = pattern.as_bytes().into();
        let has = pattern.iter().copied().find(|byte| !byte.is_ascii_alphabetic() && !matches!(byte, b'*' | b'?'));
        Self { first: pattern.first().and_then(letter), last: pattern.last().and_then(letter), has, pattern }
    }

    fn matches(&self, segment: &[u8]) -> bool {
        let begins_or_ends = |letter: Option<u8>, with: Option<&u8>| {
            letter.is_none_or(|letter| with.is_some_and(|byte| byte.to_ascii_lowercase() == letter))
        };
        begins_or_ends(self.last, segment.last())
            && begins_or_ends(self.first, segment.first())
            && self.has.is_none_or(|byte| memchr::memchr(byte, segment).is_some())
            && glob(&self.pattern, segment)
    }
}

/// Whether a file of this name holds PHP, run or not; trailing dots and blanks hide nothing.
pub(super) fn is_source(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let name = name.get(..end).unwrap_or_default();
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return false };
    let extension = name.get(dot + 1..).unwrap_or_default().to_ascii_lowercase();
    extension.starts_with(b"php") || matches!(extension.as_slice(), b"phtml" | b"pht" | b"phar" | b"inc")
}

/// Matches `*` and `?`, without regard to the case of ASCII letters; in time proportional to both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let same = |pattern: u8, text: u8| pattern == b'?' || pattern.eq_ignore_ascii_case(&text);
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(&wanted) if same(wanted, byte) => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                // The last star takes one character more.
                Some((after, taken)) => {
                    *taken += 1;
                    (at, from) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn default() -> Deny {
        Deny::new(&DEFAULT_DENY.iter().copied().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_lies_about_in_a_document_root_is_hidden() {
        for path in [
            "/.env",
            "/.env.production",
            "/.git/config",
            "/.svn/entries",
            "/.htaccess",
            "/.user.ini",
            "/blog/.git/HEAD",
            "/composer.json",
            "/composer.lock",
            "/package.json",
            "/dump.sql",
            "/DUMP.SQL",
            "/dump.sql.gz",
            "/index.php~",
            "/index.php.bak",
            "/index.php.",
            "/index.php ",
            "/wp-config.php.txt",
            "/.wp-config.php.swp",
            "/notes.swp",
            "/a/b/c.old",
            "/vendor/autoload.php",
            "/vendor/composer/installed.json",
            "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
            "/wp-content/uploads/2024/05/shell.php",
            "/wp-content/debug.log",
            "/.well-known/.env",
            "/x/.well-known/y",
        ] {
            assert!(default().hides(path), "{path}");
        }
    }

    #[test]
    fn what_a_site_is_made_of_is_not_hidden() {
        for path in [
            "/",
            "/index.php",
            "/.well-known/acme-challenge/token",
            "/.well-known",
            "/vendor/telescope/app.js",
            "/vendor/dashboard.php",
            "/vendor/orders/list.php",
            "/wp-content/uploads/2024/05/photo.jpg",
            "/sql",
            "/v1.2/users",
            "/a..b",
            "/wp-admin/load-styles.php",
        ] {
            assert!(!default().hides(path), "{path}");
        }
    }

    #[test]
    fn php_source_is_known_by_its_name_whatever_stands_behind_it() {
        for path in [
            "/a.php",
            "/a.PHP",
            "/a.phtml",
            "/a.phar",
            "/a.phps",
            "/a.php7",
            "/a.inc",
            "/a.php.",
            "/a.php. .",
            "/a.pht",
        ] {
            assert!(is_source(path.as_bytes()), "{path}");
        }
        for path in ["/", "/a", "/php", "/a.css", "/a.php/b.css", "/include", "/..."] {
            assert!(!is_source(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("*", "", true),
            ("*.sql", ".sql", true),
            ("*.sql", "a.sql.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.php?*", "x.php", false),
            ("*.php?*", "x.php.php", true),
            ("abc", "ABC", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_made_of_a_name_by_starring_matches_it(name in "[a-z.]{1,12}", from in 0usize..12, to in 0usize..12) {
            let (from, to) = (from.min(name.len()), to.min(name.len()));
            let (from, to) = (from.min(to), from.max(to));
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(glob(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
