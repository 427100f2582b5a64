//! The php-fpm processes that the gateway runs itself (`spawn`), kept in step with the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::route::RouteTable;
use crate::upstream::Target;
use crate::upstream::fastcgi::{Php, SpawnError, Spawned};

/// The running ones, by the name of their upstream.
#[derive(Default)]
pub(super) struct Children(Mutex<BTreeMap<String, (Arc<Php>, Spawned)>>);

impl Children {
    /// Starts what the table asks for and does not run yet, ends what it no longer asks for.
    /// A pool whose settings changed is started anew.
    pub(super) async fn follow(&self, table: &RouteTable) -> Result<(), SpawnError> {
        let mut running = self.0.lock().await;
        let wanted: BTreeMap<&str, &Arc<Php>> = table
            .targets()
            .filter_map(|target| match target {
                Target::Php(php) if php.settings().spawn.is_some() => Some((php.name(), php)),
                _ => None,
            })
            .collect();
        let leaving: Vec<String> = running
            .iter()
            .filter(|(name, (php, _))| !wanted.get(name.as_str()).is_some_and(|wanted| Arc::ptr_eq(wanted, php)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in leaving {
            if let Some((_, spawned)) = running.remove(&name) {
                spawned.stop().await;
            }
        }
        for (name, php) in wanted {
            if !running.contains_key(name) {
                let spawned = Spawned::start(name, php.settings()).await?;
                running.insert(name.to_owned(), (Arc::clone(php), spawned));
            }
        }
        Ok(())
    }

    /// Ends them all.
    pub(super) async fn stop(&self) {
        for (_, (_, spawned)) in std::mem::take(&mut *self.0.lock().await) {
            spawned.stop().await;
        }
    }
}
