//! A gateway with Rust handlers that behave in every way a handler can: the tests run it as users run theirs.
//!
//! `hello` repeats the request, `panic` panics where the path says, `stall` blocks its worker on purpose,
//! `blocking` blocks off it, `slow` waits properly, `big` streams, `upgrade` takes the connection over.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Extension, Router};
use futures_util::stream;
use serde_json::json;
use strangler::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> std::process::ExitCode {
    strangler::Gateway::new()
        .handler("hello", Router::new().fallback(any(hello)))
        .handler("panic", Router::new().route("/panic/{place}", any(panics)))
        .handler("stall", Router::new().fallback(any(stall)))
        .handler("slow", Router::new().route("/slow/{ms}", any(slow)))
        .handler("big", Router::new().route("/big/{bytes}", get(big)))
        .handler("upgrade", Router::new().fallback(get(upgrade)))
        .blocking_handler("blocking", Router::new().fallback(any(stall)))
        .main()
}

async fn hello(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    identity: Option<Extension<Identity>>,
    body: Bytes,
) -> impl IntoResponse {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    axum::Json(json!({
        "method": method.as_str(),
        "uri": uri.to_string(),
        "headers": headers,
        "user": identity.as_ref().and_then(|identity| identity.user()),
        "openid": identity.as_ref().and_then(|identity| identity.wechat()).map(|login| login.openid()),
        "roles": identity.iter().flat_map(|identity| identity.values("roles")).collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(&body),
    }))
}

#[expect(clippy::panic, reason = "panicking is what it is for")]
async fn panics(Path(place): Path<String>) -> Response<Body> {
    match place.as_str() {
        "now" => panic!("secret reason"),
        "later" => {
            tokio::time::sleep(Duration::from_millis(10)).await;
            panic!("secret reason")
        }
        "body" => {
            let pieces = stream::unfold(0, |n| async move {
                // Long enough for the first pieces to be on their way.
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(n < 3, "secret reason");
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"piece ")), n + 1))
            });
            Response::new(Body::from_stream(pieces))
        }
        _ => Response::new(Body::from("calm")),
    }
}

#[expect(clippy::disallowed_methods, reason = "blocking the thread is what it is for")]
async fn stall() -> &'static str {
    std::thread::sleep(Duration::from_millis(300));
    "woken"
}

async fn slow(Path(ms): Path<u64>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("waited {ms}")
}

async fn big(Path(bytes): Path<usize>) -> Body {
    let pieces = stream::unfold(bytes, |left| async move {
        let piece = left.min(65_536);
        (piece > 0).then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; piece])), left - piece))
    });
    Body::from_stream(pieces)
}

/// Takes the connection over and repeats what comes, in capitals.
async fn upgrade(request: Request) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = hyper_util::rt::TokioIo::new(upgraded);
        let mut bytes = [0; 1024];
        while let Ok(count) = stream.read(&mut bytes).await {
            let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else { return };
            if stream.write_all(&read.to_ascii_uppercase()).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("capitals"));
    response
}
