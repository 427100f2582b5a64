//! The command `strangler`: a gateway with no handlers of its own but `health`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strangler::Gateway::new().main()
}
