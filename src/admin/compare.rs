//! `/api/compare`: both sides of every route next to each other, over a window that ends now.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::route::{Route, RouteTable};
use crate::telemetry::{Figures, Latency, Side, Window};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) window: Window,
    pub(super) latency: Latency,
}

impl Question {
    /// Reads the query; what is not said is `window=1m&latency=total`. An error says what would be right.
    pub(super) fn read(query: Option<&str>) -> Result<Self, &'static str> {
        let mut question = Self { window: Window::Minute, latency: Latency::Total };
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "window" => question.window = Window::parse(value).ok_or("window is 1m, 10m or 1h")?,
                "latency" => question.latency = Latency::parse(value).ok_or("latency is total or service")?,
                _ => {}
            }
        }
        Ok(question)
    }
}

/// The comparison, in the shape that dashboards and scripts rely on.
pub(super) fn answer(table: &RouteTable, question: Question) -> Value {
    let now = Instant::now();
    let routes: Vec<Value> = table.routes.iter().map(|route| compared(route, question, now)).collect();
    json!({ "window": question.window.as_str(), "generation": table.generation, "routes": routes })
}

pub(super) fn compared(route: &Route, question: Question, now: Instant) -> Value {
    let figures = |side| route.stats.figures(side, question.window, question.latency, now);
    let (legacy, new) = (figures(Side::Legacy), figures(Side::New));
    let ratio = |q| ratio(legacy.as_ref()?, new.as_ref()?, q);
    json!({
        "name": *route.name,
        "path": route.path(),
        "serve": route.serve.word(),
        "sides": { "legacy": legacy.as_ref().map(side), "new": new.as_ref().map(side) },
        "ratio": { "p50": ratio(0.5), "p99": ratio(0.99) },
    })
}

fn side(figures: &Figures) -> Value {
    let seconds = figures.span.as_secs_f64();
    let latency = &figures.latency;
    let quantile = |q| latency.quantile(q).map(millis);
    json!({
        "requests": figures.requests,
        "qps": if seconds > 0.0 { Some(rounded(figures.requests as f64 / seconds, 2)) } else { None },
        "errors": figures.errors,
        "error_rate": rounded(figures.errors as f64 / figures.requests.max(1) as f64, 6),
        "mean_ms": latency.mean().map(millis),
        "p50_ms": quantile(0.5),
        "p90_ms": quantile(0.9),
        "p99_ms": quantile(0.99),
        "p999_ms": quantile(0.999),
    })
}

/// New over legacy; `None` where one of the two has no such quantile.
fn ratio(legacy: &Figures, new: &Figures, q: f64) -> Option<f64> {
    let (legacy, new) = (legacy.latency.quantile(q)?, new.latency.quantile(q)?);
    (!legacy.is_zero()).then(|| rounded(new.as_secs_f64() / legacy.as_secs_f64(), 3))
}

pub(super) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1_000.0, 3)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;

    #[test]
    fn what_is_not_asked_for_has_a_default_and_nonsense_a_remedy() {
        let default = Question { window: Window::Minute, latency: Latency::Total };
        assert_eq!(Question::read(None), Ok(default));
        assert_eq!(Question::read(Some("other=1")), Ok(default));
        let asked = Question::read(Some("latency=service&window=1h"));
        assert_eq!(asked, Ok(Question { window: Window::Hour, latency: Latency::Service }));
        assert!(Question::read(Some("latency=mean")).is_err());
    }

    #[test]
    fn both_sides_stand_next_to_each_other() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(20));
        stats.count_for_tests(Side::Legacy, 500, Duration::from_millis(20));
        let question = Question::read(None).unwrap();

        let one_sided = answer(&table, question);
        assert_eq!((&one_sided["window"], &one_sided["generation"]), (&json!("1m"), &json!(1)));
        let route = &one_sided["routes"][0];
        assert_eq!(
            (&route["name"], &route["path"], &route["serve"]),
            (&json!("order"), &json!("/api/v1/orders/{id}"), &json!("legacy"))
        );
        assert_eq!((&route["sides"]["new"], &route["ratio"]), (&Value::Null, &json!({ "p50": null, "p99": null })));
        let legacy = &route["sides"]["legacy"];
        assert_eq!((&legacy["requests"], &legacy["errors"]), (&json!(2), &json!(1)));
        assert_eq!((&legacy["error_rate"], &legacy["mean_ms"]), (&json!(0.5), &json!(20.0)));
        assert!(legacy["qps"].as_f64().unwrap() > 0.0);
        let keys: Vec<&String> = legacy.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["requests", "qps", "errors", "error_rate", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms"]
        );

        stats.count_for_tests(Side::New, 200, Duration::from_millis(5));
        let ratio = answer(&table, question)["routes"][0]["ratio"]["p50"].as_f64().unwrap();
        assert!((0.24..=0.26).contains(&ratio), "{ratio}");
    }
}
