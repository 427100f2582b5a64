//! The commands: what they print, and the exit codes scripts rely on.

use std::path::Path;

use crate::support::gateway::{binary, run};
use crate::support::{repository, temp_dir};

const GOOD: &str = "[listen]\nhttp = \"127.0.0.1:0\"\n\n[upstream.orders]\nhttp = \"http://127.0.0.1:7001\"\n\n\
    [upstream.fresh]\nhttp = \"http://127.0.0.1:7002\"\n\n[[route]]\nname = \"order\"\npath = \"/orders/{id}\"\n\
    methods = [\"GET\"]\nlegacy = \"orders\"\nnew = \"fresh\"\nserve = \"legacy\"\n";

fn write(dir: &Path, text: &str) {
    std::fs::write(dir.join("routes.toml"), text).expect("routes.toml");
}

#[test]
fn check_ends_with_0_for_a_good_file_and_sums_it_up() {
    let dir = temp_dir("cli");
    write(dir.path(), GOOD);
    let (code, out, err) = run(&["check", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.trim().lines().count(), 1, "{out}");
    assert!(out.contains("good; 1 route, 0"), "{out}");
    assert_eq!(run(&["check"], dir.path()).0, 0, "routes.toml of the directory is the default");
}

#[test]
fn check_ends_with_2_and_names_every_fault_at_once() {
    let dir = temp_dir("cli");
    let text =
        GOOD.replace("legacy = \"orders\"", "legacy = \"ordres\"").replace("methods = [\"GET\"]", "methds = [\"GET\"]");
    write(dir.path(), &format!("{text}timeout = \"30\"\n"));
    let (code, out, err) = run(&["check", "-c", "routes.toml"], dir.path());
    let said = format!("{out}{err}");
    assert_eq!(code, 2, "{said}");
    for part in
        ["routes.toml:13:", "methds", "methods", "routes.toml:14:", "ordres", "orders", "routes.toml:17:", "30s"]
    {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let (code, out, err) = run(&["run", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 2, "a gateway does not start on a faulty file: {out}{err}");
    assert_eq!(run(&["check", "-c", "none.toml"], dir.path()).0, 2);
}

#[test]
fn explain_tells_the_route_and_why() {
    let dir = temp_dir("cli");
    write(dir.path(), GOOD);
    let (code, out, err) = run(&["explain", "GET", "/orders/7", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 0, "{err}");
    for part in ["order", "/orders/{id}", "legacy", "orders"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (_, out, _) = run(&["explain", "POST", "http://a.test/orders/7", "-c", "routes.toml"], dir.path());
    assert!(out.contains("405"), "{out}");
    let (_, out, _) = run(&["explain", "GET", "/nothing", "-H", "Accept: text/html", "-c", "routes.toml"], dir.path());
    assert!(out.contains("404"), "{out}");
}

#[test]
fn explain_tells_what_the_upstream_would_be_sent() {
    let dir = temp_dir("cli");
    let root = dir.path().join("public");
    std::fs::create_dir(&root).expect("a root");
    for name in ["index.php", "style.css"] {
        std::fs::write(root.join(name), "").expect("a file");
    }
    let php = format!("[upstream.php]\nfastcgi = \"unix:/run/none.sock\"\nroot = \"{}\"\n", root.display());
    write(dir.path(), &format!("{GOOD}\n{php}\n[[route]]\npath = \"/{{*rest}}\"\nlegacy = \"php\"\n"));
    let index = format!("script {}", std::fs::canonicalize(root.join("index.php")).expect("it is there").display());
    for (url, part) in [
        ("/page", index.as_str()),
        ("/style.css", "is a file, which the gateway serves"),
        ("/other.php", "404: no file is served for this path: only the front controller runs"),
        ("http://A.test:81/orders/7?x=1", "GET /orders/7?x=1, Host: A.test:81"),
        ("/orders/7", "GET /orders/7, Host: 127.0.0.1:7001"),
    ] {
        let (code, out, err) = run(&["explain", "GET", url], dir.path());
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(part), "{part}: {out}");
    }
    let (_, out, _) = run(&["explain", "GET", "http://A.test:81/orders/7"], dir.path());
    assert!(out.contains("at a.test\n"), "{out}");
    assert_eq!(run(&["explain", "GET", "/orders/7", "-H", "Host: a b"], dir.path()).0, 2);
}

#[test]
fn the_file_may_be_named_before_and_behind_the_command() {
    let dir = temp_dir("cli");
    std::fs::write(dir.path().join("other.toml"), GOOD).expect("other.toml");
    for arguments in [&["-c", "other.toml", "check"][..], &["check", "--config", "other.toml"]] {
        assert_eq!(run(arguments, dir.path()).0, 0, "{arguments:?}");
    }
    let (code, _, err) = run(&["-c", "none.toml"], dir.path());
    assert!(code == 2 && err.contains("none.toml"), "without a command it runs: {err}");
    let (code, _, err) = run(&["--json", "check", "-c", "other.toml"], dir.path());
    assert!(code == 2 && err.contains("--json"), "{err}");
}

#[test]
fn a_taken_port_is_said_before_anything_is_started_and_without_colours() {
    let dir = temp_dir("cli");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let root = dir.path().join("public");
    std::fs::create_dir(&root).expect("a root");
    std::fs::write(root.join("index.php"), "").expect("a file");
    let (root, socket) = (root.display(), dir.path().join("fpm.sock"));
    // Fewer children than connections: a warning, which shows how the log looks.
    write(
        dir.path(),
        &format!(
            "[listen]\nhttp = \"127.0.0.1:{port}\"\n[upstream.php]\nfastcgi = \"unix:{}\"\nroot = \"{root}\"\nconnections = 4\n\
             spawn = {{ children = 1 }}\n[[route]]\npath = \"/{{*rest}}\"\nlegacy = \"php\"\n",
            socket.display()
        ),
    );
    let (code, out, err) = run(&["run"], dir.path());
    assert!(code == 1 && err.contains("cannot listen on"), "{out}{err}");
    assert!(!err.contains("php-fpm started"), "{err}");
    assert!(err.contains("WARN") && !err.contains('\u{1b}'), "{err}");
}

#[test]
fn flip_changes_one_word_and_refuses_what_check_would() {
    let dir = temp_dir("cli");
    write(dir.path(), GOOD);
    let (code, out, err) = run(&["flip", "order", "new", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 0, "{out}{err}");
    let flipped = std::fs::read_to_string(dir.path().join("routes.toml")).expect("routes.toml");
    assert_eq!(flipped, GOOD.replace("serve = \"legacy\"", "serve = \"new\""));
    let one_sided = GOOD.replace("new = \"fresh\"\n", "");
    write(dir.path(), &one_sided);
    let (code, out, err) = run(&["flip", "order", "new", "-c", "routes.toml"], dir.path());
    assert_eq!(code, 2, "there is no new side: {out}{err}");
    assert_eq!(err.matches("routes.toml:").count(), 1, "one fault, said once: {err}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("routes.toml")).expect("routes.toml"),
        one_sided,
        "a refusal changes nothing"
    );
}

#[test]
fn a_flip_that_cannot_be_written_says_why_and_ends_with_1() {
    let dir = temp_dir("cli");
    write(dir.path(), GOOD);
    // As on a full disk.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" flip order new"])
        .arg(binary())
        .current_dir(dir.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write") && said.contains("File too large"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("routes.toml")).expect("routes.toml"), GOOD);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    let dir = temp_dir("cli");
    assert_eq!(run(&["serve"], dir.path()).0, 2);
    assert_eq!(run(&["check", "--nonsense"], dir.path()).0, 2);
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["explain", "--help"],
        &["flip", "--help"],
        &["top", "--help"],
        &["report", "--help"],
        &["--version"],
    ] {
        let (code, out, _) = run(arguments, dir.path());
        assert_eq!(code, 0, "{arguments:?}");
        assert!(!out.trim().is_empty(), "{arguments:?}");
    }
}

#[test]
fn completions_and_the_man_page_are_generated() {
    let dir = temp_dir("cli");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell], dir.path());
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("strangler") && out.contains("flip"), "{out}");
    }
    let (code, out, err) = run(&["man"], dir.path());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(".TH"), "{out}");
}

#[test]
fn the_reference_of_commands_is_fresh() {
    let dir = temp_dir("cli");
    let mut text = String::from(
        "# Commands\n\n<!-- Written from what the commands say by a test; change it in src/cli. -->\n\n\
         A binary of your own, made with `strangler::Gateway`, has the same ones.\n\n\
         Exit codes: 0 all is well, 1 running failed, 2 wrong usage or a faulty file.\n",
    );
    for command in ["", "run", "check", "explain", "flip", "sign", "top", "report", "completions", "man"] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let (code, out, err) = run(&arguments, dir.path());
        assert_eq!(code, 0, "{err}");
        let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
        let title = format!("strangler {command}");
        text.push_str(&format!("\n## {}\n\n```text\n{}\n```\n", title.trim_end(), lines.join("\n").trim_end()));
    }
    let path = repository("docs/reference/commands.md");
    let fresh = std::fs::read_to_string(&path).is_ok_and(|written| written == text);
    if !fresh {
        std::fs::write(&path, text).expect("docs/reference/commands.md");
    }
    assert!(fresh, "docs/reference/commands.md was stale and has been rewritten; commit it");
}
