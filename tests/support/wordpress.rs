//! WordPress as Debian packages it, on a database and a PHP-FPM pool of its own.
//!
//! The tree is copied with its links followed, since they lead outside of it; the configuration is a
//! plain `wp-config.php`. Debian ships no theme with it, so a small one is laid beside.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::mariadb::{Mariadb, mariadb};
use super::php::{Php, php};
use super::site::{HOST, Page, Site, between};
use super::{copy_tree, temp_dir};

/// The administrator's name and password.
pub const ADMIN: (&str, &str) = ("admin", "correct-horse-battery-staple-9");

/// The application with its database and its pool, not yet set up.
#[derive(Debug)]
pub struct WordPress {
    pub php: Php,
    pub database: Mariadb,
    _dir: TempDir,
}

/// Lays out the files, starts the database and the pool.
pub async fn wordpress() -> WordPress {
    let dir = temp_dir("wordpress");
    let root = dir.path().join("root");
    std::fs::create_dir(&root).expect("the root");
    copy_tree(Path::new("/usr/share/wordpress"), &root);
    let _ = std::fs::remove_file(root.join(".htaccess"));
    let database = mariadb().await;
    database.sql("create database wordpress character set utf8mb4");
    std::fs::write(root.join("wp-config.php"), configuration(&database)).expect("wp-config.php");
    lay_theme(&root);
    still_chance(&root);
    std::fs::create_dir_all(root.join("wp-content/uploads")).expect("the uploads");
    let php = php().root(&root).children(4).ini("memory_limit", "256M").ini("display_errors", "0").start().await;
    WordPress { php, database, _dir: dir }
}

fn configuration(database: &Mariadb) -> String {
    let keys: String = ["AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE"]
        .iter()
        .map(|name| {
            format!("define('{name}_KEY', 'key of {name} in tests'); define('{name}_SALT', 'salt of {name}');\n")
        })
        .collect();
    format!(
        "<?php\n\
         define('DB_NAME', 'wordpress'); define('DB_USER', 'root'); define('DB_PASSWORD', '');\n\
         define('DB_HOST', 'localhost:{socket}'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');\n\
         {keys}\
         define('WP_HOME', 'http://{HOST}'); define('WP_SITEURL', 'http://{HOST}');\n\
         define('WP_DEFAULT_THEME', 'plain');\n\
         define('DISABLE_WP_CRON', true); define('WP_HTTP_BLOCK_EXTERNAL', true);\n\
         define('AUTOMATIC_UPDATER_DISABLED', true); define('WP_AUTO_UPDATE_CORE', false);\n\
         $table_prefix = 'wp_';\n\
         if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');\n\
         require_once ABSPATH . 'wp-settings.php';\n",
        socket = database.socket().display(),
    )
}

/// Takes chance out of the pages, so that two askings of one question have one answer: suggested
/// passwords, the ids of embedded frames, scrambled mail addresses.
fn still_chance(root: &Path) {
    let plugins = root.join("wp-content/mu-plugins");
    std::fs::create_dir_all(&plugins).expect("the plugins' directory");
    let plugin = "<?php mt_srand(7); add_filter('random_password', fn ($word) => substr(str_repeat('a1B', 30), 0, strlen($word)));\n";
    std::fs::write(plugins.join("still-chance.php"), plugin).expect("a plugin");
}

/// A theme of five files: enough for every kind of page to be shown by real template code.
fn lay_theme(root: &Path) {
    let theme: PathBuf = root.join("wp-content/themes/plain");
    std::fs::create_dir_all(&theme).expect("the theme's directory");
    let files = [
        ("style.css", "/*\nTheme Name: Plain\nVersion: 1.0\n*/\nbody { max-width: 40em; margin: auto; }\n"),
        (
            "functions.php",
            "<?php\nadd_theme_support('title-tag'); add_theme_support('post-thumbnails');\n\
             add_theme_support('menus');\n\
             add_theme_support('automatic-feed-links');\n\
             add_action('wp_enqueue_scripts', function () { wp_enqueue_style('plain', get_stylesheet_uri()); });\n",
        ),
        (
            "header.php",
            "<!doctype html><html <?php language_attributes(); ?>><head><meta charset=\"<?php bloginfo('charset'); ?>\">\
             <?php wp_head(); ?></head><body <?php body_class(); ?>><?php wp_body_open(); ?>\n",
        ),
        ("footer.php", "<?php wp_footer(); ?></body></html>\n"),
        (
            "index.php",
            "<?php get_header(); while (have_posts()) { the_post(); ?><article <?php post_class(); ?>>\
             <h2><a href=\"<?php the_permalink(); ?>\"><?php the_title(); ?></a></h2><?php the_content(); ?></article>\
             <?php if (is_singular()) { comments_template(); } } the_posts_pagination(); get_search_form(); get_footer();\n",
        ),
    ];
    for (name, content) in files {
        std::fs::write(theme.join(name), content).expect("a file of the theme");
    }
}

/// Sets WordPress up as its owner does on the first visit.
pub async fn install(site: &Site) {
    let front = site.get("/").await;
    assert_eq!(front.status, 302, "an empty WordPress sends its visitor to the set-up: {}", front.text());
    assert!(front.header("location").is_some_and(|to| to.ends_with("/wp-admin/install.php")), "{front:?}");
    let form = site.get("/wp-admin/install.php").await;
    assert_eq!(form.status, 200);
    assert!(form.text().contains("weblog_title"), "{}", form.text());
    let done = site
        .post(
            "/wp-admin/install.php?step=2",
            &[
                ("weblog_title", "The Shop's Blog"),
                ("user_name", ADMIN.0),
                ("admin_password", ADMIN.1),
                ("admin_password2", ADMIN.1),
                ("admin_email", "admin@example.com"),
                ("blog_public", "1"),
                ("Submit", "Install WordPress"),
                ("language", ""),
            ],
        )
        .await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains("WordPress has been installed"), "{}", done.text());
}

/// Logs the administrator in; the cookies stay in the site's jar.
pub async fn log_in(site: &Site) {
    let form = site.get("/wp-login.php").await;
    assert_eq!(form.status, 200, "{}", form.text());
    let answer = site
        .post(
            "/wp-login.php",
            &[
                ("log", ADMIN.0),
                ("pwd", ADMIN.1),
                ("wp-submit", "Log In"),
                ("redirect_to", &format!("http://{HOST}/wp-admin/")),
                ("testcookie", "1"),
            ],
        )
        .await;
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert!(answer.headers.iter().any(|(name, value)| name == "set-cookie" && value.contains("wordpress_logged_in_")));
}

/// Logs out by the link of the administration's pages.
pub async fn log_out(site: &Site) {
    let found = links(&site.get("/wp-admin/").await);
    let link = found.iter().find(|link| link.contains("action=logout")).expect("a link to log out");
    let answer = site.get(link).await;
    assert_eq!(answer.status, 302, "{}", answer.text());
}

/// The nonce the editor uses for the REST API.
pub async fn rest_nonce(site: &Site) -> String {
    site.get("/wp-admin/admin-ajax.php?action=rest-nonce").await.text()
}

/// Turns pretty permalinks on through the settings page.
pub async fn use_permalinks(site: &Site) {
    let form = site.get("/wp-admin/options-permalink.php").await;
    let nonce = form.field("_wpnonce");
    let saved = site
        .post(
            "/wp-admin/options-permalink.php",
            &[
                ("_wpnonce", &nonce),
                ("_wp_http_referer", "/wp-admin/options-permalink.php"),
                ("selection", "/%year%/%postname%/"),
                ("permalink_structure", "/%year%/%postname%/"),
                ("submit", "Save Changes"),
            ],
        )
        .await;
    assert!(matches!(saved.status, 200 | 302), "{}", saved.text());
}

/// Uploads a picture through the media form and gives the path it is served at.
pub async fn upload_media(site: &Site, name: &str, picture: Vec<u8>) -> String {
    let form = site.get("/wp-admin/media-new.php?browser-uploader").await;
    let nonce = form.field("_wpnonce");
    let part =
        reqwest::multipart::Part::bytes(picture).file_name(name.to_owned()).mime_str("image/png").expect("a type");
    let upload = reqwest::multipart::Form::new()
        .text("name", name.to_owned())
        .text("action", "upload-attachment")
        .text("_wpnonce", nonce)
        .part("async-upload", part);
    let answer = site.upload("/wp-admin/async-upload.php", upload).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()));
    assert_eq!(said["success"], true, "{said}");
    let url = said["data"]["url"].as_str().expect("the picture's URL");
    url.strip_prefix(&format!("http://{HOST}")).expect("a URL of this site").to_owned()
}

/// Links of a page that lead to this site, as targets.
pub fn links(page: &Page) -> Vec<String> {
    let text = page.text();
    let mut found = Vec::new();
    for attribute in ["href=", "src="] {
        for rest in text.split(attribute).skip(1) {
            let quote = if rest.starts_with('\'') { "'" } else { "\"" };
            let Some(link) = between(rest, quote, quote) else { continue };
            let link = link.replace("&amp;", "&").replace("&#038;", "&");
            let local = link.strip_prefix(&format!("http://{HOST}")).unwrap_or(&link);
            let target = local.split('#').next().unwrap_or_default();
            if target.starts_with('/') && !target.starts_with("//") && !found.contains(&target.to_owned()) {
                found.push(target.to_owned());
            }
        }
    }
    found
}
