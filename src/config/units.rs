//! Durations and sizes as the file writes them: a whole number and a unit, in quotes.
//!
//! Pure: text in, a value or the right way to write it out. A number without a unit is refused
//! rather than guessed at: `timeout = 30` has meant seconds, milliseconds and minutes in the
//! programs this one stands beside.

use std::time::Duration;

/// Longer is a slip of the keyboard, and beyond what timers and clocks can add without care.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Every unit of time, in milliseconds.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Every unit of size, in bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// What is wrong with a quantity, and how it would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadUnit {
    /// Completes `timeout "30" …`.
    pub(super) what: &'static str,
    pub(super) remedy: String,
}

/// Reads `"250ms"`, `"5s"`, `"10m"`, `"1h"`.
pub(super) fn duration(text: &str) -> Result<Duration, BadUnit> {
    let guess = |number: &str, unit: &str| {
        let unit = unit.to_ascii_lowercase();
        let near = if unit.starts_with("mi") && !unit.starts_with("mil") {
            "m"
        } else if unit.starts_with("mil") || unit.starts_with("ms") {
            "ms"
        } else {
            TIMES.iter().map(|(name, _)| *name).find(|name| unit.starts_with(name)).unwrap_or("s")
        };
        format!("write \"{number}{near}\" (units are ms, s, m, h, d)")
    };
    let milliseconds = quantity(text, &TIMES, guess, "write one like \"250ms\", \"5s\", \"10m\" or \"1h\"")?;
    let duration = Duration::from_millis(milliseconds);
    if duration > LONGEST {
        return Err(BadUnit { what: "is more than a year", remedy: "write at most \"366d\"".to_owned() });
    }
    Ok(duration)
}

/// Reads `"512B"`, `"64KiB"`, `"1MiB"`, `"1MB"`, `"1GiB"`.
pub(super) fn size(text: &str) -> Result<u64, BadUnit> {
    let guess = |number: &str, unit: &str| {
        let near = match unit.bytes().next().map(|first| first.to_ascii_uppercase()) {
            Some(b'K') => "KiB",
            Some(b'M') => "MiB",
            Some(b'G') => "GiB",
            Some(b'T') => "TiB",
            _ => "B",
        };
        format!("write \"{number}{near}\" (units are B, KiB, MiB, GiB, TiB, kB, MB, GB)")
    };
    quantity(text, &SIZES, guess, "write one like \"64KiB\" or \"8MiB\"")
}

fn quantity(
    text: &str,
    units: &[(&str, u64)],
    guess: impl Fn(&str, &str) -> String,
    example: &str,
) -> Result<u64, BadUnit> {
    if text.starts_with('-') {
        return Err(BadUnit { what: "is negative", remedy: example.to_owned() });
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(BadUnit { what: "does not begin with a number", remedy: example.to_owned() });
    }
    if unit.starts_with(['.', ',']) {
        return Err(BadUnit { what: "is not a whole number", remedy: "use a smaller unit".to_owned() });
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let what = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
        return Err(BadUnit { what, remedy: guess(number, unit.trim_start()) });
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| BadUnit { what: "is too large", remedy: example.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_with_a_unit_are_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("0B"), Ok(0));
    }

    #[test]
    fn a_missing_or_wrong_unit_says_what_to_write() {
        let remedy = |text| duration(text).unwrap_err().remedy;
        assert!(remedy("30").starts_with("write \"30s\""));
        assert!(remedy("30sec").starts_with("write \"30s\""));
        assert!(remedy("5min").starts_with("write \"5m\""));
        assert!(remedy("5 ms").starts_with("write \"5ms\""));
        assert!(remedy("20millis").starts_with("write \"20ms\""));
        assert!(size("64K").unwrap_err().remedy.starts_with("write \"64KiB\""));
        assert!(size("64").unwrap_err().remedy.starts_with("write \"64B\""));
        assert_eq!(duration("-1s").unwrap_err().what, "is negative");
        assert_eq!(duration("1.5s").unwrap_err().what, "is not a whole number");
        assert_eq!(duration("99999999999999999999s").unwrap_err().what, "is too large");
        assert_eq!(duration("400d").unwrap_err().what, "is more than a year");
        assert_eq!(size("99999999999TiB").unwrap_err().what, "is too large");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in ".*") {
            let _ = duration(&text);
            let _ = size(&text);
        }

        #[test]
        fn seconds_come_back_as_written(seconds in 0u64..31_000_000) {
            prop_assert_eq!(duration(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
        }
    }
}
