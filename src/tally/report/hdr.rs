//! What was recorded in the formats of HdrHistogram's own tools: a distribution (`.hgrm`), which
//! its plotters draw, and a log of histograms (`.hlog`), which its processors read.
//!
//! The first is what `AbstractHistogram.outputPercentileDistribution` of the Java library prints,
//! character by character; `tests/proxy/hdr.rs` lets that library judge both.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::{Excerpt, Process, SelectionError};
use crate::tally::phase::UNITS_PER_MICROSECOND;
use crate::tally::{Phase, Phases};

/// The rows of a distribution between a quantile and the one half as far from 100 %: the tools'
/// own default.
const TICKS_PER_HALF_DISTANCE: f64 = 5.0;

/// The service of the tags of what services recorded that are gone: no service's name has
/// parentheses.
const GONE: &str = "(gone)";

/// One distribution, in microseconds: of the only endpoint that was selected, else of the only
/// service, and of the phase `total` where none was selected.
///
/// # Errors
/// When the excerpt has more than one service.
pub(super) fn hgrm(excerpt: &Excerpt<'_>) -> Result<String, SelectionError> {
    let [service] = &excerpt.report.services[..] else {
        return Err(SelectionError::Several(excerpt.report.names()));
    };
    let endpoint = service.endpoints.first().filter(|_| excerpt.of_endpoints);
    let phases = endpoint.map_or(service.phases, |endpoint| endpoint.phases);
    let phase = excerpt.phase.unwrap_or(Phase::Total);
    let mut text = String::new();
    let written = match phases.histogram(phase) {
        Some(histogram) => distribution(&mut text, histogram),
        None => distribution(&mut text, &phases.empty()),
    };
    written.expect(TAKES_ALL);
    Ok(text)
}

fn distribution(out: &mut String, histogram: &Histogram<u64>) -> std::fmt::Result {
    let digits = usize::from(histogram.sigfig());
    let per_unit = UNITS_PER_MICROSECOND as f64;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for Row {
        value,
        percentile,
        total,
    } in rows(histogram)
    {
        let value = fixed(value as f64 / per_unit, digits);
        let quantile = percentile / 100.0;
        write!(out, "{value:>12} {} {total:>10}", fixed(quantile, 12))?;
        if percentile < 100.0 {
            write!(out, " {:>14}", fixed(1.0 / (1.0 - quantile), 2))?;
        }
        out.push('\n');
    }
    let in_microseconds = |units: f64| fixed(units / per_unit, digits);
    let (mean, deviation) = (histogram.mean(), histogram.stdev());
    let (mean, deviation) = (in_microseconds(mean), in_microseconds(deviation));
    writeln!(
        out,
        "#[Mean    = {mean:>12}, StdDeviation   = {deviation:>12}]"
    )?;
    let (max, count) = (in_microseconds(histogram.max() as f64), histogram.len());
    writeln!(out, "#[Max     = {max:>12}, Total count    = {count:>12}]")?;
    // As many as tell twice the digits' range apart, in a power of two.
    let sub_buckets = (2 * 10_u64.pow(digits as u32)).next_power_of_two();
    let buckets = histogram.buckets();
    writeln!(
        out,
        "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]"
    )
}

/// `number`, which is at least 0, with so many digits after the point, as Java rounds it: the
/// shortest decimal number that means it, half up.
fn fixed(number: f64, digits: usize) -> String {
    let shortest = number.to_string();
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let kept = format!("{whole}{fraction:0<digits$}");
    let (kept, rest) = kept.split_at(whole.len() + digits);
    let rounded = match kept.parse::<u128>() {
        Ok(kept) => kept + u128::from(b'5' <= rest.bytes().next().unwrap_or(b'0')),
        // More digits than any time has.
        Err(_) => return format!("{number:.digits$}"),
    };
    let text = format!("{rounded:0>width$}", width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    format!("{whole}.{fraction}")
}

/// A row of a distribution.
struct Row {
    value: u64,
    percentile: f64,
    /// How many of the recorded values are at most `value`.
    total: u64,
}

/// The rows that `PercentileIterator` of the Java library has. It counts in percent; our crate's
/// iterator counts in quantiles and rounds to other rows (0.6 is no sum of 0.1).
fn rows(histogram: &Histogram<u64>) -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut total, mut percentile) = (0, 0.0);
    for bucket in histogram.iter_recorded() {
        let value = bucket.value_iterated_to();
        total += bucket.count_at_value();
        let reached = 100.0 * total as f64 / histogram.len() as f64;
        while percentile <= reached {
            rows.push(Row {
                value,
                percentile,
                total,
            });
            percentile += step(percentile);
            if total == histogram.len() {
                // All further rows would be this one.
                break;
            }
        }
    }
    rows.extend((0 < total).then(|| Row {
        value: histogram.max(),
        percentile: 100.0,
        total,
    }));
    rows
}

/// How far the next row is from the one at `percentile`: halved each time that the distance to
/// 100 % is.
fn step(percentile: f64) -> f64 {
    let halvings = ((100.0 / (100.0 - percentile)).ln() / 2.0_f64.ln()).trunc();
    100.0 / (TICKS_PER_HALF_DISTANCE * (halvings + 1.0).exp2())
}

/// One histogram a service and phase, tagged `SERVICE/PHASE`, and one an endpoint and phase, tagged
/// `SERVICE/ADDRESS/PHASE`, each over all of the process's life, which ends at `now`.
pub(super) fn hlog(excerpt: &Excerpt<'_>, now: SystemTime) -> String {
    let report = &excerpt.report;
    let Process {
        version, pid, up, ..
    } = report.process;
    let start = now.checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH);
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[Logged by ringmain {version}, pid {pid}]"))
        .add_comment("[Values are tenths of a microsecond: -outputValueUnitRatio 10]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(UNITS_PER_MICROSECOND as f64)
        .begin_log_with(&mut log, &mut serializer)
        .expect(TAKES_ALL);
    let mut write = |name: &str, phases: &Phases| {
        for phase in Phase::ALL.into_iter().filter(|phase| excerpt.shows(*phase)) {
            let Some(histogram) = phases.histogram(phase) else {
                continue;
            };
            let tag = format!("{name}/{}", phase.label());
            let tag = Tag::new(&tag).expect("names have no blanks and no commas");
            let written = writer.write_histogram(histogram, Duration::ZERO, up, Some(tag));
            written.expect(TAKES_ALL);
        }
    };
    for service in &report.services {
        if !excerpt.of_endpoints {
            write(service.name, service.phases);
        }
        for endpoint in &service.endpoints {
            write(
                &format!("{}/{}", service.name, endpoint.name),
                endpoint.phases,
            );
        }
    }
    if excerpt.whole {
        write(GONE, report.gone_phases);
    }
    String::from_utf8(log).expect("a log of histograms is ASCII")
}

const TAKES_ALL: &str = "memory takes every write";

#[cfg(test)]
mod tests;
