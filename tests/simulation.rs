//! Thousands of exchanges without sockets: two scripted peers, drops, delays and virtual time.
//!
//! ```text
//! RINGMAIN_SIMULATION_SEED=N    the seed (drawn anew for each run)
//! RINGMAIN_SIMULATION_RUNS=N    how many exchanges (20000)
//! ```

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_xorshift::XorShiftRng;
use simulation::Outcome;

#[path = "../fuzz/simulation.rs"]
mod simulation;

/// Bytes of one script: as many choices as the longest makes.
const SCRIPT_BYTES: usize = 400;

#[test]
fn whatever_the_peers_do_an_exchange_ends_as_it_must() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("the variable is a number"))
    };
    let seed = number("RINGMAIN_SIMULATION_SEED").unwrap_or_else(|| {
        let mut system = rand::rngs::SysRng;
        rand::TryRng::try_next_u64(&mut system).expect("the kernel has random numbers")
    });
    let runs = number("RINGMAIN_SIMULATION_RUNS").unwrap_or(20_000);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for run in 0..runs {
        let mut generator = XorShiftRng::seed_from_u64(seed.wrapping_add(run));
        let mut script = [0; SCRIPT_BYTES];
        generator.fill_bytes(&mut script);
        let outcome = std::panic::catch_unwind(|| simulation::run(&script));
        let name = seed.wrapping_add(run);
        assert!(outcome.is_ok(), "RINGMAIN_SIMULATION_SEED={name}");
        let end = match outcome {
            Ok(Outcome::Refused) | Err(_) => "refused".to_owned(),
            Ok(Outcome::Delivered { kept, tries }) => {
                format!("delivered kept {kept} again {}", 1 < tries)
            }
            Ok(Outcome::Broken { fault, reach }) => format!("{} {reach:?}", fault.label()),
        };
        *ends.entry(end).or_default() += 1;
    }
    for end in ENDS {
        let count = ends.get(*end).copied().unwrap_or_default();
        assert!(
            runs / 10_000 <= count,
            "seed {seed}: {end} comes {count} times: {ends:#?}"
        );
    }
}

/// What comes at least once in ten thousand runs.
const ENDS: &[&str] = &[
    "refused",
    "delivered kept true again false",
    "delivered kept true again true",
    "delivered kept false again false",
    "delivered kept false again true",
    "client_gone Nothing",
    "client_gone Begun",
    "client_gone Part",
    "client_gone Unmarked",
    "client_send_timeout Part",
    "client_send_timeout Unmarked",
    "connection_read_timeout Part",
    "connection_read_timeout Unmarked",
    "connection_refused Nothing",
    "connection_terminated Nothing",
    "connection_terminated OwnAnswer",
    "connection_write_timeout Nothing",
    "connection_write_timeout OwnAnswer",
    "http_protocol_error Nothing",
    "http_protocol_error Begun",
    "http_protocol_error OwnAnswer",
    "http_request_error OwnAnswer",
    "http_request_incomplete OwnAnswer",
    "http_request_timeout OwnAnswer",
    "http_request_timeout Part",
    "http_response_incomplete Begun",
    "http_response_incomplete Part",
    "http_response_incomplete Unmarked",
    "http_response_timeout Nothing",
    "http_response_timeout Begun",
    "http_response_timeout OwnAnswer",
];
