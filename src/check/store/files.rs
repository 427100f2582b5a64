//! PHP's session files (`session.save_handler = files`), read as they are.
//!
//! PHP holds an exclusive lock for as long as a request has its session open; waiting for it would
//! make every check as slow as the slowest page. So a file is read without the lock, and read again
//! where PHP may be writing it this very moment. Nothing is created by reading, no link is followed,
//! and what is no regular file is not waited for. Disks may be slow: all of it happens off the worker.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::{Failed, InFlight, LARGEST, in_time};

/// A file that was written so short a time ago may be half written; the clock that dates files ticks every 4 or 10 ms.
const SETTLED: Duration = Duration::from_millis(20);
/// How long PHP is given to finish, before each further time that a file is read.
const PAUSES: [Duration; 3] = [Duration::from_millis(2), Duration::from_millis(4), Duration::from_millis(8)];

/// `session.save_path`: a folder, and how many levels of folders named after characters of the id are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) levels: usize,
    /// What was not written for longer is no session any more; PHP itself only collects such files, now and then.
    pub(crate) lifetime: Option<Duration>,
    /// Whom PHP runs as. A file of anybody else but root is no session, as in PHP (`ps_files_open`): where everybody may
    /// write into the folder, everybody could make one.
    pub(crate) owner: Option<u32>,
}

impl Folder {
    /// Where a session is; `None`: no session of PHP's has such a name.
    fn file(&self, key: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-' | b'_');
        let id = key.strip_prefix("sess_").unwrap_or(key);
        if id.is_empty() || !key.bytes().all(plain) || key.len() > 255 {
            return None;
        }
        let mut path = self.path.clone();
        for level in 0..self.levels {
            path.push(id.get(level..=level)?);
        }
        path.push(key);
        Some(path)
    }
}

/// A file's content, and whether it was written too short a time ago to be taken for whole.
struct Reading {
    content: Vec<u8>,
    fresh: bool,
}

/// The content of a session's file. One that stays empty, or goes on changing, is unfit: nobody can say whose it is.
///
/// PHP empties a file before it writes it anew (`ps_files_write`), and a file that is being emptied keeps its old date
/// until it has been: so neither date nor two readings alike tell that an empty one is a session in which nothing is kept.
pub(super) async fn read(folder: &Folder, key: &str, place: InFlight) -> Result<Option<Bytes>, Failed> {
    let Some(path) = folder.file(key) else { return Ok(None) };
    let mut last: Option<Vec<u8>> = None;
    let (mut place, mut pauses) = (Some(place), PAUSES.into_iter());
    loop {
        let (path, held, lifetime, owner) = (path.clone(), place.take(), folder.lifetime, folder.owner);
        let (held, reading) = off_worker(move || (held, reading(&path, lifetime, owner))).await?;
        place = held;
        let Some(Reading { content, fresh }) = reading? else { return Ok(None) };
        if !content.is_empty() && (!fresh || last.as_ref() == Some(&content)) {
            return Ok(Some(Bytes::from(content)));
        }
        last = Some(content);
        match pauses.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(Failed::Unfit),
        }
    }
}

/// Writes a session as PHP does: into the file that is there, so that a PHP process that has it open sees it too.
pub(super) async fn write(folder: &Folder, key: &str, value: Bytes, place: InFlight) -> Result<(), Failed> {
    let path = folder.file(key).ok_or(Failed::Unfit)?;
    let written = off_worker(move || -> io::Result<()> {
        let _place = place;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        // PHP holds it while a page runs, which may take longer than anybody wants to wait here.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&value)?;
        file.set_len(value.len() as u64)
    });
    written.await?.map_err(|_| Failed::Error)
}

/// Makes a session look used now, as PHP does with one that a page has read and not changed.
pub(super) async fn touch(folder: &Folder, key: &str, place: InFlight) -> Result<(), Failed> {
    let Some(path) = folder.file(key) else { return Ok(()) };
    let touched = off_worker(move || -> io::Result<()> {
        let _place = place;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        File::from(open(&path, flags, Mode::empty())?).set_modified(SystemTime::now())
    });
    match touched.await? {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed::Error),
        _ => Ok(()),
    }
}

pub(super) async fn delete(folder: &Folder, key: &str, place: InFlight) -> Result<(), Failed> {
    let Some(path) = folder.file(key) else { return Ok(()) };
    let deleted = off_worker(move || {
        let _place = place;
        std::fs::remove_file(path)
    });
    match deleted.await? {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed::Error),
        _ => Ok(()),
    }
}

pub(super) fn probe(folder: &Folder) -> Result<(), String> {
    std::fs::read_dir(&folder.path).map(|_| ()).map_err(|error| error.to_string())
}

async fn off_worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    in_time(async { tokio::task::spawn_blocking(work).await.map_err(|_| Failed::Error) }).await
}

fn reading(path: &Path, lifetime: Option<Duration>, owner: Option<u32>) -> Result<Option<Reading>, Failed> {
    // NONBLOCK: a FIFO in its place would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: OwnedFd = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::LOOP) => return Err(Failed::Unfit),
        Err(_) => return Err(Failed::Error),
    };
    let file = File::from(file);
    let stamp = |file: &File| -> io::Result<_> {
        let found = file.metadata()?;
        let trusted = owner.is_none_or(|owner| [owner, 0].contains(&found.uid()));
        Ok((found.is_file() && trusted, found.len(), found.modified()?))
    };
    let before = stamp(&file).map_err(|_| Failed::Error)?;
    let (is_session, length, _) = before;
    if !is_session || length > LARGEST as u64 {
        return Err(Failed::Unfit);
    }
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    (&file).take(LARGEST as u64 + 1).read_to_end(&mut content).map_err(|_| Failed::Error)?;
    if content.len() > LARGEST {
        return Err(Failed::Unfit);
    }
    let after = stamp(&file).map_err(|_| Failed::Error)?;
    let age = SystemTime::now().duration_since(after.2).unwrap_or_default();
    if lifetime.is_some_and(|lifetime| age > lifetime) {
        return Ok(None);
    }
    let settled = age > SETTLED;
    Ok(Some(Reading { content, fresh: before != after || !settled }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn place() -> InFlight {
        InFlight(Arc::new(AtomicUsize::new(1)))
    }

    #[tokio::test]
    async fn a_session_is_found_where_php_puts_it_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().to_owned(), levels: 2, lifetime: None, owner: None };
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/sess_abc"), "user|i:7;").unwrap();
        std::fs::write(dir.path().join("secret"), "x|i:1;").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("a/b/sess_abd")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("a/b/sess_abe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let read = async |key: &str| read(&folder, key, place()).await;
        assert_eq!(read("sess_abc").await.unwrap().as_deref(), Some(&b"user|i:7;"[..]));
        assert_eq!(read("sess_abx").await, Ok(None));
        assert_eq!(read("sess_../../secret").await, Ok(None));
        assert_eq!(read("sess_").await, Ok(None));
        assert_eq!((read("sess_abd").await, read("sess_abe").await), (Err(Failed::Unfit), Err(Failed::Unfit)));
        let owned_by = async |owner| super::read(&Folder { owner, ..folder.clone() }, "sess_abc", place()).await;
        let mine = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(owned_by(Some(mine)).await, Ok(Some(Bytes::from_static(b"user|i:7;"))));
        // To root's files everybody defers.
        let other = if mine == 0 { Ok(Some(Bytes::from_static(b"user|i:7;"))) } else { Err(Failed::Unfit) };
        assert_eq!(owned_by(Some(mine + 1)).await, other);
    }

    #[tokio::test]
    async fn a_session_is_written_into_the_file_that_php_has_open() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().to_owned(), levels: 0, lifetime: None, owner: None };
        write(&folder, "sess_a", Bytes::from_static(b"long|i:1;"), place()).await.unwrap();
        let mut held = File::open(dir.path().join("sess_a")).unwrap();
        write(&folder, "sess_a", Bytes::from_static(b"a|i:1;"), place()).await.unwrap();
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a|i:1;");
        flock(&held, FlockOperation::LockExclusive).unwrap();
        assert_eq!(write(&folder, "sess_a", Bytes::new(), place()).await, Err(Failed::Error));
        assert_eq!(
            read(&folder, "sess_a", place()).await.unwrap().as_deref(),
            Some(&b"a|i:1;"[..]),
            "no lock is needed"
        );
        delete(&folder, "sess_a", place()).await.unwrap();
        assert_eq!(read(&folder, "sess_a", place()).await, Ok(None));
    }

    #[tokio::test]
    async fn a_session_that_php_is_writing_is_waited_for_and_an_empty_one_is_in_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().to_owned(), levels: 0, lifetime: None, owner: None };
        let file = File::create(dir.path().join("sess_a")).unwrap();
        // As a file looks that is being emptied: its date is still the old one.
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert_eq!(read(&folder, "sess_a", place()).await, Err(Failed::Unfit));
        let (read, ()) = tokio::join!(read(&folder, "sess_a", place()), async {
            tokio::time::sleep(PAUSES[0] / 2).await;
            (&file).write_all(b"user|i:7;").unwrap();
        });
        assert_eq!(read.unwrap().as_deref(), Some(&b"user|i:7;"[..]));
    }
}
