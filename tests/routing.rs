//! Which route a request finds, seen from outside.

use axum::Router;
use axum::extract::Request;
use axum::routing::any;

use crate::support::client::exchange;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Service, service, upstream};

/// A gateway whose routes lead to services that answer with their own names.
async fn routes(names: &[&'static str], table: &str) -> (Vec<Service>, Gateway) {
    let (mut services, mut text) = (Vec::new(), String::new());
    for name in names {
        let name = *name;
        let service = service(Router::new().fallback(any(move || async move { name }))).await;
        text.push_str(&upstream(name, &[service.url()], ""));
        services.push(service);
    }
    let gateway = gateway().toml(text).toml(table).start().await;
    (services, gateway)
}

async fn asked(gateway: &Gateway, method: &str, host: &str, target: &str, fields: &str) -> (u16, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    let answer = exchange(gateway.address(), request).await.expect("an answer");
    (answer.status, answer.text())
}

#[tokio::test]
async fn the_more_specific_route_wins_wherever_it_stands_in_the_file() {
    let table = r#"
[[route]]
path = "/{*rest}"
legacy = "rest"
[[route]]
path = "/orders/{id}"
legacy = "order"
[[route]]
path = "/orders/new"
legacy = "static"
[[route]]
name = "order-post"
path = "/orders/{id}"
methods = ["POST", "PUT"]
legacy = "post"
[[route]]
name = "order-v2"
path = "/orders/{id}"
when = { header = { accept = "application/vnd.v2+json" } }
legacy = "when"
[[route]]
name = "on-host"
host = "admin.test"
path = "/{*rest}"
legacy = "host"
"#;
    let (_services, gateway) = routes(&["rest", "order", "static", "post", "when", "host"], table).await;
    for (method, host, target, fields, name) in [
        ("GET", "a.test", "/", "", "rest"),
        ("GET", "a.test", "/orders", "", "rest"),
        ("GET", "a.test", "/orders/7", "", "order"),
        ("GET", "a.test", "/orders/7/lines", "", "rest"),
        ("GET", "a.test", "/orders/new", "", "static"),
        ("POST", "a.test", "/orders/7", "Content-Length: 0\r\n", "post"),
        ("DELETE", "a.test", "/orders/7", "", "order"),
        ("GET", "a.test", "/orders/7", "Accept: application/vnd.v2+json\r\n", "when"),
        ("GET", "admin.test", "/orders/7", "", "host"),
        ("GET", "ADMIN.test:8080", "/", "", "host"),
    ] {
        let found = asked(&gateway, method, host, target, fields).await;
        assert_eq!(found, (200, name.to_owned()), "{method} {host}{target} {fields}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_404_and_an_unknown_method_405_with_those_allowed() {
    let table = "[[route]]\npath = \"/orders/{id}\"\nmethods = [\"GET\", \"PUT\"]\nlegacy = \"one\"\n\
                 [[route]]\nname = \"delete\"\npath = \"/orders/{id}\"\nmethods = [\"DELETE\"]\nlegacy = \"one\"\n";
    let (_services, gateway) = routes(&["one"], table).await;
    assert_eq!(asked(&gateway, "GET", "a", "/nothing", "").await.0, 404);
    let answer = exchange(gateway.address(), "POST /orders/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.json_code()), (405, 40501));
    let mut allowed: Vec<&str> = answer.header("allow").expect("Allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert!(["DELETE", "GET", "PUT"].iter().all(|method| allowed.contains(method)), "{allowed:?}");
    assert!(!allowed.contains(&"POST"), "{allowed:?}");
    assert_eq!(asked(&gateway, "HEAD", "a", "/orders/7", "").await.0, 200, "HEAD is allowed where GET is");
}

#[tokio::test]
async fn routes_of_a_group_share_what_it_says() {
    let table = "[[group]]\nprefix = \"/api/v2\"\nlegacy = \"one\"\nnew = \"two\"\nserve = \"new\"\n\
                 [[group.route]]\npath = \"/users/{id}\"\n\
                 [[group.route]]\npath = \"/orders\"\nserve = \"legacy\"\n";
    let (_services, gateway) = routes(&["one", "two"], table).await;
    assert_eq!(asked(&gateway, "GET", "a", "/api/v2/users/7", "").await.1, "two");
    assert_eq!(asked(&gateway, "GET", "a", "/api/v2/orders", "").await.1, "one");
    assert_eq!(asked(&gateway, "GET", "a", "/users/7", "").await.0, 404);
}

#[tokio::test]
async fn every_spelling_of_a_path_finds_the_same_route_or_is_refused() {
    let (_services, gateway) = routes(
        &["admin", "rest"],
        "[[route]]\npath = \"/admin/{*rest}\"\nlegacy = \"admin\"\n[[route]]\npath = \"/{*rest}\"\nlegacy = \"rest\"\n",
    )
    .await;
    for target in [
        "/admin/x",
        "/%61dmin/x",
        "/a/../admin/x",
        "//admin/x",
        "/./admin//x",
        "/admin/./x",
        "/x/%2e%2e/admin/x",
        "/admin/%2e/x",
    ] {
        let (status, text) = asked(&gateway, "GET", "a", target, "").await;
        assert!(status == 400 || text == "admin", "{target}: {status} {text}");
    }
    for target in ["/..", "/../admin/x", "/a%", "/a%zz", "/a%00", "/a\\b", "/a%5cb", "/%2e%2e/x", "/a%0ab"] {
        let (status, text) = asked(&gateway, "GET", "a", target, "").await;
        assert_eq!(status, 400, "{target}: {text}");
    }
}

#[tokio::test]
async fn an_upstream_is_sent_the_target_as_the_client_wrote_it() {
    let echo = service(Router::new().fallback(any(|request: Request| async move { request.uri().to_string() }))).await;
    let table = format!("{}[[route]]\npath = \"/{{*rest}}\"\nlegacy = \"echo\"\n", upstream("echo", &[echo.url()], ""));
    let gateway = gateway().toml(table).start().await;
    for target in ["/a%20b/?x=%41&y", "/%61?", "/a/./b/../c", "/caf%C3%A9?q=a+b", "/?"] {
        let (status, text) = asked(&gateway, "GET", "a", target, "").await;
        assert_eq!((status, text.trim_end_matches('?')), (200, target.trim_end_matches('?')), "{target}");
    }
}
