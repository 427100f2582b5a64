//! PHP-FPM that dies, restarts, hides, is full or talks nonsense: what clients see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Connection, exchange, get};
use crate::support::fcgi::{END, STDERR, STDOUT, record};
use crate::support::gateway::Gateway;
use crate::support::php::Php;
use crate::support::process::{open_files, resident};
use crate::support::{eventually, eventually_within, fcgi, gateway, noise, php};

async fn in_front_of(php: &Php, extra: &str) -> Gateway {
    let upstream = php.upstream(&format!("php = \"files\"\n{extra}"));
    gateway().toml(upstream).toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"").start().await
}

async fn post(gateway: &Gateway, target: &str) -> crate::support::client::Answer {
    let request = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    exchange(gateway.address(), request).await.expect("an answer")
}

async fn served_again(gateway: &Gateway) {
    eventually_within(Duration::from_secs(2), "served again", || async {
        (get(gateway.address(), "/answer.php").await.status == 200).then_some(())
    })
    .await;
}

/// How often a script ran.
fn runs(mark: &std::path::Path) -> usize {
    std::fs::read_to_string(mark).unwrap_or_default().matches("started").count()
}

// --- F1: a process killed ---

#[tokio::test]
async fn a_process_killed_before_its_answer_is_a_502_at_once_and_a_post_is_never_repeated() {
    let php = php().start().await;
    let gateway = in_front_of(&php, "").await;
    let mark = php.dir().join("mark");
    let started = Instant::now();
    let answer = post(&gateway, &format!("/die.php?mark={}", mark.display())).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(runs(&mark), 1, "a POST ran more than once");
    assert_eq!(answer.json()["code"], 50202);
    // The pool is whole again as soon as FPM has a new process.
    eventually("PHP answers again", || async {
        (get(gateway.address(), "/answer.php").await.status == 200).then_some(())
    })
    .await;
    gateway.until_gauge("strangler_upstream_connections", &[("upstream", "php"), ("state", "in_use")], 0.0).await;
}

/// Asks for a script that kills its process, behind one worker, so that a second request takes what the first kept.
async fn a_killed_get_is_asked_once(keepalive: &str) {
    let php = php().start().await;
    let upstream = php.upstream(&format!("php = \"files\"\n{keepalive}"));
    let route = "[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"";
    let gateway = gateway().workers(1).toml(upstream).toml(route).start().await;
    assert_eq!(get(gateway.address(), "/answer.php").await.status, 200);
    let mark = php.dir().join("mark");
    let answer = get(gateway.address(), &format!("/die.php?mark={}", mark.display())).await;
    assert_eq!((answer.status, answer.json_code()), (502, 50202), "{}", answer.text());
    assert_eq!(runs(&mark), 1, "a GET ran more than once");
}

#[tokio::test]
async fn a_get_that_php_may_have_begun_is_not_repeated() {
    a_killed_get_is_asked_once("").await;
}

#[tokio::test]
async fn a_get_that_php_may_have_begun_is_not_repeated_on_a_kept_connection_either() {
    a_killed_get_is_asked_once("keepalive = 2").await;
}

#[tokio::test]
async fn a_process_killed_in_the_middle_of_its_answer_never_looks_like_an_end() {
    let php = php().ini("output_buffering", "0").start().await;
    let gateway = in_front_of(&php, "").await;
    for target in ["/die.php?after=50000", "/die.php?after=50000&length"] {
        let answer = get(gateway.address(), target).await;
        assert_eq!(answer.status, 200, "{target}");
        assert!(!answer.complete, "{target}: a truncated answer was ended as if it were whole");
        let id = answer.header("x-request-id").expect("an id").to_owned();
        assert_eq!(gateway.until_record_of(&id).await["ended"], "truncated", "{target}");
    }
}

#[tokio::test]
async fn while_processes_are_killed_only_their_own_requests_fail() {
    let php = php().children(4).start().await;
    let gateway = in_front_of(&php, "").await;
    let address = gateway.address();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            tokio::spawn(async move {
                let mut failed = 0;
                for n in 0..60 {
                    let body = format!("{client}-{n}");
                    let answer = get(address, &format!("/slow.php?ms=20&body={body}")).await;
                    match answer.status {
                        200 => assert!(answer.complete && answer.text().starts_with("slept"), "{}", answer.text()),
                        502 => failed += 1,
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
                failed
            })
        })
        .collect();
    let mut killed = 0;
    while clients.iter().any(|client| !client.is_finished()) && killed < 8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        if let Some(worker) = php.workers().first() {
            php.kill_worker(*worker);
            killed += 1;
        }
    }
    let mut failed = 0;
    for client in clients {
        failed += client.await.expect("no answer was wrong");
    }
    assert!(failed <= killed, "{failed} requests failed by {killed} kills");
}

// --- F2, F3: restart and reload ---

#[tokio::test]
async fn a_restart_of_php_fpm_is_waited_for() {
    let mut php = php().children(4).start().await;
    let gateway = in_front_of(&php, "connect = \"5s\"").await;
    let address = gateway.address();
    php.stop().await;
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(get_owned(address, "/answer.php?body=back"))).collect();
    let posted = tokio::spawn(async move {
        exchange(address, "POST /answer.php?body=back HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
            .await
            .expect("an answer")
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    php.launch().await;
    let launched = Instant::now();
    for client in waiting {
        let answer = client.await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "back"));
    }
    assert_eq!(posted.await.expect("an answer").status, 200, "a POST that was not begun can wait as well");
    assert!(launched.elapsed() < Duration::from_secs(1), "{:?} after the restart", launched.elapsed());
}

async fn get_owned(address: std::net::SocketAddr, target: &'static str) -> crate::support::client::Answer {
    get(address, target).await
}

/// Reloads the pool three times under load; gives how many requests were served and what became of the others.
async fn reloaded_under_load(process_control_timeout: &str, clients: usize) -> (usize, Vec<u64>) {
    let php = php().children(4).global(&format!("process_control_timeout = {process_control_timeout}")).start().await;
    let gateway = in_front_of(&php, "connect = \"5s\"").await;
    let address = gateway.address();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let (mut served, mut failed) = (0, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    let answer = get(address, "/slow.php?ms=30").await;
                    assert!(answer.complete, "an answer was cut: {}", answer.text());
                    match answer.status {
                        200 => served += 1,
                        _ => failed.push(answer.json_code()),
                    }
                }
                (served, failed)
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        php.reload().await;
    }
    done.store(true, Ordering::Relaxed);
    let (mut served, mut failed) = (0, Vec::new());
    for client in clients {
        let (some, others) = client.await.expect("no answer was wrong");
        served += some;
        failed.extend(others);
    }
    gateway.until_gauge("strangler_upstream_connections", &[("upstream", "php"), ("state", "in_use")], 0.0).await;
    (served, failed)
}

#[tokio::test]
async fn a_graceful_reload_of_php_fpm_fails_no_request() {
    let (served, failed) = reloaded_under_load("10s", 3).await;
    assert!(failed.is_empty() && served > 15, "{served} served, failed: {failed:?}");
}

#[tokio::test]
async fn a_reload_that_waits_for_nobody_fails_only_what_php_was_at() {
    let (served, failed) = reloaded_under_load("0", 3).await;
    // Each of three clients has one request in PHP, at each of three reloads; asked again at once, a process that is
    // about to be ended may take the next one too.
    assert!(failed.len() <= 18 && served > 15, "{served} served, failed: {failed:?}");
    assert!(failed.iter().all(|&code| code == 50202), "{failed:?}");
}

// --- F4: the socket's file ---

#[tokio::test]
async fn without_its_socket_requests_are_refused_fast_and_served_again_when_it_is_back() {
    let mut php = php().start().await;
    let gateway = in_front_of(&php, "connect = \"500ms\"").await;
    assert_eq!(gateway.ask("/answer.php").await.0, 200);
    php.delete_socket();
    eventually("the upstream counts as down", || async {
        let answer = get(gateway.address(), "/answer.php").await;
        assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
        (answer.status == 503).then_some(())
    })
    .await;
    let logged = gateway.log().lines().count();
    let started = Instant::now();
    for _ in 0..100 {
        let answer = get(gateway.address(), "/answer.php").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    let each = started.elapsed() / 100;
    assert!(each < Duration::from_millis(20), "{each:?} for a refusal");
    let lines = gateway.log().lines().count() - logged;
    assert!(lines < 20, "{lines} lines for 100 refusals");
    php.restart().await;
    served_again(&gateway).await;
}

#[tokio::test]
async fn a_pool_that_refuses_connections_is_a_502_then_a_503_until_it_is_back() {
    let mut php = php().start().await;
    let gateway = in_front_of(&php, "connect = \"300ms\"").await;
    php.crash().await;
    let first = get(gateway.address(), "/answer.php").await;
    assert!(matches!(first.status, 502 | 503), "{}", first.status);
    assert!(matches!(first.json()["code"].as_u64(), Some(50201 | 50303)), "{}", first.text());
    php.launch().await;
    served_again(&gateway).await;
}

// --- F5, F15: full ---

#[tokio::test]
async fn a_full_pool_queues_in_order_and_refuses_what_does_not_fit() {
    let php = php().children(2).start().await;
    let upstream = php.upstream_with_connections(2, "php = \"files\"\nqueue = \"1s\"\nqueue_length = 20");
    let gateway = gateway()
        .toml(upstream)
        .toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"")
        .start()
        .await;
    let address = gateway.address();
    let clients: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(async move {
                let started = Instant::now();
                let answer = get(address, "/slow.php?ms=400").await;
                (answer.status, answer.json_code(), answer.header("retry-after").is_some(), started.elapsed())
            })
        })
        .collect();
    let mut counts = [0; 3];
    for client in clients {
        let (status, code, retry, taken) = client.await.expect("an answer");
        match (status, code) {
            (200, _) => counts[0] += 1,
            (503, 50301) => {
                assert!(retry && taken < Duration::from_millis(500), "a full queue refuses at once: {taken:?}");
                counts[1] += 1;
            }
            (503, 50302) => {
                assert!(retry && taken < Duration::from_millis(1500), "a wait ends with its deadline: {taken:?}");
                counts[2] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(counts[0] >= 4 && counts[1] >= 60 && counts[2] >= 5, "served, refused, waited in vain: {counts:?}");
    gateway.until_gauge("strangler_upstream_queue", &[("upstream", "php")], 0.0).await;
    assert_eq!(get(address, "/answer.php").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_costs_php_nothing() {
    let php = php().children(1).start().await;
    let mark = php.dir().join("mark");
    let upstream = php.upstream_with_connections(1, "php = \"files\"\nqueue = \"10s\"\nqueue_length = 50");
    let gateway = gateway()
        .toml(upstream)
        .toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"")
        .start()
        .await;
    let address = gateway.address();
    let busy = tokio::spawn(async move { get(address, "/slow.php?ms=800").await.status });
    eventually("PHP is busy", || async {
        (gateway.metrics().await.sum("strangler_upstream_connections", &[("upstream", "php"), ("state", "in_use")])
            > 0.0)
            .then_some(())
    })
    .await;
    for _ in 0..20 {
        let mut client = Connection::open(address).await;
        client.send(format!("GET /slow.php?ms=1&mark={} HTTP/1.1\r\nHost: a\r\n\r\n", mark.display())).await;
        // Held until it is seen in the queue, then gone.
        gateway.until_metric("strangler_upstream_queue", &[("upstream", "php")], 1.0).await;
        client.reset();
        gateway.until_gauge("strangler_upstream_queue", &[("upstream", "php")], 0.0).await;
    }
    assert_eq!(busy.await.expect("an answer"), 200);
    assert_eq!(get(address, "/answer.php").await.status, 200);
    assert_eq!(runs(&mark), 0, "PHP ran for clients that had left the queue");
}

#[tokio::test]
async fn more_kept_connections_than_places_are_refused_by_check() {
    let php = php().children(2).start().await;
    let dir = crate::support::temp_dir("check");
    let text = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\n{}\n[[route]]\npath = \"/{{*rest}}\"\nlegacy = \"php\"\n",
        php.upstream_with_connections(2, "keepalive = 5")
    );
    std::fs::write(dir.path().join("routes.toml"), text).expect("routes.toml");
    let (code, out, err) = gateway::run(&["check", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 2, "{out}{err}");
    assert!(format!("{out}{err}").contains("keepalive"), "{out}{err}");
}

// --- F10, F11: clients that leave ---

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_upload_never_reaches_php() {
    let php = php().start().await;
    let mark = php.dir().join("mark");
    let gateway = in_front_of(&php, "").await;
    for finish in [true, false] {
        let mut client = Connection::open(gateway.address()).await;
        let head = format!(
            "POST /slow.php?ms=1&mark={} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
            mark.display()
        );
        client.send(head).await;
        client.send(noise(50_000, 6)).await;
        if finish { client.finish().await } else { client.reset() }
    }
    gateway.until_records(2).await;
    assert_eq!(get(gateway.address(), "/answer.php").await.status, 200);
    assert_eq!(runs(&mark), 0);
}

#[tokio::test]
async fn clients_that_leave_while_php_works_do_not_overfill_the_pool() {
    let php = php().children(3).start().await;
    let upstream = php.upstream_with_connections(2, "php = \"files\"\nqueue = \"200ms\"\nqueue_length = 100");
    let gateway = gateway()
        .toml(upstream)
        .toml("[[route]]\nname = \"rest\"\npath = \"/{*rest}\"\nlegacy = \"php\"")
        .start()
        .await;
    let mark = php.dir().join("mark");
    for _ in 0..30 {
        let mut client = Connection::open(gateway.address()).await;
        client.send(format!("GET /slow.php?ms=700&mark={} HTTP/1.1\r\nHost: a\r\n\r\n", mark.display())).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.reset();
    }
    // What runs is at most what the bound allows, although all clients have gone.
    let text = std::fs::read_to_string(&mark).unwrap_or_default();
    let running = text.matches("started").count() - text.matches("done").count();
    assert!(running <= 2, "{running} scripts run at once, the bound is 2");
    eventually("the places are free again", || async {
        (get(gateway.address(), "/answer.php").await.status == 200).then_some(())
    })
    .await;
    gateway.until_gauge("strangler_upstream_connections", &[("upstream", "php"), ("state", "in_use")], 0.0).await;
}

// --- F12: a peer that breaks the protocol ---

/// Asks a scripted server that answers with these bytes, then closes; gives status and whether it was whole.
async fn answered_with(bytes: Vec<u8>) -> (u16, bool, Vec<u8>, usize) {
    let bytes = Arc::new(bytes);
    let server = fcgi(move |mut call| {
        let bytes = Arc::clone(&bytes);
        async move {
            if call.request().await.is_some() {
                call.send(&bytes[..]).await;
            }
        }
    });
    let gateway = gateway()
        .workers(1)
        .toml(server.table("keepalive = 1\nconnections = 1\nfirst_byte = \"2s\"\nbetween_bytes = \"2s\""))
        .start()
        .await;
    let answer = get(gateway.address(), "/").await;
    let next = get(gateway.address(), "/").await;
    let alike = next.status == answer.status || next.status == 502 || !next.complete;
    assert!(alike, "the next request is answered by leftovers of the first: {next:?}");
    gateway.until_gauge("strangler_upstream_connections", &[("upstream", "php"), ("state", "in_use")], 0.0).await;
    (answer.status, answer.complete, answer.body, server.connections())
}

fn stdout(text: &str) -> Vec<u8> {
    record(STDOUT, 1, text.as_bytes(), 0)
}

fn end() -> Vec<u8> {
    record(END, 1, &[0; 8], 0)
}

const HEAD: &str = "Content-Type: text/plain\r\n\r\n";

#[tokio::test]
async fn answers_that_break_fastcgi_are_a_502_and_never_reused() {
    let mut other_version = stdout(&format!("{HEAD}x"));
    other_version[0] = 9;
    let broken: [(&str, Vec<u8>); 9] = [
        ("nothing at all", Vec::new()),
        ("END_REQUEST before any header", end()),
        ("the end of the stream inside the head", stdout("Content-Type: te")),
        ("half a record", stdout(&format!("{HEAD}hello"))[..12].to_vec()),
        ("another version", [other_version, end()].concat()),
        ("an unknown type", [record(77, 1, b"?", 0), end()].concat()),
        ("another request's id", [record(STDOUT, 2, HEAD.as_bytes(), 0), end()].concat()),
        (
            "a head without end",
            [
                stdout(&"X-A: b\r\n".repeat(8000)),
                stdout(&"X-A: b\r\n".repeat(8000)),
                stdout(&"X-A: b\r\n".repeat(8000)),
            ]
            .concat(),
        ),
        ("plain HTTP", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
    ];
    for (what, bytes) in broken {
        let (status, _, body, connections) = answered_with(bytes).await;
        assert_eq!(status, 502, "{what}: {}", String::from_utf8_lossy(&body));
        assert_eq!(connections, 2, "{what}: the connection was used again");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_head_is_never_ended_cleanly() {
    let begun = stdout(&format!("{HEAD}hello"));
    for (what, bytes) in [
        ("no END_REQUEST", begun.clone()),
        ("half a record", [begun.clone(), vec![1, STDOUT, 0, 1, 0, 50, 0, 0, b'x']].concat()),
        ("an unknown type", [begun.clone(), record(77, 1, b"?", 0), end()].concat()),
        ("fewer bytes than declared", [stdout("Content-Length: 100\r\n\r\nhello"), end()].concat()),
    ] {
        let (status, complete, body, _) = answered_with(bytes).await;
        // As long as nothing was passed on, a break after the head may still become a 502.
        assert!(
            matches!((status, complete), (200, false) | (502, true)),
            "{what}: {status} {complete} {}",
            String::from_utf8_lossy(&body)
        );
    }
}

#[tokio::test]
async fn answers_that_php_fpm_never_gives_but_the_protocol_allows_are_understood() {
    let whole = "Status: 201 Created\r\nX-A: 1\r\n\r\nhello".to_owned();
    let bytewise: Vec<u8> = whole.bytes().flat_map(|byte| record(STDOUT, 1, &[byte], 7)).collect();
    for (what, bytes) in [
        ("a byte in each record, padded", [bytewise, end()].concat()),
        ("an empty STDOUT before the end", [stdout(&whole), record(STDOUT, 1, b"", 0), end()].concat()),
        (
            "empty records in between",
            [record(STDERR, 1, b"", 0), stdout(&whole[..10]), record(STDERR, 1, b"", 0), stdout(&whole[10..]), end()]
                .concat(),
        ),
        (
            "stderr before, between and after",
            [
                record(STDERR, 1, b"one", 3),
                stdout(&whole[..20]),
                record(STDERR, 1, b"two", 0),
                stdout(&whole[20..]),
                record(STDERR, 1, b"three", 0),
                end(),
            ]
            .concat(),
        ),
        ("lines that end with LF", [stdout("Status: 201\nX-A: 1\n\nhello"), end()].concat()),
        ("bytes after the end", [stdout(&whole), end(), stdout("Set-Cookie: stolen=1\r\n\r\n")].concat()),
        (
            "more bytes than declared",
            [stdout("Status: 201\r\nContent-Length: 5\r\n\r\nhello and more"), end()].concat(),
        ),
    ] {
        let (status, _, body, connections) = answered_with(bytes).await;
        assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (201, "hello"), "{what}");
        assert_eq!(connections, 2, "{what}: this server closes after each answer");
    }
}

#[tokio::test]
async fn a_flood_of_stderr_is_logged_in_part_and_costs_no_memory() {
    let server = fcgi(|mut call| async move {
        if call.request().await.is_some() {
            let flood = record(STDERR, 1, &[b'e'; 60_000], 0);
            for _ in 0..1500 {
                if !call.send(&flood).await {
                    return;
                }
            }
            call.reply(&format!("{HEAD}after the flood")).await;
        }
    });
    let gateway = gateway().toml(server.table("")).start().await;
    let before = resident(gateway.pid());
    let answer = get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "after the flood"));
    assert!(resident(gateway.pid()) < before + (16 << 20));
    assert!(gateway.log().len() < 128 << 10, "{} bytes of log", gateway.log().len());
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_after_its_deadlines() {
    let server = fcgi(|mut call| async move {
        let Some(request) = call.request().await else { return };
        if request.params.get("QUERY_STRING").is_some_and(|query| query == "begin") {
            call.stdout(format!("{HEAD}begun")).await;
        }
        call.closed().await;
    });
    let gateway = gateway().toml(server.table("first_byte = \"400ms\"\nbetween_bytes = \"400ms\"")).start().await;
    let started = Instant::now();
    let silent = get(gateway.address(), "/").await;
    assert_eq!((silent.status, silent.json_code()), (504, 50401));
    assert!((400..1200).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    let begun = get(gateway.address(), "/?begin").await;
    assert!(begun.status == 200 && !begun.complete, "{begun:?}");
}

// --- F13: heads that are wrong ---

#[tokio::test]
async fn heads_that_mean_nothing_good_are_a_502() {
    for head in [
        "Status: 999\r\n\r\n",
        "Status: abc\r\n\r\n",
        "Status: 99\r\n\r\n",
        "Status: 101 Switching Protocols\r\n\r\n",
        "Content-Length: abc\r\n\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "Content-Length: -1\r\n\r\n",
        " folded: x\r\n\r\n",
        ": no name\r\n\r\n",
        "X-Nul: a\0b\r\n\r\n",
        "X-Cr: a\rb\r\n\r\n",
    ] {
        let (status, _, body, _) = answered_with([stdout(head), end()].concat()).await;
        assert_eq!(status, 502, "{head:?}: {}", String::from_utf8_lossy(&body));
    }
}

// --- F14: large parameters ---

#[tokio::test]
async fn large_parameters_arrive_whole_or_are_refused_and_never_become_a_second_request() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let server = fcgi(move |mut call| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(request) = call.request().await {
                seen.fetch_add(1, Ordering::SeqCst);
                let length = request.params.get("HTTP_X_LONG").map_or(0, String::len);
                call.reply(&format!("{HEAD}{}", length + request.stdin.len())).await;
            }
        }
    });
    let gateway = gateway().server("[server.limits]\nheader_bytes = \"300KiB\"").toml(server.table("")).start().await;
    for (length, status) in
        [(1000, 200), (32_000, 200), (60 << 10, 200), (65_000, 200), (65_535, 431), (70 << 10, 431), (131_072, 431)]
    {
        let before = requests.load(Ordering::SeqCst);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "v".repeat(length));
        let answer = exchange(gateway.address(), request).await.expect("an answer");
        assert_eq!(answer.status, status, "{length}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.text(), length.to_string());
        }
        let seen = requests.load(Ordering::SeqCst) - before;
        assert_eq!(seen, usize::from(status == 200), "{length}");
    }
    // Many that fit each, too much for one record together, and a body behind them.
    let many: String = (0..60).map(|n| format!("X-Many-{n}: {}\r\n", "v".repeat(4000))).collect();
    let answer = exchange(
        gateway.address(),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n{many}X-Long: abc\r\n\r\nbody"),
    )
    .await
    .expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "7"));
}

#[tokio::test]
async fn faults_leave_no_descriptors_behind() {
    let server = fcgi(|mut call: fcgi::Call| async move {
        let Some(request) = call.request().await else { return };
        match request.params.get("QUERY_STRING").map(String::as_str) {
            Some("truncated") => drop(call.stdout(format!("{HEAD}half")).await),
            Some("broken") => drop(call.send(b"nonsense nonsense").await),
            _ => call.reply(&format!("{HEAD}fine")).await,
        }
    });
    let gateway = gateway().toml(server.table("")).start().await;
    for _ in 0..5 {
        get(gateway.address(), "/").await;
    }
    let before = open_files(gateway.pid());
    for n in 0..60 {
        let kind = ["truncated", "broken", "fine"][n % 3];
        get(gateway.address(), &format!("/?{kind}")).await;
    }
    eventually("descriptors are given back", || async { (open_files(gateway.pid()) <= before + 4).then_some(()) })
        .await;
}
