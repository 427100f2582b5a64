//! The gauges that telemetry does not know itself: read from the table in force and its upstreams.

use std::sync::Arc;

use super::costs::{Known, SideCost};
use super::reload::Reloads;
use crate::check::store::Outcome;
use crate::check::{Check, Kind, Session};
use crate::route::RouteTable;
use crate::telemetry::{
    CheckGauge, Courtesy, Gauges, HandlerGauge, KeyGauge, RouteGauge, Side, SideGauge, UpstreamGauge,
};
use crate::upstream::Target;
use crate::upstream::fastcgi::Connections;

/// What the table, its upstreams, the reloads and the costs are like now. An upstream that no route uses has
/// no connections and is not told of.
pub(super) async fn of(table: &RouteTable, reloads: &Reloads, costs: &Known) -> Gauges {
    let side = |side: Side, cost: &SideCost| SideGauge {
        side: side.word(),
        cpu_seconds: cost.cpu.map(|cpu| cpu.as_secs_f64()),
        memory_bytes: cost.memory,
    };
    let (mut routes, mut courtesy) = (Vec::with_capacity(table.routes.len()), Courtesy::new());
    courtesy.pause().await;
    for route in &table.routes {
        routes.push(RouteGauge { name: Arc::clone(&route.name), serve: route.serve.word() });
        courtesy.offer().await;
    }
    let mut gauges = Gauges {
        generation: table.generation,
        reloads_accepted: reloads.accepted,
        reloads_rejected: reloads.rejected,
        file_rejected: reloads.last_rejected.is_some(),
        routes,
        checks: checks(table),
        sides: vec![side(Side::Legacy, &costs.legacy), side(Side::New, &costs.new)],
        ..Gauges::default()
    };
    for target in table.targets() {
        let name = target.name().to_owned();
        let full_in = costs.places.get(&name).and_then(|cost| cost.full_in);
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
    let gauge = |check: &Arc<Check>| {
        let (store, session) = (check.store()?, check.session());
        let totals = store.totals();
        let nanoseconds = std::time::Duration::from_nanos(totals.nanoseconds);
        Some(CheckGauge {
            name: check.name().to_owned(),
            store_up: store.is_up(),
            operations: Outcome::ALL.map(Outcome::word).into_iter().zip(totals.operations).collect(),
            seconds: nanoseconds.as_secs_f64(),
            cache: session.map(Session::cache_totals),
        })
    };
    table.checks.values().filter_map(gauge).collect()
}

/// How often each key of each check was used.
fn keys(table: &RouteTable) -> Vec<KeyGauge> {
    let mut keys = Vec::new();
    for (name, check) in &table.checks {
        let Kind::Signature(signature) = check.kind() else { continue };
        let used = |(key, used): (&str, u64)| KeyGauge { check: (**name).to_owned(), key: key.to_owned(), used };
        keys.extend(signature.uses().map(used));
    }
    keys
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

    #[tokio::test]
    async fn each_upstream_and_handler_is_told_once_however_many_routes_use_it() {
        let admin = Admin::for_test();
        let gauges = of(&admin.table.current(), &admin.reloads.snapshot(), &Known::default()).await;
        let handlers: Vec<&str> = gauges.handlers.iter().map(|handler| &*handler.name).collect();
        assert_eq!(handlers, ["orders", "php"]);
        assert_eq!((gauges.generation, gauges.routes.len(), gauges.routes[0].serve), (1, 1, "legacy"));
    }
}
