//! Conversations on the wire, one a file: plays every `tests/wire/*.wire` against the real binary,
//! on both drivers. `tests/wire/README.md` is the language.
//!
//! `WIRE=TEXT` in the environment plays only the scripts whose names hold it.

mod play;
mod script;
mod stage;
#[expect(
    dead_code,
    unused_imports,
    clippy::needless_pass_by_ref_mut,
    reason = "scripts need a part of what tests stand on"
)]
#[path = "../support/mod.rs"]
mod support;
mod text;

use std::collections::BTreeSet;
use std::env;

use script::Script;
use stage::{perform, scripts};
use support::{Driver, on_both_drivers};

on_both_drivers! {
    every_script_holds
    a_script_that_does_not_hold_is_told_with_its_line
}

fn every_script_holds(driver: Driver) {
    let wanted = env::var("WIRE").unwrap_or_default();
    let mut scripts = scripts();
    scripts.retain(|script| script.file.contains(&wanted));
    assert!(!scripts.is_empty(), "no script has {wanted:?} in its name");
    check(&perform(driver, &scripts), &[]);
}

#[test]
fn scripts_have_numbers_of_their_own() {
    let scripts = scripts();
    let numbers: BTreeSet<&str> = scripts.iter().map(|script| &*script.number).collect();
    assert_eq!(numbers.len(), scripts.len());
}

const HEAD: &str =
    "# RFC 9112\nc1 sends \"GET / HTTP/1.1\\r\\nHost: $HOST\\r\\n\\r\\n\"\nu1 accepts\n";

fn a_script_that_does_not_hold_is_told_with_its_line(driver: Driver) {
    let cases = [
        (
            "u1 reads request \"POST / HTTP/1.1\"\ncounts nothing\n",
            "100-a.wire:4: u1: expected \"POST / HTTP/1.1\", got \"GET / HTTP/1.1\"",
        ),
        (
            "u1 reads request \"GET / HTTP/1.1\"\nu1 has Host \"a\"\ncounts nothing\n",
            "101-a.wire:5: u1: expected Host with \"a\", got Some(\"w101.test\")",
        ),
        (
            "u1 sends \"HTTP/1.1 204 \\r\\n\\r\\n\"\nc1 reads head 204\ncounts nothing\n",
            "102-a.wire: after its last line: u1: expected nothing more, got \"GET / HTTP/1.1",
        ),
        (
            "u1 reads head \"GET / HTTP/1.1\"\nu1 sends \"HTTP/1.1 204 \\r\\n\\r\\n\"\n\
             counts nothing\n",
            "103-a.wire: after its last line: c1: expected nothing more, got \"HTTP/1.1 204 ",
        ),
        (
            "u1 sends \"x\"\nc1 reads refusal 400 http_request_error\ncounts nothing\n",
            "104-a.wire:5: c1: expected 400, got \"HTTP/1.1 502 Bad Gateway\"",
        ),
    ];
    let scripts: Vec<Script> = (100..)
        .zip(cases)
        .map(|(number, (rest, _))| {
            let script = Script::parse(&format!("{number}-a.wire"), &(HEAD.to_owned() + rest));
            script.expect("it is one")
        })
        .collect();
    check(&perform(driver, &scripts), &cases.map(|(_, told)| told));
    let miscounted = "# RFC 9112\nc1 sends \"GET / HTTP/1.1\\r\\n\\r\\n\"\n\
        c1 reads refusal 400 http_request_error\ncounts forwarded 1\n";
    let script = Script::parse("105-a.wire", miscounted).expect("it is one");
    let told = [
        "105-a.wire: expected Counts",
        "faults of no service, of all scripts",
    ];
    check(&perform(driver, &[script]), &told);
}

/// As many failures as `expected`, whose text begins with theirs.
#[track_caller]
fn check(failures: &[String], expected: &[&str]) {
    let mut failures = failures.to_vec();
    failures.sort();
    let alike = failures.len() == expected.len()
        && failures
            .iter()
            .zip(expected)
            .all(|(failure, expected)| failure.starts_with(expected));
    let (count, lines) = (failures.len(), failures.join("\n"));
    assert!(alike, "{count} failures:\n{lines}\n");
}
