//! `strangler check`: is the file good?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{faulty, print, routes_in_words};
use crate::config::{self, Known};
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

pub(super) fn run(file: &Path, handlers: &BTreeMap<String, Arc<Handler>>) -> u8 {
    let telemetry = Telemetry::idle();
    match config::load(file, &Known { handlers, telemetry: &telemetry, previous: None }) {
        Ok(loaded) => {
            let mut text = String::new();
            for warning in &loaded.warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            let (path, routes) = (file.display(), &loaded.table.routes);
            let new = routes.iter().filter(|route| route.serve.word() == "new").count();
            text.push_str(&format!("{path}: good; {}, {new} served by the new side\n", routes_in_words(routes.len())));
            print(&text)
        }
        Err(faults) => faulty(&faults),
    }
}
