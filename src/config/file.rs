//! The TOML of a configuration: the only reader of it, which goes on after an error so that all of a file's come at once.
//!
//! serde stops at its first error, so the document is walked here by hand: a section's reader asks its [`Table`] for each key with
//! a default and a range, gets a usable value in any case, and what was wrong collects in [`Findings`]. Invariants:
//!
//! 1. A key that nobody asked for is unknown, and an error.
//! 2. After a finding the default (or a stand-in) takes the value's place; no `Config` is made of it.
//! 3. A default lies in its own range: it is read by the same code as what stands in the file.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{Finding, position};
use super::unsupported;
use crate::units;

/// A key that some reader asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The key's path, as in `service.timeouts.connect`.
    pub path: String,
    /// Its default as TOML writes it; `None` for a key that has none.
    pub default: Option<String>,
}

/// What a name is a name of; names are unique within their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Listener,
    Address,
    Service,
    Domain,
}

/// What the readers found, over the whole document.
#[derive(Debug)]
pub(super) struct Findings<'t> {
    text: &'t str,
    wrong: Vec<Finding>,
    known: Vec<KnownKey>,
    unknown: Vec<Unknown>,
    defined: HashMap<(Kind, String), Range<usize>>,
    references: Vec<Reference>,
}

#[derive(Debug)]
struct Unknown {
    span: Range<usize>,
    table: String,
    key: String,
    siblings: Vec<&'static str>,
}

/// Somewhere a service is named that may stand further down.
#[derive(Debug)]
struct Reference {
    span: Range<usize>,
    key: String,
    service: String,
}

/// A table of the document, or an absent one, whose keys all take their defaults.
#[derive(Debug)]
pub(super) struct Table<'f, 't> {
    findings: &'f mut Findings<'t>,
    path: String,
    span: Range<usize>,
    entries: Option<&'f DeTable<'t>>,
    asked: Vec<&'static str>,
}

/// The reader of one value: it says what is wrong, and returns what can be used all the same.
pub(super) trait Read<T>: Fn(&Spanned<DeValue<'_>>, &mut Vec<Wrong>) -> Option<T> {}
impl<T, F: Fn(&Spanned<DeValue<'_>>, &mut Vec<Wrong>) -> Option<T>> Read<T> for F {}

/// A finding that does not know its key yet.
#[derive(Debug)]
pub(super) struct Wrong {
    span: Range<usize>,
    message: String,
}

impl<'t> Findings<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            wrong: Vec::new(),
            known: Vec::new(),
            unknown: Vec::new(),
            defined: HashMap::new(),
            references: Vec::new(),
        }
    }

    /// Reads the document with `read`; `None` where it is not TOML.
    pub(super) fn document<T>(&mut self, read: impl FnOnce(&mut Table<'_, 't>) -> T) -> Option<T> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        if !errors.is_empty() {
            // What the rest of the file means is not known until it is TOML; guesses would bury the slip.
            self.wrong.extend(errors.into_iter().map(|error| Finding {
                span: error.span().unwrap_or(0..0),
                key: String::new(),
                message: error.message().to_owned(),
            }));
            return None;
        }
        let mut table = Table {
            findings: self,
            path: String::new(),
            span: 0..0,
            entries: Some(document.get_ref()),
            asked: Vec::new(),
        };
        let read = read(&mut table);
        table.finish();
        Some(read)
    }

    /// Every finding, once the document has been read; `keys` are those of a whole configuration.
    pub(super) fn finish(mut self, keys: impl FnOnce() -> Vec<KnownKey>) -> Vec<Finding> {
        self.resolve();
        if !self.unknown.is_empty() {
            let keys = keys();
            let unknown = self.unknown.iter().map(|unknown| unknown.finding(&keys));
            self.wrong.extend(unknown);
        }
        self.wrong
    }

    /// Every key that was asked for, each once.
    pub(super) fn into_known(self) -> Vec<KnownKey> {
        self.known
    }

    /// Looks up what `refer` was told.
    fn resolve(&mut self) {
        for Reference { span, key, service } in std::mem::take(&mut self.references) {
            if self.defined.contains_key(&(Kind::Service, service.clone())) {
                continue;
            }
            let mut names: Vec<&str> = self
                .defined
                .keys()
                .filter(|(kind, _)| *kind == Kind::Service)
                .map(|(_, name)| name.as_str())
                .collect();
            names.sort_unstable();
            let message = match nearest(&service, names) {
                Some(near) => format!("no service {service:?}; the nearest is {near:?}"),
                None => format!("no service {service:?}; there is none at all"),
            };
            self.wrong.push(Finding { span, key, message });
        }
    }
}

impl Unknown {
    fn finding(&self, keys: &[KnownKey]) -> Finding {
        let Self {
            span,
            table,
            key,
            siblings,
        } = self;
        let elsewhere = keys.iter().find_map(|known| {
            let (section, last) = known.path.rsplit_once('.')?;
            (last == key).then_some(section)
        });
        let near = nearest(key, siblings.iter().copied());
        let message = match (near, elsewhere) {
            (near, Some(section)) if near.is_none_or(|near| !alike(near, key)) => {
                format!("unknown key here; it belongs to [{section}]")
            }
            (Some(near), _) => format!("unknown key; the nearest is {near:?}"),
            (None, _) => "unknown key".into(),
        };
        Finding {
            span: span.clone(),
            key: join(table, key),
            message,
        }
    }
}

impl<'f, 't> Table<'f, 't> {
    /// A duration within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.value(
            key,
            &quoted(default),
            scalar(|value| duration(value, &range)),
        )
    }

    /// A size within `range`, in bytes.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        default: &str,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.value(key, default, scalar(|value| size(value, &range)))
    }

    /// A whole number within `range`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: &str,
        range: RangeInclusive<u32>,
    ) -> u32 {
        self.value(key, default, scalar(|value| integer(value, &range)))
    }

    /// A number within `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: &str,
        range: RangeInclusive<f64>,
    ) -> f64 {
        self.value(key, default, scalar(|value| number(value, &range)))
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let read = scalar(|value| {
            value
                .as_bool()
                .ok_or_else(|| mismatch("true or false", value))
        });
        self.value(key, if default { "true" } else { "false" }, read)
    }

    /// A text that `check` accepts and may fold.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: &str,
        check: impl Fn(&str) -> Result<String, String>,
    ) -> String {
        self.value(key, &quoted(default), text(check))
    }

    /// One of `words`.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: &str,
        words: &[(&str, T)],
    ) -> T {
        let refused = unsupported::words(&join(&self.path, key));
        self.value(
            key,
            &quoted(default),
            scalar(|value| choice(value, words, refused)),
        )
    }

    /// A list whose elements `read` reads.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        default: &str,
        read: impl Read<T>,
    ) -> Vec<T> {
        self.value(
            key,
            default,
            |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| {
                let Some(elements) = value.get_ref().as_array() else {
                    wrong.push(Wrong::new(value, mismatch("a list", value.get_ref())));
                    return None;
                };
                Some(
                    elements
                        .iter()
                        .filter_map(|element| read(element, wrong))
                        .collect(),
                )
            },
        )
    }

    /// Names and what `read` makes of them, in the order of the file.
    pub(super) fn pairs<T: PartialEq>(
        &mut self,
        key: &'static str,
        name: impl Fn(&str) -> Result<String, String>,
        read: impl Read<T>,
    ) -> Vec<(String, T)> {
        self.value(
            key,
            "{ }",
            |value: &Spanned<DeValue<'_>>, wrong: &mut Vec<Wrong>| {
                let Some(entries) = value.get_ref().as_table() else {
                    wrong.push(Wrong::new(value, mismatch("a table", value.get_ref())));
                    return None;
                };
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| key.span().start);
                let mut pairs: Vec<(String, T)> = Vec::new();
                for (key, value) in entries {
                    let read = read(value, wrong);
                    match name(key.get_ref()) {
                        Ok(name)
                            if pairs
                                .iter()
                                .any(|(other, _)| other.eq_ignore_ascii_case(&name)) =>
                        {
                            wrong.push(Wrong::new(key, format!("{name:?} is here twice")));
                        }
                        Ok(name) => pairs.extend(read.map(|read| (name, read))),
                        Err(message) => wrong.push(Wrong::new(key, message)),
                    }
                }
                Some(pairs)
            },
        )
    }

    /// The value of `key`, read by `read`, which also reads its default.
    pub(super) fn value<T: PartialEq>(
        &mut self,
        key: &'static str,
        default: &str,
        read: impl Read<T>,
    ) -> T {
        let entry = self.ask(key, Some(default));
        let standard = literal(default, &read);
        let Some(value) = entry else { return standard };
        let mut wrong = Vec::new();
        let found = read(value, &mut wrong);
        let path = join(&self.path, key);
        if let (true, Some(found), Some(also)) =
            (wrong.is_empty(), &found, unsupported::values(&path))
            && *found != standard
            && also.iter().all(|also| literal(also, &read) != *found)
        {
            let accepted: Vec<&str> = [default].into_iter().chain(also.iter().copied()).collect();
            let message = format!("not supported yet; accepted: {}", accepted.join(", "));
            wrong.push(Wrong::new(value, message));
        }
        self.blame(key, wrong);
        found.unwrap_or(standard)
    }

    /// The value of a key that has no default; `stand_in` where it is missing or wrong. `what` says what is missing.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        stand_in: T,
        read: impl Read<T>,
    ) -> T {
        let Some(value) = self.ask(key, None) else {
            self.wrong(key, format!("is missing: {what}"));
            return stand_in;
        };
        let mut wrong = Vec::new();
        let found = read(value, &mut wrong);
        self.blame(key, wrong);
        found.unwrap_or(stand_in)
    }

    /// The table `key`; where it is absent `read` sees an empty one.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_, 't>) -> T,
    ) -> T {
        match self.entries.and_then(|entries| entries.get(key)) {
            Some(value) => self.enter(key, value, read),
            None => {
                self.asked.push(key);
                let span = self.span.clone();
                self.descend(key, span, None, read)
            }
        }
    }

    /// The table `key` that has a meaning by being there; refused where its feature is not built yet.
    pub(super) fn table_if_present<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_, 't>) -> T,
    ) -> Option<T> {
        let present = self
            .entries
            .is_some_and(|entries| entries.contains_key(key));
        if present && unsupported::table(&join(&self.path, key)) {
            self.wrong(key, "not supported yet; accepted: no such table".into());
        }
        let read = self.table(key, read);
        present.then_some(read)
    }

    /// The tables `[[key]]` in the order of the file; none where the key is absent.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_, 't>) -> T,
    ) -> Vec<T> {
        let value = self.entries.and_then(|entries| entries.get(key));
        let elements = self.array(key, value).unwrap_or_default();
        elements
            .iter()
            .map(|element| self.enter(key, element, &mut read))
            .collect()
    }

    /// The elements of the list `key`: none where it is absent, and `None`, with a finding, where it is no list.
    pub(super) fn elements(&mut self, key: &'static str) -> Option<&'f [Spanned<DeValue<'t>>]> {
        let value = self.ask(key, None);
        self.array(key, value)
    }

    /// What `read` makes of an element of the list `key`.
    pub(super) fn element<T>(
        &mut self,
        key: &'static str,
        element: &Spanned<DeValue<'t>>,
        read: impl Read<T>,
    ) -> Option<T> {
        let mut wrong = Vec::new();
        let found = read(element, &mut wrong);
        self.blame(key, wrong);
        found
    }

    fn array(
        &mut self,
        key: &'static str,
        value: Option<&'f Spanned<DeValue<'t>>>,
    ) -> Option<&'f [Spanned<DeValue<'t>>]> {
        self.asked.push(key);
        let Some(value) = value else { return Some(&[]) };
        let elements = value.get_ref().as_array();
        if elements.is_none() {
            self.wrong_at(key, value.span(), mismatch("a list", value.get_ref()));
        }
        elements.map(|elements| &elements[..])
    }

    /// The table that `value` is; an empty one, and a finding, where it is none.
    pub(super) fn enter<T>(
        &mut self,
        key: &'static str,
        value: &Spanned<DeValue<'t>>,
        read: impl FnOnce(&mut Table<'_, 't>) -> T,
    ) -> T {
        self.asked.push(key);
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            self.wrong_at(key, value.span(), mismatch("a table", value.get_ref()));
        }
        self.descend(key, value.span(), entries, read)
    }

    /// Records that `name`, the value of `key`, is taken from here on; a finding where it already was.
    pub(super) fn define(&mut self, kind: Kind, key: &'static str, name: &str) {
        let span = self.place(key);
        self.define_at(kind, key, name, span);
    }

    /// As [`Table::define`], for a name that stands at `span` in the value of `key`.
    pub(super) fn define_at(
        &mut self,
        kind: Kind,
        key: &'static str,
        name: &str,
        span: Range<usize>,
    ) {
        let findings = &mut *self.findings;
        match findings.defined.get(&(kind, name.to_owned())) {
            None => {
                findings.defined.insert((kind, name.to_owned()), span);
            }
            Some(first) => {
                let (line, _) = position(findings.text, first.start);
                let message = format!("{name:?} is taken already, in line {line}");
                findings.wrong.push(Finding {
                    span,
                    key: join(&self.path, key),
                    message,
                });
            }
        }
    }

    /// Records that the value of `key` names a service, which may stand further down.
    pub(super) fn refer(&mut self, key: &'static str, service: &str) {
        let span = self.place(key);
        let key = join(&self.path, key);
        self.findings.references.push(Reference {
            span,
            key,
            service: service.into(),
        });
    }

    /// A finding at the value of `key`, or at the table where the key is absent.
    pub(super) fn wrong(&mut self, key: &'static str, message: String) {
        let span = self.place(key);
        self.wrong_at(key, span, message);
    }

    /// A finding at `span` in the value of `key`.
    pub(super) fn wrong_at(&mut self, key: &str, span: Range<usize>, message: String) {
        self.blame(key, vec![Wrong { span, message }]);
    }

    /// Findings inside the value of `key`.
    fn blame(&mut self, key: &str, wrong: Vec<Wrong>) {
        let key = join(&self.path, key);
        let findings = wrong.into_iter().map(|Wrong { span, message }| Finding {
            span,
            key: key.clone(),
            message,
        });
        self.findings.wrong.extend(findings);
    }

    fn place(&self, key: &str) -> Range<usize> {
        let value = self.entries.and_then(|entries| entries.get(key));
        value.map_or_else(|| self.span.clone(), Spanned::span)
    }

    fn ask(
        &mut self,
        key: &'static str,
        default: Option<&str>,
    ) -> Option<&'f Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let path = join(&self.path, key);
        if self.findings.known.iter().all(|known| known.path != path) {
            self.findings.known.push(KnownKey {
                path,
                default: default.map(str::to_owned),
            });
        }
        self.entries?.get(key)
    }

    fn descend<T>(
        &mut self,
        key: &str,
        span: Range<usize>,
        entries: Option<&DeTable<'t>>,
        read: impl FnOnce(&mut Table<'_, 't>) -> T,
    ) -> T {
        let path = join(&self.path, key);
        let mut table = Table {
            findings: &mut *self.findings,
            path,
            span,
            entries,
            asked: Vec::new(),
        };
        let read = read(&mut table);
        table.finish();
        read
    }

    fn finish(self) {
        for (key, _) in self.entries.into_iter().flatten() {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                self.findings.unknown.push(Unknown {
                    span: key.span(),
                    table: self.path.clone(),
                    key: key.get_ref().as_ref().to_owned(),
                    siblings: self.asked.clone(),
                });
            }
        }
    }
}

impl Wrong {
    fn new<T>(place: &Spanned<T>, message: String) -> Self {
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

/// The reader of a whole number within `range`.
pub(super) fn integer_in(range: RangeInclusive<u32>) -> impl Read<u32> {
    scalar(move |value| integer(value, &range))
}

fn duration(value: &DeValue<'_>, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let Some(text) = value.as_str() else {
        return Err(mismatch("a duration such as \"5s\"", value));
    };
    let duration = units::parse_duration(text).map_err(|error| error.to_string())?;
    within(duration, range, units::format_duration)
}

fn size(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let size = match value {
        DeValue::Integer(_) => whole(value)?,
        DeValue::String(text) => units::parse_size(text).map_err(|error| error.to_string())?,
        other => return Err(mismatch("a size such as 512 or \"16KiB\"", other)),
    };
    within(size, range, units::format_size)
}

fn integer(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let (least, most) = (u64::from(*range.start()), u64::from(*range.end()));
    let integer = within(whole(value)?, &(least..=most), |integer| {
        integer.to_string()
    })?;
    Ok(u32::try_from(integer).expect("it is within a range of u32"))
}

fn number(value: &DeValue<'_>, range: &RangeInclusive<f64>) -> Result<f64, String> {
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

/// The integer that `value` is, if 64 bits hold it.
fn whole(value: &DeValue<'_>) -> Result<u64, String> {
    let DeValue::Integer(integer) = value else {
        return Err(mismatch("a whole number", value));
    };
    let text = integer.as_str();
    let parsed = u64::from_str_radix(text, integer.radix());
    parsed.map_err(|_| match text.starts_with('-') {
        true => format!("{text} is below the least, 0"),
        false => format!("{text} is too large"),
    })
}

fn choice<T: Copy>(
    value: &DeValue<'_>,
    words: &[(&str, T)],
    refused: &[&str],
) -> Result<T, String> {
    let DeValue::String(text) = value else {
        return Err(mismatch("a string", value));
    };
    if let Some((_, found)) = words.iter().find(|(word, _)| word == text) {
        return Ok(*found);
    }
    let allowed: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
    let allowed = allowed.join(", ");
    if refused.contains(&text.as_ref()) {
        return Err(format!(
            "{text:?} is not supported yet; accepted: {allowed}"
        ));
    }
    Err(format!("{text:?} is not known; allowed: {allowed}"))
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<T, String>
where
    T: Copy,
{
    let (least, most) = (*range.start(), *range.end());
    let allowed = |least, most| format!("allowed: {} to {}", show(least), show(most));
    if value < least {
        let message = format!("{} is below the least, {}", show(value), show(least));
        return Err(format!("{message}; {}", allowed(least, most)));
    }
    if most < value {
        let message = format!("{} is above the most, {}", show(value), show(most));
        return Err(format!("{message}; {}", allowed(least, most)));
    }
    Ok(value)
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
fn literal<T>(literal: &str, read: &impl Read<T>) -> T {
    let value = DeValue::parse(literal).expect("defaults and off values are TOML");
    let mut wrong = Vec::new();
    let found = read(&value, &mut wrong);
    assert!(wrong.is_empty(), "{literal} breaks its own rule: {wrong:?}");
    found.expect("a value that is not wrong is found")
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

/// The name among `names` that reads most like `name`.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |near: &&str| strsim::jaro_winkler(near, name);
    names
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// True exactly when one of the two may be a slip of the other.
fn alike(one: &str, other: &str) -> bool {
    0.8 <= strsim::jaro_winkler(one, other)
}
