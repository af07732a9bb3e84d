//! `[service.fanout]`: a request goes to every backend.

use std::time::Duration;

use super::super::file::Table;
use super::super::{DAY, HOUR, SECOND};
use crate::plan::Require;

const GIB: u64 = 1 << 30;

const REQUIRES: [(&str, Require); 3] = [
    (Require::All.label(), Require::All),
    (Require::Quorum.label(), Require::Quorum),
    (Require::Any.label(), Require::Any),
];

/// `[service.fanout]`. A leg is the request to one backend, with all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// How many legs have to succeed.
    pub require: Require,
    /// The status that makes one succeed, `200..=299`.
    pub status: u32,
    /// Attempts of one leg, at least 1.
    pub attempts_max: u32,
    /// The longest wait between two attempts, what is drawn apart.
    pub backoff_max: Duration,
    /// The most that is drawn and added to each wait.
    pub jitter: Duration,
    /// Bytes of a request's body, its framing included.
    pub body_bytes_max: u64,
    /// Legs under way on each shard, asleep or not; at least 1.
    pub legs_max: u32,
    /// Bytes that each shard keeps of their requests.
    pub kept_bytes_max: u64,
    /// Whether legs go on when their client has gone.
    pub detached: bool,
}

pub(super) fn fanout(table: &mut Table<'_, '_>) -> Fanout {
    Fanout {
        require: table.choice("require", "all", &REQUIRES),
        status: table.integer("status", "201", 200..=299),
        attempts_max: table.integer("attempts_max", "100", 1..=1_000_000),
        backoff_max: table.duration("backoff_max", "64s", SECOND..=DAY),
        jitter: table.duration("jitter", "100ms", Duration::ZERO..=HOUR),
        body_bytes_max: table.size("body_bytes_max", r#""1MiB""#, 0..=GIB),
        legs_max: table.integer("legs_max", "10000", 1..=10_000_000),
        kept_bytes_max: table.size("kept_bytes_max", r#""64MiB""#, 0..=1_024 * GIB),
        detached: table.flag("detached", false),
    }
}
