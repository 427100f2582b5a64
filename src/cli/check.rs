//! `strangler check`: is the file good?

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;

use super::{ConfigFile, faulty, print};
use crate::config::{self, Known};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let telemetry = Telemetry::idle();
    match config::load(&options.config.path, &Known { handlers, telemetry: &telemetry, previous: None }) {
        Ok(loaded) => {
            let mut text = String::new();
            for warning in &loaded.warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            let (path, routes) = (options.config.path.display(), &loaded.table.routes);
            let new = routes.iter().filter(|route| route.serve.word() == "new").count();
            text.push_str(&format!("{path}: good; {} routes, {new} served by the new side\n", routes.len()));
            print(&text)
        }
        Err(faults) => faulty(&faults),
    }
}
