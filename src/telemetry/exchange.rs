//! One request and its response as they happen, and the one record that is made of them.
//!
//! `gateway::Worker::serve` opens an [`Exchange`] when a request's head is there, tells it what becomes
//! known, and closes it with the answer; from there it travels in the answer's body. The record is
//! written when the exchange is dropped, so it is written exactly once whatever happens: the body
//! ends, the side breaks off, the client leaves, the future is cancelled.
//! One allocation holds all of it; nothing here touches another worker's memory, but for a body's own counter.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ::http::header::{CONTENT_LENGTH, HOST, REFERER, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::access_log::Lines;
use super::counters::{
    Apart, CheckStats, Exemplar, Outcome, RouteCell, RouteStats, TRUNCATED, UpstreamCell, UpstreamStats, WorkerCell,
};
use super::line::{Ended, Line};
use super::trace::{Trace, Tracer};
use super::{Side, UNMATCHED};
use crate::http::{Answer, Body, BoxError, CanonicalPath, Client, Timeline};

/// One worker's own counters. Not Send: each worker has its own.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    worker: Rc<Worker>,
}

#[derive(Debug)]
struct Worker {
    index: usize,
    cell: Arc<WorkerCell>,
    unmatched: Option<Arc<RouteCell>>,
    lines: Option<Lines>,
    tracer: Option<Tracer>,
}

impl Recorder {
    pub(super) fn new(
        index: usize,
        cell: Arc<WorkerCell>,
        unmatched: &RouteStats,
        lines: Option<Lines>,
        tracer: Option<Tracer>,
    ) -> Self {
        Self { worker: Rc::new(Worker { index, cell, unmatched: unmatched.cell(index), lines, tracer }) }
    }

    /// Opens the exchange of a request whose head is there, which was at `now`.
    ///
    /// Boxed, since it moves with the answer through many hands, and each move would copy all of it.
    pub(crate) fn open(
        &self,
        now: Instant,
        method: &Method,
        target: &Uri,
        client: &Client,
        request_id: &HeaderValue,
    ) -> Box<Exchange> {
        let told = (self.worker.lines.is_some() || self.worker.tracer.is_some()).then(|| Told {
            method: method.clone(),
            target: target.clone(),
            client: Arc::clone(&client.ip_text),
            path: None,
            host: None,
            user_agent: None,
            referer: None,
            user: None,
        });
        Box::new(Exchange {
            timeline: Timeline::start(now),
            worker: Rc::clone(&self.worker),
            told,
            request_id: request_id.clone(),
            trace: None,
            head_only: method == Method::HEAD,
            route: None,
            serve: None,
            side: Side::Gateway,
            upstream: None,
            status: None,
            code: None,
            refused: None,
            undecided: None,
            received: None,
            bytes_out: 0,
            ended: Ended::ClientGone,
        })
    }

    /// A client's connection was accepted.
    pub(crate) fn connection_opened(&self) {
        self.worker.cell.connections.add(1);
    }

    /// A client's connection is gone.
    pub(crate) fn connection_closed(&self) {
        self.worker.cell.connections.subtract(1);
    }

    /// A client's connection was closed unread, since there were too many.
    pub(crate) fn connection_refused(&self) {
        self.worker.cell.refused.add(1);
    }

    /// Hands the worker's lines of the access log over before they are a tenth of a second old.
    ///
    /// Every worker runs it beside its connections; it never ends, and ends at once without a log.
    pub(crate) async fn keep_log_moving(&self) {
        if let Some(lines) = &self.worker.lines {
            lines.keep_handing_over().await;
        }
    }
}

/// What only the access log and traces want to know; gathered only where there is either.
#[derive(Debug)]
struct Told {
    method: Method,
    target: Uri,
    client: Arc<str>,
    /// The canonical path, where it is not the target's own.
    path: Option<Box<str>>,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user: Option<HeaderValue>,
}

/// A check that did not let the request pass, and why.
#[derive(Debug)]
struct Refusal {
    check: Arc<CheckStats>,
    reason: &'static str,
}

impl Refusal {
    fn told(&self) -> (&str, &'static str) {
        (self.check.names().1, self.reason)
    }
}

/// One exchange being served. Finishing its body, or dropping it, writes exactly one record.
#[derive(Debug)]
pub(crate) struct Exchange {
    timeline: Timeline,
    worker: Rc<Worker>,
    told: Option<Told>,
    request_id: HeaderValue,
    trace: Option<Box<Trace>>,
    head_only: bool,
    route: Option<Arc<RouteCell>>,
    serve: Option<(&'static str, u64)>,
    side: Side,
    upstream: Option<Arc<UpstreamCell>>,
    status: Option<StatusCode>,
    code: Option<u32>,
    refused: Option<Refusal>,
    undecided: Option<Refusal>,
    received: Option<Arc<AtomicU64>>,
    bytes_out: u64,
    ended: Ended,
}

impl Exchange {
    /// The moments a side fills in.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What the request's headers say for the access log; call it before they are cleaned.
    pub(crate) fn headers(&mut self, headers: &HeaderMap) {
        if let Some(told) = &mut self.told {
            told.host = headers.get(HOST).cloned();
            told.user_agent = headers.get(USER_AGENT).cloned();
            told.referer = headers.get(REFERER).cloned();
        }
    }

    /// Joins the trace that the request comes with, or begins one; the headers then tell the sides.
    pub(crate) fn traced(&mut self, headers: &mut HeaderMap, trusted: bool) {
        if let Some(tracer) = &self.worker.tracer {
            self.trace = Some(Box::new(tracer.join(headers, trusted)));
        }
    }

    /// The moment, if the exchange's spans are recorded.
    pub(crate) fn moment(&self) -> Option<Instant> {
        self.trace.as_ref().filter(|trace| trace.sampled).map(|_| Instant::now())
    }

    /// A check looked at the request from that moment until now.
    pub(crate) fn examined(&mut self, check: &Arc<CheckStats>, began: Option<Instant>) {
        if let (Some(trace), Some(began)) = (&mut self.trace, began) {
            trace.examined(check, began);
        }
    }

    /// The canonical path is known: it is the one that is logged.
    pub(crate) fn reads(&mut self, path: &CanonicalPath) {
        if let Some(told) = &mut self.told
            && told.target.path() != path.as_str()
        {
            told.path = Some(path.as_str().into());
        }
    }

    /// Where the bytes of the request's body are to be counted as they come in.
    pub(crate) fn received(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.received.get_or_insert_default())
    }

    /// The route is known.
    pub(crate) fn routed(&mut self, route: &Arc<RouteStats>, serve: &'static str, generation: u64) {
        self.route = route.cell(self.worker.index);
        self.serve = Some((serve, generation));
    }

    /// The side is known, and the upstream that serves it. Said again, the exchange moves there.
    pub(crate) fn sided(&mut self, side: Side, upstream: &Arc<UpstreamStats>) {
        self.leave_side();
        self.side = side;
        self.upstream = upstream.cell(self.worker.index);
        if let Some(route) = self.counted_on() {
            route.side(side).begin();
        }
    }

    /// A check found out who the caller is.
    pub(crate) fn known_as(&mut self, user: Option<&HeaderValue>) {
        if let Some(told) = &mut self.told {
            told.user = user.cloned();
        }
    }

    /// A check does not let the request pass.
    pub(crate) fn refused(&mut self, check: &Arc<CheckStats>, reason: &'static str) {
        check.refused(self.worker.index, reason);
        self.refused = Some(Refusal { check: Arc::clone(check), reason });
    }

    /// A check leaves it to the legacy side whether the request may pass.
    pub(crate) fn undecided(&mut self, check: &Arc<CheckStats>, reason: &'static str) {
        check.undecided(self.worker.index, reason);
        self.undecided = Some(Refusal { check: Arc::clone(check), reason });
    }

    /// The legacy side has answered a request on which a check's verdict is compared with its own.
    pub(crate) fn compared(&self, check: &CheckStats, verdict: &str, refused: bool) {
        check.compared(self.worker.index, verdict, refused);
    }

    /// An upstream that was asked on the way, and is no side of this exchange, gave no answer.
    pub(crate) fn failed_beside(&self, upstream: &Arc<UpstreamStats>, reason: &'static str) {
        if let Some(cell) = upstream.cell(self.worker.index) {
            cell.failed(reason);
        }
    }

    /// Who answers, as far as is known yet.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The gateway answers itself, with `code`; `reason` counts against the upstream where it is to blame.
    ///
    /// Where a side had been chosen, the exchange stays that side's: its failures are what sides are
    /// compared by.
    pub(crate) fn answered_by_gateway(&mut self, code: u32, reason: Option<&'static str>) {
        self.code = Some(code);
        if let (Some(reason), Some(upstream)) = (reason, &self.upstream) {
            upstream.failed(reason);
        }
    }

    /// The head of the answer is ready; the record is written when its body ends or is dropped.
    pub(crate) fn close_with(mut self: Box<Self>, response: Response<Body>) -> Response<Recorded> {
        let status = response.status();
        self.status = Some(status);
        // Of these hyper sends no body, whatever the side gave; it drops it unread.
        let bodiless = self.head_only
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let declared = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let expected = if bodiless { Some(0) } else { declared };
        response.map(|body| Recorded { body, expected, exchange: Some(self) })
    }

    /// The route's cell, or that of unmatched requests.
    fn counted_on(&self) -> Option<&RouteCell> {
        self.route.as_deref().or(self.worker.unmatched.as_deref())
    }

    fn leave_side(&self) {
        if self.side != Side::Gateway
            && let Some(route) = self.counted_on()
        {
            route.side(self.side).end();
        }
    }

    fn record(&self) {
        self.leave_side();
        if self.ended == Ended::Truncated
            && let Some(upstream) = &self.upstream
        {
            upstream.failed(TRUNCATED);
        }
        if let Some(upstream) = &self.upstream {
            upstream.queued(self.timeline.queue_time());
        }
        // 499 is for those who left before there was an answer; later the client has seen the status.
        let status = self.status.map_or(499, |status| status.as_u16());
        let now = Instant::now();
        let outcome = Outcome {
            status,
            error: status >= 500 || self.ended == Ended::Truncated,
            bytes_in: self.received.as_ref().map_or(0, |received| received.load(Ordering::Relaxed)),
            bytes_out: self.bytes_out,
            total: now.saturating_duration_since(self.timeline.started()),
            service: self.timeline.service_time(),
            queue: self.timeline.queue_time(),
            apart: self.apart(),
        };
        if let Some(route) = self.counted_on() {
            route.side(self.side).count(&outcome, &self.request_id);
        }
        if let (Some(lines), Some(told)) = (&self.worker.lines, &self.told) {
            lines.append(&self.line(told, &outcome), now);
        }
        self.finish_trace(&outcome);
    }

    fn finish_trace(&self, outcome: &Outcome) {
        let Some(trace) = self.trace.as_ref().filter(|trace| trace.sampled) else { return };
        let (Some(tracer), Some(told)) = (&self.worker.tracer, &self.told) else { return };
        tracer.finish(trace.spans(&self.line(told, outcome), &self.timeline));
        // An exemplar is of a histogram that it is in.
        if let Some(route) = self.counted_on().filter(|_| outcome.apart.is_none()) {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let exemplar = Exemplar { trace_id: trace.trace_id, took: outcome.total, since_epoch };
            route.side(self.side).exemplify(exemplar);
        }
    }

    /// Why the exchange says nothing of how fast its side answers, if it does not.
    fn apart(&self) -> Option<Apart> {
        let attempts = self.timeline.attempts();
        match self.ended {
            // What the gateway answers without a side is in a curve of its own, however it ended.
            _ if self.side == Side::Gateway => None,
            _ if self.code.is_some() => Some(Apart::Gateway),
            Ended::Truncated => Some(Apart::Truncated),
            Ended::ClientGone => Some(Apart::ClientGone),
            Ended::Complete if attempts == 0 => Some(Apart::Unasked),
            Ended::Complete if attempts > 1 => Some(Apart::Retried),
            Ended::Complete => None,
        }
    }

    fn line<'a>(&'a self, told: &'a Told, outcome: &Outcome) -> Line<'a> {
        Line {
            request_id: &self.request_id,
            trace_id: self.trace.as_ref().map(|trace| trace.trace_id),
            client: &told.client,
            method: told.method.as_str(),
            host: told.host.as_ref(),
            path: told.path.as_deref().unwrap_or_else(|| told.target.path()),
            query: told.target.query(),
            status: outcome.status,
            code: if self.status.is_none() { Some(Answer::ClientGone.code()) } else { self.code },
            route: self.route.as_ref().map_or(UNMATCHED, |route| route.name()),
            side: self.side,
            serve: self.serve.map(|(serve, _)| serve),
            generation: self.serve.map(|(_, generation)| generation),
            upstream: self.upstream.as_ref().map(|upstream| upstream.name()),
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            queue: self.timeline.queue_time(),
            service: outcome.service,
            total: outcome.total,
            ended: self.ended,
            user_agent: told.user_agent.as_ref(),
            referer: told.referer.as_ref(),
            user: told.user.as_ref(),
            refused: self.refused.as_ref().map(Refusal::told),
            undecided: self.undecided.as_ref().filter(|_| self.refused.is_none()).map(Refusal::told),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record();
    }
}

/// An answer's body that carries its exchange to the end.
#[derive(Debug)]
pub(crate) struct Recorded {
    body: Body,
    /// The bytes after which hyper stops reading the body, where the head says so.
    expected: Option<u64>,
    exchange: Option<Box<Exchange>>,
}

impl Recorded {
    fn end(&mut self, ended: Ended) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.ended = ended;
        }
    }

    /// Whether all that will be sent has been given out.
    fn is_given_out(&self) -> bool {
        let given = self.exchange.as_ref().map_or(0, |exchange| exchange.bytes_out);
        self.body.is_end_stream() || self.expected.is_some_and(|expected| given >= expected)
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(exchange), Some(data)) = (&mut this.exchange, frame.data_ref()) {
                    exchange.bytes_out += data.len() as u64;
                }
            }
            Some(Err(_)) => this.end(Ended::Truncated),
            None => this.end(Ended::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // hyper drops a body it need not ask again: that it was dropped does not say that it was cut.
        let ended = if self.is_given_out() { Ended::Complete } else { Ended::ClientGone };
        self.end(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Latency;
    use super::super::counters::SideTotals;
    use super::super::{Destination, Telemetry};
    use super::*;

    /// A gateway with one worker, one route and its log in a file.
    struct House {
        telemetry: Arc<Telemetry>,
        recorder: Option<Recorder>,
        route: Arc<RouteStats>,
        php: Arc<UpstreamStats>,
        directory: tempfile::TempDir,
    }

    impl House {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let log = Destination::File(directory.path().join("access.log"));
            let telemetry = Telemetry::new(1, &log).unwrap();
            let recorder = Some(telemetry.recorder(0));
            let (route, php) = (telemetry.route("order"), telemetry.upstream("php"));
            Self { telemetry, recorder, route, php, directory }
        }

        fn open(&self, method: &Method) -> Box<Exchange> {
            let client = Client::of_connection("203.0.113.9:4711".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
            let target = Uri::from_static("/a/../orders/7?token=s3cret&a=1");
            self.recorder.as_ref().unwrap().open(
                Instant::now(),
                method,
                &target,
                &client,
                &HeaderValue::from_static("r1"),
            )
        }

        fn on_php(&self) -> Box<Exchange> {
            let mut exchange = self.open(&Method::GET);
            exchange.routed(&self.route, "legacy", 7);
            exchange.sided(Side::Legacy, &self.php);
            exchange.timeline().handed_over(Instant::now());
            assert_eq!(self.legacy().in_flight, 1);
            exchange
        }

        fn legacy(&self) -> SideTotals {
            self.route.totals(Side::Legacy).unwrap_or_default()
        }

        /// The log, once the worker is gone.
        fn lines(&mut self) -> Vec<serde_json::Value> {
            self.recorder = None;
            self.telemetry.close();
            let log = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap();
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }

        /// The one line that must be in the log, with exactly one request counted for it.
        fn only_line(&mut self) -> serde_json::Value {
            let legacy = self.legacy();
            let in_curve = legacy.curve(Latency::Total).count() + legacy.apart.iter().sum::<u64>();
            assert_eq!((legacy.requests(), in_curve, legacy.in_flight), (1, 1, 0));
            let lines = self.lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            lines.into_iter().next().unwrap()
        }
    }

    /// A side's answer, frame by frame.
    struct Frames(Vec<Result<&'static str, ()>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let frame = self.0.remove(0).map(|text| Frame::data(Bytes::from_static(text.as_bytes())));
            Poll::Ready(Some(frame.map_err(|()| Error::other("cut").into())))
        }
    }

    fn answer(frames: Vec<Result<&'static str, ()>>) -> Response<Body> {
        Response::new(Body::stream(Frames(frames)))
    }

    #[tokio::test]
    async fn an_answer_read_to_its_end_is_recorded_once_as_complete() {
        let mut house = House::new();
        let mut exchange = house.on_php();
        exchange.timeline().first_byte(Instant::now());
        exchange.received().fetch_add(3, Ordering::Relaxed);
        exchange.reads(&CanonicalPath::parse("/orders/7").unwrap());
        let body = exchange.close_with(answer(vec![Ok("ab"), Ok("cde")])).into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "abcde");

        let legacy = house.legacy();
        assert_eq!((legacy.statuses, legacy.errors), ([0, 1, 0, 0, 0], 0));
        assert_eq!((legacy.bytes_in, legacy.bytes_out, legacy.curve(Latency::Service).count()), (3, 5, 1));
        let line = house.only_line();
        assert_eq!((&line["ended"], &line["status"]), (&"complete".into(), &200.into()));
        assert_eq!((&line["path"], &line["upstream"]), (&"/orders/7?token=***&a=1".into(), &"php".into()));
        assert_eq!((&line["serve"], &line["generation"]), (&"legacy".into(), &7.into()));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_recorded_once_as_truncated_and_as_the_sides_error() {
        let mut house = House::new();
        let response = house.on_php().close_with(answer(vec![Ok("ab"), Err(())]));
        assert!(response.into_body().collect().await.is_err());
        assert_eq!((house.legacy().statuses, house.legacy().errors), ([0, 1, 0, 0, 0], 1));
        assert_eq!(house.php.totals().failures.iter().sum::<u64>(), 1);
        assert_eq!(house.only_line()["ended"], "truncated");
    }

    #[tokio::test]
    async fn a_client_that_leaves_amid_the_answer_keeps_the_status_it_saw() {
        let mut house = House::new();
        let mut body = house.on_php().close_with(answer(vec![Ok("ab"), Ok("c")])).into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(house.legacy().errors, 0);
        let line = house.only_line();
        assert_eq!((&line["ended"], &line["status"]), (&"client_gone".into(), &200.into()));
        assert_eq!(line["bytes_out"], 2);
    }

    #[test]
    fn a_client_that_leaves_before_the_answer_is_a_499() {
        let mut house = House::new();
        drop(house.on_php());
        assert_eq!(house.legacy().statuses, [0, 0, 0, 1, 0]);
        let line = house.only_line();
        assert_eq!(
            (&line["ended"], &line["status"], &line["code"]),
            (&"client_gone".into(), &499.into(), &49901.into())
        );
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_because_nothing_more_is_due_was_complete() {
        for (method, status, length) in
            [(Method::HEAD, 200, None), (Method::GET, 304, None), (Method::GET, 200, Some(2))]
        {
            let mut house = House::new();
            let mut exchange = house.open(&method);
            exchange.routed(&house.route, "legacy", 7);
            exchange.sided(Side::Legacy, &house.php);
            let mut response = answer(vec![Ok("ab")]);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(length) = length {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            let mut body = exchange.close_with(response).into_body();
            if length.is_some() {
                body.frame().await.unwrap().unwrap();
            }
            drop(body);
            assert_eq!(house.only_line()["ended"], "complete", "{method} {status}");
        }
    }

    #[test]
    fn an_empty_answer_that_is_never_polled_was_complete() {
        let mut house = House::new();
        drop(house.on_php().close_with(Response::new(Body::Empty)));
        assert_eq!(house.only_line()["ended"], "complete");
    }

    #[tokio::test]
    async fn a_failed_call_stays_the_error_of_the_side_that_was_chosen() {
        let mut house = House::new();
        let mut exchange = house.on_php();
        exchange.answered_by_gateway(50201, Some("connect"));
        let mut response = Response::new(Body::from(Bytes::from_static(b"{}")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        exchange.close_with(response).into_body().collect().await.unwrap();
        assert_eq!((house.legacy().statuses, house.legacy().errors), ([0, 0, 0, 0, 1], 1));
        assert_eq!(house.php.totals().failures[0], 1);
        assert!(house.route.totals(Side::Gateway).is_none());
        let line = house.only_line();
        assert_eq!((&line["side"], &line["code"]), (&"legacy".into(), &50201.into()));
    }

    #[tokio::test]
    async fn only_what_the_side_answered_at_the_first_try_is_in_its_curves() {
        type Tell = fn(&mut Exchange);
        let tell: [(Option<Apart>, Tell); 4] = [
            (None, |exchange| exchange.timeline().first_byte(Instant::now())),
            (Some(Apart::Retried), |exchange| exchange.timeline().handed_over(Instant::now())),
            (Some(Apart::Gateway), |exchange| exchange.answered_by_gateway(50201, Some("connect"))),
            (Some(Apart::Truncated), |exchange| exchange.ended = Ended::Truncated),
        ];
        for (apart, tell) in tell {
            let house = House::new();
            let mut exchange = house.on_php();
            tell(&mut exchange);
            if apart == Some(Apart::Truncated) {
                drop(exchange);
            } else {
                exchange.close_with(Response::new(Body::Empty)).into_body().collect().await.unwrap();
            }
            let legacy = house.legacy();
            assert_eq!(legacy.apart, Apart::ALL.map(|why| u64::from(apart == Some(why))), "{apart:?}");
            let counted = Latency::ALL.map(|latency| legacy.curve(latency).count());
            assert_eq!(counted, [u64::from(apart.is_none()); 3], "{apart:?}");
        }
        let house = House::new();
        let mut exchange = house.open(&Method::GET);
        exchange.routed(&house.route, "legacy", 7);
        exchange.sided(Side::Legacy, &house.php);
        drop(exchange.close_with(Response::new(Body::Empty)));
        assert_eq!(house.legacy().apart, Apart::ALL.map(|why| u64::from(why == Apart::Unasked)));
    }

    #[test]
    fn a_request_that_no_route_matched_is_the_gateways_own() {
        let mut house = House::new();
        let mut exchange = house.open(&Method::GET);
        exchange.answered_by_gateway(40401, None);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NOT_FOUND;
        drop(exchange.close_with(response));
        assert!(house.route.totals(Side::Gateway).is_none());
        let line = house.lines().remove(0);
        assert_eq!((&line["route"], &line["side"], &line["status"]), (&"-".into(), &"gateway".into(), &404.into()));
        assert!(line.get("upstream").is_none() && line.get("serve").is_none());
    }

    #[test]
    fn headers_are_logged_but_never_cookies_or_authorization() {
        let mut house = House::new();
        let mut exchange = house.on_php();
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("host", "shop.example"), ("user-agent", "curl/8"), ("cookie", "s3cret"), ("authorization", "s3cret")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        exchange.headers(&headers);
        drop(exchange);
        let line = house.only_line();
        assert_eq!((&line["host"], &line["user_agent"]), (&"shop.example".into(), &"curl/8".into()));
        assert!(!line.to_string().contains("s3cret"));
    }

    /// What becomes of `body` under hyper when a client sends `head` and reads the answer to its end.
    async fn served_by_hyper(house: &House, head: &str, body: Body) {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let length = matches!(body, Body::Stream(_)).then_some(HeaderValue::from_static("4"));
        let body = std::cell::Cell::new(Some(body));
        let service = hyper::service::service_fn(async |request: ::http::Request<hyper::body::Incoming>| {
            let mut exchange = house.open(request.method());
            exchange.routed(&house.route, "legacy", 7);
            exchange.sided(Side::Legacy, &house.php);
            let mut response = Response::new(body.take().unwrap());
            if let Some(length) = &length {
                response.headers_mut().insert(CONTENT_LENGTH, length.clone());
            }
            Ok::<_, std::convert::Infallible>(exchange.close_with(response))
        });
        let io = hyper_util::rt::TokioIo::new(server);
        let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let asked = async {
            client.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
        };
        let (served, ()) = tokio::join!(served, asked);
        served.unwrap();
    }

    #[tokio::test]
    async fn hyper_reads_every_kind_of_body_to_what_is_recorded_as_its_end() {
        let whole = || Body::from(Bytes::from_static(b"abcd"));
        let streamed = || Body::stream(Frames(vec![Ok("ab"), Ok("cd")]));
        let empty = || Body::Empty;
        let bodies: [(&dyn Fn() -> Body, u64); 3] = [(&whole, 4), (&streamed, 4), (&empty, 0)];
        for (body, bytes) in bodies {
            for (method, bytes) in [("GET", bytes), ("HEAD", 0)] {
                let mut house = House::new();
                let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                served_by_hyper(&house, &head, body()).await;
                let line = house.only_line();
                assert_eq!(
                    (&line["ended"], &line["bytes_out"]),
                    (&"complete".into(), &bytes.into()),
                    "{method} {:?}",
                    body()
                );
            }
        }
    }

    #[test]
    fn two_workers_records_add_up() {
        let telemetry = Telemetry::new(2, &Destination::Off).unwrap();
        let (route, php) = (telemetry.route("order"), telemetry.upstream("php"));
        std::thread::scope(|scope| {
            for index in 0..2 {
                let (telemetry, route, php) = (&telemetry, &route, &php);
                scope.spawn(move || {
                    let recorder = telemetry.recorder(index);
                    let client = Client::of_connection("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
                    let id = HeaderValue::from_static("r1");
                    for _ in 0..500 {
                        let mut exchange =
                            recorder.open(Instant::now(), &Method::GET, &Uri::from_static("/"), &client, &id);
                        exchange.routed(route, "new", 1);
                        exchange.sided(Side::New, php);
                        drop(exchange.close_with(Response::new(Body::Empty)));
                    }
                });
            }
        });
        let new = route.totals(Side::New).unwrap();
        assert_eq!((new.requests(), new.in_flight, php.totals().queue.count()), (1_000, 0, 1_000));
    }
}
