//! Whatever a query holds: it has no canonical form, or one that the order sent does not change, and
//! in the percent form one from which the parameters can be read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strangler::protocol::parameters::{Canonical, Parameters};

fuzz_target!(|query: &[u8]| {
    let join = |query: &[u8], canonical| {
        let mut parameters = Parameters::default();
        parameters.read(query)?;
        parameters.join("", &[], canonical, &[])
    };
    let pieces: Vec<&[u8]> = query.split(|byte| *byte == b'&').rev().collect();
    let back = pieces.join(&b"&"[..]);
    for canonical in [Canonical::Decoded, Canonical::Percent] {
        let forth = join(query, canonical);
        assert_eq!(forth, join(&back, canonical));
    }
    if let Ok(percent) = join(query, Canonical::Percent) {
        assert_eq!(join(&percent, Canonical::Percent), Ok(percent));
    }
});
