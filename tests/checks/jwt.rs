//! Bearers of signed tokens, and an authority that exchanges its keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, gateway};
use crate::support::upstream::{Service, service, upstream};
use crate::support::{eventually, php};

/// Somebody who signs tokens.
struct Signer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

fn signer(kid: &'static str) -> Signer {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    Signer { kid, pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key") }
}

impl Signer {
    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "use": "sig", "x": x })
    }

    fn pem(&self) -> String {
        let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", self.pair.public_key().as_ref()].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(spki);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// A token of this user for another minute.
    fn token(&self, user: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": "EdDSA", "kid": self.kid }));
        let claims = part(json!({ "sub": user, "exp": now + 60, "realm": { "roles": ["admin", "editor"] } }));
        let message = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// An authority that publishes keys, counts who asks, and can be out of order.
struct Authority {
    service: Service,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
}

impl Authority {
    async fn publishing(keys: Vec<Value>) -> Self {
        let (keys, asked) = (Arc::new(Mutex::new(Some(keys))), Arc::new(AtomicUsize::new(0)));
        let (published, counted) = (Arc::clone(&keys), Arc::clone(&asked));
        let answer = move || {
            let (published, counted) = (Arc::clone(&published), Arc::clone(&counted));
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                match &*published.lock().expect("the keys") {
                    Some(keys) => (StatusCode::OK, json!({ "keys": keys }).to_string()),
                    None => (StatusCode::INTERNAL_SERVER_ERROR, "out of order".to_owned()),
                }
            }
        };
        Self { service: service(Router::new().route("/keys", get(answer))).await, keys, asked }
    }

    fn publish(&self, keys: Option<Vec<Value>>) {
        *self.keys.lock().expect("the keys") = keys;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn table(&self, extra: &str) -> String {
        format!(
            "[check.bearer]\nkind = \"jwt\"\nalgorithms = [\"EdDSA\"]\njwks = \"{}/keys\"\n{extra}\n\
             [[route]]\nname = \"api\"\npath = \"/api\"\nlegacy = \"app\"\ncheck = [\"bearer\"]\n",
            self.service.url()
        )
    }
}

async fn ask(gateway: &Gateway, token: &str) -> (u16, String) {
    let request = gateway.request("GET", "/api").header("Authorization", format!("Bearer {token}"));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("its body"))
}

#[tokio::test]
async fn who_a_token_names_is_the_same_for_a_handler_a_service_and_php() {
    let (known, stranger) = (signer("one"), signer("one"));
    let php = php().start().await;
    let pem = php.dir().join("key.pem");
    std::fs::write(&pem, known.pem()).expect("the key");
    let heard = |headers: HeaderMap| async move {
        format!("{} {}", headers["x-strangler-user"].to_str().unwrap(), headers["x-strangler-roles"].to_str().unwrap())
    };
    let app = service(Router::new().fallback(get(heard))).await;
    let gateway = gateway()
        .probe()
        .toml(php.upstream("php = \"files\""))
        .toml(upstream("app", &[app.url()], ""))
        .toml(format!(
            "[check.bearer]\nkind = \"jwt\"\nalgorithms = \"EdDSA\"\nkeys = {{ one = {{ file = \"{}\" }} }}\n\
             token = [\"header:authorization\", \"cookie:token\"]\nfields = {{ roles = \"realm.roles\" }}\n",
            pem.display()
        ))
        .toml("[defaults]\ncheck = [\"bearer\"]\n")
        .toml("[[route]]\nname = \"php\"\npath = \"/echo.php\"\nlegacy = \"php\"\n")
        .toml("[[route]]\nname = \"service\"\npath = \"/service\"\nlegacy = \"app\"\n")
        .toml("[[route]]\nname = \"handler\"\npath = \"/handler\"\nnew = \"hello\"\nserve = \"new\"\n")
        .start()
        .await;
    let asked = async |path: &str, name: &str, value: String| {
        let request = gateway.request("GET", path).header(name, value).header("X-Strangler-User", "root");
        let answer = request.header("X_Strangler_Roles", "root").send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("its body"))
    };
    let token = known.token("7");
    let (_, php_saw) = asked("/echo.php", "Authorization", format!("bearer {token}")).await;
    let php_saw: Value = serde_json::from_str(&php_saw).expect("JSON");
    assert_eq!(php_saw["server"]["HTTP_X_STRANGLER_USER"], "7");
    assert_eq!(php_saw["server"]["HTTP_X_STRANGLER_ROLES"], "admin,editor");
    assert_eq!(asked("/service", "Cookie", format!("token={token}")).await.1, "7 admin,editor");
    let (_, handler_saw) = asked("/handler", "Authorization", format!("Bearer {token}")).await;
    assert!(handler_saw.contains(r#"["x-strangler-user","7"]"#) && !handler_saw.contains("root"), "{handler_saw}");

    let refused = r#"{"code":40103,"message":"token refused","data":null}"#.to_owned();
    for (token, reason) in [(stranger.token("7"), "signature"), (signer("two").token("7"), "unknown_key")] {
        assert_eq!(asked("/service", "Authorization", format!("Bearer {token}")).await, (401, refused.clone()));
        let labels = [("route", "service"), ("check", "bearer"), ("reason", reason)];
        gateway.until_metric("strangler_check_refused_total", &labels, 1.0).await;
    }
    assert_eq!(asked("/service", "X-Other", token.clone()).await, (401, refused.clone()));
    assert_eq!(asked("/service", "Authorization", "x".repeat(9000)).await, (401, refused));
    assert!(!gateway.log().contains(&token) && !format!("{:?}", gateway.records()).contains(&token));
}

#[tokio::test]
async fn a_new_key_of_the_authority_is_found_and_made_up_ones_cost_it_nothing() {
    let (first, second) = (signer("first"), signer("second"));
    let authority = Authority::publishing(vec![first.jwk()]).await;
    let app = service(Router::new().fallback(get(async || "in"))).await;
    let table = format!("{}{}", upstream("app", &[app.url()], ""), authority.table(""));
    let gateway = gateway().toml(table).start().await;
    let (old, new) = (first.token("7"), second.token("7"));
    assert_eq!(ask(&gateway, &old).await.0, 200);
    assert_eq!(ask(&gateway, &old).await.0, 200);
    assert_eq!(authority.asked(), 1);

    authority.publish(Some(vec![second.jwk()]));
    assert_eq!(ask(&gateway, &new).await.0, 200);
    assert_eq!(authority.asked(), 2);
    assert_eq!(ask(&gateway, &old).await.0, 401, "its key is withdrawn, though the token was remembered");
    for n in 0..20 {
        let made_up = signer(if n % 2 == 0 { "made" } else { "up" });
        assert_eq!(ask(&gateway, &made_up.token("7")).await.0, 401);
    }
    assert_eq!(authority.asked(), 2);

    authority.publish(None);
    assert_eq!(ask(&gateway, &new).await.0, 200);
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background_and_kept_for_a_while_without_the_authority() {
    let (first, second) = (signer("first"), signer("second"));
    let authority = Authority::publishing(vec![first.jwk()]).await;
    let app = service(Router::new().fallback(get(async || "in"))).await;
    let times = "jwks_refresh = \"100ms\"\njwks_keep = \"2s\"";
    let table = format!("{}{}", upstream("app", &[app.url()], ""), authority.table(times));
    let gateway = gateway().toml(table).start().await;
    let (old, new) = (first.token("7"), second.token("7"));
    assert_eq!(ask(&gateway, &old).await.0, 200);

    authority.publish(Some(vec![second.jwk()]));
    let until = async |token: &str, status: u16| {
        let what = format!("{status} for that token");
        eventually(&what, || async { (ask(&gateway, token).await.0 == status).then_some(()) }).await;
    };
    until(&old, 401).await;
    assert_eq!(ask(&gateway, &new).await.0, 200);

    authority.publish(None);
    assert_eq!(ask(&gateway, &new).await.0, 200);
    until(&new, 503).await;
    gateway.until_logged("cannot get the keys of tokens").await;
    authority.publish(Some(vec![second.jwk()]));
    crate::support::eventually_within(Duration::from_secs(20), "the authority is back", || async {
        (ask(&gateway, &new).await.0 == 200).then_some(())
    })
    .await;
}
