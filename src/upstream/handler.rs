//! Rust handlers inside the process. (Stub.)
use super::{Error, Inbound};
use crate::http::{Body, Timeline};
use ::http::Response;

/// A named Rust service that can serve a side.
#[derive(Debug)]
pub(crate) struct Handler {
    name: String,
}

impl Handler {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    pub(crate) async fn call(&self, _inbound: Inbound, _timeline: &Timeline) -> Result<Response<Body>, Error> {
        Err(Error::BadReply { what: "stub" })
    }
}
