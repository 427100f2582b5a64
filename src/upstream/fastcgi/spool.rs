//! Request bodies, received whole before a PHP process is taken.
//!
//! PHP trusts only a length it is told beforehand, and a process that waits for a slow client is
//! lost to everyone else. So a body is kept here first: in memory up to a size, then in an unlinked
//! temporary file. All files of one pool together are bounded by [`Disk`]; room is taken before
//! it is used and comes back with the body's end. It does not look into a body.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::http::{BodyFault, RequestBody};
use crate::upstream::Error;

/// The most that is read from a file at once.
const READ_BYTES: u64 = 128 << 10;

/// A request's body, all of it. Clones share it: a retry sends it again.
#[derive(Clone, Debug)]
pub(super) enum Spooled {
    /// There is none.
    Empty,
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(Rc<SpoolFile>),
}

/// A body in a file that no directory names.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: Arc<File>,
    length: u64,
    _room: Room,
}

impl Spooled {
    /// Its bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.length,
        }
    }
}

impl SpoolFile {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads what follows `position`, at most [`READ_BYTES`], on a thread that may wait for a disk.
    pub(super) fn read(&self, position: u64) -> JoinHandle<io::Result<Bytes>> {
        let file = Arc::clone(&self.file);
        let length = usize::try_from((self.length - position.min(self.length)).min(READ_BYTES)).unwrap_or(0);
        spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, position)?;
            Ok(bytes.into())
        })
    }
}

/// The room that the bodies of one pool share on disk.
#[derive(Debug)]
pub(super) struct Disk {
    limit: u64,
    taken: AtomicU64,
}

impl Disk {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU64::new(0) })
    }

    /// Bytes taken now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Room on disk; given back on drop.
#[derive(Debug)]
struct Room {
    disk: Arc<Disk>,
    bytes: u64,
}

impl Room {
    fn grow(&mut self, by: u64) -> Result<(), Error> {
        let limit = self.disk.limit;
        let grown = |taken: u64| taken.checked_add(by).filter(|&taken| taken <= limit);
        if self.disk.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            return Err(Error::SpoolFull { limit });
        }
        self.bytes += by;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.disk.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Receives the whole body; past `memory` bytes it goes to a file.
pub(super) async fn receive(body: RequestBody, memory: u64, disk: &Arc<Disk>) -> Result<Spooled, Error> {
    let declared = body.declared_length();
    if declared == Some(0) {
        return Ok(Spooled::Empty);
    }
    let limit = body.limit();
    if let Some(length) = declared.filter(|&length| length > limit) {
        tracing::debug!(length, limit, "the request's body is declared larger than it may be");
        return Err(BodyFault::TooLarge { limit }.into());
    }
    let spooled = receive_frames(body, declared, memory, disk).await?;
    let received = spooled.length();
    match declared {
        Some(declared) if declared != received => Err(Error::BodyLength { declared, received }),
        _ => Ok(spooled),
    }
}

async fn receive_frames(
    body: RequestBody,
    declared: Option<u64>,
    memory: u64,
    disk: &Arc<Disk>,
) -> Result<Spooled, Error> {
    let mut body = pin!(body);
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    // A body that came in one piece is kept as it came.
    let mut only = Bytes::new();
    let mut gathered = BytesMut::new();
    let mut file: Option<FileWriter> = None;
    while let Some(frame) = body.as_mut().frame().await {
        // Trailers have no place in CGI.
        let Ok(bytes) = frame?.into_data() else { continue };
        if only.is_empty() && gathered.is_empty() && file.is_none() && bytes.len() <= memory {
            only = bytes;
            continue;
        }
        if gathered.capacity() == 0 {
            let expected = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            gathered.reserve(expected.max(only.len() + bytes.len()).min(memory.saturating_add(bytes.len())));
        }
        gathered.extend_from_slice(&std::mem::take(&mut only));
        gathered.extend_from_slice(&bytes);
        if gathered.len() > memory {
            let writer = match file.take() {
                Some(writer) => writer,
                None => FileWriter::open(disk, declared).await?,
            };
            file = Some(writer.write(&mut gathered).await?);
        }
    }
    match file {
        Some(writer) => Ok(Spooled::File(Rc::new(writer.finish(gathered).await?))),
        None if gathered.is_empty() && only.is_empty() => Ok(Spooled::Empty),
        None if gathered.is_empty() => Ok(Spooled::Memory(only)),
        None => Ok(Spooled::Memory(gathered.freeze())),
    }
}

/// A file that is being written, a large piece at a time.
struct FileWriter {
    file: File,
    room: Room,
    written: u64,
}

impl FileWriter {
    async fn open(disk: &Arc<Disk>, declared: Option<u64>) -> Result<Self, Error> {
        let mut room = Room { disk: Arc::clone(disk), bytes: 0 };
        // A declared length is refused at once rather than after most of it has been written.
        room.grow(declared.unwrap_or(0))?;
        let file = off_thread(tempfile::tempfile).await?;
        Ok(Self { file, room, written: 0 })
    }

    /// Writes what is `gathered` and leaves its room for the next piece.
    async fn write(mut self, gathered: &mut BytesMut) -> Result<Self, Error> {
        let length = gathered.len() as u64;
        let needed = self.written + length;
        if needed > self.room.bytes {
            self.room.grow(needed - self.room.bytes)?;
        }
        let (mut file, piece) = (self.file, gathered.split().freeze());
        let (file, piece) = off_thread(move || file.write_all(&piece).map(|()| (file, piece))).await?;
        drop(piece);
        Ok(Self { file, room: self.room, written: needed })
    }

    async fn finish(self, mut rest: BytesMut) -> Result<SpoolFile, Error> {
        let done = if rest.is_empty() { self } else { self.write(&mut rest).await? };
        Ok(SpoolFile { file: Arc::new(done.file), length: done.written, _room: done.room })
    }
}

/// A disk may be slow; a worker must not be.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(io::Error::other).flatten().map_err(Error::Spool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(disk: &Arc<Disk>) -> Room {
        Room { disk: Arc::clone(disk), bytes: 0 }
    }

    #[test]
    fn the_disks_room_is_bounded_and_comes_back() {
        let disk = Disk::new(100);
        let (mut one, mut two) = (room(&disk), room(&disk));
        one.grow(60).unwrap();
        assert!(matches!(two.grow(41), Err(Error::SpoolFull { limit: 100 })));
        two.grow(40).unwrap();
        assert_eq!(disk.taken(), 100);
        drop(one);
        assert_eq!(disk.taken(), 40);
        two.grow(60).unwrap();
        drop(two);
        assert_eq!(disk.taken(), 0);
    }

    #[tokio::test]
    async fn a_file_gives_back_what_was_written() {
        let disk = Disk::new(1 << 20);
        let mut writer = FileWriter::open(&disk, None).await.unwrap();
        let written: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).take(300_000).collect();
        for piece in written.chunks(100_000) {
            writer = writer.write(&mut piece.into()).await.unwrap();
        }
        let file = writer.finish(BytesMut::new()).await.unwrap();
        assert_eq!((file.length, disk.taken()), (300_000, 300_000));
        let mut read = Vec::new();
        while (read.len() as u64) < file.length {
            read.extend_from_slice(&file.read(read.len() as u64).await.unwrap().unwrap());
        }
        assert_eq!(read, written);
        drop(file);
        assert_eq!(disk.taken(), 0);
    }
}
