//! The gateway that is measured: a handler that answers `hello`, and two that first wait as long as the query
//! says (in milliseconds), next to PHP-FPM and an HTTP service.

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::handler::HandlerWithoutStateExt;
use axum::http::Uri;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strangler::Gateway::new()
        // One function needs no router: the gateway has found it already, as nginx has its location.
        .handler("hello", (async || "hello").into_service())
        .handler("wait", Router::new().fallback(wait))
        .handler("wait_too", Router::new().fallback(wait))
        .main()
}

async fn wait(uri: Uri) -> &'static str {
    let millis = uri.query().and_then(|query| query.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "waited"
}
