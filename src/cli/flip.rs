//! `strangler flip`: which side serves a route, changed by editing one word of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::{FAULTY, complain, print, with_causes};
use crate::admin::{Done, Flip, Order, Refused};
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
    match config::flip(file, &options.route, &options.serve, None, &known) {
        Ok(flipped) => print(&format!("{flipped}\n")),
        // Nothing is wrong with what was asked for.
        Err(error @ (FlipError::Write { .. } | FlipError::ChangedMeanwhile | FlipError::NotAsSeen(_))) => {
            complain(&with_causes(&error))
        }
        Err(error) => {
            complain(&with_causes(&error));
            FAULTY
        }
    }
}

/// The same for the admin port, which knows no file.
pub(super) fn by_order(file: PathBuf, handlers: Arc<BTreeMap<String, Arc<Handler>>>) -> Arc<Flip> {
    // One after the other: two that read the same file would each undo what the other wrote.
    let turn = Mutex::new(());
    Arc::new(move |Order { route, serve, seen }| {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let telemetry = Telemetry::idle();
        let known = Known { handlers: &handlers, telemetry: &telemetry, previous: None };
        let flipped = config::flip(&file, route, serve, *seen, &known).map_err(|error| refused(&error))?;
        Ok(Done { from: flipped.from, place: flipped.place, changed: flipped.changed })
    })
}

fn refused(error: &FlipError) -> Refused {
    let why = with_causes(error);
    match error {
        FlipError::UnknownRoute { .. } => Refused::NoRoute(why),
        FlipError::BadServe { .. } | FlipError::Rejected(_) | FlipError::Faulty(_) => Refused::Faulty(why),
        FlipError::ChangedMeanwhile | FlipError::NotAsSeen(_) => Refused::Changed(why),
        FlipError::Write { .. } => Refused::Failed(why),
    }
}
