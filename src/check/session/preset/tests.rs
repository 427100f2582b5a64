//! What PHP made, by the frameworks' own rules: WordPress's by WordPress itself.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{laravel, symfony, wordpress};
use crate::check::session::format::{FieldPath, Format, Value, Wanted};

fn php(script: &str) -> Json {
    let script = format!("{}/src/check/session/preset/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new("php").args(["-d", "display_errors=0", "-d", "log_errors=0", &script]).output().expect("php runs");
    assert!(output.status.success(), "{script} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

fn ciphers() -> Vec<(laravel::Cipher, Json)> {
    let cipher = |made: &Json| laravel::Cipher::NAMES.iter().find(|(name, _)| made["cipher"] == *name).unwrap().1;
    php("laravel.php").as_array().unwrap().iter().map(|made| (cipher(made), made.clone())).collect()
}

#[test]
fn laravels_cookie_names_the_session() {
    for (cipher, made) in ciphers() {
        let older =
            format!("base64:{}", BASE64.encode(vec![7; if text(&made["cipher"]).contains("128") { 16 } else { 32 }]));
        let keys = laravel::Keys::new(cipher, [text(&made["key"])]).unwrap();
        let id = text(&made["id"]).to_owned();
        assert_eq!(keys.session_id("shop-session", text(&made["cookie"])), Ok(id.clone()), "{cipher:?}");
        assert!(keys.session_id("other", text(&made["cookie"])).is_err(), "given out as another");
        let rotated = laravel::Keys::new(cipher, [&older, text(&made["key"])]).unwrap();
        assert_eq!(rotated.session_id("shop-session", text(&made["cookie"])), Ok(id));
        let foreign = laravel::Keys::new(cipher, [&*older]).unwrap();
        assert!(foreign.session_id("shop-session", text(&made["cookie"])).is_err());
    }
}

#[test]
fn a_changed_cookie_of_laravel_is_refused_whatever_was_changed() {
    for (cipher, made) in ciphers() {
        let keys = laravel::Keys::new(cipher, [text(&made["key"])]).unwrap();
        let payload = BASE64.decode(text(&made["cookie"])).unwrap();
        for field in ["iv", "value", "mac", "tag"] {
            let mut changed: Json = serde_json::from_slice(&payload).unwrap();
            let Some(first) = text(&changed[field]).chars().next() else { continue };
            let other = if first == 'a' { "b" } else { "a" };
            changed[field] = format!("{other}{}", &text(&changed[field])[1..]).into();
            let cookie = BASE64.encode(changed.to_string());
            assert!(keys.session_id("shop-session", &cookie).is_err(), "{cipher:?}: {field}");
            changed[field] = "".into();
            assert!(
                keys.session_id("shop-session", &BASE64.encode(changed.to_string())).is_err(),
                "{cipher:?}: {field}"
            );
        }
    }
}

#[test]
fn laravels_user_is_found_in_every_store() {
    let layers = laravel::Layers::default();
    for (cipher, made) in ciphers() {
        let keys = laravel::Keys::new(cipher, [text(&made["key"])]).unwrap();
        let wanted = Wanted::one(laravel::user_path("web"));
        let stored = [
            ("file", layers),
            ("redis", laravel::Layers { cached: true, ..layers }),
            ("json", laravel::Layers { json: true, ..layers }),
            ("encrypted", laravel::Layers { encrypted: true, ..layers }),
        ];
        for (store, layers) in stored {
            let fields = layers.read(text(&made[store]).as_bytes(), &keys, &wanted).unwrap();
            assert_eq!(fields.get(0), Some(&Value::Int(42)), "{store}");
        }
        assert!(layers.read(text(&made["redis"]).as_bytes(), &keys, &wanted).is_err(), "layers are never guessed");
    }
}

#[test]
fn a_key_of_laravel_fits_its_cipher() {
    let fault = |key| laravel::Keys::new(laravel::Cipher::Aes256Cbc, [key]).map(|_| ()).unwrap_err();
    assert_eq!(fault("short"), laravel::KeyFault::Length { found: 5, right: 32 });
    assert_eq!(fault("base64:?"), laravel::KeyFault::NotBase64);
    let key = "0123456789abcdef0123456789abcdef";
    let keys = laravel::Keys::new(laravel::Cipher::Aes256Cbc, [key]).unwrap();
    assert!(!format!("{keys:?}").contains("0123"), "{keys:?}");
}

#[test]
fn symfonys_user_is_found_in_the_token() {
    for session in php("symfony.php").as_array().unwrap() {
        let session = BASE64.decode(text(session)).unwrap();
        let wanted = vec![symfony::token_path("main"), symfony::attribute_path("cart.items").unwrap()];
        let fields = Format::PhpSerialize.read(&session, &Wanted::new(wanted).unwrap()).unwrap();
        let Some(Value::Text(token)) = fields.get(0) else { panic!("no token: {fields:?}") };
        assert_eq!(fields.get(1), Some(&Value::Int(3)));
        let symfony = |property: &str| symfony::Symfony { format: Format::PhpSerialize, property: property.to_owned() };
        let user = |property| symfony(property).user(&Value::Text(token.clone())).unwrap();
        assert_eq!(user("email").unwrap().as_id().as_deref(), Some("ann@example.org"));
        assert_eq!(user("id"), Some(Value::Int(7)));
        assert_eq!(user("absent"), None);
    }
    let symfony = symfony::Symfony { format: Format::Php, property: "email".to_owned() };
    for token in [Value::Text(b"a:0:{}".into()), Value::Int(7)] {
        assert!(symfony.user(&token).is_err());
    }
}

#[test]
fn wordpress_believes_the_cookies_that_it_made() {
    let made = php("wordpress.php");
    let salt = wordpress::Salt::new("key of the site", "salt of the site").unwrap();
    for made in made["cookies"].as_array().unwrap() {
        let (hash, value) = (text(&made["hash"]), text(&made["cookie"]));
        let cookie = wordpress::LoginCookie::parse(value).unwrap();
        assert_eq!(cookie.is_genuine(hash, &salt), Ok(true));
        assert_eq!(cookie.is_genuine("$P$Bnewpassword0000000000000000000", &salt), Ok(false));
        let other = wordpress::Salt::new("key of the site", "salt of another").unwrap();
        assert_eq!(cookie.is_genuine(hash, &other), Ok(false));
        let forged = value.replacen("ann", "bob", 1);
        assert_eq!(wordpress::LoginCookie::parse(&forged).unwrap().is_genuine(hash, &salt), Ok(false));
        assert!(cookie.is_genuine("5f4dcc3b5aa765d61d8327deb882cf99", &salt).is_err(), "versions differ");

        assert!(!cookie.is_expired(2_000_000_000) && cookie.is_expired(2_000_000_001));
    }
    let cookie = wordpress::LoginCookie::parse(text(&made["cookies"][0]["cookie"])).unwrap();
    for tokens in made["tokens"].as_array().unwrap() {
        let tokens = BASE64.decode(text(tokens)).unwrap();
        assert_eq!(cookie.is_among(&tokens, 2_000_000_000), Ok(true));
        assert_eq!(cookie.is_among(&tokens, 2_000_000_001), Ok(false));
    }
    assert_eq!(cookie.is_among(b"a:0:{}", 0), Ok(false), "logged out");
}

#[test]
fn a_cookie_of_wordpress_has_four_parts_and_a_time() {
    for value in ["", "a|1|t", "a|1|t|h|x", "a||t|h", "a|-1|t|h", "a|+1|t|h", "a|99999999999999999999|t|h"] {
        assert!(wordpress::LoginCookie::parse(value).is_err(), "{value}");
    }
    assert!(wordpress::Salt::new("put your unique phrase here", "x").is_none());
}

#[test]
fn what_wordpress_has_of_a_user_says_who_logs_in_and_what_may_be_told() {
    let made = php("wordpress.php");
    let site = wordpress::WordPress { salt: wordpress::Salt::new("key of the site", "salt of the site").unwrap() };
    let (hash, cookie) = (text(&made["cookies"][0]["hash"]), text(&made["cookies"][0]["cookie"]));
    let tokens = String::from_utf8(BASE64.decode(text(&made["tokens"][0])).unwrap()).unwrap();
    let record = |hash: &str, tokens: Option<&str>, capabilities: Option<&str>| {
        serde_json::json!({
            "ID": "7", "user_login": "ann", "user_email": "ann@example.org", "user_pass": hash,
            "session_tokens": tokens, "capabilities": capabilities,
        })
        .to_string()
        .into_bytes()
    };
    assert_eq!(site.login(cookie), "ann");
    assert_eq!(site.session(cookie).len(), 64);
    let objection = |record: &[u8], now| site.objection(cookie, record, now);
    let whole = record(hash, Some(&tokens), None);
    assert_eq!(objection(&whole, 2_000_000_000), Ok(None));
    assert_eq!(objection(&whole, 2_000_000_001), Ok(Some("expired")));
    assert_eq!(objection(&record(hash, None, None), 0), Ok(Some("unknown")));
    assert_eq!(objection(&record("$P$Bnewpassword0000000000000000000", Some(&tokens), None), 0), Ok(Some("signature")));
    assert!(objection(&record(hash, Some("a:1:{"), None), 0).is_err() && objection(b"{", 0).is_err());

    let wanted = ["ID", "user_email", "roles", "user_pass", "session_tokens"].map(|name| FieldPath::of(&[name]));
    let wanted = Wanted::new(wanted.into()).unwrap();
    let told = |capabilities| wordpress::WordPress::read(&record(hash, Some(&tokens), capabilities), &wanted);
    let names =
        |names: &[&'static str]| Value::List(names.iter().map(|name| Value::Text(name.as_bytes().into())).collect());
    let fields = told(Some("a:3:{s:13:\"administrator\";b:1;s:6:\"editor\";b:0;s:6:\"a\";b:1\";b:1;}")).unwrap();
    assert_eq!(fields.get(0).and_then(Value::as_id).as_deref(), Some("7"));
    assert_eq!(fields.get(2), Some(&names(&["administrator", "a\";b:1"])));
    assert_eq!((fields.get(3), fields.get(4)), (None, None), "what proves a login is told to nobody");
    assert_eq!(told(None).unwrap().get(2), Some(&names(&[])));
    for unreadable in
        ["x", "a:1:{", "a:1:{s:9:\"editor\";b:1;}", "a:1:{i:0;s:6:\"editor\";}", "a:1:{s:1:\"a\";O:1:\"A\":0:{}}"]
    {
        assert!(told(Some(unreadable)).is_err(), "{unreadable}");
    }
}

proptest! {
    #[test]
    fn no_cookie_and_no_capabilities_of_wordpress_make_a_reader_panic(
        cookie in ".{0,40}(\\|.{0,20}){0,4}",
        capabilities in "(a:[0-9]{1,2}:\\{)?(s:[0-9]{1,2}:\"|\";|b:1;|[a-zé]{0,3}|[:;{}\"]){0,20}\\}?",
    ) {
        let site = wordpress::WordPress { salt: wordpress::Salt::new("key", "salt").unwrap() };
        let record = serde_json::json!({ "ID": "7", "user_pass": "$P$é", "capabilities": capabilities }).to_string();
        let _ = site.objection(&cookie, record.as_bytes(), 0);
        let _ = wordpress::WordPress::read(record.as_bytes(), &Wanted::one(FieldPath::of(&["roles"])));
    }
}
