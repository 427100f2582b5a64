//! Request bodies, received whole before anything acts on them.
//!
//! PHP trusts only a length it is told beforehand, and a process that waits for a slow client is
//! lost to everyone else; a signature over a body holds or does not once its last byte is here. So a
//! body is kept here first: in memory up to a size, then in an unlinked temporary file. All files of
//! one [`Disk`] together are bounded; room is taken before it is used and comes back with the body's
//! end. It does not look into a body.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::task::{JoinHandle, spawn_blocking};

/// The most that is read from a file at once.
const READ_BYTES: u64 = 128 << 10;

/// Why a body could not be kept, other than by its client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// More bytes than declared, or fewer.
    #[error("the request's body has {received} bytes, its head declares {declared}")]
    Length { declared: u64, received: u64 },
    /// Bodies on disk take all the room they may take.
    #[error("request bodies waiting on disk fill the spool of {limit} bytes")]
    Full { limit: u64 },
    /// A temporary file failed.
    #[error("cannot keep the request's body on disk")]
    Disk(#[source] io::Error),
}

/// A request's body, all of it. Clones share it: a retry sends it again.
#[derive(Clone, Debug)]
pub(crate) enum Spooled {
    /// There is none.
    Empty,
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(Arc<SpoolFile>),
}

/// A body in a file that no directory names.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    file: Arc<File>,
    length: u64,
    _room: Room,
}

impl Spooled {
    /// Its bytes.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.length,
        }
    }
}

impl SpoolFile {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads what follows `position`, at most [`READ_BYTES`], on a thread that may wait for a disk.
    pub(crate) fn read(&self, position: u64) -> JoinHandle<io::Result<Bytes>> {
        let file = Arc::clone(&self.file);
        let length = usize::try_from((self.length - position.min(self.length)).min(READ_BYTES)).unwrap_or(0);
        spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, position)?;
            Ok(bytes.into())
        })
    }
}

/// A kept body on its way to whoever asks for it as a stream.
#[derive(Debug)]
pub(crate) struct Replay {
    body: Spooled,
    position: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Replay {
    pub(crate) fn new(body: Spooled) -> Self {
        Self { body, position: 0, reading: None }
    }

    /// The body as a whole, while none of it has been given out.
    pub(crate) fn whole(&self) -> Option<&Spooled> {
        (self.position == 0 && self.reading.is_none()).then_some(&self.body)
    }

    /// Bytes that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.body.length() - self.position
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        let piece = match &self.body {
            Spooled::Empty => return Poll::Ready(None),
            Spooled::Memory(bytes) => bytes.clone(),
            Spooled::File(file) => {
                let reading = self.reading.get_or_insert_with(|| file.read(self.position));
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                match read.map_err(io::Error::other).flatten() {
                    Ok(piece) => piece,
                    Err(error) => {
                        self.position = self.body.length();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        };
        self.position += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

/// The room that bodies share on disk.
#[derive(Debug)]
pub(crate) struct Disk {
    limit: u64,
    taken: AtomicU64,
}

impl Disk {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU64::new(0) })
    }

    /// Bytes taken now.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
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
    fn grow(&mut self, by: u64) -> Result<(), Fault> {
        let limit = self.disk.limit;
        let grown = |taken: u64| taken.checked_add(by).filter(|&taken| taken <= limit);
        if self.disk.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            return Err(Fault::Full { limit });
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
pub(crate) async fn receive<B, E>(body: B, memory: u64, disk: &Arc<Disk>) -> Result<Spooled, E>
where
    B: Body<Data = Bytes, Error = E>,
    E: From<Fault>,
{
    let declared = body.size_hint().exact();
    if declared == Some(0) {
        return Ok(Spooled::Empty);
    }
    let spooled = receive_frames(body, declared, memory, disk).await?;
    let received = spooled.length();
    match declared {
        Some(declared) if declared != received => Err(Fault::Length { declared, received }.into()),
        _ => Ok(spooled),
    }
}

async fn receive_frames<B, E>(body: B, declared: Option<u64>, memory: u64, disk: &Arc<Disk>) -> Result<Spooled, E>
where
    B: Body<Data = Bytes, Error = E>,
    E: From<Fault>,
{
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
        Some(writer) => Ok(Spooled::File(Arc::new(writer.finish(gathered).await?))),
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
    async fn open(disk: &Arc<Disk>, declared: Option<u64>) -> Result<Self, Fault> {
        let mut room = Room { disk: Arc::clone(disk), bytes: 0 };
        // A declared length is refused at once rather than after most of it has been written.
        room.grow(declared.unwrap_or(0))?;
        let file = off_thread(tempfile::tempfile).await?;
        Ok(Self { file, room, written: 0 })
    }

    /// Writes what is `gathered` and leaves its room for the next piece.
    async fn write(mut self, gathered: &mut BytesMut) -> Result<Self, Fault> {
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

    async fn finish(self, mut rest: BytesMut) -> Result<SpoolFile, Fault> {
        let done = if rest.is_empty() { self } else { self.write(&mut rest).await? };
        Ok(SpoolFile { file: Arc::new(done.file), length: done.written, _room: done.room })
    }
}

/// A disk may be slow; a worker must not be.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Fault> {
    spawn_blocking(work).await.map_err(io::Error::other).flatten().map_err(Fault::Disk)
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
        assert!(matches!(two.grow(41), Err(Fault::Full { limit: 100 })));
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
