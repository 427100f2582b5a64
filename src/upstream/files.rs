//! Files of the legacy application, served by the gateway itself. (Stub.)
use ::http::{Response, request};

use super::Error;
use crate::http::Body;

#[derive(Debug)]
pub(crate) struct OpenFile;

pub(crate) async fn serve(_file: OpenFile, _head: &request::Parts) -> Result<Response<Body>, Error> {
    Err(Error::NoFile { why: "stub" })
}
