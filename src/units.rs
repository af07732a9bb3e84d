//! Durations and sizes as an operator writes them: a number and its unit.
//!
//! Durations are sums of whole numbers with the units ms, s, m, h and d, each unit at most once and
//! the larger ones first (`250ms`, `1m30s`, `30d`). Sizes are one whole number with an optional
//! unit: B, KiB, MiB, GiB (powers of 1024) or kB, MB, GB (powers of 1000). Pure: what is formatted
//! here parses to the same value again.

use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration or a size. Each message says what is allowed; show it to the
/// operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitsError {
    /// The text is not made of whole numbers with units of time.
    #[error(
        "{0:?} is not a duration; allowed: whole numbers with the units ms, s, m, h, d, as in \
         \"250ms\" or \"1m30s\""
    )]
    Duration(String),
    /// A number stands without its unit of time.
    #[error("{0:?} has no unit; allowed: ms, s, m, h, d, as in \"250ms\" or \"1m30s\"")]
    DurationWithoutUnit(String),
    /// The units do not fall, so that one of them may be a slip.
    #[error("{0:?} is out of order; larger units come first, as in \"1m30s\"")]
    DurationOrder(String),
    /// The text is not a whole number with a unit of bytes.
    #[error(
        "{0:?} is not a size; allowed: a whole number with B, KiB, MiB, GiB, kB, MB or GB, as in \
         \"16KiB\""
    )]
    Size(String),
    /// The number is over what 64 bits hold.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Units of time in milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of bytes; the binary ones first and the largest of them first, which is the order that
/// [`format_size`] tries.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// The duration that `text` writes, in whole milliseconds: `250ms`, `5s`, `1m30s`, `30d`.
///
/// # Errors
/// When `text` is not a sum of whole numbers with falling units, or is longer than 64 bits of
/// milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitsError> {
    if text.is_empty() {
        return Err(UnitsError::Duration(text.into()));
    }
    let mut rest = text;
    let mut unit_before = u64::MAX;
    let mut milliseconds: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = split_term(rest);
        if unit.is_empty() && !number.is_empty() {
            return Err(UnitsError::DurationWithoutUnit(text.into()));
        }
        let factor = factor(&DURATION_UNITS, unit).filter(|_| !number.is_empty());
        let factor = factor.ok_or_else(|| UnitsError::Duration(text.into()))?;
        if unit_before <= factor {
            return Err(UnitsError::DurationOrder(text.into()));
        }
        let term = multiply(number, factor).ok_or_else(|| UnitsError::TooLarge(text.into()))?;
        milliseconds = milliseconds
            .checked_add(term)
            .ok_or_else(|| UnitsError::TooLarge(text.into()))?;
        unit_before = factor;
        rest = after;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// The number of bytes that `text` writes: `512`, `16KiB`, `1MB`.
///
/// # Errors
/// When `text` is not one whole number with a unit of bytes, or is over 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitsError> {
    let (number, unit, after) = split_term(text);
    if number.is_empty() || !after.is_empty() {
        return Err(UnitsError::Size(text.into()));
    }
    let unit = if unit.is_empty() { "B" } else { unit };
    let factor = factor(&SIZE_UNITS, unit).ok_or_else(|| UnitsError::Size(text.into()))?;
    multiply(number, factor).ok_or_else(|| UnitsError::TooLarge(text.into()))
}

/// `duration` as [`parse_duration`] reads it, cut to whole milliseconds: `1m30s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        let count = milliseconds / u128::from(factor);
        milliseconds %= u128::from(factor);
        if 0 < count {
            write!(text, "{count}{unit}").expect("a String takes whatever is written to it");
        }
    }
    text
}

/// `bytes` as [`parse_size`] reads it, in the largest binary unit that divides it: `16KiB`,
/// `1000B`.
pub fn format_size(bytes: u64) -> String {
    let divides = |&&(_, factor): &&(&str, u64)| factor <= bytes && bytes.is_multiple_of(factor);
    match SIZE_UNITS.iter().find(divides) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => "0B".into(),
    }
}

/// The digits that `text` begins with, the letters after them, and the rest.
fn split_term(text: &str) -> (&str, &str, &str) {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest
        .find(|letter: char| letter.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (number, unit, rest)
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

/// `None` where 64 bits are too few; `number` is all digits.
fn multiply(number: &str, factor: u64) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(
        parse: fn(&str) -> Result<T, UnitsError>,
        text: &str,
        expected: Result<T, &str>,
    ) {
        let found = parse(text).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(String::from), "{text:?}");
    }

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        let milliseconds = [
            ("250ms", 250),
            ("5s", 5_000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("30d", 2_592_000_000),
            ("1m30s", 90_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("0s", 0),
        ];
        for (text, expected) in milliseconds {
            check(parse_duration, text, Ok(Duration::from_millis(expected)));
        }
    }

    #[test]
    fn a_bad_duration_says_what_is_allowed() {
        for text in ["", "s", "5x", "-5s", "1.5s", "5 s", "5S", "5µs"] {
            let message = format!(
                "{text:?} is not a duration; allowed: whole numbers with the units ms, s, m, h, d, \
                 as in \"250ms\" or \"1m30s\""
            );
            check(parse_duration, text, Err(&message));
        }
        for text in ["5", "1m30"] {
            let message = format!(
                "{text:?} has no unit; allowed: ms, s, m, h, d, as in \"250ms\" or \"1m30s\""
            );
            check(parse_duration, text, Err(&message));
        }
        let order = "\"1s1m\" is out of order; larger units come first, as in \"1m30s\"";
        check(parse_duration, "1s1m", Err(order));
        let large = "\"99999999999999999999s\" is too large";
        check(parse_duration, "99999999999999999999s", Err(large));
    }

    #[test]
    fn sizes_are_a_number_with_an_optional_unit() {
        let bytes = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("16KiB", 16_384),
            ("1MiB", 1_048_576),
            ("2GiB", 2_147_483_648),
            ("5kB", 5_000),
            ("5MB", 5_000_000),
            ("5GB", 5_000_000_000),
        ];
        for (text, expected) in bytes {
            check(parse_size, text, Ok(expected));
        }
    }

    #[test]
    fn a_bad_size_says_what_is_allowed() {
        for text in [
            "", "KiB", "16kib", "16KB", "1.5MiB", "-1", "1KiB1B", "16 KiB",
        ] {
            let message = format!(
                "{text:?} is not a size; allowed: a whole number with B, KiB, MiB, GiB, kB, MB or \
                 GB, as in \"16KiB\""
            );
            check(parse_size, text, Err(&message));
        }
        check(
            parse_size,
            "99999999999GiB",
            Err("\"99999999999GiB\" is too large"),
        );
    }

    proptest! {
        #[test]
        fn a_formatted_duration_parses_to_itself(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_formatted_size_parses_to_itself(bytes: u64, shift in 0_u32..40) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
