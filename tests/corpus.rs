//! Replays the fuzzers' corpus: every file of `fuzz/corpus` goes through the check it belongs to.

use std::path::Path;

#[path = "../fuzz/checks.rs"]
mod checks;

/// Runs `check` on each file of its corpus, and on every truncation of it.
#[track_caller]
fn replay(name: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is in the repository") {
        let bytes = std::fs::read(entry.expect("the corpus is readable").path());
        let bytes = bytes.expect("the corpus holds files");
        for end in 0..=bytes.len() {
            check(&bytes[..end]);
        }
        files += 1;
    }
    assert!(10 <= files, "the corpus of {name} has {files} files");
}

#[test]
fn heads_decide_alike_in_any_split() {
    replay("head", checks::head);
}

#[test]
fn bodies_relay_alike_in_any_split() {
    replay("framing", checks::framing);
}

#[test]
fn chunks_decode_alike_in_any_split() {
    replay("chunk", checks::chunk);
}

#[test]
fn a_hop_changes_what_it_says() {
    replay("hop", checks::hop);
}

#[test]
fn proxy_headers_decide_alike_in_any_split() {
    replay("proxy_protocol", checks::proxy_protocol);
}

#[test]
fn any_text_is_a_configuration_or_errors() {
    replay("config", checks::config);
}

#[test]
fn exchanges_end_as_they_must() {
    replay("exchange", checks::exchange);
}
