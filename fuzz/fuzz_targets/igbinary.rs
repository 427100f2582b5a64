//! Whatever a store has for a session in igbinary's format: it reads the same, whatever else is wanted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strangler::protocol::session::{FieldPath, Format, Wanted};

fuzz_target!(|bytes: &[u8]| {
    let bytes = [b"\0\0\0\x02", bytes].concat();
    let paths: Vec<FieldPath> = ["a", "b.a", "b.0.c"].map(|path| FieldPath::dotted(path).unwrap()).into();
    let Ok(all) = Format::Igbinary.read(&bytes, &Wanted::new(paths.clone()).unwrap()) else { return };
    for (path, found) in paths.into_iter().zip(all.iter()) {
        let one = Format::Igbinary.read(&bytes, &Wanted::one(path)).unwrap();
        assert_eq!(format!("{:?}", one.get(0)), format!("{found:?}"));
    }
});
