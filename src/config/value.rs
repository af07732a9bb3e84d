//! Single values of a configuration: their types, their ranges, and what is said about one that is
//! wrong.
//!
//! Messages say what was found, then what is allowed. Pure.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::units;

/// The reader of one value: it says what is wrong, and returns what can be used all the same.
pub(super) trait Read<T>: Fn(&Spanned<DeValue<'_>>, &mut Vec<Wrong>) -> Option<T> {}
impl<T, F: Fn(&Spanned<DeValue<'_>>, &mut Vec<Wrong>) -> Option<T>> Read<T> for F {}

/// A finding that does not know its key yet.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn new<T>(place: &Spanned<T>, message: String) -> Self {
        Self {
            span: place.span(),
            message,
        }
    }
}

/// The reader of a value that is right or wrong as a whole.
pub(super) fn scalar<T>(read: impl Fn(&DeValue<'_>) -> Result<T, String>) -> impl Read<T> {
    move |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| match read(value.get_ref()) {
        Ok(found) => Some(found),
        Err(message) => {
            wrong.push(Wrong::new(value, message));
            None
        }
    }
}

/// The reader of a text that `check` accepts and may fold.
pub(super) fn text<T>(check: impl Fn(&str) -> Result<T, String>) -> impl Read<T> {
    scalar(move |value| match value {
        DeValue::String(text) => check(text),
        other => Err(mismatch("a string", other)),
    })
}

/// The reader `read` whose result keeps its place.
pub(super) fn placed<T>(read: impl Read<T>) -> impl Read<Spanned<T>> {
    move |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| {
        read(value, wrong).map(|found| Spanned::new(value.span(), found))
    }
}

/// The reader of a list whose elements `read` reads; wrong ones are left out.
pub(super) fn list<T>(read: impl Read<T>) -> impl Read<Vec<T>> {
    move |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| {
        let Some(elements) = value.get_ref().as_array() else {
            wrong.push(Wrong::new(value, mismatch("a list", value.get_ref())));
            return None;
        };
        let found = elements.iter().filter_map(|element| read(element, wrong));
        Some(found.collect())
    }
}

/// The reader of a table of free names that `name` accepts and may fold; wrong ones are left out.
/// `same` says whether two are one.
pub(super) fn pairs<T>(
    name: impl Fn(&str) -> Result<String, String>,
    same: fn(&str, &str) -> bool,
    read: impl Read<T>,
) -> impl Read<Vec<(String, T)>> {
    move |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| {
        let Some(entries) = value.get_ref().as_table() else {
            wrong.push(Wrong::new(value, mismatch("a table", value.get_ref())));
            return None;
        };
        let mut entries: Vec<_> = entries.iter().collect();
        // The table is sorted by name; the operator's order is that of the places.
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut pairs: Vec<(String, T)> = Vec::new();
        for (key, value) in entries {
            let read = read(value, wrong);
            match name(key.get_ref()) {
                Ok(name) if pairs.iter().any(|(other, _)| same(other, &name)) => {
                    wrong.push(Wrong::new(key, format!("{name:?} is here twice")));
                }
                Ok(name) => pairs.extend(read.map(|read| (name, read))),
                Err(message) => wrong.push(Wrong::new(key, message)),
            }
        }
        Some(pairs)
    }
}

/// The reader of a whole number within `range`.
pub(super) fn integer_in(range: RangeInclusive<u32>) -> impl Read<u32> {
    scalar(move |value| integer(value, &range))
}

/// A duration within `range`.
pub(super) fn duration(
    value: &DeValue<'_>,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let Some(text) = value.as_str() else {
        return Err(mismatch("a duration such as \"5s\"", value));
    };
    let duration = units::parse_duration(text).map_err(|error| error.to_string())?;
    within(duration, range, units::format_duration)
}

/// A size within `range`, in bytes.
pub(super) fn size(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let size = match value {
        DeValue::Integer(_) => whole(value, range, units::format_size)?,
        DeValue::String(text) => units::parse_size(text).map_err(|error| error.to_string())?,
        other => return Err(mismatch("a size such as 512 or \"16KiB\"", other)),
    };
    within(size, range, units::format_size)
}

/// A whole number within `range`.
pub(super) fn integer(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let (least, most) = (u64::from(*range.start()), u64::from(*range.end()));
    let range = least..=most;
    let integer = whole(value, &range, |integer| integer.to_string())?;
    let integer = within(integer, &range, |integer| integer.to_string())?;
    Ok(u32::try_from(integer).expect("it is within a range of u32"))
}

/// A number within `range`.
pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let text = match value {
        DeValue::Float(float) => float.as_str(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        other => return Err(mismatch("a number", other)),
    };
    let number: f64 = text.parse().map_err(|_| mismatch("a number", value))?;
    if number.is_nan() {
        return Err(mismatch("a number", value));
    }
    within(number, range, |number| number.to_string())
}

/// The integer that `value` is; what 64 bits don't hold is outside of every `range`.
fn whole(
    value: &DeValue<'_>,
    range: &RangeInclusive<u64>,
    show: impl Fn(u64) -> String,
) -> Result<u64, String> {
    let DeValue::Integer(integer) = value else {
        return Err(mismatch("a whole number", value));
    };
    let text = integer.as_str();
    let parsed = u64::from_str_radix(text, integer.radix());
    parsed.map_err(|_| outside(text, text.starts_with('-'), range, show))
}

/// One of `words`.
pub(super) fn choice<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let DeValue::String(text) = value else {
        return Err(mismatch("a string", value));
    };
    if let Some((_, found)) = words.iter().find(|(word, _)| word == text) {
        return Ok(*found);
    }
    let allowed: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let allowed = allowed.join(", ");
    Err(format!("{text:?} is not known; allowed: {allowed}"))
}

fn within<T: Copy + PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if value < *range.start() {
        return Err(outside(&show(value), true, range, show));
    }
    if *range.end() < value {
        return Err(outside(&show(value), false, range, show));
    }
    Ok(value)
}

/// What is wrong with a value that is not within `range`.
fn outside<T: Copy>(
    value: &str,
    is_below: bool,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> String {
    let (least, most) = (show(*range.start()), show(*range.end()));
    let side = match is_below {
        true => format!("below the least, {least}"),
        false => format!("above the most, {most}"),
    };
    format!("{value} is {side}; allowed: {least} to {most}")
}

/// What is wrong with a value of another type.
pub(super) fn mismatch(expected: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {expected}, found {found}")
}

/// The value of a literal in this source.
pub(super) fn literal<T>(literal: &str, read: &impl Read<T>) -> T {
    let value = DeValue::parse(literal).expect("defaults and off values are TOML");
    let mut wrong = Vec::new();
    let found = read(&value, &mut wrong);
    assert!(wrong.is_empty(), "{literal} breaks its own rule: {wrong:?}");
    found.expect("a value that is not wrong is found")
}
