//! The way of a line of the access log from a worker to the file.
//!
//! Each worker gathers [`Lines`] in a buffer of its own and hands them over in batches, through a
//! channel with a bound, to the one thread that writes. When the writer cannot keep up, or the disk
//! is full, lines are dropped and counted: a worker never waits for the log.
//! What a line says is [`super::line`]'s to decide.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::counters::WorkerCell;
use super::line::{Clock, Line};

/// A batch of this many bytes is handed over at once: each costs the wake-up of another thread and a write…
const BATCH_BYTES: usize = 256 << 10;
/// …a smaller one after this long.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// Room behind a full batch for the line that made it full.
const LINE_ROOM: usize = 8 << 10;
/// Batches that may wait for the writer: 8 MiB of lines.
const BATCHES: usize = 32;
/// How often the writer looks whether its file was moved away.
const MOVED_CHECK: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last lines.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Nowhere; nothing is gathered either.
    Off,
    #[default]
    Stdout,
    File(PathBuf),
}

/// The access log: one writer, fed by all workers.
#[derive(Debug)]
pub(crate) struct AccessLog {
    sender: Mutex<Option<SyncSender<Batch>>>,
    done: Mutex<Receiver<()>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// A log that is not kept.
    pub(crate) fn off() -> Self {
        Self { sender: Mutex::new(None), done: Mutex::new(sync_channel(0).1), lost: Arc::default() }
    }

    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or no thread can be started.
    pub(crate) fn open(destination: &Destination) -> io::Result<Self> {
        match destination {
            Destination::Off => Ok(Self::off()),
            // A file, since std's own stdout is a buffer behind a lock that others may hold.
            Destination::Stdout => {
                Self::start(Output { to: Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)), file: None })
            }
            Destination::File(path) => Self::start(Output::file(path)?),
        }
    }

    fn start(output: Output) -> io::Result<Self> {
        let (sender, batches) = sync_channel(BATCHES);
        let (finished, done) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { output, lost: Arc::clone(&lost), failing: false };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&batches);
            // Nobody may be waiting any more; then nobody needs to know.
            let _ = finished.try_send(());
        })?;
        Ok(Self { sender: Mutex::new(Some(sender)), done: Mutex::new(done), lost })
    }

    /// What one worker gathers its lines in; `None` when the log is not kept.
    pub(crate) fn lines(&self, cell: &Arc<WorkerCell>) -> Option<Lines> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Lines {
            sender,
            cell: Arc::clone(cell),
            batch: RefCell::default(),
            clock: RefCell::default(),
            wall: Cell::new((Instant::now(), SystemTime::now())),
            filling: Notify::new(),
        })
    }

    /// Lines that the writer could not write.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes the last lines. Called once the workers are gone, it returns when all are written; it
    /// never waits longer than two seconds, whatever the disk does.
    pub(crate) fn close(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if sender.is_some() {
            drop(sender);
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if done.recv_timeout(CLOSE_WAIT).is_err() {
                tracing::warn!("the access log's last lines could not be written in time");
            }
        }
    }
}

/// One worker's lines that have not been handed over yet.
#[derive(Debug)]
pub(crate) struct Lines {
    sender: SyncSender<Batch>,
    cell: Arc<WorkerCell>,
    batch: RefCell<Batch>,
    clock: RefCell<Clock>,
    /// What the two clocks said at one moment.
    wall: Cell<(Instant, SystemTime)>,
    filling: Notify,
}

impl Lines {
    /// Adds the line of an exchange that ended at `now`.
    pub(crate) fn append(&self, line: &Line<'_>, now: Instant) {
        let mut batch = self.batch.borrow_mut();
        if batch.lines == 0 {
            batch.bytes.reserve(BATCH_BYTES + LINE_ROOM);
            self.filling.notify_one();
        }
        line.append(&mut batch.bytes, &mut self.clock.borrow_mut(), self.wall_time(now));
        batch.lines += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            drop(batch);
            self.hand_over();
        }
    }

    /// The time of day at `now`. That clock is asked once a second only, since it costs as much as a third of a line: a
    /// step of it is seen a second late.
    fn wall_time(&self, now: Instant) -> SystemTime {
        let (then, wall) = self.wall.get();
        let since = now.saturating_duration_since(then);
        if since < Duration::from_secs(1) {
            return wall + since;
        }
        let (here, wall) = (Instant::now(), SystemTime::now());
        self.wall.set((here, wall));
        wall - here.saturating_duration_since(now)
    }

    /// Hands over what was gathered; where there is no room for it, it is dropped and counted.
    pub(crate) fn hand_over(&self) {
        let batch = self.batch.take();
        if batch.lines == 0 {
            return;
        }
        if let Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) = self.sender.try_send(batch)
        {
            self.cell.lines_dropped.add(batch.lines);
            batch.bytes.clear();
            batch.lines = 0;
            self.batch.replace(batch);
        }
    }

    /// Hands small batches over once they are a tenth of a second old. Asleep while there are none.
    pub(crate) async fn keep_handing_over(&self) {
        loop {
            self.filling.notified().await;
            tokio::time::sleep(BATCH_DELAY).await;
            self.hand_over();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// The thread that writes.
struct Writer {
    output: Output,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    /// Ends when the last sender is gone and everything sent has been written.
    fn run(mut self, batches: &Receiver<Batch>) {
        while let Ok(batch) = batches.recv() {
            self.output.follow();
            match self.write(&batch.bytes) {
                Ok(()) if self.failing => {
                    self.failing = false;
                    tracing::warn!(lost = self.lost.load(Ordering::Relaxed), "the access log is written again");
                }
                Ok(()) => {}
                Err(error) => {
                    self.lost.fetch_add(batch.lines, Ordering::Relaxed);
                    // Said once, not once a batch: a full disk is not helped by a second log that grows.
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "cannot write the access log; lines are dropped and counted");
                    }
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What failed may have written half a line: the next one must not continue it.
        if self.failing {
            self.output.to.write_all(b"\n")?;
        }
        self.output.to.write_all(bytes)
    }
}

struct Output {
    to: Box<dyn Write + Send>,
    file: Option<Followed>,
}

/// A file known by its name, and which one that was when it was opened.
struct Followed {
    path: PathBuf,
    device_and_inode: (u64, u64),
    checked: Instant,
}

impl Output {
    fn file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let metadata = file.metadata()?;
        let device_and_inode = (metadata.dev(), metadata.ino());
        let followed = Followed { path: path.to_owned(), device_and_inode, checked: Instant::now() };
        Ok(Self { to: Box::new(file), file: Some(followed) })
    }

    /// Opens the file again when its name means another one (logrotate moved it), or none.
    fn follow(&mut self) {
        let Some(file) = &mut self.file else { return };
        if file.checked.elapsed() < MOVED_CHECK {
            return;
        }
        file.checked = Instant::now();
        let there = std::fs::metadata(&file.path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if there != Some(file.device_and_inode) {
            // When the new one cannot be opened, the old one goes on: better there than nowhere.
            match Self::file(&file.path) {
                Ok(reopened) => *self = reopened,
                Err(error) => tracing::warn!(%error, path = %file.path.display(), "cannot reopen the access log"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ::http::HeaderValue;

    use super::super::Side;
    use super::super::line::Ended;
    use super::*;

    fn append(lines: &Lines, path: &str) {
        let line = Line {
            request_id: &HeaderValue::from_static("r1"),
            trace_id: None,
            client: "127.0.0.1",
            method: "GET",
            host: None,
            path,
            query: None,
            status: 200,
            code: None,
            route: "-",
            side: Side::Gateway,
            serve: None,
            generation: None,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            queue: Duration::ZERO,
            service: None,
            total: Duration::ZERO,
            ended: Ended::Complete,
            user_agent: None,
            referer: None,
            user: None,
            refused: None,
            undecided: None,
        };
        lines.append(&line, Instant::now());
    }

    /// A disk that answers each write as the test says, and tells what it was asked to write.
    struct Disk {
        verdicts: Receiver<io::Result<()>>,
        written: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.verdicts.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_on_disk() -> (AccessLog, std::sync::mpsc::Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (verdict, verdicts) = channel();
        let (written, seen) = channel();
        let log = AccessLog::start(Output { to: Box::new(Disk { verdicts, written }), file: None }).unwrap();
        (log, verdict, seen)
    }

    #[test]
    fn while_the_writer_is_stuck_lines_are_dropped_and_counted_and_no_worker_waits() {
        let (log, verdict, seen) = log_on_disk();
        let cell = Arc::new(WorkerCell::default());
        let lines = log.lines(&cell).unwrap();
        let sent = u64::try_from(BATCHES).unwrap() + 50;
        for _ in 0..sent {
            append(&lines, "/");
            lines.hand_over();
        }
        // One batch may be in the writer's hands, the channel holds as many as it may.
        let dropped = cell.lines_dropped.value();
        assert!((49..=50).contains(&dropped), "{dropped} dropped");
        drop(verdict);
        drop(lines);
        log.close();
        assert_eq!(seen.iter().count() as u64, sent - dropped);
    }

    #[test]
    fn a_full_disk_costs_its_lines_and_the_log_goes_on_at_a_line_of_its_own() {
        let (log, verdict, seen) = log_on_disk();
        let cell = Arc::new(WorkerCell::default());
        let lines = log.lines(&cell).unwrap();
        verdict.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        for path in ["/lost", "/kept"] {
            append(&lines, path);
            lines.hand_over();
        }
        drop((lines, verdict));
        log.close();
        assert_eq!((log.lost(), cell.lines_dropped.value()), (1, 0));
        let written = String::from_utf8(seen.iter().flatten().collect()).unwrap();
        assert!(written.starts_with("\n{") && written.contains("/kept") && !written.contains("/lost"), "{written}");
    }

    #[test]
    fn the_last_lines_are_written_when_the_log_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = AccessLog::open(&Destination::File(path.clone())).unwrap();
        let lines = log.lines(&Arc::default()).unwrap();
        append(&lines, "/last");
        drop(lines);
        log.close();
        assert!(std::fs::read_to_string(path).unwrap().contains("/last"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again_under_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let mut output = Output::file(&path).unwrap();
        output.to.write_all(b"old\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        output.file.as_mut().unwrap().checked = Instant::now().checked_sub(2 * MOVED_CHECK).unwrap();
        output.follow();
        output.to.write_all(b"new\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "old\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "new\n");
    }

    #[test]
    fn a_log_that_is_off_gathers_nothing() {
        let log = AccessLog::open(&Destination::Off).unwrap();
        assert!(log.lines(&Arc::default()).is_none());
        log.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_batch_is_handed_over_after_a_tenth_of_a_second() {
        let (log, verdict, seen) = log_on_disk();
        drop(verdict);
        let lines = log.lines(&Arc::default()).unwrap();
        append(&lines, "/small");
        let early = tokio::time::timeout(BATCH_DELAY / 2, lines.keep_handing_over()).await;
        assert!(early.is_err() && lines.batch.borrow().lines == 1);
        lines.filling.notify_one();
        let _ = tokio::time::timeout(2 * BATCH_DELAY, lines.keep_handing_over()).await;
        assert_eq!(lines.batch.borrow().lines, 0);
        drop(lines);
        log.close();
        assert_eq!(seen.iter().count(), 1);
    }
}
