//! Whatever stands in Signature-Input and Signature: a signature is read or refused, and one that is
//! read ends its base in its own parameters, with one line for each component.
#![no_main]

use http::{HeaderMap, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use strangler::protocol::rfc9421::{Message, read};

fuzz_target!(|fields: (&[u8], &[u8], &[u8])| {
    let mut headers = HeaderMap::new();
    for (name, value) in [("signature-input", fields.0), ("signature", fields.1), ("x-a", fields.2)] {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.insert(name, value);
    }
    let target = Uri::from_static("/foo?param=Value&Pet=dog&Pet=cat&a=%zz");
    let message =
        Message { method: "POST", target: &target, authority: "shop.example", https: false, headers: &headers };
    if let Ok(signed) = read(&message, None) {
        let lines: Vec<&str> = signed.base.split('\n').collect();
        assert_eq!(lines.len(), signed.covered.len() + 1);
        assert!(lines[lines.len() - 1].starts_with("\"@signature-params\": ("));
    }
});
