//! The shop's Rust side: the JSON API of `legacy/`, written again as handlers of the gateway.
//!
//! Both sides use the same database and the same sessions, and answer the same bytes; routes.toml says,
//! route by route, which of them serves. The HTML pages stay with PHP.

mod api;
mod db;
mod orders;
mod products;
mod reports;
mod session;
mod users;
mod wechat;

use std::error::Error;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use db::Database;
use session::Sessions;
use strangler::Gateway;
use wechat::Wechat;

fn main() -> ExitCode {
    Gateway::new()
        .setup(Shop::connect)
        .handler_with("products", products::router)
        .handler_with("orders", orders::router)
        .handler_with("users", users::router)
        .blocking_handler_with("reports", reports::router)
        .main()
}

/// What the handlers share.
#[derive(Clone)]
struct Shop {
    database: Database,
    sessions: Sessions,
    wechat: Wechat,
}

impl Shop {
    async fn connect() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let state = env::var_os("SHOP_STATE")
            .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/var/shop")), PathBuf::from);
        fs::create_dir_all(&state)?;
        Ok(Self {
            database: Database::connect(&state).await?,
            sessions: Sessions::connect(&state).await?,
            wechat: Wechat::from_env()?,
        })
    }
}

/// Gives what root has created to the owner of the folder it is in: the gateway lets PHP run as that user,
/// never as root, and PHP writes here too.
fn share(created: &Path) -> io::Result<()> {
    let Some(folder) = created.parent() else { return Ok(()) };
    let (owner, own) = (fs::metadata(folder)?, fs::metadata(created)?);
    if own.uid() == 0 && owner.uid() != 0 {
        chown(created, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// The present moment as the API writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
