//! What each path of the operator's port answers.
//!
//! Pure but for what it reads from [`Admin`]: a request's head in, a response out. Everything is
//! GET and HEAD. On a loopback address the `Host` must be a local name: a page in the operator's
//! browser must not read the port through a name of its own (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use ::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::compare::{self, Question};
use super::{Admin, gauges, routes};
use crate::http::Answer;
use crate::telemetry::Format;

type Reply = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

const INDEX: &str = "<!doctype html>\n<meta charset=utf-8>\n<title>strangler</title>\n<h1>strangler</h1>\n<ul>\n\
    <li><a href=\"/healthz\">/healthz</a> the process is alive\n\
    <li><a href=\"/readyz\">/readyz</a> it wants traffic\n\
    <li><a href=\"/metrics\">/metrics</a> metrics, as Prometheus text, OpenMetrics or protobuf\n\
    <li><a href=\"/api/routes\">/api/routes</a> the table in force, and the last rejected file\n\
    <li><a href=\"/api/compare?window=1m&amp;latency=total\">/api/compare?window=1m&amp;latency=total</a> both sides of each \
    route; windows 1m, 10m, 1h; latency total or service\n</ul>\n";

impl Admin {
    /// The answer to one request that reached the port at `bound`.
    pub(super) fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, bound: SocketAddr) -> Reply {
        if bound.ip().is_loopback() && !host_is_local(uri, headers) {
            return refusal(
                StatusCode::FORBIDDEN,
                40301,
                "this port answers to localhost only; ask for it by a loopback address",
            );
        }
        let answer: fn(&Self, &Uri, &HeaderMap) -> Reply = match uri.path() {
            "/" => |_, _, _| reply(StatusCode::OK, HTML, INDEX),
            "/healthz" => |_, _, _| reply(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => |admin, _, _| admin.readyz(),
            "/metrics" => |admin, _, headers| admin.metrics(headers),
            "/api/routes" => |admin, _, _| {
                let shown = routes::shown(&admin.table.current(), &admin.reloads.snapshot());
                json_reply(StatusCode::OK, &shown)
            },
            "/api/compare" => |admin, uri, _| admin.compare(uri.query()),
            _ => return own(Answer::NoRoute),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut reply = own(Answer::MethodNotAllowed);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return reply;
        }
        answer(self, uri, headers)
    }

    fn readyz(&self) -> Reply {
        match self.telemetry.readiness().unready() {
            None => json_reply(StatusCode::OK, &json!({ "ready": true })),
            Some(reason) => json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Reply {
        let format = Format::negotiate(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
        let gauges = gauges::of(&self.table.current(), &self.reloads.snapshot());
        match self.telemetry.metrics(gauges, format) {
            Ok(metrics) => reply(StatusCode::OK, format.content_type(), metrics),
            Err(_) => own(Answer::Internal),
        }
    }

    fn compare(&self, query: Option<&str>) -> Reply {
        match Question::read(query) {
            Ok(question) => json_reply(StatusCode::OK, &compare::answer(&self.table.current(), question)),
            Err(remedy) => refusal(StatusCode::BAD_REQUEST, 40001, remedy),
        }
    }
}

/// Whether the request names this port by a name that only this machine resolves to itself.
/// HTTP/1.0 knows no `Host`; no browser speaks it.
fn host_is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, Some(host)) => host.to_str().ok(),
        (None, None) => return true,
    };
    let Some(authority) = named.and_then(|named| named.parse::<::http::uri::Authority>().ok()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn own(answer: Answer) -> Reply {
    refusal(answer.status(), answer.code(), answer.message())
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Reply {
    json_reply(status, &json!({ "code": code, "message": message, "data": null }))
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, JSON, format!("{value}\n"))
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    const HEADERS: [(HeaderName, &str); 3] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let mut response = Response::new(Full::new(body.into()));
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
    use http_body_util::BodyExt;

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
    }

    #[test]
    fn on_a_loopback_address_only_local_names_are_answered() {
        let admin = Admin::for_test();
        let status = |host, bound| ask(&admin, &Method::GET, "/metrics", host, bound).status().as_u16();
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.8.9.1", "[::1]:9901", "shop.localhost"] {
            assert_eq!(status(Some(host), "127.0.0.1:9901"), 200, "{host}");
        }
        for host in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert_eq!(status(Some(host), "127.0.0.1:9901"), 403, "{host}");
        }
        assert_eq!(status(None, "127.0.0.1:9901"), 200);
        assert_eq!(status(Some("metrics.internal"), "10.0.0.7:9901"), 200);
        let absolute = ask(&admin, &Method::GET, "http://evil.example/metrics", Some("localhost"), "127.0.0.1:1");
        assert_eq!(absolute.status(), 403);
    }

    #[tokio::test]
    async fn every_link_of_the_index_leads_somewhere() {
        let admin = Admin::for_test();
        admin.telemetry.readiness().set(true);
        let index = text(get(&admin, "/")).await;
        let links: Vec<String> =
            index.split("href=\"").skip(1).map(|link| link.split('"').next().unwrap().replace("&amp;", "&")).collect();
        assert_eq!(links.len(), 5);
        for link in links {
            assert_eq!(get(&admin, &link).status(), 200, "{link}");
        }
    }
}
