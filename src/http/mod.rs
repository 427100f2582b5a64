//! Plain rules of HTTP: headers, paths, bodies, limits, and the answers the gateway gives itself.
//!
//! Everything above may use it; of the crate it uses the spool alone, where a body can be kept.
//! It does no I/O of its own; a body here is something that is polled, never something that
//! connects.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod client;
pub mod cookie;
pub(crate) mod headers;
pub(crate) mod hex;
pub(crate) mod host;
pub(crate) mod limits;
pub mod path;
pub(crate) mod request_id;
pub(crate) mod timeline;
pub(crate) mod trace_context;
pub(crate) mod urlencoded;

pub(crate) use answer::Answer;
pub(crate) use body::{Body, BodyFault, BoxError, RequestBody};
pub(crate) use client::Client;
pub(crate) use host::Host;
pub(crate) use limits::{Limits, Timeouts};
pub(crate) use path::CanonicalPath;
pub(crate) use timeline::Timeline;
