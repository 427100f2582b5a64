//! `/api/compare`: both sides of every route next to each other, over a window that ends now; of every
//! difference it says whether it is more than chance.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{rfc3339, routes};
use crate::route::{Route, RouteTable};
use crate::telemetry::fair::{self, Failed};
use crate::telemetry::{self, Apart, Courtesy, Distribution, Figures, Latency, STATUS_CLASSES, Window};

/// Digits behind the point of a ratio and its interval: a handler may well be a thousand times as fast as a page.
const RATIO_DIGITS: i32 = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) window: Window,
    pub(crate) latency: Latency,
}

impl Question {
    /// Reads the query; what is not said is `window=1m&latency=total`. An error says what would be right.
    pub(super) fn read(query: Option<&str>) -> Result<Self, &'static str> {
        let mut question = Self { window: Window::Minute, latency: Latency::Total };
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "window" => question.window = Window::parse(value).ok_or("window is 1m, 10m or 1h")?,
                "latency" => question.latency = Latency::parse(value).ok_or("latency is total, service or queue")?,
                _ => {}
            }
        }
        Ok(question)
    }

    /// The query that [`Question::read`] reads.
    pub(crate) fn query(self) -> String {
        format!("window={}&latency={}", self.window.as_str(), self.latency.as_str())
    }
}

/// Appends the comparison, in the shape that dashboards and scripts rely on, with other members `beside` it.
pub(super) async fn append(told: &mut String, table: &RouteTable, question: Question, mut beside: Value) {
    let about = json!({
        "window": question.window.as_str(),
        "latency": question.latency.as_str(),
        "generation": table.generation,
    });
    routes::merge(&mut beside, about);
    let now = Instant::now();
    let mut courtesy = Courtesy::new();
    told.push_str(beside.to_string().strip_suffix('}').unwrap_or_default());
    told.push_str(",\"routes\":[");
    // One route after the other: all of a thousand at once would be a long time in one piece.
    for (n, route) in table.routes.iter().enumerate() {
        if n > 0 {
            told.push(',');
        }
        // A struct of numbers and texts has no reason to fail.
        told.push_str(&serde_json::to_string(&Compared::of(route, question, now)).unwrap_or_default());
        courtesy.offer().await;
    }
    told.push_str("]}");
}

/// One route: its sides, and new over legacy, as numbers and with what can be said for sure of each.
#[derive(Serialize)]
struct Compared<'r> {
    name: &'r str,
    path: &'r str,
    serve: &'static str,
    since: String,
    sides: Sides,
    gateway: u64,
    ratio: Ratio,
    confidence: Confidence,
}

#[derive(Serialize)]
struct Sides {
    legacy: Option<Side>,
    new: Option<Side>,
}

/// One side's figures.
#[derive(Serialize)]
pub(super) struct Side {
    requests: u64,
    qps: Option<f64>,
    errors: u64,
    error_rate: f64,
    mean_ms: Option<f64>,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    measured: u64,
    #[serde(serialize_with = "named")]
    statuses: [(&'static str, u64); STATUS_CLASSES.len()],
    #[serde(serialize_with = "named")]
    apart: [(&'static str, u64); Apart::ALL.len()],
    cpu_ms_per_request: Option<f64>,
}

#[derive(Serialize)]
struct Ratio {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    mean: Option<f64>,
}

#[derive(Serialize)]
struct Confidence {
    p50: Sure,
    p90: Sure,
    p99: Sure,
    mean: Sure,
    error_rate: SureOfErrors,
}

/// The interval and its verdict, or why there is none.
#[derive(Serialize)]
struct Sure {
    low: Option<f64>,
    high: Option<f64>,
    enough: bool,
    reason: Option<String>,
    verdict: &'static str,
}

/// Error rates may be zero: beside their ratio stands their difference, and the interval is of that.
#[derive(Serialize)]
struct SureOfErrors {
    #[serde(flatten)]
    sure: Sure,
    difference: Option<f64>,
    ratio: Option<f64>,
}

fn named<S: Serializer>(counts: &[(&str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().copied())
}

impl<'r> Compared<'r> {
    fn of(route: &'r Route, question: Question, now: Instant) -> Self {
        let figures = |side| route.stats.figures(side, question.window, question.latency, now);
        let (legacy, new) = (figures(telemetry::Side::Legacy), figures(telemetry::Side::New));
        let gateway = figures(telemetry::Side::Gateway).map_or(0, |figures| figures.counts.requests());
        let (ratio, confidence) = fairly(legacy.as_ref(), new.as_ref());
        Self {
            name: &route.name,
            path: route.path(),
            serve: route.serve.word(),
            since: rfc3339(route.since),
            sides: Sides { legacy: legacy.as_ref().map(Side::of), new: new.as_ref().map(Side::of) },
            gateway,
            ratio,
            confidence,
        }
    }
}

impl Side {
    pub(super) fn of(figures: &Figures) -> Self {
        let Figures { counts, span, latency, cpu } = figures;
        let (seconds, requests) = (span.as_secs_f64(), counts.requests());
        let quantile = |q| latency.quantile(q).map(millis);
        let cpu = cpu.filter(|cpu| cpu.requests > 0).map(|cpu| millis(cpu.time) / cpu.requests as f64);
        Self {
            requests,
            qps: (seconds > 0.0).then(|| rounded(requests as f64 / seconds, 2)),
            errors: counts.errors,
            error_rate: rounded(counts.errors as f64 / requests.max(1) as f64, 6),
            mean_ms: latency.mean().map(millis),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            measured: latency.count(),
            statuses: by_name(STATUS_CLASSES, counts.statuses),
            apart: by_name(Apart::ALL.map(Apart::word), counts.apart),
            cpu_ms_per_request: cpu.map(|cpu| rounded(cpu, 3)),
        }
    }
}

fn by_name<const N: usize>(names: [&'static str; N], counts: [u64; N]) -> [(&'static str, u64); N] {
    let mut counts = counts.into_iter();
    names.map(|name| (name, counts.next().unwrap_or_default()))
}

fn fairly(legacy: Option<&Figures>, new: Option<&Figures>) -> (Ratio, Confidence) {
    let nothing = Distribution::default();
    let (old, fresh) = (legacy.map_or(&nothing, |of| &of.latency), new.map_or(&nothing, |of| &of.latency));
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| fair::quantiles(old, fresh, q));
    let mean = fair::means(old, fresh);
    let number = |of: fair::Compared| of.estimate.map(|ratio| rounded(ratio, RATIO_DIGITS));
    let faster = |of| Sure::of(of, 1.0, ["faster", "slower"]);
    (
        Ratio { p50: number(p50), p90: number(p90), p99: number(p99), mean: number(mean) },
        Confidence {
            p50: faster(p50),
            p90: faster(p90),
            p99: faster(p99),
            mean: faster(mean),
            error_rate: SureOfErrors::of(failed(legacy), failed(new)),
        },
    )
}

fn failed(figures: Option<&Figures>) -> Failed {
    let requests = figures.map_or(0, |of| of.counts.requests());
    Failed { errors: figures.map_or(0, |of| of.counts.errors), requests }
}

impl Sure {
    /// The verdict of an interval that is wholly on one side of `same`, or not.
    fn of(compared: fair::Compared, same: f64, [below, above]: [&'static str; 2]) -> Self {
        let verdict = match compared.interval {
            Err(_) => "not enough yet",
            Ok((_, high)) if high < same => below,
            Ok((low, _)) if low > same => above,
            Ok(_) => "unclear",
        };
        let bound = |value| rounded(value, RATIO_DIGITS);
        let (low, high) = compared.interval.ok().map(|(low, high)| (bound(low), bound(high))).unzip();
        let reason = compared.interval.err().map(|lack| lack.to_string());
        Self { low, high, enough: compared.interval.is_ok(), reason, verdict }
    }
}

impl SureOfErrors {
    fn of(legacy: Failed, new: Failed) -> Self {
        let rates = fair::error_rates(legacy, new);
        let rate = |of: Failed| of.errors as f64 / of.requests as f64;
        let times = Some(rate(new) / rate(legacy)).filter(|times| times.is_finite());
        Self {
            sure: Sure::of(rates, 0.0, ["fewer", "more"]),
            difference: rates.estimate.map(|difference| rounded(difference, 6)),
            ratio: times.map(|times| rounded(times, 3)),
        }
    }
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
    use crate::telemetry::Side;

    #[test]
    fn what_is_not_asked_for_has_a_default_and_nonsense_a_remedy() {
        let default = Question { window: Window::Minute, latency: Latency::Total };
        assert_eq!(Question::read(None), Ok(default));
        assert_eq!(Question::read(Some("other=1")), Ok(default));
        let asked = Question::read(Some("latency=service&window=1h"));
        assert_eq!(asked, Ok(Question { window: Window::Hour, latency: Latency::Service }));
        assert!(Question::read(Some("latency=mean")).is_err());
        assert_eq!(Question::read(Some(&asked.unwrap().query())), asked);
    }

    async fn answer(table: &RouteTable, question: Question) -> Value {
        let mut told = String::new();
        append(&mut told, table, question, json!({ "beside": { "it": {} } })).await;
        serde_json::from_str(&told).unwrap()
    }

    #[tokio::test]
    async fn both_sides_stand_next_to_each_other() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        stats.count_for_tests(Side::Legacy, 200, Duration::from_millis(20));
        stats.count_for_tests(Side::Legacy, 500, Duration::from_millis(20));
        let question = Question::read(None).unwrap();

        let one_sided = answer(&table, question).await;
        assert_eq!(one_sided["beside"], json!({ "it": {} }));
        assert_eq!((&one_sided["window"], &one_sided["generation"]), (&json!("1m"), &json!(1)));
        let route = &one_sided["routes"][0];
        assert_eq!(
            (&route["name"], &route["path"], &route["serve"]),
            (&json!("order"), &json!("/api/v1/orders/{id}"), &json!("legacy"))
        );
        let none = json!({ "p50": null, "p90": null, "p99": null, "mean": null });
        assert_eq!((&route["sides"]["new"], &route["ratio"]), (&Value::Null, &none));
        let p99 = &route["confidence"]["p99"];
        assert_eq!((&p99["verdict"], &p99["enough"]), (&json!("not enough yet"), &json!(false)));
        assert_eq!(p99["reason"], "needs 368 requests on each side; legacy has 2, new has 0");
        let legacy = &route["sides"]["legacy"];
        assert_eq!((&legacy["requests"], &legacy["errors"]), (&json!(2), &json!(1)));
        assert_eq!((&legacy["error_rate"], &legacy["mean_ms"]), (&json!(0.5), &json!(20.0)));
        assert!(legacy["qps"].as_f64().unwrap() > 0.0);
        let keys: Vec<&String> = legacy.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                ["requests", "qps", "errors", "error_rate", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms"]
                    .as_slice(),
                &["measured", "statuses", "apart", "cpu_ms_per_request"],
            ]
            .concat()
        );
        assert_eq!((&legacy["measured"], &legacy["statuses"]["5xx"]), (&json!(2), &json!(1)));

        stats.count_for_tests(Side::New, 200, Duration::from_millis(5));
        let ratio = answer(&table, question).await["routes"][0]["ratio"]["p50"].as_f64().unwrap();
        assert!((0.24..=0.26).contains(&ratio), "{ratio}");
    }

    #[tokio::test]
    async fn a_difference_that_is_more_than_chance_is_said_to_be_one() {
        let admin = Admin::for_test();
        let table = admin.table.current();
        let stats = &table.routes[0].stats;
        for n in 0..500 {
            stats.count_for_tests(Side::Legacy, if n % 10 == 0 { 500 } else { 200 }, Duration::from_millis(20 + n % 7));
            stats.count_for_tests(Side::New, 200, Duration::from_millis(5 + n % 3));
        }
        let route = &answer(&table, Question::read(None).unwrap()).await["routes"][0];
        for figure in ["p50", "p90", "p99", "mean"] {
            let (ratio, sure) = (&route["ratio"][figure], &route["confidence"][figure]);
            assert_eq!((&sure["verdict"], &sure["reason"]), (&json!("faster"), &Value::Null), "{figure}");
            assert!(
                sure["low"].as_f64() <= ratio.as_f64() && ratio.as_f64() <= sure["high"].as_f64(),
                "{figure} {sure}"
            );
        }
        let errors = &route["confidence"]["error_rate"];
        assert_eq!((&errors["verdict"], &errors["difference"]), (&json!("fewer"), &json!(-0.1)));
        assert_eq!(errors["ratio"], 0.0);
    }
}
