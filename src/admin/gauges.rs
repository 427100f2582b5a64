//! The gauges that telemetry does not know itself: read from the table in force and its upstreams.

use std::collections::BTreeMap;

use super::costs::{Known, SideCost};
use super::reload::Reloads;
use crate::check::store::Outcome;
use crate::check::{Check, Kind, Session};
use crate::route::RouteTable;
use crate::telemetry::{CheckGauge, Gauges, HandlerGauge, KeyGauge, RouteGauge, Side, SideGauge, UpstreamGauge};
use crate::upstream::Target;
use crate::upstream::fastcgi::Connections;

/// What the table, its upstreams, the reloads and the costs are like now. An upstream that no route uses has
/// no connections and is not told of.
pub(super) fn of(table: &RouteTable, reloads: &Reloads, costs: &Known) -> Gauges {
    let side = |side: Side, cost: &SideCost| SideGauge {
        side: side.word(),
        cpu_seconds: cost.cpu.map(|cpu| cpu.as_secs_f64()),
        memory_bytes: cost.memory,
    };
    let mut gauges = Gauges {
        generation: table.generation,
        reloads_accepted: reloads.accepted,
        reloads_rejected: reloads.rejected,
        file_rejected: reloads.last_rejected.is_some(),
        routes: table
            .routes
            .iter()
            .map(|route| RouteGauge { name: (*route.name).to_owned(), serve: route.serve.word() })
            .collect(),
        checks: checks(table),
        sides: vec![side(Side::Legacy, &costs.legacy), side(Side::New, &costs.new)],
        ..Gauges::default()
    };
    for (name, target) in places(table) {
        let full_in = costs.places.get(name).and_then(|cost| cost.full_in);
        let name = name.to_owned();
        match (connections(target), target) {
            (Some(Used { in_use, idle, waiting }), _) => {
                let saturation_seconds = full_in.map(|until| until.as_secs_f64());
                gauges.upstreams.push(UpstreamGauge { name, in_use, idle, waiting, saturation_seconds });
            }
            (None, Target::Handler(handler)) => {
                gauges.handlers.push(HandlerGauge { name, stalls: handler.stalls() });
            }
            (None, _) => {}
        }
    }
    gauges.keys = keys(table);
    gauges
}

/// The checks that have a store, each once.
fn checks(table: &RouteTable) -> Vec<CheckGauge> {
    let gauge = |(name, check): (&str, &Check)| {
        let (store, session) = (check.store()?, check.session());
        let totals = store.totals();
        let nanoseconds = std::time::Duration::from_nanos(totals.nanoseconds);
        Some(CheckGauge {
            name: name.to_owned(),
            store_up: store.is_up(),
            operations: Outcome::ALL.map(Outcome::word).into_iter().zip(totals.operations).collect(),
            seconds: nanoseconds.as_secs_f64(),
            cache: session.map(Session::cache_totals),
        })
    };
    by_name(table).into_iter().filter_map(gauge).collect()
}

/// How often each key of each check was used.
fn keys(table: &RouteTable) -> Vec<KeyGauge> {
    let mut keys = Vec::new();
    for (name, check) in by_name(table) {
        let Kind::Signature(signature) = check.kind() else { continue };
        let used = |(key, used): (&str, u64)| KeyGauge { check: name.to_owned(), key: key.to_owned(), used };
        keys.extend(signature.uses().map(used));
    }
    keys
}

/// Every check of the table once, by its name.
fn by_name(table: &RouteTable) -> BTreeMap<&str, &Check> {
    table.checks().map(|check| (check.name(), &**check)).collect()
}

/// Every upstream and handler of the table once, by its name.
pub(super) fn places(table: &RouteTable) -> BTreeMap<&str, &Target> {
    table.targets().map(|target| (target.name(), target)).collect()
}

/// The connections to an upstream, and the requests that wait for one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) in_use: u64,
    pub(super) idle: u64,
    pub(super) waiting: u64,
}

/// `None` of a handler, which has none.
pub(super) fn connections(target: &Target) -> Option<Used> {
    let (connections, waiting) = match target {
        Target::Php(php) => {
            let Connections { in_use, idle } = php.connections();
            ((in_use, idle), php.waiting())
        }
        Target::Http(service) => (service.connections(), 0),
        Target::Handler(_) => return None,
    };
    let [in_use, idle, waiting] = [connections.0, connections.1, waiting].map(|count| count as u64);
    Some(Used { in_use, idle, waiting })
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[test]
    fn each_upstream_and_handler_is_told_once_however_many_routes_use_it() {
        let admin = Admin::for_test();
        let gauges = of(&admin.table.current(), &admin.reloads.snapshot(), &Known::default());
        let handlers: Vec<&str> = gauges.handlers.iter().map(|handler| &*handler.name).collect();
        assert_eq!(handlers, ["orders", "php"]);
        assert_eq!((gauges.generation, gauges.routes.len(), gauges.routes[0].serve), (1, 1, "legacy"));
    }
}
