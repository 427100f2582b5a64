//! The commands: what an operator types, and what is printed back.
//!
//! Nothing is decided here: a command reads its arguments, calls one room, and says what came of
//! it on a terminal, or as JSON for a machine. Exit codes: 0 all is well, 1 running failed,
//! 2 wrong usage or a faulty file.

mod check;
mod children;
mod explain;
mod flip;
mod manual;
mod port;
mod report;
mod run;
mod sign;
mod told;
mod top;
mod words;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::runtime::{Builder, LocalOptions};

use crate::config::{self, Known, Loaded};
use crate::http::BoxError;
use crate::telemetry::Telemetry;
use crate::upstream::Handler;

/// What a binary is made of: its handlers by name, and what makes them ready to serve.
pub(crate) struct Program {
    pub(crate) handlers: BTreeMap<String, Arc<Handler>>,
    pub(crate) ready: Pin<Box<dyn Future<Output = Result<(), BoxError>>>>,
}

/// Running failed.
const FAILED: u8 = 1;
/// Wrong usage, or a file with faults.
const FAULTY: u8 = 2;

/// A gateway in front of a PHP application that moves to Rust, route by route.
///
/// routes.toml says for every route which side serves it: `legacy` (PHP-FPM) or `new` (a Rust
/// handler, or an HTTP service). Save the file and the route is flipped, within a second and
/// without losing a request.
#[derive(Debug, Parser)]
#[command(name = "strangler", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// The route table
    #[arg(short, long = "config", value_name = "FILE", default_value = "routes.toml", global = true)]
    config: PathBuf,

    #[command(flatten)]
    run: run::Options,
}

const EXAMPLES: &str = "\
Examples:
  strangler                                  serve what ./routes.toml says
  strangler check -c /etc/strangler/routes.toml
  strangler check --probe                    and try the stores of its checks
  strangler explain GET 'https://shop.example/api/v1/orders/7'
  strangler flip order new                   let the new side serve the route `order`
  strangler flip order legacy                and back
  strangler sign signed GET '/api/v1/orders/7?sku=A'
  strangler top                              watch both sides of every route, and flip with a key
  strangler report --format html > page.html the last hour, to hand on";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run(run::Options),
    /// Load the file and print every fault, or a one-line summary
    Check(check::Options),
    /// Say which route a request takes and why, who serves it, and what the upstream would be sent
    Explain(explain::Options),
    /// Change which side serves a route, by editing that one word of the file
    Flip(flip::Options),
    /// Sign a request as a `signature` check wants it: what was signed, and a curl line
    Sign(sign::Options),
    /// Watch both sides of every route in the terminal, and flip with a key
    Top(top::Options),
    /// Write the comparison of both sides as a page to hand on
    Report(report::Options),
    /// Print completions for a shell
    Completions(manual::CompletionOptions),
    /// Print the manual page (troff)
    Man,
}

/// Reads the arguments and runs the command they name.
pub(crate) fn main(program: Program) -> ExitCode {
    let Cli { command, config: file, run } = Cli::parse();
    if run.json && !matches!(command, None | Some(Command::Run(_))) {
        Cli::command().error(ErrorKind::ArgumentConflict, "--json says how to run; no other command has it").exit();
    }
    let code = match command {
        None => run::run(&file, run.json, program),
        Some(Command::Run(options)) => run::run(&file, run.json || options.json, program),
        Some(Command::Check(options)) => check::run(&file, &options, &program.handlers),
        Some(Command::Explain(options)) => explain::run(&file, &options, &program.handlers),
        Some(Command::Flip(options)) => flip::run(&file, &options, &program.handlers),
        Some(Command::Sign(options)) => sign::run(&file, &options, &program.handlers),
        Some(Command::Top(options)) => top::run(&file, options),
        Some(Command::Report(options)) => report::run(&file, &options),
        Some(Command::Completions(options)) => manual::completions(&options),
        Some(Command::Man) => manual::page(),
    };
    ExitCode::from(code)
}

/// Says why the binary itself is wrong, whatever it was asked.
pub(crate) fn misused(why: &dyn std::error::Error) -> ExitCode {
    complain(&with_causes(why));
    ExitCode::from(FAULTY)
}

/// Loads the file for a command that only looks at it; its faults are printed, and give the exit code.
fn look_at(file: &Path, handlers: &BTreeMap<String, Arc<Handler>>) -> Result<Loaded, u8> {
    let telemetry = Telemetry::idle();
    config::load(file, &Known { handlers, telemetry: &telemetry, previous: None }).map_err(|faults| faulty(&faults))
}

/// `1 route`, `2 routes`.
fn routes_in_words(count: usize) -> String {
    if count == 1 { "1 route".to_owned() } else { format!("{count} routes") }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => complain(&format!("cannot print: {error}")),
        _ => 0,
    }
}

/// Says what went wrong, and gives the exit code for it.
fn complain(what: &str) -> u8 {
    let _ = writeln!(io::stderr(), "strangler: {what}");
    FAILED
}

/// Whether what is written to a terminal may be coloured.
fn coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Runs a future on this thread, which may spawn others.
fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    Ok(runtime.block_on(future))
}

/// Prints a file's faults, and gives the exit code for them.
fn faulty(faults: &impl std::fmt::Display) -> u8 {
    let _ = writeln!(io::stderr(), "{faults}");
    FAULTY
}

/// An error with all its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
