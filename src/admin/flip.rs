//! `POST /api/routes/{name}/serve`: changes who serves a route, by having the file edited.
//!
//! This room reads what is asked and tells what came of it. The editing is the config room's, which
//! stands above: the command line, which knows both, hands it in as a [`Flip`].

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::answer::refused;
use crate::http::hex;

/// Bytes of an order.
const LARGEST: usize = 4 << 10;
/// How long an order may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Edits the file; it waits for the disk, so it is called where waiting is allowed.
pub(crate) type Flip = dyn Fn(&Order) -> Result<Done, Refused> + Send + Sync;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) route: String,
    pub(crate) serve: String,
    /// The content of the file that the operator has seen, as [`super::ReloadStatus`] has it; `None`: whatever it is.
    pub(crate) seen: Option<u64>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// As written before; `None`: the route inherited it.
    pub(crate) from: Option<String>,
    /// `routes.toml:11`.
    pub(crate) place: String,
    /// Whether the file was written: it may have said so already.
    pub(crate) changed: bool,
}

/// Why the file is as it was; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No route of this name.
    NoRoute(String),
    /// Nothing that can serve, or a file that would not load.
    Faulty(String),
    /// The file is not the one that the operator has seen.
    Changed(String),
    /// The file cannot be written.
    Failed(String),
}

/// The route's name in `/api/routes/{name}/serve`; `None`: another path.
pub(super) fn route_of(path: &str) -> Option<String> {
    let name = path.strip_prefix("/api/routes/")?.strip_suffix("/serve")?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let mut decoded = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex::byte(bytes.next()?, bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

/// Reads an order and has it done.
pub(super) async fn answer<B>(route: String, body: B, flip: &Arc<Flip>) -> (StatusCode, Value)
where
    B: ::http_body::Body<Data = Bytes>,
    B::Error: Into<crate::http::BoxError>,
{
    let order = match tokio::time::timeout(PATIENCE, Limited::new(body, LARGEST).collect()).await {
        Ok(Ok(body)) => order(route, &body.to_bytes()),
        _ => None,
    };
    let Some(order) = order else {
        return refusal(StatusCode::BAD_REQUEST, 40001, r#"send {"serve": "new", "seen": "HASH"}"#);
    };
    let flip = Arc::clone(flip);
    let asked = order.clone();
    let done = tokio::task::spawn_blocking(move || flip(&asked)).await;
    let failed = |_| Err(Refused::Failed("the flip broke off; the log says why".to_owned()));
    match done.unwrap_or_else(failed) {
        Ok(Done { from, place, changed }) => {
            tracing::info!(route = order.route, serve = order.serve, changed, "flipped by the admin port");
            let Order { route, serve, .. } = order;
            let told = json!({ "route": route, "from": from, "to": serve, "place": place, "changed": changed });
            (StatusCode::OK, told)
        }
        Err(Refused::NoRoute(why)) => refusal(StatusCode::NOT_FOUND, 40401, &why),
        Err(Refused::Changed(why)) => refusal(StatusCode::CONFLICT, 40901, &why),
        Err(Refused::Faulty(why)) => refusal(StatusCode::UNPROCESSABLE_ENTITY, 42201, &why),
        Err(Refused::Failed(why)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, 50002, &why),
    }
}

fn order(route: String, body: &[u8]) -> Option<Order> {
    let asked: Value = serde_json::from_slice(body).ok()?;
    let seen = match asked.get("seen") {
        None | Some(Value::Null) => None,
        Some(seen) => Some(u64::from_str_radix(seen.as_str()?, 16).ok()?),
    };
    Some(Order { route, serve: asked.get("serve")?.as_str()?.to_owned(), seen })
}

fn refusal(status: StatusCode, code: u32, message: &str) -> (StatusCode, Value) {
    (status, refused(code, message))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn asked(body: &str, outcome: Result<Done, Refused>) -> (u16, Value) {
        let flip: Arc<Flip> = Arc::new(move |_| outcome.clone());
        let (status, told) = answer("order".to_owned(), Full::new(Bytes::from(body.to_owned())), &flip).await;
        (status.as_u16(), told)
    }

    #[test]
    fn the_route_of_the_path_may_be_named_by_its_own_path() {
        assert_eq!(route_of("/api/routes/order/serve").as_deref(), Some("order"));
        assert_eq!(route_of("/api/routes/%2Fapi%2Forders%2F%7Bid%7D/serve").as_deref(), Some("/api/orders/{id}"));
        assert_eq!(route_of("/api/routes/serve/serve").as_deref(), Some("serve"));
        for path in ["/api/routes//serve", "/api/routes/a/b/serve", "/api/routes/%zz/serve", "/api/routes/order"] {
            assert_eq!(route_of(path), None, "{path}");
        }
    }

    #[test]
    fn an_order_says_who_shall_serve_and_what_was_seen() {
        let order = |body: &str| order("order".to_owned(), body.as_bytes());
        let asked = Order { route: "order".to_owned(), serve: "new".to_owned(), seen: Some(0x1f) };
        assert_eq!(order(r#"{"serve": "new", "seen": "000000000000001f"}"#), Some(asked));
        assert_eq!(order(r#"{"serve": "new"}"#).unwrap().seen, None);
        for body in ["", "new", "{}", r#"{"serve": 1}"#, r#"{"serve": "new", "seen": 31}"#] {
            assert_eq!(order(body), None, "{body}");
        }
    }

    #[tokio::test]
    async fn what_became_of_an_order_is_told_with_its_reason() {
        let done = Done { from: Some("legacy".to_owned()), place: "routes.toml:11".to_owned(), changed: true };
        let (status, told) = asked(r#"{"serve": "new"}"#, Ok(done)).await;
        assert_eq!((status, &told["from"], &told["to"]), (200, &json!("legacy"), &json!("new")));
        let no = || "no".to_owned();
        let cases = [
            (Refused::NoRoute(no()), 404),
            (Refused::Changed(no()), 409),
            (Refused::Faulty(no()), 422),
            (Refused::Failed(no()), 500),
        ];
        for (refused, status) in cases {
            let (told_status, told) = asked(r#"{"serve": "new"}"#, Err(refused)).await;
            assert_eq!((told_status, &told["message"]), (status, &json!("no")));
        }
        let long = format!("{{\"serve\": \"{}\"}}", "x".repeat(LARGEST));
        assert_eq!(asked(&long, Err(Refused::NoRoute(no()))).await.0, 400);
    }
}
