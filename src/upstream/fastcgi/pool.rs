//! The connections to one PHP-FPM pool.
//!
//! `mod.rs` leases a connection for a request, `exchange.rs` gives it back. A connection holds a slot
//! from before it is made until PHP has closed it: a slot is a PHP process, and the process is busy
//! until then, whatever the client does. Idle connections (none by default) stay with the worker that
//! made them and keep their slots; as soon as anyone waits for a slot they go to whoever waits.
//! This file moves connections; it never looks inside a record.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::PollFlags;
use thread_local::ThreadLocal;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::complaints::LINES_A_SECOND;
use super::connection::{Dial, Stream, show};
use super::health::Health;
use super::record::{END_OF_STDIN, HEADER_BYTES};
use super::slots::{NoSlot, Slot, Slots};
use super::{Connections, Settings};
use crate::upstream::Error;
use crate::upstream::warnings::Limit;

/// How long an idle connection is kept. FPM may replace the process any time, and `request_terminate_timeout` counts on.
const IDLE: Duration = Duration::from_millis(1500);
/// The most that is waited for a process whose request nobody waits for any more.
const LAST_WAIT: Duration = Duration::from_secs(600);

/// How long what nobody wants of an answer is read before it is broken off.
pub(super) const RUN_OUT: Duration = Duration::from_secs(5);
/// How long a slot stays taken once its connection was cut: PHP is not seen any more from then on. A script that
/// writes to clients as it goes writes again within that time, and is ended by it.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Empty STDIN records that fill the smallest send buffer (4.5 KiB on Linux, overhead included) with one write.
static STUFFING: [[u8; HEADER_BYTES]; 512] = [END_OF_STDIN; 512];
/// First and longest pause between two looks whether a process has noticed that its client left: most scripts end soon.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// All connections to one pool, over all workers.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    address: String,
    dial: Dial,
    connect: Duration,
    queue: Duration,
    keepalive: usize,
    slots: Arc<Slots<Stream>>,
    shelves: ThreadLocal<RefCell<Shelf>>,
    /// Connections on all shelves; counted before they are put there.
    shelved: AtomicUsize,
    /// One a worker, to tell it that somebody waits for what is on its shelf.
    bells: ThreadLocal<Notify>,
    health: Health,
    /// How much of what its processes write to STDERR is logged.
    pub(super) log_limit: Limit,
}

/// One worker's idle connections, the youngest last.
#[derive(Debug, Default)]
struct Shelf {
    idle: Vec<Idle>,
    /// Whether a task looks after them.
    kept: bool,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    slot: Slot<Stream>,
    since: Instant,
}

/// A connection that a request has for itself.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    slot: Slot<Stream>,
    /// Whether a request was served on it before.
    pub(super) reused: bool,
}

/// What is to become of a connection whose answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It could serve another request.
    Clean,
    /// It could not.
    Spoiled,
}

impl Pool {
    pub(super) fn new(name: &str, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            address: show(&settings.address),
            dial: Dial::new(&settings.address),
            connect: settings.connect,
            queue: settings.queue,
            keepalive: settings.keepalive.min(settings.connections),
            slots: Slots::new(settings.connections, settings.queue_length),
            shelves: ThreadLocal::new(),
            shelved: AtomicUsize::new(0),
            bells: ThreadLocal::new(),
            health: Health::default(),
            log_limit: Limit::new(LINES_A_SECOND),
        })
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> Connections {
        let idle = self.shelved.load(SeqCst);
        Connections { in_use: self.slots.held().saturating_sub(idle), idle }
    }

    /// Requests that wait for a PHP process.
    pub(super) fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// Refuses at once what would only find out again that the pool is down.
    pub(super) fn refuse_while_down(&self) -> Result<(), Error> {
        match self.health.down_for() {
            Some(since) if !self.health.is_probe_due() => Err(Error::Down { since }),
            _ => Ok(()),
        }
    }

    /// Waits for a slot and gives a connection in it: one that was kept if `reuse` says so, else a new one.
    pub(super) async fn lease(
        self: &Arc<Self>,
        reuse: bool,
        deadline: Instant,
        queued: impl FnOnce(Instant, Duration),
    ) -> Result<Connection, Error> {
        let until = Patience { queue_ends: Instant::now() + self.queue, deadline };
        let (slot, kept) = self.place(reuse, until, queued).await?;
        // One that another worker kept is adopted; one that went bad while it was kept is dropped.
        let kept = kept.filter(|_| reuse).and_then(|stream| stream.adopt().ok()).filter(Stream::is_quiet);
        match kept {
            Some(stream) => Ok(Connection { stream, slot, reused: true }),
            None => self.connect(slot, until).await,
        }
    }

    /// A new connection in the slot of one that turned out to be dead.
    pub(super) async fn replace(&self, dead: Connection, deadline: Instant) -> Result<Connection, Error> {
        let Connection { stream, slot, .. } = dead;
        drop(stream);
        self.connect(slot, Patience { queue_ends: Instant::now() + self.queue, deadline }).await
    }

    async fn place(
        self: &Arc<Self>,
        reuse: bool,
        until: Patience,
        queued: impl FnOnce(Instant, Duration),
    ) -> Result<(Slot<Stream>, Option<Stream>), Error> {
        // A request that must not reuse a connection gives up a kept one only where there is no free slot.
        if let Some(slot) = (!reuse).then(|| self.slots.try_take()).flatten() {
            return Ok((slot, None));
        }
        if let Some(idle) = self.unshelve() {
            return Ok((idle.slot, Some(idle.stream)));
        }
        if let Some(slot) = self.slots.try_take() {
            return Ok((slot, None));
        }
        let began = Instant::now();
        let granted = self.slots.wait(until.earliest(), || self.ring()).await;
        queued(began, began.elapsed());
        granted.map_err(|refused| match refused {
            NoSlot::LineFull => Error::QueueFull { length: self.waiting() },
            NoSlot::TooLate => until.too_late(began),
        })
    }

    /// Connects, again and again for as long as that may take: nothing of the request has been sent.
    async fn connect(&self, slot: Slot<Stream>, until: Patience) -> Result<Connection, Error> {
        let began = Instant::now();
        let (mut pause, mut backlog_pause) = (Duration::from_millis(4), Duration::from_millis(1));
        let probing = match self.health.down_for() {
            Some(since) if !self.health.claim_probe() => return Err(Error::Down { since }),
            down => down.is_some(),
        };
        loop {
            let patience = self.connect.min(until.deadline.saturating_duration_since(Instant::now()));
            let source = match self.dial.connect(patience).await {
                Ok(stream) => {
                    self.health.succeeded(&self.name);
                    return Ok(Connection { stream, slot, reused: false });
                }
                Err(error) => error,
            };
            if source.kind() == io::ErrorKind::WouldBlock {
                self.health.succeeded(&self.name);
                // The backlog is full: the pool is there, but has other clients than us. Ours wait their time.
                if Instant::now() + backlog_pause >= until.earliest() {
                    return Err(until.too_late(began));
                }
                sleep(jittered(&mut backlog_pause)).await;
                continue;
            }
            if let Some(since) = self.health.down_for().filter(|_| probing) {
                return Err(Error::Down { since });
            }
            if began.elapsed() + pause >= self.connect {
                self.health.failed(&self.name, &source);
                return Err(Error::Unreachable { address: self.address.clone(), source });
            }
            if Instant::now() + pause >= until.deadline {
                return Err(Error::Unreachable { address: self.address.clone(), source });
            }
            sleep(jittered(&mut pause)).await;
            if let Some(since) = self.health.down_for() {
                return Err(Error::Down { since });
            }
        }
    }

    /// Takes back a connection whose answer is complete.
    ///
    /// PHP may work on after the end of its answer (`fastcgi_finish_request`). Told that nothing more will come,
    /// it closes the connection when it is done: that, not the end of the answer, frees the slot.
    pub(super) fn give_back(self: &Arc<Self>, connection: Connection, condition: Condition) {
        let Connection { stream, slot, .. } = connection;
        if self.keepalive > 0 && condition == Condition::Clean {
            let Err((slot, stream)) = slot.hand_over(stream) else { return };
            let Err(idle) = self.shelve(Idle { stream, slot, since: Instant::now() }) else { return };
            return self.retire(Connection { stream: idle.stream, slot: idle.slot, reused: true });
        }
        self.retire(Connection { stream, slot, reused: true });
    }

    /// Ends a connection that serves no more requests, and frees its slot when PHP has closed its end.
    pub(super) fn retire(self: &Arc<Self>, connection: Connection) {
        connection.stream.finish_writing();
        drop(spawn_local(until_closed(Arc::clone(self), connection)));
    }

    /// Ends a connection whose answer nobody wants any more. (Unix sockets, with the request sent to its end.)
    ///
    /// PHP notices at its next write, and only then; until it has closed the connection it is busy.
    pub(super) fn break_off(self: &Arc<Self>, connection: Connection) {
        connection.stream.refuse_bytes();
        drop(spawn_local(until_drained(Arc::clone(self), connection)));
    }

    /// Closes a connection whose answer nobody wants any more, so that PHP's next write fails.
    ///
    /// What becomes of the process then cannot be seen from here.
    pub(super) async fn cut(&self, connection: Connection) {
        let Connection { stream, slot, .. } = connection;
        stream.reset_on_drop();
        drop(stream);
        sleep(AFTERMATH).await;
        drop(slot);
    }

    /// Waits for a PHP process that nobody else waits for; `None`: it took too long.
    pub(super) async fn last_wait<T>(&self, done: impl Future<Output = T>) -> Option<T> {
        let done = timeout(LAST_WAIT, done).await.ok();
        if done.is_none() {
            tracing::warn!(upstream = self.name, "a PHP process was busy {LAST_WAIT:?} after its request had ended");
        }
        done
    }

    /// Keeps an idle connection for this worker's next request, unless enough are kept.
    fn shelve(self: &Arc<Self>, idle: Idle) -> Result<(), Idle> {
        // Before the count: whoever reads the count rings the bells that are there.
        self.bells.get_or_default();
        let one_more = |shelved: usize| (shelved < self.keepalive).then_some(shelved + 1);
        if self.shelved.fetch_update(SeqCst, SeqCst, one_more).is_err() {
            return Err(idle);
        }
        let mut shelf = self.shelves.get_or_default().borrow_mut();
        shelf.idle.push(idle);
        if !std::mem::replace(&mut shelf.kept, true) {
            drop(spawn_local(keep(Arc::clone(self))));
        }
        drop(shelf);
        // Whoever joined the line before the count above rose has rung no bell here: see to it ourselves.
        if self.slots.waiting() > 0 {
            self.clear_shelf();
        }
        Ok(())
    }

    /// The youngest of this worker's idle connections.
    fn unshelve(&self) -> Option<Idle> {
        if self.shelved.load(SeqCst) == 0 {
            return None;
        }
        let idle = self.shelves.get()?.borrow_mut().idle.pop()?;
        self.shelved.fetch_sub(1, SeqCst);
        Some(idle)
    }

    /// Asks every worker to give its idle connections to those who wait.
    fn ring(&self) {
        if self.shelved.load(SeqCst) > 0 {
            self.bells.iter().for_each(Notify::notify_one);
        }
    }

    /// Gives this worker's idle connections away for as long as somebody waits.
    fn clear_shelf(&self) {
        while self.slots.waiting() > 0
            && let Some(idle) = self.unshelve()
        {
            // Nobody waits any more: dropped, it frees its slot; there is no hurry to keep it after all.
            drop(idle.slot.hand_over(idle.stream));
        }
    }

    /// Closes what has been idle for too long; says when to look again, or nothing when the shelf is empty.
    fn sweep_shelf(self: &Arc<Self>) -> Option<Instant> {
        let mut shelf = self.shelves.get_or_default().borrow_mut();
        let now = Instant::now();
        let stale = shelf.idle.iter().take_while(|idle| idle.since + IDLE <= now).count();
        self.shelved.fetch_sub(stale, SeqCst);
        let stale: Vec<Idle> = shelf.idle.drain(..stale).collect();
        let next = shelf.idle.first().map(|oldest| oldest.since + IDLE);
        shelf.kept = next.is_some();
        drop(shelf);
        for Idle { stream, slot, .. } in stale {
            self.retire(Connection { stream, slot, reused: true });
        }
        next
    }
}

/// Looks after one worker's shelf until it is empty.
async fn keep(pool: Arc<Pool>) {
    let bell = pool.bells.get_or_default();
    let mut look = Instant::now() + IDLE;
    loop {
        let rung = timeout_until(look, bell.notified()).await;
        if rung {
            pool.clear_shelf();
        } else {
            match pool.sweep_shelf() {
                Some(next) => look = next,
                None => return,
            }
        }
    }
}

async fn timeout_until(when: Instant, bell: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = bell => true,
        () = sleep_until(when) => false,
    }
}

/// Reads and forgets until PHP has closed the connection; then its slot is free.
///
/// There may be an answer to forget: that of a request whose body did not all go out. It may be endless.
async fn until_closed(pool: Arc<Pool>, mut connection: Connection) {
    let enough = Instant::now() + RUN_OUT;
    let mut scrap = BytesMut::new();
    let closed = poll_fn(|cx| {
        loop {
            scrap.clear();
            match ready!(connection.stream.poll_read(cx, &mut scrap)) {
                Ok(0) | Err(_) => return Poll::Ready(true),
                Ok(_) if Instant::now() >= enough => return Poll::Ready(false),
                Ok(_) => {}
            }
        }
    });
    match pool.last_wait(closed).await {
        Some(false) => pool.cut(connection).await,
        Some(true) | None => drop(connection),
    }
}

/// Waits until PHP has noticed that its bytes are refused.
///
/// Its write fails then, it ends the script and reads what is left of the request until *our* end of the
/// connection comes: it waits for us as we for it. So some harmless bytes (empty STDIN) are left for it that
/// nothing but this last reading takes. Gone from the send buffer, they tell that PHP is done.
async fn until_drained(pool: Arc<Pool>, connection: Connection) {
    let stream = &connection.stream;
    let drained = async {
        stream.shrink_send_buffer();
        let (mut pause, longest) = LOOK_AGAIN;
        let mut stuffed = false;
        loop {
            let seen = stream.look();
            if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
                return;
            }
            if seen.contains(PollFlags::OUT) {
                // Writable for the first time, it may only have read the request.
                if stuffed {
                    return;
                }
                match stream.stuff(STUFFING.as_flattened()) {
                    Ok(_) => stuffed = true,
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => return,
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    };
    pool.last_wait(drained).await;
    drop(connection);
}

/// How long a request waits for its connection.
#[derive(Clone, Copy)]
struct Patience {
    /// The upstream's `queue`.
    queue_ends: Instant,
    /// The route's `timeout`.
    deadline: Instant,
}

impl Patience {
    fn earliest(&self) -> Instant {
        self.queue_ends.min(self.deadline)
    }

    fn too_late(&self, began: Instant) -> Error {
        Error::QueueTimeout { waited: began.elapsed() }
    }
}

/// The next pause of a doubling row up to 50 ms, spread so that those who failed together do not come back together.
fn jittered(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(Duration::from_millis(50));
    now.mul_f64(0.75 + 0.5 * fastrand::f64())
}
