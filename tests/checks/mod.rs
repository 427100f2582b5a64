//! Checks at the edge, seen from outside: who passes, who does not, and what the sides are told.

mod forward;
mod jwt;
mod presets;
mod session;
mod signature;
mod wechat;

use axum::Router;
use axum::routing::any;

use crate::support::gateway::{gateway, run};
use crate::support::php::php;
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

#[tokio::test]
async fn no_spelling_that_php_understands_leads_around_a_check() {
    for mode in ["index", "files"] {
        let php = php().start().await;
        php.put("index.php", "<?php echo $_SERVER['PATH_INFO'] ?? $_SERVER['REQUEST_URI'];");
        php.put("login.php", "<?php echo 'the login';");
        let route = |name: &str, path: &str, check: &str| {
            format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\nlegacy = \"php\"\ncheck = [{check}]\n")
        };
        let gateway = gateway()
            .toml(php.upstream(&format!("php = \"{mode}\"")))
            .toml("[check.office]\nkind = \"address\"\nallow = [\"10.0.0.0/8\"]\n")
            .toml(route("admin", "/admin/users", "\"office\""))
            .toml(route("login", "/login.php", "\"office\""))
            .toml(route("rest", "/{*rest}", ""))
            .start()
            .await;
        assert_eq!(gateway.ask("/admin/users").await.0, 403, "{mode}");
        for around in
            ["/index.php/admin/users", "/admin/users/", "/admin%2Fusers", "/index.php/admin%2Fusers/", "/login.php/x"]
        {
            assert_eq!(gateway.ask(around).await.0, 404, "{mode} {around}");
        }
        assert_eq!(gateway.ask("/index.php/2026/a-post/").await, (200, "/2026/a-post/".to_owned()), "{mode}");
        assert_eq!(gateway.ask("/2026/a-post/").await, (200, "/2026/a-post/".to_owned()), "{mode}");
        let (_, told, _) =
            run(&["explain", "GET", "/index.php/admin/users", "-c", gateway.table().to_str().unwrap()], gateway.dir());
        assert!(
            told.contains("404; rest has the path, but PHP may read it as one of admin, which checks more"),
            "{told}"
        );
    }
}
