//! Users of a mini program who log in at the edge: with a scripted WeChat, the real PHP and the real Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::support::gateway::{Gateway, gateway};
use crate::support::php::{Php, php};
use crate::support::redis::{Redis, redis};
use crate::support::upstream::{Service, service};
use crate::support::{eventually, eventually_within, free_port};

const SECRET: &str = "the-apps-s3cret";
const SESSION_KEY: &str = "HyVFkGl5F5OQWJZZaNzBBg==";

/// A stand-in for api.weixin.qq.com: `good-anna` is the code of `o-anna`, `err-40029` is refused with 40029, and
/// `held-anna` is answered as soon as there is a permit.
struct Wechat {
    service: Service,
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
    permits: Arc<Semaphore>,
}

async fn wechat() -> Wechat {
    let (asked, permits) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let (noted, held) = (Arc::clone(&asked), Arc::clone(&permits));
    let answer = move |Query(query): Query<HashMap<String, String>>| {
        let (noted, held) = (Arc::clone(&noted), Arc::clone(&held));
        async move {
            let code = query["js_code"].clone();
            noted.lock().unwrap().push(query);
            match code.split_once('-') {
                Some(("err", errcode)) => format!(r#"{{"errcode":{errcode},"errmsg":"no"}}"#),
                Some((kind @ ("good" | "held"), name)) => {
                    if kind == "held" {
                        held.acquire().await.unwrap().forget();
                    }
                    json!({ "openid": format!("o-{name}"), "session_key": SESSION_KEY }).to_string()
                }
                _ => "nonsense".to_owned(),
            }
        }
    };
    let service = service(Router::new().route("/sns/jscode2session", get(answer))).await;
    Wechat { service, asked, permits }
}

impl Wechat {
    fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Opens the session of the caller as the guide says, and writes into it what the query says.
const PAGE: &str = r#"<?php
session_id($_SERVER['HTTP_X_STRANGLER_SESSION']);
session_start(['use_cookies' => false]);
if (isset($_GET['user'])) {
    $_SESSION['auth']['user_id'] = (int) $_GET['user'];
}
if (isset($_GET['until'])) {
    $_SESSION['changed'] = true;
    touch($_GET['until'] . '.open');
    for ($i = 0; $i < 1000 && !file_exists($_GET['until']); $i++) {
        usleep(10000);
        clearstatcache();
    }
}
echo json_encode([
    'id' => session_id(),
    'user' => $_SERVER['HTTP_X_STRANGLER_USER'],
    'openid' => $_SESSION['wechat']['openid'] ?? null,
    'told' => $_SERVER,
]);
"#;

/// WeChat, PHP and Redis with a gateway that knows them.
struct Application {
    gateway: Gateway,
    wechat: Wechat,
    redis: Redis,
    php: Php,
}

/// `/login` is the handler; `/old` a page of PHP and `/new` a handler in Rust for those who are logged in.
async fn application(check: &str, handler: &str) -> Application {
    let (wechat, redis) = (wechat().await, redis().await);
    let php = php()
        .ini("session.save_handler", "redis")
        .ini("session.save_path", &format!("\"tcp://{}\"", redis.address()))
        .start()
        .await;
    php.put("mine.php", PAGE);
    let gateway = gateway()
        .probe()
        .env("WECHAT_APP_SECRET", SECRET)
        .env("RUST_LOG", "info,strangler=trace")
        .toml(php.upstream("php = \"files\"\nindex = \"mine.php\""))
        .toml(format!(
            "[check.login]\nkind = \"session\"\nstore = \"redis://{}\"\nprefix = \"PHPREDIS_SESSION:\"\nformat = \"php\"\n\
             token = [\"header:authorization\", \"cookie:PHPSESSID\"]\nuser = \"auth.user_id\"\n{check}\n",
            redis.address()
        ))
        .toml(format!(
            "[handler.wechat-login]\nsession = \"login\"\nappid = \"wx1\"\nsecret = {{ env = \"WECHAT_APP_SECRET\" }}\n\
             api = \"{}\"\n{handler}\n",
            wechat.service.url()
        ))
        .toml("[[route]]\nname = \"login\"\npath = \"/login\"\nnew = \"wechat-login\"\nserve = \"new\"\n")
        .toml("[[route]]\npath = \"/old\"\nlegacy = \"php\"\ncheck = [\"login\"]\n")
        .toml("[[route]]\npath = \"/new\"\nnew = \"hello\"\nserve = \"new\"\ncheck = [\"login\"]\n")
        .start()
        .await;
    Application { gateway, wechat, redis, php }
}

impl Application {
    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = self.gateway.request(method, path).body(body.to_owned());
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == 503);
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        self.ask("GET", path, Some(token), "").await
    }

    /// Status and code of a login with this code.
    async fn log_in(&self, code: &str) -> (u16, i64) {
        let (status, answer) = self.ask("POST", "/login", None, &json!({ "code": code }).to_string()).await;
        (status, answer["code"].as_i64().unwrap())
    }

    /// The token for a code that is good.
    async fn token_for(&self, code: &str) -> String {
        let (status, answer) = self.ask("POST", "/login", None, &json!({ "code": code }).to_string()).await;
        assert_eq!((status, &answer["code"]), (200, &json!(0)), "{answer}");
        answer["data"]["token"].as_str().unwrap().to_owned()
    }

    fn milliseconds_left(&self, token: &str) -> i64 {
        self.redis.command(&["PTTL", &key_of(token)]).trim().parse().unwrap()
    }

    async fn reload(&self, change: impl FnOnce(&str) -> String) {
        let generation = self.gateway.generation().await;
        self.gateway.edit(change);
        self.gateway.until_newer(generation).await;
    }
}

/// Under which a store may have the session of a token.
fn key_of(token: &str) -> String {
    let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("PHPREDIS_SESSION:sg-{hash}")
}

#[tokio::test]
async fn a_login_at_the_edge_is_the_same_session_to_php_and_to_rust() {
    let app = application("cache = \"0s\"", "").await;
    let token = app.token_for("good-mia").await;
    let (status, new) = app.get("/new", &token).await;
    assert_eq!((status, &new["user"], &new["openid"]), (200, &json!("o-mia"), &json!("o-mia")), "{new}");
    let (status, old) = app.get("/old", &token).await;
    assert_eq!((status, &old["user"], &old["openid"]), (200, &json!("o-mia"), &json!("o-mia")), "{old}");
    assert_eq!(old["told"]["HTTP_X_STRANGLER_SESSION"], old["id"]);

    // PHP finds its own user by the openid and writes that down: from then on both know it.
    app.get("/old?user=7", &token).await;
    let (_, new) = app.get("/new", &token).await;
    assert_eq!((&new["user"], &new["openid"]), (&json!("7"), &json!("o-mia")), "{new}");
    assert_eq!(app.get("/old", &token).await.1["user"], "7");
}

#[tokio::test]
async fn the_store_has_the_hash_of_a_token_and_the_hash_lets_nobody_in() {
    let app = application("", "").await;
    let token = app.token_for("good-mia").await;
    assert_eq!(app.get("/old", &token).await.0, 200);
    let keys = app.redis.command(&["KEYS", "*"]);
    assert_eq!(keys.trim(), key_of(&token));
    let kept = app.redis.command(&["GET", &key_of(&token)]);
    assert!(kept.contains("o-mia") && !kept.contains(&token), "{kept}");
    let id = key_of(&token).split_once(':').unwrap().1.to_owned();
    assert_eq!(app.get("/new", &id).await.0, 401);
    let cookie = app.gateway.request("GET", "/new").header("cookie", format!("PHPSESSID={id}"));
    assert_eq!(cookie.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn every_refusal_of_wechat_reaches_the_mini_program_as_documented() {
    let app = application("", "").await;
    for (errcode, answer) in [
        ("40029", (401, 40104)),
        ("40163", (401, 40104)),
        ("41008", (401, 40104)),
        ("40226", (403, 40302)),
        ("-1", (503, 50306)),
        ("45011", (503, 50306)),
        ("99999", (503, 50306)),
        ("40013", (500, 50003)),
        ("40125", (500, 50003)),
    ] {
        assert_eq!(app.log_in(&format!("err-{errcode}")).await, answer, "{errcode}");
    }
    assert_eq!(app.log_in("nonsense").await, (503, 50306));
    app.gateway.until_logged("40125").await;
    assert_eq!(app.redis.command(&["DBSIZE"]).trim(), "0", "nobody is logged in");

    // A WeChat that is not there at all.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    app.reload(|table| table.replace(app.wechat.service.url(), &nobody)).await;
    assert_eq!(app.log_in("good-mia").await, (503, 50306));
}

#[tokio::test]
async fn two_logins_with_one_code_ask_wechat_once_and_get_one_token() {
    let app = application("", "").await;
    let (first, second, ()) = tokio::join!(app.token_for("held-mia"), app.token_for("held-mia"), async {
        app.gateway.until_gauge("strangler_requests_in_flight", &[("route", "login")], 2.0).await;
        eventually("WeChat is asked", async || (app.wechat.times_asked() > 0).then_some(())).await;
        app.wechat.permits.add_permits(2);
    });
    assert_eq!(first, second);
    assert_eq!(app.log_in("held-mia").await, (401, 40104), "it is used up");
    assert_eq!(app.wechat.times_asked(), 1);
    let asked = app.wechat.asked.lock().unwrap()[0].clone();
    assert_eq!((&*asked["appid"], &*asked["secret"]), ("wx1", SECRET));
}

#[tokio::test]
async fn a_logout_is_the_end_of_a_session_at_once() {
    // What the cache remembers would let the user in for another minute.
    let app = application("cache = \"60s\"", "").await;
    let token = app.token_for("good-mia").await;
    eventually("the session is remembered", async || {
        assert_eq!(app.get("/new", &token).await.0, 200);
        let hits = [("check", "login"), ("result", "hit")];
        (app.gateway.metrics().await.sum("strangler_check_cache_total", &hits) >= 1.0).then_some(())
    })
    .await;
    assert_eq!(app.ask("DELETE", "/login", Some(&token), "").await.0, 200);
    for path in ["/new", "/old", "/new"] {
        assert_eq!(app.get(path, &token).await.0, 401, "{path}");
    }
    let kept = app.redis.command(&["KEYS", "*"]);
    assert!(kept.trim().lines().all(|key| key.ends_with(":ended")), "nothing but that it has ended: {kept}");

    // Who logs in anew with the former token at hand has the former session ended.
    let former = app.token_for("good-ann").await;
    assert_eq!(app.get("/new", &former).await.0, 200);
    let (status, answer) = app.ask("POST", "/login", Some(&former), r#"{"code":"good-bea"}"#).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(app.get("/new", &former).await.0, 401);
    assert_eq!(app.get("/new", answer["data"]["token"].as_str().unwrap()).await.1["user"], "o-bea");
}

#[tokio::test]
async fn what_is_secret_is_in_no_log_and_goes_to_no_side() {
    let app = application("", "").await;
    let token = app.token_for("good-mia").await;
    let (_, new) = app.get("/new", &token).await;
    let (_, old) = app.get("/old", &token).await;
    assert_eq!(app.log_in("err-40125").await.0, 500);
    assert_eq!(app.log_in("good-mia").await.0, 401);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    app.reload(|table| table.replace(app.wechat.service.url(), &nobody)).await;
    assert_eq!(app.log_in("good-ann").await.0, 503);
    app.ask("DELETE", "/login", Some(&token), "").await;
    app.gateway.until_records(7).await;
    let written = std::fs::read_to_string(app.gateway.access_log()).unwrap();
    let log = app.gateway.log();
    assert!(log.contains("40125"), "it does log: {log}");
    for secret in [SECRET, SESSION_KEY, "good-mia", "good-ann", "err-40125", &token] {
        assert!(!log.contains(secret), "{secret} in {log}");
        assert!(!written.contains(secret), "{secret} in {written}");
    }
    for side in [new.to_string(), old.to_string()] {
        // The token itself goes on in the field that the client sent it in.
        assert!(!side.contains(SESSION_KEY) && !side.contains(SECRET), "{side}");
    }
}

#[tokio::test]
async fn use_keeps_a_session_alive_for_as_long_as_it_may_live() {
    let app = application("cache = \"0s\"", "idle = \"3s\"\nlifetime = \"7s\"").await;
    let begun = Instant::now();
    let token = app.token_for("good-mia").await;
    assert!((1..=3000).contains(&app.milliseconds_left(&token)));
    let unused =
        eventually("a tenth of idle goes by", async || Some(app.milliseconds_left(&token)).filter(|left| *left < 2600))
            .await;
    assert_eq!(app.get("/new", &token).await.0, 200);
    let used = app.milliseconds_left(&token);
    assert!(used > unused, "{used} ms are left of a session in use, {unused} ms of it unused");

    // However much it is used, it ends.
    eventually("it is over", async || (app.get("/new", &token).await.0 == 401).then_some(())).await;
    let lived = begun.elapsed();
    assert!(lived > Duration::from_secs(5), "used all the time, it lived only {lived:?}");
    eventually("nothing of it is left", async || (app.milliseconds_left(&token) == -2).then_some(())).await;
}

#[tokio::test]
async fn a_session_that_is_not_used_ends() {
    let app = application("cache = \"0s\"", "idle = \"1s\"").await;
    let token = app.token_for("good-mia").await;
    eventually_within(Duration::from_secs(5), "its time is over", async || {
        (app.milliseconds_left(&token) == -2).then_some(())
    })
    .await;
    assert_eq!(app.get("/new", &token).await.0, 401);
}

#[tokio::test]
async fn a_reload_that_changes_nothing_of_it_keeps_the_handler_and_its_memory() {
    let app = application("", "").await;
    let token = app.token_for("good-mia").await;
    app.reload(|table| format!("{table}\n[[route]]\npath = \"/more\"\nlegacy = \"php\"\n")).await;
    assert_eq!(app.get("/new", &token).await.0, 200);
    assert_eq!(app.log_in("good-mia").await, (401, 40104));
    assert_eq!(app.wechat.times_asked(), 1, "it remembers the code");

    app.reload(|table| table.replace("appid = \"wx1\"", "appid = \"wx2\"")).await;
    assert_eq!(app.log_in("good-mia").await, (200, 0));
    assert_eq!(app.wechat.asked.lock().unwrap()[1]["appid"], "wx2", "another handler asks anew");
}

#[tokio::test]
async fn a_page_that_ends_after_the_logout_does_not_bring_the_login_back() {
    let application = application("cache = \"0s\"", "").await;
    let token = application.token_for("good-anna").await;
    let until = application.php.dir().join("until");
    let opened = until.with_extension("open");
    let page = format!("/old?until={}", until.display());
    let (page, ()) = tokio::join!(application.get(&page, &token), async {
        eventually("the page has the session open", async || opened.exists().then_some(())).await;
        assert_eq!(application.ask("DELETE", "/login", Some(&token), "").await.0, 200);
        assert_eq!(application.get("/new", &token).await.0, 401);
        std::fs::write(&until, "").unwrap();
    });
    assert_eq!(page.0, 200);
    let kept = application.redis.command(&["KEYS", "PHPREDIS_SESSION:*"]);
    assert!(kept.lines().any(|key| !key.ends_with(":ended")), "PHP has written its session: {kept}");
    assert_eq!(application.get("/new", &token).await.0, 401);
    assert_eq!(application.get("/old", &token).await.0, 401);
}
