//! Checks at the edge, seen from outside: who passes, who does not, and what the sides are told.

mod forward;
mod jwt;
mod presets;
mod session;
mod signature;
mod wechat;

use axum::Router;
use axum::routing::any;

use crate::support::gateway::gateway;
use crate::support::upstream::{service, upstream};

#[tokio::test]
async fn only_clients_from_an_allowed_network_reach_a_side() {
    let app = service(Router::new().fallback(any(async || "in"))).await;
    let gateway = gateway()
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .toml(upstream("app", &[app.url()], ""))
        .toml("[check.office]\nkind = \"address\"\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.9.0.0/16\"]\n")
        .toml("[[route]]\nname = \"admin\"\npath = \"/admin\"\nlegacy = \"app\"\ncheck = [\"office\"]\n")
        .toml("[[route]]\npath = \"/\"\nlegacy = \"app\"\n")
        .start()
        .await;
    let asked = async |path: &str, from: &str| {
        let request = gateway.request("GET", path).header("X-Forwarded-For", from);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let refused = r#"{"code":40301,"message":"forbidden","data":null}"#.to_owned();
    assert_eq!(asked("/admin", "10.1.2.3").await, (200, "in".to_owned()));
    assert_eq!(asked("/admin", "10.9.2.3").await, (403, refused.clone()));
    assert_eq!(asked("/admin", "192.0.2.1").await, (403, refused));
    assert_eq!(asked("/", "192.0.2.1").await, (200, "in".to_owned()));

    let labels = [("route", "admin"), ("check", "office"), ("reason", "address")];
    gateway.until_metric("strangler_check_refused_total", &labels, 2.0).await;
    let records = gateway.until_records(4).await;
    assert_eq!((&records[1]["check"], &records[1]["refused"]), (&"office".into(), &"address".into()));
    assert!(records[0]["refused"].is_null(), "{}", records[0]);
}
