//! The keys of a service whose features are not built yet: typed and bounded like all others, and
//! not kept.
//!
//! Whoever builds a feature moves its keys to a type beside `Service` and deletes their rows in
//! `unsupported.rs`.

use std::time::Duration;

use super::super::file::Table;
use super::super::value::{integer_in, text};
use super::super::{DAY, HOUR, SECOND, words};
use crate::plan::TICK;

const GIB: u64 = 1 << 30;

pub(super) fn service(table: &mut Table<'_, '_>) {
    table.text("hash_key", "client", words::hash_key);
    table.duration("slow_start", "0s", Duration::ZERO..=DAY);
    table.flag("fail_open", true);
    table.choice(
        "send_proxy_protocol",
        "off",
        &[("off", 0), ("v1", 1), ("v2", 2)],
    );
    table.table_if_present("probe", probe);
    table.table("eject", eject);
    table.table("limits", limits);
    table.table_if_present("fanout", fanout);
    table.table_if_present("slo", slo);
}

pub(super) fn backend(table: &mut Table<'_, '_>) {
    table.flag("backup", false);
    table.flag("drain", false);
    table.flag("srv", false);
}

pub(super) fn timeouts(table: &mut Table<'_, '_>) {
    table.duration("total", "0s", Duration::ZERO..=30 * DAY);
}

pub(super) fn pool(table: &mut Table<'_, '_>) {
    table.integer("idle_min", "0", 0..=100_000);
}

pub(super) fn retry(table: &mut Table<'_, '_>) {
    table.list("statuses", "[]", integer_in(400..=599));
    table.duration("attempt", "0s", Duration::ZERO..=DAY);
    table.duration("backoff", "0s", Duration::ZERO..=HOUR);
    table.number("budget", "0.2", 0.0..=1.0);
}

fn probe(table: &mut Table<'_, '_>) {
    table.choice("kind", "http", &[("http", 0), ("tcp", 1), ("exec", 2)]);
    table.text("path", "/live", words::target);
    table.list("command", "[]", text(words::file_path));
    table.text("ready_path", "", words::target_or_empty);
    table.list("statuses", "[200]", integer_in(100..=599));
    table.text("host", "", words::domain_or_empty);
    table.duration("interval", "5s", TICK..=DAY);
    table.duration("interval_failing", "1s", TICK..=DAY);
    table.duration("timeout", "1s", TICK..=HOUR);
    table.integer("healthy_after", "1", 1..=1_000);
    table.integer("unhealthy_after", "1", 1..=1_000);
    table.flag("wait_first", false);
}

fn eject(table: &mut Table<'_, '_>) {
    table.integer("consecutive_faults", "5", 0..=1_000_000);
    table.duration("duration", "10s", SECOND..=HOUR);
    table.number("ratio_max", "0.5", 0.0..=1.0);
    table.number("latency_factor", "0.0", 0.0..=1_000.0);
}

fn limits(table: &mut Table<'_, '_>) {
    table.integer("client_rate", "0", 0..=10_000_000);
    table.integer("client_burst", "0", 0..=10_000_000);
    table.integer("client_concurrent", "0", 0..=10_000_000);
    table.integer("rate", "0", 0..=100_000_000);
    table.integer("concurrent", "0", 0..=10_000_000);
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
