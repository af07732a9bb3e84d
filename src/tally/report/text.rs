//! The report as text, which people read and scripts search.
//!
//! Its words are literal (`1 exchanges` included), numbers have thousands separators, times carry
//! their unit. Columns line up over the whole report and grow with their numbers.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{
    EndpointReport, Excerpt, NameReport, Process, QUANTILES, Reloads, Report, Selection, counted,
};
use crate::tally::phase::UNITS_PER_MICROSECOND;
use crate::tally::{
    BackendTotals, EjectReason, EndpointTotals, Limit, NoServiceTotals, Phase, Phases, RetryReason,
    ServiceTotals, ShardTotals,
};

/// Where the column of counts ends when no number is too wide for that.
const COUNT_END: usize = 29;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.clone().excerpt(&Selection::default()) {
            Ok(excerpt) => excerpt.fmt(f),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        write_process(f, report)?;
        write_late(f, &report.late)?;
        let tables = Tables::of(self);
        for service in &report.services {
            write_exchanges(f, &format!("service {}", service.name), &service.totals)?;
            if !self.of_endpoints {
                tables.write_service(f, service.phases)?;
                write_names(f, &service.names)?;
                for (backend, totals) in service.backends.iter().zip(&service.totals.backends) {
                    write_backend(f, backend, totals)?;
                }
            }
            for (endpoint, totals) in service.endpoints.iter().zip(&service.totals.endpoints) {
                write_endpoint(f, endpoint, totals, report.shards.len())?;
                tables.write_endpoint(f, endpoint)?;
            }
        }
        if !self.whole {
            return Ok(());
        }
        if 0 < report.gone.exchanges {
            write_exchanges(f, "gone services", &report.gone)?;
            tables.write_service(f, report.gone_phases)?;
        }
        let mut no_service = NoServiceTotals::default();
        for shard in &report.shards {
            no_service += &shard.no_service;
        }
        write_no_service(f, &no_service)?;
        let waiting = report.shards.iter().map(|shard| shard.exchanges_waiting);
        let waiting: u64 = waiting.sum();
        if 0 < waiting {
            writeln!(f, "waiting   {} exchanges", Grouped(waiting))?;
        }
        let unproxied = report.shards.iter().map(|shard| shard.clients_unproxied);
        let unproxied: u64 = unproxied.sum();
        if 0 < unproxied {
            writeln!(f, "unproxied   {} clients", Grouped(unproxied))?;
        }
        let running: u64 = report.shards.iter().map(|shard| shard.legs_running).sum();
        let asleep: u64 = report.shards.iter().map(|shard| shard.legs_asleep).sum();
        if 0 < running + asleep {
            let (running, asleep) = (Grouped(running), Grouped(asleep));
            writeln!(f, "legs   {running} running   {asleep} asleep")?;
        }
        write_shards(f, &report.shards)
    }
}

fn write_process(f: &mut fmt::Formatter<'_>, report: &Report<'_>) -> fmt::Result {
    let Process {
        version,
        pid,
        up,
        driver,
        reloads,
        ..
    } = report.process;
    write!(f, "ringmain {version}  pid {pid}  up {}  ", Up(up))?;
    write!(f, "generation {}  {driver}  ", report.generation)?;
    writeln!(f, "{} shards  since start", report.shards.len())?;
    write_reloads(f, reloads)
}

/// Nothing where there were none.
fn write_reloads(f: &mut fmt::Formatter<'_>, reloads: Reloads<'_>) -> fmt::Result {
    let Reloads {
        done,
        refused,
        refusal,
    } = reloads;
    if done + refused == 0 {
        return Ok(());
    }
    write!(f, "reloads {}", Grouped(done))?;
    if 0 < refused {
        write!(f, "   refused {}", Grouped(refused))?;
    }
    if let Some(refusal) = refusal {
        write!(f, "   the last because of {}", refusal.replace('\n', "; "))?;
    }
    writeln!(f)
}

/// Nothing when every shard has handed over what it recorded.
fn write_late(f: &mut fmt::Formatter<'_>, late: &[usize]) -> fmt::Result {
    if late.is_empty() {
        return Ok(());
    }
    let late: Vec<_> = late.iter().map(ToString::to_string).collect();
    writeln!(
        f,
        "late: shard {} (busy or stuck); the phases lack what it recorded lately",
        late.join(", ")
    )
}

/// A line for each backend that is a name.
fn write_names(f: &mut fmt::Formatter<'_>, names: &[NameReport<'_>]) -> fmt::Result {
    for name in names {
        let (addresses, many) = match name.addresses {
            1 => (Grouped(1), ""),
            count => (Grouped(count as u64), "es"),
        };
        write!(f, "  name {}   {addresses} address{many}", name.name)?;
        for remark in name.remarks {
            write!(f, "   {remark}")?;
        }
        if let Some(failure) = &name.failure {
            let (lasted, times) = (Up(failure.lasted), Grouped(failure.times));
            write!(
                f,
                "   failing for {lasted}, {times} times: {}",
                failure.reason
            )?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// The line of a backend that fan-outs go to.
fn write_backend(f: &mut fmt::Formatter<'_>, name: &str, totals: &BackendTotals) -> fmt::Result {
    let BackendTotals {
        succeeded,
        failed,
        attempts,
    } = *totals;
    let (succeeded, failed) = (Grouped(succeeded), Grouped(failed));
    write!(
        f,
        "  backend {name}   succeeded {succeeded}   failed {failed}"
    )?;
    writeln!(f, "   attempts {}", Grouped(attempts))
}

/// The line of an endpoint; of its ejections where there were any.
fn write_endpoint(
    f: &mut fmt::Formatter<'_>,
    endpoint: &EndpointReport<'_>,
    totals: &EndpointTotals,
    shards: usize,
) -> fmt::Result {
    let EndpointReport { name, standing, .. } = endpoint;
    write!(f, "  endpoint {name}")?;
    write!(f, "   {} exchanges", Grouped(totals.exchanges))?;
    write!(f, "   {standing}   faults {}", Grouped(totals.faults))?;
    if 0 < totals.ejected {
        write!(f, "   ejected by {} of {shards} shards", totals.ejected)?;
    }
    let reasons = EjectReason::ALL.map(EjectReason::label);
    let ejections = nonzero(reasons.into_iter().zip(totals.ejections));
    if !ejections.is_empty() {
        write!(f, "   ejections {}", ejections.join(" "))?;
    }
    writeln!(f)
}

/// What the tables of phases have in common.
struct Tables<'e, 'a> {
    excerpt: &'e Excerpt<'a>,
    /// Where their column of counts ends.
    count_end: usize,
}

impl<'e, 'a> Tables<'e, 'a> {
    fn of(excerpt: &'e Excerpt<'a>) -> Self {
        let report = &excerpt.report;
        let services = report.services.iter();
        let of_services = services.clone().map(|service| service.phases);
        let of_services = of_services.chain([report.gone_phases]);
        let endpoints = services.flat_map(|service| &service.endpoints);
        let of_endpoints = endpoints.map(|endpoint| endpoint.phases);
        let indented = of_services.map(|phases| (SERVICE_INDENT, phases));
        let indented = indented.chain(of_endpoints.map(|phases| (ENDPOINT_INDENT, phases)));
        let ends = indented.flat_map(|(indent, phases)| {
            let rows = recorded(excerpt, phases);
            rows.map(move |(phase, histogram)| {
                let count = Grouped(histogram.len()).to_string();
                indent.len() + phase.label().len() + 2 + count.len()
            })
        });
        Self {
            count_end: ends.max().unwrap_or(0).max(COUNT_END),
            excerpt,
        }
    }

    /// Nothing when nothing was recorded.
    fn write_service(&self, f: &mut fmt::Formatter<'_>, phases: &Phases) -> fmt::Result {
        let mut rows = recorded(self.excerpt, phases).peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        self.write_header(f, SERVICE_INDENT)?;
        self.write_rows(f, SERVICE_INDENT, rows)
    }

    /// Below its service's the header is shown already.
    fn write_endpoint(
        &self,
        f: &mut fmt::Formatter<'_>,
        endpoint: &EndpointReport<'_>,
    ) -> fmt::Result {
        let mut rows = recorded(self.excerpt, endpoint.phases).peekable();
        if self.excerpt.of_endpoints && rows.peek().is_some() {
            self.write_header(f, ENDPOINT_INDENT)?;
        }
        self.write_rows(f, ENDPOINT_INDENT, rows)
    }

    fn write_header(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        let names = QUANTILES.iter().map(|(name, _)| *name).chain(["max"]);
        self.write_row(f, &format!("{indent}phase"), "count", names)
    }

    fn write_rows<'h>(
        &self,
        f: &mut fmt::Formatter<'_>,
        indent: &str,
        rows: impl Iterator<Item = (Phase, &'h Histogram<u64>)>,
    ) -> fmt::Result {
        for (phase, histogram) in rows {
            let name = format!("{indent}{}", phase.label());
            let count = Grouped(histogram.len()).to_string();
            let quantiles = QUANTILES.iter().map(|(_, quantile)| *quantile);
            let times = histogram.value_at_quantiles(quantiles).map(Time);
            self.write_row(f, &name, &count, times.chain([Time(histogram.max())]))?;
        }
        Ok(())
    }

    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        count: &str,
        cells: impl Iterator<Item = impl fmt::Display>,
    ) -> fmt::Result {
        let width = self.count_end - name.len();
        write!(f, "{name}{count:>width$}")?;
        for cell in cells {
            write!(f, "{:>11}", cell.to_string())?;
        }
        writeln!(f)
    }
}

const SERVICE_INDENT: &str = "  ";
const ENDPOINT_INDENT: &str = "    ";

/// The rows of a table: what was recorded and is asked for.
fn recorded<'p>(
    excerpt: &Excerpt<'_>,
    phases: &'p Phases,
) -> impl Iterator<Item = (Phase, &'p Histogram<u64>)> {
    let shown = Phase::ALL.into_iter().filter(|phase| excerpt.shows(*phase));
    shown.filter_map(|phase| Some((phase, phases.histogram(phase)?)))
}

/// The line of a service, and below it those of its tunnels, of its retries, of what came in the
/// way of its exchanges, of what its limits shed and of its faults, where there are any.
fn write_exchanges(f: &mut fmt::Formatter<'_>, what: &str, totals: &ServiceTotals) -> fmt::Result {
    let forwarded = Grouped(totals.forwarded.iter().sum());
    write!(f, "{what}   {} exchanges", Grouped(totals.exchanges))?;
    write!(f, "   forwarded {forwarded}")?;
    let classes = (1..).zip(totals.forwarded);
    let classes = nonzero(classes.map(|(class, count)| (format!("{class}xx"), count)));
    if !classes.is_empty() {
        write!(f, " ({})", classes.join(" "))?;
    }
    writeln!(f, "   own answers {}", Grouped(totals.own_answers))?;
    if 0 < totals.tunnels {
        let (begun, open) = (Grouped(totals.tunnels), Grouped(totals.tunnels_open));
        let (up, down) = (totals.tunnel_bytes_up, totals.tunnel_bytes_down);
        let (up, down) = (Grouped(up), Grouped(down));
        writeln!(
            f,
            "  tunnels {begun}   open {open}   bytes up {up}   down {down}"
        )?;
    }
    write_retries(f, totals)?;
    let met = [
        ("limited", totals.limited),
        ("failed open", totals.failed_open),
    ];
    let met = nonzero(met.into_iter());
    if !met.is_empty() {
        writeln!(f, "  {}", met.join("   "))?;
    }
    let shed = Limit::ALL.into_iter().zip(totals.shed);
    write_counts(f, "shed", shed.map(|(limit, count)| (limit.label(), count)))?;
    let faults = counted(&totals.faults).map(|(fault, count)| (fault.label(), count));
    write_counts(f, "faults", faults)
}

/// A line of counts with their labels; nothing where all are 0.
fn write_counts(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let counts = nonzero(counts);
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {what}  {}", counts.join("   "))
}

/// Nothing when there were none, and none was refused.
fn write_retries(f: &mut fmt::Formatter<'_>, totals: &ServiceTotals) -> fmt::Result {
    let all: u64 = totals.retries.iter().sum();
    if all + totals.retries_refused + totals.replays == 0 {
        return Ok(());
    }
    write!(f, "  retries {}", Grouped(all))?;
    let reasons = RetryReason::ALL.map(RetryReason::label);
    let reasons = nonzero(reasons.into_iter().zip(totals.retries));
    if !reasons.is_empty() {
        write!(f, " ({})", reasons.join(" "))?;
    }
    let others = [
        ("refused", totals.retries_refused),
        ("replays", totals.replays),
    ];
    for other in nonzero(others.into_iter()) {
        write!(f, "   {other}")?;
    }
    writeln!(f)
}

/// What was counted, each with its number: `2xx 12,345`.
fn nonzero(counts: impl Iterator<Item = (impl fmt::Display, u64)>) -> Vec<String> {
    counts
        .filter(|(_, count)| 0 < *count)
        .map(|(what, count)| format!("{what} {}", Grouped(count)))
        .collect()
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
    let header = ["connections", "exchanges", "share", "busy"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header)
        .chain(shards.iter().map(|shard| {
            [
                Grouped(shard.clients_open).to_string(),
                Grouped(shard.exchanges).to_string(),
                Share(shard.exchanges, total).to_string(),
                Busy(shard).to_string(),
            ]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0) + 2, width(1).max(10) + 3);
    for (place, [connections, exchanges, share, busy]) in rows.iter().enumerate() {
        let shard = match place.checked_sub(1) {
            None => "shard".to_owned(),
            Some(shard) => shard.to_string(),
        };
        write!(f, "{shard:<5}{connections:>first$}{exchanges:>second$}")?;
        writeln!(f, "  {share:>6}{busy:>7}")?;
    }
    Ok(())
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

/// A time in units, rounded to what is worth reading: `1.2us`, `40.0us`, `9.1ms`, `1.01s`.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MILLISECOND: u64 = 1_000 * UNITS_PER_MICROSECOND;
        const SECOND: u64 = 1_000 * MILLISECOND;
        let Self(units) = *self;
        // Compared as rounded: what would read 1000.0ms is 1.00s.
        let milliseconds = rounded(10 * units, MILLISECOND);
        if units < MILLISECOND {
            let tenths = rounded(10 * units, UNITS_PER_MICROSECOND);
            write!(f, "{}.{}us", tenths / 10, tenths % 10)
        } else if milliseconds < 10_000 {
            write!(f, "{}.{}ms", milliseconds / 10, milliseconds % 10)
        } else {
            let hundredths = rounded(100 * units, SECOND);
            write!(f, "{}.{:02}s", hundredths / 100, hundredths % 100)
        }
    }
}

/// `dividend / divisor`, half up.
const fn rounded(dividend: u64, divisor: u64) -> u64 {
    (dividend + divisor / 2) / divisor
}

/// The part of its life that a shard had a CPU, in percent: `31%`; `-` before its first tick.
struct Busy<'a>(&'a ShardTotals);

impl fmt::Display for Busy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShardTotals { lived, busy, .. } = self.0;
        if lived.is_zero() {
            return f.write_str("-");
        }
        let percent = (200 * busy.as_micros() + lived.as_micros()) / (2 * lived.as_micros());
        write!(f, "{percent}%")
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
mod tests;
