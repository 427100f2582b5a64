//! Traces: one exchange as spans, made of its record when it ends, and sent to a collector.
//!
//! A worker decides once per request whether the trace is recorded and, if it is, hands the spans
//! over through a channel with a bound: it never waits, what does not fit is dropped and counted. The
//! control plane's thread sends them in batches, as OTLP over HTTP; what the collector does not take
//! is dropped and counted too. Without `[trace]` nothing of this exists.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{HeaderMap, Request, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::counters::CheckStats;
use super::line::{Ended, Line};
use crate::http::host::unbracketed;
use crate::http::trace_context::{TRACEPARENT, TRACESTATE, TraceParent};
use crate::http::{BoxError, Timeline};

/// Traces that may wait to be sent.
const WAITING: usize = 2048;
/// Traces sent at once…
const BATCH: usize = 256;
/// …fewer when the first of them has waited this long.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Shares are told in parts of this.
pub(crate) const WHOLE: u32 = 1_000_000;
/// Most characters of a text that a client sent.
const TEXT_MAX: usize = 256;

/// `[trace]`, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceSettings {
    /// `http://host:port`, the path of the collector's traces included.
    pub(crate) endpoint: Uri,
    /// How many of the traces that begin here are recorded, in parts of [`WHOLE`].
    pub(crate) sample: u32,
}

/// What a worker makes traces with.
#[derive(Clone, Debug)]
pub(super) struct Tracer {
    sample: u32,
    sender: mpsc::Sender<Vec<Span>>,
    dropped: Arc<AtomicU64>,
}

/// The trace that one exchange belongs to.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) trace_id: u128,
    pub(super) sampled: bool,
    parent: Option<u64>,
    edge: u64,
    upstream: u64,
    checks: Vec<Examined>,
}

#[derive(Debug)]
struct Examined {
    check: Arc<CheckStats>,
    began: Instant,
    ended: Instant,
}

impl Tracer {
    pub(super) fn new(settings: &TraceSettings, dropped: &Arc<AtomicU64>) -> (Self, Exporter) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let endpoint = settings.endpoint.clone();
        let exporter = Exporter { receiver, endpoint, dropped: Arc::clone(dropped), failing: false };
        (Self { sample: settings.sample, sender, dropped: Arc::clone(dropped) }, exporter)
    }

    /// Joins the trace that a request comes with, or begins one, and tells the sides.
    ///
    /// Anybody may name the trace and the span above; whether it is recorded is a trusted proxy's to say,
    /// else the share's: no client can make the gateway and the collector work.
    pub(super) fn join(&self, headers: &mut HeaderMap, trusted: bool) -> Trace {
        let parent = TraceParent::of(headers);
        if parent.is_none() {
            // The state belongs to the parent: without that it says nothing.
            headers.remove(TRACESTATE);
        }
        let sampled = match &parent {
            Some(parent) if trusted => parent.sampled,
            _ => fastrand::u32(..WHOLE) < self.sample,
        };
        let trace_id = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace_id);
        let (edge, upstream) = (fastrand::u64(1..), fastrand::u64(1..));
        // What a side does is below the span of its call; where that is not recorded, below the parent's.
        let span_id = if sampled { upstream } else { parent.map_or(edge, |parent| parent.span_id) };
        headers.insert(TRACEPARENT, TraceParent { trace_id, span_id, sampled }.field());
        let parent = parent.map(|parent| parent.span_id);
        Trace { trace_id, sampled, parent, edge, upstream, checks: Vec::new() }
    }

    /// Hands a trace over; where there is no room for it, it is dropped and counted.
    pub(super) fn finish(&self, spans: Vec<Span>) {
        if self.sender.try_send(spans).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Trace {
    /// A check looked at the request from `began` until now.
    pub(super) fn examined(&mut self, check: &Arc<CheckStats>, began: Instant) {
        self.checks.push(Examined { check: Arc::clone(check), began, ended: Instant::now() });
    }

    /// The exchange as spans: the edge, and below it the checks, the wait and the call of the upstream.
    pub(super) fn spans(&self, line: &Line<'_>, timeline: &Timeline) -> Vec<Span> {
        let clock = WallClock::now();
        let ended = clock.instant;
        let mut edge = self.span(&clock, "", (timeline.started(), ended), SpanKind::Server);
        edge.name = format!("{} {}", cut(line.method), line.route);
        edge.span_id = self.edge.to_be_bytes().to_vec();
        edge.parent_span_id = self.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default();
        edge.attributes = of_exchange(line);
        edge.status = failure(line.status >= 500 || line.ended == Ended::Truncated);
        let mut spans = vec![edge];

        for Examined { check, began, ended } in &self.checks {
            let name = &check.names().1;
            let mut span = self.span(&clock, &format!("check {name}"), (*began, *ended), SpanKind::Internal);
            if let Some((_, reason)) = line.refused.filter(|(refusing, _)| **refusing == ***name) {
                span.attributes.push(text("strangler.refused", reason));
            }
            spans.push(span);
        }
        let Some(upstream) = line.upstream else { return spans };
        if let Some(began) = timeline.queue_began() {
            let until = began + timeline.queue_time();
            spans.push(self.span(&clock, &format!("queue {upstream}"), (began, until), SpanKind::Internal));
        }
        if let Some(began) = timeline.last_handed_over() {
            let mut span = self.span(&clock, &format!("upstream {upstream}"), (began, ended), SpanKind::Client);
            span.span_id = self.upstream.to_be_bytes().to_vec();
            span.attributes = vec![text("strangler.upstream", upstream), text("strangler.side", line.side.word())];
            span.status = failure(line.code.is_some() || line.ended == Ended::Truncated);
            if let Some(waited) = timeline.service_time() {
                let time_unix_nano = clock.nanos(began + waited);
                span.events.push(Event { time_unix_nano, name: "first byte".to_owned(), ..Event::default() });
            }
            spans.push(span);
        }
        spans
    }

    /// A span below the edge.
    fn span(&self, clock: &WallClock, name: &str, (began, ended): (Instant, Instant), kind: SpanKind) -> Span {
        Span {
            trace_id: self.trace_id.to_be_bytes().to_vec(),
            span_id: fastrand::u64(1..).to_be_bytes().to_vec(),
            parent_span_id: self.edge.to_be_bytes().to_vec(),
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: clock.nanos(began),
            end_time_unix_nano: clock.nanos(ended),
            ..Span::default()
        }
    }
}

/// What the edge's span says of the exchange, by the names of OpenTelemetry where it has one.
fn of_exchange(line: &Line<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("http.request.method", cut(line.method)),
        text("url.path", cut(line.path)),
        number("http.response.status_code", line.status.into()),
        text("client.address", line.client),
        text("strangler.route", line.route),
        text("strangler.side", line.side.word()),
    ];
    let headers = [
        ("strangler.request_id", Some(line.request_id)),
        ("server.address", line.host),
        ("user_agent.original", line.user_agent),
    ];
    let told = headers.into_iter().filter_map(|(key, value)| Some((key, value?.to_str().ok()?)));
    attributes.extend(told.map(|(key, value)| text(key, cut(value))));
    attributes.extend(line.serve.map(|serve| text("strangler.serve", serve)));
    attributes.extend(line.generation.map(|generation| number("strangler.generation", generation)));
    attributes.extend(line.code.map(|code| number("strangler.code", code.into())));
    attributes
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn failure(failed: bool) -> Option<Status> {
    failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(TEXT_MAX).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Tells instants as the time of day.
struct WallClock {
    instant: Instant,
    since_epoch: Duration,
}

impl WallClock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), since_epoch }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let ago = self.instant.saturating_duration_since(at);
        u64::try_from(self.since_epoch.saturating_sub(ago).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Sends what workers hand over to the collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    receiver: mpsc::Receiver<Vec<Span>>,
    endpoint: Uri,
    dropped: Arc<AtomicU64>,
    failing: bool,
}

impl Exporter {
    /// Ends when nobody can hand over traces any more and the last have been sent.
    pub(crate) async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            if self.receiver.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            let until = tokio::time::Instant::now() + BATCH_DELAY;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(until, self.receiver.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, batch: Vec<Vec<Span>>) {
        let traces = batch.len() as u64;
        let sent = timeout(PATIENCE, self.post(message(batch).encode_to_vec())).await;
        match sent.unwrap_or_else(|_| Err("it took too long".into())) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::warn!(endpoint = %self.endpoint, "the collector takes traces again");
            }
            Ok(()) => {}
            Err(error) => {
                self.dropped.fetch_add(traces, Ordering::Relaxed);
                // Said once, not once a batch.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(endpoint = %self.endpoint, %error, "cannot export traces; they are dropped and counted");
                }
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), BoxError> {
        let authority = self.endpoint.authority().ok_or("the endpoint has no host")?;
        let host = unbracketed(authority.host());
        // The name is asked for each time: collectors move.
        let stream = tokio::net::TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(self.endpoint.path())
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))?;
        let mut answer = pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = answer.as_mut() => answer?,
            ended = connection => {
                // A connection that ends well may have been closed by the very answer.
                ended?;
                answer.await?
            }
        };
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("the collector answers {}", answer.status()).into())
        }
    }
}

fn message(batch: Vec<Vec<Span>>) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![text("service.name", "strangler"), text("service.version", version)],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "strangler".to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = batch.into_iter().flatten().collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(sample: u32) -> (Tracer, Exporter) {
        let endpoint = Uri::from_static("http://127.0.0.1:4318/v1/traces");
        Tracer::new(&TraceSettings { endpoint, sample }, &Arc::default())
    }

    fn joined(sample: u32, parent: &'static str, trusted: bool) -> (Trace, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        (tracer(sample).0.join(&mut headers, trusted), headers)
    }

    #[test]
    fn the_trace_of_a_request_goes_on_below_the_gateways_call() {
        let (trace, headers) = joined(WHOLE, PARENT, false);
        assert_eq!((trace.trace_id >> 96, trace.parent), (0x4bf9_2f35, Some(0x00f0_67aa_0ba9_02b7)));
        let told = TraceParent::of(&headers).unwrap();
        assert_eq!((told.trace_id, told.span_id, told.sampled), (trace.trace_id, trace.upstream, true));
        assert_eq!(headers[TRACESTATE], "vendor=1");
    }

    #[test]
    fn a_parent_that_is_not_valid_is_replaced_and_its_state_goes_with_it() {
        let (trace, headers) = joined(0, "00-nonsense", true);
        assert_eq!(TraceParent::of(&headers).unwrap().trace_id, trace.trace_id);
        assert!(trace.parent.is_none() && !headers.contains_key(TRACESTATE));
    }

    #[test]
    fn a_trusted_proxy_decides_what_is_recorded_and_a_client_does_not() {
        assert!(joined(0, PARENT, true).0.sampled && !joined(0, PARENT, false).0.sampled);
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(!joined(WHOLE, unsampled, true).0.sampled && joined(WHOLE, unsampled, false).0.sampled);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (tracer, exporter) = tracer(WHOLE);
        for _ in 0..WAITING + 3 {
            tracer.finish(Vec::new());
        }
        assert_eq!(exporter.dropped.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_costs_the_traces_and_nothing_else() {
        let (tracer, mut exporter) = tracer(WHOLE);
        // Nobody can listen there.
        exporter.endpoint = Uri::from_static("http://127.0.0.1:0/v1/traces");
        tracer.finish(vec![Span::default()]);
        let dropped = Arc::clone(&exporter.dropped);
        drop(tracer);
        exporter.run().await;
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_collector_that_closes_once_it_has_answered_has_the_traces() {
        for answer in ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"] {
            assert_eq!(dropped_where_the_collector_answers(answer).await, 0, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_collector_that_hangs_up_without_an_answer_has_not() {
        assert_eq!(dropped_where_the_collector_answers("").await, 1);
    }

    async fn dropped_where_the_collector_answers(answer: &'static str) -> u64 {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tracer, mut exporter) = tracer(WHOLE);
        exporter.endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap()).parse().unwrap();
        let collecting = async move {
            let (mut stream, _) = collector.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tracer.finish(vec![Span::default()]);
        let dropped = Arc::clone(&exporter.dropped);
        drop(tracer);
        tokio::join!(collecting, exporter.run());
        dropped.load(Ordering::Relaxed)
    }
}
