//! What the documents tell the reader to write into routes.toml loads as it stands there.

use std::path::Path;
use std::process::Command;

use crate::support::gateway::shop_binary;
use crate::support::{repository, temp_dir};

/// The `toml` blocks of a page, each with the number of its first line; the indentation of a list is taken off.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match &mut open {
            None if line.trim_start() == "```toml" => open = Some((number, line.len() - 7, String::new())),
            None => {}
            Some((start, _, text)) if line.trim_start() == "```" => {
                found.push((*start, std::mem::take(text)));
                open = None;
            }
            Some((_, indentation, text)) => {
                text.push_str(line.get(*indentation..).unwrap_or_default());
                text.push('\n');
            }
        }
    }
    found
}

/// The block on this machine: with an application that is here, and, when it shows routes only, with what those
/// take for granted.
fn on_this_machine(block: &str, root: &Path) -> String {
    let root = format!("root = \"{}\"", root.display());
    let here = |line: &str| if line.starts_with("root ") { root.clone() } else { line.to_owned() };
    let mut text: Vec<String> = block.lines().map(here).collect();
    if !block.lines().any(|line| line.starts_with("[upstream.")) {
        let assumed = [
            "[listen]",
            "http = \"127.0.0.1:8080\"",
            "[upstream.php]",
            "fastcgi = \"unix:/run/php/php8.2-fpm.sock\"",
            &root,
            "[defaults]",
            "legacy = \"php\"",
        ];
        text.extend(assumed.map(str::to_owned));
    }
    if !block.lines().any(|line| line.trim_start().starts_with("[[")) {
        text.extend(["[[route]]", "path = \"/{*rest}\""].map(str::to_owned));
    }
    text.join("\n")
}

fn check(file: &Path, directory: &Path) -> Result<(), String> {
    // The example's binary has the handlers that the documents name.
    let mut command = Command::new(shop_binary());
    command
        .arg("check")
        .arg("-c")
        .arg(file)
        .current_dir(directory)
        .env("SHOP_APP_KEY", "a key of the documents")
        .env("APP_KEY", format!("base64:{}=", "A".repeat(43)))
        .env("LOGGED_IN_KEY", "a key of the documents")
        .env("LOGGED_IN_SALT", "a salt of the documents");
    let output = command.output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn every_table_in_the_documents_loads() {
    let mut pages = vec![repository("README.md")];
    for entry in std::fs::read_dir(repository("docs/guide")).expect("the guide") {
        pages.push(entry.expect("a page").path());
    }
    let dir = temp_dir("docs");
    let root = dir.path().join("public");
    std::fs::create_dir(&root).expect("the root");
    std::fs::write(root.join("index.php"), "<?php").expect("a front controller");
    let (mut checked, mut faulty) = (0, Vec::new());
    for page in pages {
        for (line, block) in blocks(&std::fs::read_to_string(&page).expect("a page")) {
            let file = dir.path().join("routes.toml");
            std::fs::write(&file, on_this_machine(&block, &root)).expect("routes.toml");
            checked += 1;
            if let Err(said) = check(&file, dir.path()) {
                faulty.push(format!("{}:{line}\n{said}", page.display()));
            }
        }
    }
    assert!(checked >= 3, "the blocks were not found");
    assert!(faulty.is_empty(), "{}", faulty.join("\n"));
}

#[test]
fn the_table_at_the_root_loads_with_the_shop() {
    let root = repository("");
    check(&root.join("routes.toml"), &root).expect("no fault");
}
