//! Fuzzes `checks::proxy_protocol`: `cargo fuzz run proxy_protocol`.

#![no_main]

#[path = "../checks.rs"]
#[expect(dead_code, reason = "one of the checks is this target")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::proxy_protocol(bytes));
