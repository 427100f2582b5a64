//! `strangler report`: the comparison as a page to hand on, in Markdown or as HTML that needs nothing else.
//!
//! What it says comes from `/api/report`; how a page is written down is [`mod@page`]'s to know. Whoever reads it was not
//! there: it says of every number over which time it is and how sure.

mod page;

use std::path::Path;

use clap::{Args, ValueEnum};

use self::page::{Block, Page};
use super::port::{Port, Where, choice};
use super::told::{Compared, Confidence, Figures, Report, Row, Sides, Sure, Upstream};
use super::{block_on, complain, print, with_causes, words};
use crate::admin::Question;
use crate::telemetry::{Latency, Window};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strangler report > comparison.md
  strangler report --window 10m --format html > comparison.html")]
pub(super) struct Options {
    #[command(flatten)]
    at: Where,
    /// How far back from now
    #[arg(long, default_value = "1h", value_parser = choice(&Window::ALL, Window::as_str))]
    window: Window,
    /// Which time: from head to last byte, the side's own, or waiting for it
    #[arg(long, default_value = "total", value_parser = choice(&Latency::ALL, Latency::as_str))]
    latency: Latency,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Markdown,
    Html,
}

pub(super) fn run(file: &Path, options: &Options) -> u8 {
    let port = match Port::find(&options.at, file) {
        Ok(port) => port,
        Err(code) => return code,
    };
    let question = Question { window: options.window, latency: options.latency };
    let report: Report = match block_on(port.ask("/api/report", question)) {
        Ok(Ok(report)) => report,
        Ok(Err(unheard)) => return complain(&with_causes(&unheard)),
        Err(error) => return complain(&error.to_string()),
    };
    let page = page(&report, question);
    print(&match options.format {
        Format::Markdown => page.markdown(),
        Format::Html => page.html(),
    })
}

fn page(report: &Report, question: Question) -> Page {
    let (window, seconds) = match question.window {
        Window::Minute => ("The minute", 60),
        Window::TenMinutes => ("The ten minutes", 600),
        Window::Hour => ("The hour", 3600),
    };
    let latency = match question.latency {
        Latency::Total => "from a request's head to its answer's last byte",
        Latency::Service => "the side's own, from handing a request over to its answer's first byte",
        Latency::Queue => "waiting for a place at the side",
    };
    let generation = report.each.generation;
    let mut blocks = vec![Block::Text(format!(
        "{window} up to {:.0}; times are {latency}. Table generation {generation}.",
        report.at
    ))];
    if let Some(since) = report.since.filter(|since| report.at.duration_since(*since).as_secs() < seconds) {
        let span = words::ago(since, report.at);
        blocks.push(Block::Text(format!(
            "Figures are since {since:.0}, of {span} only: before, the gateway did not run or had none of these routes."
        )));
    }
    let (asked, idle): (Vec<&Row>, Vec<&Row>) = report.each.routes.iter().partition(|row| requests(row) > 0);
    blocks.extend([
        Block::List(conclusions(&asked)),
        Block::Heading("Over all routes"),
        over_all(&report.sides),
        Block::Heading("Route by route"),
    ]);
    if !asked.is_empty() {
        blocks.push(by_route(&asked));
    }
    if !idle.is_empty() {
        let names: Vec<&str> = idle.iter().map(|row| row.name.as_str()).collect();
        blocks.push(Block::Text(format!("Without a request in this time: {}.", names.join(", "))));
    }
    blocks.extend([Block::Heading("Pools, services and handlers"), places(&report.upstreams)]);
    blocks.extend([Block::Heading("How to read this"), Block::List(HOW_TO_READ.map(str::to_owned).to_vec())]);
    Page { title: "Legacy and new, compared", blocks }
}

const HOW_TO_READ: [&str; 8] = [
    "Legacy is PHP, new is what replaces it. Where two figures stand in one cell, legacy's is the first.",
    "Over all routes the sides serve different ones: those figures say what each side carries and costs, not which is \
     faster. That is said route by route.",
    "Requests/s are over the whole of this time: a side that served for half of it shows half its rate.",
    "New ÷ legacy is a ratio: 0.25× is four times as fast. The range behind it holds the truth in 95 of 100 cases; \
     ▼ new is faster, ▲ new is slower, ≈ no difference beyond chance. Of errors it is the difference in points of a \
     hundred: ▼ new has fewer, ▲ new has more.",
    "\"Not enough yet\" is an answer: so few requests say nothing of this figure, however far apart the two numbers are.",
    "P99: 99 of 100 requests were faster. Times are of the requests that are measured; kept apart is what says nothing \
     of the side, such as files that the gateway served. Errors are answers of 5xx and answers that broke off.",
    "A route that was flipped in this time had its sides at different hours: compare windows of like traffic.",
    "CPU and memory are known of local PHP-FPM pools and of handlers; the memory of handlers is that of the whole gateway.",
];

fn requests(row: &Row) -> u64 {
    let sides = &row.compared.sides;
    [&sides.legacy, &sides.new].into_iter().flatten().map(|side| side.requests).sum()
}

/// What may be concluded: on how many routes new is better, and on how many it is not. Not over all routes at once: the
/// two sides serve different ones, and a page of PHP is no measure of a handler that says it is well.
fn conclusions(rows: &[&Row]) -> Vec<String> {
    let both: Vec<&Confidence> = rows.iter().filter_map(|row| on_both_sides(row)).collect();
    if both.is_empty() {
        let remedy = "there is nothing to compare until a route that has both sides is flipped";
        return vec![format!("No route was served by both sides in this time: {remedy}.")];
    }
    type Figure = (&'static str, fn(&Confidence) -> &Sure);
    let figures: [Figure; 4] =
        [("Mean", |of| &of.mean), ("P50", |of| &of.p50), ("P99", |of| &of.p99), ("Errors", |of| &of.error_rate)];
    let routes = match both.len() {
        1 => "the one route".to_owned(),
        many => format!("{} routes", words::count(many as u64)),
    };
    let said = figures.map(|(figure, of)| {
        let verdicts: Vec<&str> = both.iter().map(|sure| of(sure).verdict.as_str()).collect();
        format!("{figure}, of {routes} that both sides served: {}.", concluded(&verdicts))
    });
    said.to_vec()
}

fn on_both_sides(row: &Row) -> Option<&Confidence> {
    let Compared { sides, confidence, .. } = &row.compared;
    (sides.legacy.is_some() && sides.new.is_some()).then_some(confidence)
}

fn concluded(verdicts: &[&str]) -> String {
    let mut said: Vec<String> = Vec::new();
    for (verdict, meaning) in VERDICTS {
        match verdicts.iter().filter(|of| **of == verdict).count() {
            0 => {}
            all if all == verdicts.len() => said.push(meaning.to_owned()),
            some => said.push(format!("{meaning} on {some}")),
        }
    }
    said.join(", ")
}

const VERDICTS: [(&str, &str); 6] = [
    ("faster", "new is faster"),
    ("fewer", "new has fewer"),
    ("slower", "new is slower"),
    ("more", "new has more"),
    ("unclear", "no difference beyond chance"),
    (words::NOT_ENOUGH, words::NOT_ENOUGH),
];

/// The difference of two error rates: of rates that may be 0 there is no ratio.
fn points(sure: &Sure) -> String {
    if sure.difference.is_none() {
        return words::NONE.to_owned();
    }
    // The zero that is added takes the sign from a zero.
    let points = |value: f64| format!("{:+.2}", value * 100.0 + 0.0);
    let sign = match sure.verdict.as_str() {
        "fewer" => '▼',
        "more" => '▲',
        _ => '≈',
    };
    match (sure.difference, sure.interval()) {
        (Some(difference), Some((low, high))) => {
            format!("{sign} {} points ({} to {})", points(difference), points(low), points(high))
        }
        _ => words::NOT_ENOUGH.to_owned(),
    }
}

fn over_all(sides: &Sides) -> Block {
    let row = |name: &str, of: &dyn Fn(&Figures) -> String| {
        let side = |side: &Option<Figures>| side.as_ref().map_or_else(|| words::NONE.to_owned(), of);
        vec![name.to_owned(), side(&sides.legacy), side(&sides.new)]
    };
    Block::Table {
        head: ["", "Legacy", "New"].map(str::to_owned).to_vec(),
        left: 1,
        rows: vec![
            row("Requests", &|side| words::count(side.requests)),
            row("Measured", &|side| words::count(side.measured)),
            row("Kept apart", &|side| words::apart(&side.apart)),
            row("Requests/s", &|side| words::per_second(side.qps)),
            row("Mean", &|side| words::millis(side.mean_ms)),
            row("P50", &|side| words::millis(side.p50_ms)),
            row("P90", &|side| words::millis(side.p90_ms)),
            row("P99", &|side| words::millis(side.p99_ms)),
            row("Errors", &|side| format!("{} ({})", words::count(side.errors), words::share(Some(side.error_rate)))),
            row("CPU per request", &|side| words::millis(side.cpu_ms_per_request)),
            row("Memory", &|side| words::bytes(side.memory_bytes)),
        ],
    }
}

fn by_route(rows: &[&Row]) -> Block {
    let titles = ["Route", "Serves", "Requests", "Requests/s", "P50", "P99", "Errors", "CPU per request"];
    let compared = ["P50 new ÷ legacy", "P99 new ÷ legacy", "Errors new − legacy"];
    let row = |row: &&Row| {
        let Compared { sides, ratio, confidence } = &row.compared;
        let pair = |of: &dyn Fn(&Figures) -> String| {
            let one = |side: &Option<Figures>| side.as_ref().map_or_else(|| words::NONE.to_owned(), of);
            format!("{} / {}", one(&sides.legacy), one(&sides.new))
        };
        vec![
            row.name.clone(),
            format!("{} since {:.0}", row.serve, row.since),
            pair(&|side| words::count(side.requests)),
            pair(&|side| words::per_second(side.qps)),
            pair(&|side| words::millis(side.p50_ms)),
            pair(&|side| words::millis(side.p99_ms)),
            pair(&|side| words::share(Some(side.error_rate))),
            pair(&|side| words::millis(side.cpu_ms_per_request)),
            words::ratio_with_range(ratio.p50, &confidence.p50),
            words::ratio_with_range(ratio.p99, &confidence.p99),
            points(&confidence.error_rate),
        ]
    };
    let head = titles.into_iter().chain(compared).map(str::to_owned).collect();
    Block::Table { head, left: 2, rows: rows.iter().map(row).collect() }
}

fn places(places: &[Upstream]) -> Block {
    let number = |value: Option<u64>| value.map_or_else(|| words::NONE.to_owned(), words::count);
    let row = |place: &Upstream| {
        let used = match place.connections {
            Some(all) => format!("{} of {}", number(place.in_use), words::count(all)),
            None => number(place.in_use),
        };
        vec![
            place.name.clone(),
            place.kind.clone(),
            used,
            number(place.waiting),
            place.cpu_seconds.map_or_else(|| words::NONE.to_owned(), |seconds| format!("{seconds:.1} s")),
            words::bytes(place.memory_bytes),
            place.saturation_seconds.map_or_else(|| words::NONE.to_owned(), words::span),
        ]
    };
    let head = ["Name", "Kind", "In use now", "Waiting now", "CPU since the start", "Memory", "Full in"];
    Block::Table { head: head.map(str::to_owned).to_vec(), left: 2, rows: places.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn side(requests: u64) -> Value {
        json!({
            "requests": requests, "measured": requests - 8, "apart": { "unasked": 7, "retried": 1, "gateway": 0 }, "qps": 26.7, "errors": 3, "error_rate": 0.003, "mean_ms": 21.3, "p50_ms": 20.1,
            "p90_ms": 20.4, "p99_ms": 200.2, "cpu_ms_per_request": 0.4, "cpu_seconds": 4.0, "memory_bytes": 7 << 20,
        })
    }

    fn compared(legacy: &Value, new: &Value) -> Value {
        let faster = json!({ "low": 0.24, "high": 0.26, "verdict": "faster", "reason": null });
        let few = json!({ "low": null, "high": null, "verdict": "not enough yet", "reason": "needs 368 requests" });
        let fewer = json!({ "low": -0.004, "high": -0.001, "verdict": "fewer", "difference": -0.002, "reason": null });
        json!({
            "sides": { "legacy": legacy, "new": new }, "ratio": { "p50": 0.25, "p90": 0.25, "p99": 0.3, "mean": 0.25 },
            "confidence": { "p50": faster, "p90": faster, "p99": few, "mean": faster, "error_rate": fewer },
        })
    }

    fn report() -> Report {
        let route = |name: &str, mut compared: Value| {
            let about = json!({ "name": name, "path": "/x", "serve": "new", "since": "2026-01-02T03:04:05Z" });
            compared.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
            compared
        };
        let mut report = json!({ "sides": { "legacy": side(1600), "new": side(1000) } });
        let mut slower = compared(&side(1600), &side(1000));
        slower["confidence"]["p50"]["verdict"] = json!("slower");
        let routes = [
            route("a|<b>\u{1b}[31m", compared(&side(1600), &side(1000))),
            route("b", slower),
            route("one-sided", compared(&side(90), &Value::Null)),
            route("idle", compared(&Value::Null, &Value::Null)),
        ];
        let pool = json!({
            "name": "php", "kind": "php", "connections": 8, "in_use": 3, "waiting": 0, "cpu_seconds": 12.34,
            "memory_bytes": 7 << 20, "saturation_seconds": 1200,
        });
        let about = json!({
            "window": "1h", "latency": "total", "generation": 7, "at": "2026-01-02T04:04:05Z", "since": "2026-01-02T03:04:00Z", "routes": routes,
            "upstreams": [pool],
        });
        report.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
        serde_json::from_value(report).unwrap()
    }

    fn written() -> Page {
        page(&report(), Question { window: Window::Hour, latency: Latency::Total })
    }

    #[test]
    fn the_markdown_says_the_window_the_counts_and_how_sure_it_is() {
        let text = written().markdown();
        for part in [
            "# Legacy and new, compared\n",
            "The hour up to 2026-01-02T04:04:05Z; times are from a request's head to its answer's last byte. Table generation 7.",
            "- Mean, of 2 routes that both sides served: new is faster.",
            "- P50, of 2 routes that both sides served: new is faster on 1, new is slower on 1.",
            "- P99, of 2 routes that both sides served: not enough yet.",
            "- Errors, of 2 routes that both sides served: new has fewer.",
            "| Requests | 1,600 | 1,000 |",
            "| Kept apart | 1 retried, 7 unasked | 1 retried, 7 unasked |",
            "| Memory | 7.00 MiB | 7.00 MiB |",
            "| a\\|\\<b\\>\u{fffd}\\[31m | new since 2026-01-02T03:04:05Z | 1,600 / 1,000 |",
            "Without a request in this time: idle.",
            "| php | php | 3 of 8 | 0 | 12.3 s | 7.00 MiB | 20 min |",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn where_no_route_had_both_sides_nothing_is_said_of_which_is_faster() {
        let mut report = report();
        report.each.routes.iter_mut().for_each(|row| row.compared.sides.new = None);
        let text = page(&report, Question { window: Window::Hour, latency: Latency::Total }).markdown();
        assert!(text.contains("- No route was served by both sides in this time"), "{text}");
        assert!(!text.contains("new is faster on"), "{text}");
    }

    #[test]
    fn a_gateway_younger_than_the_window_says_since_when_its_figures_are() {
        let mut report = report();
        let told =
            |report: &Report| page(report, Question { window: Window::Hour, latency: Latency::Total }).markdown();
        assert!(!told(&report).contains("Figures are since"));
        report.since = Some("2026-01-02T03:52:00Z".parse().unwrap());
        let text = told(&report);
        assert!(text.contains("Figures are since 2026-01-02T03:52:00Z, of 12 min only"), "{text}");
    }

    #[test]
    fn the_html_needs_nothing_else_and_runs_nothing() {
        let text = written().html();
        assert!(text.starts_with("<!doctype html>\n<html lang=\"en\">"), "{text}");
        assert!(text.contains("<th scope=\"row\">a|&lt;b&gt;\u{fffd}[31m</th>"), "{text}");
        for foreign in ["<script", "http://", "https://", "src=", "url(", "@import"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }
}
