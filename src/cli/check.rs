//! `strangler check`: is the file good, and with `--probe`, are the stores it names there?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tokio::runtime::{Builder, LocalOptions};

use super::{FAILED, complain, look_at, print, routes_in_words};
use crate::route::RouteTable;
use crate::upstream::Handler;

#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Connect to the stores that checks use, and say which cannot be used
    #[arg(long)]
    probe: bool,
}

pub(super) fn run(file: &Path, options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let loaded = match look_at(file, handlers) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut text = String::new();
    for warning in &loaded.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let (path, routes) = (file.display(), &loaded.table.routes);
    let new = routes.iter().filter(|route| route.serve.word() == "new").count();
    text.push_str(&format!("{path}: good; {}, {new} served by the new side\n", routes_in_words(routes.len())));
    match print(&text) {
        0 if options.probe => probe(&loaded.table),
        code => code,
    }
}

/// Tries each store once, and says what came of it.
fn probe(table: &RouteTable) -> u8 {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string()),
    };
    let (mut text, mut code) = (String::new(), 0);
    for (name, check) in &table.checks {
        let Some(store) = check.store() else { continue };
        let address = store.backend().address();
        match runtime.block_on(store.probe(check.session().is_none())) {
            Ok(()) => text.push_str(&format!("check {name}: {address} answers\n")),
            Err(why) => {
                text.push_str(&format!("check {name}: {address} cannot be used: {why}\n"));
                code = FAILED;
            }
        }
    }
    print(&text).max(code)
}
