//! `[service.limits]`: how much of a client, and of all of them, a service lets in.

use super::super::file::Table;

/// `[service.limits]`; each 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second and client address.
    pub client_rate: u32,
    /// Requests that a quiet client may make at once; 0 is as many as `client_rate`.
    pub client_burst: u32,
    /// Exchanges of one client address at a time.
    pub client_concurrent: u32,
    /// Requests per second of the whole process.
    pub rate: u32,
    /// Exchanges at a time of the whole process.
    pub concurrent: u32,
}

pub(super) fn limits(table: &mut Table<'_, '_>) -> Limits {
    let limits = Limits {
        client_rate: table.integer("client_rate", "0", 0..=10_000_000),
        client_burst: table.integer("client_burst", "0", 0..=10_000_000),
        client_concurrent: table.integer("client_concurrent", "0", 0..=10_000_000),
        rate: table.integer("rate", "0", 0..=100_000_000),
        concurrent: table.integer("concurrent", "0", 0..=10_000_000),
    };
    if limits.client_rate == 0 && limits.client_burst != 0 {
        let message = "means nothing without client_rate";
        table.wrong("client_burst", message.into());
    }
    limits
}
