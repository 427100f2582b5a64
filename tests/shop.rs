//! The shop, written twice: both sides give the same answers, and nobody notices which one is asked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, exchange, get};
use crate::support::gateway::Gateway;
use crate::support::repository;
use crate::support::shop::{Shop, flipped, shop, shop_on_servers};

const ALICE: &str = r#"{"email":"Alice@shop.example","password":"alice-s3cret"}"#;

/// One question to the API.
#[derive(Debug, Clone)]
struct Question {
    method: &'static str,
    target: String,
    headers: String,
    body: Option<Vec<u8>>,
}

fn ask(method: &'static str, target: &str) -> Question {
    Question { method, target: target.to_owned(), headers: String::new(), body: None }
}

fn post(target: &str, body: impl Into<Vec<u8>>) -> Question {
    Question { body: Some(body.into()), ..ask("POST", target) }
}

impl Question {
    fn with(mut self, header: impl AsRef<str>) -> Self {
        self.headers.push_str(header.as_ref());
        self.headers.push_str("\r\n");
        self
    }

    /// With the session as a browser carries it.
    fn of(self, session: &str) -> Self {
        self.with(format!("Cookie: a=b; PHPSESSID={session}"))
    }

    async fn to(&self, gateway: &Gateway) -> Answer {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: shop.test\r\n{}", self.method, self.target, self.headers);
        if let Some(body) = &self.body {
            bytes.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        bytes.push_str("Connection: close\r\n\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend(self.body.iter().flatten());
        exchange(gateway.address(), bytes).await.expect("an answer")
    }
}

/// What a client can see of an answer, less what no two answers share: ids of new sessions and orders, moments.
fn essence(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status);
    for name in ["content-type", "cache-control", "allow", "set-cookie", "location"] {
        text.push_str(&format!("{name}: {:?}\n", answer.all(name)));
    }
    assert!(answer.complete, "{}", answer.text());
    let body = match serde_json::from_slice::<Value>(&answer.body) {
        // The bytes themselves, but for the values that are new each time.
        Ok(body) => {
            let (token, order) = (&body["data"]["token"], &body["data"]["id"]);
            let mut body = answer.text();
            if let Some(token) = token.as_str() {
                assert!(token.len() == 26 && token.bytes().all(|letter| matches!(letter, b'0'..=b'9' | b'a'..=b'v')));
                body = body.replace(token, "TOKEN");
                text = text.replace(token, "TOKEN");
            }
            if answer.status == 201 {
                body = body.replacen(&format!("\"id\":{order},"), "\"id\":NEW,", 1);
            }
            body
        }
        Err(_) => answer.text(),
    };
    text.push_str(&still(&body));
    text
}

/// The text with the moments of this test taken out; those of the seed are older.
fn still(text: &str) -> String {
    let mark = "\"created_at\":\"";
    let mut parts = text.split(mark);
    let mut still = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (moment, rest) = part.split_once('"').expect("the end of a moment");
        assert!(moment.len() == 20 && moment.ends_with('Z'), "not a moment: {moment}");
        still.push_str(mark);
        still.push_str(if moment < "2025" { moment } else { "NOW" });
        still.push('"');
        still.push_str(rest);
    }
    still
}

async fn log_in(gateway: &Gateway) -> String {
    let answer = post("/api/v1/login", ALICE).to(gateway).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), gateway.log());
    answer.json()["data"]["token"].as_str().expect("a token").to_owned()
}

fn products() -> Vec<Question> {
    let long = format!("/api/v1/products/{}", "9".repeat(40));
    let mut questions: Vec<Question> = [
        "",
        "?page=2&per_page=7",
        "?page=99",
        "?q=ca",
        "?q=CA",
        "?q=%E8%8C%B6",
        "?q=caf%C3%A9",
        "?q=100%25",
        "?q=%22%2Fdev%2F",
        "?q=%27%20OR%201%3D1",
        "?q=!",
        "?q=a+young",
        "?q=_&q=fig",
        "?page=0",
        "?page=-1",
        "?page=1.0",
        "?page=+1",
        "?page=",
        "?page[]=1",
        "?per_page=100",
        "?per_page=101",
        "?per_page=99999999999999999999",
        "/3",
        "/%34",
        "/18",
        "/24",
        "/999",
        "/0",
        "/01",
        "/-1",
        "/abc",
        "/%ff",
        "/1/more",
        "/1/",
    ]
    .iter()
    .map(|rest| ask("GET", &format!("/api/v1/products{rest}")))
    .collect();
    questions.extend([
        ask("GET", &long),
        ask("HEAD", "/api/v1/products"),
        ask("HEAD", "/api/v1/products/999"),
        ask("POST", "/api/v1/products"),
        ask("DELETE", "/api/v1/products/1"),
        ask("GET", "/reports/sales"),
        ask("POST", "/reports/sales"),
    ]);
    questions
}

fn strangers() -> Vec<Question> {
    let mut questions = vec![
        ask("GET", "/api/v1/orders"),
        ask("PUT", "/api/v1/orders"),
        ask("GET", "/api/v1/orders/1"),
        post("/api/v1/orders", r#"{"items":[{"product_id":1,"quantity":1}]}"#),
        ask("GET", "/api/v1/users/me"),
        ask("GET", "/api/v1/users/me").of("aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ask("GET", "/api/v1/users/me").of("../../../../etc/passwd"),
        ask("GET", "/api/v1/users/me").with("Authorization: Bearer nobody"),
        ask("GET", "/api/v1/login"),
        ask("GET", "/api/v1/logout"),
        post("/api/v1/logout", ""),
        post("/api/v1/login", ALICE),
    ];
    let bodies: [&[u8]; 9] = [
        br#"{"email":"alice@shop.example","password":"wrong"}"#,
        br#"{"email":"nobody@shop.example","password":"wrong"}"#,
        br#"{"email":"alice@shop.example"}"#,
        br#"{"email":1,"password":2}"#,
        br#"{"email":"#,
        br#""text""#,
        b"[]",
        b"",
        b"{\"email\":\"\xff\",\"password\":\"\"}",
    ];
    questions.extend(bodies.map(|body| post("/api/v1/login", body)));
    // Twice the same code of a new user: the first login makes the user, the second finds it.
    for code in ["good-one", "good-one", "used", "wrong", "risky", "busy", "a b&c=d"] {
        questions.push(post("/api/v1/login", json!({"code": code}).to_string()));
    }
    questions
}

fn customers(session: &str) -> Vec<Question> {
    let mut questions = vec![
        ask("GET", "/api/v1/users/me").of(session),
        ask("GET", "/api/v1/users/me").with(format!("Authorization: Bearer {session}")),
        ask("GET", "/api/v1/users/me").with(format!("X-Token: {session}")),
        ask("GET", "/api/v1/orders").of(session),
        ask("GET", "/api/v1/orders/1").of(session),
        ask("GET", "/api/v1/orders/3").of(session),
        ask("GET", "/api/v1/orders/x").of(session),
    ];
    for items in [
        r#"{"items":[{"product_id":5,"quantity":2},{"product_id":4,"quantity":1},{"product_id":5,"quantity":1}]}"#,
        r#"{"items":[{"product_id":24,"quantity":2}]}"#,
        r#"{"items":[{"product_id":1,"quantity":1},{"product_id":999,"quantity":1}]}"#,
        r#"{"items":[]}"#,
        r#"{"items":{"a":1}}"#,
        "{}",
        "[1]",
        "7",
        r#"{"items":[{"product_id":1}]}"#,
        r#"{"items":[{"product_id":1,"quantity":100}]}"#,
        r#"{"items":[{"product_id":1,"quantity":1.0}]}"#,
        r#"{"items":[{"product_id":"1","quantity":1}]}"#,
        r#"{"items":[7]}"#,
    ] {
        questions.push(post("/api/v1/orders", items).of(session));
    }
    questions.push(ask("GET", "/api/v1/orders").of(session));
    questions.push(ask("GET", "/api/v1/products/5"));
    questions
}

/// Asks both sides everything, and the sessions of one side at the other.
async fn both_sides_agree(shop: &Shop) {
    let sessions = [log_in(&shop.legacy).await, log_in(&shop.new).await];
    let mut questions = [products(), strangers()].concat();
    for session in &sessions {
        questions.extend(customers(session));
    }
    let (mut differences, mut statuses) = (Vec::new(), std::collections::BTreeSet::new());
    for question in &questions {
        let (legacy, new) = (question.to(&shop.legacy).await, question.to(&shop.new).await);
        statuses.insert(legacy.status);
        let (legacy, new) = (essence(&legacy), essence(&new));
        if legacy != new {
            differences.push(format!("{question:?}\n--- legacy\n{legacy}\n--- new\n{new}\n"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    // That they agree must not mean that both are broken.
    for status in [200, 201, 400, 401, 403, 404, 405, 409, 503] {
        assert!(statuses.contains(&status), "nothing was answered with {status}: {statuses:?}");
    }
    for (gateway, side) in [(&shop.legacy, "legacy"), (&shop.new, "new")] {
        let other = if side == "new" { "legacy" } else { "new" };
        let metrics = gateway.metrics().await;
        assert!(metrics.sum("strangler_requests_total", &[("side", side)]) > 80.0, "{side}");
        // What is no route of the API stays with PHP: `/api/v1/products/1/more`.
        assert!(metrics.sum("strangler_requests_total", &[("side", other)]) < 5.0, "{side}");
    }

    // A session ended at one side is ended at the other.
    for (at, elsewhere, session) in [(&shop.legacy, &shop.new, &sessions[1]), (&shop.new, &shop.legacy, &sessions[0])] {
        let me = ask("GET", "/api/v1/users/me").of(session);
        assert_eq!(me.to(elsewhere).await.status, 200);
        assert_eq!(post("/api/v1/logout", "").of(session).to(at).await.status, 200);
        assert_eq!(me.to(elsewhere).await.status, 401);
    }
}

#[tokio::test]
async fn both_sides_give_the_same_answers_on_sqlite_and_session_files() {
    both_sides_agree(&shop().await).await;
}

#[tokio::test]
async fn both_sides_give_the_same_answers_on_mariadb_and_sessions_in_redis() {
    both_sides_agree(&shop_on_servers().await).await;
}

#[tokio::test]
async fn the_last_one_is_sold_once_whichever_sides_are_asked() {
    let shop = shop().await;
    let session = log_in(&shop.legacy).await;
    let buy = post("/api/v1/orders", r#"{"items":[{"product_id":24,"quantity":1}]}"#).of(&session);
    let asked = futures_util::future::join_all((0..8).map(|n| {
        let (buy, gateway) = (&buy, if n % 2 == 0 { &shop.legacy } else { &shop.new });
        async move { buy.to(gateway).await }
    }))
    .await;
    let mut statuses: Vec<u16> = asked.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    for answer in asked.iter().filter(|answer| answer.status == 409) {
        assert_eq!(answer.text(), r#"{"code":40910,"message":"out of stock: Last one","data":null}"#);
    }
}

#[tokio::test]
async fn a_customer_does_not_notice_the_flip() {
    let shop = shop().await;
    let gateway = &shop.legacy;
    let session = log_in(gateway).await;
    let me = ask("GET", "/api/v1/users/me").of(&session);
    let before = me.to(gateway).await;
    let generation = gateway.generation().await;
    gateway.edit(flipped);
    gateway.until_newer(generation).await;
    let after = me.to(gateway).await;
    assert_eq!((after.status, after.body), (before.status, before.body));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("strangler_requests_total", &[("route", "me"), ("side", "new")]), 1.0);
}

// --- The pages, which stay with PHP ---

/// A form as a browser sends it.
async fn submit(gateway: &Gateway, target: &str, form: &str, session: Option<&str>) -> Answer {
    let cookie = session.map(|id| format!("Cookie: PHPSESSID={id}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: shop.test\r\n{cookie}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    exchange(gateway.address(), request).await.expect("an answer")
}

/// The session that an answer begins.
fn session_of(answer: &Answer) -> String {
    let cookies = answer.all("set-cookie");
    let cookie = cookies.iter().rev().find_map(|cookie| cookie.strip_prefix("PHPSESSID=")).expect("a session");
    cookie.split(';').next().expect("its id").to_owned()
}

#[tokio::test]
async fn the_pages_are_shown_and_a_customer_shops_on_them() {
    let shop = shop().await;
    let gateway = &shop.new;
    let home = get(gateway.address(), "/").await;
    assert_eq!((home.status, home.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(home.text().contains("Strangler fig") && home.text().contains("茶具套装"), "{}", home.text());
    let style = get(gateway.address(), "/assets/shop.css").await;
    assert_eq!(style.status, 200);
    assert!(style.header("content-type").is_some_and(|kind| kind.starts_with("text/css")), "{style:?}");
    assert_eq!(style.body, std::fs::read(repository("examples/shop/legacy/public/assets/shop.css")).expect("the file"));
    let form = get(gateway.address(), "/login").await;
    assert!(form.status == 200 && form.text().contains("<form"), "{}", form.text());
    assert_eq!(get(gateway.address(), "/nowhere").await.status, 404);

    // What is in the cart before the login is there after it, also when Rust logs the customer in.
    let put = submit(gateway, "/cart", "product_id=3", None).await;
    assert_eq!((put.status, put.header("location")), (303, Some("/cart")), "{}", put.text());
    let visitor = session_of(&put);
    let login = post("/api/v1/login", ALICE).of(&visitor).to(gateway).await;
    assert_eq!(login.status, 200, "{}", login.text());
    let customer = session_of(&login);
    assert_ne!(customer, visitor, "a session known before the login is worth nothing after it");
    let cart = ask("GET", "/cart").of(&customer).to(gateway).await;
    assert!(cart.text().contains("Café crème"), "{}", cart.text());
    let bought = submit(gateway, "/orders", "", Some(&customer)).await;
    assert_eq!((bought.status, bought.header("location")), (303, Some("/orders")), "{}", bought.text());
    let orders = ask("GET", "/api/v1/orders").of(&customer).to(gateway).await.json();
    assert_eq!(orders["data"]["items"][0]["total_cents"], 890, "{orders}");

    // And the other way round: a login by the form is one at the API.
    let wrong = submit(gateway, "/login", "email=bob%40shop.example&password=no", None).await;
    assert_eq!(wrong.status, 401);
    let login = submit(gateway, "/login", "email=bob%40shop.example&password=bob-s3cret", None).await;
    assert_eq!((login.status, login.header("location")), (303, Some("/orders")), "{}", login.text());
    let me = ask("GET", "/api/v1/users/me").of(&session_of(&login)).to(gateway).await;
    assert_eq!(me.json()["data"]["name"], "Böb O'Neil", "{}", me.text());
}

#[tokio::test]
async fn downloads_are_handed_over_by_the_gateway_and_cannot_be_asked_for_directly() {
    let shop = shop().await;
    let address = shop.legacy.address();
    let file = std::fs::read(repository("examples/shop/legacy/storage/price-list.csv")).expect("the file");
    for target in ["/downloads/price-list.csv", "/downloads/price-list.csv?by=sendfile"] {
        let answer = get(address, target).await;
        assert_eq!((answer.status, &answer.body), (200, &file), "{target}");
        assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"), "{target}");
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"price-list.csv\""), "{target}");
        for name in ["x-accel-redirect", "x-sendfile"] {
            assert_eq!(answer.header(name), None, "{target}");
        }
    }
    let part = exchange(
        address,
        "GET /downloads/price-list.csv HTTP/1.1\r\nHost: a\r\nRange: bytes=2-5\r\nConnection: close\r\n\r\n",
    )
    .await
    .expect("an answer");
    assert_eq!((part.status, &part.body[..]), (206, &file[2..6]));
    for target in ["/_storage/price-list.csv", "/downloads/none.txt", "/downloads/..%2fpublic%2findex.php"] {
        assert!(matches!(get(address, target).await.status, 400 | 404), "{target}");
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let shop = shop().await;
    let mut stream = Connection::open(shop.new.address()).await;
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let first = stream.until("\nid: 1\n").await;
    let began = Instant::now();
    assert!(first.contains("text/event-stream") && !first.contains("\nid: 3\n"), "{first}");
    let middle = stream.until("\nid: 3\n").await;
    assert!(!middle.contains("\nid: 5\n"), "{middle}");
    let rest = String::from_utf8_lossy(&stream.rest().await).into_owned();
    assert!(rest.contains("\nid: 5\n"), "{rest}");
    // Four pauses of 200 ms lie between the first and the last.
    assert!(began.elapsed() > Duration::from_millis(500), "all came at once, after {:?}", began.elapsed());
}

#[tokio::test]
async fn an_uploaded_picture_is_shown_by_both_sides() {
    // The smallest PNG there is: one pixel.
    const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\
        \0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82";
    let shop = shop().await;
    let session = log_in(&shop.new).await;
    let upload = async |content: &[u8]| {
        let part = reqwest::multipart::Part::bytes(content.to_vec()).file_name("a.png").mime_str("image/png");
        let form = reqwest::multipart::Form::new().part("picture", part.expect("a type"));
        let request = shop.new.request("POST", "/products/1/picture").header("cookie", format!("PHPSESSID={session}"));
        request.multipart(form).send().await.expect("an answer")
    };
    assert_eq!(upload(b"this is no picture").await.status(), 415);
    let large = [PICTURE, &vec![0; 1 << 20]].concat();
    let stored = upload(&large).await;
    assert_eq!(stored.status(), 303, "{}", stored.text().await.expect("its body"));
    let question = ask("GET", "/api/v1/products/1");
    let (legacy, new) = (question.to(&shop.legacy).await, question.to(&shop.new).await);
    assert_eq!(essence(&legacy), essence(&new));
    let told = new.json();
    let path = told["data"]["picture"].as_str().expect("a picture");
    let picture = get(shop.legacy.address(), path).await;
    assert_eq!((picture.status, picture.header("content-type")), (200, Some("image/png")));
    assert!(picture.body == large, "the picture is another: {} bytes", picture.body.len());
    assert!(shop.state().join(path.trim_start_matches('/')).exists());
}
