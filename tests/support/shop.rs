//! The example shop as it ships: its own binary on the repository's routes.toml, twice, so that both sides
//! of every route can be asked the same question.
//!
//! Both gateways work on one database, one set of sessions and one PHP-FPM, which the first of them
//! starts. Of the table only places and the word `serve` are changed.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::gateway::Gateway;
use super::mariadb::{Mariadb, mariadb};
use super::process::Process;
use super::redis::{Redis, redis};
use super::{eventually, free_port, gateway, repository, temp_dir};

/// The shop, served by both sides at once.
#[derive(Debug)]
pub struct Shop {
    /// Every route is served by Rust, where there is Rust for it.
    pub new: Gateway,
    /// Every route is served by PHP.
    pub legacy: Gateway,
    state: PathBuf,
    _wechat: Process,
    _servers: Option<(Mariadb, Redis)>,
    _dir: TempDir,
}

/// With what it has embedded: SQLite and session files.
pub async fn shop() -> Shop {
    open(None).await
}

/// With MariaDB, and with sessions in Redis as phpredis keeps them.
pub async fn shop_on_servers() -> Shop {
    let (database, redis) = (mariadb().await, redis().await);
    database.sql(
        "create database shop character set utf8mb4; create user shop@'127.0.0.1' identified by 'word'; \
         grant all on shop.* to shop@'127.0.0.1'",
    );
    open(Some((database, redis))).await
}

async fn open(servers: Option<(Mariadb, Redis)>) -> Shop {
    let dir = temp_dir("shop");
    let state = dir.path().join("state");
    for folder in [&state, &state.join("pictures")] {
        std::fs::create_dir(folder).expect("a folder for what the shop writes");
    }
    give_to_php(dir.path(), &state);

    let (wechat, wechat_url) = fake_wechat(dir.path()).await;
    let mut environment = vec![
        ("SHOP_STATE", state.display().to_string()),
        ("WECHAT_API_BASE", wechat_url),
        ("WECHAT_APP_ID", "app".to_owned()),
        ("WECHAT_APP_SECRET", "secret".to_owned()),
    ];
    if let Some((database, redis)) = &servers {
        environment.push(("DATABASE_URL", format!("mysql://shop:word@{}/shop", database.address())));
        environment.push(("SESSION_STORE", format!("redis://{}", redis.address())));
    }
    let legacy_table = table(&state, &dir.path().join("fpm.sock"));
    let legacy = gateway().shop(&environment).toml(&legacy_table).start().await;
    let new_table = flipped(&without(&legacy_table, "spawn "));
    let new = gateway().shop(&environment).toml(new_table).start().await;
    Shop { new, legacy, state, _wechat: wechat, _servers: servers, _dir: dir }
}

/// The repository's table from its first upstream on, at places of this test.
fn table(state: &Path, socket: &Path) -> String {
    let shipped = std::fs::read_to_string(repository("routes.toml")).expect("routes.toml");
    let start = shipped.find("\n[upstream.php]").expect("the shop's upstream");
    let mut text = shipped[start..].to_owned();
    for (place, here) in [
        ("unix:var/shop/php-fpm.sock", format!("unix:{}", socket.display())),
        ("\"examples/shop/", format!("\"{}/", repository("examples/shop").display())),
        ("\"var/shop/pictures\"", format!("\"{}/pictures\"", state.display())),
    ] {
        assert!(text.contains(place), "routes.toml names {place} no more");
        text = text.replace(place, &here);
    }
    text
}

/// The text less the lines that begin with `key`.
fn without(text: &str, key: &str) -> String {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(key)).collect();
    assert!(kept.len() < text.lines().count(), "there is no {key:?}");
    kept.join("\n")
}

/// Every route that has a new side is served by it; the default is left alone.
pub fn flipped(text: &str) -> String {
    let routes = text.find("\n[[group]]").expect("the routes");
    let (before, routes) = text.split_at(routes);
    format!("{before}{}", routes.replace("serve = \"legacy\"", "serve = \"new\""))
}

/// PHP never runs as root: where the tests do, what it writes to must be given to its user, as `make demo` does.
fn give_to_php(dir: &Path, state: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("a folder to pass through");
    if !rustix::process::getuid().is_root() {
        return;
    }
    let owner = std::fs::metadata(repository("examples/shop/legacy/public")).expect("the document root");
    let (user, group) = if owner.uid() == 0 { www_data() } else { (owner.uid(), owner.gid()) };
    for folder in [state, &state.join("pictures")] {
        chown(folder, Some(user), Some(group)).expect("root may give away");
    }
}

fn www_data() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("the users");
    let line = users.lines().find_map(|line| line.strip_prefix("www-data:x:")).expect("the user www-data");
    let mut numbers = line.split(':').map_while(|field| field.parse().ok());
    (numbers.next().expect("a user"), numbers.next().expect("a group"))
}

async fn fake_wechat(dir: &Path) -> (Process, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("php8.2");
    command.arg("-S").arg(&address).arg(repository("examples/shop/fake_wechat.php"));
    let process = Process::start("fake wechat", &command, &dir.join("wechat.out"), None, Signal::KILL);
    eventually("the fake of WeChat listens", || async { std::net::TcpStream::connect(&address).ok() }).await;
    (process, format!("http://{address}"))
}

impl Shop {
    /// Where the shop keeps what it writes.
    pub fn state(&self) -> &Path {
        &self.state
    }
}
