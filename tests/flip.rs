//! One word in the file, seen from outside.

use axum::Json;
use axum::Router;
use axum::routing::get;
use serde_json::json;

use crate::support::upstream::{service, upstream};
use crate::support::{gateway, php};

#[tokio::test]
async fn a_flip_is_seen_by_a_client_as_one_side_then_the_other_and_no_failure() {
    let php = php().start().await;
    php.put(
        "index.php",
        "<?php header('Content-Type: application/json'); header_remove('X-Powered-By');
         echo json_encode(['code' => 0, 'message' => 'ok', 'data' => [['id' => 1, 'by' => 'php']]]);",
    );
    let products = Json(json!({"code": 0, "message": "ok", "data": [{"id": 1, "by": "rust"}]}));
    let new = service(Router::new().route("/api/v1/products", get(move || async move { products }))).await;
    let gateway = gateway()
        .toml(php.upstream("php = \"files\""))
        .toml(upstream("products", &[new.url()], ""))
        .toml("[[route]]\nname = \"products\"\npath = \"/api/v1/products\"\nlegacy = \"php\"\nnew = \"products\"\nserve = \"legacy\" # the one word\n")
        .start()
        .await;

    let mut seen = Vec::new();
    let mut edited = false;
    let mut after = 0;
    while after < 200 {
        let response = gateway.get("/api/v1/products").await;
        assert_eq!(response.status(), 200);
        let headers: Vec<String> = response.headers().keys().map(|name| name.as_str().to_owned()).collect();
        assert!(!headers.iter().any(|name| name.starts_with("x-strangler") || name == "via"), "{headers:?}");
        let body: serde_json::Value = response.json().await.expect("JSON");
        let by = body["data"][0]["by"].as_str().expect("a side").to_owned();
        if seen.last() != Some(&by) {
            seen.push(by.clone());
        }
        assert!(seen.len() <= 2, "the sides alternate: {seen:?}");
        if seen.len() == 2 {
            after += 1;
        } else if !edited && gateway.records().len() >= 100 {
            gateway.edit(|text| text.replace("serve = \"legacy\"", "serve = \"new\""));
            edited = true;
        }
    }
    assert_eq!(seen, ["php", "rust"]);
    assert!(gateway.read_table().contains("# the one word"));

    let metrics = gateway.metrics().await;
    assert!(
        metrics.sum("strangler_requests_total", &[("route", "products"), ("side", "legacy"), ("status", "2xx")])
            >= 100.0
    );
    assert!(
        metrics.sum("strangler_requests_total", &[("route", "products"), ("side", "new"), ("status", "2xx")]) >= 200.0
    );
    assert_eq!(metrics.sum("strangler_route_serve", &[("route", "products"), ("serve", "new")]), 1.0);
    assert_eq!(metrics.sum("strangler_route_serve", &[("route", "products"), ("serve", "legacy")]), 0.0);
}

#[tokio::test]
async fn the_side_is_named_in_the_answer_only_where_the_table_says_so() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway()
        .server("reveal = true")
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[other.url()], ""))
        .toml("[[route]]\nname = \"old\"\npath = \"/old\"\nlegacy = \"one\"\nnew = \"other\"\nserve = \"legacy\"\n")
        .toml("[[route]]\nname = \"fresh\"\npath = \"/fresh\"\nlegacy = \"one\"\nnew = \"other\"\nserve = \"new\"\n")
        .start()
        .await;
    for (path, side) in [("/old", "legacy"), ("/fresh", "new"), ("/none", "gateway")] {
        let response = gateway.get(path).await;
        let said = response.headers().get("x-strangler-side").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(said.as_deref(), Some(side), "{path}");
    }
    gateway.edit(|text| text.replace("reveal = true", "reveal = false"));
    gateway.until_newer(1).await;
    assert_eq!(gateway.get("/old").await.headers().get("x-strangler-side"), None);
}

#[tokio::test]
async fn flipping_by_the_command_keeps_the_file_as_it_was_written() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway()
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[other.url()], ""))
        .toml("# A comment that matters.\n[[route]]\nname  = \"page\"   # aligned\npath  = \"/{*rest}\"\nlegacy = \"one\"\nnew = \"other\"\nserve = \"legacy\"   # until Friday\n")
        .start()
        .await;
    let before = gateway.read_table();
    let file = gateway.table().display().to_string();
    let (code, out, err) = gateway::run(&["flip", "page", "new", "-c", &file], gateway.dir());
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        gateway.read_table(),
        before.replace("serve = \"legacy\"   # until Friday", "serve = \"new\"   # until Friday")
    );
    gateway.until_newer(1).await;
    assert_eq!(gateway.ask("/").await.1, "new");

    let (code, out, err) = gateway::run(&["flip", "pgae", "new", "-c", &file], gateway.dir());
    assert_eq!(code, 2, "{out}{err}");
    assert!(format!("{out}{err}").contains("page"), "a typing error is met with the name that was meant: {out}{err}");
    let (code, ..) = gateway::run(&["flip", "page", "sideways", "-c", &file], gateway.dir());
    assert_eq!(code, 2);
}
