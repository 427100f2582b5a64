//! What files give, and what is taken over from the table before.

use std::path::PathBuf;

use super::*;
use crate::http::{Limits, Timeouts};
use crate::route::Serve;

/// A folder with a route file in it, and a program with some handlers.
pub(super) struct Fixture {
    pub(super) folder: tempfile::TempDir,
    handlers: BTreeMap<String, Arc<Handler>>,
    telemetry: Telemetry,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("public")).unwrap();
        std::fs::write(folder.path().join("public/index.php"), "<?php").unwrap();
        Self { folder, handlers: handlers(&["users", "orders"]), telemetry: telemetry() }
    }

    pub(super) fn known(&self) -> Known<'_> {
        Known { handlers: &self.handlers, telemetry: &self.telemetry, previous: None }
    }

    pub(super) fn write(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("routes.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str, previous: Option<&RouteTable>) -> Loaded {
        let known = Known { previous, ..self.known() };
        load(&self.write(text), &known).unwrap_or_else(|faults| panic!("{faults}"))
    }
}

pub(super) fn telemetry() -> Telemetry {
    Telemetry::idle()
}

pub(super) fn handlers(names: &[&str]) -> BTreeMap<String, Arc<Handler>> {
    names.iter().map(|name| ((*name).to_owned(), Arc::new(Handler::new(name)))).collect()
}

const SMALLEST: &str =
    "[listen]\nhttp = \"127.0.0.1:0\"\n[[route]]\npath = \"/{*rest}\"\nnew = \"users\"\nserve = \"new\"\n";

const WHOLE: &str = r#"
[listen]
http = ["127.0.0.1:8080", "[::1]:8080"]
admin = "127.0.0.1:9901"

[server]
workers = 3
trusted_proxies = ["10.0.0.0/8", "::1"]
drain = "0s"
reveal = true
access_log = "var/access.log"
limits = { header_bytes = "16KiB", headers = 50, uri_bytes = "4KiB", body_bytes = "1MB", connections = 1000, connections_per_client = 10 }

[server.timeouts]
header = "1s"
requests_per_connection = 7

[upstream.php]
fastcgi = "unix:fpm.sock"
root = "public"
connections = 4
keepalive = 4
params = { APP_ENV = "production", TOKEN = { file = "token" }, PATH_OF = { env = "PATH" } }
on_client_abort = "finish"
spool = { memory = "1KiB" }
deny = []
php = "files"
internal = { "/protected/" = "public" }
symlinks = ["public"]
spawn = { children = 2 }

[upstream.svc]
http = ["http://127.0.0.1:7001/", "unix:svc.sock", "http://svc"]
host = "svc.internal"

[defaults]
legacy = "php"
timeout = "9s"

[[route]]
name = "order"
path = "/orders/{id}"
methods = ["GET", "PURGE"]
host = "Shop.Example"
when = { header = { Accept = "a/b" }, query = { v = "2" }, cookie = { beta = "1" } }
new = "svc"
serve = "new"
body_bytes = "0B"

[[group]]
prefix = "/api"
methods = "GET"
timeout = "3s"
  [[group.route]]
  path = ""
  new = "users"
  [[group.route]]
  path = "/x"
  timeout = "1s"
"#;

#[test]
fn the_smallest_file_gives_every_default() {
    let loaded = Fixture::new().load(SMALLEST, None);
    assert_eq!(loaded.listen.http, ["127.0.0.1:0".parse().unwrap()]);
    assert_eq!((loaded.listen.admin, loaded.access_log), (None, Destination::Stdout));
    assert!(loaded.workers >= 1);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    // Were the description of a key and the type it ends in ever to disagree, one of them would lie.
    assert_eq!(loaded.table.edge.limits, Limits::default());
    assert_eq!(loaded.table.edge.timeouts, Timeouts::default());
    assert_eq!(loaded.table.edge.drain.as_secs(), 30);
    let route = &loaded.table.routes[0];
    assert_eq!((&*route.name, route.timeout.as_secs(), route.body_bytes), ("/{*rest}", 60, 8 << 20));
}

#[test]
fn every_default_of_an_upstream_can_be_read() {
    let text = "[listen]\nhttp = \"127.0.0.1:0\"\n[upstream.php]\nfastcgi = \"127.0.0.1:9000\"\nroot = \"public\"\n\
                [upstream.svc]\nhttp = \"http://svc\"\n[[route]]\npath = \"/{*rest}\"\nlegacy = \"php\"\nnew = \"svc\"\n";
    let loaded = Fixture::new().load(text, None);
    let Some(Target::Php(php)) = loaded.table.routes[0].legacy().map(|place| &place.target) else { panic!() };
    let settings = php.settings();
    assert_eq!((settings.connections, settings.queue_length, settings.keepalive), (8, 32, 0));
    assert_eq!((settings.spool_memory, settings.spool_disk), (128 << 10, 1 << 30));
    assert_eq!(settings.deny, crate::upstream::fastcgi::deny::DEFAULT_DENY);
    assert_eq!((settings.spawn, settings.try_files, &*settings.index), (None, true, "index.php"));
    let Some(Target::Http(service)) = loaded.table.routes[0].new_side().map(|place| &place.target) else { panic!() };
    assert_eq!(service.settings().servers, [crate::upstream::http::Server::Tcp { host: "svc".into(), port: 80 }]);
    assert_eq!(service.settings().connect.as_secs(), 2);
}

#[test]
fn every_key_ends_where_it_belongs() {
    let fixture = Fixture::new();
    std::fs::write(fixture.folder.path().join("token"), "s3cret\n").unwrap();
    let loaded = fixture.load(WHOLE, None);
    let folder = fixture.folder.path();
    let text = format!("{:#?}", (&loaded.listen, loaded.workers, &loaded.access_log, &loaded.table.edge));
    for expected in ["127.0.0.1:9901", "3", "reveal: true", "header_bytes: 16384", "body_bytes: 1000000", "drain: 0ns"]
    {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert_eq!(loaded.access_log, Destination::File(folder.join("var/access.log")));
    let [order, group, x] = &loaded.table.routes[..] else { panic!("three routes") };
    assert_eq!((order.host.as_deref(), order.when.len(), order.body_bytes), (Some("shop.example"), 3, 0));
    assert_eq!((order.serve, order.timeout.as_secs(), order.methods.len()), (Serve::New, 9, 2));
    assert_eq!((group.path(), group.timeout.as_secs(), group.serve), ("/api", 3, Serve::Legacy));
    assert_eq!((x.path(), x.timeout.as_secs(), x.methods.len()), ("/api/x", 1, 1));
    let Some(Target::Php(php)) = x.legacy().map(|place| &place.target) else { panic!() };
    let settings = php.settings();
    assert_eq!(settings.root, folder.join("public"));
    assert_eq!(settings.address, crate::upstream::fastcgi::Address::Unix(folder.join("fpm.sock")));
    let params: BTreeMap<_, _> = settings.params.iter().cloned().collect();
    assert_eq!(params["TOKEN"], "s3cret");
    assert_eq!(params["PATH_OF"], std::env::var("PATH").unwrap());
    assert_eq!((settings.spawn, settings.deny.len(), settings.symlinks.len()), (Some(2), 0, 1));
    assert_eq!(settings.internal, [("/protected/".to_owned(), folder.join("public"))]);
    assert!(
        loaded.warnings.iter().any(|warning| warning.contains("its pool has 2 processes")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn what_did_not_change_is_taken_over_from_the_table_before() {
    let fixture = Fixture::new();
    std::fs::write(fixture.folder.path().join("token"), "s3cret\n").unwrap();
    let first = fixture.load(WHOLE, None).table;
    let php = |table: &RouteTable| match table.routes[2].legacy().map(|place| place.target.clone()) {
        Some(Target::Php(php)) => php,
        other => panic!("{other:?}"),
    };

    let flipped = fixture.load(&WHOLE.replace("serve = \"new\"", "serve = \"legacy\""), Some(&first)).table;
    assert!(Arc::ptr_eq(&php(&first), &php(&flipped)), "the pool was given up");
    assert_eq!(first.routes[2].since, flipped.routes[2].since);
    assert_ne!(first.routes[0].since, flipped.routes[0].since);

    let resized = fixture.load(&WHOLE.replace("connections = 4", "connections = 5"), Some(&flipped)).table;
    assert!(!Arc::ptr_eq(&php(&flipped), &php(&resized)), "the old pool stayed");
}

#[test]
fn a_file_that_cannot_be_had_is_one_fault_without_a_line() {
    let fixture = Fixture::new();
    let faults = load(&fixture.folder.path().join("absent.toml"), &fixture.known()).unwrap_err();
    let shown = faults.to_string();
    assert!(
        shown.contains("absent.toml: cannot be read: no such file or directory; name the file with -c FILE"),
        "{shown}"
    );
    let faults = load(fixture.folder.path(), &fixture.known()).unwrap_err();
    assert!(faults.to_string().contains("is not a regular file\n1 fault"), "{faults}");
}

#[test]
fn the_route_file_of_the_demo_is_good() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("examples/shop/legacy/public")).unwrap();
    std::fs::write(folder.path().join("examples/shop/legacy/public/index.php"), "<?php").unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.toml"), &path).unwrap();
    let (handlers, telemetry) = (handlers(&["health", "products", "orders", "users", "reports"]), telemetry());
    let known = Known { handlers: &handlers, telemetry: &telemetry, previous: None };
    let loaded = load(&path, &known).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(loaded.table.routes.iter().all(|route| route.legacy().is_some()), "a route of the demo cannot go back");
    // What PHP keeps there is made by the first upload, the socket by php-fpm.
    assert!(loaded.warnings.iter().all(|warning| warning.contains("does not exist yet")), "{:?}", loaded.warnings);
}

/// `tests/golden/NAME.toml` gives `tests/golden/NAME.out`; UPDATE=1 writes what it gives now.
#[test]
fn each_golden_file_gives_its_faults() {
    let folder = Path::new("tests/golden");
    let update = std::env::var_os("UPDATE").is_some();
    let (handlers, telemetry) = (handlers(&["users", "orders"]), telemetry());
    let known = Known { handlers: &handlers, telemetry: &telemetry, previous: None };
    let mut wrong = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(paths.len() >= 10, "the golden files are gone");
    for path in paths {
        let given = match load(&path, &known) {
            Ok(loaded) => format!("{} routes\n{}\n", loaded.table.routes.len(), loaded.warnings.join("\n")),
            Err(faults) => format!("{faults}\n"),
        };
        let expected = path.with_extension("out");
        if update {
            std::fs::write(&expected, &given).unwrap();
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(&*given) {
            wrong.push(format!("{} now gives\n{given}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 accepts this", wrong.join("\n"));
}

#[test]
fn the_admin_port_is_found_in_a_file_that_is_otherwise_broken() {
    let fixture = Fixture::new();
    let found = |text: &str| admin(&fixture.write(text));
    std::fs::write(fixture.folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let address = "127.0.0.1:9901".parse().unwrap();
    let token = Token::chosen("0123456789abcdef");
    let listen = "[listen]\nadmin = \"localhost:9901\"\n";
    assert_eq!(
        found(&format!("{listen}admin_token = {{ file = \"token\" }}\n[nonsense]\n")),
        Ok(Some((address, token)))
    );
    assert_eq!(found(&format!("{listen}admin_token = {{ file = \"absent\" }}\n")), Ok(Some((address, None))));
    assert_eq!(found(&format!("{listen}[[route]]\npath = \"unfinished\n")), Ok(Some((address, None))));
    assert_eq!(found(SMALLEST), Ok(None));
    assert!(found("[listen]\nadmin = \n").unwrap_err().to_string().contains("routes.toml:2:"));
    assert!(admin(&fixture.folder.path().join("absent.toml")).unwrap_err().to_string().contains("-c FILE"));
}
