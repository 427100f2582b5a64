//! What is kept of an exchange: counters, histograms, the access log. (Stub.)

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{HeaderValue, Method, Response, Uri};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::{Body, BoxError, Client, Timeline};

/// Who answered an exchange: one of the two sides, or the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Legacy,
    New,
    Gateway,
}

/// What is recorded of one route, over all workers; lives as long as a table or the registry holds it.
#[derive(Debug)]
pub(crate) struct RouteStats;

/// What is recorded of one upstream or handler (failures by reason, queue seconds).
#[derive(Debug)]
pub(crate) struct UpstreamStats;

/// All there is to measure with: made once, shared by control plane and workers.
#[derive(Debug)]
pub(crate) struct Telemetry;

impl Telemetry {
    pub(crate) fn route(&self, _name: &str) -> Arc<RouteStats> {
        Arc::new(RouteStats)
    }
    pub(crate) fn upstream(&self, _name: &str) -> Arc<UpstreamStats> {
        Arc::new(UpstreamStats)
    }
    /// What worker `index` records with.
    pub(crate) fn recorder(self: &Arc<Self>, _index: usize) -> Recorder {
        Recorder
    }
}

/// One worker's own counters. Not Send: each worker has its own.
#[derive(Clone, Debug)]
pub(crate) struct Recorder;

/// One exchange being served. Finishing its body, or dropping it, writes exactly one record.
#[derive(Debug)]
pub(crate) struct Exchange {
    timeline: Timeline,
}

impl Recorder {
    pub(crate) fn open(
        &self,
        _method: &Method,
        _target: &Uri,
        _client: &Client,
        _request_id: &HeaderValue,
    ) -> Exchange {
        Exchange { timeline: Timeline::start() }
    }
}

impl Exchange {
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }
    /// The route is known.
    pub(crate) fn routed(&mut self, _route: &Arc<RouteStats>, _serve: &'static str, _generation: u64) {}
    /// The side is known, and the upstream that serves it.
    pub(crate) fn sided(&mut self, _side: Side, _upstream: &Arc<UpstreamStats>) {}
    /// The gateway answers itself, with `code`; `reason` counts against the upstream where it is to blame.
    pub(crate) fn answered_by_gateway(&mut self, _code: u32, _reason: Option<&'static str>) {}
    /// The head of the answer is ready; the record is written when its body ends or is dropped.
    pub(crate) fn close_with(self, response: Response<Body>) -> Response<Recorded> {
        response.map(|body| Recorded { body, _exchange: self })
    }
}

/// An answer's body that carries its exchange to the end.
#[derive(Debug)]
pub(crate) struct Recorded {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
