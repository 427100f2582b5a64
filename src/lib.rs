//! A gateway in front of a PHP application that moves to Rust, route by route. (Map to be written.)
#![allow(dead_code)]

pub mod http;
mod route;
mod telemetry;
pub mod upstream;
