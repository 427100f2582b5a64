//! Saving the table: every way to save it, every way to save it wrongly, and not one request lost.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;

use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::process::{open_files, resident};
use crate::support::upstream::{Service, service, upstream};
use crate::support::{eventually_within, gateway};

/// Two services behind one route: who answers tells which table served.
async fn two_sides() -> (Service, Service, Gateway) {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway().toml(table(&one, &other, "legacy")).start().await;
    (one, other, gateway)
}

fn table(one: &Service, other: &Service, serve: &str) -> String {
    format!(
        "{}{}\n[[route]]\nname = \"page\"\npath = \"/{{*rest}}\"\nlegacy = \"one\"\nnew = \"other\"\nserve = \"{serve}\"\n",
        upstream("one", &[one.url()], ""),
        upstream("other", &[other.url()], ""),
    )
}

async fn serves(gateway: &Gateway, side: &str) {
    eventually_within(Duration::from_secs(3), &format!("{side} serves\n{}", gateway.log()), || async {
        (gateway.ask("/").await.1 == side).then_some(())
    })
    .await;
}

fn flipped(text: &str) -> String {
    if text.contains("serve = \"legacy\"") {
        text.replace("serve = \"legacy\"", "serve = \"new\"")
    } else {
        text.replace("serve = \"new\"", "serve = \"legacy\"")
    }
}

fn shell(script: &str, file: &Path) {
    let status = Command::new("sh").arg("-c").arg(script).arg("sh").arg(file).status().expect("sh runs");
    assert!(status.success(), "{script}");
}

#[tokio::test]
async fn every_way_of_saving_the_file_is_seen_within_a_second() {
    let (_one, _other, gateway) = two_sides().await;
    let file = gateway.table().to_owned();
    let to = |side: &'static str| (side, if side == "new" { ("legacy", "new") } else { ("new", "legacy") });
    let styles: [(&str, &str); 9] = [
        (
            "written in place",
            "sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\" > \"$1.x\" && cat \"$1.x\" > \"$1\" && rm \"$1.x\"",
        ),
        ("sed -i", "sed -i \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\""),
        (
            "mv over it",
            "sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\" > \"$1.new\" && mv \"$1.new\" \"$1\"",
        ),
        (
            "cp over it",
            "sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\" > \"$1.new\" && cp \"$1.new\" \"$1\" && rm \"$1.new\"",
        ),
        (
            "tee",
            "T=$(sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\"); printf '%s\\n' \"$T\" | tee \"$1\" > /dev/null",
        ),
        (
            "an editor with a backup file",
            "mv \"$1\" \"$1~\" && sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1~\" > \"$1\" && rm \"$1~\"",
        ),
        ("vim", "vim -u NONE -es -c \"%s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" -c wq \"$1\""),
        (
            "vim with a backup by renaming",
            "vim -u NONE -es -c 'set backup writebackup backupcopy=no' -c \"%s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" -c wq \"$1\"",
        ),
        (
            "removed and written anew",
            "T=$(sed \"s/serve = \\\"$FROM\\\"/serve = \\\"$TO\\\"/\" \"$1\"); rm \"$1\"; printf '%s\\n' \"$T\" > \"$1\"",
        ),
    ];
    let mut side = "legacy";
    for round in 0..3 {
        for (style, script) in styles {
            side = if side == "legacy" { "new" } else { "legacy" };
            let (_, (from, into)) = to(side);
            let saved = Instant::now();
            shell(&format!("FROM={from}; TO={into}; {script}"), &file);
            let done = saved.elapsed();
            serves(&gateway, side).await;
            let taken = saved.elapsed() - done;
            assert!(taken < Duration::from_secs(1), "{style}, round {round}: {taken:?} after the save");
        }
    }
}

#[tokio::test]
async fn a_kubernetes_volume_is_followed_through_its_swaps() {
    let one = service(Router::new().fallback(get(|| async { "legacy" }))).await;
    let other = service(Router::new().fallback(get(|| async { "new" }))).await;
    let gateway = gateway().toml(table(&one, &other, "legacy")).start().await;
    // The volume's own layout: file → ..data → ..<date>.
    let directory = gateway.table().parent().expect("a directory").to_owned();
    let text = gateway.read_table();
    let lay = |version: u32, text: &str| {
        let name = format!("..version_{version}");
        std::fs::create_dir(directory.join(&name)).expect("a version");
        std::fs::write(directory.join(&name).join("routes.toml"), text).expect("routes.toml");
        std::os::unix::fs::symlink(&name, directory.join("..data_tmp")).expect("a link");
        std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("the swap");
        if version > 1 {
            std::fs::remove_dir_all(directory.join(format!("..version_{}", version - 1))).expect("the old version");
        }
    };
    let mut current = text;
    lay(1, &current);
    std::fs::remove_file(gateway.table()).expect("the plain file");
    std::os::unix::fs::symlink("..data/routes.toml", gateway.table()).expect("the file's link");
    for version in 2..20 {
        current = flipped(&current);
        lay(version, &current);
        let side = if version % 2 == 0 { "new" } else { "legacy" };
        let swapped = Instant::now();
        serves(&gateway, side).await;
        assert!(swapped.elapsed() < Duration::from_secs(1), "swap {version}: {:?}", swapped.elapsed());
    }
}

#[tokio::test]
async fn a_file_written_byte_by_byte_never_serves_half() {
    let (_one, _other, gateway) = two_sides().await;
    let generation = gateway.generation().await;
    let next = flipped(&gateway.read_table());
    let file = gateway.table().to_owned();
    let writer = tokio::spawn(async move {
        use std::io::Write;
        let mut out = std::fs::File::create(&file).expect("truncated");
        for byte in next.bytes() {
            out.write_all(&[byte]).expect("written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    while !writer.is_finished() {
        assert_eq!(
            gateway.ask("/").await,
            (200, if gateway.generation().await == generation { "legacy" } else { "new" }.to_owned())
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writer.await.expect("written");
    serves(&gateway, "new").await;
    assert_eq!(gateway.generation().await, generation + 1, "a part of the file served in between");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_what_is_wrong_with_it() {
    let (_one, _other, gateway) = two_sides().await;
    let (good, generation) = (gateway.read_table(), gateway.generation().await);
    let bad = [
        ("[[route]\n", "routes.toml:"),
        ("colour = \"red\"\n", "colour"),
        ("[[route]]\npath = \"/x\"\nlegacy = \"phpp\"\n", "phpp"),
        ("[[route]]\nname = \"page\"\npath = \"/y\"\nlegacy = \"one\"\n", "page"),
        ("[[route]]\npath = \"/{*other}\"\nlegacy = \"one\"\n", "/{*other}"),
        ("[[route]]\npath = \"/x\"\nlegacy = \"one\"\ntimeout = \"30\"\n", "30"),
    ];
    for (n, (broken, named)) in (1u32..).zip(bad) {
        gateway.write_table(&format!("{good}\n{broken}"));
        gateway.until_metric("strangler_config_reloads_total", &[("result", "rejected")], f64::from(n)).await;
        assert_eq!(gateway.ask("/").await, (200, "legacy".to_owned()));
        assert_eq!(gateway.generation().await, generation);
        assert!(gateway.log().contains(named), "{named}\n{}", gateway.log());
        let shown = gateway.admin_text("/api/routes").await.1;
        assert!(shown.contains(named.trim_start_matches("routes.toml:")), "{named} is not at /api/routes: {shown}");
    }
    gateway.write_table(&flipped(&good));
    serves(&gateway, "new").await;
    assert!(!gateway.admin_text("/api/routes").await.1.contains("phpp"), "an old fault is still shown");
}

#[tokio::test]
async fn a_file_that_is_gone_or_no_file_leaves_the_table_serving() {
    let (_one, _other, gateway) = two_sides().await;
    let (file, good) = (gateway.table().to_owned(), gateway.read_table());
    let generation = gateway.generation().await;
    let pause = || tokio::time::sleep(Duration::from_millis(400));
    let still = async |what: &str| {
        pause().await;
        assert_eq!(gateway.ask("/").await, (200, "legacy".to_owned()), "{what}");
        assert_eq!(gateway.generation().await, generation, "{what}");
    };

    // Written elsewhere and moved over, or it would be a good file for a moment.
    let unreadable = file.with_extension("unreadable");
    std::fs::write(&unreadable, flipped(&good)).expect("written");
    shell("chmod 000 \"$1\"", &unreadable);
    std::fs::rename(&unreadable, &file).expect("moved");
    still("not readable").await;
    std::fs::remove_file(&file).expect("removed");
    still("deleted").await;
    std::fs::create_dir(&file).expect("a directory");
    still("a directory").await;
    std::fs::remove_dir(&file).expect("removed");
    shell("mkfifo \"$1\"", &file);
    still("a FIFO").await;
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, "").expect("written");
    still("empty").await;
    std::fs::write(&file, [0xff, 0xfe, 0x00]).expect("written");
    still("no text").await;
    let large = std::fs::File::create(&file).expect("created");
    large.set_len(1 << 30).expect("a sparse file of 1 GiB");
    let before = resident(gateway.pid());
    still("a file of 1 GiB").await;
    assert!(resident(gateway.pid()) < before + (64 << 20), "the whole file was read");
    let directory = file.parent().expect("a directory").to_owned();
    let away = directory.with_extension("away");
    std::fs::rename(&directory, &away).expect("renamed");
    still("the directory renamed").await;
    std::fs::create_dir(&directory).expect("a new directory");
    std::fs::write(&file, flipped(&good)).expect("written");
    eventually_within(Duration::from_secs(5), "the file in the new directory serves", || async {
        (gateway.ask("/").await.1 == "new").then_some(())
    })
    .await;
}

#[tokio::test]
async fn saving_the_same_text_again_makes_no_new_generation() {
    let (_one, _other, gateway) = two_sides().await;
    let generation = gateway.generation().await;
    let text = gateway.read_table();
    for _ in 0..5 {
        gateway.write_table(&text);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(gateway.generation().await, generation);
    gateway.edit(flipped);
    assert_eq!(gateway.until_newer(generation).await, generation + 1);
}

#[tokio::test]
async fn what_cannot_change_while_running_is_named_and_the_rest_applied() {
    let (_one, _other, gateway) = two_sides().await;
    gateway.edit(|text| flipped(&text.replace("workers = 2", "workers = 3")));
    serves(&gateway, "new").await;
    gateway.until_logged("workers").await;
}

/// Clients in a loop, each on a connection of its own that it keeps.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: &Gateway, clients: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients).map(|_| {
            let (stop, served, address) = (Arc::clone(&stop), Arc::clone(&served), gateway.address());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                let mut connection = Connection::open(address).await;
                while !stop.load(Ordering::Relaxed) {
                    connection.send("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
                    match connection.answer("GET").await {
                        Some(answer)
                            if answer.status == 200
                                && answer.complete
                                && matches!(&answer.body[..], b"legacy" | b"new") =>
                        {
                            served.fetch_add(1, Ordering::Relaxed);
                            if answer.header("connection") == Some("close") {
                                connection = Connection::open(address).await;
                            }
                            // Some hundred requests a second from each leave the machine room for the swaps.
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        other => {
                            failed.push(format!("{other:?}"));
                            connection = Connection::open(address).await;
                        }
                    }
                }
                failed
            })
        });
        let clients = clients.collect();
        Self { stop, served, clients }
    }

    async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for client in self.clients {
            failed.extend(client.await.expect("a client ended badly"));
        }
        (self.served.load(Ordering::Relaxed), failed)
    }
}

#[tokio::test]
async fn a_thousand_swaps_under_load_fail_no_request() {
    let (_one, _other, gateway) = two_sides().await;
    let load = Load::start(&gateway, 2);
    let first = gateway.generation().await;
    let texts = [gateway.read_table(), flipped(&gateway.read_table())];
    // Written beside the watched folder and moved over: one event, so that each swap follows the last at once.
    let next = gateway.dir().join("next.toml");
    // Once warm: what the table itself takes is not growth.
    let (mut files, mut memory) = (0, 0);
    let mut generation = first;
    for swap in 1..=1000 {
        std::fs::write(&next, &texts[swap % 2]).expect("written");
        std::fs::rename(&next, gateway.table()).expect("moved");
        let saved = Instant::now();
        let before = generation;
        while generation == before {
            tokio::time::sleep(Duration::from_millis(8)).await;
            generation = gateway.generation().await;
            assert!(saved.elapsed() < Duration::from_secs(1), "swap {swap} took longer than a second");
        }
        if swap == 200 {
            (files, memory) = (open_files(gateway.pid()), resident(gateway.pid()));
        }
    }
    assert_eq!(generation, first + 1000);
    let (files_after, memory_after) = (open_files(gateway.pid()), resident(gateway.pid()));
    let (served, failed) = load.end().await;
    assert!(failed.is_empty(), "{} of {served} failed: {:?}", failed.len(), &failed[..failed.len().min(3)]);
    assert!(served > 5000, "only {served} requests were served in the meantime");
    assert!(files_after <= files + 8, "descriptors grow: {files} → {files_after}");
    assert!(memory_after < memory + (8 << 20), "memory grows with swaps: {memory} → {memory_after}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("strangler_requests_total", &[("route", "page"), ("status", "5xx")]), 0.0);
}

#[tokio::test]
async fn edits_faster_than_can_be_applied_end_with_the_last_one() {
    let (_one, _other, gateway) = two_sides().await;
    let load = Load::start(&gateway, 2);
    let text = gateway.read_table();
    let until = Instant::now() + Duration::from_secs(3);
    let mut edits = 0;
    while Instant::now() < until {
        gateway.write_table(&format!("{text}# edit {edits}\n"));
        edits += 1;
        tokio::task::yield_now().await;
    }
    gateway.write_table(&flipped(&text));
    let stopped = Instant::now();
    serves(&gateway, "new").await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?} after the last of {edits} edits", stopped.elapsed());
    let (served, failed) = load.end().await;
    assert!(failed.is_empty() && served > 100, "{failed:?} {served}");
}

#[tokio::test]
async fn an_answer_begun_under_an_old_table_ends_under_it() {
    let php = crate::support::php().ini("output_buffering", "0").start().await;
    let gateway = gateway().php(&php).start().await;
    let mut slow = Connection::open(gateway.address()).await;
    slow.send("GET /stream.php?count=4&ms=500 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    slow.until("event 1").await;
    let generation = gateway.generation().await;
    gateway.write_routes("[[route]]\nname = \"gone\"\npath = \"/only-this\"\nserve = \"new\"\nnew = \"health\"\n");
    gateway.until_newer(generation).await;
    assert_eq!(gateway.get("/stream.php").await.status(), 404);
    let answer = slow.answer("GET").await.expect("an answer");
    assert!(answer.complete && answer.text().contains("event 4"), "{}", answer.text());
    let record = gateway.until_record_of(answer.header("x-request-id").expect("an id")).await;
    assert_eq!(record["generation"], generation);
}
