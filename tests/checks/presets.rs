//! Sessions that frameworks keep in their own way, made by PHP as the frameworks make them.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, gateway};
use crate::support::php::{Php, php};
use crate::support::redis::{Redis, redis};

/// `/login` open to all, `/old` a page and `/new` a handler for those who are logged in; all of PHP is one script.
async fn application(php: &Php, script: &str, params: &str, check: &str) -> Gateway {
    gateway()
        .probe()
        .toml(php.upstream(&format!("index = \"{script}\"\nparams = {{ {params} }}")))
        .toml(format!("[check.login]\nkind = \"session\"\nfields = {{ roles = \"roles\" }}\n{check}\n"))
        .toml("[[route]]\npath = \"/login\"\nlegacy = \"php\"\n")
        .toml("[[route]]\npath = \"/old\"\nlegacy = \"php\"\ncheck = [\"login\"]\n")
        .toml("[[route]]\npath = \"/new\"\nnew = \"hello\"\nserve = \"new\"\ncheck = [\"login\"]\n")
        .start()
        .await
}

async fn asked(gateway: &Gateway, path: &str, cookie: &str) -> (u16, Value) {
    let answer = gateway.request("GET", path).header(COOKIE, cookie).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

/// The cookie that a browser has after this page.
async fn cookie_of(gateway: &Gateway, path: &str, cookie: &str) -> String {
    let answer = gateway.request("GET", path).header(COOKIE, cookie).send().await.unwrap();
    let cookies: Vec<_> = answer.headers().get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
    cookies.last().unwrap_or_else(|| panic!("no cookie: {answer:?}")).split(';').next().unwrap().to_owned()
}

/// Both sides see the user who logs in, and nobody once that user has logged out.
async fn both_sides_see_a_user_come_and_go(gateway: &Gateway, user: &str) {
    let cookie = cookie_of(gateway, &format!("/login?do=in&user={user}"), "").await;
    let (status, new) = asked(gateway, "/new", &cookie).await;
    assert_eq!((status, &new["user"], &new["roles"]), (200, &json!(user), &json!(["admin", "editor"])), "{cookie}");
    let (status, old) = asked(gateway, "/old", &cookie).await;
    assert_eq!((status, text(&old["user"]), &old["told"]["HTTP_X_STRANGLER_USER"]), (200, user.into(), &json!(user)));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_ROLES"], json!("admin,editor"));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_SESSION"], old["id"], "the id, and never the cookie");

    assert_eq!(asked(gateway, "/new", &cookie).await.0, 200);
    let after = cookie_of(gateway, "/login?do=out", &cookie).await;
    for left in [&cookie, &after] {
        assert_eq!(asked(gateway, "/new", left).await.0, 401, "logged out");
    }
}

fn text(user: &Value) -> String {
    user.as_str().map_or_else(|| user.to_string(), str::to_owned)
}

/// An application of Laravel's.
struct Laravel<'a> {
    store: &'a str,
    cipher: &'a str,
    key: &'a str,
    encrypted: bool,
    serialization: &'a str,
}

const KEY: &str = "base64:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const SHORT_KEY: &str = "base64:MDEyMzQ1Njc4OTAxMjM0NQ==";
const PREFIX: &str = "shop-database-shop-cache-";

impl Laravel<'_> {
    /// What PHP is told of it.
    fn params(&self) -> String {
        let Self { store, cipher, key, encrypted, serialization } = self;
        let encrypted = if *encrypted { "1" } else { "0" };
        format!(
            "STORE = \"{store}\", PREFIX = \"{PREFIX}\", CIPHER = \"{cipher}\", APP_KEY = \"{key}\", \
             ENCRYPTED = \"{encrypted}\", SERIALIZATION = \"{serialization}\""
        )
    }

    /// What the check is told of it; `secrets` is a folder for its key.
    fn check(&self, secrets: &Path, more: &str) -> String {
        let Self { store, cipher, key, encrypted, serialization } = self;
        let file = secrets.join("app_key");
        std::fs::write(&file, key).unwrap();
        let (store, prefix) = match store.strip_prefix("redis:") {
            Some(address) => (format!("redis://{address}"), format!("prefix = \"{PREFIX}\"\n")),
            None => (format!("php-files:{store}"), String::new()),
        };
        format!(
            "preset = \"laravel\"\ntoken = \"cookie:shop-session\"\nstore = \"{store}\"\n{prefix}\
             app_key = {{ file = \"{}\" }}\ncipher = \"{cipher}\"\nencrypted = {encrypted}\n\
             serialization = \"{serialization}\"\n{more}\n",
            file.display()
        )
    }

    async fn start(&self, php: &Php, more: &str) -> Gateway {
        application(php, "laravel.php", &self.params(), &self.check(php.dir(), more)).await
    }
}

fn sessions(php: &Php) -> String {
    let folder = php.dir().join("sessions");
    std::fs::create_dir_all(&folder).unwrap();
    folder.display().to_string()
}

#[tokio::test]
async fn laravels_user_is_seen_alike_by_both_sides_from_redis_and_from_files() {
    let (php, redis): (_, Redis) = (php().start().await, redis().await);
    let (files, redis) = (sessions(&php), format!("redis:{}", redis.address()));
    let application = |store, cipher, encrypted, serialization| {
        let key = if str::contains(cipher, "128") { SHORT_KEY } else { KEY };
        Laravel { store, cipher, key, encrypted, serialization }
    };
    for laravel in [
        application(&redis, "aes-256-cbc", false, "php"),
        application(&redis, "aes-128-gcm", true, "json"),
        application(&files, "aes-256-gcm", true, "php"),
        application(&files, "aes-128-cbc", false, "json"),
    ] {
        let gateway = laravel.start(&php, "").await;
        both_sides_see_a_user_come_and_go(&gateway, "42").await;
    }
}

#[tokio::test]
async fn a_cookie_that_laravel_did_not_give_out_for_its_session_is_nobodys() {
    let php = php().start().await;
    let store = sessions(&php);
    let laravel = Laravel { store: &store, cipher: "aes-256-cbc", key: KEY, encrypted: false, serialization: "php" };
    let gateway = laravel.start(&php, "").await;
    let cookie = cookie_of(&gateway, "/login?do=in&user=7", "").await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    let id = asked(&gateway, "/old", &cookie).await.1["id"].as_str().unwrap().to_owned();

    let value = BASE64
        .decode(cookie.trim_start_matches("shop-session=").replace("%3D", "=").replace("%2B", "+").replace("%2F", "/"));
    let mut payload: Value = serde_json::from_slice(&value.unwrap()).unwrap();
    payload["mac"] = json!("0".repeat(64));
    let forged = BASE64.encode(payload.to_string()).replace('+', "%2B");
    for nobody in [&*id, "", "x", &forged] {
        assert_eq!(asked(&gateway, "/new", &format!("shop-session={nobody}")).await.0, 401, "{nobody}");
    }
    let other = cookie.replace("shop-session", "other-session");
    assert_eq!(asked(&gateway, "/new", &other).await.0, 401);
    let malformed = [("check", "login"), ("reason", "malformed")];
    gateway.until_metric("strangler_check_refused_total", &malformed, 3.0).await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    assert!(!gateway.log().contains("MDEyMzQ1"), "the key is nowhere told");
}

#[tokio::test]
async fn whom_laravel_remembers_by_another_cookie_laravel_decides_about() {
    let php = php().start().await;
    let store = sessions(&php);
    let laravel = Laravel { store: &store, cipher: "aes-256-cbc", key: KEY, encrypted: false, serialization: "php" };
    let gateway = laravel.start(&php, "").await;
    let remembered = "remember_web_59ba36addc2b2f9401580f014c7f58ea4e30989d=x";
    assert_eq!(asked(&gateway, "/old", "a=b").await.0, 401);
    let (status, old) = asked(&gateway, "/old", remembered).await;
    assert_eq!((status, &old["told"]), (200, &json!([])), "PHP decides, and is told of nobody");
    assert_eq!(asked(&gateway, "/new", remembered).await.0, 401);
}

#[tokio::test]
async fn a_key_of_before_is_still_believed_and_another_is_not() {
    let php = php().start().await;
    let store = sessions(&php);
    let laravel = |key| Laravel { store: &store, cipher: "aes-256-cbc", key, encrypted: true, serialization: "php" };
    let before = laravel(KEY).start(&php, "").await;
    let cookie = cookie_of(&before, "/login?do=in&user=7", "").await;
    assert_eq!(asked(&before, "/new", &cookie).await.0, 200);
    drop(before);

    std::fs::write(php.dir().join("previous"), KEY).unwrap();
    let new = format!("base64:{}", BASE64.encode([7; 32]));
    let previous = format!("previous_keys = [{{ file = \"{}\" }}]", php.dir().join("previous").display());
    let after = laravel(&new).start(&php, &previous).await;
    assert_eq!(asked(&after, "/new", &cookie).await.1["user"], "7");
    drop(after);
    assert_eq!(asked(&laravel(&new).start(&php, "").await, "/new", &cookie).await.0, 401);
}

#[tokio::test]
async fn a_file_that_laravel_has_not_written_for_its_lifetime_is_no_session() {
    let php = php().start().await;
    let store = sessions(&php);
    let laravel = Laravel { store: &store, cipher: "aes-256-cbc", key: KEY, encrypted: false, serialization: "php" };
    let gateway = laravel.start(&php, "lifetime = \"10m\"\ncache = \"0s\"").await;
    let cookie = cookie_of(&gateway, "/login?do=in&user=7", "").await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    let age = |minutes: u64| {
        let then = SystemTime::now() - Duration::from_secs(60 * minutes);
        for file in std::fs::read_dir(&store).unwrap() {
            File::options().write(true).open(file.unwrap().path()).unwrap().set_modified(then).unwrap();
        }
    };
    age(9);
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);
    age(11);
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 401);
}

#[tokio::test]
async fn symfonys_user_is_seen_alike_by_both_sides_from_redis_and_from_files() {
    let redis = redis().await;
    let user = "preset = \"symfony\"\nuser_property = \"email\"\ntoken = \"cookie:PHPSESSID\"";
    for serializer in ["php", "php_serialize"] {
        let php = php().ini("session.serialize_handler", serializer).start().await;
        let format = format!("format = \"{serializer}\"\n{user}");
        let files = format!("store = \"php-files:{}\"\n{format}", php.dir().display());
        let gateway = application(&php, "symfony.php", "", &files).await;
        both_sides_see_a_user_come_and_go(&gateway, "mia@example.org").await;
        let params = format!("STORE = \"redis:{}\"", redis.address());
        let in_redis = format!("store = \"redis://{}\"\n{format}", redis.address());
        let gateway = application(&php, "symfony.php", &params, &in_redis).await;
        both_sides_see_a_user_come_and_go(&gateway, "mia@example.org").await;
    }
}
