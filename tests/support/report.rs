//! Reads the report that SIGUSR1 prints.

use std::collections::BTreeMap;
use std::time::Duration;

/// One report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The number of the plan.
    pub(crate) generation: u64,
    /// What is said of the reloads; empty where there were none.
    pub(crate) reloads: String,
    /// By service name.
    pub(crate) services: BTreeMap<String, Row>,
    /// What belongs to no service.
    pub(crate) no_service: Row,
    /// Exchanges by shard.
    pub(crate) shards: Vec<u64>,
    /// Connections open now, all shards together.
    pub(crate) connections: u64,
    /// Shards whose part is missing from the phases, as the report names them.
    pub(crate) late: Vec<usize>,
}

/// What is counted of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) exchanges: u64,
    pub(crate) forwarded: u64,
    pub(crate) own_answers: u64,
    pub(crate) tunnels: u64,
    pub(crate) tunnels_open: u64,
    /// Bytes of tunnels, up and down.
    pub(crate) tunnel_bytes: [u64; 2],
    /// By limit.
    pub(crate) shed: BTreeMap<String, u64>,
    /// By label.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Exchanges by address.
    pub(crate) endpoints: BTreeMap<String, u64>,
    /// What is known of each endpoint, by address.
    pub(crate) standings: BTreeMap<String, String>,
    /// What is said of its backends that are names, by name.
    pub(crate) names: BTreeMap<String, String>,
    /// What all its endpoints are blamed for.
    pub(crate) endpoint_faults: u64,
    /// Its phases.
    pub(crate) phases: Phases,
    /// Its endpoints' phases by address.
    pub(crate) endpoint_phases: BTreeMap<String, Phases>,
}

/// By label; a phase that was not recorded is not there.
pub(crate) type Phases = BTreeMap<String, Times>;

/// A line of a table of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) p9999: Duration,
    pub(crate) max: Duration,
}

impl Report {
    /// `None` until all lines of a report of this many shards are there.
    pub(super) fn parse(lines: &[String], shards: usize) -> Option<Self> {
        let first = lines
            .iter()
            .position(|line| line.starts_with("ringmain "))?;
        let mut report = Self {
            generation: after(&lines[first], "generation"),
            ..Self::default()
        };
        let mut service = None;
        let mut endpoint = None;
        let mut lines = lines[first + 1..].iter();
        for line in lines.by_ref() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["late:", ..] => {
                    let of_number = |c: char| c.is_ascii_digit();
                    let numbers = line.split(|c| !of_number(c));
                    report.late = numbers.filter_map(|number| number.parse().ok()).collect();
                }
                ["reloads", ..] => report.reloads.clone_from(line),
                ["service", name, ..] => {
                    endpoint = None;
                    service = Some((*name).to_owned());
                    report.services.insert((*name).to_owned(), Row::parse(line));
                }
                ["no", "service", ..] => {
                    service = None;
                    report.no_service = Row::parse(line);
                    report.no_service.faults = in_parentheses(line);
                }
                ["tunnels", ..] => {
                    let row = report.row(&service);
                    row.tunnels = after(line, "tunnels");
                    row.tunnels_open = after(line, "open");
                    row.tunnel_bytes = ["up", "down"].map(|way| after(line, way));
                }
                ["shed", pairs @ ..] => report.row(&service).shed = labelled(pairs),
                ["faults", pairs @ ..] => report.row(&service).faults = labelled(pairs),
                ["name", name, said @ ..] => {
                    let said = said.join(" ");
                    report.row(&service).names.insert((*name).to_owned(), said);
                }
                ["endpoint", address, ..] => {
                    let exchanges = before(line, "exchanges");
                    endpoint = Some((*address).to_owned());
                    let standing = words.get(4).copied().unwrap_or_default().to_owned();
                    let standings = &mut report.row(&service).standings;
                    standings.insert((*address).to_owned(), standing);
                    let row = report.row(&service);
                    row.endpoints.insert((*address).to_owned(), exchanges);
                    row.endpoint_faults += after(line, "faults");
                }
                ["shard", ..] => break,
                _ => {
                    if let Some((label, times)) = Times::parse(&words) {
                        report
                            .row(&service)
                            .phases_of(&endpoint)
                            .insert(label, times);
                    }
                }
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

    fn phases_of(&mut self, endpoint: &Option<String>) -> &mut Phases {
        match endpoint {
            Some(address) => self.endpoint_phases.entry(address.clone()).or_default(),
            None => &mut self.phases,
        }
    }
}

impl Times {
    /// `None` for the header of a table, and for what is no line of one.
    fn parse(words: &[&str]) -> Option<(String, Self)> {
        let [label, count, times @ ..] = words else {
            return None;
        };
        let [p50, p90, p99, p999, p9999, max] = <[&str; 6]>::try_from(times).ok()?.map(time);
        let times = Self {
            count: number(count)?,
            p50: p50?,
            p90: p90?,
            p99: p99?,
            p999: p999?,
            p9999: p9999?,
            max: max?,
        };
        Some(((*label).to_owned(), times))
    }
}

/// A time as the report writes it, `1.2us`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let seconds = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(
        digits.parse::<f64>().ok()? * seconds,
    ))
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
