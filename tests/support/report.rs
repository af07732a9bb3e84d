//! Reads the report that SIGUSR1 prints.

use std::collections::BTreeMap;

/// One report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// By service name.
    pub(crate) services: BTreeMap<String, Row>,
    /// What belongs to no service.
    pub(crate) no_service: Row,
    /// Exchanges by shard.
    pub(crate) shards: Vec<u64>,
    /// Connections open now, all shards together.
    pub(crate) connections: u64,
}

/// What is counted of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) exchanges: u64,
    pub(crate) forwarded: u64,
    pub(crate) own_answers: u64,
    /// By label.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Exchanges by address.
    pub(crate) endpoints: BTreeMap<String, u64>,
    /// What all its endpoints are blamed for.
    pub(crate) endpoint_faults: u64,
}

impl Report {
    /// `None` until all lines of a report of this many shards are there.
    pub(super) fn parse(lines: &[String], shards: usize) -> Option<Self> {
        let first = lines
            .iter()
            .position(|line| line.starts_with("ringmain "))?;
        let mut report = Self::default();
        let mut service = None;
        let mut lines = lines[first + 1..].iter();
        for line in lines.by_ref() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["service", name, ..] => {
                    service = Some((*name).to_owned());
                    report.services.insert((*name).to_owned(), Row::parse(line));
                }
                ["no", "service", ..] => {
                    service = None;
                    report.no_service = Row::parse(line);
                    report.no_service.faults = in_parentheses(line);
                }
                ["faults", pairs @ ..] => report.row(&service).faults = labelled(pairs),
                ["endpoint", address, ..] => {
                    let exchanges = before(line, "exchanges");
                    let row = report.row(&service);
                    row.endpoints.insert((*address).to_owned(), exchanges);
                    row.endpoint_faults += after(line, "faults");
                }
                ["shard", ..] => break,
                _ => {}
            }
        }
        for line in lines.take(shards) {
            let columns: Vec<u64> = line.split_whitespace().map_while(number).collect();
            report.connections += columns.get(1)?;
            report.shards.push(*columns.get(2)?);
        }
        (report.shards.len() == shards).then_some(report)
    }

    /// All faults by label, of every service and of none.
    pub(crate) fn faults(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for row in self.services.values().chain([&self.no_service]) {
            for (label, count) in &row.faults {
                *sum.entry(label.clone()).or_default() += count;
            }
        }
        sum
    }

    /// All exchanges, of every service and of none.
    pub(crate) fn exchanges(&self) -> u64 {
        let services: u64 = self.services.values().map(|row| row.exchanges).sum();
        services + self.no_service.exchanges
    }

    fn row(&mut self, service: &Option<String>) -> &mut Row {
        match service {
            Some(name) => self.services.entry(name.clone()).or_default(),
            None => &mut self.no_service,
        }
    }
}

impl Row {
    fn parse(line: &str) -> Self {
        Self {
            exchanges: before(line, "exchanges"),
            forwarded: after(line, "forwarded"),
            own_answers: after(line, "own answers"),
            ..Self::default()
        }
    }
}

/// `LABEL COUNT` pairs.
fn labelled(words: &[&str]) -> BTreeMap<String, u64> {
    let pair = |pair: &[&str]| Some((pair[0].to_owned(), number(pair[1])?));
    words.chunks_exact(2).filter_map(pair).collect()
}

/// `(STATUS LABEL COUNT ...)`.
fn in_parentheses(line: &str) -> BTreeMap<String, u64> {
    let inside = line.split_once('(').map_or("", |(_, rest)| rest);
    let words: Vec<&str> = inside
        .split([' ', ')'])
        .filter(|word| !word.is_empty())
        .collect();
    let triple = |triple: &[&str]| Some((triple[1].to_owned(), number(triple[2])?));
    words.chunks_exact(3).filter_map(triple).collect()
}

/// The number before `word`; 0 without one.
fn before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|said| *said == word);
    let number_at = at.and_then(|at| words.get(at.checked_sub(1)?));
    number_at.and_then(|word| number(word)).unwrap_or(0)
}

/// The number after `words`; 0 without one.
fn after(line: &str, words: &str) -> u64 {
    let rest = line.split_once(words).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().and_then(number).unwrap_or(0)
}

/// A number as the report writes it, `12,345`.
fn number(text: &str) -> Option<u64> {
    text.replace(',', "").parse().ok()
}
