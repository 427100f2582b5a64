//! Signed requests through a running gateway: signers in other languages, replays, bodies.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::routing::any;
use rustix::process::Signal;

use crate::support::gateway::{Gateway, gateway, run};
use crate::support::redis::{Redis, redis, redis_with, replicated};
use crate::support::upstream::{Service, service, upstream};
use crate::support::{eventually, eventually_within, free_port, temp_dir};

const SECRET: &str = "s3cret";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A gateway that demands signatures, and what its side was given.
struct Signed {
    gateway: Gateway,
    calls: Arc<AtomicU64>,
    /// A second at which gateway and store had begun.
    started: u64,
    _app: Service,
    _secrets: tempfile::TempDir,
}

async fn signed(extra: &str) -> Signed {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let echo = async move |body: Bytes| {
        counted.fetch_add(1, Ordering::Relaxed);
        body
    };
    let app = service(Router::new().fallback(any(echo)).layer(axum::extract::DefaultBodyLimit::disable())).await;
    let secrets = temp_dir("signature");
    let path = secrets.path().join("shop");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let check = format!(
        "[check.signed]\nkind = \"signature\"\nkeys = {{ shop-app = {{ file = \"{}\" }} }}\n{extra}\n",
        path.display()
    );
    let gateway = gateway()
        .server("limits = { connections_per_client = 4000 }")
        .toml(upstream("app", &[app.url()], ""))
        .toml(check)
        .toml("[[route]]\nname = \"cart\"\npath = \"/cart\"\nlegacy = \"app\"\ncheck = [\"signed\"]\n")
        .start()
        .await;
    Signed { gateway, calls, started: now(), _app: app, _secrets: secrets }
}

impl Signed {
    /// A timestamp with which an unsafe request cannot have been accepted before gateway and store began.
    async fn ahead(&self) -> String {
        eventually("another second", async || (now() > self.started).then(|| (now() + 5).to_string())).await
    }

    async fn post(&self, target: &str) -> u16 {
        self.gateway.request("POST", target).send().await.unwrap().status().as_u16()
    }

    /// What was accepted before a store lost it stays refused, for that reason, once the store answers again.
    async fn refuses_as_restarted(&self, target: &str) {
        until_the_store_answers(self).await;
        for _ in 0..3 {
            assert_eq!(self.post(target).await, 401);
        }
        let restarted = [("check", "signed"), ("reason", "restarted")];
        self.gateway.until_metric("strangler_check_refused_total", &restarted, 1.0).await;
    }

    /// Why it refused its first requests.
    async fn refusals(&self, count: usize) -> Vec<String> {
        let records = self.gateway.until_records(count).await;
        records.iter().map(|record| record["refused"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Has a script of another language print a signed target.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const PYTHON: &str = r#"
import hashlib, hmac, sys, time, urllib.parse
secret, nonce = sys.argv[1], sys.argv[2]
params = {"app": "shop-app", "timestamp": str(int(time.time())), "nonce": nonce, "sku": "A 1/b", "name": "Käse=10%"}
params.update(dict(pair.split("=", 1) for pair in sys.argv[3:]))
string = "&".join(f"{k}={v}" for k, v in sorted(params.items()))
params["signature"] = hmac.new(secret.encode(), string.encode(), hashlib.sha256).hexdigest()
print("/cart?" + urllib.parse.urlencode(params))
"#;

const PHP: &str = r#"
[$secret, $nonce] = [$argv[1], $argv[2]];
$params = ["app" => "shop-app", "timestamp" => (string) time(), "nonce" => $nonce, "sku" => "A 1/b", "name" => "Käse=10%"];
ksort($params, SORT_STRING);
$string = implode("&", array_map(fn ($k, $v) => "$k=$v", array_keys($params), $params));
$params["signature"] = hash_hmac("sha256", $string, $secret);
echo "/cart?" . http_build_query($params);
"#;

fn by_python(nonce: &str, more: &[&str]) -> String {
    printed("python3", &[&["-c", PYTHON, SECRET, nonce], more].concat())
}

#[tokio::test]
async fn signers_in_python_and_php_are_understood() {
    let edge = signed("").await;
    let Signed { gateway, .. } = &edge;
    for target in [by_python("n-1", &[]), printed("php", &["-r", PHP, "--", SECRET, "n-2"])] {
        assert_eq!(gateway.ask(&target).await.0, 200, "{target}");
        let other = target.replace("sku=A", "sku=B");
        assert_eq!(gateway.ask(&other).await.0, 401, "{other}");
    }
    gateway.until_metric("strangler_check_key_used_total", &[("check", "signed"), ("key", "shop-app")], 2.0).await;
}

#[tokio::test]
async fn a_refusal_says_which_step_failed_to_the_operator_and_nothing_to_the_client() {
    let edge = signed("").await;
    let Signed { gateway, calls, .. } = &edge;
    let good = by_python("n-1", &[]);
    assert_eq!(gateway.ask(&good).await.0, 200);
    let old = by_python("n-2", &[&format!("timestamp={}", now() - 400)]);
    let forged = by_python("n-3", &[]).replace("sku=A", "sku=B");
    let stranger = by_python("n-4", &["app=nobody"]);
    let mut answers = Vec::new();
    for target in [&good, &old, &forged, &stranger] {
        answers.push(gateway.ask(target).await);
    }
    let refused = (401, r#"{"code":40102,"message":"signature refused","data":null}"#.to_owned());
    assert_eq!(answers, vec![refused; 4]);
    let reasons: Vec<_> = gateway.until_records(5).await.iter().map(|record| record["refused"].clone()).collect();
    assert_eq!(reasons[1..], ["replay", "stale", "signature", "unknown_key"]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(!gateway.log().contains(SECRET));
}

#[tokio::test]
async fn one_request_sent_a_thousand_times_at_once_is_accepted_once() {
    let edge = signed("").await;
    let Signed { gateway, calls, .. } = &edge;
    let target = by_python("n-1", &[]);
    let asked = (0..1000).map(|_| gateway.ask(&target));
    let answers = futures_util::future::join_all(asked).await;
    let count = |status| answers.iter().filter(|answer| answer.0 == status).count();
    assert_eq!((count(200), count(401)), (1, 999));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_body_is_known_to_be_the_signed_one_before_a_side_sees_it() {
    let edge = signed("spool = { memory = \"64KiB\" }").await;
    let Signed { gateway, calls, .. } = &edge;
    for (nonce, size) in [("small", 10), ("large", 300_000)] {
        let body = "x".repeat(size);
        let digest = printed(
            "python3",
            &["-c", "import hashlib,sys; print(hashlib.sha256(b'x'*int(sys.argv[1])).hexdigest())", &size.to_string()],
        );
        // Dated ahead: what was signed before the gateway started could have been accepted by another.
        let fields = [format!("timestamp={}", edge.ahead().await), format!("body_sha256={digest}")];
        let target = by_python(nonce, &[&fields[0], &fields[1]]);
        let sent = async |body: String| {
            let answer =
                gateway.request("POST", &target).header("content-type", "text/plain").body(body).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let before = calls.load(Ordering::Relaxed);
        assert_eq!(sent(body.replacen('x', "y", 1)).await.0, 401);
        assert_eq!(calls.load(Ordering::Relaxed), before, "a side saw a body that nobody signed");
        assert!(sent(body.clone()).await == (200, body), "{size} bytes");
    }
}

#[tokio::test]
async fn parameters_of_a_form_are_signed_with_those_of_the_query() {
    let edge = signed("").await;
    let Signed { gateway, .. } = &edge;
    let target = by_python("n-1", &[&format!("timestamp={}", edge.ahead().await)]);
    let (path, query) = target.split_once('?').unwrap();
    let (query, form) = query.split_once("&sku=").unwrap();
    let post = async |form: &str| {
        let request = gateway.request("POST", &format!("{path}?{query}"));
        let request = request.header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        request.body(form.to_owned()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(&format!("sku={form}&more=1")).await, 401);
    assert_eq!(post(&format!("sku={form}")).await, 200);
}

#[tokio::test]
async fn what_was_signed_before_the_start_is_not_accepted_again_by_an_unsafe_method() {
    let edge = signed("").await;
    let Signed { gateway, .. } = &edge;
    let target = by_python("n-1", &[&format!("timestamp={}", now() - 30)]);
    let status = gateway.request("POST", &target).send().await.unwrap().status();
    assert_eq!(status.as_u16(), 401);
    assert_eq!(gateway.until_records(1).await[0]["refused"], "restarted");
}

fn in_redis(redis: &Redis) -> String {
    format!("nonces = \"redis://{}\"", redis.address())
}

#[tokio::test]
async fn one_request_sent_a_thousand_times_through_two_gateways_on_one_redis_is_accepted_once() {
    let redis = redis().await;
    let (one, other) = two_connected(&in_redis(&redis)).await;
    let target = by_python("n-1", &[&format!("timestamp={}", other.ahead().await)]);
    let asked = (0..1000).map(|n| if n % 2 == 0 { one.post(&target) } else { other.post(&target) });
    let answers = futures_util::future::join_all(asked).await;
    let accepted = answers.iter().filter(|status| **status == 200).count();
    // A Redis that is too slow for so many at once has some of them refused with 503, and none accepted.
    assert_eq!(accepted, 1);
    assert!(answers.iter().all(|status| matches!(status, 200 | 401 | 503)), "{answers:?}");
    let store = [("check", "signed"), ("result", "done")];
    one.gateway.until_metric("strangler_check_store_operations_total", &store, 1.0).await;
}

/// Two gateways on one store, connected to it: opening a connection may take longer than an operation waits for it.
async fn two_connected(nonces: &str) -> (Signed, Signed) {
    let (one, other) = (signed(nonces).await, signed(nonces).await);
    for edge in [&one, &other] {
        until_the_store_answers(edge).await;
    }
    (one, other)
}

async fn until_the_store_answers(edge: &Signed) {
    let nonce = std::cell::Cell::new(0);
    eventually_within(std::time::Duration::from_secs(5), "the store answers", async || {
        nonce.set(nonce.get() + 1);
        let target = by_python(&format!("{}-{}", edge.gateway.address(), nonce.get()), &[]);
        (edge.gateway.ask(&target).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_killed_and_started_again_accepts_nothing_twice() {
    let redis = redis().await;
    for (nonces, reason) in [(String::new(), "restarted"), (in_redis(&redis), "replay")] {
        let mut edge = signed(&nonces).await;
        until_the_store_answers(&edge).await;
        let ahead = by_python("ahead", &[&format!("timestamp={}", edge.ahead().await)]);
        assert_eq!(edge.post(&ahead).await, 200);
        // Dated as it should be, it is accepted once the start is longer ago than a date may be ahead.
        eventually_within(std::time::Duration::from_secs(10), "an unsafe request of this second", async || {
            let target = by_python(&format!("now-{}", now()), &[]);
            (edge.post(&target).await == 200).then_some(())
        })
        .await;
        edge.gateway.signal(Signal::KILL);
        edge.gateway.end(std::time::Duration::from_secs(5)).await;
        let again = signed(&nonces).await;
        if !nonces.is_empty() {
            until_the_store_answers(&again).await;
        }
        assert_eq!(again.post(&ahead).await, 401, "{nonces}");
        assert_eq!(again.refusals(1).await.last().unwrap(), reason);
    }
}

#[tokio::test]
async fn what_a_redis_forgot_that_was_killed_is_not_accepted_again() {
    let dir = temp_dir("redis");
    let socket = dir.path().join("redis.sock").display().to_string();
    let start = async || redis_with(&["--unixsocket", &socket]).await;
    let redis = start().await;
    let nonces = format!("nonces = \"redis+unix://{socket}\"");
    let (one, other) = two_connected(&nonces).await;
    let mut ahead = Vec::new();
    for nonce in ["a", "b", "c"] {
        ahead.push(by_python(nonce, &[&format!("timestamp={}", other.ahead().await)]));
        assert_eq!((one.post(&ahead[ahead.len() - 1]).await, other.post(&ahead[ahead.len() - 1]).await), (200, 401));
    }
    drop(redis);
    assert_eq!(other.post(&ahead[0]).await, 503, "nobody can say");
    let redis = start().await;
    assert_eq!(redis.command(&["DBSIZE"]).trim(), "0");
    for (edge, target) in [&one, &other, &signed(&nonces).await].into_iter().zip(&ahead) {
        // The empty Redis would have let it pass.
        edge.refuses_as_restarted(target).await;
    }
}

#[tokio::test]
async fn what_a_failover_lost_is_not_accepted_again() {
    let stores = replicated().await;
    let nonces = format!("nonces = \"{}\"", stores.url());
    let (one, other) = two_connected(&nonces).await;
    let mut ahead = Vec::new();
    for nonce in ["a", "b", "c"] {
        ahead.push(by_python(nonce, &[&format!("timestamp={}", other.ahead().await)]));
        assert_eq!(one.post(&ahead[ahead.len() - 1]).await, 200);
    }
    // As if the primary had died before it could tell.
    stores.replica.command(&["CONFIG", "SET", "replica-read-only", "no"]);
    assert_eq!(stores.replica.command(&["FLUSHALL"]).trim(), "OK");
    let (now_primary, _sentinel) = stores.fail_over().await;
    for (edge, target) in [&one, &other, &signed(&nonces).await].into_iter().zip(&ahead) {
        edge.refuses_as_restarted(target).await;
    }
    // The new primary was asked, and would have let them pass.
    assert!(now_primary.command(&["DBSIZE"]).trim().parse::<u32>().unwrap() >= 3);
}

#[tokio::test]
async fn bad_signatures_write_nothing_and_a_full_redis_accepts_nothing() {
    let redis = redis().await;
    let edge = signed(&in_redis(&redis)).await;
    let good = by_python("n-1", &[]);
    let forged = good.replace("sku=A", "sku=B");
    for answer in futures_util::future::join_all((0..100).map(|_| edge.gateway.ask(&forged))).await {
        assert_eq!(answer.0, 401);
    }
    assert_eq!(redis.command(&["DBSIZE"]).trim(), "0");
    until_the_store_answers(&edge).await;
    let key = redis.command(&["KEYS", "strangler:nonce:*"]).lines().next().unwrap().to_owned();
    let left: u64 = redis.command(&["PTTL", &key]).trim().parse().unwrap();
    assert!(key.len() == "strangler:nonce:".len() + 32 && (600_000..=660_000).contains(&left), "{key} {left}");

    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    eventually("it is full", async || {
        let key = format!("filler-{}", redis.command(&["DBSIZE"]).trim());
        redis.command(&["SET", &key, &"x".repeat(65536)]).contains("OOM").then_some(())
    })
    .await;
    assert_eq!(edge.gateway.ask(&good).await.0, 503);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(edge.gateway.ask(&good).await.0, 200, "it was not spent");
    assert_eq!(edge.gateway.ask(&good).await.0, 401);
}

#[tokio::test]
async fn without_its_redis_a_gateway_decides_alone_where_it_may() {
    let redis = redis().await;
    let edge = signed(&format!("{}\non_store_down = \"memory\"", in_redis(&redis))).await;
    until_the_store_answers(&edge).await;
    let (before, after) = (by_python("n-1", &[]), by_python("n-2", &[]));
    assert_eq!(edge.gateway.ask(&before).await.0, 200);
    drop(redis);
    let mut answers = Vec::new();
    for target in [&before, &after, &after] {
        answers.push(edge.gateway.ask(target).await.0);
    }
    assert_eq!(answers, [401, 200, 401]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tries_whether_a_store_keeps_nonces() {
    let dir = temp_dir("probe");
    std::fs::write(dir.path().join("key"), SECRET).unwrap();
    let probed = |store: &str| {
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n[upstream.app]\nhttp = \"http://127.0.0.1:1\"\n\
             [check.signed]\nkind = \"signature\"\nkeys = {{ shop-app = {{ file = \"key\" }} }}\n\
             nonces = \"{store}\"\n[[route]]\npath = \"/\"\nlegacy = \"app\"\ncheck = [\"signed\"]\n"
        );
        std::fs::write(dir.path().join("routes.toml"), text).unwrap();
        let (code, out, _) = run(&["check", "--probe"], dir.path());
        (code, out.lines().last().unwrap_or_default().to_owned())
    };
    let absent = format!("redis://127.0.0.1:{}", free_port());
    let (code, told) = probed(&absent);
    assert!(code == 1 && told.starts_with(&format!("check signed: {absent} cannot be used")), "{told}");

    let redis = redis().await;
    let store = format!("redis://{}", redis.address());
    assert_eq!(probed(&store), (0, format!("check signed: {store} answers")));
    redis.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (code, told) = probed(&store);
    assert!(code == 1 && told.ends_with("its maxmemory-policy is allkeys-lru, and has to be noeviction"), "{told}");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.command(&["ACL", "SETUSER", "default", "-set"]);
    let (code, told) = probed(&store);
    assert!(code == 1 && told.contains("permission"), "{told}");
}

// curl is waited for on this thread; the side it asks needs another.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_sign_makes_requests_that_the_gateway_accepts() {
    let edge = signed("string = \"{method}\\n{path}\\n{params}\"").await;
    let Signed { gateway, .. } = &edge;
    let table = gateway.table().to_str().unwrap();
    let signed = |arguments: &[&str]| {
        let (code, out, err) = run(&[&["sign", "-c", table], arguments].concat(), gateway.dir());
        assert_eq!(code, 0, "{out}{err}");
        out
    };
    let json: serde_json::Value =
        serde_json::from_str(&signed(&["signed", "GET", &gateway.url("/cart?sku=A%201"), "--json"])).unwrap();
    assert_eq!(json["key"], "shop-app");
    assert!(json["string"].as_str().unwrap().starts_with("GET\n/cart\napp=shop-app&nonce="), "{json}");
    assert_eq!(reqwest::get(json["url"].as_str().unwrap()).await.unwrap().status().as_u16(), 200);

    let ahead = edge.ahead().await;
    let text =
        signed(&["signed", "POST", &gateway.url("/cart"), "-d", "it's=1", "--timestamp", &ahead, "--nonce", "n-1"]);
    assert!(
        text.contains(&format!("signed     POST\\n/cart\\napp=shop-app&it's=1&nonce=n-1&timestamp={ahead}\n")),
        "{text}"
    );
    let curl = text.lines().find(|line| line.starts_with("curl ")).unwrap();
    let status = printed("sh", &["-c", &format!("{curl} -s -o /dev/null -w '%{{http_code}}'")]);
    assert_eq!(status, "200", "{curl}");
}

// curl is waited for on this thread; the side it asks needs another.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_sign_signs_messages_for_a_host_with_a_port() {
    let edge = signed("scheme = \"rfc9421\"").await;
    let table = edge.gateway.table().to_str().unwrap();
    let (_, text, err) =
        run(&["sign", "-c", table, "signed", "GET", &edge.gateway.url("/cart?sku=1")], edge.gateway.dir());
    let curl = text.lines().find(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("{text}{err}"));
    let status = printed("sh", &["-c", &format!("{curl} -s -o /dev/null -w '%{{http_code}}'")]);
    assert_eq!(status, "200", "{text}");
}
