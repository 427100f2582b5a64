//! What each path of the operator's port answers.
//!
//! Pure but for what it reads from [`Admin`]: a request's head in, a response out. Everything is GET
//! and HEAD, but for the one order that changes something ([`super::flip`]). Who may ask is
//! [`super::guard`]'s to say.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::body::Body;
use super::compare::{self, Question};
use super::{Admin, flip, gauges, guard, page, report, routes, series, upstreams};
use crate::http::{Answer, BoxError};
use crate::telemetry::Format;

type Reply = Response<Body>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const EVENTS: &str = "text/event-stream";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JS: &str = "text/javascript; charset=utf-8";

impl Admin {
    /// The answer to one request that reached the port at `bound`; `cut` ends its connection.
    pub(super) async fn respond<B>(&self, request: Request<B>, bound: SocketAddr, cut: &Rc<Notify>) -> Reply
    where
        B: ::http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        match (method, flip::route_of(uri.path())) {
            (&Method::POST, Some(route)) => match guard::writing(uri, headers, bound, &self.token) {
                Ok(()) => {
                    let (status, told) = flip::answer(route, body, &self.flip).await;
                    json_reply(status, &told)
                }
                Err(refused) => turned_away(refused),
            },
            (&Method::GET, None) if uri.path() == "/api/events" => {
                match guard::reading(uri, headers, bound, &self.token) {
                    Ok(()) => self.listen(uri.query(), cut),
                    Err(refused) => turned_away(refused),
                }
            }
            _ => self.answer(method, uri, headers, bound),
        }
    }

    /// The answer to whatever only reads, and is complete at once.
    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, bound: SocketAddr) -> Reply {
        if let Err(refused) = guard::reading(uri, headers, bound, &self.token) {
            return turned_away(refused);
        }
        let answer: fn(&Self, &Uri, &HeaderMap) -> Reply = match uri.path() {
            "/healthz" => |_, _, _| reply(StatusCode::OK, TEXT, Body::whole("ok\n")),
            "/readyz" => |admin, _, _| admin.readyz(),
            "/metrics" => |admin, _, headers| admin.metrics(headers),
            "/api/routes" => |admin, _, _| json_reply(StatusCode::OK, &admin.routes()),
            "/api/compare" => |admin, uri, _| admin.compare(uri.query()),
            "/api/report" => |admin, uri, _| admin.report(uri.query()),
            "/api/series" => |admin, uri, _| admin.series(uri.query()),
            "/api/events" => return not_allowed("GET"),
            path if flip::route_of(path).is_some() => return not_allowed("POST"),
            path if page::file(path).is_some() => |_, uri, _| page_reply(uri.path()),
            _ => return own(Answer::NoRoute),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        answer(self, uri, headers)
    }

    fn routes(&self) -> Value {
        let mut shown = routes::shown(&self.table.current(), &self.reloads.snapshot());
        routes::merge(&mut shown, json!({ "file": self.file }));
        shown
    }

    fn listen(&self, query: Option<&str>, cut: &Rc<Notify>) -> Reply {
        let question = match Question::read(query) {
            Ok(question) => question,
            Err(remedy) => return refusal(StatusCode::BAD_REQUEST, 40001, remedy),
        };
        let Some(events) = self.events.listen(question, cut) else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, 50301, "too many listen already; close another dashboard");
        };
        reply(StatusCode::OK, EVENTS, Body::Events(events))
    }

    /// One event: the comparison, and beside it what else may change from second to second.
    pub(super) async fn event(&self, question: Question) -> Bytes {
        let table = self.table.current();
        let mut beside = json!({ "upstreams": upstreams::shown(&table, &self.costs.known()) });
        routes::merge(&mut beside, routes::reloads_shown(&self.reloads.snapshot()));
        // JSON has no line ends but escaped ones, so that an event is one line of data.
        let mut told = "data: ".to_owned();
        compare::append(&mut told, &table, question, beside).await;
        told.push_str("\n\n");
        told.into()
    }

    fn readyz(&self) -> Reply {
        match self.telemetry.readiness().unready() {
            None => json_reply(StatusCode::OK, &json!({ "ready": true })),
            Some(reason) => json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Reply {
        let format = Format::negotiate(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
        let (table, reloads, costs) = (self.table.current(), self.reloads.snapshot(), self.costs.known());
        let telemetry = Arc::clone(&self.telemetry);
        let written = Body::written(async move |reader| {
            let gauges = gauges::of(&table, &reloads, &costs).await;
            telemetry.write_metrics(gauges, format, reader).await;
        });
        reply(StatusCode::OK, format.content_type(), written)
    }

    fn compare(&self, query: Option<&str>) -> Reply {
        let table = self.table.current();
        asked(query, |question| written(async move |told| compare::append(told, &table, question, json!({})).await))
    }

    fn report(&self, query: Option<&str>) -> Reply {
        let (table, costs) = (self.table.current(), self.costs.known());
        asked(query, |question| written(async move |told| report::append(told, &table, &costs, question).await))
    }

    fn series(&self, query: Option<&str>) -> Reply {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let Some((_, name)) = pairs.find(|(key, _)| key == "route") else {
            return refusal(StatusCode::BAD_REQUEST, 40001, "route names the route, as in route=order");
        };
        let (table, reloads) = (self.table.current(), self.reloads.snapshot());
        asked(query, |question| match series::answer(&table, &reloads, &name, question) {
            Some(answered) => json_reply(StatusCode::OK, &answered),
            None => refusal(StatusCode::NOT_FOUND, 40401, "the table has no route of this name"),
        })
    }
}

/// Answers a question of windows.
fn asked(query: Option<&str>, answer: impl FnOnce(Question) -> Reply) -> Reply {
    Question::read(query).map_or_else(|remedy| refusal(StatusCode::BAD_REQUEST, 40001, remedy), answer)
}

/// JSON of all routes, which is put together with pauses.
fn written(append: impl AsyncFnOnce(&mut String) + 'static) -> Reply {
    let body = Body::written(async move |reader| {
        let mut told = String::new();
        append(&mut told).await;
        told.push('\n');
        // Whoever takes no more drops this.
        let _ = reader.send(told.into()).await;
    });
    reply(StatusCode::OK, JSON, body)
}

fn turned_away(guard::Refused(status, code, message): guard::Refused) -> Reply {
    refusal(status, code, message)
}

fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = own(Answer::MethodNotAllowed);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

fn page_reply(path: &str) -> Reply {
    let Some((content_type, content)) = page::file(path) else { return own(Answer::NoRoute) };
    let mut reply = reply(StatusCode::OK, content_type, Body::whole(content));
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    reply
}

fn own(answer: Answer) -> Reply {
    refusal(answer.status(), answer.code(), answer.message())
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Reply {
    json_reply(status, &refused(code, message))
}

/// A refusal in the form of all the gateway's own answers.
pub(super) fn refused(code: u32, message: &str) -> Value {
    json!({ "code": code, "message": message, "data": null })
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, JSON, Body::whole(format!("{value}\n")))
}

fn reply(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    const HEADERS: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use ::http::header::HOST;
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn ask(admin: &Admin, method: &Method, target: &str, host: Option<&str>, bound: &str) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        admin.answer(method, &target.parse().unwrap(), &headers, bound.parse().unwrap())
    }

    fn get(admin: &Admin, target: &str) -> Reply {
        ask(admin, &Method::GET, target, Some("localhost:9901"), "127.0.0.1:9901")
    }

    async fn text(reply: Reply) -> String {
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn readiness_is_told_with_its_reason() {
        let admin = Admin::for_test();
        let starting = get(&admin, "/readyz");
        assert_eq!(starting.status(), 503);
        assert_eq!(text(starting).await, "{\"ready\":false,\"reason\":\"starting\"}\n");
        admin.telemetry.readiness().set(true);
        assert_eq!(get(&admin, "/readyz").status(), 200);
        admin.telemetry.readiness().set(false);
        assert_eq!(text(get(&admin, "/readyz")).await, "{\"ready\":false,\"reason\":\"draining\"}\n");
        assert_eq!(text(get(&admin, "/healthz")).await, "ok\n");
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_is_asked_for() {
        let admin = Admin::for_test();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/openmetrics-text"));
        let reply = admin.answer(&Method::GET, &"/metrics".parse().unwrap(), &headers, "[::1]:1".parse().unwrap());
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(text(reply).await.ends_with("# EOF\n"));
        let plain = get(&admin, "/metrics");
        assert_eq!(plain.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        assert!(text(plain).await.contains("strangler_route_serve{route=\"order\",serve=\"legacy\"} 1\n"));
    }

    #[tokio::test]
    async fn what_the_port_does_not_have_is_a_404_and_what_it_does_not_do_a_405() {
        let admin = Admin::for_test();
        let missing = get(&admin, "/api/nothing");
        assert_eq!(
            (missing.status(), &missing.headers()[CONTENT_TYPE]),
            (StatusCode::NOT_FOUND, &HeaderValue::from_static(JSON))
        );
        let posted = ask(&admin, &Method::POST, "/metrics", Some("127.0.0.1:9901"), "127.0.0.1:9901");
        assert_eq!((posted.status().as_u16(), &posted.headers()[ALLOW]), (405, &HeaderValue::from_static("GET, HEAD")));
        assert_eq!(ask(&admin, &Method::HEAD, "/", Some("[::1]"), "[::1]:9901").status(), 200);
        let asked = get(&admin, "/api/compare?window=2m");
        assert_eq!(asked.status(), 400);
        assert!(text(asked).await.contains("1m, 10m or 1h"));
        assert_eq!(get(&admin, "/api/series").status(), 400);
        assert_eq!(get(&admin, "/api/series?route=nowhere").status(), 404);
        assert_eq!(get(&admin, "/api/series?route=%6frder&window=10m").status(), 200);
    }

    #[test]
    fn a_name_that_is_not_local_is_turned_away_and_so_is_another_machine_without_the_token() {
        let admin = Admin::for_test();
        let status = |target, host, bound| ask(&admin, &Method::GET, target, Some(host), bound).status().as_u16();
        assert_eq!(status("/metrics", "evil.example", "127.0.0.1:9901"), 403);
        assert_eq!(status("/api/routes", "gateway.internal", "10.0.0.7:9901"), 401);
        assert_eq!(status("/metrics", "gateway.internal", "10.0.0.7:9901"), 200);
    }

    #[tokio::test]
    async fn a_flip_is_an_order_with_the_token_and_anything_else_is_none() {
        let admin = Admin::for_test();
        let order = |method: &str, token: &str| {
            Request::builder()
                .method(method)
                .uri("/api/routes/order/serve")
                .header("host", "localhost:9901")
                .header("authorization", format!("Bearer {token}"))
                .header(CONTENT_TYPE, JSON)
                .body(Full::new(Bytes::from_static(br#"{"serve": "new"}"#)))
                .unwrap()
        };
        let bound = "127.0.0.1:9901".parse().unwrap();
        let cut = Rc::new(Notify::new());
        let done = admin.respond(order("POST", admin.token.reveal()), bound, &cut).await;
        assert_eq!(done.status(), 200);
        assert!(text(done).await.contains("\"to\":\"new\""));
        assert_eq!(admin.respond(order("POST", "guessed"), bound, &cut).await.status(), 401);
        let got = admin.respond(order("GET", admin.token.reveal()), bound, &cut).await;
        assert_eq!((got.status().as_u16(), &got.headers()[ALLOW]), (405, &HeaderValue::from_static("POST")));
    }

    #[tokio::test]
    async fn the_page_has_a_strict_policy_and_every_file_that_it_names() {
        let admin = Admin::for_test();
        let page = get(&admin, "/");
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let html = text(page).await;
        assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick="));
        let named = html.split(['"', '\'']).filter(|name| {
            [".js", ".css", ".svg"].iter().any(|end| name.ends_with(end)) && !name.contains(char::is_whitespace)
        });
        let named: Vec<&str> = named.collect();
        assert!(named.len() >= 4, "{named:?}");
        for name in named {
            assert_eq!(get(&admin, name).status(), 200, "{name}");
        }
    }
}
