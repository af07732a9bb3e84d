//! The report: what was counted and recorded, as data, for each of its formats.
//!
//! Pure: no clock, no counters, no plan; names, totals and histograms are arguments. A report is
//! cut to what a [`Selection`] names, and the [`Excerpt`] is written.

mod hdr;
mod json;
mod selection;
mod text;

use std::time::{Duration, SystemTime};

use super::Phases;
use super::totals::{ServiceTotals, ShardTotals};
use crate::fault::Fault;

pub use selection::{Excerpt, Selection, SelectionError};

/// The quantiles that a report shows, by their names.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// Everything that the report shows. `Display` is its text, which ends with a newline.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The process that reports.
    pub process: Process<'a>,
    /// The newest plan's number.
    pub generation: u64,
    /// Shards that had not handed over what they recorded when the report had to be made: their
    /// part since the report before is missing from the phases.
    pub late: Vec<usize>,
    /// In the order of the plan.
    pub services: Vec<ServiceReport<'a>>,
    /// What services counted that the plan no longer has.
    pub gone: ServiceTotals,
    /// What was recorded of them.
    pub gone_phases: &'a Phases,
    /// In the order of the shards.
    pub shards: Vec<ShardTotals>,
}

/// The process that reports.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// Its version: `0.1.0`.
    pub version: &'a str,
    /// Its number.
    pub pid: u32,
    /// When it began: beside its number what tells it from others, an earlier one of the same
    /// number among them.
    pub started: SystemTime,
    /// How long it has run.
    pub up: Duration,
    /// What its shards run on: `io_uring (defer)`.
    pub driver: &'a str,
    /// How its reloads went.
    pub reloads: Reloads<'a>,
}

/// How the reloads of a process went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reloads<'a> {
    /// How many were run, those that changed nothing included.
    pub done: u64,
    /// How many changed nothing because they could not be run.
    pub refused: u64,
    /// Why the last of those was refused; `None` where there is none.
    pub refusal: Option<&'a str>,
}

/// One service with its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceReport<'a> {
    /// The operator's name for it.
    pub name: &'a str,
    /// What it counted.
    pub totals: ServiceTotals,
    /// What was recorded of it.
    pub phases: &'a Phases,
    /// In the order of `totals.backends`: their names, which are shown where there is a fan-out.
    pub backends: Vec<&'a str>,
    /// In the order of `totals.endpoints`.
    pub endpoints: Vec<EndpointReport<'a>>,
    /// Its backends that are names, in the order of the file.
    pub names: Vec<NameReport<'a>>,
}

/// A backend that is a name.
#[derive(Clone, Debug)]
pub struct NameReport<'a> {
    /// As the operator wrote it.
    pub name: String,
    /// How many addresses it stands for now.
    pub addresses: usize,
    /// What of its last good answer cannot be used, a sentence each.
    pub remarks: &'a [String],
    /// What came of asking for it; `None` where the last answer was good, or is awaited.
    pub failure: Option<NameFailure<'a>>,
}

/// That a name cannot be resolved now.
#[derive(Clone, Copy, Debug)]
pub struct NameFailure<'a> {
    /// For how long.
    pub lasted: Duration,
    /// How many lookups have failed since then.
    pub times: u64,
    /// What came of the last one.
    pub reason: &'a str,
}

/// One endpoint; what it counted stands in its service's totals.
#[derive(Clone, Copy, Debug)]
pub struct EndpointReport<'a> {
    /// Its address.
    pub name: &'a str,
    /// What control knows of it, in a word: `healthy`.
    pub standing: &'a str,
    /// What was recorded of it.
    pub phases: &'a Phases,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// One distribution for the plotters of HdrHistogram.
    Hgrm,
    /// Every histogram for the processors of HdrHistogram.
    Hlog,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Json, Self::Hgrm, Self::Hlog];

    /// Its name on the command line and in requests.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Hgrm => "hgrm",
            Self::Hlog => "hlog",
        }
    }
}

impl Excerpt<'_> {
    /// The excerpt in `format`; `now` is the time of day.
    ///
    /// # Errors
    /// When the format holds one distribution and more than one service is left.
    pub fn render(&self, format: Format, now: SystemTime) -> Result<String, SelectionError> {
        match format {
            Format::Text => Ok(self.to_string()),
            Format::Json => Ok(json::json(self)),
            Format::Hgrm => hdr::hgrm(self),
            Format::Hlog => Ok(hdr::hlog(self, now)),
        }
    }
}

/// The causes that were counted, in the order of an exchange's life.
fn counted(faults: &[u64; Fault::COUNT]) -> impl Iterator<Item = (Fault, u64)> {
    let all = Fault::ALL.into_iter().zip(*faults);
    all.filter(|(_, count)| *count > 0)
}
