//! The keys of a service whose features are not built yet: typed and bounded like all others, and
//! not kept.
//!
//! Whoever builds a feature moves its keys to a type beside `Service` and deletes their rows in
//! `unsupported.rs`.

use std::time::Duration;

use super::super::file::Table;
use super::super::{DAY, HOUR, SECOND};

const GIB: u64 = 1 << 30;

pub(super) fn service(table: &mut Table<'_, '_>) {
    table.choice(
        "send_proxy_protocol",
        "off",
        &[("off", 0), ("v1", 1), ("v2", 2)],
    );
    table.table_if_present("fanout", fanout);
    table.table_if_present("slo", slo);
}

pub(super) fn backend(table: &mut Table<'_, '_>) {
    table.flag("srv", false);
}

fn fanout(table: &mut Table<'_, '_>) {
    table.choice("require", "all", &[("all", 0), ("quorum", 1), ("any", 2)]);
    table.integer("status", "201", 200..=299);
    table.integer("attempts_max", "100", 1..=1_000_000);
    table.duration("backoff_max", "64s", SECOND..=DAY);
    table.duration("jitter", "100ms", Duration::ZERO..=HOUR);
    table.size("body_bytes_max", r#""1MiB""#, 0..=GIB);
    table.integer("legs_max", "10000", 1..=10_000_000);
    table.size("kept_bytes_max", r#""64MiB""#, 0..=1_024 * GIB);
    table.flag("detached", false);
}

fn slo(table: &mut Table<'_, '_>) {
    table.number("availability", "99.9", 0.0..=100.0);
    table.duration("latency", "10ms", Duration::from_millis(1)..=HOUR);
    table.number("latency_percent", "99.9", 0.0..=100.0);
    table.duration("window", "30d", HOUR..=366 * DAY);
}
