//! `[service.probe]` and `[service.eject]`: how it is found out that an endpoint is not well, by
//! asking it and by what comes of its exchanges.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::super::file::Table;
use super::super::value::{self, integer_in, text};
use super::super::{DAY, HOUR, SECOND, words};
use crate::plan::TICK;

/// What is asked for where nothing else is written.
const PATH: &str = "/live";

/// How long from one probe to the next.
const INTERVAL: RangeInclusive<Duration> = TICK..=DAY;

/// `[service.probe]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What a probe does.
    pub kind: ProbeKind,
    /// What is asked for over HTTP; begins with `/`.
    pub path: String,
    /// What is run, its arguments behind it.
    pub command: Vec<String>,
    /// What also has to answer before a new or recovered endpoint gets traffic; empty is nothing.
    pub ready_path: String,
    /// The statuses of a good answer, `200..=599`; at least one.
    pub statuses: Vec<u32>,
    /// The Host that is asked for; empty is the service's first domain.
    pub host: String,
    /// From one probe to the next while they are good, at least a tick.
    pub interval: Duration,
    /// The same while they are not.
    pub interval_failing: Duration,
    /// How long one may take, at least a tick.
    pub timeout: Duration,
    /// Good probes in a row that make an endpoint healthy, at least 1.
    pub healthy_after: u32,
    /// Failed ones in a row that make it unhealthy, at least 1.
    pub unhealthy_after: u32,
    /// Whether a new endpoint gets nothing before its first good probe.
    pub wait_first: bool,
}

impl Probe {
    /// True exactly when a new endpoint gets nothing before its first good probe.
    pub const fn is_awaited(&self) -> bool {
        self.wait_first || !self.ready_path.is_empty()
    }
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Asks for a path and looks at the status.
    Http,
    /// Connects.
    Tcp,
    /// Runs a command and looks at its exit code.
    Exec,
}

/// `[service.eject]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eject {
    /// Faults in a row that eject an endpoint; 0 is never.
    pub consecutive_faults: u32,
    /// How long the first ejection lasts.
    pub duration: Duration,
    /// The most of a service's endpoints that are out, `0.0..=1.0`.
    pub ratio_max: f64,
    /// How many times the service's median wait an endpoint's p99 may be; 0 is any.
    pub latency_factor: f64,
}

pub(super) fn probe(table: &mut Table<'_, '_>) -> Probe {
    let kinds = [
        ("http", ProbeKind::Http),
        ("tcp", ProbeKind::Tcp),
        ("exec", ProbeKind::Exec),
    ];
    let probe = Probe {
        kind: table.choice("kind", "http", &kinds),
        path: table.text("path", PATH, words::target),
        command: table.list("command", "[]", text(words::file_path)),
        ready_path: table.text("ready_path", "", words::target_or_empty),
        statuses: table.list("statuses", "[200]", integer_in(200..=599)),
        host: table.text("host", "", words::domain_or_empty),
        interval: table.duration("interval", "5s", INTERVAL),
        interval_failing: table.duration("interval_failing", "1s", INTERVAL),
        timeout: table.duration("timeout", "1s", TICK..=HOUR),
        healthy_after: table.integer("healthy_after", "1", 1..=1_000),
        unhealthy_after: table.integer("unhealthy_after", "1", 1..=1_000),
        wait_first: table.flag("wait_first", false),
    };
    check_kind(table, &probe);
    probe
}

/// A key of another kind would be without effect.
fn check_kind(table: &mut Table<'_, '_>, probe: &Probe) {
    if probe.statuses.is_empty() {
        table.wrong("statuses", "has no status that an answer may have".into());
    }
    if probe.host.starts_with('*') {
        let message = "is a wildcard; a probe asks for one host";
        table.wrong("host", message.into());
    }
    let is_http = probe.kind == ProbeKind::Http;
    for (key, is_set) in [
        ("path", probe.path != PATH),
        ("ready_path", !probe.ready_path.is_empty()),
        ("statuses", probe.statuses != [200]),
        ("host", !probe.host.is_empty()),
    ] {
        if is_set && !is_http {
            table.wrong(key, "has no effect; it is for kind = \"http\"".into());
        }
    }
    let program = probe.command.first();
    match (probe.kind, program) {
        (ProbeKind::Exec, None) => {
            let message = "is missing: the program that kind = \"exec\" runs, and its arguments";
            table.wrong("command", message.into());
        }
        (ProbeKind::Exec, Some(program)) if program.is_empty() => {
            table.wrong("command", "\"\" is no program".into());
        }
        (ProbeKind::Http | ProbeKind::Tcp, Some(_)) => {
            table.wrong("command", "has no effect; it is for kind = \"exec\"".into());
        }
        _ => {}
    }
}

/// The `interval` that a variable of the environment writes.
pub(in super::super) fn interval(text: &str) -> Result<Duration, String> {
    value::duration(&DeValue::String(text.into()), &INTERVAL)
}

pub(super) fn eject(table: &mut Table<'_, '_>) -> Eject {
    let eject = Eject {
        consecutive_faults: table.integer("consecutive_faults", "5", 0..=1_000_000),
        duration: table.duration("duration", "10s", SECOND..=HOUR),
        ratio_max: table.number("ratio_max", "0.5", 0.0..=1.0),
        latency_factor: table.number("latency_factor", "0.0", 0.0..=1_000.0),
    };
    // The slowest hundredth of waits is hardly ever quicker than the median of others.
    if 0.0 < eject.latency_factor && eject.latency_factor < 1.0 {
        let message = "is below 1.0, which ejects endpoints that are well; 0.0 is never";
        table.wrong("latency_factor", message.into());
    }
    eject
}
