//! The TOML of a configuration: the only reader of it, which goes on after an error so that all of
//! a file's come at once.
//!
//! serde stops at its first error, so the document is walked here by hand: a section's reader asks
//! its [`Table`] for each key with a default and a range, gets a usable value in any case, and what
//! was wrong collects in [`Findings`]. Invariants:
//!
//! 1. A key that nobody asked for is unknown, and an error.
//! 2. After a finding the default (or a stand-in) takes the value's place; no `Config` is made of
//!    it.
//! 3. A default lies in its own range: it is read by the same code as what stands in the file.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::Finding;
use super::findings::{Findings, Kind, Reference, Unknown, join};
use super::unsupported;
use super::value::{
    Read, Wrong, choice, duration, integer, list, literal, mismatch, number, pairs, scalar, size,
    text,
};
use crate::plan::Protocol;

/// A table of the document, or an absent one, whose keys all take their defaults.
#[derive(Debug)]
pub(super) struct Table<'f, 't> {
    findings: &'f mut Findings<'t>,
    path: String,
    span: Range<usize>,
    entries: Option<&'f DeTable<'t>>,
    asked: Vec<&'static str>,
}

/// Reads the document that `findings` are of with `read`; `None` where it is not TOML.
pub(super) fn document<'t, T>(
    findings: &mut Findings<'t>,
    read: impl FnOnce(&mut Table<'_, 't>) -> T,
) -> Option<T> {
    let (document, errors) = DeTable::parse_recoverable(findings.text());
    if !errors.is_empty() {
        // What the rest of the file means is not known until it is TOML; guesses would bury the
        // slip.
        for error in errors {
            findings.report(Finding {
                span: error.span().unwrap_or(0..0),
                key: String::new(),
                message: error.message().to_owned(),
            });
        }
        return None;
    }
    let mut table = Table {
        findings,
        path: String::new(),
        span: 0..0,
        entries: Some(document.get_ref()),
        asked: Vec::new(),
    };
    let read = read(&mut table);
    table.finish();
    Some(read)
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
        self.value(key, &quoted(default), scalar(|value| choice(value, words)))
    }

    /// A list whose elements `read` reads.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        default: &str,
        read: impl Read<T>,
    ) -> Vec<T> {
        self.value(key, default, list(read))
    }

    /// Names and what `read` makes of them, in the order of the file. `same` says whether two names
    /// are one.
    pub(super) fn pairs<T: PartialEq>(
        &mut self,
        key: &'static str,
        name: impl Fn(&str) -> Result<String, String>,
        same: fn(&str, &str) -> bool,
        read: impl Read<T>,
    ) -> Vec<(String, T)> {
        self.value(key, "{ }", pairs(name, same, read))
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
        if let (true, Some(found)) = (wrong.is_empty(), &found)
            && *found != standard
        {
            wrong.extend(self.refusal(key, default, value, |also| literal(also, &read) == *found));
        }
        self.blame(key, wrong);
        found.unwrap_or(standard)
    }

    /// What is wrong with a value that is not the default, where the key's feature is not built yet
    /// and the value is none of the literals that are taken all the same.
    fn refusal(
        &self,
        key: &str,
        default: &str,
        value: &Spanned<DeValue<'_>>,
        is_value: impl Fn(&str) -> bool,
    ) -> Option<Wrong> {
        let also = unsupported::values(&join(&self.path, key))?;
        if also.iter().any(|also| is_value(also)) {
            return None;
        }
        let accepted: Vec<&str> = [default].into_iter().chain(also.iter().copied()).collect();
        let message = format!("not supported yet; accepted: {}", accepted.join(", "));
        Some(Wrong::new(value, message))
    }

    /// The value of a key that has no default; `stand_in` where it is missing or wrong. `what` says
    /// what is missing.
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

    /// The table `key` that has a meaning by being there; refused where its feature is not built
    /// yet.
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

    /// The elements of the list `key`: none where it is absent, and `None`, with a finding, where
    /// it is no list.
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

    /// Records that `name`, the value of `key`, is taken from here on; a finding where it already
    /// was. An empty one stands in for what was missing or wrong.
    pub(super) fn define(&mut self, kind: Kind, key: &'static str, name: &str) {
        if name.is_empty() {
            return;
        }
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
        self.findings
            .define(kind, join(&self.path, key), name, span);
    }

    /// Records that the value of `key` names a service, which may stand further down and is to be
    /// one that `protocol` can be spoken to.
    pub(super) fn refer(&mut self, key: &'static str, service: &str, protocol: Protocol) {
        let span = self.place(key);
        let key = join(&self.path, key);
        let service = service.to_owned();
        self.findings.refer(Reference {
            span,
            key,
            service,
            protocol,
        });
    }

    /// Records that the service `name` sends what it gets to every backend.
    pub(super) fn fans_out(&mut self, name: &str) {
        self.findings.fans_out(name);
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
        for Wrong { span, message } in wrong {
            let key = join(&self.path, key);
            self.findings.report(Finding { span, key, message });
        }
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
        self.findings.ask(&join(&self.path, key), default);
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
                self.findings.meet(Unknown {
                    span: key.span(),
                    table: self.path.clone(),
                    key: key.get_ref().as_ref().to_owned(),
                    siblings: self.asked.clone(),
                });
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
