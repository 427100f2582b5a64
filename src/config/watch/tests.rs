//! Ways in which files change, each seen within a second or so.

use std::cell::Cell;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::rc::Rc;

use super::*;
use crate::config::load;
use crate::config::tests::{Fixture, handlers, telemetry};
use crate::route::Serve;

fn text(serve: &str) -> String {
    format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\n[[route]]\nname = \"r\"\npath = \"/{{*rest}}\"\nnew = \"users\"\n\
         legacy = \"orders\"\nserve = \"{serve}\"\n"
    )
}

/// A watched file, seen through what the gateway shows of it.
struct Watched {
    live: Arc<LiveTable>,
    status: Arc<ReloadStatus>,
    /// The generation that was last announced.
    applied: Rc<Cell<u64>>,
}

impl Watched {
    async fn until(&self, what: &str, holds: impl Fn(Serve, Option<&str>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let (serve, reloads) = (self.live.current().routes[0].serve, self.status.snapshot());
            if holds(serve, reloads.last_rejected.as_ref().map(|rejected| &*rejected.faults)) {
                return;
            }
            assert!(Instant::now() < deadline, "not seen: {what}; {serve:?}, {reloads:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_served(&self, serve: Serve) {
        self.until("served", |now, refused| now == serve && refused.is_none()).await;
    }

    async fn until_refused(&self, cause: &str) {
        self.until(cause, |_, refused| refused.is_some_and(|faults| faults.contains(cause))).await;
    }
}

/// Watches the file at `path` while `story` happens to it.
fn watching<F: Future<Output = ()>>(path: &Path, story: impl FnOnce(Watched) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (handlers, telemetry) = (Arc::new(handlers(&["users", "orders"])), Arc::new(telemetry()));
    let known = Known { handlers: &handlers, telemetry: &telemetry, previous: None };
    let Loaded { table, started, .. } = load(path, &known).unwrap();
    let (live, status) = (Arc::new(LiveTable::new(table)), Arc::default());
    let watched = Watched { live: Arc::clone(&live), status: Arc::clone(&status), applied: Rc::default() };
    let watcher = Watcher::new(path, started, Context { handlers, telemetry, live, status });
    let applied = Rc::clone(&watched.applied);
    runtime.block_on(async {
        tokio::select! {
            () = watcher.run(|table| applied.set(table.generation)) => unreachable!("it watches for ever"),
            () = story(watched) => {}
        }
    });
}

fn rename_into(path: &Path, text: &str) {
    let next = path.with_file_name(".next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[test]
fn a_save_by_renaming_and_a_save_in_place_are_both_seen() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        rename_into(&path, &text("new"));
        watched.until_served(Serve::New).await;
        std::fs::write(&path, text("legacy")).unwrap();
        watched.until_served(Serve::Legacy).await;
        assert_eq!((watched.live.current().generation, watched.applied.get()), (3, 3));
        assert_eq!(watched.status.snapshot().accepted, 3);
    });
}

#[test]
fn kubernetes_swapping_its_data_symlink_is_seen() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path();
    for (version, serve) in [("..1", "legacy"), ("..2", "new")] {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("routes.toml"), text(serve)).unwrap();
    }
    let path = folder.join("routes.toml");
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/routes.toml", &path).unwrap();
    watching(&path, async |watched| {
        symlink("..2", folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        std::fs::remove_dir_all(folder.join("..1")).unwrap();
        watched.until_served(Serve::New).await;
    });
}

#[test]
fn a_file_that_is_gone_or_is_no_file_leaves_the_table_and_is_seen_when_it_is_back() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        std::fs::remove_file(&path).unwrap();
        watched.until_refused("no such file or directory; put it back").await;
        std::fs::create_dir(&path).unwrap();
        watched.until_refused("is not a regular file").await;
        std::fs::remove_dir(&path).unwrap();
        watched.until_refused("no such file").await;
        assert_eq!(watched.live.current().generation, 1);
        std::fs::write(&path, text("new")).unwrap();
        watched.until_served(Serve::New).await;
    });
}

#[test]
fn a_folder_made_anew_is_watched_again() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path().join("conf");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("routes.toml");
    std::fs::write(&path, text("legacy")).unwrap();
    watching(&path, async |watched| {
        std::fs::rename(&folder, folder.with_file_name("away")).unwrap();
        watched.until_refused("no such file").await;
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&path, text("new")).unwrap();
        watched.until_served(Serve::New).await;
        rename_into(&path, &text("legacy"));
        watched.until_served(Serve::Legacy).await;
    });
}

#[test]
fn a_bad_file_is_counted_once_and_mended_by_the_old_content() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        std::fs::write(&path, text("nwe")).unwrap();
        watched.until_refused("serve cannot be \"nwe\"; did you mean \"new\"?").await;
        rename_into(&path, &text("nwe"));
        std::fs::write(&path, "[listen]\nhttp = 7\n").unwrap();
        watched.until_refused("\"http\" cannot be an integer").await;
        std::fs::write(&path, text("legacy")).unwrap();
        watched.until_served(Serve::Legacy).await;
        let shown = watched.status.snapshot();
        assert_eq!((shown.accepted, shown.rejected), (1, 2));
        assert_eq!(watched.live.current().generation, 1, "the content in force was swapped for itself");
    });
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_read_in_between() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        let deadline = Instant::now() + Duration::from_secs(5);
        for n in 0.. {
            rename_into(&path, &format!("# {n}\n{}", text("legacy")));
            sleep(Duration::from_millis(10)).await;
            if watched.live.current().generation > 2 {
                break;
            }
            assert!(Instant::now() < deadline, "not one of {n} versions was read");
        }
        rename_into(&path, &text("new"));
        watched.until_served(Serve::New).await;
        assert_eq!(watched.status.snapshot().rejected, 0);
    });
}

#[test]
fn a_file_written_byte_by_byte_is_read_when_it_is_whole() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&path).unwrap();
        for bytes in text("new").as_bytes().chunks(2) {
            file.write_all(bytes).unwrap();
            sleep(Duration::from_millis(15)).await;
        }
        watched.until_served(Serve::New).await;
        assert_eq!(watched.status.snapshot().rejected, 0, "a half-written file was read");
    });
}

#[test]
fn what_cannot_change_while_running_is_warned_of_and_the_rest_applied() {
    let fixture = Fixture::new();
    let path = fixture.write(&text("legacy"));
    watching(&path, async |watched| {
        rename_into(&path, &text("new").replace("127.0.0.1:0", "127.0.0.1:1"));
        watched.until_served(Serve::New).await;
        let warnings = watched.status.snapshot().last_good.unwrap().warnings;
        assert_eq!(warnings, ["[listen] changed, and cannot while running: it takes effect at the next start"]);
    });
}

#[test]
fn every_folder_on_the_way_is_watched_and_a_loop_of_symlinks_ends() {
    let fixture = Fixture::new();
    let folder = fixture.folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(folder.join("releases/1")).unwrap();
    std::fs::write(folder.join("releases/1/routes.toml"), "").unwrap();
    symlink("releases/1", folder.join("current")).unwrap();
    let watched = folders_of(&folder.join("current/routes.toml"));
    assert_eq!(watched, BTreeSet::from([folder.clone(), folder.join("releases/1")]));

    symlink("loop", folder.join("loop")).unwrap();
    assert_eq!(folders_of(&folder.join("loop")), BTreeSet::from([folder]));
}
