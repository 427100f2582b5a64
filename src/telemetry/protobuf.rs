//! Prometheus' protobuf: messages of `io.prometheus.client`, as far as they are used here, one family after
//! the other with its length before it. The only form that has native histograms.
//!
//! Pure: values in, bytes out. One sample's message is written and made the next one's, since a family may have
//! thousands.

use std::time::Duration;

use prost::Message;
use prost::encoding::encode_varint;

use super::counters;
use super::family::{self, NATIVE_SCHEMA, Value};
use super::metrics::{BOUNDS, Kind, Metric};

/// What is below counts as zero. It also tells a native histogram without samples from a classic one.
const NATIVE_ZERO: f64 = 1e-9;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
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

#[derive(Clone, PartialEq, Message)]
struct Histogram {
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
    /// Packed numbers (sint64), each written once: most of a scrape are these, and as numbers their length would be
    /// added up anew for every message around them.
    #[prost(bytes = "vec", tag = "13")]
    deltas: Vec<u8>,
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

/// A metric that is being written, one sample after the other.
pub(super) struct Family {
    kind: Kind,
    /// Where its length is to stand, which is known at its end.
    from: usize,
    /// A message is its fields one after the other: one with a single sample is what that sample adds to a family.
    more: MetricFamily,
}

impl Family {
    /// Appends what stands above a metric's samples.
    pub(super) fn begin(out: &mut Vec<u8>, metric: &Metric) -> Self {
        let Metric { name, kind, help, .. } = *metric;
        let head =
            MetricFamily { name: name.to_owned(), help: help.to_owned(), kind: kind.into(), samples: Vec::new() };
        let more = MetricFamily { samples: vec![Sample::default()], ..MetricFamily::default() };
        let from = out.len();
        head.encode_raw(out);
        Self { kind, from, more }
    }

    /// Appends one sample. What was appended since the beginning is to stay there until the end.
    pub(super) fn sample(&mut self, out: &mut Vec<u8>, labels: &[(&'static str, &str)], value: Value<'_>) {
        if let [sample] = &mut *self.more.samples {
            sample.say(self.kind, labels, value);
        }
        self.more.encode_raw(out);
    }

    /// Writes its length before it.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        let mut length = Vec::new();
        encode_varint((out.len() - self.from) as u64, &mut length);
        out.splice(self.from..self.from, length);
    }
}

impl Sample {
    /// Says this and nothing of what it said before, of which there is the room.
    fn say(&mut self, kind: Kind, labels: &[(&'static str, &str)], value: Value<'_>) {
        self.labels.resize_with(labels.len(), Label::default);
        for (label, (name, value)) in self.labels.iter_mut().zip(labels) {
            (*name).clone_into(&mut label.name);
            (*value).clone_into(&mut label.value);
        }
        match value {
            Value::Number(value) if kind == Kind::Counter => self.counter = Some(Number { value }),
            Value::Number(value) => self.gauge = Some(Number { value }),
            Value::Summary(quantiles, of) => self.summary.get_or_insert_default().say(quantiles, of),
            Value::Histogram(histogram) => self.histogram.get_or_insert_default().say(histogram),
        }
    }
}

impl Summary {
    fn say(&mut self, quantiles: &[(f64, Duration)], of: &family::Histogram) {
        (self.count, self.sum) = (of.count(), of.sum.as_secs_f64());
        self.quantiles.clear();
        let quantiles =
            quantiles.iter().map(|(quantile, at)| Quantile { quantile: *quantile, value: at.as_secs_f64() });
        self.quantiles.extend(quantiles);
    }
}

impl Histogram {
    fn say(&mut self, of: &family::Histogram) {
        (self.count, self.sum) = (of.count(), of.sum.as_secs_f64());
        if self.buckets.is_empty() {
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            self.buckets.extend(bounds.map(|bound| Bucket { bound, ..Bucket::default() }));
        }
        for (n, (bucket, up_to)) in self.buckets.iter_mut().zip(of.up_to).enumerate() {
            bucket.up_to = up_to;
            bucket.exemplar = of.exemplar(n).map(Exemplar::of);
        }
        if let Some(native) = of.native() {
            self.say_native(native);
        }
    }

    fn say_native(&mut self, native: impl Iterator<Item = (i32, u64)>) {
        self.schema = NATIVE_SCHEMA;
        self.zero_threshold = NATIVE_ZERO;
        self.spans.clear();
        self.deltas.clear();
        let (mut next, mut last) = (0, 0);
        for (index, count) in native {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            match self.spans.last_mut() {
                Some(span) if index == next => span.length += 1,
                _ => self.spans.push(Span { offset: index - next, length: 1 }),
            }
            encode_varint(zigzag(count - last), &mut self.deltas);
            (next, last) = (index + 1, count);
        }
    }
}

/// As protobuf writes a number that may be negative: small ones short, whatever their sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

impl Exemplar {
    fn of(of: &counters::Exemplar) -> Self {
        let timestamp = Timestamp {
            seconds: i64::try_from(of.since_epoch.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(of.since_epoch.subsec_nanos()).unwrap_or_default(),
        };
        let trace_id = Label { name: "trace_id".to_owned(), value: format!("{:032x}", of.trace_id) };
        Self { labels: vec![trace_id], value: of.took.as_secs_f64(), timestamp: Some(timestamp) }
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::decode_varint;

    use super::super::histogram::Distribution;
    use super::super::metrics::Format;
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

    fn message(of: &Distribution, format: Format) -> Histogram {
        let mut message = Histogram::default();
        message.say(&family::Histogram::of(of, format));
        message
    }

    /// Counts by the native bucket's upper bound, as a scraper adds spans and deltas up.
    fn read_back(histogram: &Histogram) -> Vec<(f64, i64)> {
        let mut deltas = &*histogram.deltas;
        let (mut index, mut count) = (0, 0);
        let mut read = Vec::new();
        for span in &histogram.spans {
            index += span.offset;
            for _ in 0..span.length {
                let delta = decode_varint(&mut deltas).unwrap();
                count += (delta >> 1).cast_signed() ^ -(delta & 1).cast_signed();
                read.push((2_f64.powf(f64::from(index) / 32.0), count));
                index += 1;
            }
        }
        assert!(deltas.is_empty());
        read
    }

    #[test]
    fn native_buckets_hold_every_duration_next_to_where_it_was() {
        let millis = [1, 1, 5, 20, 21, 500, 60_000];
        let histogram = message(&recorded(&millis), Format::Protobuf);
        let read = read_back(&histogram);
        assert_eq!(read.iter().map(|(_, count)| count).sum::<i64>(), 7);
        let mut told =
            read.iter().flat_map(|(bound, count)| std::iter::repeat_n(bound, usize::try_from(*count).unwrap()));
        for millis in millis {
            let (exact, told) = (millis as f64 / 1e3, told.next().unwrap());
            assert!((told / exact - 1.0).abs() < 0.04, "{millis} ms is told as below {told}");
        }
        assert_eq!(message(&recorded(&millis), Format::OpenMetrics).spans, []);
    }

    #[test]
    fn a_native_histogram_without_samples_is_still_one() {
        let empty = message(&Distribution::default(), Format::Protobuf);
        assert!(empty.zero_threshold > 0.0 && empty.spans.is_empty() && empty.count == 0);
    }

    #[test]
    fn a_family_is_one_message_of_all_its_samples() {
        let metric = Metric { name: "n_total", kind: Kind::Counter, labels: &["a"], help: "Help" };
        let samples = [("long", 1.0), ("b", 2.0)].map(|(label, value)| ([("a", label)], Value::Number(value)));
        let mut out = Vec::new();
        let mut family = Family::begin(&mut out, &metric);
        for (labels, value) in samples {
            family.sample(&mut out, &labels, value);
        }
        family.end(&mut out);
        let read = MetricFamily::decode_length_delimited(&*out).unwrap();
        assert_eq!((&*read.name, &*read.help, read.kind()), ("n_total", "Help", Kind::Counter));
        let values: Vec<f64> = read.samples.iter().map(|sample| sample.counter.unwrap().value).collect();
        let label = Label { name: "a".to_owned(), value: "b".to_owned() };
        assert_eq!((values, &read.samples[1].labels), (vec![1.0, 2.0], &vec![label]));
    }
}
