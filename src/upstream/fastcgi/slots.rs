//! The bound on connections to one PHP-FPM pool, for the whole gateway: all workers share it.
//!
//! A [`Slot`] stands for one PHP process. Whoever holds one may have a connection; dropping it lets
//! the next in line have it. The line is first come, first served, of bounded length and patience,
//! and a place in it vanishes with the future that waits. With a slot may come what its holder had
//! made (`T`: a kept connection). While a slot is free taking one is a single atomic exchange; the
//! lock is touched only when there is a line. This file knows nothing of connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// The right to one PHP process.
#[derive(Debug)]
pub(super) struct Slot<T> {
    slots: Arc<Slots<T>>,
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.slots.free.fetch_add(1, SeqCst);
        // Whoever joins the line looks at `free` after having joined; whoever frees looks at the line after
        // having freed. So one of the two sees the other, in whatever order they come.
        if self.slots.waiting() > 0 {
            Slots::serve_line(&self.slots);
        }
    }
}

/// A slot, and what came with it.
pub(super) type Granted<T> = (Slot<T>, Option<T>);

/// All slots of one pool.
#[derive(Debug)]
pub(super) struct Slots<T> {
    total: usize,
    longest_line: usize,
    free: AtomicUsize,
    /// The line's length, to be read without the lock.
    waiting: AtomicUsize,
    line: Mutex<Line<T>>,
}

#[derive(Debug)]
struct Line<T> {
    next_ticket: u64,
    waiters: VecDeque<(u64, oneshot::Sender<Granted<T>>)>,
}

/// Why there was no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// The line was full.
    LineFull,
    /// It took too long.
    TooLate,
}

impl<T> Slots<T> {
    pub(super) fn new(total: usize, longest_line: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            longest_line,
            free: AtomicUsize::new(total),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(Line { next_ticket: 0, waiters: VecDeque::new() }),
        })
    }

    /// Slots that somebody holds.
    pub(super) fn held(&self) -> usize {
        self.total.saturating_sub(self.free.load(SeqCst))
    }

    /// Requests that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Takes a slot if one is free and nobody waits for it.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot<T>> {
        if self.waiting() > 0 {
            return None;
        }
        self.take_one().then(|| Slot { slots: Arc::clone(self) })
    }

    fn take_one(&self) -> bool {
        self.free.fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1)).is_ok()
    }

    /// Joins the line and waits. `joined` runs once in it: the moment to ask others to give up what they keep.
    pub(super) async fn wait(self: &Arc<Self>, deadline: Instant, joined: impl FnOnce()) -> Result<Granted<T>, NoSlot> {
        let (mut place, mut granted) = self.join()?;
        Self::serve_line(self);
        joined();
        match timeout_at(deadline, &mut granted).await {
            Ok(Ok(granted)) => {
                place.ticket = None;
                Ok(granted)
            }
            // The line is dropped only with the slots, which we hold: the sender cannot vanish. Treated as too late.
            Ok(Err(_)) | Err(_) => Err(NoSlot::TooLate),
        }
    }

    fn join(self: &Arc<Self>) -> Result<(Place<'_, T>, oneshot::Receiver<Granted<T>>), NoSlot> {
        let (sender, receiver) = oneshot::channel();
        let mut line = self.line();
        if line.waiters.len() >= self.longest_line {
            return Err(NoSlot::LineFull);
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiters.push_back((ticket, sender));
        self.waiting.store(line.waiters.len(), SeqCst);
        Ok((Place { slots: self, ticket: Some(ticket) }, receiver))
    }

    /// Gives free slots to those who wait.
    fn serve_line(this: &Arc<Self>) {
        while this.waiting() > 0 && this.take_one() {
            let Some(sender) = this.first_in_line() else {
                this.free.fetch_add(1, SeqCst);
                continue;
            };
            // Sent with the lock released: when its waiter has just left, the slot comes back and takes the lock.
            drop(sender.send((Slot { slots: Arc::clone(this) }, None)));
        }
    }

    fn first_in_line(&self) -> Option<oneshot::Sender<Granted<T>>> {
        let mut line = self.line();
        let (_, sender) = line.waiters.pop_front()?;
        self.waiting.store(line.waiters.len(), SeqCst);
        Some(sender)
    }

    fn line(&self) -> MutexGuard<'_, Line<T>> {
        // Nothing panics while it is held; and a line is a line even then.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    /// Gives the slot, with what was made in it, to the first in line; both come back when nobody waits.
    pub(super) fn hand_over(mut self, mut made: T) -> Result<(), (Self, T)> {
        while self.slots.waiting() > 0 {
            let Some(sender) = self.slots.first_in_line() else { break };
            match sender.send((self, Some(made))) {
                Err((slot, Some(back))) => (self, made) = (slot, back),
                // What is sent is what comes back: there is no third case.
                Ok(()) | Err((_, None)) => return Ok(()),
            }
        }
        Err((self, made))
    }
}

/// A place in the line; dropped before a slot came, it is given up.
struct Place<'s, T> {
    slots: &'s Arc<Slots<T>>,
    ticket: Option<u64>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut line = self.slots.line();
        line.waiters.retain(|(other, _)| *other != ticket);
        self.slots.waiting.store(line.waiters.len(), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Polls `future` once.
    async fn once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn the_line_is_first_come_first_served() {
        let slots = Slots::<u8>::new(1, 8);
        let held = slots.try_take().unwrap();
        let mut first = Box::pin(slots.wait(soon(), || {}));
        let mut second = Box::pin(slots.wait(soon(), || {}));
        assert!(once(&mut first).await.is_pending() && once(&mut second).await.is_pending());
        assert_eq!(slots.waiting(), 2);
        drop(held);
        assert!(slots.try_take().is_none(), "nobody overtakes the line");
        assert!(once(&mut second).await.is_pending());
        let Poll::Ready(Ok((slot, None))) = once(&mut first).await else { panic!("the first has it") };
        slot.hand_over(7).unwrap();
        let Poll::Ready(Ok((slot, Some(7)))) = once(&mut second).await else { panic!("the second has it, and more") };
        assert!(slot.hand_over(8).is_err(), "nobody waits");
        assert_eq!((slots.held(), slots.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_line_frees_its_place() {
        let slots = Slots::<u8>::new(1, 1);
        let held = slots.try_take().unwrap();
        let mut first = Box::pin(slots.wait(soon(), || {}));
        assert!(once(&mut first).await.is_pending());
        assert_eq!(slots.wait(soon(), || {}).await.unwrap_err(), NoSlot::LineFull);
        drop(first);
        assert_eq!(slots.waiting(), 0);
        let mut granted = Box::pin(slots.wait(soon(), || {}));
        assert!(once(&mut granted).await.is_pending());
        drop(held);
        drop(granted);
        assert_eq!(slots.held(), 0, "a slot given to someone who left comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let slots = Slots::<u8>::new(0, 1);
        assert_eq!(slots.wait(soon(), || {}).await.unwrap_err(), NoSlot::TooLate);
        assert_eq!(slots.waiting(), 0);
    }

    #[test]
    fn threads_never_hold_more_slots_than_there_are_and_lose_none() {
        let slots = Slots::<u8>::new(3, 64);
        let most = AtomicUsize::new(0);
        let now = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(async {
                        let tasks = (0..8).map(|_| async {
                            for round in 0..50 {
                                let slot = match slots.try_take() {
                                    Some(slot) => slot,
                                    None => slots.wait(soon(), || {}).await.unwrap().0,
                                };
                                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                                tokio::task::yield_now().await;
                                now.fetch_sub(1, SeqCst);
                                if round % 3 > 0 {
                                    drop(slot.hand_over(1));
                                }
                            }
                        });
                        futures_util::future::join_all(tasks).await;
                    });
                });
            }
        });
        assert_eq!((slots.held(), slots.waiting()), (0, 0));
        assert!(most.load(SeqCst) <= 3);
    }

    proptest! {
        #[test]
        fn whatever_is_done_slots_are_neither_lost_nor_made(steps in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let slots = Slots::<u8>::new(3, 4);
                let (mut held, mut waiting) = (Vec::new(), Vec::new());
                for (step, which) in steps {
                    match step {
                        0 => held.extend(slots.try_take()),
                        1 => {
                            let mut wait = Box::pin(slots.wait(soon(), || {}));
                            match once(&mut wait).await {
                                Poll::Ready(granted) => held.extend(granted.map(|granted| granted.0)),
                                Poll::Pending => waiting.push(wait),
                            }
                        }
                        2 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                        3 if !held.is_empty() => {
                            let slot = held.swap_remove(which.index(held.len()));
                            held.extend(slot.hand_over(0).err().map(|back| back.0));
                        }
                        4 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
                        _ => {}
                    }
                    let mut still = Vec::new();
                    for mut wait in waiting {
                        match once(&mut wait).await {
                            Poll::Ready(granted) => held.push(granted.unwrap().0),
                            Poll::Pending => still.push(wait),
                        }
                    }
                    waiting = still;
                    assert_eq!((slots.held(), slots.waiting()), (held.len(), waiting.len()));
                    assert!(held.len() <= 3 && (waiting.is_empty() || held.len() == 3));
                }
                drop((held, waiting));
                assert_eq!((slots.held(), slots.waiting()), (0, 0));
            });
        }
    }
}
