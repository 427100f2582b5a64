//! Numbers and times as people read them, on the dashboard and here alike. What is not known is a dash.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::told::Sure;

pub(super) const NONE: &str = "–";
pub(super) const NOT_ENOUGH: &str = "not enough yet";

/// `1,234,567`
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits, or all of them before the point.
fn three(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes the nearest integer")]
    match value {
        100.0.. => count(value.round() as u64),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn millis(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value < 0.005 => "0 ms".to_owned(),
        Some(value) if value >= 1000.0 => format!("{} s", three(value / 1000.0)),
        Some(value) => format!("{} ms", three(value)),
    }
}

pub(super) fn per_second(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| if value == 0.0 { "0".to_owned() } else { three(value) })
}

pub(super) fn share(value: Option<f64>) -> String {
    match value.map(|value| value * 100.0) {
        None => NONE.to_owned(),
        Some(0.0) => "0 %".to_owned(),
        Some(percent) if percent < 0.01 => "<0.01 %".to_owned(),
        Some(percent) if percent < 10.0 => format!("{percent:.2} %"),
        Some(percent) => format!("{percent:.1} %"),
    }
}

pub(super) fn bytes(value: Option<u64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |bytes| format!("{} MiB", three(bytes as f64 / 1_048_576.0)))
}

/// With two digits that say something, however small it is: 0.00 would be no ratio.
pub(super) fn times(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the zeros behind a point are few")]
    let digits = match value {
        10.0.. => 1,
        0.1.. => 2,
        // The port tells five digits behind the point.
        0.000_01.. => 1 + (-value.log10()).ceil() as usize,
        _ => 2,
    };
    format!("{value:.digits$}×")
}

/// What is kept out of the curves, by the reason: `3 retried, 1,230 unasked`.
pub(super) fn apart(counts: &BTreeMap<String, u64>) -> String {
    let said = counts
        .iter()
        .filter(|(_, of)| **of > 0)
        .map(|(reason, of)| format!("{} {}", count(*of), reason.replace('_', " ")));
    let said: Vec<String> = said.collect();
    if said.is_empty() { NONE.to_owned() } else { said.join(", ") }
}

/// How long it is from one moment to another, in the largest unit that fits.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    span(u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0))
}

pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// New over legacy, with a sign for what may be concluded: ▼ faster, ▲ slower, ≈ no difference beyond chance.
/// While nothing may be, it is not shown at all: a number would be believed.
pub(super) fn ratio(value: Option<f64>, sure: &Sure) -> String {
    let sign = match sure.verdict.as_str() {
        "faster" => '▼',
        "slower" => '▲',
        "unclear" => '≈',
        _ => return if value.is_some() { NOT_ENOUGH.to_owned() } else { NONE.to_owned() },
    };
    value.map_or_else(|| NONE.to_owned(), |value| format!("{sign} {}", times(value)))
}

/// The same with the range that holds the truth.
pub(super) fn ratio_with_range(value: Option<f64>, sure: &Sure) -> String {
    let ratio = ratio(value, sure);
    match sure.interval() {
        Some((low, high)) => format!("{ratio} ({} to {})", times(low).trim_end_matches('×'), times(high)),
        None => ratio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let cases = [0.001, 0.123, 9.994, 20.13, 999.4, 1234.0, 61_000.0].map(|value| millis(Some(value)));
        assert_eq!(cases, ["0 ms", "0.12 ms", "9.99 ms", "20.1 ms", "999 ms", "1.23 s", "61.0 s"]);
        assert_eq!([0.0, 26.71, 12_345.6].map(|value| per_second(Some(value))), ["0", "26.7", "12,346"]);
        let shares = [0.0, 0.000_01, 0.0123, 0.5].map(|value| share(Some(value)));
        assert_eq!(shares, ["0 %", "<0.01 %", "1.23 %", "50.0 %"]);
        assert_eq!([millis(None), per_second(None), share(None), bytes(None)], [NONE; 4]);
        assert_eq!(bytes(Some(7 << 20)), "7.00 MiB");
        assert_eq!([5, 61, 7200, 200_000].map(span), ["5 s", "1 min", "2 h", "2 d"]);
    }

    #[test]
    fn a_ratio_of_too_few_requests_is_no_number() {
        let sure = |json: &str| serde_json::from_str::<Sure>(json).unwrap();
        let faster = sure(r#"{"low": 0.24, "high": 0.26, "verdict": "faster", "reason": null}"#);
        assert_eq!(ratio(Some(0.25), &faster), "▼ 0.25×");
        assert_eq!(ratio_with_range(Some(0.25), &faster), "▼ 0.25× (0.24 to 0.26×)");
        let few = sure(r#"{"low": null, "high": null, "verdict": "not enough yet", "reason": "needs 368 requests"}"#);
        assert_eq!([ratio(Some(0.25), &few), ratio_with_range(Some(0.25), &few)], [NOT_ENOUGH; 2]);
        assert_eq!(ratio_with_range(None, &few), NONE);
        let small = [0.000_02, 0.004_2, 0.042, 0.42, 4.2, 42.0, 0.0].map(times);
        assert_eq!(small, ["0.000020×", "0.0042×", "0.042×", "0.42×", "4.20×", "42.0×", "0.00×"]);
    }
}
