//! One request, from its head to its last byte: the picture of the design, as one function.
//!
//! ```text
//! listener ─▶ http ─▶ route ─▶ checks ─▶ side ─▶ call ─▶ response ─▶ record
//! ```
//!
//! [`Worker::serve`] has no error type: a failure can only become a response. It takes the table
//! once and keeps it to the end, so that a request never sees two generations. The exchange it
//! opens is recorded when the last byte has gone, or when it is dropped, whatever happened.
//! This file never touches a socket and never looks inside a protocol.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ::http::header::{ACCEPT, ALLOW, SET_COOKIE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};

use crate::check::forward::Question;
use crate::check::{Authority, Check, Identity, Session, Subject, Verdict};
use crate::http::request_id::{self, X_REQUEST_ID};
use crate::http::{Answer, Body, CanonicalPath, Client, Host, RequestBody, Timeline, headers};
use crate::route::{Checked, Found, LiveTable, Place, Route, RouteTable};
use crate::telemetry::{Exchange, Recorded, Recorder, Side};
use crate::upstream::{self, Inbound};

const X_STRANGLER_SIDE: HeaderName = HeaderName::from_static("x-strangler-side");

/// What a request may use: the table in force and this worker's own counters.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    table: Arc<LiveTable>,
    recorder: Rc<Recorder>,
}

/// Why the gateway answers itself.
#[derive(Debug)]
enum Refusal {
    /// The request is not acceptable, or leads nowhere.
    Refused(Answer),
    /// The path is routed, but for other methods.
    MethodNotAllowed { allow: String },
    /// The side that was chosen gave no answer.
    Failed(upstream::Error),
    /// A check refuses it in the words of whom it has asked.
    Answered(Box<Response<Bytes>>),
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self::Refused(answer)
    }
}

impl Worker {
    pub(crate) fn new(table: Arc<LiveTable>, recorder: Recorder) -> Self {
        Self { table, recorder: Rc::new(recorder) }
    }

    /// The table in force now.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.table.current()
    }

    /// This worker's counters.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Answers one request that came from `peer`, and whose head was there at `now`.
    pub(crate) async fn serve(
        &self,
        mut request: Request<Incoming>,
        peer: &Client,
        now: Instant,
    ) -> Response<Recorded> {
        let table = self.table.current();
        let client = peer.behind(&table.edge.trusted_proxies, request.headers());
        let request_id = request_id::of(request.headers(), client.via_trusted_proxy);
        let accept = request.headers().get(ACCEPT).cloned();
        let mut exchange = self.recorder.open(now, request.method(), request.uri(), &client, &request_id);
        exchange.headers(request.headers());
        exchange.traced(request.headers_mut(), client.via_trusted_proxy);

        let outcome = answer(&table, request, client, &request_id, &mut exchange).await;

        let mut response = match outcome {
            Ok(mut response) => {
                headers::clean_response(response.headers_mut());
                response
            }
            Err(refusal) => refusal.into_response(accept.as_ref(), &request_id, &mut exchange),
        };
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        if table.edge.reveal {
            response.headers_mut().insert(X_STRANGLER_SIDE, HeaderValue::from_static(exchange.side().word()));
        }
        exchange.close_with(response)
    }
}

/// What a client sent, in the one form that routes, checks and sides see.
#[derive(Debug)]
struct Admitted {
    host: Host,
    inbound: Box<Inbound>,
}

/// The way of a request through the house. Leaving it early is a [`Refusal`].
async fn answer(
    table: &RouteTable,
    request: Request<Incoming>,
    client: Client,
    request_id: &HeaderValue,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Refusal> {
    let started = exchange.timeline().started();
    let Admitted { host, mut inbound } = admit(table, request, client, request_id, started)?;
    exchange.reads(&inbound.path);

    let route = find(table, &host, &inbound)?;
    exchange.routed(&route.stats, route.serve.word(), table.generation);

    bound(&mut inbound, route, exchange)?;
    let presented = Presented::by(table, &inbound.head.headers);
    let Examined { undecided, compared } = examine(route, &host, &mut inbound, exchange).await?;

    let (side, place) = undecided.unwrap_or_else(|| route.choose());
    exchange.sided(side, &place.stats);

    let response = place.target.call(inbound, exchange.timeline()).await.map_err(|error| {
        place.target.log(&error, request_id.to_str().unwrap_or_default());
        Refusal::Failed(error)
    })?;
    presented.answered(&response, route.ends_session);
    compare(&compared, &response, exchange);
    Ok(response)
}

/// The fields of a request that name its sessions: its answer may end them, on any route.
struct Presented<'t> {
    sessions: &'t [Arc<Check>],
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl<'t> Presented<'t> {
    fn by(table: &'t RouteTable, headers: &HeaderMap) -> Self {
        let values = |name| headers.get_all(name).iter().map(move |value| (HeaderName::clone(name), value.clone()));
        Self { sessions: &table.sessions, fields: table.session_fields.iter().flat_map(values).collect() }
    }

    /// What they name is found out only now, when few requests still want to know.
    fn answered(self, response: &Response<Body>, ends_session: bool) {
        if self.sessions.is_empty() || !ends_session && !response.headers().contains_key(SET_COOKIE) {
            return;
        }
        let mut headers = HeaderMap::new();
        headers.extend(self.fields);
        for session in self.sessions.iter().filter_map(|check| check.session()) {
            let id = session.presented(&headers);
            session.answered(id.as_deref(), response.headers());
            if let Some(id) = id.filter(|_| ends_session) {
                session.forget(&id);
            }
        }
    }
}

/// What the checks of a request leave to be done.
#[derive(Default)]
struct Examined<'t> {
    /// The legacy side, where a check leaves it to that one to decide.
    undecided: Option<(Side, &'t Place)>,
    /// The checks whose verdicts, as metrics have them, are to be compared with that of the legacy side.
    compared: Vec<(&'t Checked, &'static str)>,
}

/// Counts what the legacy side made of a request beside what the checks had said of it. A failure of its own says
/// nothing about the caller.
fn compare(compared: &[(&Checked, &'static str)], response: &Response<Body>, exchange: &Exchange) {
    if response.status().is_server_error() {
        return;
    }
    for (Checked { check, stats, .. }, verdict) in compared {
        if let Some(session) = check.session() {
            exchange.compared(stats, verdict, session.is_turned_away(response));
        }
    }
}

/// Turns what a client sent into what a side may be given, or refuses it. How long and how much it may be is its route's
/// to say, in [`bound`].
fn admit(
    table: &RouteTable,
    request: Request<Incoming>,
    client: Client,
    request_id: &HeaderValue,
    started: Instant,
) -> Result<Admitted, Answer> {
    let RouteTable { edge, owned_fields, .. } = table;
    let (mut head, body) = request.into_parts();
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Answer::MethodRefused);
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > edge.limits.uri_bytes {
        return Err(Answer::TargetTooLong);
    }
    headers::admit(head.version, &mut head.headers, client.via_trusted_proxy, owned_fields)?;
    let host = Host::of(head.version, &head.uri, &head.headers)?;
    let path = CanonicalPath::of(&head.uri).map_err(|_| Answer::BadPath)?;
    head.headers.insert(X_REQUEST_ID, request_id.clone());
    let body = RequestBody::new(body, edge.limits.body_bytes, edge.timeouts.body_gap);
    let (request_id, deadline) = (request_id.clone(), started.into());
    Ok(Admitted { host, inbound: Box::new(Inbound { head, body, path, client, request_id, deadline }) })
}

/// The route of a request, or why there is none.
fn find<'t>(table: &'t RouteTable, host: &Host, inbound: &Inbound) -> Result<&'t Arc<Route>, Refusal> {
    let Inbound { head, path, .. } = inbound;
    match table.find(&head.method, host.as_str(), path, head.uri.query(), &head.headers) {
        Found::Route(route) => Ok(route),
        Found::MethodNotAllowed { allow } => Err(Refusal::MethodNotAllowed { allow }),
        Found::Disputed { .. } | Found::Nothing => Err(Refusal::Refused(Answer::NoRoute)),
    }
}

/// Holds a request to the bounds of its route.
fn bound(inbound: &mut Inbound, route: &Route, exchange: &mut Exchange) -> Result<(), Answer> {
    inbound.body.bound(route.body_bytes).map_err(|fault| fault.answer())?;
    if !inbound.body.is_end_stream() {
        inbound.body.count(exchange.received());
    }
    // Every side keeps the deadline itself: a second timer here would cost each request its setting and clearing.
    inbound.deadline = (exchange.timeline().started() + route.timeout).into();
    Ok(())
}

/// Has the checks of the route look at the request, in their order, and tells the sides who is calling.
///
/// Where a check's verdict is compared with that of the legacy side, that one decides.
async fn examine<'t>(
    route: &'t Route,
    host: &Host,
    inbound: &mut Inbound,
    exchange: &mut Exchange,
) -> Result<Examined<'t>, Refusal> {
    let mut identity: Option<Identity> = None;
    let mut examined = Examined::default();
    for checked in &route.checks {
        let Checked { check, stats, .. } = checked;
        let verdict = verdict(checked, host, inbound, exchange).await;
        if check.session().is_some_and(Session::samples_parity) && route.choose().0 == Side::Legacy {
            examined.compared.push((checked, verdict.word()));
            if !matches!(verdict, Verdict::Pass(_)) {
                continue;
            }
        }
        match (verdict, route.legacy()) {
            (Verdict::Pass(None), _) => {}
            (Verdict::Pass(Some(found)), _) => {
                identity = Some(match identity {
                    Some(known) => known.and(&found),
                    None => found,
                });
            }
            (Verdict::Legacy(refused), Some(legacy)) => {
                exchange.undecided(stats, refused.reason);
                examined.undecided = Some((Side::Legacy, legacy));
            }
            (Verdict::Legacy(refused) | Verdict::Refuse(refused), _) => {
                exchange.refused(stats, refused.reason);
                return Err(refused.answer.into());
            }
            (Verdict::Answered { response, reason }, _) => {
                exchange.refused(stats, reason);
                return Err(Refusal::Answered(response));
            }
        }
    }
    if let Some(identity) = identity {
        exchange.known_as(identity.user_header());
        identity.tell(&mut inbound.head.headers);
        inbound.head.extensions.insert(identity);
    }
    Ok(examined)
}

/// What one check says of the request.
async fn verdict(checked: &Checked, host: &Host, inbound: &mut Inbound, exchange: &mut Exchange) -> Verdict {
    let Checked { check, stats, authority } = checked;
    let authority = authority.as_ref().map(|place| Asked { place, exchange });
    let authority = authority.as_ref().map(|asked| asked as &dyn Authority);
    let Inbound { head, body, client, request_id, deadline, .. } = inbound;
    let mut subject = Subject { head, host, client, request_id, body, deadline: *deadline };
    let began = exchange.moment();
    let verdict = check.examine(&mut subject, authority).await;
    exchange.examined(stats, began);
    verdict
}

/// An upstream whom a check asks, in place of a side.
struct Asked<'a> {
    place: &'a Place,
    exchange: &'a Exchange,
}

impl Authority for Asked<'_> {
    fn ask<'a>(&'a self, question: Question) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + 'a>> {
        let Question { head, path, client, request_id, deadline } = question;
        let inbound =
            Inbound { head, body: RequestBody::empty(), path, client, request_id: request_id.clone(), deadline };
        let Self { place, exchange } = self;
        Box::pin(async move {
            // The exchange's own moments are those of the side.
            let timeline = Timeline::start(Instant::now());
            let failed = match place.target.call(Box::new(inbound), &timeline).await {
                Ok(response) => return Some(response),
                Err(error) => error,
            };
            place.target.log(&failed, request_id.to_str().unwrap_or_default());
            if let Some(reason) = failed.reason() {
                exchange.failed_beside(&place.stats, reason);
            }
            None
        })
    }
}

impl Refusal {
    /// Renders the answer, and leaves its cause in the record.
    fn into_response(
        self,
        accept: Option<&HeaderValue>,
        request_id: &HeaderValue,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let allow = self.allow();
        let (answer, reason) = match self {
            Self::Refused(answer) => (answer, None),
            Self::MethodNotAllowed { .. } => (Answer::MethodNotAllowed, None),
            Self::Failed(error) => (error.answer(), error.reason()),
            Self::Answered(response) => return passed_on(*response),
        };
        let mut response = answer.render(accept, request_id.to_str().unwrap_or_default());
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        exchange.answered_by_gateway(answer.code(), reason);
        response
    }

    /// The methods that would be served, where it was the method that is not.
    fn allow(&self) -> Option<HeaderValue> {
        match self {
            Self::Refused(_) | Self::Answered(_) => None,
            Self::MethodNotAllowed { allow } => HeaderValue::from_str(allow).ok(),
            Self::Failed(error) => error.allow(),
        }
    }
}

/// What somebody behind the gateway answers, as a client may see it.
fn passed_on(mut response: Response<Bytes>) -> Response<Body> {
    headers::clean_response(response.headers_mut());
    response.map(Body::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_not_served_is_told_those_that_are() {
        let routed = Refusal::MethodNotAllowed { allow: "GET, PUT".to_owned() };
        assert_eq!(routed.allow().unwrap(), "GET, PUT");
        assert_eq!(Refusal::Failed(upstream::Error::FileMethod).allow().unwrap(), "GET, HEAD");
        assert_eq!(Refusal::Failed(upstream::Error::NoFile { why: "absent" }).allow(), None);
        assert_eq!(Refusal::from(Answer::NoRoute).allow(), None);
    }
}
