//! Both text formats: Prometheus' own, and OpenMetrics, which names a counter's family without `_total` and has
//! room for exemplars.
//!
//! Pure: values in, bytes out. A scrape of a thousand routes has more than a hundred thousand lines, so what is
//! the same in many of them is written out once: a sample's labels, a bucket's bound.

use std::io::Write as _;
use std::time::Duration;

use super::counters::Exemplar;
use super::family::{Histogram, Labels, Value};
use super::line::append_number;
use super::metrics::{BOUNDS, Kind, Metric};

/// Appends a metric with all its samples.
pub(super) fn append<'a, const N: usize>(
    out: &mut Vec<u8>,
    metric: &Metric,
    samples: impl Iterator<Item = (Labels<'a, N>, Value<'a>)>,
    open_metrics: bool,
) {
    let Metric { name, kind, help, .. } = *metric;
    let named = match kind {
        Kind::Counter if open_metrics => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    let head = format!("# HELP {named} {help}\n# TYPE {named} {}\n", kind.word());
    out.extend_from_slice(head.as_bytes());
    let mut family = Family { out, name, open_metrics, buckets: Vec::new(), quantiles: Vec::new(), labels: Vec::new() };
    if kind == Kind::Histogram {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        family.buckets = bounds.map(|bound| bounded(name, "_bucket", "le", bound)).collect();
    }
    for (labels, value) in samples {
        family.labels.clear();
        append_labels(&mut family.labels, &labels);
        family.sample(value);
    }
}

struct Family<'o> {
    out: &'o mut Vec<u8>,
    name: &'static str,
    open_metrics: bool,
    /// How the lines of each bucket begin.
    buckets: Vec<String>,
    /// The same of each quantile that was met.
    quantiles: Vec<(f64, String)>,
    /// Those of the sample that is written.
    labels: Vec<u8>,
}

impl Family<'_> {
    fn sample(&mut self, value: Value<'_>) {
        match value {
            Value::Number(value) => {
                self.series("");
                self.value(value);
            }
            Value::Summary(quantiles, of) => {
                for (quantile, at) in quantiles {
                    self.begin_of_quantile(*quantile);
                    self.end_of_bounded();
                    self.seconds(*at);
                    self.out.push(b'\n');
                }
                self.count_and_sum(of);
            }
            Value::Histogram(histogram) => {
                for (bucket, count) in histogram.up_to.into_iter().enumerate() {
                    let Some(begin) = self.buckets.get(bucket) else { continue };
                    self.out.extend_from_slice(begin.as_bytes());
                    self.end_of_bounded();
                    append_number(self.out, count);
                    if let Some(exemplar) = histogram.exemplar(bucket).filter(|_| self.open_metrics) {
                        self.exemplar(exemplar);
                    }
                    self.out.push(b'\n');
                }
                self.count_and_sum(histogram);
            }
        }
    }

    fn begin_of_quantile(&mut self, quantile: f64) {
        if let Some((_, begin)) = self.quantiles.iter().find(|(known, _)| *known == quantile) {
            return self.out.extend_from_slice(begin.as_bytes());
        }
        let begin = bounded(self.name, "", "quantile", quantile);
        self.out.extend_from_slice(begin.as_bytes());
        self.quantiles.push((quantile, begin));
    }

    fn count_and_sum(&mut self, of: &Histogram) {
        self.series("_count");
        append_number(self.out, of.count());
        self.out.push(b'\n');
        self.series("_sum");
        self.seconds(of.sum);
        self.out.push(b'\n');
    }

    /// `name_suffix{label="value"} `
    fn series(&mut self, suffix: &str) {
        self.out.extend_from_slice(self.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        if !self.labels.is_empty() {
            self.out.push(b'{');
            self.out.extend_from_slice(&self.labels);
            self.out.push(b'}');
        }
        self.out.push(b' ');
    }

    /// What follows on [`bounded`].
    fn end_of_bounded(&mut self) {
        if !self.labels.is_empty() {
            self.out.push(b',');
            self.out.extend_from_slice(&self.labels);
        }
        self.out.extend_from_slice(b"} ");
    }

    fn value(&mut self, value: f64) {
        self.number(value);
        self.out.push(b'\n');
    }

    /// A whole number without a point: a counter is easier to read that way, and shorter.
    fn number(&mut self, value: f64) {
        const EXACT: f64 = (1_u64 << 53) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is one of the whole numbers")]
        if value.fract() == 0.0 && (0.0..=EXACT).contains(&value) {
            append_number(self.out, value as u64);
        } else {
            // Writing into memory does not fail.
            let _ = write!(self.out, "{value}");
        }
    }

    /// Exactly, and a scrape has too many of them to have the shortest text of a floating number looked for.
    fn seconds(&mut self, duration: Duration) {
        append_number(self.out, duration.as_secs());
        let mut digits = [b'0'; 9];
        let mut rest = duration.subsec_nanos();
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        if let Some(last) = digits.iter().rposition(|digit| *digit != b'0') {
            self.out.push(b'.');
            self.out.extend_from_slice(digits.get(..=last).unwrap_or_default());
        }
    }

    /// ` # {trace_id="..."} 0.025 1700000000.042000000`
    fn exemplar(&mut self, Exemplar { trace_id, took, since_epoch }: &Exemplar) {
        let _ = write!(self.out, " # {{trace_id=\"{trace_id:032x}\"}} ");
        self.seconds(*took);
        let _ = write!(self.out, " {}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos());
    }
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
            let (name, buckets, quantiles, labels) = ("d", Vec::new(), Vec::new(), Vec::new());
            Family { out: &mut out, name, open_metrics: false, buckets, quantiles, labels }
                .seconds(Duration::new(seconds, nanos));
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
            append(&mut out, &metric, [([("a", "b")], Value::Histogram(&histogram))].into_iter(), open_metrics);
            String::from_utf8(out).unwrap()
        };
        let id = format!("{:032x}", 0xabc);
        let line = format!("d_seconds_bucket{{le=\"0.03\",a=\"b\"}} 1 # {{trace_id=\"{id}\"}} 0.025 7.500000000\n");
        assert!(written(true).contains(&line), "{}", written(true));
        assert!(!written(false).contains("trace_id"));
    }
}
