//! The documents against the code: what they name exists, and what they must name is there.

#[path = "support/markdown.rs"]
mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use markdown::{quoted, table_below};
use ringmain::control::admin::ROUTES;
use ringmain::fault::Fault;
use ringmain::tally::{EjectReason, Phase, RetryReason};

#[test]
fn the_table_of_faults_is_the_codes() {
    let text = read("docs/FAULTS.md");
    let written: Vec<[String; 5]> = table_below(&text, "| Label |")
        .map(|cells| std::array::from_fn(|column| cells[column].replace('`', "")))
        .collect();
    let expected = Fault::ALL.map(|fault| {
        let another_try = match (fault.retryable(), fault.nothing_sent()) {
            (true, true) => "any method",
            (true, false) => "idempotent methods",
            (false, _) => "no",
        };
        let status = fault.status().to_string();
        let side = fault.side().label();
        [fault.label(), fault.word(), side, &status, another_try].map(str::to_owned)
    });
    assert_eq!(written, expected);
}

/// A rule without a conversation that holds it is a claim. The first comment of a script cites the
/// rule's section, or one below it.
#[test]
fn every_rule_of_http_that_is_obeyed_is_held_by_a_script() {
    let comments = script_comments();
    let text = read("docs/HTTP.md");
    let mut rules = 0;
    for part in text.split("\n## RFC ").skip(1) {
        let rfc = part.split(':').next().unwrap_or_default();
        for cells in table_below(part, "| Section |") {
            let held = sections(rfc, cells[0])
                .any(|cited| comments.iter().any(|comment| cites(comment, &cited)));
            assert!(
                held,
                "RFC {rfc}: no script of tests/wire for: {}",
                cells[..2].join(" ")
            );
            rules += 1;
        }
    }
    assert!(40 < rules, "{rules} rules: the tables were not found");
}

#[test]
fn each_fault_has_a_test() {
    // A label stands as a word of its own in a script of tests/wire, or as a literal in a test that
    // speaks to the proxy.
    let of_word = |c: char| c.is_ascii_lowercase() || c == '_';
    let scripts: Vec<String> = texts("tests/wire", "wire");
    let words: BTreeSet<&str> = scripts
        .iter()
        .flat_map(|script| script.split(|c| !of_word(c)))
        .collect();
    let mut tests = texts("tests/proxy", "rs");
    tests.extend(["tests/slow.rs", "tests/panic.rs"].map(read));
    for label in Fault::ALL.map(Fault::label) {
        let literal = format!("\"{label}\"");
        let tested = words.contains(label) || tests.iter().any(|test| test.contains(&literal));
        // Nothing takes endpoints out of a service yet, so that one can always be picked.
        let cannot_happen = label == Fault::DestinationUnavailable.label();
        assert!(tested || cannot_happen, "no test expects {label}");
    }
}

#[test]
fn the_table_of_routes_is_the_admin_apis() {
    let text = read("docs/ADMIN.md");
    let written = table_below(&text, "| Method | Path |");
    let written: Vec<[String; 2]> = written
        .map(|cells| [cells[0], cells[1]].map(|cell| cell.replace('`', "")))
        .collect();
    let expected = ROUTES.map(|(method, path)| [method, path].map(str::to_owned));
    assert_eq!(written, expected);
}

#[test]
fn keys_in_toml_blocks_exist_in_the_reference() {
    let known = keys(&read("config.toml"), true);
    for (name, text) in documents() {
        let used = toml_blocks(&text).flat_map(|block| keys(block, false));
        let unknown: Vec<String> = used.filter(|key| !known.contains(key)).collect();
        assert!(
            unknown.is_empty(),
            "{name}: not in config.toml: {unknown:?}"
        );
    }
}

#[test]
fn the_readmes_configurations_are_accepted() {
    let readme = read("README.md");
    let mut blocks = toml_blocks(&readme).enumerate().peekable();
    assert!(blocks.peek().is_some(), "README.md shows a configuration");
    for (place, block) in blocks {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{place}.toml"));
        fs::write(&path, block).expect("the folder is writable");
        let mut check = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        let output = check.args(["check", "--config"]).arg(&path).output();
        let output = output.expect("the binary is built");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
}

#[test]
fn names_that_operators_read_exist() {
    // A name with an underscore in the operators' documents is a key or a value of the
    // configuration, a fault, a phase, or a reason.
    let reference = read("config.toml");
    let mut known: BTreeSet<&str> = reference
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    known.extend(
        Fault::ALL
            .iter()
            .flat_map(|fault| [fault.label(), fault.word()]),
    );
    known.extend(Phase::ALL.map(Phase::label));
    known.extend(RetryReason::ALL.map(RetryReason::label));
    known.extend(EjectReason::ALL.map(EjectReason::label));
    // HTTP.md names tests, too.
    let tests = functions_of_tests();
    known.extend(tests.iter().map(String::as_str));
    for document in [
        "README.md",
        "docs/CHANGELOG.md",
        "docs/FAULTS.md",
        "docs/HTTP.md",
        "docs/PHASES.md",
        "docs/REPORT.md",
    ] {
        let text = read(document);
        let of_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let mut names = text.lines().flat_map(quoted);
        let unknown = names
            .find(|name| name.contains('_') && name.chars().all(of_name) && !known.contains(name));
        assert_eq!(unknown, None, "{document} names it");
    }
}

#[test]
fn the_table_of_rules_names_files_and_tests_that_exist() {
    let text = read("docs/HTTP.md");
    let tests = functions_of_tests();
    for chapter in text.split("\n## ").filter(|it| it.starts_with("RFC ")) {
        let mut section_before = Vec::new();
        for cells in table_below(chapter, "| Section | Rule |") {
            let [section, rule, files, _, shown_by, ""] = cells[..] else {
                panic!("not five cells: {cells:?}");
            };
            let section: Vec<u32> = section
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .next()
                .into_iter()
                .flat_map(|number| number.split('.'))
                .filter_map(|part| part.parse().ok())
                .collect();
            assert!(section_before <= section, "{rule}: out of order");
            section_before = section;
            assert!(
                !files.is_empty() && !shown_by.is_empty(),
                "{rule}: {cells:?}"
            );
            for file in quoted(files) {
                let found = ["src/http", "src", ""].map(|folder| root().join(folder).join(file));
                assert!(found.iter().any(|it| it.exists()), "{rule}: no file {file}");
            }
            for name in quoted(shown_by) {
                let found = match name.contains('/') {
                    true => root().join(name).exists(),
                    false => tests.contains(name),
                };
                assert!(found, "{rule}: no test {name}");
            }
        }
        assert!(!section_before.is_empty(), "a table was read");
    }
}

#[test]
fn subcommands_and_options_of_the_documents_exist() {
    let mut help = BTreeMap::new();
    for (name, text) in documents() {
        for line in commands(&text) {
            let mut words = line.split_whitespace().peekable();
            let subcommand = words
                .next_if(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                .unwrap_or("run");
            let known = help
                .entry(subcommand.to_owned())
                .or_insert_with(|| help_of(subcommand));
            let options = words.take_while(|word| !matches!(*word, "#" | "|" | "||" | "&&" | ">"));
            for option in options.filter(|word| word.starts_with("--")) {
                let found = known.split_whitespace().any(|word| word == option);
                assert!(found, "{name}: `ringmain {line}`: there is no {option}");
            }
        }
    }
    assert!(help.contains_key("check"), "the documents were read");
}

#[test]
fn every_subcommand_is_in_the_readme() {
    let readme = read("README.md");
    let listed = table_below(&readme, "| Command |").map(|cells| cells[0].to_owned());
    let listed: Vec<String> = listed.collect();
    let subcommands = help_of("");
    let names = subcommands
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        let named = |cell: &String| {
            let mut words = cell.split(|c: char| !c.is_ascii_lowercase());
            words.any(|word| word == name)
        };
        assert!(
            listed.iter().any(named),
            "README.md: no row for `ringmain {name}`"
        );
    }
}

#[test]
fn links_lead_to_files() {
    for (name, text) in documents() {
        let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
        for target in text.split("](").skip(1) {
            let target = target.split([')', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            let found = root().join(folder).join(target).exists();
            assert!(outside || found, "{name}: {target} does not exist");
        }
    }
}

#[test]
fn the_scanner_sees_keys_and_commands() {
    let table = "[[a]]\nk = 1\n# c = 2 # why\n# [a.b]\n# d = { x = 1 }\n# a sentence = no\n";
    let expected = ["a.b.d", "a.c", "a.k"].map(str::to_owned);
    assert_eq!(keys(table, true), expected.into());
    let text =
        "says `ringmain check --config F` or ringmain alone\n$ target/release/ringmain run\n";
    assert_eq!(commands(text), ["check --config F", "run"]);
}

/// RFC and section of each part of a cell such as `6.3 rules 6 to 8` or `5.4 of RFC 9110`.
fn sections(rfc: &str, cell: &str) -> impl Iterator<Item = [String; 2]> {
    let parts = cell.split(", ").map(move |part| {
        let other = part.split_once(" of RFC ").map(|(_, rfc)| rfc);
        let section = part.split(' ').next().unwrap_or_default();
        [other.unwrap_or(rfc), section].map(str::to_owned)
    });
    parts.collect::<Vec<_>>().into_iter()
}

/// True exactly when `comment` names this section of this RFC, or one below it.
fn cites(comment: &str, [rfc, section]: &[String; 2]) -> bool {
    let mut named = comment
        .match_indices("section ")
        .map(|(at, word)| &comment[at + word.len()..]);
    let is_it = |text: &str| {
        let rest = text.strip_prefix(section.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    comment.contains(&format!("RFC {rfc}")) && named.any(is_it)
}

/// What each wire script says of itself, in one line.
fn script_comments() -> Vec<String> {
    let entries = fs::read_dir(root().join("tests/wire")).expect("it exists");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|end| end == "wire"));
    let comments = scripts.map(|path| {
        let text = fs::read_to_string(path).expect("it was just listed");
        let lines = text.lines().map_while(|line| line.strip_prefix("# "));
        lines.collect::<Vec<_>>().join(" ")
    });
    comments.collect()
}

/// What follows `ringmain` in each command: in backquotes, or on a line that begins with `$`.
fn commands(markdown: &str) -> Vec<&str> {
    let quotes = markdown
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let lines = markdown.lines().filter_map(|line| line.strip_prefix("$ "));
    let all = quotes.chain(lines);
    let ours = all.filter_map(|command| {
        let (program, rest) = command.split_once(' ')?;
        (program == "ringmain" || program.ends_with("/ringmain")).then_some(rest.trim())
    });
    // `ringmain [run]` and `ringmain 0.1.0` are none.
    ours.filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

/// What `ringmain SUBCOMMAND --help` prints.
fn help_of(subcommand: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    let words = [subcommand, "--help"]
        .into_iter()
        .filter(|word| !word.is_empty());
    let output = command.args(words).output().expect("the binary is built");
    assert!(
        output.status.success(),
        "there is no `ringmain {subcommand}`"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `TABLE.KEY` of every key in a TOML text; with `commented`, also of lines such as `# key = value`
/// and `# [table]`.
fn keys(toml: &str, commented: bool) -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in toml.lines() {
        let line = match line.trim().strip_prefix('#') {
            Some(comment) if commented => comment.trim_start(),
            Some(_) => continue,
            None => line.trim(),
        };
        let named = line.split(" #").next().unwrap_or_default().trim();
        let name = named.trim_start_matches('[').trim_end_matches(']');
        let is_name = |name: &str| {
            let of_name = |c: char| c.is_lowercase() || c.is_ascii_digit() || "_.".contains(c);
            !name.is_empty() && name.chars().all(of_name)
        };
        if named.starts_with('[') && is_name(name) {
            name.clone_into(&mut table);
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            if is_name(key) {
                keys.insert(format!("{table}.{key}"));
            }
        }
    }
    keys
}

/// The names of the functions in files that hold tests.
fn functions_of_tests() -> BTreeSet<String> {
    let mut folders = vec![root().join("src"), root().join("tests")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it exists") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !text.contains("#[test]") && !text.contains("on_both_drivers!") {
                continue;
            }
            let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let after_fn = text.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("pub(crate) ");
                line.strip_prefix("fn ")
            });
            names.extend(after_fn.filter_map(|rest| {
                let name = rest.split(|c| !of_name(c)).next()?;
                Some(name.to_owned())
            }));
        }
    }
    names
}

/// The insides of the blocks fenced as `toml`.
fn toml_blocks(markdown: &str) -> impl Iterator<Item = &str> {
    let blocks = markdown.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next())
}

/// Name and text of README.md and of everything in `docs` and below.
fn documents() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "bench/README.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(folder)).expect("it exists");
        let found = entries.map(|entry| entry.expect("it can be read").file_name());
        let found = found.filter_map(|name| name.into_string().ok());
        let found = found.filter(|name| name.ends_with(".md"));
        names.extend(found.map(|name| format!("{folder}/{name}")));
    }
    names
        .into_iter()
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// Every file of a folder with this extension.
fn texts(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("it exists");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    let texts = paths.map(|path| fs::read_to_string(path).expect("it was just listed"));
    texts.collect()
}

fn read(name: &str) -> String {
    let text = fs::read_to_string(root().join(name));
    assert!(text.is_ok(), "{name}: {text:?}");
    text.unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
