//! `strangler completions` and `strangler man`: made from the same description as `--help`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, complain, print};

#[derive(Debug, Args)]
pub(super) struct CompletionOptions {
    /// The shell they are for
    shell: Shell,
}

pub(super) fn completions(options: &CompletionOptions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "strangler", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn page() -> u8 {
    let mut page = Vec::new();
    match clap_mangen::Man::new(Cli::command()).render(&mut page) {
        Ok(()) => print(&String::from_utf8_lossy(&page)),
        Err(error) => complain(&format!("cannot make the manual page: {error}")),
    }
}
