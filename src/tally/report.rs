//! The report that SIGUSR1 prints: totals in, text out.
//!
//! Pure: no clock, no counters, no plan; names and totals are data. People read the text and
//! scripts search it, so its words are literal (`1 exchanges` included) and numbers have thousands
//! separators.

use std::fmt;
use std::time::Duration;

use super::Phases;
use super::totals::{EndpointTotals, NoServiceTotals, ServiceTotals, ShardTotals};
use crate::fault::Fault;

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
    /// How long it has run.
    pub up: Duration,
    /// What its shards run on: `io_uring (defer)`.
    pub driver: &'a str,
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
    /// In the order of `totals.endpoints`.
    pub endpoints: Vec<EndpointReport<'a>>,
}

/// One endpoint; what it counted stands in its service's totals.
#[derive(Clone, Copy, Debug)]
pub struct EndpointReport<'a> {
    /// Its address.
    pub name: &'a str,
    /// What was recorded of it.
    pub phases: &'a Phases,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process {
            version,
            pid,
            up,
            driver,
        } = self.process;
        write!(f, "ringmain {version}  pid {pid}  up {}  ", Up(up))?;
        write!(f, "generation {}  {driver}  ", self.generation)?;
        writeln!(f, "{} shards  since start", self.shards.len())?;
        for service in &self.services {
            write_service(f, service)?;
        }
        if self.gone.exchanges > 0 {
            write_exchanges(f, "gone services", &self.gone)?;
        }
        let mut no_service = NoServiceTotals::default();
        for shard in &self.shards {
            no_service += &shard.no_service;
        }
        write_no_service(f, &no_service)?;
        write_shards(f, &self.shards)
    }
}

fn write_service(f: &mut fmt::Formatter<'_>, service: &ServiceReport<'_>) -> fmt::Result {
    write_exchanges(f, &format!("service {}", service.name), &service.totals)?;
    for (EndpointReport { name, .. }, totals) in
        service.endpoints.iter().zip(&service.totals.endpoints)
    {
        let EndpointTotals {
            exchanges, faults, ..
        } = totals;
        write!(f, "  endpoint {name}   {} exchanges", Grouped(*exchanges))?;
        writeln!(f, "   faults {}", Grouped(*faults))?;
    }
    Ok(())
}

/// The line of a service, and below it that of its faults where there are any.
fn write_exchanges(f: &mut fmt::Formatter<'_>, what: &str, totals: &ServiceTotals) -> fmt::Result {
    let forwarded = Grouped(totals.forwarded.iter().sum());
    write!(f, "{what}   {} exchanges", Grouped(totals.exchanges))?;
    write!(f, "   forwarded {forwarded}")?;
    let classes = (1..).zip(totals.forwarded);
    let classes = classes.filter(|(_, count)| *count > 0);
    let classes: Vec<_> = classes
        .map(|(class, count)| format!("{class}xx {}", Grouped(count)))
        .collect();
    if !classes.is_empty() {
        write!(f, " ({})", classes.join(" "))?;
    }
    writeln!(f, "   own answers {}", Grouped(totals.own_answers))?;
    let faults: Vec<_> = counted(&totals.faults)
        .map(|(fault, count)| format!("{} {}", fault.label(), Grouped(count)))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    writeln!(f, "  faults  {}", faults.join("   "))
}

fn write_no_service(f: &mut fmt::Formatter<'_>, totals: &NoServiceTotals) -> fmt::Result {
    let exchanges = Grouped(totals.exchanges).to_string();
    write!(f, "no service   {exchanges:>7} exchanges")?;
    write!(f, "   own answers {}", Grouped(totals.own_answers))?;
    let faults: Vec<_> = counted(&totals.faults)
        .map(|(fault, count)| format!("{} {} {}", fault.status(), fault.label(), Grouped(count)))
        .collect();
    if faults.is_empty() {
        return writeln!(f);
    }
    writeln!(f, " ({})", faults.join(", "))
}

/// One line a shard; a column is as wide as its widest cell.
fn write_shards(f: &mut fmt::Formatter<'_>, shards: &[ShardTotals]) -> fmt::Result {
    let total: u64 = shards.iter().map(|shard| shard.exchanges).sum();
    let header = ["connections".into(), "exchanges".into()];
    let rows: Vec<[String; 2]> = std::iter::once(header)
        .chain(shards.iter().map(|shard| {
            [
                Grouped(shard.clients_open).to_string(),
                Grouped(shard.exchanges).to_string(),
            ]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0) + 2, width(1).max(10) + 3);
    for (place, [connections, exchanges]) in rows.iter().enumerate() {
        let (shard, share) = match place.checked_sub(1) {
            None => ("shard".into(), "share".into()),
            Some(shard) => (
                shard.to_string(),
                Share(shards[shard].exchanges, total).to_string(),
            ),
        };
        write!(f, "{shard:<5}{connections:>first$}{exchanges:>second$}")?;
        writeln!(f, "  {share:>6}")?;
    }
    Ok(())
}

/// The causes that were counted, in the order of an exchange's life.
fn counted(faults: &[u64; Fault::COUNT]) -> impl Iterator<Item = (Fault, u64)> {
    let all = Fault::ALL.into_iter().zip(*faults);
    all.filter(|(_, count)| *count > 0)
}

/// A number with thousands separators: `12,345,678`.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A part of a total in percent: `50.0%`.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part, total) = *self;
        // u128: a thousand times a count may not fit 64 bits. Rounded half up.
        let (part, total) = (u128::from(part), u128::from(total.max(1)));
        let tenths = (2_000 * part + total) / (2 * total);
        write!(f, "{}.{}%", tenths / 10, tenths % 10)
    }
}

/// A long time in its two greatest units: `12s`, `5m07s`, `3h12m`, `2d03h`.
struct Up(Duration);

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        if days > 0 {
            write!(f, "{days}d{:02}h", hours % 24)
        } else if hours > 0 {
            write!(f, "{hours}h{:02}m", minutes % 60)
        } else if minutes > 0 {
            write!(f, "{minutes}m{:02}s", seconds % 60)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: Phases = Phases::of_service();

    fn quiet_endpoint(name: &str) -> EndpointReport<'_> {
        EndpointReport {
            name,
            phases: &NOTHING,
        }
    }

    fn report() -> Report<'static> {
        let endpoint = |exchanges, faults| EndpointTotals {
            exchanges,
            faults,
            ..EndpointTotals::default()
        };
        let mut busy = ServiceTotals {
            exchanges: 12_345_678,
            forwarded: [0, 12_345_000, 0, 550, 50],
            own_answers: 78,
            endpoints: vec![endpoint(6_172_840, 3), endpoint(6_172_838, 0)],
            ..ServiceTotals::default()
        };
        busy.faults[Fault::ConnectionRefused.index()] = 3;
        busy.faults[Fault::ResponseTimeout.index()] = 75;
        let quiet = ServiceTotals {
            endpoints: vec![endpoint(0, 0)],
            ..ServiceTotals::default()
        };
        Report {
            late: Vec::new(),
            gone_phases: &NOTHING,
            process: Process {
                version: "0.1.0",
                pid: 4711,
                up: Duration::from_secs(3 * 3600 + 12 * 60 + 59),
                driver: "io_uring (defer)",
            },
            generation: 3,
            services: vec![
                ServiceReport {
                    name: "my-service",
                    endpoints: vec![
                        quiet_endpoint("127.0.0.1:9090"),
                        quiet_endpoint("127.0.0.1:9091"),
                    ],
                    totals: busy,
                    phases: &NOTHING,
                },
                ServiceReport {
                    name: "quiet",
                    endpoints: vec![quiet_endpoint("[::1]:9092")],
                    totals: quiet,
                    phases: &NOTHING,
                },
            ],
            gone: ServiceTotals::default(),
            shards: vec![shard(512, 6_170_000, 12), shard(7, 6_175_690, 0)],
        }
    }

    fn shard(clients_open: u64, exchanges: u64, not_found: u64) -> ShardTotals {
        let mut faults = [0; Fault::COUNT];
        faults[Fault::DestinationNotFound.index()] = not_found;
        ShardTotals {
            clients_open,
            exchanges,
            no_service: NoServiceTotals {
                exchanges: not_found,
                own_answers: not_found,
                faults,
            },
            lived: Duration::from_secs(100),
            busy: Duration::from_secs(31),
        }
    }

    #[track_caller]
    fn check(report: &Report<'_>, expected: &[&str]) {
        let text = report.to_string();
        assert!(text.ends_with('\n'));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_text_is_that_of_the_contract() {
        check(
            &report(),
            &[
                "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  2 shards  \
                 since start",
                "service my-service   12,345,678 exchanges   forwarded 12,345,600 \
                 (2xx 12,345,000 4xx 550 5xx 50)   own answers 78",
                "  faults  connection_refused 3   http_response_timeout 75",
                "  endpoint 127.0.0.1:9090   6,172,840 exchanges   faults 3",
                "  endpoint 127.0.0.1:9091   6,172,838 exchanges   faults 0",
                "service quiet   0 exchanges   forwarded 0   own answers 0",
                "  endpoint [::1]:9092   0 exchanges   faults 0",
                "no service        12 exchanges   own answers 12 (404 destination_not_found 12)",
                "shard  connections    exchanges   share",
                "0              512    6,170,000   50.0%",
                "1                7    6,175,690   50.0%",
            ],
        );
    }

    #[test]
    fn services_that_are_gone_have_a_line_when_they_counted() {
        let mut report = report();
        report.services.clear();
        report.gone.exchanges = 1_000;
        report.gone.forwarded[1] = 999;
        report.gone.own_answers = 1;
        report.gone.faults[Fault::ConnectionTimeout.index()] = 1;
        report.shards = vec![shard(0, 0, 0)];
        check(
            &report,
            &[
                "ringmain 0.1.0  pid 4711  up 3h12m  generation 3  io_uring (defer)  1 shards  \
                 since start",
                "gone services   1,000 exchanges   forwarded 999 (2xx 999)   own answers 1",
                "  faults  connection_timeout 1",
                "no service         0 exchanges   own answers 0",
                "shard  connections    exchanges   share",
                "0                0            0    0.0%",
            ],
        );
    }

    #[test]
    fn columns_grow_with_their_numbers() {
        let shards = [shard(1, 1_234_567_890_123, 0), shard(0, 0, 0)];
        let text = fmt::from_fn(|f| write_shards(f, &shards)).to_string();
        let expected = [
            "shard  connections           exchanges   share",
            "0                1   1,234,567,890,123  100.0%",
            "1                0                   0    0.0%",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, text) in cases {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }

    #[test]
    fn shares_are_rounded_to_a_tenth() {
        let cases = [
            (0, 0, "0.0%"),
            (1, 3, "33.3%"),
            (2, 3, "66.7%"),
            (1, 2_000, "0.1%"),
            (1, 2_001, "0.0%"),
            (u64::MAX, u64::MAX, "100.0%"),
        ];
        for (part, total, text) in cases {
            assert_eq!(Share(part, total).to_string(), text);
        }
    }

    #[test]
    fn a_long_time_shows_its_two_greatest_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (307, "5m07s"),
            (3_600, "1h00m"),
            (11_579, "3h12m"),
            (86_400, "1d00h"),
            (183_600, "2d03h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(Up(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
