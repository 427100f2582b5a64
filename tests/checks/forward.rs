//! An upstream that decides: a service, or a script of PHP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::Value;

use crate::support::gateway::{Gateway, gateway};
use crate::support::upstream::{Service, scripted, service, upstream};
use crate::support::{eventually, php};

/// Lets `good` tokens in, shows others its own page or its login, and repeats what it was asked.
async fn judge(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let asked = format!(
        "{method} {uri} for {} {} at {}; {} bytes of {:?}; roles {:?}",
        header("x-forwarded-method"),
        header("x-forwarded-uri"),
        header("x-forwarded-host"),
        body.len(),
        header("content-type"),
        header("x-user-roles"),
    );
    match header("authorization").as_str() {
        "good" => (StatusCode::NO_CONTENT, [("x-user-id", "7"), ("x-user-roles", "admin")]).into_response(),
        "guest" => (StatusCode::OK, "come in").into_response(),
        "banned" => (StatusCode::FORBIDDEN, [("x-user-roles", "banned")], asked).into_response(),
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, asked).into_response(),
        "large" => (StatusCode::UNAUTHORIZED, "x".repeat(100_000)).into_response(),
        _ => (StatusCode::FOUND, [("location", "/login"), ("set-cookie", "back=1")]).into_response(),
    }
}

/// A judge that counts its judgements.
async fn authority() -> (Service, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let judge = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        counted.fetch_add(1, Ordering::SeqCst);
        judge(method, uri, headers, body)
    };
    (service(Router::new().fallback(any(judge))).await, count)
}

/// Says what it was told of the caller.
async fn app() -> Service {
    let told = |headers: HeaderMap| async move {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        format!("user {:?} roles {:?}", header("x-strangler-user"), header("x-user-roles"))
    };
    service(Router::new().fallback(any(told))).await
}

fn check(extra: &str) -> String {
    format!(
        "[check.asked]\nkind = \"forward\"\nupstream = \"judge\"\npath = \"/auth?strict=1\"\ncopy = [\"x-user-roles\"]\n\
         user = \"header:x-user-id\"\n{extra}\n[[route]]\nname = \"api\"\npath = \"/{{*rest}}\"\nlegacy = \"app\"\n\
         check = [\"asked\"]\n[[route]]\nname = \"open\"\npath = \"/open\"\nlegacy = \"app\"\n"
    )
}

async fn ask(gateway: &Gateway, token: &str) -> (u16, String) {
    let request = gateway.request("POST", "/orders?id=1").header("Authorization", token).body("a body");
    let request =
        request.header("X-User-Roles", "root").header("X_User_Roles", "root").header("Host", "shop.test:8080");
    let answer = request.header("Content-Type", "text/plain").send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("its body"))
}

#[tokio::test]
async fn a_service_decides_and_says_who_it_is_and_nobody_else_can() {
    let ((judge, _), app) = (authority().await, app().await);
    let upstreams = format!("{}{}", upstream("judge", &[judge.url()], ""), upstream("app", &[app.url()], ""));
    let gateway = gateway().toml(upstreams).toml(check("")).start().await;
    assert_eq!(ask(&gateway, "good").await, (200, r#"user "7" roles "admin""#.to_owned()));
    assert_eq!(ask(&gateway, "guest").await, (200, r#"user "" roles """#.to_owned()));
    let seen = r#"GET /auth?strict=1 for POST /orders?id=1 at shop.test:8080; 0 bytes of ""; roles """#;
    assert_eq!(ask(&gateway, "banned").await, (403, seen.to_owned()));
    let banned = gateway.request("GET", "/orders").header("Authorization", "banned").send().await.unwrap();
    assert!(!banned.headers().contains_key("x-user-roles"), "what the sides are told is not for the client");
    let open = gateway.request("GET", "/open").header("X-User-Roles", "root").send().await.unwrap();
    assert_eq!(
        open.text().await.unwrap(),
        r#"user "" roles """#,
        "nor is it a client's to say where nothing is checked"
    );
    assert_eq!(ask(&gateway, "large").await.1, r#"{"code":40101,"message":"session expired","data":null}"#);
    assert_eq!(ask(&gateway, "broken").await.0, 503);
    let login = gateway.get("/orders").await;
    assert_eq!((login.status().as_u16(), &login.headers()["location"]), (302, &"/login".parse().unwrap()));
    assert_eq!(login.headers()["set-cookie"], "back=1");
    let labels = |reason| [("route", "api"), ("check", "asked"), ("reason", reason)];
    gateway.until_metric("strangler_check_refused_total", &labels("refused"), 4.0).await;
    gateway.until_metric("strangler_check_refused_total", &labels("authority_down"), 1.0).await;
    let records = gateway.until_records(8).await;
    assert_eq!((&records[0]["user"], &records[2]["refused"]), (&"7".into(), &"refused".into()));
}

#[tokio::test]
async fn the_gateway_refuses_in_its_own_words_where_it_is_to() {
    let ((judge, _), app) = (authority().await, app().await);
    let upstreams = format!("{}{}", upstream("judge", &[judge.url()], ""), upstream("app", &[app.url()], ""));
    let gateway = gateway().toml(upstreams).toml(check("answer = \"gateway\"")).start().await;
    assert_eq!(ask(&gateway, "banned").await, (403, r#"{"code":40301,"message":"forbidden","data":null}"#.to_owned()));
    assert_eq!(ask(&gateway, "nobody").await.0, 401);
}

#[tokio::test]
async fn a_script_of_php_decides_for_a_handler_and_for_php() {
    let php = php().start().await;
    let script = "<?php if (($_COOKIE['who'] ?? '') === 'me') { header('X-User-Id: 7'); header('X-User-Roles: admin'); \
         http_response_code(204); } else { http_response_code(401); echo 'who are you, ' . $_SERVER['HTTP_X_FORWARDED_URI']; }";
    php.put("auth.php", script);
    let gateway = gateway()
        .probe()
        .toml(php.upstream("php = \"files\""))
        .toml(
            "[check.asked]\nkind = \"forward\"\nupstream = \"php\"\npath = \"/auth.php\"\ncopy = [\"x-user-roles\"]\n\
             user = \"header:x-user-id\"\n[defaults]\ncheck = [\"asked\"]\n\
             [[route]]\nname = \"php\"\npath = \"/echo.php\"\nlegacy = \"php\"\n\
             [[route]]\nname = \"handler\"\npath = \"/handler\"\nnew = \"hello\"\nserve = \"new\"\n",
        )
        .start()
        .await;
    let asked = async |path: &str, cookie: &str| {
        let request = gateway.request("GET", path).header("Cookie", cookie).header("X-User-Roles", "root");
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("its body"))
    };
    let (_, php_saw) = asked("/echo.php", "who=me").await;
    let php_saw: Value = serde_json::from_str(&php_saw).expect("JSON");
    assert_eq!(php_saw["server"]["HTTP_X_STRANGLER_USER"], "7");
    assert_eq!(php_saw["server"]["HTTP_X_USER_ROLES"], "admin");
    let (_, handler_saw) = asked("/handler", "who=me").await;
    assert!(handler_saw.contains(r#"["x-user-roles","admin"]"#) && !handler_saw.contains("root"), "{handler_saw}");
    assert_eq!(asked("/echo.php?a=1", "who=you").await, (401, "who are you, /echo.php?a=1".to_owned()));
}

#[tokio::test]
async fn without_a_verdict_the_request_is_denied_or_left_to_legacy() {
    let app = app().await;
    let silent = scripted(|mut connection| async move {
        connection.head().await;
        connection.closed().await;
    });
    let (judge, _) = authority().await;
    let url = judge.url().to_owned();
    judge.stop().await;
    for (url, on_down, status) in [(&silent.url(), "deny", 503), (&silent.url(), "legacy", 200), (&url, "deny", 503)] {
        let upstreams = format!("{}{}", upstream("judge", &[url], ""), upstream("app", &[app.url()], ""));
        let extra = format!("on_down = \"{on_down}\"\ntimeout = \"100ms\"");
        let gateway = gateway().toml(upstreams).toml(check(&extra)).start().await;
        let (answered, text) = ask(&gateway, "good").await;
        assert_eq!(answered, status, "{text}");
        if status == 200 {
            assert_eq!(text, r#"user "" roles """#, "what the client says of itself never arrives");
        }
        gateway.until_metric("strangler_upstream_failures_total", &[("upstream", "judge")], 1.0).await;
        gateway.until_logged("judge").await;
    }
}

#[tokio::test]
async fn a_verdict_is_remembered_for_a_moment_and_only_of_whom_it_names() {
    let ((judge, count), app) = (authority().await, app().await);
    let upstreams = format!("{}{}", upstream("judge", &[judge.url()], ""), upstream("app", &[app.url()], ""));
    let extra = "cache = \"1s\"\ncache_by = [\"header:authorization\", \"method\"]";
    let gateway = gateway().workers(1).toml(upstreams).toml(check(extra)).start().await;
    let asked = || count.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "good").await, (200, r#"user "7" roles "admin""#.to_owned()));
        assert_eq!(ask(&gateway, "banned").await.0, 403);
    }
    assert!(asked() < 10, "{}", asked());
    crate::support::eventually_within(Duration::from_secs(10), "the verdict is over", || async {
        let before = asked();
        ask(&gateway, "good").await;
        (asked() > before).then_some(())
    })
    .await;
    let before = asked();
    for _ in 0..3 {
        assert_eq!(gateway.get("/orders").await.status().as_u16(), 302);
        assert_eq!(ask(&gateway, "broken").await.0, 503);
    }
    assert_eq!(asked(), before + 6, "nobody is named, or nothing was decided");
    eventually("the records", || async { (gateway.records().len() > 10).then_some(()) }).await;
}
