//! Getting the text of a file, whatever stands where it should be.
//!
//! Between an editor's save and the next look, a file may be a folder, a FIFO that blocks, a
//! gigabyte, or nothing at all. Each of these is a cause to report; none may stop the control plane.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::reader::cause;

/// Larger is no route file.
pub(super) const LARGEST: u64 = 16 << 20;

/// Why there is no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The system says so.
    Io(String),
    /// A folder, a FIFO, a device.
    NotAFile,
    /// More than this many bytes.
    TooLarge(u64),
    /// The first byte that is no text.
    NotText(usize),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "cannot be read: {cause}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::TooLarge(limit) => write!(f, "has more than {limit} bytes"),
            Self::NotText(at) => write!(f, "is not UTF-8: see byte {at}"),
        }
    }
}

/// Reads the whole of a regular file of at most `limit` bytes, without ever waiting for a writer.
pub(super) fn read(path: &Path, limit: u64) -> Result<String, Unread> {
    let failed = |error: io::Error| Unread::Io(cause(&error));
    // NONBLOCK: opening a FIFO would wait for somebody to write to it.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Unread::NotAFile);
    }
    let mut bytes = Vec::new();
    // The length may lie (it can grow while it is read), so the reading itself is bounded.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(Unread::TooLarge(limit));
    }
    String::from_utf8(bytes).map_err(|error| Unread::NotText(error.utf8_error().valid_up_to()))
}

/// What tells one content from another, within this process.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_readable_text_is_refused_with_its_cause_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "höre").unwrap();
        std::fs::write(at("binary"), b"ab\xff").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();

        assert_eq!(read(&at("text"), 5), Ok("höre".to_owned()));
        assert_eq!(read(&at("text"), 4), Err(Unread::TooLarge(4)));
        assert_eq!(read(&at("binary"), 9), Err(Unread::NotText(2)));
        assert_eq!(read(folder.path(), 9), Err(Unread::NotAFile));
        assert_eq!(read(&at("fifo"), 9), Err(Unread::NotAFile));
        assert_eq!(read(&at("absent"), 9), Err(Unread::Io("no such file or directory".to_owned())));
        assert_eq!(read(Path::new("/dev/zero"), 9), Err(Unread::NotAFile));
    }
}
