//! One metric with all its samples, and the three forms in which scrapers want it.
//!
//! The structs are the messages of Prometheus' `io.prometheus.client`, as far as they are used here;
//! both text formats are written from them, so that all three say the same. Pure: values in, bytes out.
//! Written here since the client library takes neither exemplars nor summaries that it did not gather itself.

use std::fmt::{self, Write as _};
use std::time::Duration;

use prost::Message;

use super::histogram::Distribution;
use super::metrics::{BOUNDS, Format, Kind, Metric};

/// Parts of one doubling in a native histogram, as a power of two: as fine as what is recorded, so
/// that a bucket of ours goes whole into one of these.
const NATIVE_SCHEMA: i32 = 5;
/// What is below counts as zero. It also tells a native histogram without samples from a classic one.
const NATIVE_ZERO: f64 = 1e-9;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "Kind", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Number {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantiles: Vec<Quantile>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

/// What one histogram says: classic buckets always, native ones only where they are asked for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(message, repeated, tag = "12")]
    spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    deltas: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    up_to: u64,
    #[prost(double, tag = "2")]
    bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// One exchange that fell into a bucket, by its trace.
#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The labels of one sample.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Family {
    pub(super) fn of(metric: &Metric) -> Self {
        Self {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            kind: metric.kind.into(),
            samples: Vec::new(),
        }
    }

    pub(super) fn counter<const N: usize>(&mut self, labels: &Labels<'_, N>, value: f64) {
        self.push(Sample { labels: pairs(labels), counter: Some(Number { value }), ..Sample::default() });
    }

    pub(super) fn gauge<const N: usize>(&mut self, labels: &Labels<'_, N>, value: f64) {
        self.push(Sample { labels: pairs(labels), gauge: Some(Number { value }), ..Sample::default() });
    }

    pub(super) fn histogram<const N: usize>(&mut self, labels: &Labels<'_, N>, histogram: Histogram) {
        self.push(Sample { labels: pairs(labels), histogram: Some(histogram), ..Sample::default() });
    }

    /// `quantiles` are of a recent span of time, `of` is all there was from the beginning.
    pub(super) fn summary<const N: usize>(
        &mut self,
        labels: &Labels<'_, N>,
        quantiles: impl IntoIterator<Item = (f64, Duration)>,
        of: &Histogram,
    ) {
        let quantiles =
            quantiles.into_iter().map(|(quantile, value)| Quantile { quantile, value: value.as_secs_f64() }).collect();
        let summary = Summary { count: of.count, sum: of.sum, quantiles };
        self.push(Sample { labels: pairs(labels), summary: Some(summary), ..Sample::default() });
    }

    fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Appends the family in that format.
    pub(super) fn append(&self, out: &mut Vec<u8>, format: Format) -> fmt::Result {
        if format == Format::Protobuf {
            return self.encode_length_delimited(out).map_err(|_| fmt::Error);
        }
        let mut text = String::new();
        Text { out: &mut text, open_metrics: format == Format::OpenMetrics, bounds: Vec::new() }.family(self)?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn pairs(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

impl Histogram {
    /// What a distribution says in the buckets of `format`.
    pub(super) fn of(distribution: &Distribution, format: Format) -> Self {
        let (steps, above) = distribution.steps(&BOUNDS);
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let mut count = 0;
        let buckets = bounds
            .zip(steps.into_iter().chain([above]))
            .map(|(bound, step)| {
                count += step;
                Bucket { up_to: count, bound, exemplar: None }
            })
            .collect();
        let mut histogram = Self { count, sum: distribution.sum().as_secs_f64(), buckets, ..Self::default() };
        if format == Format::Protobuf {
            histogram.add_native(distribution);
        }
        histogram
    }

    /// Fills in the native buckets: bucket `n` of them ends at 2^(n/32) seconds.
    fn add_native(&mut self, distribution: &Distribution) {
        self.schema = NATIVE_SCHEMA;
        self.zero_threshold = NATIVE_ZERO;
        let (mut next, mut last) = (0, 0);
        for (index, count) in native_buckets(distribution) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            match self.spans.last_mut() {
                Some(span) if index == next => span.length += 1,
                _ => self.spans.push(Span { offset: index - next, length: 1 }),
            }
            self.deltas.push(count - last);
            (next, last) = (index + 1, count);
        }
    }

    /// Names an exchange for the bucket that it fell into.
    pub(super) fn exemplify(&mut self, trace_id: u128, took: Duration, since_epoch: Duration) {
        let value = took.as_secs_f64();
        if let Some(bucket) = self.buckets.iter_mut().find(|bucket| value <= bucket.bound) {
            bucket.exemplar = Some(Exemplar {
                labels: pairs(&[("trace_id", &format!("{trace_id:032x}"))]),
                value,
                timestamp: Some(Timestamp {
                    seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or_default(),
                }),
            });
        }
    }
}

/// The native buckets that something fell into, in order, and how much: neighbours of ours may share one.
fn native_buckets(distribution: &Distribution) -> Vec<(i32, u64)> {
    let mut native: Vec<(i32, u64)> = Vec::new();
    for (middle, count) in distribution.middles() {
        let parts = f64::from(1 << NATIVE_SCHEMA);
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a duration is a small number")]
        let index = (middle.as_secs_f64().log2() * parts).ceil() as i32;
        match native.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => native.push((index, count)),
        }
    }
    native
}

/// Both text formats; OpenMetrics names a counter's family without `_total`, and knows exemplars.
struct Text<'a> {
    out: &'a mut String,
    open_metrics: bool,
    /// Bounds as they were written before: they are the same for every series.
    bounds: Vec<(f64, String)>,
}

impl Text<'_> {
    fn family(&mut self, family: &Family) -> fmt::Result {
        let named = if self.open_metrics && family.kind() == Kind::Counter {
            family.name.strip_suffix("_total").unwrap_or(&family.name)
        } else {
            &family.name
        };
        writeln!(self.out, "# HELP {named} {}", family.help)?;
        writeln!(self.out, "# TYPE {named} {}", family.kind().word())?;
        family.samples.iter().try_for_each(|sample| self.sample(&family.name, sample))
    }

    fn sample(&mut self, name: &str, Sample { labels, gauge, counter, summary, histogram }: &Sample) -> fmt::Result {
        // Once for all of the sample's lines.
        let labels = &*written(labels);
        if let Some(Number { value }) = gauge.or(*counter) {
            self.line(name, "", labels, None, value)?;
        }
        if let Some(Summary { count, sum, quantiles }) = summary {
            for Quantile { quantile, value } in quantiles {
                self.line(name, "", labels, Some(("quantile", *quantile)), *value)?;
            }
            self.count_and_sum(name, labels, *count, *sum)?;
        }
        if let Some(Histogram { count, sum, buckets, .. }) = histogram {
            for bucket in buckets {
                self.bucket(name, labels, bucket)?;
            }
            self.count_and_sum(name, labels, *count, *sum)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is told to the nearest number there is")]
    fn bucket(&mut self, name: &str, labels: &str, bucket: &Bucket) -> fmt::Result {
        self.series(name, "_bucket", labels, Some(("le", bucket.bound)));
        number(self.out, bucket.up_to as f64)?;
        if let Some(Exemplar { labels, value, timestamp }) = bucket.exemplar.as_ref().filter(|_| self.open_metrics) {
            self.out.push_str(" # {");
            self.out.push_str(&written(labels));
            self.out.push_str("} ");
            number(self.out, *value)?;
            if let Some(Timestamp { seconds, nanos }) = timestamp {
                write!(self.out, " {seconds}.{nanos:09}")?;
            }
        }
        self.out.push('\n');
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is told to the nearest number there is")]
    fn count_and_sum(&mut self, name: &str, labels: &str, count: u64, sum: f64) -> fmt::Result {
        self.line(name, "_count", labels, None, count as f64)?;
        self.line(name, "_sum", labels, None, sum)
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &str, bound: Option<(&str, f64)>, value: f64) -> fmt::Result {
        self.series(name, suffix, labels, bound);
        number(self.out, value)?;
        self.out.push('\n');
        Ok(())
    }

    /// `name_suffix{label="value",le="0.1"} `
    fn series(&mut self, name: &str, suffix: &str, labels: &str, bound: Option<(&str, f64)>) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        if bound.is_some() || !labels.is_empty() {
            self.out.push('{');
            if let Some((label, bound)) = bound {
                self.out.push_str(label);
                self.out.push_str("=\"");
                self.bound(bound);
                self.out.push_str(if labels.is_empty() { "\"" } else { "\"," });
            }
            self.out.push_str(labels);
            self.out.push('}');
        }
        self.out.push(' ');
    }

    /// With its point, as OpenMetrics has it; the same in both formats, so that the series are the same.
    fn bound(&mut self, bound: f64) {
        if let Some((_, text)) = self.bounds.iter().find(|(known, _)| *known == bound) {
            return self.out.push_str(text);
        }
        let text = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
        self.out.push_str(&text);
        self.bounds.push((bound, text));
    }
}

/// `label="value",other="value"`
fn written(labels: &[Label]) -> String {
    let mut out = String::new();
    for (n, Label { name, value }) in labels.iter().enumerate() {
        out.push_str(if n == 0 { "" } else { "," });
        out.push_str(name);
        out.push_str("=\"");
        for piece in value.split_inclusive(['"', '\\', '\n']) {
            let plain = piece.trim_end_matches(['"', '\\', '\n']);
            out.push_str(plain);
            out.push_str(match piece.strip_prefix(plain) {
                Some("\"") => "\\\"",
                Some("\\") => "\\\\",
                Some("\n") => "\\n",
                _ => "",
            });
        }
        out.push('"');
    }
    out
}

/// A whole number without a point: a counter is easier to read that way, and shorter.
fn number(out: &mut String, value: f64) -> fmt::Result {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value.fract() == 0.0 && (0.0..=EXACT).contains(&value) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is one of the whole numbers")]
        return write!(out, "{}", value as u64);
    }
    write!(out, "{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(millis: &[u64]) -> Distribution {
        let recorder = super::super::histogram::Histogram::default();
        for millis in millis {
            recorder.record(Duration::from_millis(*millis));
        }
        let mut distribution = Distribution::default();
        recorder.add_to(&mut distribution);
        distribution
    }

    /// Counts by the native bucket's upper bound, as a scraper adds spans and deltas up.
    fn read_back(histogram: &Histogram) -> Vec<(f64, i64)> {
        let mut deltas = histogram.deltas.iter();
        let (mut index, mut count) = (0, 0);
        let mut read = Vec::new();
        for span in &histogram.spans {
            index += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                read.push((2_f64.powf(f64::from(index) / 32.0), count));
                index += 1;
            }
        }
        assert!(deltas.next().is_none());
        read
    }

    #[test]
    fn native_buckets_hold_every_duration_next_to_where_it_was() {
        let millis = [1, 1, 5, 20, 21, 500, 60_000];
        let histogram = Histogram::of(&recorded(&millis), Format::Protobuf);
        let read = read_back(&histogram);
        assert_eq!(read.iter().map(|(_, count)| count).sum::<i64>(), 7);
        let mut told =
            read.iter().flat_map(|(bound, count)| std::iter::repeat_n(bound, usize::try_from(*count).unwrap()));
        for millis in millis {
            let (exact, told) = (millis as f64 / 1e3, told.next().unwrap());
            assert!((told / exact - 1.0).abs() < 0.04, "{millis} ms is told as below {told}");
        }
        assert_eq!(Histogram::of(&recorded(&millis), Format::OpenMetrics).spans, []);
    }

    #[test]
    fn a_native_histogram_without_samples_is_still_one() {
        let empty = Histogram::of(&Distribution::default(), Format::Protobuf);
        assert!(empty.zero_threshold > 0.0 && empty.spans.is_empty() && empty.count == 0);
    }

    #[test]
    fn an_exemplar_stands_in_its_own_bucket_and_only_where_the_format_has_room() {
        let metric = Metric { name: "d_seconds", kind: Kind::Histogram, labels: &["a"], help: "Help" };
        let mut histogram = Histogram::of(&recorded(&[25]), Format::OpenMetrics);
        histogram.exemplify(0xabc, Duration::from_millis(25), Duration::new(7, 500_000_000));
        let mut family = Family::of(&metric);
        family.histogram(&[("a", "b")], histogram);
        let written = |format| {
            let mut out = Vec::new();
            family.append(&mut out, format).unwrap();
            String::from_utf8(out).unwrap()
        };
        let id = format!("{:032x}", 0xabc);
        let line = format!("d_seconds_bucket{{le=\"0.03\",a=\"b\"}} 1 # {{trace_id=\"{id}\"}} 0.025 7.500000000\n");
        assert!(written(Format::OpenMetrics).contains(&line), "{}", written(Format::OpenMetrics));
        assert!(!written(Format::Prometheus).contains("trace_id"));
    }
}
