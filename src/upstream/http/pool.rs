//! What a worker keeps of a service: its idle connections, its load, and which servers are down.
//!
//! Every worker has its own part, reached without a lock, inside the one `Pool` of the service;
//! so idle connections live as long as the service does, however often the route table changes.
//! Which server is down each worker finds out from its own requests. This file never connects and
//! never looks into a request.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use thread_local::ThreadLocal;
use tokio::time::Instant;

use super::connection::Connection;

/// Idle connections kept per worker and server. Enough that a burst answered at once does not close
/// what the next burst needs; an idle connection holds about 10 KiB.
const IDLE_MAX: usize = 256;
/// Failures in a row after which a server is taken out.
const FAILURES_MAX: u32 = 3;
/// How long a server is taken out at first; each failed probe doubles it up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often idle connections are looked at: one that the server closed lies around no longer.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of one service, over all workers.
pub(super) struct Pool {
    servers: usize,
    idle: Duration,
    own: ThreadLocal<RefCell<Own>>,
    gauges: ThreadLocal<Gauges>,
}

/// How many connections one worker has. Written by that worker alone, read by whoever asks.
#[derive(Default)]
struct Gauges {
    in_use: AtomicUsize,
    idle: AtomicUsize,
}

/// What one worker has of it.
struct Own {
    places: Vec<Place>,
    sweeping: bool,
}

/// One server as one worker sees it.
struct Place {
    idle: Vec<Idle>,
    in_flight: usize,
    standing: Standing,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Whether a server is sent requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    In {
        failures: u32,
    },
    /// Taken out until then; afterwards one request probes it.
    Out {
        until: Instant,
        pause: Duration,
        probed: bool,
    },
}

impl Pool {
    pub(super) fn new(servers: usize, idle: Duration) -> Arc<Self> {
        Arc::new(Self { servers, idle, own: ThreadLocal::new(), gauges: ThreadLocal::new() })
    }

    /// Chooses the server for a request, none of `tried`, and notes the request as its load.
    pub(super) fn choose(&self, tried: &[usize], now: Instant) -> Option<InFlight<&Self>> {
        let server = self.with_own(|own| {
            let server = own.choose(tried, now)?;
            let place = own.places.get_mut(server)?;
            place.in_flight += 1;
            place.standing.chosen(now);
            Some(server)
        })?;
        add(&self.gauges().in_use, 1);
        Some(InFlight { pool: self, server })
    }

    /// Takes the connection to `server` that was used last, if it is not too old.
    pub(super) fn take(&self, server: usize, now: Instant) -> Option<Box<Connection>> {
        let (taken, gone) = self.with_own(|own| {
            let idle = &mut own.places.get_mut(server)?.idle;
            let last = idle.pop()?;
            if now.saturating_duration_since(last.since) < self.idle {
                return Some((Some(last.connection), 1));
            }
            // Those below it have been idle for longer still.
            let gone = 1 + idle.len();
            idle.clear();
            Some((None, gone))
        })?;
        sub(&self.gauges().idle, gone);
        taken
    }

    /// Keeps a connection for the next request from `now` on; one that cannot take a request is closed.
    pub(super) fn put(self: &Arc<Self>, server: usize, mut connection: Box<Connection>, now: Instant) {
        connection.rest();
        if self.idle.is_zero() || !connection.is_ready() {
            return;
        }
        let kept = self.with_own(|own| {
            let place = own.places.get_mut(server)?;
            if place.idle.len() >= IDLE_MAX {
                return None;
            }
            place.idle.push(Idle { connection, since: now });
            Some(std::mem::replace(&mut own.sweeping, true))
        });
        if let Some(sweeping) = kept {
            add(&self.gauges().idle, 1);
            if !sweeping {
                tokio::task::spawn_local(sweep(Sweeping(Arc::downgrade(self)), self.idle));
            }
        }
    }

    /// Notes that `server` gave an answer, or that it failed to.
    pub(super) fn settle(&self, server: usize, answered: bool, now: Instant) {
        self.with_own(|own| {
            let Some(place) = own.places.get_mut(server) else { return };
            place.standing = if answered { Standing::In { failures: 0 } } else { place.standing.failed(now) };
        });
    }

    /// How many connections there are over all workers: those with a request on them, those without.
    pub(super) fn connections(&self) -> (usize, usize) {
        self.gauges.iter().fold((0, 0), |(in_use, idle), gauges| {
            (in_use + gauges.in_use.load(Ordering::Relaxed), idle + gauges.idle.load(Ordering::Relaxed))
        })
    }

    fn gauges(&self) -> &Gauges {
        self.gauges.get_or_default()
    }

    // Nothing that is called inside comes back here: connections are neither driven nor dropped
    // with a request on them while the worker's part is borrowed.
    fn with_own<T>(&self, work: impl FnOnce(&mut Own) -> T) -> T {
        work(&mut self.own.get_or(|| RefCell::new(Own::new(self.servers))).borrow_mut())
    }

    /// Closes idle connections that are too old or that the server has closed; says whether any are left.
    fn sweep(&self, now: Instant) -> bool {
        let (left, gone) = self.with_own(|own| {
            let before: usize = own.idle();
            for place in &mut own.places {
                place.idle.retain_mut(|idle| {
                    idle.connection.go_on();
                    idle.connection.is_ready() && now.saturating_duration_since(idle.since) < self.idle
                });
            }
            (own.idle(), before - own.idle())
        });
        sub(&self.gauges().idle, gone);
        left > 0
    }
}

impl Own {
    fn new(servers: usize) -> Self {
        let place = || Place { idle: Vec::new(), in_flight: 0, standing: Standing::In { failures: 0 } };
        Self { places: std::iter::repeat_with(place).take(servers).collect(), sweeping: false }
    }

    fn idle(&self) -> usize {
        self.places.iter().map(|place| place.idle.len()).sum()
    }

    /// Of two servers at random the one with fewer requests. When all are out, all are in: a request
    /// that may fail is better than one that is refused for certain.
    fn choose(&self, tried: &[usize], now: Instant) -> Option<usize> {
        let untried = || self.places.iter().enumerate().filter(|(server, _)| !tried.contains(server));
        let fit = || untried().filter(|(_, place)| place.standing.accepts(now));
        match (fit().count(), untried().count()) {
            (0, 0) => None,
            (0, 1) => untried().next().map(|(server, _)| server),
            (0, count) => less_loaded(untried, count),
            (1, _) => fit().next().map(|(server, _)| server),
            (count, _) => less_loaded(fit, count),
        }
    }
}

fn less_loaded<'p, I: Iterator<Item = (usize, &'p Place)>>(places: impl Fn() -> I, count: usize) -> Option<usize> {
    let first = fastrand::usize(..count);
    let second = (first + fastrand::usize(1..count)) % count;
    let (first, second) = (places().nth(first)?, places().nth(second)?);
    Some(if second.1.in_flight < first.1.in_flight { second.0 } else { first.0 })
}

impl Standing {
    fn accepts(self, now: Instant) -> bool {
        match self {
            Self::In { .. } => true,
            Self::Out { until, .. } => until <= now,
        }
    }

    /// The request for which a server is chosen after its pause is the probe: no second one until
    /// it is settled, or has taken a whole pause.
    fn chosen(&mut self, now: Instant) {
        if let Self::Out { until, pause, probed } = self
            && *until <= now
        {
            (*until, *probed) = (now + *pause, true);
        }
    }

    fn failed(self, now: Instant) -> Self {
        match self {
            Self::In { failures } if failures + 1 < FAILURES_MAX => Self::In { failures: failures + 1 },
            Self::In { .. } => Self::Out { until: now + PAUSE_FIRST, pause: PAUSE_FIRST, probed: false },
            Self::Out { pause, probed: true, .. } => {
                let pause = (pause * 2).min(PAUSE_MAX);
                Self::Out { until: now + pause, pause, probed: false }
            }
            // Sent there only because every server is out: no news.
            Self::Out { .. } => self,
        }
    }
}

/// A request at a server, counted as its load until dropped.
pub(super) struct InFlight<P: Borrow<Pool>> {
    pool: P,
    pub(super) server: usize,
}

impl InFlight<&Pool> {
    /// The same for a reply that outlives its call.
    pub(super) fn keep(self, pool: &Arc<Pool>) -> InFlight<Arc<Pool>> {
        let kept = InFlight { pool: Arc::clone(pool), server: self.server };
        // It goes on being counted, by the one that was made from it.
        std::mem::forget(self);
        kept
    }
}

impl InFlight<Arc<Pool>> {
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl<P: Borrow<Pool>> Drop for InFlight<P> {
    fn drop(&mut self) {
        let pool: &Pool = self.pool.borrow();
        pool.with_own(|own| {
            if let Some(place) = own.places.get_mut(self.server) {
                place.in_flight = place.in_flight.saturating_sub(1);
            }
        });
        sub(&pool.gauges().in_use, 1);
    }
}

/// The sweeping of one worker's idle connections; when it ends, however it does, the next may begin.
struct Sweeping(Weak<Pool>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.with_own(|own| own.sweeping = false);
        }
    }
}

async fn sweep(sweeping: Sweeping, idle: Duration) {
    let pause = SWEEP.min(idle);
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = sweeping.0.upgrade() else { return };
        if !pool.sweep(Instant::now()) {
            return;
        }
    }
}

// One writer each: a plain load and store, no locked instruction.
fn add(gauge: &AtomicUsize, by: usize) {
    gauge.store(gauge.load(Ordering::Relaxed).saturating_add(by), Ordering::Relaxed);
}

fn sub(gauge: &AtomicUsize, by: usize) {
    gauge.store(gauge.load(Ordering::Relaxed).saturating_sub(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(pool: &Pool, server: usize, times: usize, now: Instant) {
        (0..times).for_each(|_| pool.settle(server, false, now));
    }

    fn chosen(pool: &Pool, now: Instant) -> Vec<usize> {
        let mut chosen: Vec<_> = (0..60).filter_map(|_| pool.choose(&[], now)).map(|place| place.server).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    #[test]
    fn the_less_loaded_of_two_servers_is_chosen() {
        let (pool, now) = (Pool::new(2, SECOND), Instant::now());
        let first = pool.choose(&[], now).unwrap();
        let second = pool.choose(&[], now).unwrap();
        assert_ne!(first.server, second.server);
        let server = first.server;
        drop(first);
        assert_eq!(pool.choose(&[], now).unwrap().server, server);
        assert_eq!(pool.connections(), (1, 0));
    }

    #[test]
    fn a_server_that_fails_three_times_in_a_row_is_taken_out() {
        let (pool, now) = (Pool::new(3, SECOND), Instant::now());
        fail(&pool, 1, 2, now);
        pool.settle(1, true, now);
        fail(&pool, 1, 2, now);
        assert_eq!(chosen(&pool, now), [0, 1, 2]);
        fail(&pool, 1, 1, now);
        assert_eq!(chosen(&pool, now), [0, 2]);
    }

    #[test]
    fn one_probe_decides_whether_a_server_comes_back() {
        let (pool, mut now) = (Pool::new(2, SECOND), Instant::now());
        fail(&pool, 0, 3, now);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            now += SECOND * pause;
            let before = now - Duration::from_millis(1);
            assert_eq!(chosen(&pool, before), [1], "still out after {pause} s less a moment");
            let probes = (0..60).filter(|_| pool.choose(&[], now).is_some_and(|place| place.server == 0)).count();
            assert_eq!(probes, 1);
            fail(&pool, 0, 1, now);
        }
        now += SECOND * 30;
        assert_eq!(chosen(&pool, now), [0, 1]);
        pool.settle(0, true, now);
        assert_eq!(chosen(&pool, now), [0, 1]);
    }

    #[test]
    fn when_all_servers_are_out_all_are_asked() {
        let (pool, now) = (Pool::new(2, SECOND), Instant::now());
        fail(&pool, 0, 9, now);
        fail(&pool, 1, 9, now);
        assert_eq!(chosen(&pool, now), [0, 1]);
        fail(&pool, 0, 9, now);
        assert!(chosen(&pool, now + SECOND).contains(&0), "asked in vain while out is no failed probe");
    }

    #[test]
    fn a_server_that_was_tried_is_not_chosen_again() {
        let (pool, now) = (Pool::new(2, SECOND), Instant::now());
        assert_eq!(pool.choose(&[0], now).unwrap().server, 1);
        assert!(pool.choose(&[0, 1], now).is_none());
        assert!(Pool::new(0, SECOND).choose(&[], now).is_none());
    }
}
