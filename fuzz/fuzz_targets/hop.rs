//! Fuzzes `checks::hop`: `cargo fuzz run hop`.

#![no_main]

#[path = "../checks.rs"]
#[expect(dead_code, reason = "one of the checks is this target")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::hop(bytes));
