//! The php-fpm processes that the gateway runs itself (`spawn`), kept in step with the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::route::RouteTable;
use crate::upstream::Target;
use crate::upstream::fastcgi::{Php, SpawnError, Spawned};

/// The running ones, by the name of their upstream.
#[derive(Default)]
pub(super) struct Children(Mutex<BTreeMap<String, Spawned>>);

impl Children {
    /// Starts what the table asks for and does not run yet, ends what it no longer asks for.
    ///
    /// One whose own configuration changed is started anew, and what it cannot finish meanwhile is lost;
    /// every other change of its upstream leaves it alone.
    pub(super) async fn follow(&self, table: &RouteTable) -> Result<(), SpawnError> {
        let mut running = self.0.lock().await;
        let wanted: BTreeMap<&str, &Arc<Php>> = table
            .targets()
            .filter_map(|target| match target {
                Target::Php(php) if php.settings().spawn.is_some() => Some((php.name(), php)),
                _ => None,
            })
            .collect();
        let mut leaving = Vec::new();
        for (name, spawned) in running.iter() {
            match wanted.get(name.as_str()) {
                None => leaving.push(name.clone()),
                Some(php) if !spawned.suits(name, php.settings())? => {
                    tracing::warn!(
                        upstream = name,
                        "php-fpm is started anew; requests may fail until it listens again"
                    );
                    leaving.push(name.clone());
                }
                Some(_) => {}
            }
        }
        for name in leaving {
            if let Some(spawned) = running.remove(&name) {
                spawned.stop().await;
            }
        }
        for (name, php) in wanted {
            if !running.contains_key(name) {
                running.insert(name.to_owned(), Spawned::start(name, php.settings()).await?);
            }
        }
        Ok(())
    }

    /// Ends them all.
    pub(super) async fn stop(&self) {
        for (_, spawned) in std::mem::take(&mut *self.0.lock().await) {
            spawned.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::config::{self, Known};
    use crate::telemetry::Telemetry;

    /// The table of a route file with one spawned pool.
    fn table(directory: &std::path::Path, children: u32, extra: &str) -> RouteTable {
        let root = directory.display();
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n[upstream.php]\nfastcgi = \"unix:{root}/fpm.sock\"\nroot = \"{root}\"\n\
             connections = 1\nspawn = {{ children = {children} }}\n{extra}\n[[route]]\npath = \"/{{*rest}}\"\nlegacy = \"php\"\n"
        );
        let file = directory.join("routes.toml");
        std::fs::write(&file, text).unwrap();
        let known = Known { handlers: &BTreeMap::new(), telemetry: &Telemetry::idle(), previous: None };
        config::load(&file, &known).unwrap().table
    }

    #[tokio::test]
    async fn php_is_started_anew_only_when_its_own_configuration_changed() {
        let directory = tempfile::tempdir().unwrap();
        let socket = || {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(directory.path().join("fpm.sock")).map(|socket| (socket.ino(), socket.ctime_nsec())).ok()
        };
        let follow = async {
            let children = Children::default();
            children.follow(&table(directory.path(), 1, "")).await.unwrap();
            let first = socket();
            assert!(first.is_some());
            children
                .follow(&table(directory.path(), 1, "queue = \"7s\"\nkeepalive = 1\nphp = \"files\""))
                .await
                .unwrap();
            assert_eq!(socket(), first, "an edit of the gateway's own side restarted php-fpm");
            children.follow(&table(directory.path(), 2, "")).await.unwrap();
            let second = socket();
            assert!(second.is_some() && second != first, "the number of children did not change");
            children.stop().await;
        };
        LocalSet::new().run_until(follow).await;
    }
}
