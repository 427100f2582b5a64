//! `/api/report`: the table of a migration's report, off one answer.
//!
//! What `/api/compare` says of each route, and beside it both sides over all routes: mean response time, QPS,
//! P99, errors, CPU and memory; and every upstream and handler with what it costs.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::compare::{self, Question};
use super::costs::{Known, SideCost};
use super::{gauges, rfc3339, upstreams};
use crate::route::RouteTable;
use crate::telemetry::{Courtesy, Figures, Side};

/// Appends the report of the window that ends now. Over all routes there is no ratio: the sides serve different ones.
pub(super) async fn append(told: &mut String, table: &RouteTable, costs: &Known, question: Question) {
    let (legacy, new) = (over_all(table, Side::Legacy, question).await, over_all(table, Side::New, question).await);
    let at = SystemTime::now();
    let since = [&legacy, &new].into_iter().flatten().filter_map(|of| at.checked_sub(of.span)).min();
    let whole = |figures: &Option<Figures>, cost| figures.as_ref().map(|figures| Whole::of(figures, cost));
    let beside = json!({
        "at": rfc3339(at),
        "since": since.map(rfc3339),
        "sides": { "legacy": whole(&legacy, costs.legacy), "new": whole(&new, costs.new) },
        "upstreams": with_costs(table, costs),
    });
    compare::append(told, table, question, beside).await;
}

async fn over_all(table: &RouteTable, side: Side, question: Question) -> Option<Figures> {
    let (now, mut courtesy) = (Instant::now(), Courtesy::new());
    let mut all: Option<Figures> = None;
    for route in &table.routes {
        if let Some(figures) = route.stats.figures(side, question.window, question.latency, now) {
            match &mut all {
                Some(all) => all.add(&figures),
                None => all = Some(figures),
            }
        }
        courtesy.offer().await;
    }
    all
}

/// A side over all routes.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    side: compare::Side,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
}

impl Whole {
    fn of(figures: &Figures, cost: SideCost) -> Self {
        let cpu_seconds = figures.cpu.map(|cpu| cpu.time.as_secs_f64());
        Self { side: compare::Side::of(figures), cpu_seconds, memory_bytes: cost.memory }
    }
}

fn with_costs(table: &RouteTable, costs: &Known) -> Value {
    let upstreams = table.targets().map(|target| {
        let name = target.name();
        let cost = costs.places.get(name).copied().unwrap_or_default();
        let (kind, slots) = upstreams::kind(target);
        let used = gauges::connections(target);
        json!({
            "name": name,
            "kind": kind,
            "connections": slots,
            "in_use": used.map(|used| used.in_use),
            "idle": used.map(|used| used.idle),
            "waiting": used.map(|used| used.waiting),
            "cpu_seconds": cost.cpu.map(|cpu| cpu.as_secs_f64()),
            "memory_bytes": cost.memory,
            "saturation_seconds": cost.full_in.map(|until: Duration| until.as_secs()),
        })
    });
    upstreams.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[tokio::test]
    async fn the_table_of_a_migration_report_is_read_off() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        for _ in 0..400 {
            stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(20));
            stats.count_for_tests(Side::New, 200, Duration::from_millis(5));
        }
        let mut costs = Known::default();
        costs.legacy.memory = Some(7 << 20);
        let mut told = String::new();
        append(&mut told, &table, &costs, Question::read(Some("window=1h")).unwrap()).await;
        let report: Value = serde_json::from_str(&told).unwrap();
        let legacy = &report["sides"]["legacy"];
        assert_eq!((&legacy["mean_ms"], &legacy["memory_bytes"]), (&json!(20.0), &json!(7 << 20)));
        assert!(legacy["qps"].is_number() && legacy["p99_ms"].is_number() && report["at"].is_string());
        assert_eq!(report["routes"][0]["confidence"]["p99"]["verdict"], "faster");
        assert_eq!(report["ratio"], Value::Null, "over all routes nothing is compared");
        assert_eq!(report["since"], report["at"], "the gateway has just started");
        assert_eq!((&report["window"], &report["routes"][0]["name"]), (&json!("1h"), &json!("order")));
        assert_eq!(report["upstreams"][0]["kind"], "handler");
    }
}
