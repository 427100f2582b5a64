//! `strangler top`: the dashboard's table in a terminal, live; once as text or JSON for scripts.
//!
//! [`model`] is what is shown and what keys do, [`view`] how it looks, [`columns`] what is in the table, all three
//! pure; [`screen`] is the terminal and the clock. Whatever it shows and does goes through the admin port, as the
//! dashboard's does, so that it works on the gateway's machine and through `ssh -L` alike.

mod columns;
mod model;
mod screen;
mod view;

use std::io::IsTerminal as _;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use self::columns::Sort;
use self::model::Model;
use super::port::{Port, Unheard, Where, choice};
use super::told::Comparison;
use super::{FAULTY, block_on, coloured, complain, print, with_causes};
use crate::admin::Question;
use crate::telemetry::{Latency, Window};

#[derive(Debug, Args)]
#[command(after_help = "\
A flip takes the admin token: from where the file keeps it, from STRANGLER_ADMIN_TOKEN, or typed when it is asked for.
From another machine: ssh -L 9901:127.0.0.1:9901 HOST, and --admin http://127.0.0.1:9901")]
pub(super) struct Options {
    #[command(flatten)]
    at: Where,
    /// How far back from now
    #[arg(long, default_value = "1m", value_parser = choice(&Window::ALL, Window::as_str))]
    window: Window,
    /// Which time: from head to last byte, the side's own, or waiting for it
    #[arg(long, default_value = "total", value_parser = choice(&Latency::ALL, Latency::as_str))]
    latency: Latency,
    /// List only routes with all of these words in their name, their path or who serves
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: String,
    /// Sort by a column: name, serve, qps.new, p99.new, errors.new, ratio99, …; `-p99.new`: the largest first
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true, value_parser = Sort::parse)]
    sort: Option<Sort>,
    /// Print the table once, as text
    #[arg(long)]
    once: bool,
    /// Print it once, as JSON in the shape of /api/compare
    #[arg(long)]
    json: bool,
}

pub(super) fn run(file: &Path, options: Options) -> u8 {
    let port = match Port::find(&options.at, file) {
        Ok(port) => port,
        Err(code) => return code,
    };
    if options.once || options.json {
        return match block_on(once(&port, &options)) {
            Ok(Ok(text)) => print(&text),
            Ok(Err(unheard)) => complain(&with_causes(&unheard)),
            Err(error) => complain(&error.to_string()),
        };
    }
    if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        complain("this is no terminal: --once prints the table as text, --json as JSON");
        return FAULTY;
    }
    let mut model = Model::new(port.address().to_owned(), options.question(), port.has_token());
    (model.filter, model.sort) = (options.filter, options.sort);
    match block_on(screen::run(port, model, coloured(true))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) | Err(error) => complain(&format!("the terminal fails: {error}")),
    }
}

impl Options {
    fn question(&self) -> Question {
        Question { window: self.window, latency: self.latency }
    }
}

/// The table as it is now.
async fn once(port: &Port, options: &Options) -> Result<String, Unheard> {
    let mut told: Value = port.ask("/api/compare", options.question()).await?;
    let comparison = Comparison::deserialize(&told).map_err(|why| port.foreign(why))?;
    let order = columns::order(&comparison.routes, &options.filter, options.sort);
    if !options.json {
        return Ok(columns::as_text(&comparison, &order, Timestamp::now()));
    }
    if let Some(routes) = told.get_mut("routes") {
        let listed: Vec<Value> = order.iter().filter_map(|place| routes.get(*place).cloned()).collect();
        *routes = listed.into();
    }
    Ok(format!("{}\n", harmless(&told.to_string())))
}

/// The same JSON with nothing in its strings that would steer a terminal.
fn harmless(json: &str) -> String {
    let escaped = |letter: char| match letter.is_control() {
        true => format!("\\u{:04x}", u32::from(letter)),
        false => letter.to_string(),
    };
    if json.chars().any(char::is_control) { json.chars().map(escaped).collect() } else { json.to_owned() }
}

#[cfg(test)]
mod fixture {
    //! A gateway's answers, and a terminal to show them on.

    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::{Value, json};

    use super::model::Wish;
    use super::*;

    pub(super) fn now() -> Timestamp {
        "2026-01-02T03:09:05Z".parse().unwrap()
    }

    fn side(requests: u64, errors: u64, [p50, p99]: [f64; 2]) -> Value {
        json!({
            "requests": requests, "qps": requests as f64 / 60.0, "errors": errors,
            "error_rate": errors as f64 / requests as f64, "mean_ms": p50, "p50_ms": p50, "p90_ms": p99, "p99_ms": p99,
            "p999_ms": p99, "measured": requests - 8, "statuses": {}, "apart": { "unasked": 8, "retried": 0 }, "cpu_ms_per_request": 0.4,
        })
    }

    fn sure(low: Option<f64>, high: Option<f64>, verdict: &str) -> Value {
        let reason = low.is_none().then_some("needs 368 requests on each side; legacy has 200, new has 100");
        json!({ "low": low, "high": high, "enough": low.is_some(), "verdict": verdict, "reason": reason })
    }

    pub(super) fn row(name: &str, path: &str, serve: &str, sides: [Value; 2]) -> Value {
        let [legacy, new] = sides;
        let both = !legacy.is_null() && !new.is_null();
        let few = || sure(None, None, "not enough yet");
        let p50 = if both { sure(Some(0.24), Some(0.26), "faster") } else { few() };
        let ratio = both.then_some(0.25);
        json!({
            "name": name, "path": path, "serve": serve, "since": "2026-01-02T03:04:05Z",
            "sides": { "legacy": legacy, "new": new }, "gateway": 0,
            "ratio": { "p50": ratio, "p90": ratio, "p99": both.then_some(0.3), "mean": ratio },
            "confidence": { "p50": p50, "p90": few(), "p99": few(), "mean": few(), "error_rate": few() },
        })
    }

    pub(super) fn event(routes: &[Value]) -> Value {
        json!({
            "window": "1m", "latency": "total", "generation": 7, "routes": routes, "upstreams": [],
            "reloads": { "accepted": 1, "rejected": 0 }, "rejected": null,
            "loaded": { "when": "2026-01-02T03:04:05Z", "hash": "1f", "warnings": [] },
        })
    }

    pub(super) fn comparison() -> Comparison {
        let order = [side(1600, 0, [20.1, 200.2]), side(600, 0, [5.0, 60.0])];
        let mut order = row("order", "/api/v1/orders/{id}", "legacy", order);
        order["sides"]["new"]["error_rate"] = json!(0.0125);
        let cart = row("Cart", "/cart", "new", [side(10, 0, [1.0, 2.0]), Value::Null]);
        let idle = row("idle", "/idle", "legacy", [Value::Null, Value::Null]);
        serde_json::from_value(event(&[order, cart, idle])).unwrap()
    }

    /// A model that has heard all of it.
    pub(super) fn model() -> Model {
        let question = Question { window: Window::Minute, latency: Latency::Total };
        let mut model = Model::new("127.0.0.1:9901".to_owned(), question, true);
        model.heard(comparison(), now());
        let route = |name, new: Option<&str>| json!({ "name": name, "methods": ["GET"], "legacy": "php", "new": new });
        let routes = [route("order", Some("orders")), route("Cart", Some("carts")), route("idle", None)];
        let table = json!({ "file": "/srv/routes.toml", "generation": 7, "routes": routes });
        model.learned(serde_json::from_value(table).unwrap());
        model
    }

    pub(super) fn press(model: &mut Model, key: KeyCode) -> Option<Wish> {
        model.pressed(KeyEvent::new(key, KeyModifiers::NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn json_says_the_same_and_steers_no_terminal() {
        let json = serde_json::json!({ "name": "a\u{9b}31m\u{7f}\u{1b}[0m" });
        let printed = harmless(&json.to_string());
        assert_eq!(printed, r#"{"name":"a\u009b31m\u007f\u001b[0m"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), json);
    }
}
