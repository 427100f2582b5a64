//! What every answer of the API has in common: `{"code": 0, "message": "ok", "data": …}`.
//!
//! PHP's side of it is legacy/src/api.php; tests hold both to the same bytes. A refusal's status is its
//! `code / 100`; the numbers from 10 on are the shop's own, those below are the gateway's.

use std::collections::HashMap;
use std::error::Error as _;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::{Shop, session};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What the caller may read.
    #[error("{1}")]
    Refused(u16, String),
    #[error("database")]
    Database(#[from] sqlx::Error),
    #[error("session")]
    Session(#[from] session::Error),
    #[error("background work")]
    Background(#[from] tokio::task::JoinError),
}

pub(crate) type Answer = Result<Response, Error>;

pub(crate) fn refuse(code: u16, message: impl Into<String>) -> Error {
    Error::Refused(code, message.into())
}

#[derive(Serialize)]
struct Envelope<T> {
    code: u16,
    message: String,
    data: T,
}

/// The answer when all went well.
pub(crate) fn ok(status: StatusCode, data: impl Serialize) -> Response {
    respond(status, Envelope { code: 0, message: "ok".to_owned(), data })
}

fn respond(status: StatusCode, envelope: Envelope<impl Serialize>) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(envelope)).into_response()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, message) = match self {
            Self::Refused(code, message) => (code, message),
            broken => {
                tracing::error!(cause = broken.source(), "{broken}");
                (50010, "internal error".to_owned())
            }
        };
        let status = StatusCode::from_u16(code / 100).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond(status, Envelope { code, message, data: () })
    }
}

/// For a path that is routed here but has no handler.
pub(crate) async fn not_found() -> Error {
    refuse(40412, "not found")
}

/// For a path that has other methods; axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> Error {
    refuse(40510, "method not allowed")
}

/// The user who calls, or the refusal of whoever is not logged in.
pub(crate) async fn caller(shop: &Shop, headers: &HeaderMap) -> Result<i64, Error> {
    shop.sessions.user(headers).await?.ok_or_else(|| refuse(40110, "login required"))
}

/// The JSON that a body holds.
pub(crate) fn body(bytes: &Bytes) -> Result<Value, Error> {
    serde_json::from_slice::<Value>(bytes)
        .ok()
        .filter(|value| value.is_object() || value.is_array())
        .ok_or_else(|| refuse(40010, "a JSON object is needed"))
}

/// An id in a path: one that cannot be is as absent as one that is not.
pub(crate) fn id(path: Result<Path<String>, PathRejection>, absent: impl Fn() -> Error) -> Result<i64, Error> {
    path.ok().and_then(|Path(text)| natural(&text)).ok_or_else(absent)
}

/// A number in a query.
pub(crate) fn number(query: &HashMap<String, String>, name: &str, default: i64, max: i64) -> Result<i64, Error> {
    match query.get(name) {
        None => Ok(default),
        Some(text) => {
            natural(text).filter(|&number| number <= max).ok_or_else(|| refuse(40014, format!("{name}: 1 to {max}")))
        }
    }
}

/// A positive number in plain digits, as in ids and pages.
fn natural(text: &str) -> Option<i64> {
    let plain = text.len() <= 9 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
