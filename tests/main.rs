//! The integration tests: one binary, one file for each capability, each test a sentence.
//!
//! They use the gateway as its users do: the real binary, its ports, its file, its signals. What
//! stands around it is real as well (PHP-FPM, nginx, MariaDB, WordPress), and scripted only where a
//! real peer never misbehaves in the way a test needs.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and its tasks may run on any thread"
)]
#![allow(missing_docs, unreachable_pub, reason = "nobody but these tests sees them")]

mod support;

mod checks;
mod cli;
mod dashboard;
mod docs;
mod errors;
mod fastcgi;
mod flip;
mod fpm_faults;
mod handlers;
mod http_upstream;
mod metrics;
mod observability;
mod percentiles;
mod reload;
mod routing;
mod shop;
mod shutdown;
mod tidy;
mod top;
mod wordpress;
