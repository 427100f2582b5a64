//! WordPress through the gateway: set up, used, and compared page by page with nginx on the same PHP-FPM.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::cookie::{CookieStore as _, Jar};
use reqwest::header::COOKIE;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::{Gateway, gateway};
use crate::support::nginx::nginx_named;
use crate::support::site::{HOST, Page, Site, differences, page};
use crate::support::wordpress::{
    WordPress, install, links, log_in, log_out, rest_nonce, upload_media, use_permalinks, wordpress,
};

/// A photograph as large as a telephone's, so that WordPress makes smaller ones of it.
fn picture() -> Vec<u8> {
    let drawn = "mt_srand(7); $i = imagecreatetruecolor(1200, 800);
        for ($n = 0; $n < 400; $n++) {
            imagefilledellipse($i, mt_rand(0, 1200), mt_rand(0, 800), mt_rand(5, 90), mt_rand(5, 90), mt_rand(0, 0xffffff));
        }
        imagepng($i);";
    let output = std::process::Command::new("php").args(["-r", drawn]).output().expect("php runs");
    assert!(output.status.success() && output.stdout.len() > 10_000, "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn wordpress_is_set_up_and_used_through_the_gateway_and_every_answer_is_the_one_nginx_gives() {
    let wordpress = wordpress().await;
    // WordPress asks the server's name before it offers permalinks; nginx's is the one it knows.
    let upstream = wordpress.php.upstream("php = \"files\"\nparams = { SERVER_SOFTWARE = \"nginx/1.22.1\" }");
    let gateway = gateway()
        .toml(upstream)
        .toml("[[route]]\nname = \"blog\"\npath = \"/{*rest}\"\nlegacy = \"php\"\nbody_bytes = \"64MiB\"")
        .start()
        .await;
    let nginx = nginx_named(HOST, &wordpress.php).await;

    let compared = use_and_compare(gateway.address(), nginx.address()).await;

    let records = gateway.until_records(compared).await;
    let failed: Vec<_> = records.iter().filter(|record| record["status"].as_u64().is_none_or(|s| s >= 500)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(wordpress.php.workers().len() == 4, "a PHP process died: {}", wordpress.php.log());
}

/// The control: a difference between two servers of the same kind would be noise of the method.
#[tokio::test]
async fn two_nginx_servers_are_found_equal_by_the_same_comparison() {
    let wordpress = wordpress().await;
    let (one, other) = (nginx_named(HOST, &wordpress.php).await, nginx_named(HOST, &wordpress.php).await);
    use_and_compare(one.address(), other.address()).await;
}

#[test]
fn the_comparison_sees_a_status_a_header_and_a_word_but_not_a_nonce() {
    let page = |status, header: &str, body: &str| Page {
        status,
        headers: vec![("date".into(), header.into()), ("x-kind".into(), header.into())],
        body: body.into(),
    };
    let one = page(200, "a", "value=\"0a1b2c3d4e\" and more");
    assert!(differences(&one, &page(200, "a", "value=\"ffffffffff\" and more")).is_empty());
    assert_eq!(differences(&one, &page(200, "b", "value=\"0a1b2c3d4e\" and more")).len(), 1);
    assert_eq!(differences(&one, &page(404, "b", "value=\"0a1b2c3d4e\" and less")).len(), 3);
    assert_eq!(differences(&one, &page(200, "a", "value=\"0a1b2c3d4e\" and more.")).len(), 1);
}

/// Sets WordPress up behind `used`, works in it as its owner does, then asks both servers the same
/// questions. Gives the number of requests compared.
async fn use_and_compare(used: SocketAddr, reference: SocketAddr) -> usize {
    // One browser for both: the same session has the same nonces.
    let owner = Arc::new(Jar::default());
    let (site, other) = (Site::new(used, &owner), Site::new(reference, &owner));
    install(&site).await;
    log_in(&site).await;
    use_permalinks(&site).await;
    let original = picture();
    let media = upload_media(&site, "shop.png", original.clone()).await;
    assert_eq!(site.get(&media).await.body, original, "the picture comes back as it was sent");
    let post = write_post(&site, &media).await;
    let seen = site.get(&post).await;
    assert_eq!(seen.status, 200, "{post}: {}", seen.text());
    assert!(
        seen.text().contains("Größe &#038; Preis") && seen.text().contains("<strong>new</strong>"),
        "{}",
        seen.text()
    );
    comment(&site, &seen).await;

    let nobody = Arc::new(Jar::default());
    let (visitor, other_visitor) = (Site::new(used, &nobody), Site::new(reference, &nobody));
    let mut found = Vec::new();
    let mut compared = 0;
    for (mine, theirs, questions) in [
        (&visitor, &other_visitor, public_questions(&visitor, &post, &media).await),
        (&site, &other, admin_questions(&site).await),
    ] {
        for question in questions {
            let mut differ = differences(&question.ask(mine).await, &question.ask(theirs).await);
            if !differ.is_empty() {
                // Pages that show the time differ when the second changes between two askings.
                differ = differences(&question.ask(mine).await, &question.ask(theirs).await);
            }
            found.extend(differ.into_iter().map(|difference| format!("{question:?}: {difference}")));
            compared += 1;
        }
    }
    assert!(found.is_empty(), "{} differences in {compared} requests:\n{}", found.len(), found.join("\n"));
    assert!(compared >= 100, "only {compared} requests were compared");
    compared
}

/// Writes a post over the REST API, as the editor does, and gives its path.
async fn write_post(site: &Site, media: &str) -> String {
    let nonce = rest_nonce(site).await;
    let text = format!("<p>A <strong>new</strong> product.</p><img src=\"http://{HOST}{media}\" alt=\"\">");
    let written =
        page(site.request("POST", "/wp-json/wp/v2/posts?_locale=user").header("x-wp-nonce", nonce).json(&json!({
            "title": "Größe & Preis", "content": text, "status": "publish", "slug": "new-product",
        })))
        .await;
    assert_eq!(written.status, 201, "{}", written.text());
    let said: Value = serde_json::from_slice(&written.body).expect("JSON");
    let link = said["link"].as_str().expect("a link");
    link.strip_prefix(&format!("http://{HOST}")).expect("a link of this site").to_owned()
}

/// Leaves a comment by the form under a post.
async fn comment(site: &Site, post: &Page) {
    let form = [
        ("comment", "Very nice & cheap."),
        ("comment_post_ID", &post.field("comment_post_ID")),
        ("comment_parent", "0"),
        ("submit", "Post Comment"),
    ];
    let answer = site.post("/wp-comments-post.php", &form).await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert!(answer.header("location").is_some_and(|to| to.contains("#comment-")), "{:?}", answer.headers);
}

/// One request both servers are asked.
#[derive(Debug)]
struct Question {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

impl Question {
    fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), headers: Vec::new(), body: "" }
    }

    fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, kind: &str, body: &'static str) -> Self {
        self.body = body;
        self.method("POST").header("content-type", kind)
    }

    async fn ask(&self, site: &Site) -> Page {
        let mut request = site.request(self.method, &self.target);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.body.is_empty() {
            request = request.body(self.body);
        }
        page(request).await
    }
}

/// What a visitor may ask: every page and file the public pages link to, and what else the web sends.
async fn public_questions(site: &Site, post: &str, media: &str) -> Vec<Question> {
    let mut targets: Vec<String> = links(&site.get("/").await);
    targets.extend(links(&site.get(post).await));
    targets.sort();
    targets.dedup();
    let mut questions: Vec<Question> = targets.into_iter().map(Question::get).collect();
    let modified = site.get(media).await.header("last-modified").expect("a date").to_owned();
    let form = "application/x-www-form-urlencoded";
    questions.extend([
        Question::get("/"),
        Question::get("/?s=product"),
        Question::get("/?p=1"),
        Question::get("/index.php?p=1"),
        Question::get("/index.php"),
        Question::get(post.trim_end_matches('/')),
        Question::get("/2026"),
        Question::get("/nowhere/at/all/"),
        Question::get("/nowhere.css"),
        Question::get("/wp-content/uploads/nothing.png"),
        Question::get("/wp-admin"),
        Question::get("/wp-admin/"),
        Question::get("/wp-includes/images/spinner.gif"),
        Question::get("/wp-includes/js/jquery/jquery.min.js"),
        Question::get("/wp-includes/js/tinymce/langs/wp-langs-en.js"),
        Question::get("/wp-includes/fonts/dashicons.woff2"),
        Question::get("/feed/"),
        Question::get("/feed/atom/"),
        Question::get("/comments/feed/"),
        Question::get("/wp-sitemap.xml"),
        Question::get("/robots.txt"),
        Question::get("/favicon.ico"),
        Question::get("/wp-json"),
        Question::get("/wp-json/"),
        Question::get("/wp-json/wp/v2/posts"),
        Question::get("/wp-json/wp/v2/posts/1?_fields=id,title,link"),
        Question::get("/wp-json/wp/v2/users"),
        Question::get("/wp-json/wp/v2/settings"),
        Question::get("/wp-json/wp/v2/nothing"),
        Question::get("/index.php?rest_route=/wp/v2/categories"),
        Question::get("/index.php/wp-json/wp/v2/types"),
        Question::get("/wp-login.php"),
        Question::get("/wp-login.php?action=lostpassword"),
        Question::get("/wp-login.php/"),
        Question::get("/wp-cron.php"),
        Question::get("/xmlrpc.php"),
        Question::get("/wp-json/oembed/1.0/embed?url=http%3A%2F%2Fwordpress.test%2F%3Fp%3D1"),
        Question::get("/%E2%9C%93/"),
        Question::get("/?a[]=1&a[]=2&b=%26"),
        Question::get("/").method("HEAD"),
        Question::get(post).method("HEAD"),
        Question::get(media),
        Question::get(media).method("HEAD"),
        Question::get(media).header("range", "bytes=0-99"),
        Question::get(media).header("range", "bytes=100-"),
        Question::get(media).header("range", "bytes=-50"),
        Question::get(media).header("range", "bytes=99999999-"),
        Question::get(media).header("if-modified-since", modified),
        Question::get("/wp-json/").method("OPTIONS"),
        Question::get("/wp-json/wp/v2/posts/1").method("DELETE"),
        Question::get("/wp-json/wp/v2/posts").body("application/json", "{\"title\":\"no right to\"}"),
        Question::get("/wp-json/wp/v2/posts").body("application/json", "{\"title\":"),
        Question::get("/wp-login.php").body(form, "log=admin&pwd=wrong&wp-submit=Log+In"),
        Question::get("/wp-comments-post.php").body(form, "comment=&comment_post_ID=1"),
        Question::get("/wp-trackback.php?p=1").body(form, "title=t&url=http%3A%2F%2Fexample.com"),
        Question::get("/xmlrpc.php").body(
            "text/xml",
            "<?xml version=\"1.0\"?><methodCall><methodName>demo.sayHello</methodName><params/></methodCall>",
        ),
        Question::get("/wp-admin/admin-ajax.php").body(form, "action=nothing"),
    ]);
    questions
}

/// What the owner sees: the pages of the administration and what they load.
async fn admin_questions(site: &Site) -> Vec<Question> {
    // A page may leave traces in the database (a revision, a draft, a dismissed hint) that the next
    // reader sees; those are asked once first.
    let pages = [
        "/wp-admin/",
        "/wp-admin/index.php",
        "/wp-admin/edit.php",
        "/wp-admin/edit.php?post_type=page",
        "/wp-admin/upload.php?mode=list",
        "/wp-admin/media-new.php",
        "/wp-admin/edit-comments.php",
        "/wp-admin/edit-tags.php?taxonomy=category",
        "/wp-admin/themes.php",
        "/wp-admin/plugins.php",
        "/wp-admin/users.php",
        "/wp-admin/user-new.php",
        "/wp-admin/profile.php",
        "/wp-admin/tools.php",
        "/wp-admin/import.php",
        "/wp-admin/export.php",
        "/wp-admin/options-general.php",
        "/wp-admin/options-writing.php",
        "/wp-admin/options-reading.php",
        "/wp-admin/options-permalink.php",
        "/wp-admin/options-media.php",
        "/wp-admin/options.php",
        "/wp-admin/about.php",
        "/wp-admin/nav-menus.php",
        "/wp-admin/post.php?post=1&action=edit",
        "/wp-admin/nothing.php",
        "/wp-admin/export.php?download=true&content=all",
        "/wp-admin/admin-ajax.php?action=rest-nonce",
        "/wp-json/wp/v2/settings",
        "/",
    ];
    for page in pages {
        site.get(page).await;
    }
    let dashboard = site.get("/wp-admin/").await;
    let loaded = links(&dashboard).into_iter().filter(|link| link.contains(".js") || link.contains("load-"));
    pages.iter().map(|page| (*page).to_owned()).chain(loaded).map(Question::get).collect()
}

/// A page that says who WordPress thinks is asking, and what it was told by the gateway.
const TOLD: &str = r#"<?php
if (!isset($_GET['alone'])) { require __DIR__ . '/wp-load.php'; }
$told = array_filter($_SERVER, fn ($name) => str_starts_with($name, 'HTTP_X_STRANGLER_'), ARRAY_FILTER_USE_KEY);
header('Content-Type: application/json');
echo json_encode(['user' => function_exists('wp_get_current_user') ? wp_get_current_user()->ID : null, 'told' => $told]);"#;

/// WordPress behind a gateway that reads its logins: `/new` is a handler, and `/told.php` a page, for who is logged in.
async fn checked(wordpress: &WordPress) -> Gateway {
    let php = &wordpress.php;
    php.put("told.php", TOLD);
    wordpress.database.sql("create user reader@localhost; grant select on wordpress.* to reader@localhost");
    let check = format!(
        "[check.login]\nkind = \"session\"\npreset = \"wordpress\"\nsiteurl = \"http://{HOST}\"\n\
         store = \"mysql://reader@localhost/wordpress?socket={}\"\n\
         logged_in_key = {{ env = \"LOGGED_IN_KEY\" }}\nlogged_in_salt = {{ env = \"LOGGED_IN_SALT\" }}\n\
         fields = {{ roles = \"roles\", email = \"user_email\" }}\n",
        wordpress.database.socket().display(),
    );
    gateway()
        .probe()
        .env("LOGGED_IN_KEY", "key of LOGGED_IN in tests")
        .env("LOGGED_IN_SALT", "salt of LOGGED_IN")
        .toml(php.upstream("php = \"files\""))
        .toml(check)
        .toml("[[route]]\nname = \"blog\"\npath = \"/{*rest}\"\nlegacy = \"php\"\n")
        .toml("[[route]]\npath = \"/told.php\"\nlegacy = \"php\"\ncheck = [\"login\"]\n")
        .toml("[[route]]\npath = \"/new\"\nnew = \"hello\"\nserve = \"new\"\ncheck = [\"login\"]\n")
        .start()
        .await
}

/// The cookie by which WordPress knows who is logged in, `NAME=VALUE`.
fn login_cookie(gateway: &Gateway, jar: &Jar) -> String {
    let url = format!("http://{}/", gateway.address()).parse().expect("a URL");
    let cookies = jar.cookies(&url).expect("cookies");
    let cookies = cookies.to_str().expect("text");
    cookies.split("; ").find(|cookie| cookie.starts_with("wordpress_logged_in_")).expect("a login").to_owned()
}

async fn asked(gateway: &Gateway, path: &str, cookie: &str) -> (u16, Value) {
    let answer =
        gateway.request("GET", path).header("host", HOST).header(COOKIE, cookie).send().await.expect("an answer");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default())
}

#[tokio::test]
async fn who_is_logged_in_at_wordpress_is_known_to_both_sides_until_wordpress_ends_it() {
    let wordpress = wordpress().await;
    let gateway = checked(&wordpress).await;
    let jar = Arc::new(Jar::default());
    let site = Site::new(gateway.address(), &jar);
    install(&site).await;
    assert_eq!(site.get("/new").await.status, 401);
    log_in(&site).await;

    let cookie = login_cookie(&gateway, &jar);
    let (status, new) = asked(&gateway, "/new", &cookie).await;
    assert_eq!((status, &new["user"], &new["roles"]), (200, &json!("1"), &json!(["administrator"])));
    let (status, old) = asked(&gateway, "/told.php", &cookie).await;
    assert_eq!((status, &old["user"], &old["told"]["HTTP_X_STRANGLER_USER"]), (200, &json!(1), &json!("1")));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_ROLES"], json!("administrator"));
    assert_eq!(old["told"]["HTTP_X_STRANGLER_EMAIL"], json!("admin@example.com"));
    let session = old["told"]["HTTP_X_STRANGLER_SESSION"].as_str().expect("a session");
    assert!(session.len() == 64 && !cookie.contains(session), "WordPress's name of the session, which proves nothing");

    let (name, value) = cookie.split_once('=').expect("a value");
    let parts: Vec<&str> = value.split("%7C").collect();
    let [user, expires, token, hmac] = parts[..] else { panic!("{value}") };
    let expired = (expires.parse::<u64>().expect("a time") - 10_000_000).to_string();
    let reversed: String = hmac.chars().rev().collect();
    for forged in [
        [user, expires, token, &reversed],
        [user, &expired, token, hmac],
        [user, expires, &token.to_lowercase(), hmac],
        ["nobody", expires, token, hmac],
        ["admin' OR '1'='1", expires, token, hmac],
    ] {
        let forged = format!("{name}={}", forged.join("%7C"));
        assert_eq!(asked(&gateway, "/new", &forged).await.0, 401, "{forged}");
        assert_eq!(asked(&gateway, "/told.php", &forged).await.0, 401, "{forged}");
    }

    log_out(&site).await;
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 401, "the session is over for who kept the cookie too");

    log_in(&site).await;
    let elsewhere = login_cookie(&gateway, &jar);
    assert_eq!(asked(&gateway, "/new", &elsewhere).await.0, 200);
    wordpress.database.sql("delete from wordpress.wp_usermeta where meta_key = 'session_tokens'");
    eventually("a login that was ended elsewhere is refused", || async {
        (asked(&gateway, "/new", &elsewhere).await.0 == 401).then_some(())
    })
    .await;

    log_in(&site).await;
    let before = login_cookie(&gateway, &jar);
    assert_eq!(asked(&gateway, "/new", &before).await.0, 200);
    let nonce = rest_nonce(&site).await;
    let word = json!({ "password": "another-horse-battery-staple-8" });
    let changed =
        page(site.request("POST", "/index.php?rest_route=/wp/v2/users/me").header("x-wp-nonce", nonce).json(&word))
            .await;
    assert!(changed.status == 200 && changed.text().contains("\"id\":1"), "{}", changed.text());
    eventually("a new password ends the logins of before", || async {
        (asked(&gateway, "/new", &before).await.0 == 401).then_some(())
    })
    .await;
    assert!(!gateway.log().contains("LOGGED_IN in tests"), "the key is nowhere told");
    for reason in ["signature", "unknown"] {
        gateway.until_metric("strangler_check_refused_total", &[("check", "login"), ("reason", reason)], 1.0).await;
    }
}

#[tokio::test]
async fn while_wordpress_database_is_down_php_decides_and_handlers_are_not_asked() {
    let wordpress = wordpress().await;
    let gateway = checked(&wordpress).await;
    let jar = Arc::new(Jar::default());
    let site = Site::new(gateway.address(), &jar);
    install(&site).await;
    log_in(&site).await;
    let cookie = login_cookie(&gateway, &jar);
    assert_eq!(asked(&gateway, "/new", &cookie).await.0, 200);

    wordpress.database.signal(Signal::STOP);
    eventually("what was read is forgotten", || async {
        (asked(&gateway, "/new", &cookie).await.0 == 503).then_some(())
    })
    .await;
    let (status, old) = asked(&gateway, "/told.php?alone", &cookie).await;
    assert_eq!((status, &old["told"]), (200, &json!([])), "PHP decides, and is told of nobody");
    eventually("it is taken for down", || async {
        asked(&gateway, "/new", &cookie).await;
        let metrics = gateway.metrics().await;
        (metrics.sum("strangler_check_store_up", &[("check", "login")]) == 0.0).then_some(())
    })
    .await;

    wordpress.database.signal(Signal::CONT);
    eventually("it is asked again", || async { (asked(&gateway, "/new", &cookie).await.0 == 200).then_some(()) }).await;
}
