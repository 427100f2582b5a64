//! What the two sides cost, and how soon a PHP-FPM pool is full.
//!
//! The control plane keeps this going for as long as the gateway runs: four times a second it looks how many
//! processes of each pool are wanted, every ten seconds it ends the slice of time and reads what CPU and memory
//! pools and handlers took. What a pool or a handler took is shared by the routes that it serves, in proportion
//! to the time it was at work for each. A pool on another machine and an HTTP service cost what nobody here can see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::route::{LiveTable, Place, RouteTable};
use crate::telemetry::{self, Courtesy, FORECAST_MINUTES, RouteStats, SLICE, Side, Telemetry};
use crate::upstream::Target;
use crate::upstream::fastcgi::Php;
use crate::upstream::fastcgi::local::{Cost, Processes};

/// How often it is looked at how many processes are wanted.
const LOOK: Duration = Duration::from_millis(250);
/// How many slices make a minute of the forecast.
const MINUTE: usize = 6;

/// What is known now, shared by who keeps it and who shows it.
#[derive(Debug, Default)]
pub(crate) struct Costs(Mutex<Known>);

/// The state of costs at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// By the name of the upstream or handler; those of which nothing can be said are absent.
    pub(super) places: BTreeMap<String, PlaceCost>,
    pub(super) legacy: SideCost,
    pub(super) new: SideCost,
}

/// What a pool or a handler took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PlaceCost {
    /// Since the gateway first looked; `None`: it cannot be said.
    pub(super) cpu: Option<Duration>,
    pub(super) memory: Option<u64>,
    /// Of a pool that fills at the present trend: how long until it is full.
    pub(super) full_in: Option<Duration>,
}

/// What a side took; `None`: it cannot be said of any of its places.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SideCost {
    pub(super) cpu: Option<Duration>,
    /// Of pools, and of the gateway's own process where handlers serve.
    pub(super) memory: Option<u64>,
}

impl Known {
    fn side_mut(&mut self, side: Side) -> Option<&mut SideCost> {
        match side {
            Side::Legacy => Some(&mut self.legacy),
            Side::New => Some(&mut self.new),
            Side::Gateway => None,
        }
    }
}

impl Costs {
    /// What is known now.
    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps costs, and the windows of the comparison, up to date until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>, table: Arc<LiveTable>, telemetry: Arc<Telemetry>) {
        let mut watch = Watch::default();
        let mut looking = interval(LOOK);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slice_ends = Instant::now() + SLICE;
        loop {
            looking.tick().await;
            let table = table.current();
            watch.look(&table);
            let now = Instant::now();
            if now >= slice_ends {
                slice_ends = (slice_ends + SLICE).max(now);
                telemetry.tick(now).await;
                let mut known = self.known();
                watch.end_slice(&table, now, &mut known).await;
                *self.lock() = known;
            }
        }
    }
}

/// What was seen so far of the places of the table, by their names.
#[derive(Debug, Default)]
struct Watch(BTreeMap<String, Watched>);

#[derive(Debug, Default)]
struct Watched {
    processes: Option<Processes>,
    /// CPU time that was read last, and how much of it no route was charged with yet.
    read: Duration,
    uncharged: Duration,
    demand: Demand,
}

/// How many processes of a pool were wanted.
#[derive(Debug, Default)]
struct Demand {
    /// In the slice that runs: the sum of all looks, and how many they were.
    sum: usize,
    looks: usize,
    /// One mean a slice, of the minute that runs.
    slices: Vec<f64>,
    minutes: VecDeque<f64>,
}

impl Demand {
    /// Ends the slice, in which requests were served for `worked` in sum.
    ///
    /// By Little's law that is what the pool was wanted for as well. The looks see what holds a process longer than
    /// its first byte, or waits for one; the sum sees what came and went between two looks.
    fn end_slice(&mut self, worked: Duration) {
        let seen = self.sum as f64 / self.looks.max(1) as f64;
        self.slices.push(seen.max(worked.as_secs_f64() / SLICE.as_secs_f64()));
        (self.sum, self.looks) = (0, 0);
        if self.slices.len() >= MINUTE {
            let mean = self.slices.iter().sum::<f64>() / self.slices.len() as f64;
            self.slices.clear();
            self.minutes.push_back(mean);
            if self.minutes.len() > FORECAST_MINUTES {
                self.minutes.pop_front();
            }
        }
    }

    fn full_in(&mut self, slots: usize) -> Option<Duration> {
        telemetry::until_full(self.minutes.make_contiguous(), slots as f64)
    }
}

/// A place of the table and the routes that it serves, each with how long it was at work for it in the last slice.
struct Serving<'t> {
    place: &'t Place,
    routes: Vec<(&'t RouteStats, Side, Duration)>,
}

impl Serving<'_> {
    fn worked(&self) -> Duration {
        self.routes.iter().map(|(_, _, worked)| *worked).sum()
    }

    fn serves(&self, side: Side) -> bool {
        self.routes.iter().any(|(_, of, _)| *of == side)
    }
}

async fn served<'t>(table: &'t RouteTable, now: Instant, courtesy: &mut Courtesy) -> BTreeMap<&'t str, Serving<'t>> {
    let mut served: BTreeMap<&str, Serving<'_>> = BTreeMap::new();
    for route in &table.routes {
        for (side, place) in [(Side::Legacy, route.legacy()), (Side::New, route.new_side())] {
            let Some(place) = place else { continue };
            let serving = served.entry(place.target.name()).or_insert_with(|| Serving { place, routes: Vec::new() });
            serving.routes.push((&route.stats, side, route.stats.worked(side, now)));
        }
        courtesy.offer().await;
    }
    served
}

impl Watch {
    fn look(&mut self, table: &RouteTable) {
        for target in table.targets() {
            let Target::Php(php) = target else { continue };
            match self.0.get_mut(php.name()) {
                Some(watched) => watched.look(php),
                None => self.0.entry(php.name().to_owned()).or_default().look(php),
            }
        }
    }

    /// Reads what was spent in the slice that was closed at `now`, and shares it out.
    async fn end_slice(&mut self, table: &RouteTable, now: Instant, known: &mut Known) {
        let mut courtesy = Courtesy::new();
        let served = served(table, now, &mut courtesy).await;
        self.0.retain(|name, _| served.contains_key(&**name));
        known.places.clear();
        (known.legacy.memory, known.new.memory) = (None, None);
        let own = telemetry::resident_bytes();
        for (name, serving) in &served {
            let watched = self.0.entry((*name).to_owned()).or_default();
            let cost = watched.end_slice(serving);
            if let Some(cpu) = cost.cpu {
                watched.charge(cpu, serving, known, &mut courtesy).await;
            }
            let handler = matches!(serving.place.target, Target::Handler(_));
            for side in [Side::Legacy, Side::New].into_iter().filter(|side| serving.serves(*side)) {
                let Some(side) = known.side_mut(side) else { continue };
                side.memory = match (cost.memory, handler.then_some(own).flatten()) {
                    (Some(pool), _) => Some(side.memory.unwrap_or(0) + pool),
                    // However many handlers there are, the process is one.
                    (None, Some(own)) => Some(side.memory.unwrap_or(0).max(own)),
                    (None, None) => side.memory,
                };
            }
            known.places.insert((*name).to_owned(), cost);
        }
    }
}

impl Watched {
    fn look(&mut self, php: &Php) {
        self.demand.sum += php.connections().in_use + php.waiting();
        self.demand.looks += 1;
        // What processes spend counts from when they are first looked at: not only at the end of the first slice. Once,
        // since looking for them is a connection to the pool.
        if self.processes.is_none() {
            self.cost(php);
        }
    }

    fn cost(&mut self, php: &Php) -> Option<Cost> {
        let address = &php.settings().address;
        if !self.processes.as_ref().is_some_and(|processes| processes.is_of(address)) {
            (self.processes, self.read) = (Processes::of(address), Duration::ZERO);
        }
        self.processes.as_mut().and_then(Processes::look)
    }

    fn end_slice(&mut self, serving: &Serving<'_>) -> PlaceCost {
        match &serving.place.target {
            Target::Php(php) => {
                self.demand.end_slice(serving.worked());
                let cost = self.cost(php);
                let full_in = self.demand.full_in(php.settings().connections);
                PlaceCost { cpu: cost.map(|cost| cost.cpu), memory: cost.map(|cost| cost.memory), full_in }
            }
            Target::Handler(handler) => PlaceCost { cpu: Some(handler.busy()), ..PlaceCost::default() },
            Target::Http(_) => PlaceCost::default(),
        }
    }

    /// Shares what was spent since the last slice among the routes. What was spent while none was answered is
    /// shared with the next ones: it was spent for a request that is not over yet.
    async fn charge(&mut self, cpu: Duration, serving: &Serving<'_>, known: &mut Known, courtesy: &mut Courtesy) {
        self.uncharged += cpu.saturating_sub(self.read);
        self.read = cpu;
        let worked = serving.worked().as_secs_f64();
        for (route, side, of) in &serving.routes {
            let share = if worked > 0.0 { self.uncharged.mul_f64(of.as_secs_f64() / worked) } else { Duration::ZERO };
            route.charge(*side, share);
            if let Some(side) = known.side_mut(*side) {
                side.cpu = Some(side.cpu.unwrap_or_default() + share);
            }
            courtesy.offer().await;
        }
        if worked > 0.0 {
            self.uncharged = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;
    use crate::telemetry::{Latency, Window};

    #[tokio::test]
    async fn what_a_place_took_is_shared_by_its_routes_as_it_worked_for_them() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let (start, other) = (Instant::now(), RouteStats::new("other", 1, Instant::now()));
        let order = &table.routes[0].stats;
        let (mut watched, mut known) = (Watched::default(), Known::default());
        let mut charge = async |seconds, slice| {
            let now = start + SLICE * slice;
            order.tick(now);
            other.tick(now);
            let routes = [&**order, &other].map(|stats| (stats, Side::Legacy, stats.worked(Side::Legacy, now)));
            let serving = Serving { place: table.routes[0].legacy().unwrap(), routes: routes.to_vec() };
            watched.charge(Duration::from_secs(seconds), &serving, &mut known, &mut Courtesy::new()).await;
            known.legacy.cpu
        };
        // Nobody was answered: the request that it was spent for is still being served.
        assert_eq!(charge(4, 1).await, Some(Duration::ZERO));
        order.serve_for_tests(Side::Legacy, Duration::from_millis(300));
        other.serve_for_tests(Side::Legacy, Duration::from_millis(100));
        assert_eq!(charge(8, 2).await, Some(Duration::from_secs(8)));
        let cpu = |stats: &RouteStats| {
            stats.figures(Side::Legacy, Window::Hour, Latency::Total, start + SLICE * 2).unwrap().cpu.unwrap().time
        };
        assert_eq!((cpu(order), cpu(&other)), (Duration::from_secs(6), Duration::from_secs(2)));
    }

    #[test]
    fn demand_is_what_is_seen_or_what_was_served_whichever_is_more() {
        let mut demand = Demand::default();
        for minute in 1..=60 {
            for _ in 0..MINUTE {
                (demand.sum, demand.looks) = (40 * 2, 40);
                demand.end_slice(SLICE * minute / 4);
            }
        }
        assert_eq!((demand.minutes.len(), demand.minutes.back()), (FORECAST_MINUTES, Some(&15.0)));
        let full_in = demand.full_in(20).unwrap().as_secs();
        assert!((19 * 60..=21 * 60).contains(&full_in), "{full_in}");
        assert_eq!(Demand::default().full_in(20), None);
    }

    #[tokio::test]
    async fn handlers_cost_what_their_code_took_and_the_memory_of_the_process_they_live_in() {
        let admin = Admin::for_test();
        let mut known = Known::default();
        Watch::default().end_slice(&admin.table.current(), Instant::now(), &mut known).await;
        assert_eq!(known.places.keys().collect::<Vec<_>>(), ["orders", "php"]);
        assert_eq!(known.new.cpu, Some(Duration::ZERO));
        assert!(known.new.memory.is_some_and(|bytes| bytes > 1 << 20));
    }
}
