//! `config.toml`, the reference, against the code: every key, with its default, and none besides.

use proptest::prelude::*;

use super::*;

const REFERENCE: &str = include_str!("../../../config.toml");

#[test]
fn what_is_refused_for_now_is_known() {
    let keys = keys();
    for path in unsupported::paths() {
        let inside = format!("{path}.");
        let known = |key: &KnownKey| key.path == path || key.path.starts_with(&inside);
        assert!(keys.iter().any(known), "{path}");
    }
}

#[test]
fn the_reference_works_as_it_is() {
    let config = accepted(REFERENCE);
    assert_eq!(config.warnings(1_024), [""; 0]);
    let addresses = config.services()[0]
        .backends
        .iter()
        .map(|backend| backend.address.to_string());
    let expected = [9090, 9091, 9092].map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(addresses.collect::<Vec<_>>(), expected);
}

#[test]
fn the_reference_shows_every_key_with_its_default() {
    // What an operator has to choose; the file shows an example.
    const EXAMPLES: [&str; 2] = ["service.domains", "route.service"];
    let text = uncommented(REFERENCE);
    let document: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}"));
    for KnownKey { path, default } in keys() {
        let mut shown = Vec::new();
        collect(&toml::Value::Table(document.clone()), &path, &mut shown);
        assert!(!shown.is_empty(), "{path} is missing");
        let Some(default) = default.filter(|_| !EXAMPLES.contains(&path.as_str())) else {
            continue;
        };
        let default: toml::Table = format!("x = {default}").parse().expect("a default is TOML");
        for shown in shown {
            assert_eq!(shown, default["x"], "{path}");
        }
    }
}

#[test]
fn the_reference_shows_no_key_that_does_not_exist() {
    let text = uncommented(REFERENCE);
    let errors = parse("config.toml", &text).expect_err("it has a probe");
    for error in errors.iter() {
        assert!(
            error.message.starts_with("not supported yet"),
            "{}: {}",
            error.key,
            error.message
        );
    }
}

/// `text` with the commented keys and tables in force.
fn uncommented(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let inside = line.trim_start().strip_prefix("# ").unwrap_or(line);
        let key = inside.split_once(" = ").is_some_and(|(key, _)| {
            key.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        let in_force = key || inside.starts_with(['[', '{']);
        lines.push_str(if in_force { inside } else { line });
        lines.push('\n');
    }
    lines
}

/// Every value at `path`, in whichever elements of lists it stands.
fn collect(value: &toml::Value, path: &str, found: &mut Vec<toml::Value>) {
    if path.is_empty() {
        found.push(value.clone());
        return;
    }
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    match value {
        toml::Value::Array(elements) => {
            elements
                .iter()
                .for_each(|element| collect(element, path, found));
        }
        toml::Value::Table(table) => {
            if let Some(value) = table.get(key) {
                collect(value, rest, found);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).*") {
        let _ = parse("x", &text).map_err(|errors| format!("{errors} {errors:#} {errors:?}"));
    }

    /// A broken reference goes deeper than what chance writes.
    #[test]
    fn no_damage_to_the_reference_makes_the_parser_panic(
        at in 0..REFERENCE.len(),
        length in 0_usize..40,
        damage in "[\\[\\]{}=\",.a-z0-9\n -]{0,8}",
    ) {
        let end = (at + length).min(REFERENCE.len());
        let text = format!("{}{damage}{}", &REFERENCE[..at], &REFERENCE[end..]);
        let _ = parse("x", &text).map_err(|errors| errors.to_string());
    }
}
