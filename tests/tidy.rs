//! The architecture as a test: who may import whom, and which room alone may know a library.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom: a room may import those below it.
const ROOMS: [&str; 11] =
    ["cli", "config", "admin", "server", "gateway", "route", "check", "upstream", "telemetry", "http", "spool"];

/// Of these none knows another.
const NEIGHBOURS: [&str; 3] = ["check", "upstream", "telemetry"];

/// Libraries that one room keeps from all others.
const ONLY_ROOM_WITH: [(&str, &[&str]); 6] = [
    ("crossterm", &["cli"]),
    ("ratatui", &["cli"]),
    ("toml", &["config"]),
    ("notify", &["config"]),
    ("prost", &["telemetry"]),
    ("opentelemetry_proto", &["telemetry"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    assert!(paths.len() > 20, "the sources were not found");
    paths
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&src).unwrap().to_path_buf();
            let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (room, inside, text)
        })
        .collect()
}

/// The rooms that a source names as `crate::room`, also inside `use crate::{…}`.
fn imports(text: &str) -> Vec<&'static str> {
    ROOMS
        .into_iter()
        .filter(|room| {
            text.match_indices(&format!("crate::{room}")).any(|(at, found)| {
                !text[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
            })
        })
        .collect()
}

#[test]
fn imports_point_down_the_house_and_never_up() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut broken = Vec::new();
    for (room, path, text) in sources() {
        let Some(own) = place(&room) else { continue };
        for imported in imports(&text) {
            let up = place(imported).unwrap() < own;
            let neighbours = imported != room && [&*room, imported].iter().all(|room| NEIGHBOURS.contains(room));
            if up || neighbours {
                broken.push(format!("src/{} imports crate::{imported}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}\nSee docs/ARCHITECTURE.md, \"The code, room by room\".");
}

#[test]
fn a_library_that_belongs_to_one_room_is_met_in_no_other() {
    let mut broken = Vec::new();
    for (room, path, text) in sources() {
        for (library, rooms) in ONLY_ROOM_WITH {
            let used = text.contains(&format!("use {library}::")) || text.contains(&format!(" {library}::"));
            if used && !rooms.contains(&room.as_str()) {
                broken.push(format!("src/{} uses {library}, which only {rooms:?} may", path.display()));
            }
        }
        if text.contains("arc_swap") && room != "route" {
            broken.push(format!("src/{} uses arc_swap, which only route may", path.display()));
        }
        let tested = text.contains("#[cfg(test)]") || path.ends_with("tests.rs");
        let binds = text.contains("TcpListener::bind") && !tested;
        if binds && room != "server" {
            broken.push(format!("src/{} binds a socket, which only server may", path.display()));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
