//! Fuzzes `checks::exchange`: `cargo fuzz run exchange`.

#![no_main]

#[path = "../checks.rs"]
#[expect(dead_code, reason = "one of the checks is this target")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::exchange(bytes));
