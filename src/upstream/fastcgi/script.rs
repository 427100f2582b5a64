//! Which script or file a path means.
//!
//! PHP-FPM runs whatever `SCRIPT_FILENAME` names, so the name is made here, from the file system,
//! and never left to PHP's own guessing (`cgi.fix_pathinfo`). A [`Site`] answers three questions: what a
//! request's path means ([`Site::resolve`]), and what PHP means by `X-Accel-Redirect` ([`Site::accel`])
//! and `X-Sendfile` ([`Site::sendfile`]).
//! It opens nothing outside the root (links are followed only to where `symlinks` allows), hands out no
//! PHP source as bytes, and hides what `deny` names whatever else is true of the path. It reads no file
//! and talks to nobody.
//!
//! The file system is asked on the worker itself: such a call ends within microseconds when the
//! directory is in memory, as that of a site under load is, and handing it to another thread costs more.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::Method;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thread_local::ThreadLocal;

use super::deny::{Deny, is_source};
use super::{Php, Scripts, Settings};
use crate::http::urlencoded::encoded;
use crate::http::{CanonicalPath, hex};
use crate::upstream::Error;
use crate::upstream::files::OpenFile;

/// How long a worker trusts what it knows of the root, which a release may have switched to another directory.
const ROOT_TRUSTED: Duration = Duration::from_secs(1);

/// What a path means.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// PHP runs this.
    Script(Script),
    /// The gateway serves this.
    File(OpenFile),
    /// The path of a directory, without its slash: the path to go to, escaped for `Location`, without the query.
    Redirect(String),
}

/// A script as PHP-FPM is told of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// `DOCUMENT_ROOT`: the root with its links resolved, so that PHP's caches notice a new release.
    pub(crate) document_root: Arc<[u8]>,
    /// `SCRIPT_FILENAME`.
    pub(crate) filename: Vec<u8>,
    /// `SCRIPT_NAME`.
    pub(crate) name: Vec<u8>,
    /// `PATH_INFO`: what follows the script's name; never there when there was no script in the path.
    pub(crate) path_info: Option<Vec<u8>>,
}

/// The files of one application.
#[derive(Debug)]
pub(crate) struct Site {
    root: PathBuf,
    /// `/index.php`
    front: String,
    /// `index.php`: what a directory is asked for.
    index: String,
    scripts: Scripts,
    try_files: bool,
    deny: Deny,
    internal: Vec<(String, PathBuf)>,
    symlinks: Vec<PathBuf>,
    /// The root as each worker knows it.
    known: ThreadLocal<RefCell<Option<Known>>>,
}

/// The root, and when it was looked up.
#[derive(Debug)]
struct Known {
    since: Instant,
    base: Arc<Base>,
}

/// A directory that files are opened beneath.
#[derive(Debug)]
struct Base {
    real: Arc<[u8]>,
    /// `None`: it cannot be opened here. PHP-FPM may still see it, in a container of its own.
    directory: Option<OwnedFd>,
    /// Whether it is the document root, where PHP sources and denied names lie.
    guarded: bool,
}

/// What is wanted of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Its bytes.
    Bytes,
    /// To know that it is there: a script is PHP's to read, perhaps not ours.
    Presence,
}

/// What a name stands for in the file system.
#[derive(Debug)]
enum Entry {
    File(File, Metadata),
    Directory,
    Absent,
}

impl Php {
    /// What a request would become, in words: nothing is sent.
    pub(crate) fn explain(&self, path: &CanonicalPath, method: &Method) -> String {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self.site.resolve(path, method) {
            Ok(Resolved::Script(Script { filename, path_info: None, .. })) => format!("script {}", text(&filename)),
            Ok(Resolved::Script(Script { filename, path_info: Some(info), .. })) => {
                format!("script {}, PATH_INFO {}", text(&filename), text(&info))
            }
            Ok(Resolved::File(_)) => "nothing; the path is a file, which the gateway serves".to_owned(),
            Ok(Resolved::Redirect(to)) => format!("nothing; 301 to {to}"),
            Err(error) => format!("nothing; {}: {error}", error.answer().status().as_u16()),
        }
    }
}

impl Php {
    /// Other paths that the application may take this one for: the script's own, `/login.php` for `/login.php/x`; and
    /// the one that frameworks make of it, without a front controller, an escape in a slash's place, and slashes at the
    /// end: `/cart` for `/index.php/cart`, `/cart/`. Symfony's and Laravel's routers decode and trim a path so.
    pub(crate) fn readings(&self, path: &str) -> Vec<String> {
        let (script, behind) = match split_script(path) {
            Some((script, Some(info))) => (Some(script), self.site.without_front(script, info)),
            _ => (None, None),
        };
        let known = behind.as_deref().unwrap_or(path);
        let routed = known.replace("%2F", "/");
        let routed = Some(routed.trim_end_matches('/')).filter(|routed| *routed != path && !routed.is_empty());
        script.into_iter().chain(routed).map(str::to_owned).collect()
    }
}

impl Site {
    /// What follows a front controller, below the folder that this is in; `None`: the script is none.
    fn without_front(&self, script: &str, info: &str) -> Option<String> {
        let folder = script.strip_suffix(&self.index)?.strip_suffix('/')?;
        Some(format!("{folder}{info}"))
    }

    /// Takes what `[upstream.NAME]` says of files.
    pub(crate) fn new(settings: &Settings) -> Self {
        let front = format!("/{}", settings.index.trim_start_matches('/'));
        let index = front.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            root: settings.root.clone(),
            front,
            index,
            scripts: settings.scripts,
            try_files: settings.try_files,
            deny: Deny::new(&settings.deny),
            internal: settings.internal.clone(),
            symlinks: settings.symlinks.clone(),
            known: ThreadLocal::new(),
        }
    }

    /// Finds out what a request's path means.
    pub(crate) fn resolve(&self, path: &CanonicalPath, method: &Method) -> Result<Resolved, Error> {
        let path = path.as_str();
        if self.deny.hides(path) {
            return Err(Error::NoFile { why: "`deny` names it" });
        }
        let base = self.base();
        match (split_script(path), self.scripts) {
            (Some((script, info)), Scripts::Index) if script == self.front => self.script(&base, script, info),
            (Some(_), Scripts::Index) => {
                Err(Error::NoFile { why: "only the front controller runs (`php = \"index\"`)" })
            }
            (Some((script, _)), Scripts::Files) if !script.ends_with(".php") => {
                Err(Error::NoFile { why: "PHP runs `.php` in lower case only" })
            }
            (Some((script, info)), Scripts::Files) => match self.find(&base, script, Want::Presence)? {
                Entry::File(..) => self.script(&base, script, info),
                Entry::Directory | Entry::Absent => self.fall_back(&base),
            },
            (None, _) if is_source(path.as_bytes()) => Err(Error::NoFile { why: "PHP source is never served" }),
            (None, Scripts::Index) => self.file_or_front(&base, path, method),
            (None, Scripts::Files) => self.file_or_directory(&base, path, method),
        }
    }

    /// `php = "index"`: a file that is there, or the front controller.
    fn file_or_front(&self, base: &Arc<Base>, path: &str, method: &Method) -> Result<Resolved, Error> {
        if self.try_files
            && path != "/"
            && let Entry::File(file, metadata) = self.find(base, path, wanted(method))?
        {
            return served(file, &metadata, path, method);
        }
        self.script(base, &self.front, None)
    }

    /// `php = "files"`: a file, a directory's index, the way to a directory, or the front controller.
    fn file_or_directory(&self, base: &Arc<Base>, path: &str, method: &Method) -> Result<Resolved, Error> {
        if path.ends_with('/') {
            return self.directory(base, path, method);
        }
        match self.find(base, path, wanted(method))? {
            Entry::File(file, metadata) if self.try_files => served(file, &metadata, path, method),
            // A directory without an index is no page; the application may have one by its name.
            Entry::Directory if self.has_index(base, path)? => location(path).map(Resolved::Redirect),
            Entry::File(..) | Entry::Directory | Entry::Absent => self.fall_back(base),
        }
    }

    fn directory(&self, base: &Arc<Base>, path: &str, method: &Method) -> Result<Resolved, Error> {
        let script = format!("{path}{}", self.index);
        if let Entry::File(..) = self.find(base, &script, Want::Presence)? {
            return self.script(base, &script, None);
        }
        let page = format!("{path}index.html");
        if self.try_files
            && let Entry::File(file, metadata) = self.find(base, &page, wanted(method))?
        {
            return served(file, &metadata, &page, method);
        }
        self.fall_back(base)
    }

    fn has_index(&self, base: &Base, path: &str) -> Result<bool, Error> {
        let script = self.find(base, &format!("{path}/{}", self.index), Want::Presence)?;
        let found = matches!(script, Entry::File(..))
            || self.try_files
                && matches!(self.find(base, &format!("{path}/index.html"), Want::Presence)?, Entry::File(..));
        Ok(found)
    }

    fn fall_back(&self, base: &Arc<Base>) -> Result<Resolved, Error> {
        if self.try_files {
            self.script(base, &self.front, None)
        } else {
            Err(Error::NoFile { why: "no such script, and `try_files` is off" })
        }
    }

    fn script(&self, base: &Base, name: &str, info: Option<&str>) -> Result<Resolved, Error> {
        const UNDECODABLE: Error = Error::NoFile { why: "an escape in the path stands for no part of a name" };
        let name = decode(name, Slash::Refused).ok_or(UNDECODABLE)?;
        let path_info = info.map(|info| decode(info, Slash::Decoded).ok_or(UNDECODABLE)).transpose()?;
        let mut filename = Vec::with_capacity(base.real.len() + name.len());
        filename.extend_from_slice(base.real.strip_suffix(b"/").unwrap_or(&base.real));
        filename.extend_from_slice(&name);
        Ok(Resolved::Script(Script { document_root: Arc::clone(&base.real), filename, name, path_info }))
    }

    /// The file PHP means by `X-Accel-Redirect`: below a directory of `internal`, or an ordinary file of the site.
    pub(crate) fn accel(&self, target: &str) -> Result<OpenFile, Error> {
        let raw = target.split_once('?').map_or(target, |(path, _)| path);
        let Some(path) = decode(raw, Slash::Decoded).filter(|path| is_plain(path)) else {
            return Err(Error::NoFile { why: "X-Accel-Redirect names no path" });
        };
        let internal = self.internal.iter().filter_map(|(prefix, directory)| {
            let below = path.strip_prefix(prefix.as_bytes())?;
            let whole = prefix.ends_with('/') || below.first() == Some(&b'/');
            whole.then_some((prefix.len(), directory, below))
        });
        match internal.max_by_key(|(length, ..)| *length) {
            Some((_, directory, below)) => self.bytes(&Base::open(directory, false), below),
            None => self.bytes(&self.base(), &path),
        }
    }

    /// The file PHP means by `X-Sendfile`: below a directory of `internal`, or an ordinary file of the site.
    pub(crate) fn sendfile(&self, path: &str) -> Result<OpenFile, Error> {
        if !is_plain(path.as_bytes()) {
            return Err(Error::NoFile { why: "X-Sendfile names no absolute path" });
        }
        let path = Path::new(path);
        let root = self.base();
        let real_root = Path::new(OsStr::from_bytes(&root.real));
        let directories = [real_root, &self.root].into_iter().map(|directory| (directory, true));
        let directories = directories.chain(self.internal.iter().map(|(_, directory)| (directory.as_path(), false)));
        // The nearest directory decides: private files may lie below the root, the root below them.
        let (directory, guarded) = directories
            .filter(|(directory, _)| path.starts_with(directory))
            .max_by_key(|(directory, _)| directory.components().count())
            .ok_or(Error::NoFile { why: "X-Sendfile names a file outside the root and the `internal` directories" })?;
        let below = path.strip_prefix(directory).unwrap_or(path).as_os_str().as_bytes();
        if guarded { self.bytes(&root, below) } else { self.bytes(&Base::open(directory, false), below) }
    }

    fn bytes(&self, base: &Base, below: &[u8]) -> Result<OpenFile, Error> {
        if base.guarded {
            self.guard(below, Want::Bytes)?;
        }
        match self.open(base, below, Want::Bytes)? {
            Entry::File(file, metadata) => OpenFile::new(file, &metadata, below).ok_or(NOT_REGULAR),
            Entry::Directory | Entry::Absent => Err(Error::NoFile { why: "PHP named a file that is not there" }),
        }
    }

    /// The root, as this worker knows it.
    fn base(&self) -> Arc<Base> {
        let mut known = self.known.get_or(RefCell::default).borrow_mut();
        match &*known {
            Some(Known { since, base }) if since.elapsed() < ROOT_TRUSTED => Arc::clone(base),
            _ => {
                let base = Arc::new(Base::open(&self.root, true));
                *known = Some(Known { since: Instant::now(), base: Arc::clone(&base) });
                base
            }
        }
    }

    fn find(&self, base: &Base, path: &str, want: Want) -> Result<Entry, Error> {
        // An encoded slash is no part of any file's name.
        decode(path, Slash::Refused).map_or(Ok(Entry::Absent), |path| self.open(base, &path, want))
    }

    fn open(&self, base: &Base, below: &[u8], want: Want) -> Result<Entry, Error> {
        let Some(directory) = &base.directory else { return Ok(Entry::Absent) };
        let leading = below.iter().take_while(|&&byte| byte == b'/').count();
        let below = below.get(leading..).unwrap_or_default();
        if below.is_empty() {
            return Ok(Entry::Directory);
        }
        let beneath = |want| open_without_links(directory, below, want, ResolveFlags::BENEATH);
        match beneath(want) {
            Ok(file) => entry(file),
            // A link is on the way, or the kernel has no openat2 (or a sandbox hides it).
            Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => self.open_through_links(base, below, want),
            Err(Errno::ACCESS) if want == Want::Bytes => match beneath(Want::Presence) {
                Ok(_) => Err(Error::NoFile { why: "the gateway may not read it" }),
                Err(_) => Ok(Entry::Absent),
            },
            Err(errno) => absent(errno),
        }
    }

    /// Follows links, then judges where they led by the same rules as the path itself.
    fn open_through_links(&self, base: &Base, below: &[u8], want: Want) -> Result<Entry, Error> {
        let root = Path::new(OsStr::from_bytes(&base.real));
        let real = match fs::canonicalize(root.join(OsStr::from_bytes(below))) {
            Ok(real) => real,
            Err(error) => return absent(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let beyond = || self.symlinks.iter().filter_map(|to| real.strip_prefix(fs::canonicalize(to).ok()?).ok());
        let Some(below) = real.strip_prefix(root).ok().or_else(|| beyond().next()) else {
            return Err(Error::NoFile {
                why: "a symbolic link leads out of the root to where `symlinks` does not allow",
            });
        };
        if base.guarded {
            self.guard(below.as_os_str().as_bytes(), want)?;
        }
        // The real path has no links; one that appears there now is an attempt to slip past the rules above.
        match open_without_links(CWD, real.as_os_str().as_bytes(), want, ResolveFlags::empty()) {
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(&real, flags(want) | OFlags::NOFOLLOW, Mode::empty()),
            opened => opened,
        }
        .map_or_else(absent, entry)
    }

    fn guard(&self, below: &[u8], want: Want) -> Result<(), Error> {
        if self.deny.hides(&String::from_utf8_lossy(below)) {
            return Err(Error::NoFile { why: "`deny` names it" });
        }
        if want == Want::Bytes && is_source(below) {
            return Err(Error::NoFile { why: "PHP source is never served" });
        }
        Ok(())
    }
}

impl Base {
    fn open(path: &Path, guarded: bool) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::canonicalize(path)
            .and_then(|real| Ok((rustix::fs::open(&real, flags, Mode::empty()).map_err(io::Error::from)?, real)));
        let (directory, real) = match opened {
            Ok((directory, real)) => (Some(directory), real),
            Err(_) => (None, path.to_owned()),
        };
        Self { real: real.as_os_str().as_bytes().into(), directory, guarded }
    }
}

const NOT_REGULAR: Error = Error::NoFile { why: "not a regular file" };

fn wanted(method: &Method) -> Want {
    if matches!(*method, Method::GET | Method::HEAD) { Want::Bytes } else { Want::Presence }
}

fn served(file: File, metadata: &Metadata, path: &str, method: &Method) -> Result<Resolved, Error> {
    if wanted(method) == Want::Presence {
        return Err(Error::FileMethod);
    }
    OpenFile::new(file, metadata, path.as_bytes()).map(Resolved::File).ok_or(NOT_REGULAR)
}

fn flags(want: Want) -> OFlags {
    let want = match want {
        // Not blocking: opening a named pipe would wait for its other end.
        Want::Bytes => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
        Want::Presence => OFlags::PATH,
    };
    want | OFlags::CLOEXEC
}

fn open_without_links(from: impl AsFd, path: &[u8], want: Want, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(from, path, flags(want), Mode::empty(), resolve | ResolveFlags::NO_SYMLINKS)
}

fn entry(opened: OwnedFd) -> Result<Entry, Error> {
    let file = File::from(opened);
    let metadata = file.metadata().map_err(Error::File)?;
    match metadata.file_type() {
        kind if kind.is_file() => Ok(Entry::File(file, metadata)),
        kind if kind.is_dir() => Ok(Entry::Directory),
        _ => Err(NOT_REGULAR),
    }
}

fn absent(errno: Errno) -> Result<Entry, Error> {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => Ok(Entry::Absent),
        // A directory on the way may not be searched: as good as absent, so that the application still answers.
        Errno::ACCESS | Errno::LOOP | Errno::XDEV => Ok(Entry::Absent),
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV => Err(NOT_REGULAR),
        errno => Err(Error::File(errno.into())),
    }
}

/// Splits a path behind its first segment that ends in `.php`, in any case: `/a.php/info` → `/a.php`, `/info`.
///
/// Only ASCII is folded. Folding all of Unicode changes lengths, and with them the place of the cut.
fn split_script(path: &str) -> Option<(&str, Option<&str>)> {
    let mut end = 0;
    for segment in path.split('/') {
        end += segment.len();
        if segment.as_bytes().last_chunk::<4>().is_some_and(|end| end.eq_ignore_ascii_case(b".php")) {
            let (script, info) = path.split_at_checked(end)?;
            return Some((script, Some(info).filter(|info| !info.is_empty())));
        }
        end += 1;
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Refused,
    Decoded,
}

/// Decodes the escapes that a path may still have. `None`: one stands for what no name or `PATH_INFO` may hold.
fn decode(path: &str, slash: Slash) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let byte = if first == b'%' {
            let ([high, low], after) = after.split_first_chunk()?;
            rest = after;
            let byte = hex::byte(*high, *low)?;
            if byte == b'/' && slash == Slash::Refused {
                return None;
            }
            byte
        } else {
            rest = after;
            first
        };
        if byte.is_ascii_control() {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

/// The way to a directory, as `Location` has it.
fn location(path: &str) -> Result<String, Error> {
    let decoded = decode(path, Slash::Refused).ok_or(NOT_REGULAR)?;
    Ok(encoded(&decoded, b"/-._~!$&'()*+,;=:@").chain([b'/']).map(char::from).collect())
}

/// Whether a path from PHP is absolute and goes straight down.
fn is_plain(path: &[u8]) -> bool {
    path.starts_with(b"/")
        && !path.iter().any(u8::is_ascii_control)
        && !Path::new(OsStr::from_bytes(path)).components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;
    use crate::upstream::fastcgi::deny::DEFAULT_DENY;
    use crate::upstream::fastcgi::{Address, OnClientAbort};

    /// A document root in a directory of its own, with room beside it.
    struct Place {
        directory: tempfile::TempDir,
        settings: Settings,
    }

    impl Place {
        fn new(scripts: Scripts) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("public")).unwrap();
            let settings = settings(directory.path().join("public"), scripts);
            let place = Self { directory, settings };
            place.write("public/index.php", "<?php front");
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn get(&self, path: &str) -> String {
            self.ask("GET", path)
        }

        /// What a path means, in a word: so that a test reads as a table.
        fn ask(&self, method: &str, path: &str) -> String {
            let odd = |byte| matches!(byte, b' ' | b'#' | b'?' | 0x80..);
            let sent: String = path
                .bytes()
                .map(|byte| if odd(byte) { format!("%{byte:02X}") } else { char::from(byte).into() })
                .collect();
            let Ok(path) = CanonicalPath::parse(&sent) else { return "400".to_owned() };
            let site = Site::new(&self.settings);
            match site.resolve(&path, &method.parse().unwrap()) {
                Ok(Resolved::Script(script)) => {
                    let root = String::from_utf8_lossy(&script.document_root).into_owned();
                    let filename = String::from_utf8_lossy(&script.filename).into_owned();
                    let name = String::from_utf8_lossy(&script.name).into_owned();
                    assert_eq!(filename, format!("{root}{name}"));
                    match script.path_info {
                        Some(info) => format!("runs {name} with {}", String::from_utf8_lossy(&info)),
                        None => format!("runs {name}"),
                    }
                }
                Ok(Resolved::File(_)) => "file".to_owned(),
                Ok(Resolved::Redirect(to)) => format!("to {to}"),
                Err(Error::NoFile { .. }) => "404".to_owned(),
                Err(Error::FileMethod) => "405".to_owned(),
                Err(error) => format!("{error:?}"),
            }
        }
    }

    fn settings(root: PathBuf, scripts: Scripts) -> Settings {
        let second = Duration::from_secs(1);
        Settings {
            address: Address::Unix("/nowhere".into()),
            root,
            index: "index.php".to_owned(),
            connections: 1,
            queue: second,
            queue_length: 1,
            keepalive: 0,
            connect: second,
            first_byte: second,
            between_bytes: second,
            try_files: true,
            params: Vec::new(),
            on_client_abort: OnClientAbort::Close,
            spool_memory: 0,
            spool_disk: 0,
            deny: DEFAULT_DENY.iter().copied().map(str::to_owned).collect(),
            scripts,
            internal: Vec::new(),
            symlinks: Vec::new(),
            spawn: None,
        }
    }

    #[test]
    fn what_is_no_file_goes_to_the_front_controller() {
        let place = Place::new(Scripts::Index);
        place.write("public/css/site.css", "body{}");
        fs::create_dir(place.path("public/empty")).unwrap();
        for path in ["/", "/users/1", "/css", "/css/", "/css/none.css", "/css/site.css/", "/css/site.css/x", "/empty"] {
            assert_eq!(place.get(path), "runs /index.php", "{path}");
        }
        assert_eq!(place.get("/css/site.css"), "file");
        assert_eq!(place.get(&format!("/{}", "x".repeat(5000))), "runs /index.php");
    }

    #[test]
    fn only_the_front_controller_runs_unless_files_may() {
        let place = Place::new(Scripts::Index);
        place.write("public/info.php", "<?php phpinfo();");
        assert_eq!(place.get("/index.php"), "runs /index.php");
        assert_eq!(place.get("/index.php/api/x"), "runs /index.php with /api/x");
        for path in ["/info.php", "/info.php/x", "/INDEX.PHP", "/none.php", "/x/index.php", "/a.php/style.css"] {
            assert_eq!(place.get(path), "404", "{path}");
        }
    }

    #[test]
    fn without_try_files_the_front_controller_answers_for_files_too() {
        let mut place = Place::new(Scripts::Index);
        place.settings.try_files = false;
        place.write("public/site.css", "body{}");
        assert_eq!(place.get("/site.css"), "runs /index.php");
        place.settings.scripts = Scripts::Files;
        place.write("public/a.php", "<?php");
        assert_eq!(place.get("/a.php"), "runs /a.php");
        assert_eq!(place.get("/site.css"), "404");
        assert_eq!(place.get("/none"), "404");
    }

    #[test]
    fn any_existing_script_runs_when_files_may() {
        let place = Place::new(Scripts::Files);
        place.write("public/a.php", "<?php");
        place.write("public/admin/index.php", "<?php");
        place.write("public/docs/index.html", "<p>");
        place.write("public/images/x.png", "png");
        assert_eq!(place.get("/"), "runs /index.php");
        assert_eq!(place.get("/a.php"), "runs /a.php");
        assert_eq!(place.get("/a.php/"), "runs /a.php with /");
        assert_eq!(place.get("/a.php/b.php/c"), "runs /a.php with /b.php/c");
        assert_eq!(place.ask("POST", "/a.php"), "runs /a.php");
        assert_eq!(place.get("/none.php"), "runs /index.php");
        assert_eq!(place.get("/admin/"), "runs /admin/index.php");
        assert_eq!(place.get("/docs/"), "file");
        assert_eq!(place.get("/images/"), "runs /index.php");
        assert_eq!(place.get("/images"), "runs /index.php");
    }

    #[test]
    fn a_directory_without_its_slash_is_redirected_to() {
        let place = Place::new(Scripts::Files);
        place.write("public/admin/index.php", "<?php");
        place.write("public/docs/index.html", "<p>");
        place.write("public/a b/ü?#/index.php", "<?php");
        assert_eq!(place.get("/admin"), "to /admin/");
        assert_eq!(place.get("/docs"), "to /docs/");
        assert_eq!(place.get("/a b/ü?#"), "to /a%20b/%C3%BC%3F%23/");
    }

    #[test]
    fn a_file_answers_to_get_and_head_only() {
        let place = Place::new(Scripts::Index);
        place.write("public/site.css", "body{}");
        assert_eq!(place.ask("HEAD", "/site.css"), "file");
        assert_eq!(place.ask("POST", "/site.css"), "405");
        assert_eq!(place.ask("POST", "/none.css"), "runs /index.php");
    }

    #[test]
    fn php_follows_a_script_only_if_the_script_is_there() {
        let place = Place::new(Scripts::Files);
        place.write("public/uploads/evil.jpg", "<?php");
        // What cgi.fix_pathinfo would run.
        assert_eq!(place.get("/uploads/evil.jpg/x"), "runs /index.php");
        assert_eq!(place.get("/photos/evil.jpg/x.php"), "runs /index.php");
        place.write("public/photos/evil.jpg", "<?php");
        assert_eq!(place.get("/photos/evil.jpg/x.php"), "runs /index.php");
        // What a cut at the wrong place would run: U+0130 grows when folded to lower case.
        place.write("public/İ.txt", "<?php");
        assert_eq!(place.get("/İ.txt/İ.php"), "runs /index.php");
    }

    #[test]
    fn scripts_run_in_their_exact_case_and_are_never_served() {
        let place = Place::new(Scripts::Files);
        for name in ["a.PHP", "a.phtml", "a.phar", "a.phps", "a.inc", "a.php5", "b.php.", "c.php "] {
            place.write(&format!("public/{name}"), "<?php secret");
            assert_eq!(place.get(&format!("/{name}")), "404", "{name}");
        }
        let mut place = Place::new(Scripts::Index);
        place.settings.deny.clear();
        for name in ["a.php", "a.PHP", "a.phtml", "a.phar", "a.phps", "a.inc", "a.php5", "b.php.", "c.php "] {
            place.write(&format!("public/{name}"), "<?php secret");
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                assert_eq!(place.ask(method, &format!("/{name}")), "404", "{method} {name}");
            }
        }
    }

    #[test]
    fn denied_names_are_hidden_even_from_the_front_controller() {
        for scripts in [Scripts::Index, Scripts::Files] {
            let place = Place::new(scripts);
            for name in [".env", ".git/config", "composer.json", "dump.sql", ".htaccess", "x.swp"] {
                place.write(&format!("public/{name}"), "secret");
                assert_eq!(place.get(&format!("/{name}")), "404", "{name}");
            }
            assert_eq!(place.get("/.absent"), "404");
            place.write("public/.well-known/acme-challenge/token", "t");
            assert_eq!(place.get("/.well-known/acme-challenge/token"), "file");
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_no_file_name() {
        let place = Place::new(Scripts::Files);
        place.write("public/a/b.css", "x");
        place.write("public/a.php", "<?php");
        assert_eq!(place.get("/a%2Fb.css"), "runs /index.php");
        assert_eq!(place.get("/a%2Fb.php"), "runs /index.php");
        assert_eq!(place.get("/a.php/x%2Fy"), "runs /a.php with /x/y");
        assert_eq!(place.get("/..%2F..%2Fetc%2Fpasswd"), "404");
    }

    #[test]
    fn other_escapes_stand_for_their_byte() {
        let place = Place::new(Scripts::Files);
        place.write("public/100%.css", "x");
        assert_eq!(place.get("/100%25.css"), "file");
        let odd = place.path("public").join(OsStr::from_bytes(b"caf\xe9.css"));
        fs::write(odd, "x").unwrap();
        assert_eq!(place.get("/caf%E9.css"), "file");
        place.write("public/a.php", "<?php");
        // A control byte in PATH_INFO once made PHP-FPM execute foreign code.
        assert_eq!(place.get("/a.php/%0A"), "400");
    }

    #[test]
    fn what_is_not_a_regular_file_is_not_opened_for_long() {
        let place = Place::new(Scripts::Index);
        rustix::fs::mknodat(CWD, place.path("public/pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = UnixListener::bind(place.path("public/socket")).unwrap();
        assert_eq!(place.get("/pipe"), "404");
        assert_eq!(place.get("/socket"), "404");
    }

    #[test]
    fn links_within_the_root_are_followed_and_links_out_of_it_are_not() {
        let place = Place::new(Scripts::Files);
        place.write("public/real/site.css", "x");
        place.write("public/real/run.php", "<?php");
        place.write("secret.txt", "x");
        place.write("beyond/site.css", "x");
        symlink("real", place.path("public/relative")).unwrap();
        symlink(place.path("public/real"), place.path("public/absolute")).unwrap();
        symlink("../secret.txt", place.path("public/leak.txt")).unwrap();
        symlink("/etc/passwd", place.path("public/passwd.txt")).unwrap();
        symlink(place.path("beyond"), place.path("public/storage")).unwrap();
        symlink("loop", place.path("public/loop")).unwrap();
        symlink("nowhere", place.path("public/dangling")).unwrap();
        assert_eq!(place.get("/relative/site.css"), "file");
        assert_eq!(place.get("/absolute/site.css"), "file");
        assert_eq!(place.get("/relative/run.php"), "runs /relative/run.php");
        for path in ["/leak.txt", "/passwd.txt", "/storage/site.css"] {
            assert_eq!(place.get(path), "404", "{path}");
        }
        assert_eq!(place.get("/loop"), "runs /index.php");
        assert_eq!(place.get("/dangling"), "runs /index.php");
    }

    #[test]
    fn links_lead_where_symlinks_allows() {
        let mut place = Place::new(Scripts::Files);
        place.write("beyond/site.css", "x");
        place.write("beyond/.env", "x");
        place.write("beyond/run.php", "<?php");
        place.write("elsewhere/site.css", "x");
        symlink(place.path("beyond"), place.path("public/storage")).unwrap();
        symlink(place.path("elsewhere"), place.path("public/other")).unwrap();
        place.settings.symlinks = vec![place.path("beyond")];
        assert_eq!(place.get("/storage/site.css"), "file");
        assert_eq!(place.get("/storage/run.php"), "runs /storage/run.php");
        assert_eq!(place.get("/storage/.env"), "404");
        assert_eq!(place.get("/other/site.css"), "404");
    }

    #[test]
    fn a_link_cannot_give_source_or_denied_files_an_innocent_name() {
        let place = Place::new(Scripts::Index);
        place.write("public/config.php", "<?php secret");
        place.write("public/.env", "secret");
        symlink("config.php", place.path("public/config.txt")).unwrap();
        symlink(".env", place.path("public/env.txt")).unwrap();
        assert_eq!(place.get("/config.txt"), "404");
        assert_eq!(place.get("/env.txt"), "404");
    }

    #[test]
    fn the_root_may_be_a_link_that_a_release_moves() {
        let mut place = Place::new(Scripts::Index);
        place.write("releases/1/site.css", "x");
        place.write("releases/2/index.php", "x");
        symlink("releases/1", place.path("current")).unwrap();
        place.settings.root = place.path("current");
        let site = Site::new(&place.settings);
        let root = |site: &Site| {
            let path = CanonicalPath::parse("/none").unwrap();
            let Ok(Resolved::Script(script)) = site.resolve(&path, &Method::GET) else { panic!("no script") };
            PathBuf::from(OsStr::from_bytes(&script.document_root))
        };
        let real = |name: &str| fs::canonicalize(place.path(name)).unwrap();
        assert_eq!(root(&site), real("releases/1"));
        symlink("releases/2", place.path("next")).unwrap();
        fs::rename(place.path("next"), place.path("current")).unwrap();
        assert_eq!(root(&site), real("releases/1"), "looked up again within a second");
        let long_ago = Instant::now().checked_sub(ROOT_TRUSTED).unwrap();
        site.known.get().unwrap().borrow_mut().as_mut().unwrap().since = long_ago;
        assert_eq!(root(&site), real("releases/2"));
    }

    #[test]
    fn a_root_that_only_php_can_see_has_a_front_controller_and_no_files() {
        let mut place = Place::new(Scripts::Index);
        place.settings.root = PathBuf::from("/in/another/container");
        assert_eq!(place.get("/site.css"), "runs /index.php");
        assert_eq!(place.get("/"), "runs /index.php");
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        let place = Place::new(Scripts::Files);
        place.write("secret.txt", "x");
        let site = Site::new(&place.settings);
        let base = site.base();
        // Paths that no CanonicalPath can be: the file system has the last word.
        for path in ["../secret.txt", "x/../../secret.txt", "./../secret.txt", "//etc/passwd", "/etc/passwd"] {
            let found = site.open(&base, path.as_bytes(), Want::Bytes);
            assert!(!matches!(found, Ok(Entry::File(..))), "{path}: {found:?}");
        }
    }

    #[test]
    fn without_openat2_the_same_files_are_found() {
        let place = Place::new(Scripts::Files);
        place.write("public/css/site.css", "x");
        place.write("public/a.php", "<?php");
        place.write("secret.txt", "x");
        symlink("../secret.txt", place.path("public/leak.txt")).unwrap();
        let site = Site::new(&place.settings);
        let base = site.base();
        let open = |path: &str, want| site.open_through_links(&base, path.as_bytes(), want);
        assert!(matches!(open("css/site.css", Want::Bytes), Ok(Entry::File(..))));
        assert!(matches!(open("a.php", Want::Presence), Ok(Entry::File(..))));
        assert!(matches!(open("css", Want::Bytes), Ok(Entry::Directory)));
        assert!(matches!(open("none", Want::Bytes), Ok(Entry::Absent)));
        for path in ["leak.txt", "../secret.txt", "css/../../secret.txt"] {
            assert!(matches!(open(path, Want::Bytes), Err(Error::NoFile { .. })), "{path}");
        }
        assert!(matches!(open("a.php", Want::Bytes), Err(Error::NoFile { .. })));
    }

    #[test]
    fn accel_redirect_reads_internal_directories_and_the_root() {
        let mut place = Place::new(Scripts::Index);
        place.write("private/a b.pdf", "x");
        place.write("private/upload.php", "x");
        place.write("deeper/c.pdf", "x");
        place.write("public/site.css", "x");
        place.write("public/.env", "x");
        place.write("secret.txt", "x");
        symlink("../secret.txt", place.path("private/leak")).unwrap();
        place.settings.internal =
            vec![("/files".to_owned(), place.path("private")), ("/files/deep/".to_owned(), place.path("deeper"))];
        let site = Site::new(&place.settings);
        for target in ["/files/a%20b.pdf", "/files/a b.pdf?x=1", "/files/upload.php", "/files/deep/c.pdf", "/site.css"]
        {
            assert!(site.accel(target).is_ok(), "{target}");
        }
        for target in [
            "/files",
            "/files/",
            "/filesx",
            "/files/../secret.txt",
            "/files/%2e%2e/secret.txt",
            "/files/leak",
            "files/a b.pdf",
            "/index.php",
            "/.env",
            "/none",
            "@named",
            "",
            "/files/%",
            "/files/a%00",
            "/files//etc/passwd",
            "/files/none",
        ] {
            assert!(matches!(site.accel(target), Err(Error::NoFile { .. })), "{target}");
        }
    }

    #[test]
    fn sendfile_names_files_below_the_root_and_internal_directories_only() {
        let mut place = Place::new(Scripts::Index);
        place.write("private/a.pdf", "x");
        place.write("public/private/b.pdf.bak", "x");
        place.write("public/site.css", "x");
        place.write("secret.txt", "x");
        place.settings.internal =
            vec![("/files/".to_owned(), place.path("private")), ("/inner/".to_owned(), place.path("public/private"))];
        let site = Site::new(&place.settings);
        let send = |name: &str| site.sendfile(place.path(name).to_str().unwrap());
        assert!(send("private/a.pdf").is_ok());
        assert!(send("public/site.css").is_ok());
        assert!(send("public/private/b.pdf.bak").is_ok());
        for name in ["secret.txt", "public/index.php", "private/../secret.txt", "privatex", "private", "private/none"] {
            assert!(matches!(send(name), Err(Error::NoFile { .. })), "{name}");
        }
        assert!(site.sendfile("site.css").is_err());
    }

    proptest! {
        #[test]
        fn splitting_loses_nothing_and_ends_a_script_in_php(path in "(/[a-zİ.%]{0,5}(\\.php|\\.PhP)?){1,5}") {
            if let Some((script, info)) = split_script(&path) {
                prop_assert_eq!(format!("{}{}", script, info.unwrap_or_default()), path.clone());
                prop_assert!(script.to_ascii_lowercase().ends_with(".php"));
                prop_assert!(info.is_none_or(|info| info.starts_with('/')));
            } else {
                prop_assert!(!path.to_ascii_lowercase().split('/').any(|segment| segment.ends_with(".php")));
            }
        }

        #[test]
        fn no_path_at_all_reads_what_lies_beside_the_root(path in "(/(\\.|\\.\\.|secret\\.txt|public|%2E|%2F|a)?){1,6}") {
            let place = Place::new(Scripts::Files);
            place.write("secret.txt", "x");
            prop_assert_ne!(place.get(&path), "file");
        }
    }
}
