//! What the admin port tells, as `top` and `report` read it.
//!
//! Every text of it was written by somebody else and may end up on a terminal: whatever steers one is taken out
//! as it is read ([`plain`]), so that nothing behind this file has to think of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The comparison of all routes; what only events have is absent elsewhere.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Comparison {
    #[serde(deserialize_with = "text")]
    pub(super) window: String,
    #[serde(deserialize_with = "text")]
    pub(super) latency: String,
    pub(super) generation: u64,
    pub(super) routes: Vec<Row>,
    pub(super) loaded: Option<Loaded>,
    pub(super) rejected: Option<Rejected>,
}

/// Both sides of one route.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Row {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(deserialize_with = "text")]
    pub(super) path: String,
    #[serde(deserialize_with = "text")]
    pub(super) serve: String,
    #[serde(deserialize_with = "moment")]
    pub(super) since: Timestamp,
    #[serde(flatten)]
    pub(super) compared: Compared,
}

/// Two sides, and what can be said of them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Compared {
    pub(super) sides: Sides,
    pub(super) ratio: Ratios,
    pub(super) confidence: Confidence,
}

/// `None`: nothing was asked of it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sides {
    pub(super) legacy: Option<Figures>,
    pub(super) new: Option<Figures>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Figures {
    pub(super) requests: u64,
    /// Those of them that the latencies are of.
    pub(super) measured: u64,
    /// How many are not, by the reason.
    #[serde(deserialize_with = "counts")]
    pub(super) apart: BTreeMap<String, u64>,
    pub(super) qps: Option<f64>,
    pub(super) errors: u64,
    pub(super) error_rate: f64,
    pub(super) mean_ms: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p90_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) cpu_ms_per_request: Option<f64>,
    /// Of a side over all routes only.
    pub(super) memory_bytes: Option<u64>,
}

/// New over legacy.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ratios {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// What is sure of each.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Confidence {
    pub(super) p50: Sure,
    pub(super) p99: Sure,
    pub(super) mean: Sure,
    pub(super) error_rate: Sure,
}

/// The interval that holds the truth in 95 of 100 cases.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sure {
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    #[serde(deserialize_with = "text")]
    pub(super) verdict: String,
    /// Why there is no interval.
    #[serde(default, deserialize_with = "text_or_none")]
    pub(super) reason: Option<String>,
    /// Of error rates, which have no ratio where one is 0.
    pub(super) difference: Option<f64>,
}

impl Sure {
    /// The interval, if there are requests enough for one.
    pub(super) fn interval(&self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Loaded {
    #[serde(deserialize_with = "text")]
    pub(super) hash: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rejected {
    /// All faults of the file.
    #[serde(deserialize_with = "lines")]
    pub(super) faults: String,
}

/// The table in force.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Table {
    #[serde(deserialize_with = "text")]
    pub(super) file: String,
    pub(super) generation: u64,
    pub(super) routes: Vec<Route>,
}

/// What of a route does not change from second to second.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Route {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(deserialize_with = "texts")]
    pub(super) methods: Vec<String>,
    #[serde(deserialize_with = "text_or_none")]
    pub(super) legacy: Option<String>,
    #[serde(deserialize_with = "text_or_none")]
    pub(super) new: Option<String>,
}

/// The comparison, and both sides over all routes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Report {
    #[serde(deserialize_with = "moment")]
    pub(super) at: Timestamp,
    /// Of when the oldest figures are; a gateway that runs for less than the window has none of before.
    #[serde(deserialize_with = "moment_or_none")]
    pub(super) since: Option<Timestamp>,
    /// Over all routes.
    pub(super) sides: Sides,
    #[serde(flatten)]
    pub(super) each: Comparison,
    pub(super) upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Upstream {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(deserialize_with = "text")]
    pub(super) kind: String,
    pub(super) connections: Option<u64>,
    pub(super) in_use: Option<u64>,
    pub(super) waiting: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) saturation_seconds: Option<u64>,
}

/// What became of a flip.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Flipped {
    #[serde(deserialize_with = "text")]
    pub(super) route: String,
    #[serde(deserialize_with = "text_or_none")]
    pub(super) from: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) to: String,
    #[serde(deserialize_with = "text")]
    pub(super) place: String,
    pub(super) changed: bool,
}

/// A text without what would steer a terminal, or turn the direction of what is written around it.
pub(super) fn plain(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|letter| if steers(letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// A text of several lines, such as a file's faults, each of them plain.
pub(super) fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn text<'de, D: Deserializer<'de>>(told: D) -> Result<String, D::Error> {
    String::deserialize(told).map(|text| plain(&text))
}

fn text_or_none<'de, D: Deserializer<'de>>(told: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(told).map(|text| text.as_deref().map(plain))
}

fn lines<'de, D: Deserializer<'de>>(told: D) -> Result<String, D::Error> {
    String::deserialize(told).map(|text| plain_lines(&text))
}

fn texts<'de, D: Deserializer<'de>>(told: D) -> Result<Vec<String>, D::Error> {
    Vec::<String>::deserialize(told).map(|texts| texts.iter().map(|text| plain(text)).collect())
}

fn counts<'de, D: Deserializer<'de>>(told: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(told)?;
    Ok(counts.into_iter().map(|(reason, count)| (plain(&reason), count)).collect())
}

fn moment<'de, D: Deserializer<'de>>(told: D) -> Result<Timestamp, D::Error> {
    String::deserialize(told)?.parse().map_err(D::Error::custom)
}

fn moment_or_none<'de, D: Deserializer<'de>>(told: D) -> Result<Option<Timestamp>, D::Error> {
    let told = Option::<String>::deserialize(told)?;
    told.map(|moment| moment.parse().map_err(D::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_taken_out() {
        assert_eq!(plain("/a\u{1b}[2J\u{9b}31m\r\n\u{7f}/é/\u{202e}x"), "/a�[2J�31m���/é/�x");
        let rejected: Rejected = serde_json::from_str(r#"{"faults": "one\u001b[0m\n  two"}"#).unwrap();
        assert_eq!(rejected.faults, "one�[0m\n  two");
    }
}
