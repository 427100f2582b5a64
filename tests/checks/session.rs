//! Sessions that PHP made, read at the edge: with the real PHP, and with Redis in every state it gets into.

use std::time::{Duration, Instant};

use reqwest::header::{COOKIE, SET_COOKIE};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually_within;
use crate::support::gateway::{Gateway, gateway, run};
use crate::support::mariadb::mariadb_with;
use crate::support::php::{Php, php};
use crate::support::redis::{Redis, redis, redis_with, replicated};

/// `[check.login]` on a store, with the field that the application of `tests/php/login.php` keeps its user in.
fn check(store: &str, more: &str) -> String {
    format!(
        "[check.login]\nkind = \"session\"\nstore = \"{store}\"\nuser = \"auth.user_id\"\n\
         fields = {{ roles = \"auth.roles\" }}\n{more}\n"
    )
}

/// `/login.php` open to all, `/new` a handler and `/old` a page for those who are logged in.
async fn application(php: &Php, check: &str) -> Gateway {
    let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\n{more}\n");
    php.put("old", "");
    std::fs::remove_file(php.root().join("old")).unwrap();
    gateway()
        .probe()
        .toml(php.upstream("php = \"files\"\nindex = \"login.php\""))
        .toml(check)
        .toml(route("/login.php", "legacy = \"php\""))
        .toml(route("/old", "legacy = \"php\"\ncheck = [\"login\"]"))
        .toml(route("/new", "new = \"hello\"\nserve = \"new\"\ncheck = [\"login\"]"))
        .start()
        .await
}

async fn asked(gateway: &Gateway, path: &str, cookie: &str) -> (u16, Value) {
    let answer = gateway.request("GET", path).header(COOKIE, cookie).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

/// Logs in with PHP's own session and gives its cookie.
async fn logged_in(gateway: &Gateway, user: &str) -> String {
    let answer = gateway.get(&format!("/login.php?do=in&user={user}")).await;
    // The old id is set, then the new one: a browser keeps the last.
    let cookies: Vec<_> = answer.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
    cookies.last().expect("a cookie").split(';').next().unwrap().to_owned()
}

/// Both sides see the user that PHP's session has.
async fn both_sides_see(gateway: &Gateway, cookie: &str, user: &Value) {
    let (status, new) = asked(gateway, "/new", cookie).await;
    assert_eq!((status, &new["user"], &new["roles"]), (200, &json!(text(user)), &json!(["admin", "editor"])));
    let (status, old) = asked(gateway, "/old", cookie).await;
    assert_eq!((status, &old["user"]), (200, user), "{old}");
    assert_eq!(old["told"]["HTTP_X_STRANGLER_USER"], json!(text(user)));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_ROLES"], json!("admin,editor"));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_SESSION"], old["id"]);
}

fn text(user: &Value) -> String {
    user.as_str().map_or_else(|| user.to_string(), str::to_owned)
}

#[tokio::test]
async fn a_session_in_phps_files_is_seen_alike_by_both_sides() {
    for serializer in ["php", "php_serialize", "php_binary", "igbinary"] {
        let php = php().ini("session.serialize_handler", serializer).start().await;
        let files = format!("php-files:{}", php.dir().display());
        let gateway = application(&php, &check(&files, &format!("format = \"{serializer}\"\n"))).await;
        let cookie = logged_in(&gateway, "7").await;
        both_sides_see(&gateway, &cookie, &json!(7)).await;
        assert_eq!(asked(&gateway, "/new", "PHPSESSID=0123456789abcdef0123456789abcdef").await.0, 401, "{serializer}");
        assert_eq!(asked(&gateway, "/new", "a=b").await.0, 401);
    }
}

#[tokio::test]
async fn a_session_of_phpredis_is_seen_alike_by_both_sides() {
    let redis = redis().await;
    for serializer in ["php", "igbinary"] {
        let php = on_redis(&redis, serializer).await;
        let gateway = application(&php, &on(&redis, &format!("format = \"{serializer}\""))).await;
        let cookie = logged_in(&gateway, "mia").await;
        let ttl = redis.command(&["PTTL", &format!("PHPREDIS_SESSION:{}", &cookie[10..])]);
        both_sides_see(&gateway, &cookie, &json!("mia")).await;
        assert!(ttl.trim().parse::<i64>().unwrap() > 0, "{ttl}");
    }
    let locks = redis.command(&["KEYS", "*_LOCK"]);
    assert_eq!(locks.trim(), "", "no lock is left or taken");
}

async fn on_redis(redis: &Redis, serializer: &str) -> Php {
    php()
        .ini("session.save_handler", "redis")
        .ini("session.save_path", &format!("\"tcp://{}\"", redis.address()))
        .ini("session.serialize_handler", serializer)
        .start()
        .await
}

fn on(redis: &Redis, more: &str) -> String {
    check(&format!("redis://{}", redis.address()), &format!("prefix = \"PHPREDIS_SESSION:\"\n{more}"))
}

#[tokio::test]
async fn a_session_that_pages_go_on_writing_is_never_nobodys() {
    let php = php().start().await;
    let files = format!("php-files:{}", php.dir().display());
    let gateway = application(&php, &check(&files, "cache = \"0s\"")).await;
    let cookie = logged_in(&gateway, "7").await;
    // PHP empties the file each time before it writes.
    let writing = async {
        loop {
            assert_eq!(asked(&gateway, "/login.php?do=count", &cookie).await.0, 200);
        }
    };
    let reading = async || {
        for _ in 0..500 {
            assert_eq!(asked(&gateway, "/old", &cookie).await.0, 200);
        }
    };
    tokio::select! {
        () = writing => {}
        _ = futures_util::future::join(reading(), reading()) => {}
    }
    assert_eq!(gateway.metrics().await.sum("strangler_check_refused_total", &[]), 0.0);
}

#[tokio::test]
async fn a_page_that_holds_its_session_does_not_delay_the_check() {
    let php = php().start().await;
    let files = format!("php-files:{}", php.dir().display());
    let gateway = application(&php, &check(&files, "cache = \"0s\"")).await;
    let cookie = logged_in(&gateway, "7").await;
    let holding = gateway.request("GET", "/login.php?do=hold").header(COOKIE, &cookie).send();
    let (held, ()) = tokio::join!(holding, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        for _ in 0..20 {
            assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
        }
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    });
    assert_eq!(held.unwrap().status(), 200);
}

#[tokio::test]
async fn a_logout_is_noticed_at_once_where_the_cookie_goes_and_in_the_caches_time_elsewhere() {
    let redis = redis().await;
    let php = on_redis(&redis, "php").await;
    let gateway = application(&php, &on(&redis, "cache = \"1s\"")).await;
    let cookie = logged_in(&gateway, "7").await;
    // Right after the login nothing is kept of the session; then it is.
    eventually_within(Duration::from_secs(4), "the session is remembered", async || {
        assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
        let hits = [("check", "login"), ("result", "hit")];
        (gateway.metrics().await.sum("strangler_check_cache_total", &hits) >= 1.0).then_some(())
    })
    .await;
    asked(&gateway, "/login.php?do=out", &cookie).await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 401);

    let cookie = logged_in(&gateway, "8").await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    redis.command(&["FLUSHALL"]);
    eventually_within(Duration::from_secs(2), "the cache forgets", async || {
        (asked(&gateway, "/new", &cookie).await.0 == 401).then_some(())
    })
    .await;

    let cookie = logged_in(&gateway, "9").await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    let generation = gateway.generation().await;
    gateway.edit(|table| table.replace("path = \"/login.php\"\n", "path = \"/login.php\"\nends_session = true\n"));
    gateway.until_newer(generation).await;
    asked(&gateway, "/login.php?do=leave", &cookie).await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 401);
}

#[tokio::test]
async fn who_a_client_says_it_is_never_arrives() {
    let php = php().start().await;
    let gateway = application(&php, &check(&format!("php-files:{}", php.dir().display()), "")).await;
    let cookie = logged_in(&gateway, "7").await;
    for name in ["X-Strangler-User", "X_Strangler_User", "x-strangler_user", "X.Strangler.User", "X-STRANGLER-ROLES"] {
        let spoofed = gateway.request("GET", "/old").header(COOKIE, &cookie).header(name, "root").send();
        let answer = spoofed.await.unwrap();
        let answer = if answer.status() == 400 { continue } else { answer.text().await.unwrap() };
        assert!(!answer.contains("root"), "{name}: {answer}");
    }
    let spoofed = gateway.request("GET", "/login.php").header("X-Strangler-User", "root").send().await.unwrap();
    assert!(!spoofed.text().await.unwrap().contains("root"));
    for alias in ["PHPSESSID[x]=1", "%50HPSESSID=1"] {
        assert_eq!(asked(&gateway, "/new", &format!("{alias}; {cookie}")).await.0, 401, "{alias}");
    }
    assert_eq!(asked(&gateway, "/new", &format!("PHPSESSID=no; {cookie}")).await.0, 401, "PHP takes the first");
}

#[tokio::test]
async fn without_redis_php_decides_for_itself_and_the_new_side_is_not_asked() {
    let redis = redis().await;
    let php = php().start().await;
    let gateway = application(&php, &on(&redis, "")).await;
    let cookie = "PHPSESSID=0123456789abcdef";
    assert_eq!(asked(&gateway, "/new", cookie).await.0, 401);
    drop(redis);
    for _ in 0..8 {
        assert_eq!(asked(&gateway, "/new", "PHPSESSID=0123456789abcdee").await.0, 503);
        assert_eq!(asked(&gateway, "/old", "PHPSESSID=0123456789abcdee").await.0, 200, "PHP decides");
    }
    let down = [("check", "login")];
    gateway.until_gauge("strangler_check_store_up", &down, 0.0).await;
    let asked_for = Instant::now();
    let tried = async || operations(&gateway, &["error", "timeout"]).await;
    let (tried_before, turned_away) = (tried().await, operations(&gateway, &["rejected"]).await);
    for _ in 0..100 {
        assert_eq!(asked(&gateway, "/new", "PHPSESSID=0123456789abcdef0").await.0, 503);
    }
    // One a second tries; the others wait for nothing.
    let probes = asked_for.elapsed().as_secs_f64().floor() + 1.0;
    assert!(tried().await - tried_before <= probes, "of {probes}");
    assert!(operations(&gateway, &["rejected"]).await - turned_away >= 100.0 - probes, "of {probes}");
}

/// How many operations on the store came to one of these ends.
async fn operations(gateway: &Gateway, results: &[&str]) -> f64 {
    let metrics = gateway.metrics().await;
    let of = |result| metrics.sum("strangler_check_store_operations_total", &[("check", "login"), ("result", result)]);
    results.iter().map(|result| of(*result)).sum()
}

#[tokio::test]
async fn a_session_is_read_once_however_many_ask_for_it_at_the_same_moment() {
    let redis = redis().await;
    let php = php().start().await;
    let gateway = application(
        &php,
        &check(&format!("redis://{}", redis.address()), "prefix = \"s:\"\nformat = \"json\"\ncache = \"60s\""),
    )
    .await;
    for id in 0..20 {
        redis.command(&["SET", &format!("s:known{id}"), r#"{"auth":{"user_id":7}}"#]);
    }
    let mut answers = Vec::new();
    for id in 0..20 {
        for name in ["known", "nobody"] {
            let cookie = format!("PHPSESSID={name}{id}");
            let crowd = futures_util::future::join_all((0..50).map(|_| asked(&gateway, "/new", &cookie))).await;
            answers.extend(crowd.into_iter().map(|(status, _)| (name, status)));
        }
    }
    let unanswered = answers.iter().filter(|(_, status)| *status == 503).count();
    let right = |(name, status): &&(&str, u16)| *status == if *name == "known" { 200 } else { 401 };
    assert_eq!(answers.iter().filter(right).count() + unanswered, 2000);
    let reads = redis.calls("getrange");
    assert!(reads <= 40 + unanswered, "40 sessions were read {reads} times, {unanswered} requests had no answer");
}

#[tokio::test]
async fn a_redis_that_hangs_costs_a_moment_and_then_nothing() {
    let redis = redis().await;
    let php = php().start().await;
    let gateway = application(&php, &on(&redis, "cache = \"0s\"")).await;
    let cookie = "PHPSESSID=0123456789abcdef";
    assert_eq!(asked(&gateway, "/new", cookie).await.0, 401);
    redis.signal(Signal::STOP);
    let stopped = Instant::now();
    let waits = futures_util::future::join_all((0..50).map(async |_| {
        let started = Instant::now();
        assert_eq!(asked(&gateway, "/new", cookie).await.0, 503);
        started.elapsed()
    }))
    .await;
    assert!(waits.iter().all(|wait| *wait < Duration::from_millis(700)), "{waits:?}");
    gateway.until_gauge("strangler_check_store_up", &[("check", "login")], 0.0).await;
    assert!(stopped.elapsed() < Duration::from_millis(1500), "{:?}", stopped.elapsed());
    gateway.until_logged("the store does not answer").await;
    redis.signal(Signal::CONT);
    eventually_within(Duration::from_secs(4), "it is asked again", async || {
        (asked(&gateway, "/new", cookie).await.0 == 401).then_some(())
    })
    .await;
    gateway.until_logged("the store answers again").await;

    redis.command(&["CLIENT", "PAUSE", "200", "ALL"]);
    let started = Instant::now();
    let status = asked(&gateway, "/new", cookie).await.0;
    assert!(status == 503 && started.elapsed() < Duration::from_millis(190), "{status} {:?}", started.elapsed());
    eventually_within(Duration::from_secs(4), "it is asked again", async || {
        (asked(&gateway, "/new", cookie).await.0 == 401).then_some(())
    })
    .await;
    let clients = redis.command(&["CLIENT", "LIST"]);
    assert!(clients.lines().filter(|line| line.contains("addr=")).count() <= 4, "{clients}");
}

#[tokio::test]
async fn a_failover_of_sentinel_is_followed() {
    let stores = replicated().await;
    let php = php().start().await;
    let settings = "prefix = \"s:\"\nformat = \"json\"\ncache = \"0s\"";
    let gateway = application(&php, &check(&stores.url(), settings)).await;
    stores.primary.command(&["SET", "s:a", r#"{"auth":{"user_id":7}}"#]);
    eventually_within(Duration::from_secs(5), "the replica has it", async || {
        stores.replica.command(&["GET", "s:a"]).contains("user_id").then_some(())
    })
    .await;
    assert_eq!(asked(&gateway, "/new", "PHPSESSID=a").await.0, 200);
    let _left = stores.fail_over().await;
    let failed = async || operations(&gateway, &["error", "timeout"]).await;
    let before = failed().await;
    eventually_within(Duration::from_secs(10), "it is found", async || {
        (asked(&gateway, "/new", "PHPSESSID=a").await.0 == 200).then_some(())
    })
    .await;
    // After five failures in a row it is tried once a second: two seconds are two more.
    assert!(failed().await - before <= 7.0, "it was tried {} times in vain", failed().await - before);
}

#[tokio::test]
async fn garbage_lets_nobody_in_and_stops_nothing() {
    let redis = redis().await;
    let php = php().start().await;
    let gateway = application(&php, &on(&redis, "cache = \"0s\"")).await;
    let key = |id: &str| format!("PHPREDIS_SESSION:{id}");
    redis.command(&["SET", &key("cut"), "auth|a:1:{s:7:\"user_id\";i:7"]);
    redis.command(&["SETRANGE", &key("large"), "10485760", "x"]);
    redis.command(&["SET", &key("deep"), &format!("auth|{}", "a:1:{i:0;".repeat(10_000))]);
    redis.command(&["LPUSH", &key("list"), "x"]);
    redis.command(&["SET", &key("empty"), ""]);
    for id in ["cut", "large", "deep", "list", "empty"] {
        assert_eq!(asked(&gateway, "/new", &format!("PHPSESSID={id}")).await.0, 401, "{id}");
    }
    redis.command(&["SET", &key("good"), "auth|a:1:{s:7:\"user_id\";i:7;}"]);
    assert_eq!(asked(&gateway, "/new", "PHPSESSID=good").await.1["user"], "7");
    let unreadable = [("check", "login"), ("reason", "unreadable")];
    gateway.until_metric("strangler_check_refused_total", &unreadable, 4.0).await;

    // Where there is a legacy side, that one is asked, and it can be seen that it was.
    assert_eq!(asked(&gateway, "/old", "PHPSESSID=cut").await.0, 200);
    gateway.until_metric("strangler_check_undecided_total", &unreadable, 1.0).await;
    let told = gateway.until_records(7).await.pop().unwrap();
    assert_eq!((&told["check"], &told["undecided"]), (&"login".into(), &"unreadable".into()));
    assert!(told["refused"].is_null() && told["side"] == "legacy", "{told}");
}

#[tokio::test]
async fn redis_is_reached_by_tls_as_a_user_by_its_socket_and_as_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    certificates(dir.path());
    let (socket, tls) = (at("redis.sock"), crate::support::free_port().to_string());
    let redis = redis_with(&[
        "--unixsocket",
        &socket,
        "--tls-port",
        &tls,
        "--tls-cert-file",
        &at("cert.pem"),
        "--tls-key-file",
        &at("key.pem"),
        "--tls-ca-cert-file",
        &at("ca.pem"),
        "--tls-auth-clients",
        "no",
        "--user",
        "reader",
        "on",
        ">s3cret",
        "~*",
        "+getrange",
        "+set",
        "+ping",
        "+select",
    ])
    .await;
    let session = r#"{"auth":{"user_id":7}}"#;
    redis.command(&["-n", "2", "SET", "s:a", session]);
    let cluster = redis_with(&["--cluster-enabled", "yes"]).await;
    cluster.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually_within(Duration::from_secs(5), "the cluster is up", async || {
        cluster.command(&["SET", "s:a", session]).contains("OK").then_some(())
    })
    .await;
    std::fs::write(at("url"), format!("rediss://reader:s3cret@localhost:{tls}/2")).unwrap();
    let kind = "kind = \"session\"\nprefix = \"s:\"\nformat = \"json\"\nuser = \"auth.user_id\"";
    let route =
        |name: &str| format!("[[route]]\npath = \"/{name}\"\nnew = \"hello\"\nserve = \"new\"\ncheck = [\"{name}\"]\n");
    let gateway = gateway()
        .probe()
        .toml(format!("[check.tls]\n{kind}\nstore = {{ file = \"{}\" }}\nca = \"{}\"", at("url"), at("ca.pem")))
        .toml(format!("[check.socket]\n{kind}\nstore = \"redis+unix://{socket}?db=2\""))
        .toml(format!("[check.cluster]\n{kind}\nstore = \"redis-cluster://{}\"", cluster.address()))
        .toml(["tls", "socket", "cluster"].map(route).concat())
        .start()
        .await;
    for name in ["tls", "socket", "cluster"] {
        // The first connection may take longer than an operation waits for it.
        eventually_within(Duration::from_secs(3), name, async || {
            let (status, answer) = asked(&gateway, &format!("/{name}"), "PHPSESSID=a").await;
            (status == 200 && answer["user"] == "7").then_some(())
        })
        .await;
    }
    assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());
}

/// An authority of the test's own, and a certificate of it for `localhost`.
fn certificates(dir: &std::path::Path) {
    let script = "set -e\n\
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca\n\
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj /CN=localhost\n\
        printf 'subjectAltName=DNS:localhost' > ext\n\
        openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem\n";
    let made = std::process::Command::new("sh").arg("-c").arg(script).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_database_is_reached_by_tls_if_it_is_the_one_that_was_meant() {
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(dir.path());
    certificates(foreign.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let database =
        mariadb_with(&[format!("--ssl-cert={}", at("cert.pem")), format!("--ssl-key={}", at("key.pem"))]).await;
    database.sql(
        "create database blog; use blog;
         create table wp_users (ID bigint unsigned, user_login varchar(60), user_email varchar(100), user_pass varchar(255));
         create table wp_usermeta (umeta_id bigint unsigned, user_id bigint unsigned, meta_key varchar(255), meta_value longtext);
         create user reader@'%' identified by 's3cret' require ssl; grant select on blog.* to reader@'%';",
    );
    for name in ["localhost", "127.0.0.1"] {
        std::fs::write(at(name), format!("mysql://reader:s3cret@{name}:{}/blog", database.port())).unwrap();
    }
    let probed = |host: &str, ca: &std::path::Path| {
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n[upstream.app]\nhttp = \"http://127.0.0.1:1\"\n\
             [check.a]\nkind = \"session\"\npreset = \"wordpress\"\nsiteurl = \"http://blog.example\"\n\
             store = {{ file = \"{}\" }}\nca = \"{}\"\n\
             logged_in_key = {{ file = \"{}\" }}\nlogged_in_salt = {{ file = \"{}\" }}\n\
             [[route]]\npath = \"/\"\nlegacy = \"app\"\ncheck = [\"a\"]\n",
            at(host),
            ca.join("ca.pem").display(),
            at("key.pem"),
            at("cert.pem"),
        );
        std::fs::write(at("routes.toml"), text).unwrap();
        let (code, out, _) = run(&["check", "--probe"], dir.path());
        assert!(!out.contains("s3cret") && !out.contains("reader"), "{out}");
        (code, out)
    };
    let (code, out) = probed("localhost", dir.path());
    assert!(code == 0 && out.contains(&format!("localhost:{}/blog/wp_users answers", database.port())), "{out}");
    for (host, ca) in [("localhost", foreign.path()), ("127.0.0.1", dir.path())] {
        let (code, out) = probed(host, ca);
        assert!(code == 1 && out.contains("cannot be used") && out.contains("certificate"), "{out}");
    }
}

#[tokio::test]
async fn the_check_is_checked_against_php_before_anybody_relies_on_it() {
    let redis = redis().await;
    let php = php().start().await;
    // The wrong store: at the edge nobody is logged in.
    let gateway = application(&php, &on(&redis, "parity = \"100%\"\nlogin = \"/login.php\"")).await;
    let cookie = logged_in(&gateway, "7").await;
    let (status, seen) = asked(&gateway, "/old?guard=1", &cookie).await;
    assert_eq!((status, &seen["user"]), (200, &json!(7)), "PHP decides");
    assert_eq!(asked(&gateway, "/old?guard=1", "PHPSESSID=0123456789abcdef").await.0, 302);
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 401, "what PHP does not serve is checked");
    for legacy in ["pass", "refuse"] {
        let labels = [("route", "/old"), ("check", "login"), ("edge", "refuse"), ("legacy", legacy)];
        gateway.until_metric("strangler_check_parity_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn a_probe_says_which_store_is_not_there() {
    let redis = redis().await;
    let dir = tempfile::tempdir().unwrap();
    let absent = crate::support::free_port();
    let write = |port: u16| {
        let check =
            |name: &str, port| format!("[check.{name}]\nkind = \"session\"\nstore = \"redis://127.0.0.1:{port}\"\n");
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n[upstream.app]\nhttp = \"http://127.0.0.1:1\"\n{}{}\
             [[route]]\npath = \"/\"\nlegacy = \"app\"\ncheck = [\"a\", \"b\"]\n",
            check("a", redis.port()),
            check("b", port)
        );
        std::fs::write(dir.path().join("routes.toml"), text).unwrap();
    };
    write(absent);
    let (code, out, _) = run(&["check", "--probe"], dir.path());
    assert_eq!(code, 1, "{out}");
    assert!(out.contains(&format!("check a: redis://{} answers", redis.address())), "{out}");
    assert!(out.contains(&format!("check b: redis://127.0.0.1:{absent} cannot be used")), "{out}");
    assert_eq!(run(&["check"], dir.path()).0, 0);
    write(redis.port());
    assert_eq!(run(&["check", "--probe"], dir.path()).0, 0);
}
