//! The upstreams and handlers of the table in force: how busy each is now, and what became of waiting.

use serde_json::{Value, json};

use super::costs::Known;
use super::gauges;
use crate::route::{Place, RouteTable};
use crate::upstream::Target;

/// One entry for each, by name. `waits` and `wait_seconds` only rise, so that a reader gets the mean of
/// any span as a quotient of differences.
pub(super) fn shown(table: &RouteTable, costs: &Known) -> Value {
    table.places.values().map(|place| one(place, costs)).collect()
}

/// What it is, and how many connections to it there may be, where that is bounded.
pub(super) fn kind(target: &Target) -> (&'static str, Option<usize>) {
    match target {
        Target::Php(php) => ("php", Some(php.settings().connections)),
        Target::Http(_) => ("http", None),
        Target::Handler(_) => ("handler", None),
    }
}

fn one(place: &Place, costs: &Known) -> Value {
    let totals = place.stats.totals();
    let used = gauges::connections(&place.target).unwrap_or_default();
    let (kind, limit) = kind(&place.target);
    let full_in = costs.places.get(place.target.name()).and_then(|cost| cost.full_in);
    json!({
        "name": place.target.name(),
        "kind": kind,
        "in_use": used.in_use,
        "idle": used.idle,
        "limit": limit,
        "waiting": used.waiting,
        "waits": totals.queue.count(),
        "wait_seconds": totals.queue.sum().as_secs_f64(),
        "saturation_seconds": full_in.map(|until| until.as_secs()),
        "failures": totals.failures.iter().sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Admin;
    use super::*;

    #[test]
    fn each_is_shown_once_with_its_kind() {
        let admin = Admin::for_test();
        let mut costs = Known::default();
        costs.places.entry("php".to_owned()).or_default().full_in = Some(Duration::from_secs(900));
        let shown = shown(&admin.table.current(), &costs);
        let names: Vec<_> = shown.as_array().unwrap().iter().map(|one| (&one["name"], &one["kind"])).collect();
        assert_eq!(names, [(&json!("orders"), &json!("handler")), (&json!("php"), &json!("handler"))]);
        assert_eq!((&shown[0]["saturation_seconds"], &shown[1]["saturation_seconds"]), (&Value::Null, &json!(900)));
    }
}
