//! `/api/series`: one route over time, in the columns that a chart is drawn from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::compare::{Question, millis};
use super::reload::Reloads;
use super::{rfc3339, routes};
use crate::route::{Route, RouteTable};
use crate::telemetry::{Apart, Curve, SLICE, Side, Slow};

/// The route's curves of both sides on one axis of time, how its durations are spread, and its slowest requests;
/// `None` if the table has no such route.
pub(super) fn answer(table: &RouteTable, reloads: &Reloads, name: &str, question: Question) -> Option<Value> {
    let route = table.routes.iter().find(|route| &*route.name == name)?;
    let now = Moment { instant: Instant::now(), system: SystemTime::now() };
    let curves =
        [Side::Legacy, Side::New].map(|side| route.stats.curve(side, question.window, question.latency, now.instant));
    let lengths = axis(&curves, now.instant);
    let [legacy, new] = [Side::Legacy, Side::New].map(|side| (side, &lengths));
    let [of_legacy, of_new] = &curves;
    Some(json!({
        "route": name,
        "window": question.window.as_str(),
        "latency": question.latency.as_str(),
        "generation": table.generation,
        "time": lengths.keys().map(|end| now.unix(*end)).collect::<Vec<_>>(),
        "seconds": lengths.values().map(Duration::as_secs_f64).collect::<Vec<_>>(),
        "sides": {
            "legacy": side(route, legacy, of_legacy, question, now),
            "new": side(route, new, of_new, question, now),
        },
        "slowest": { "legacy": slowest(route, Side::Legacy, now), "new": slowest(route, Side::New, now) },
        "refused": refused(route),
        "flips": routes::flips(reloads, |of| of == name),
    }))
}

/// Where slices end, and how long each is: those in which a side has a point, and those between and behind them in which
/// nothing came, so that no line is drawn through them.
fn axis(curves: &[Vec<Curve>], now: Instant) -> BTreeMap<Instant, Duration> {
    let told: BTreeMap<Instant, Duration> = curves.iter().flatten().map(|point| (point.end, point.length)).collect();
    let mut axis = told.clone();
    let begins = told.iter().map(|(end, length)| end.checked_sub(*length).unwrap_or(*end)).skip(1).chain([now]);
    for (end, next) in told.keys().zip(begins) {
        let ends = std::iter::successors(Some(*end + SLICE), |end| Some(*end + SLICE));
        axis.extend(ends.take_while(|end| *end <= next).map(|end| (end, SLICE)));
    }
    axis
}

/// The same moment on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    system: SystemTime,
}

impl Moment {
    fn system(self, then: Instant) -> SystemTime {
        self.system.checked_sub(self.instant.saturating_duration_since(then)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn unix(self, then: Instant) -> u64 {
        self.system(then).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

fn side(
    route: &Route,
    (side, lengths): (Side, &BTreeMap<Instant, Duration>),
    curve: &[Curve],
    question: Question,
    now: Moment,
) -> Option<Value> {
    let figures = route.stats.figures(side, question.window, question.latency, now.instant)?;
    let points: BTreeMap<Instant, &Curve> = curve.iter().map(|point| (point.end, point)).collect();
    let column = |of: fn(&Curve) -> Value, absent: Value| -> Vec<Value> {
        lengths.keys().map(|end| points.get(end).map_or_else(|| absent.clone(), |point| of(point))).collect()
    };
    let distribution: Vec<Value> = figures
        .latency
        .buckets()
        .map(|(from, to, count)| json!({ "from_ms": millis(from), "to_ms": millis(to), "count": count }))
        .collect();
    Some(json!({
        "requests": column(|point| json!(point.requests), json!(0)),
        "errors": column(|point| json!(point.errors), json!(0)),
        "p50_ms": column(|point| json!(point.p50.map(millis)), Value::Null),
        "p99_ms": column(|point| json!(point.p99.map(millis)), Value::Null),
        "distribution": distribution,
    }))
}

/// Of the last ten minutes, whatever the window: after a flip, of a side that is idle by now.
fn slowest(route: &Route, side: Side, now: Moment) -> Vec<Value> {
    route.stats.slowest(side, now.instant).iter().map(|slow| shown(slow, now.system(slow.ended))).collect()
}

fn shown(slow: &Slow, when: SystemTime) -> Value {
    json!({
        "when": rfc3339(when),
        "request_id": slow.request_id,
        "status": slow.status,
        "total_ms": millis(slow.total),
        "service_ms": slow.service.map(millis),
        "queue_ms": millis(slow.queue),
        "apart": slow.apart.map(Apart::word),
    })
}

/// What the route's checks refused since the gateway started.
fn refused(route: &Route) -> Vec<Value> {
    let refused = route.checks.iter().flat_map(|checked| {
        let reasons = checked.stats.reasons().filter(|(_, count)| *count > 0);
        reasons.map(|(reason, count)| json!({ "check": checked.check.name(), "reason": reason, "count": count }))
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[test]
    fn both_sides_share_one_axis_of_time() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(20));
        let start = Instant::now();
        stats.tick(start + Duration::from_secs(10));
        stats.count_for_tests(Side::New, 500, Duration::from_millis(5));
        let question = Question::read(Some("window=1h")).unwrap();
        let series = answer(&table, &admin.reloads.snapshot(), "order", question).unwrap();
        let columns = |side: &str, column: &str| series["sides"][side][column].clone();
        assert_eq!(series["time"].as_array().unwrap().len(), 2);
        // The clock of the test stands still: what still runs is told before what was closed in its future.
        assert_eq!(columns("legacy", "requests"), json!([0, 1]));
        assert_eq!((columns("new", "requests"), columns("new", "errors")), (json!([1, 0]), json!([1, 0])));
        assert_eq!(columns("legacy", "p99_ms")[0], Value::Null);
        assert_eq!(columns("legacy", "distribution")[0]["count"], 1);
        let slow = &series["slowest"]["new"][0];
        assert_eq!((&slow["request_id"], &slow["status"], &slow["total_ms"]), (&json!("r1"), &json!(500), &json!(5.0)));
        assert!(answer(&table, &admin.reloads.snapshot(), "absent", question).is_none());
    }

    #[test]
    fn a_curve_breaks_where_nothing_came() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let point = |end, length| Curve {
            end: at(end),
            length: Duration::from_secs(length),
            requests: 1,
            errors: 0,
            p50: None,
            p99: None,
        };
        let ends = |now, curves: [Vec<Curve>; 2]| -> Vec<u64> {
            axis(&curves, at(now)).into_keys().map(|end| (end - start).as_secs()).collect()
        };
        // Both came in the slice that runs, after half a minute in which neither did.
        let rested = [vec![point(10, 10), point(45, 5)], vec![point(20, 10), point(45, 5)]];
        assert_eq!(ends(45, rested), [10, 20, 30, 40, 45]);
        assert_eq!(ends(45, [vec![point(10, 10)], vec![]]), [10, 20, 30, 40], "and none has come since");
        assert!(ends(45, [vec![], vec![]]).is_empty());
    }

    #[test]
    fn the_slowest_of_a_side_that_is_idle_by_now_are_told() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(20));
        let start = Instant::now();
        for slice in 1..=8 {
            stats.tick(start + Duration::from_secs(10) * slice);
        }
        let series = answer(&table, &admin.reloads.snapshot(), "order", Question::read(None).unwrap()).unwrap();
        assert_eq!((&series["window"], &series["sides"]["legacy"]), (&json!("1m"), &Value::Null));
        assert_eq!(series["slowest"]["legacy"][0]["total_ms"], 20.0);
        assert_eq!(series["slowest"]["new"], json!([]));
    }
}
