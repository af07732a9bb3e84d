//! The keys of a service whose features are not built yet: typed and bounded like all others, and
//! not kept.
//!
//! Whoever builds a feature moves its keys to a type beside `Service` and deletes their rows in
//! `unsupported.rs`.

use std::time::Duration;

use super::super::file::Table;
use super::super::{DAY, HOUR};

pub(super) fn service(table: &mut Table<'_, '_>) {
    table.table_if_present("slo", slo);
}

fn slo(table: &mut Table<'_, '_>) {
    table.number("availability", "99.9", 0.0..=100.0);
    table.duration("latency", "10ms", Duration::from_millis(1)..=HOUR);
    table.number("latency_percent", "99.9", 0.0..=100.0);
    table.duration("window", "30d", HOUR..=366 * DAY);
}
