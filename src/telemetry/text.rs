//! Both text formats: Prometheus' own, and OpenMetrics, which names a counter's family without `_total` and has
//! room for exemplars.
//!
//! Pure: values in, bytes out. A scrape of a thousand routes has more than a hundred thousand lines, so what is
//! the same in many of them is written out once: a sample's labels, a bucket's bound.

use std::io::Write as _;
use std::time::Duration;

use super::counters::Exemplar;
use super::family::{Histogram, Value};
use super::line::append_number;
use super::metrics::{BOUNDS, Kind, Metric};

/// A metric that is being written, one sample after the other.
pub(super) struct Family {
    name: &'static str,
    open_metrics: bool,
    /// How the lines of each bucket begin.
    buckets: Vec<String>,
    /// The same of each quantile that was met.
    quantiles: Vec<(f64, String)>,
    /// Those of the sample that is written.
    labels: Vec<u8>,
}

impl Family {
    /// Appends what stands above a metric's samples.
    pub(super) fn begin(out: &mut Vec<u8>, metric: &Metric, open_metrics: bool) -> Self {
        let Metric { name, kind, help, .. } = *metric;
        let named = match kind {
            Kind::Counter if open_metrics => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let head = format!("# HELP {named} {help}\n# TYPE {named} {}\n", kind.word());
        out.extend_from_slice(head.as_bytes());
        let mut buckets = Vec::new();
        if kind == Kind::Histogram {
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            buckets.extend(bounds.map(|bound| bounded(name, "_bucket", "le", bound)));
        }
        Self { name, open_metrics, buckets, quantiles: Vec::new(), labels: Vec::new() }
    }

    /// Appends one sample.
    pub(super) fn sample(&mut self, out: &mut Vec<u8>, labels: &[(&'static str, &str)], value: Value<'_>) {
        self.labels.clear();
        append_labels(&mut self.labels, labels);
        match value {
            Value::Number(value) => {
                self.append_series(out, "");
                append_float(out, value);
                out.push(b'\n');
            }
            Value::Summary(quantiles, of) => {
                for (quantile, at) in quantiles {
                    self.append_quantile(out, *quantile);
                    self.append_end_of_bounded(out);
                    append_seconds(out, *at);
                    out.push(b'\n');
                }
                self.append_count_and_sum(out, of);
            }
            Value::Histogram(histogram) => {
                for (bucket, count) in histogram.up_to.into_iter().enumerate() {
                    let Some(begin) = self.buckets.get(bucket) else { continue };
                    out.extend_from_slice(begin.as_bytes());
                    self.append_end_of_bounded(out);
                    append_number(out, count);
                    if let Some(exemplar) = histogram.exemplar(bucket).filter(|_| self.open_metrics) {
                        append_exemplar(out, exemplar);
                    }
                    out.push(b'\n');
                }
                self.append_count_and_sum(out, histogram);
            }
        }
    }

    fn append_quantile(&mut self, out: &mut Vec<u8>, quantile: f64) {
        if let Some((_, begin)) = self.quantiles.iter().find(|(known, _)| *known == quantile) {
            return out.extend_from_slice(begin.as_bytes());
        }
        let begin = bounded(self.name, "", "quantile", quantile);
        out.extend_from_slice(begin.as_bytes());
        self.quantiles.push((quantile, begin));
    }

    fn append_count_and_sum(&self, out: &mut Vec<u8>, of: &Histogram) {
        self.append_series(out, "_count");
        append_number(out, of.count());
        out.push(b'\n');
        self.append_series(out, "_sum");
        append_seconds(out, of.sum);
        out.push(b'\n');
    }

    /// `name_suffix{label="value"} `
    fn append_series(&self, out: &mut Vec<u8>, suffix: &str) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        if !self.labels.is_empty() {
            out.push(b'{');
            out.extend_from_slice(&self.labels);
            out.push(b'}');
        }
        out.push(b' ');
    }

    /// What follows on [`bounded`].
    fn append_end_of_bounded(&self, out: &mut Vec<u8>) {
        if !self.labels.is_empty() {
            out.push(b',');
            out.extend_from_slice(&self.labels);
        }
        out.extend_from_slice(b"} ");
    }
}

/// A whole number without a point: a counter is easier to read that way, and shorter.
fn append_float(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = (1_u64 << 53) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is one of the whole numbers")]
    if value.fract() == 0.0 && (0.0..=EXACT).contains(&value) {
        append_number(out, value as u64);
    } else {
        // Writing into memory does not fail.
        let _ = write!(out, "{value}");
    }
}

/// Exactly, and a scrape has too many of them to have the shortest text of a floating number looked for.
fn append_seconds(out: &mut Vec<u8>, duration: Duration) {
    append_number(out, duration.as_secs());
    let mut digits = [b'0'; 9];
    let mut rest = duration.subsec_nanos();
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    if let Some(last) = digits.iter().rposition(|digit| *digit != b'0') {
        out.push(b'.');
        out.extend_from_slice(digits.get(..=last).unwrap_or_default());
    }
}

/// ` # {trace_id="..."} 0.025 1700000000.042000000`
fn append_exemplar(out: &mut Vec<u8>, Exemplar { trace_id, took, since_epoch }: &Exemplar) {
    let _ = write!(out, " # {{trace_id=\"{trace_id:032x}\"}} ");
    append_seconds(out, *took);
    let _ = write!(out, " {}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos());
}

/// `name_suffix{le="0.1"`: with its point, as OpenMetrics has it; the same in both formats, so that the series are
/// the same.
fn bounded(name: &str, suffix: &str, label: &str, bound: f64) -> String {
    let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
    format!("{name}{suffix}{{{label}=\"{bound}\"")
}

/// `label="value",other="value"`
fn append_labels(out: &mut Vec<u8>, labels: &[(&'static str, &str)]) {
    for (n, (name, value)) in labels.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        for byte in value.bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                plain => out.push(plain),
            }
        }
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::histogram::Distribution;
    use super::super::metrics::Format;
    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_written_in_seconds_and_exactly(seconds in 0..=u64::from(u32::MAX), nanos in 0..1_000_000_000_u32) {
            let mut out = Vec::new();
            append_seconds(&mut out, Duration::new(seconds, nanos));
            let text = String::from_utf8(out).unwrap();
            let (whole, behind) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert_eq!(whole.parse::<u64>().unwrap(), seconds);
            prop_assert_eq!(format!("{behind:0<9}").parse::<u32>().unwrap(), nanos);
            prop_assert!(!behind.ends_with('0'), "{}", text);
        }
    }

    #[test]
    fn an_exemplar_stands_in_its_own_bucket_and_only_where_the_format_has_room() {
        let metric = Metric { name: "d_seconds", kind: Kind::Histogram, labels: &["a"], help: "Help" };
        let took = Duration::from_millis(25);
        let recorder = super::super::histogram::Histogram::default();
        recorder.record(took);
        let mut distribution = Distribution::default();
        recorder.add_to(&mut distribution);
        let mut histogram = Histogram::of(&distribution, Format::OpenMetrics);
        histogram.exemplify(Exemplar { trace_id: 0xabc, took, since_epoch: Duration::new(7, 500_000_000) });
        let written = |open_metrics| {
            let mut out = Vec::new();
            let mut family = Family::begin(&mut out, &metric, open_metrics);
            family.sample(&mut out, &[("a", "b")], Value::Histogram(&histogram));
            String::from_utf8(out).unwrap()
        };
        let id = format!("{:032x}", 0xabc);
        let line = format!("d_seconds_bucket{{le=\"0.03\",a=\"b\"}} 1 # {{trace_id=\"{id}\"}} 0.025 7.500000000\n");
        assert!(written(true).contains(&line), "{}", written(true));
        assert!(!written(false).contains("trace_id"));
    }
}
