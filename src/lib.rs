//! ringmain: a load-balancing reverse proxy for Linux on io_uring, one shard per core.
//!
//! The house is described in `docs/ARCHITECTURE.md`; `tests/tidy.rs` holds its law. Modules in
//! reading order: what runs at the top, what it stands on below.

pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod shard;

pub mod door;

pub mod plan;
pub mod proxy_protocol;
pub mod tally;

pub mod balance;
pub mod http;

pub mod fault;
pub mod fd;
pub mod units;

/// Runs the code of the document.
#[cfg(doctest)]
#[doc = include_str!("../docs/EXTENDING.md")]
struct Extending;
