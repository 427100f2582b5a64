//! A gateway in front of a PHP application that moves to Rust, route by route. (Map to be written.)
#![allow(dead_code)]

pub mod http;
pub mod upstream;
mod route;
mod telemetry;
mod admin;
mod config;
