//! The gauges that telemetry does not know itself: read from the table in force and its upstreams.

use std::collections::BTreeMap;

use super::reload::Reloads;
use crate::check::store::Outcome;
use crate::check::{Check, Kind, Session};
use crate::route::RouteTable;
use crate::telemetry::{CheckGauge, Gauges, HandlerGauge, KeyGauge, RouteGauge, UpstreamGauge};
use crate::upstream::Target;
use crate::upstream::fastcgi::Connections;

/// What the table, its upstreams and the reloads are like now. An upstream that no route uses has
/// no connections and is not told of.
pub(super) fn of(table: &RouteTable, reloads: &Reloads) -> Gauges {
    let targets: BTreeMap<&str, &Target> = table.targets().map(|target| (target.name(), target)).collect();
    let mut gauges = Gauges {
        generation: table.generation,
        reloads_accepted: reloads.accepted,
        reloads_rejected: reloads.rejected,
        routes: table
            .routes
            .iter()
            .map(|route| RouteGauge { name: (*route.name).to_owned(), serve: route.serve.word() })
            .collect(),
        checks: checks(table),
        ..Gauges::default()
    };
    for (name, target) in targets {
        let name = name.to_owned();
        let (connections, waiting) = match target {
            Target::Php(php) => {
                let Connections { in_use, idle } = php.connections();
                ((in_use, idle), php.waiting())
            }
            Target::Http(service) => (service.connections(), 0),
            Target::Handler(handler) => {
                gauges.handlers.push(HandlerGauge { name, stalls: handler.stalls() });
                continue;
            }
        };
        let [in_use, idle, waiting] = [connections.0, connections.1, waiting].map(|count| count as u64);
        gauges.upstreams.push(UpstreamGauge { name, in_use, idle, waiting });
    }
    gauges.keys = keys(table);
    gauges
}

/// The checks that have a store, each once.
fn checks(table: &RouteTable) -> Vec<CheckGauge> {
    let checks: BTreeMap<&str, &Check> = table.checks().map(|check| (check.name(), &**check)).collect();
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
    checks.into_iter().filter_map(gauge).collect()
}

/// How often each key of each check was used.
fn keys(table: &RouteTable) -> Vec<KeyGauge> {
    let checks: BTreeMap<&str, &Check> = table.checks().map(|check| (check.name(), &**check)).collect();
    let mut keys = Vec::new();
    for (name, check) in checks {
        let Kind::Signature(signature) = check.kind() else { continue };
        let used = |(key, used): (&str, u64)| KeyGauge { check: name.to_owned(), key: key.to_owned(), used };
        keys.extend(signature.uses().map(used));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[test]
    fn each_upstream_and_handler_is_told_once_however_many_routes_use_it() {
        let admin = Admin::for_test();
        let gauges = of(&admin.table.current(), &admin.reloads.snapshot());
        let handlers: Vec<&str> = gauges.handlers.iter().map(|handler| &*handler.name).collect();
        assert_eq!(handlers, ["orders", "php"]);
        assert_eq!((gauges.generation, gauges.routes.len(), gauges.routes[0].serve), (1, 1, "legacy"));
    }
}
