//! Whatever a store has for a session: it reads the same twice, a field does not depend on what else is wanted, and what
//! was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strangler::protocol::session::{FieldPath, Format, Value, Wanted};

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    let format = [Format::Json, Format::Php, Format::PhpSerialize, Format::PhpBinary][usize::from(choice % 4)];
    let paths: Vec<FieldPath> = ["a", "b.a", "b.0.c"].map(|path| FieldPath::dotted(path).unwrap()).into();
    let Ok(all) = format.read(bytes, &Wanted::new(paths.clone()).unwrap()) else { return };
    for (path, found) in paths.into_iter().zip(all.iter()) {
        let one = format.read(bytes, &Wanted::one(path.clone())).unwrap();
        assert_eq!(format!("{:?}", one.get(0)), format!("{found:?}"));
        let Some(value) = found else { continue };
        let Ok(written) = format.write(&[(&path, value.clone())]) else { continue };
        let again = format.read(&written, &Wanted::one(path)).unwrap();
        // A NaN is unequal to itself, and JSON's floats lose their last bits.
        if !matches!(value, Value::Float(_) | Value::List(_)) {
            assert_eq!(again.get(0), Some(value));
        }
    }
});
