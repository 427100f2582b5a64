//! The comparison in a terminal and on paper: the real commands against a real gateway, on a real terminal.

use std::process::Command;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::get;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::gateway::{Gateway, binary, run};
use crate::support::terminal::{Terminal, terminal};
use crate::support::upstream::{Service, service, upstream};
use crate::support::{eventually, free_port, gateway, temp_dir};

const WIDE: [u16; 2] = [130, 30];
const ESCAPE: &str = "\u{1b}";

/// Two routes that both sides can serve.
async fn two_sided() -> (Gateway, [Service; 2]) {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let both = |name: &str| {
        format!(
            "[[route]]\nname = '{name}'\npath = '/{name}'\nlegacy = \"one\"\nnew = \"other\"\nserve = \"legacy\" # mine\n"
        )
    };
    let gateway = gateway()
        .toml(upstream("one", &[one.url()], ""))
        .toml(upstream("other", &[other.url()], ""))
        .toml(both("cart"))
        .toml(both("order"))
        .start()
        .await;
    (gateway, [one, other])
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.admin())
}

fn top(admin: &str, token: Option<&str>, size: [u16; 2]) -> Terminal {
    let mut command = Command::new(binary());
    command.args(["top", "--admin", admin]);
    if let Some(token) = token {
        command.env("STRANGLER_ADMIN_TOKEN", token);
    }
    terminal(&command, size)
}

#[tokio::test]
async fn an_operator_watches_and_flips_in_the_terminal() {
    let (gateway, _sides) = two_sided().await;
    let mut top = top(&url(&gateway), Some(gateway.admin_token()), WIDE);
    top.until("live").await;
    top.until("2 routes: 0 on new, 2 on legacy").await;
    for _ in 0..20 {
        gateway.ask("/cart").await;
    }
    eventually("figures move under load", || async { top.line("cart")?.contains(" ms").then_some(()) }).await;

    a_flip_with_a_key_reaches_the_file_and_the_traffic(&gateway, &mut top).await;
    a_flip_is_refused_when_the_file_changed_meanwhile(&gateway, &mut top).await;

    top.keys("/ord");
    top.until("1 of 2 routes").await;
    top.keys(ESCAPE);
    top.until("2 routes: 1 on new").await;
    top.resize([50, 8]);
    eventually("a small window has the table", || async {
        top.line("strangler  127.0.0.1")?;
        (top.line("order")?.chars().count() <= 50 && !top.text().contains("Req/s")).then_some(())
    })
    .await;
    top.resize(WIDE);
    top.until("Req/s").await;

    let broken = gateway.read_table();
    gateway.write_table(&broken.replacen("serve = \"legacy\" # mine", "serve = \"nwe\" # mine", 1));
    top.until("The file was refused").await;
    gateway.write_table(&broken);
    a_gateway_that_is_silent_or_gone_is_told(&gateway, &top).await;
    top.keys("q");
    assert_eq!(top.end().await.code(), Some(0));
}

async fn a_flip_with_a_key_reaches_the_file_and_the_traffic(gateway: &Gateway, top: &mut Terminal) {
    let before = gateway.read_table();
    top.keys("f");
    top.until("Let new serve cart?").await;
    let file = gateway.table().display().to_string();
    top.until(&file).await;
    top.until("serve = \"legacy\" → \"new\"").await;
    assert_eq!(gateway.read_table(), before, "nothing happens before it is confirmed");
    top.keys("y");
    top.until("cart: legacy → new").await;
    assert_eq!(gateway.read_table(), before.replacen("\"legacy\" # mine", "\"new\" # mine", 1));
    eventually("the new side serves", || async { (gateway.ask("/cart").await.1 == "new").then_some(()) }).await;
    top.until("2 routes: 1 on new, 1 on legacy").await;
}

async fn a_flip_is_refused_when_the_file_changed_meanwhile(gateway: &Gateway, top: &mut Terminal) {
    top.keys("jf");
    top.until("Let new serve order?").await;
    gateway.edit(|text| format!("{text}# by somebody else\n"));
    let edited = gateway.read_table();
    top.keys("y");
    top.until("has changed since you looked").await;
    assert_eq!(gateway.read_table(), edited);
    top.keys("n");
    eventually("the question goes", || async { (!top.text().contains("Let new serve")).then_some(()) }).await;
}

async fn a_gateway_that_is_silent_or_gone_is_told(gateway: &Gateway, top: &Terminal) {
    gateway.signal(Signal::STOP);
    top.until("says nothing; these figures are").await;
    gateway.signal(Signal::CONT);
    top.until("live").await;
    gateway.signal(Signal::KILL);
    top.until("Trying again.").await;
    top.until("no gateway answers at").await;
}

#[tokio::test]
async fn a_token_is_typed_unseen_and_a_signal_gives_the_terminal_back() {
    let (gateway, _sides) = two_sided().await;
    let mut top = top(&url(&gateway), None, WIDE);
    top.until("live").await;
    top.keys("f");
    top.until("Admin token").await;
    top.keys("0123456789abcdef\r");
    top.until("The token is not right.").await;
    top.keys(gateway.admin_token());
    top.until("••••••••••••••••••••••••••••••••").await;
    assert!(!top.text().contains(gateway.admin_token()));
    top.keys("\r");
    top.until("cart: legacy → new").await;
    assert!(gateway.read_table().contains("serve = \"new\" # mine"));
    top.signal(Signal::TERM);
    assert_eq!(top.end().await.code(), Some(0));
}

/// The port as it is on an address that other machines reach: there it takes the token for reading as well.
async fn far_away(gateway: &Gateway) -> Service {
    let (port, token) = (url(gateway), format!("Bearer {}", gateway.admin_token()));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = move |uri: Uri, headers: HeaderMap| {
        let has_token = headers.get("authorization").is_some_and(|said| said.as_bytes() == token.as_bytes());
        let asked = client.get(format!("{port}{uri}"));
        async move {
            let (status, body) = match has_token {
                true => (200, Body::from_stream(asked.send().await.expect("an answer").bytes_stream())),
                false => (401, Body::from(r#"{"code": 40101, "message": "send the admin token", "data": null}"#)),
            };
            Response::builder().status(status).body(body).expect("an answer")
        }
    };
    service(Router::new().fallback(get(answer))).await
}

#[tokio::test]
async fn where_reading_takes_the_token_it_is_asked_for_and_scripts_bring_it() {
    let (gateway, _sides) = two_sided().await;
    let far = far_away(&gateway).await;
    let script = |token: Option<&str>| {
        let mut command = tokio::process::Command::new(binary());
        command.args(["top", "--once", "--admin", far.url()]).envs(token.map(|token| ("STRANGLER_ADMIN_TOKEN", token)));
        async move {
            let output = command.output().await.expect("it runs");
            (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        }
    };
    assert_eq!(script(None).await, (Some(1), String::new(), "strangler: send the admin token\n".to_owned()));
    let (code, text, err) = script(Some(gateway.admin_token())).await;
    assert!(code == Some(0) && text.contains("cart"), "{text}{err}");
    assert_eq!(script(Some("short")).await.0, Some(2));

    let mut top = top(far.url(), None, WIDE);
    top.until("Admin token").await;
    top.keys("0123456789abcdef\r");
    top.until("The token is not right.").await;
    top.keys(&format!("{}\r", gateway.admin_token()));
    top.until("live").await;
    top.until("2 routes").await;
    top.keys("\u{3}");
    assert_eq!(top.end().await.code(), Some(0), "Ctrl-C quits");
}

#[tokio::test]
async fn a_thousand_routes_are_walked_through_with_the_keys() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let routes = (0..1000).map(|n| format!("[[route]]\nname = 'r{n:03}'\npath = '/r{n:03}'\nlegacy = \"one\"\n"));
    let gateway = gateway().toml(upstream("one", &[one.url()], "")).toml(routes.collect::<String>()).start().await;
    let mut top = top(&url(&gateway), None, [80, 24]);
    top.until("1,000 routes").await;
    assert!(top.line("r000").is_some() && top.line("r100").is_none());
    top.keys("\u{1b}[F");
    top.until("r999").await;
    top.keys("/r5 r50");
    top.until("10 of 1,000 routes").await;
    top.keys("\r\u{1b}[D\u{1b}[Dr");
    top.until("sorted by P50 new÷legacy").await;
    top.keys("q");
    assert_eq!(top.end().await.code(), Some(0));
}

#[tokio::test]
async fn scripts_get_the_table_as_text_and_the_figures_of_the_port_as_json() {
    let (gateway, _sides) = two_sided().await;
    for path in ["/cart", "/order"] {
        for _ in 0..40 {
            gateway.ask(path).await;
        }
    }
    let directory = temp_dir("top");
    let url = url(&gateway);
    let top = |more: &[&str]| run(&[&["top", "--admin", &url, "--window", "10m"], more].concat(), directory.path());

    let (code, text, err) = top(&["--once"]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "window 10m  latency total  generation 1");
    assert!(lines[1].starts_with("Route  Serves") && lines[1].contains("P99 legacy"), "{text}");
    assert!(lines[2].starts_with("cart   legacy") && lines[3].starts_with("order") && lines.len() == 4, "{text}");

    let (code, text, err) = top(&["--json", "--sort=-name", "--filter", "LEGACY"]);
    assert_eq!(code, 0, "{err}");
    let mut told: Value = serde_json::from_str(&text).expect("JSON");
    let mut api = gateway.admin_json("/api/compare?window=10m&latency=total").await;
    // A rate is of the time that has gone by, which is more at each look.
    for routes in [&mut told, &mut api].map(|of| of["routes"].as_array_mut().expect("routes")) {
        for route in routes.iter_mut() {
            assert!(route["sides"]["legacy"]["qps"].take().is_number(), "{route}");
        }
        routes.sort_by_key(|route| route["name"].to_string());
    }
    assert_eq!(told, api);
    assert!(text.find("\"order\"") < text.find("\"cart\""), "sorted as asked");
    assert_eq!(
        serde_json::from_str::<Value>(&top(&["--json", "--filter", "nothing"]).1).unwrap()["routes"],
        Value::from(Vec::<Value>::new())
    );
}

#[tokio::test]
async fn the_port_is_found_by_a_file_that_is_otherwise_broken() {
    let (gateway, _sides) = two_sided().await;
    let directory = temp_dir("top");
    let file = |text: &str| std::fs::write(directory.path().join("routes.toml"), text).expect("routes.toml");
    let admin = gateway.admin();
    file(&format!("[listen]\nadmin = \"{admin}\"\nadmin_token = {{ env = \"NO_SUCH_VARIABLE\" }}\n[[rout]]\n"));
    let (code, text, err) = run(&["top", "--once"], directory.path());
    assert!(code == 0 && text.contains("cart"), "{text}{err}");

    file("[listen]\nhttp = \"127.0.0.1:0\"\n");
    let (code, _, err) = run(&["top", "--once"], directory.path());
    assert!(
        code == 2 && err.contains("no admin port; add [listen] admin, or say where it is with --admin URL"),
        "{err}"
    );
    file("[listen]\nadmin = \"127.0.0.1\"\n");
    let (code, _, err) = run(&["report"], directory.path());
    assert!(code == 2 && err.contains("routes.toml:2:9: \"127.0.0.1\" is not an address"), "{err}");
    let nobody = format!("127.0.0.1:{}", free_port());
    let (code, _, err) = run(&["top", "--json", "--admin", &nobody], directory.path());
    assert!(code == 1 && err.contains(&format!("no gateway answers at {nobody}: Connection refused")), "{err}");
    let (code, _, err) = run(&["top", "--admin", &nobody], directory.path());
    assert!(code == 2 && err.contains("this is no terminal: --once"), "{err}");
    let (code, _, err) = run(&["top", "--once", "--admin", &gateway.address().to_string()], directory.path());
    assert!(code == 1, "the clients' port is another: {err}");
}

#[tokio::test]
async fn a_report_is_a_page_of_what_the_port_tells() {
    let (gateway, _sides) = two_sided().await;
    for _ in 0..40 {
        gateway.ask("/cart").await;
    }
    gateway.edit(|text| text.replacen("\"legacy\" # mine", "\"new\" # mine", 1));
    eventually("the new side serves", || async { (gateway.ask("/cart").await.1 == "new").then_some(()) }).await;
    for _ in 0..40 {
        gateway.ask("/cart").await;
    }
    let directory = temp_dir("report");
    let report = |more: &[&str]| run(&[&["report", "--admin", &url(&gateway)], more].concat(), directory.path());
    let (code, text, err) = report(&[]);
    assert_eq!(code, 0, "{err}");
    for part in [
        "The hour up to 20",
        "## Over all routes",
        "- P99, of the one route that both sides served: not enough yet.",
        "| cart | new since 20",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.contains("Without a request in this time: order.") && text.contains("| other | http |"), "{text}");
    let api = gateway.admin_json("/api/report?window=1h").await;
    let requests = |side: &str| api["sides"][side]["requests"].to_string();
    assert!(text.contains(&format!("| Requests | {} | {} |", requests("legacy"), requests("new"))), "{text}");

    let (code, page, err) = report(&["--window", "10m", "--format", "html"]);
    assert_eq!(code, 0, "{err}");
    assert!(page.starts_with("<!doctype html>") && page.contains("<th scope=\"row\">cart</th>"), "{page}");
}
