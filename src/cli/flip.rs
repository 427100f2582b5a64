//! `strangler flip`: which side serves a route, changed by editing one word of the file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::{FAULTY, complain, print, with_causes};
use crate::config::{self, FlipError, Known};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

#[derive(Debug, Args)]
#[command(after_help = "A running gateway that watches the file follows within a second.")]
pub(super) struct Options {
    /// The route, by its name
    route: String,
    /// Who shall serve it: `legacy` or `new`
    serve: String,
}

pub(super) fn run(file: &Path, options: &Options, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let telemetry = Telemetry::idle();
    let known = Known { handlers, telemetry: &telemetry, previous: None };
    match config::flip(file, &options.route, &options.serve, &known) {
        Ok(flipped) => print(&format!("{flipped}\n")),
        // Nothing is wrong with what was asked for.
        Err(error @ (FlipError::Write { .. } | FlipError::ChangedMeanwhile)) => complain(&with_causes(&error)),
        Err(error) => {
            complain(&with_causes(&error));
            FAULTY
        }
    }
}
