//! The gateway that is measured: one handler that answers `hello`, next to PHP-FPM and an HTTP service.

use std::process::ExitCode;

use axum::Router;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strangler::Gateway::new().handler("hello", Router::new().fallback(async || "hello")).main()
}
