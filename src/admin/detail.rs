//! `/api/routes/{name}`: one route with all that is known of it, for whoever looks at it closely.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compare::{self, Question};
use super::routes;
use crate::http::path::hex_value;
use crate::route::Route;
use crate::telemetry::Side;

/// Steps of a distribution as it is drawn: each a tenth of a decade, from 10 µs to 100 s.
const STEPS: usize = 71;

/// The route's name in `/api/routes/{name}`; `None`: another path.
pub(super) fn route_of(path: &str) -> Option<String> {
    name(path.strip_prefix("/api/routes/")?)
}

/// One segment of a path as the name that it encodes: a route may be named by its own path.
pub(super) fn name(segment: &str) -> Option<String> {
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex_value(bytes.next()?)? << 4 | hex_value(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

/// The route: what it is, the comparison, how its durations are distributed over the window, and, from
/// the start of the gateway on, its statuses and what its checks refused.
pub(super) fn shown(route: &Route, question: Question) -> Value {
    let now = Instant::now();
    let bounds: [Duration; STEPS] = std::array::from_fn(bound);
    let distribution = |side| {
        let figures = route.stats.figures(side, question.window, question.latency, now)?;
        let (steps, above) = figures.latency.steps(&bounds);
        Some(steps.into_iter().chain([above]).collect::<Vec<u64>>())
    };
    let statuses = |side| {
        let totals = route.stats.totals(side)?;
        Some(totals.classes().map(|(class, count)| (class.to_owned(), json!(count))).collect::<Value>())
    };
    let mut shown = compare::compared(route, question, now);
    routes::merge(&mut shown, routes::shown_route(route));
    let more = json!({
        "distribution": {
            "bounds_ms": bounds.map(compare::millis).to_vec(),
            "legacy": distribution(Side::Legacy),
            "new": distribution(Side::New),
        },
        "statuses": {
            "legacy": statuses(Side::Legacy),
            "new": statuses(Side::New),
            "gateway": statuses(Side::Gateway),
        },
        "refused": refused(route),
    });
    routes::merge(&mut shown, more);
    shown
}

/// The upper end of a step.
fn bound(step: usize) -> Duration {
    Duration::from_secs_f64(1e-5 * 10_f64.powf(step as f64 / 10.0))
}

fn refused(route: &Route) -> Vec<Value> {
    let of_check = |checked: &crate::route::Checked| {
        let (_, check) = checked.stats.names();
        let check = check.to_string();
        let told = |(reason, count)| json!({ "check": check, "reason": reason, "count": count });
        checked.stats.reasons().map(told).collect::<Vec<Value>>()
    };
    route.checks.iter().flat_map(of_check).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[test]
    fn a_route_is_found_by_its_name_and_by_nothing_like_it() {
        assert_eq!(route_of("/api/routes/order").as_deref(), Some("order"));
        assert_eq!(route_of("/api/routes/%2F%7B%2Arest%7D").as_deref(), Some("/{*rest}"));
        for path in ["/api/routes", "/api/routes/", "/api/routes/a/b", "/api/routes/%f", "/api/routes/%ff"] {
            assert_eq!(route_of(path), None, "{path}");
        }
    }

    #[test]
    fn the_distribution_has_every_request_in_its_step() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let route = &table.routes[0];
        for millis in [1, 1, 20, 200_000] {
            route.stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(millis));
        }
        let shown = shown(route, Question::read(None).unwrap());
        assert_eq!(
            (&shown["name"], &shown["legacy"], &shown["since"]),
            (&json!("order"), &json!("php"), &json!("1970-01-01T00:00:00Z"))
        );
        assert_eq!((&shown["statuses"]["legacy"]["2xx"], &shown["distribution"]["new"]), (&json!(4), &Value::Null));
        let bounds = shown["distribution"]["bounds_ms"].as_array().unwrap();
        let steps = shown["distribution"]["legacy"].as_array().unwrap();
        assert_eq!((steps.len(), bounds.len()), (STEPS + 1, STEPS));
        assert_eq!(steps[STEPS], 1, "what is beyond the last bound");
        let at = steps.iter().position(|count| *count == 2).unwrap();
        assert!(bounds[at - 1].as_f64().unwrap() <= 1.02 && bounds[at].as_f64().unwrap() >= 0.98, "{bounds:?}");
    }
}
