//! The check as a whole, but for the network: see `tests/checks/signature.rs` for that.

use std::net::SocketAddr;

use ::http::{Method, Request};

use super::algorithm::Algorithm;
use super::keys::tests::key;
use super::parameters::Canonical;
use super::string::StringScheme;
use super::template::Template;
use super::*;
use crate::http::{Client, Host, RequestBody};

fn settings(apps: &[(&str, &str)]) -> Settings {
    Settings {
        scheme: SchemeSettings::String(Box::new(StringScheme {
            algorithm: Algorithm::HmacSha256,
            encoding: algorithm::Encoding::Hex,
            canonical: Canonical::Decoded,
            template: Template::parse("{params}").unwrap(),
            fields: fields::Fields::default(),
        })),
        apps: apps.iter().map(|(app, secret)| ((*app).to_owned(), vec![key(secret, None)])).collect(),
        window: Duration::from_secs(300),
        nonces: NonceSettings::Kept { address: Address::Memory, capacity: 1000, on_store_down: OnStoreDown::Deny },
        spool_memory: 1 << 10,
        spool_disk: 1 << 20,
    }
}

/// A check that remembers nonces in memory, and goes on from another one.
fn check(settings: Settings, running: Option<&Signature>) -> Signature {
    let memory = running.and_then(Signature::memory).cloned().unwrap_or_else(|| Arc::new(Memory::new(now())));
    Signature::new(settings, &memory, None, running)
}

fn unsigned(target: &str, timestamp: u64, nonce: &str) -> Unsigned {
    let request = Request::get(target).header("host", "shop.example").body(()).unwrap();
    let head = request.into_parts().0;
    let (app, nonce) = ("shop-app".to_owned(), nonce.to_owned());
    Unsigned { head, host: "shop.example".to_owned(), body: Vec::new(), app, timestamp, nonce }
}

/// The reason of a refusal, or nothing for a request that passes.
async fn examined(check: &Signature, head: &request::Parts) -> Option<&'static str> {
    let loopback: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let host = Host::of(head.version, &head.uri, &head.headers).unwrap();
    let mut subject = Subject {
        head,
        host: &host,
        client: &Client::of_connection(loopback, loopback),
        request_id: &::http::HeaderValue::from_static("id"),
        body: &mut RequestBody::empty(),
        deadline: tokio::time::Instant::now() + Duration::from_secs(5),
    };
    match check.examine(&mut subject).await {
        Verdict::Pass(_) => None,
        Verdict::Refuse(refused) | Verdict::Legacy(refused) => {
            assert_eq!(refused.answer, Answer::SignatureRefused);
            Some(refused.reason)
        }
        Verdict::Answered { .. } => panic!("nobody was asked"),
    }
}

#[tokio::test]
async fn the_published_vector_is_signed_as_published() {
    let check = check(settings(&[("shop-app", "s3cret")]), None);
    let signed = check.sign(unsigned("/cart?sku=A%201%2Fb", 1_700_000_000, "n-1")).unwrap();
    assert_eq!(signed.string, b"app=shop-app&nonce=n-1&sku=A 1/b&timestamp=1700000000");
    assert_eq!(signed.signature, "7794e3a1cb6a96955d3834bac756abc400774997c40a170234d93cda4db1d301");
    assert_eq!(examined(&check, &signed.head).await, Some("stale"));
}

#[tokio::test]
async fn each_step_that_fails_has_its_own_reason_and_all_have_one_answer() {
    let check = check(settings(&[("shop-app", "s3cret"), ("till", "t")]), None);
    let signed = |timestamp, nonce| check.sign(unsigned("/cart?sku=1", timestamp, nonce)).unwrap().head;
    let changed = |head: &request::Parts, from: &str, to: &str| {
        let mut head = head.clone();
        head.uri = head.uri.to_string().replace(from, to).parse().unwrap();
        head
    };
    let good = signed(now(), "n-1");
    assert_eq!(examined(&check, &changed(&good, "sku=1", "sku=2")).await, Some("signature"));
    assert_eq!(examined(&check, &changed(&good, "shop-app", "till")).await, Some("signature"));
    assert_eq!(examined(&check, &changed(&good, "shop-app", "nobody")).await, Some("unknown_key"));
    assert_eq!(examined(&check, &changed(&good, "&nonce=n-1", "")).await, Some("missing"));
    assert_eq!(examined(&check, &changed(&good, "sku=1", "sku=1&sku=1")).await, Some("ambiguous"));
    assert_eq!(examined(&check, &changed(&good, "&signature=", "&signature=0&signature=")).await, Some("malformed"));
    assert_eq!(examined(&check, &signed(now() - 302, "n-2")).await, Some("stale"));
    assert_eq!(examined(&check, &signed(now() + 302, "n-3")).await, Some("future"));
    // None of these spent the nonce.
    assert_eq!(examined(&check, &good).await, None);
    assert_eq!(examined(&check, &good).await, Some("replay"));
    assert_eq!(check.uses().collect::<Vec<_>>(), [("shop-app", 1), ("till", 0)]);
}

/// Waits until a second has begun that none of what was signed so far is of.
async fn another_second() -> u64 {
    let before = now();
    while now() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    now()
}

fn posted(check: &Signature, timestamp: u64, nonce: &str) -> request::Parts {
    let mut head = check.sign(unsigned("/cart", timestamp, nonce)).unwrap().head;
    head.method = Method::POST;
    head
}

#[tokio::test]
async fn an_unsafe_request_that_could_have_been_accepted_before_the_start_is_refused() {
    let check = check(settings(&[("shop-app", "s3cret")]), None);
    let started = now();
    let got = check.sign(unsigned("/cart", started - 1, "n-2")).unwrap().head;
    assert_eq!(examined(&check, &got).await, None);
    // A gateway that ended this very second would have accepted these.
    for ahead in [0, nonce::LEAD] {
        assert_eq!(examined(&check, &posted(&check, started + ahead, "n-1")).await, Some("restarted"), "{ahead}");
    }
    let later = another_second().await;
    assert_eq!(examined(&check, &posted(&check, later + nonce::LEAD + 2, "n-3")).await, Some("future"));
    assert_eq!(examined(&check, &posted(&check, later + nonce::LEAD, "n-4")).await, None);
    assert_eq!(examined(&check, &posted(&check, later + nonce::LEAD, "n-4")).await, Some("replay"));
}

#[tokio::test]
async fn a_request_is_accepted_once_whichever_place_its_key_has_and_whichever_check_is_asked() {
    let keys = |secrets: &[&str]| {
        let mut settings = settings(&[]);
        let keys = secrets.iter().map(|secret| key(secret, None)).collect();
        settings.apps.insert("shop-app".to_owned(), keys);
        settings
    };
    let mut running = check(keys(&["old"]), None);
    let ahead = another_second().await + nonce::LEAD;
    let head = posted(&running, ahead, "n-1");
    assert_eq!(examined(&running, &head).await, None);
    for changed in [&["new", "old"][..], &["old", "new"], &["old"]] {
        running = check(keys(changed), Some(&running));
        assert_eq!(examined(&running, &head).await, Some("replay"), "{changed:?}");
    }
    let beside = Signature::new(keys(&["old"]), running.memory().unwrap(), None, None);
    assert_eq!(examined(&beside, &head).await, Some("replay"));
}

#[tokio::test]
async fn a_string_whose_parts_touch_is_accepted_once_however_it_is_cut() {
    let mut touching = settings(&[("shop-app", "s3cret")]);
    if let SchemeSettings::String(scheme) = &mut touching.scheme {
        scheme.template = Template::parse("{method}{path}{nonce}{timestamp}").unwrap();
    }
    let check = check(touching, None);
    let ahead = another_second().await + nonce::LEAD;
    let signed = |path: &str, nonce: &str| {
        let mut unsigned = unsigned(path, ahead, nonce);
        unsigned.head.method = Method::POST;
        check.sign(unsigned).unwrap().head
    };
    let cut = signed("/orders/1", "23");
    let mut cut_elsewhere = signed("/orders/12", "3");
    assert_eq!(cut.uri.query().unwrap().replace("=23", "=3"), cut_elsewhere.uri.query().unwrap());
    assert_eq!(examined(&check, &cut).await, None);
    assert_eq!(examined(&check, &cut_elsewhere).await, Some("replay"));
    // A zero that was the nonce's last digit is none of the timestamp's.
    cut_elsewhere.uri = signed("/orders/7", "40").uri.to_string().replace("nonce=40", "nonce=4").parse().unwrap();
    let timestamp = format!("timestamp={ahead}");
    cut_elsewhere.uri =
        cut_elsewhere.uri.to_string().replace(&timestamp, &format!("timestamp=0{ahead}")).parse().unwrap();
    assert_eq!(examined(&check, &cut_elsewhere).await, Some("malformed"));
}

#[tokio::test]
async fn spent_nonces_outlive_every_change_of_the_settings() {
    let mut running = check(settings(&[("shop-app", "s3cret")]), None);
    let ahead = another_second().await + nonce::LEAD;
    let head = posted(&running, ahead, "n-1");
    assert_eq!(examined(&running, &head).await, None);
    let mut wider = settings(&[("shop-app", "s3cret"), ("till", "t")]);
    wider.window = Duration::from_secs(600);
    let mut roomier = wider.clone();
    roomier.nonces =
        NonceSettings::Kept { address: Address::Memory, capacity: 9000, on_store_down: OnStoreDown::Memory };
    for (n, changed) in [wider, roomier, settings(&[("shop-app", "s3cret")])].into_iter().enumerate() {
        running = check(changed, Some(&running));
        assert_eq!(examined(&running, &head).await, Some("replay"), "{n}");
        assert_eq!(examined(&running, &posted(&running, ahead, &format!("m-{n}"))).await, None, "no start anew: {n}");
    }
}

#[tokio::test]
async fn a_message_signature_made_here_is_accepted_here_once() {
    let mut settings = settings(&[("shop-app", "s3cret")]);
    settings.scheme = SchemeSettings::Rfc9421(Profile { components: Vec::new(), tag: Some("shop".to_owned()) });
    let check = check(settings, None);
    let signed = check.sign(unsigned("/cart?b=1", now(), "n-1")).unwrap();
    assert!(
        signed
            .string
            .starts_with(b"\"@method\": GET\n\"@authority\": shop.example\n\"@path\": /cart\n\"@query\": ?b=1\n")
    );
    let mut moved = signed.head.clone();
    moved.uri = "/cart?b=2".parse().unwrap();
    assert_eq!(examined(&check, &moved).await, Some("signature"));
    assert_eq!(examined(&check, &signed.head).await, None);
    assert_eq!(examined(&check, &signed.head).await, Some("replay"));
}
