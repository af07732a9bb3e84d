//! The law of the house as a test: which folder may name which, and how a file must read.
//!
//! [`ROOMS`] is the table of docs/ARCHITECTURE.md as data. A new arrow or a new outside crate is a
//! change of this table, and is named in the subject of its commit. The scanner is textual:
//! comments, strings and test modules are taken out, then paths are read (`crate::x`, `super::x`,
//! `ringmain::x`, `outside::x`, and groups in braces).

#[path = "support/markdown.rs"]
mod markdown;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use markdown::{quoted, table_below};

/// One row: a folder or file, the rooms that it may name besides its own, and the outside crates of
/// its own.
struct Room {
    /// Of `src/NAME.rs` and `src/NAME/`.
    name: &'static str,
    may_name: &'static [&'static str],
    crates: &'static [&'static str],
}

/// All rooms of the library, from the top of the house down.
const LIBRARY: &[&str] = &[
    "boot",
    "cli",
    "config",
    "control",
    "shard",
    "door",
    "plan",
    "tally",
    "http",
    "proxy_protocol",
    "balance",
    "fault",
    "units",
    "fd",
];

/// A module names only what stands below it.
const ROOMS: &[Room] = &[
    room("main", LIBRARY, &["mimalloc"]),
    room(
        "cli",
        LIBRARY,
        &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "anstream",
            "monoio",
            "monoio_http",
            "io_uring",
            "rand",
            "rand_xorshift",
            "jiff",
            "socket2",
            "libc",
            "tokio",
        ],
    ),
    room("boot", LIBRARY, &["core_affinity", "tokio"]),
    room(
        "control",
        &[
            "config",
            "door",
            "plan",
            "tally",
            "http",
            "proxy_protocol",
            "balance",
            "fault",
            "units",
            "fd",
        ],
        &[
            "tokio",
            "axum",
            "hyper",
            "hyper_util",
            "env_logger",
            "rtrb",
            "arc_swap",
            "jiff",
            "hickory_resolver",
            "notify",
            "serde_json",
            "sd_notify",
        ],
    ),
    room(
        "shard",
        &[
            "door",
            "plan",
            "tally",
            "http",
            "proxy_protocol",
            "balance",
            "fault",
            "fd",
        ],
        &["monoio", "io_uring", "httpdate"],
    ),
    room(
        "config",
        &["plan", "proxy_protocol", "units"],
        &["toml", "annotate_snippets", "strsim"],
    ),
    room(
        "door",
        &["plan", "tally", "fault"],
        &["arc_swap", "rtrb", "loom"],
    ),
    room(
        "plan",
        &["http", "proxy_protocol", "balance", "fault"],
        &["memchr"],
    ),
    room(
        "tally",
        &["fault"],
        &["hdrhistogram", "serde_json", "arc_swap", "loom"],
    ),
    room("http", &["fault"], &["httparse", "memchr"]),
    room("proxy_protocol", &[], &[]),
    room("balance", &[], &["rand", "rand_xorshift", "xxhash_rust"]),
    room("fault", &[], &[]),
    room("units", &[], &[]),
    room("fd", &[], &["libc", "socket2"]),
];

/// What any room may name.
const EVERYWHERE: &[&str] = &["log", "thiserror"];

/// The only files with `unsafe`, by their beginning.
const UNSAFE: &[&str] = &["fd.rs", "fd/", "shard/buffer.rs", "door.rs", "door/"];

/// Words that the house does not use for anything, with the word that it uses.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("cluster", "service"),
    ("vhost", "route"),
    ("downstream", "client"),
    ("frontend", "client or listener"),
    ("entrypoint", "listener"),
    ("farm", "service"),
    ("snapshot", "plan"),
    ("preamble", "head"),
    ("checkout", "take"),
    ("checkin", "put"),
    ("throttle", "admit or shed"),
    ("lameduck", "drain"),
];

const COLUMNS: usize = 100;

const fn room(
    name: &'static str,
    may_name: &'static [&'static str],
    crates: &'static [&'static str],
) -> Room {
    Room {
        name,
        may_name,
        crates,
    }
}

#[test]
fn every_file_stands_in_a_room_of_the_table() {
    let rooms: BTreeSet<&str> = ROOMS.iter().map(|room| room.name).collect();
    let found = sources().into_iter().filter(|file| file.name != "lib.rs");
    report(found.filter_map(|file| {
        let known = rooms.contains(file.room());
        (!known).then(|| format!("src/{}: no row for it in tests/tidy.rs", file.name))
    }));
}

#[test]
fn rooms_name_only_what_stands_below_them() {
    report(sources().iter().flat_map(|file| {
        let row = ROOMS.iter().find(|row| row.name == file.room());
        let allowed = row.map_or(LIBRARY, |row| row.may_name);
        let named = file.rooms_named().into_iter();
        named
            .filter(|named| named != file.room() && !allowed.contains(&named.as_str()))
            .map(|named| format!("src/{} names {named}", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn outside_crates_stay_in_their_rooms() {
    let crates = dependencies();
    assert!(crates.contains("monoio"), "Cargo.toml was read");
    report(sources().iter().flat_map(|file| {
        let row = ROOMS.iter().find(|row| row.name == file.room());
        let allowed = row.map_or(&[][..], |row| row.crates);
        let named = file.crates_named(&crates).into_iter();
        named
            .filter(|name| {
                !allowed.contains(&name.as_str()) && !EVERYWHERE.contains(&name.as_str())
            })
            .map(|name| format!("src/{} names the crate {name}", file.name))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn the_document_holds_the_same_table() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it exists");
    let written: Vec<[BTreeSet<&str>; 3]> = table_below(&text, "| Room |")
        .map(|cells| {
            let names = match cells[2] {
                "everything" => LIBRARY.iter().copied().collect(),
                few => quoted(few),
            };
            [quoted(cells[0]), names, quoted(cells[3])]
        })
        .collect();
    let expected = ROOMS.iter().map(|room| {
        let sets = [&[room.name], room.may_name, room.crates];
        sets.map(|set| set.iter().copied().collect())
    });
    assert_eq!(written, expected.collect::<Vec<_>>());
}

#[test]
fn every_dependency_is_named() {
    let crates = dependencies();
    let named: BTreeSet<String> = rust_files()
        .iter()
        .flat_map(|(name, text)| Source::whole(name, text).crates_named(&crates))
        .collect();
    report(
        crates
            .difference(&named)
            .map(|name| format!("Cargo.toml: nobody names {name}")),
    );
}

#[test]
fn every_file_says_first_what_it_is_for() {
    report(rust_files().into_iter().filter_map(|(name, text)| {
        let first = text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ")).then(|| format!("{name}:1: not a `//! ` sentence"))
    }));
}

#[test]
fn unsafe_stays_where_it_is_argued() {
    report(sources().iter().filter_map(|file| {
        let argued = UNSAFE
            .iter()
            .any(|beginning| file.name.starts_with(beginning));
        let has = words(&file.code).any(|word| word == "unsafe");
        (has && !argued).then(|| format!("src/{}: unsafe", file.name))
    }));
}

#[test]
fn one_word_is_used_per_concept() {
    report(sources().iter().flat_map(|file| {
        let mut found = BTreeSet::new();
        for word in words(&file.code) {
            let parts = parts(word);
            for (other, ours) in OTHER_WORDS {
                if parts.iter().any(|part| part == other) {
                    let name = &file.name;
                    found.insert(format!("src/{name}: `{word}`: we say {ours}, not {other}"));
                }
            }
        }
        found
    }));
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[", "ignore"),
        concat!("#[", "allow("),
        concat!("#![", "allow("),
    ];
    report(rust_files().iter().flat_map(|(name, text)| {
        text.lines().enumerate().filter_map(move |(place, line)| {
            let mark = marks.iter().find(|mark| line.contains(**mark))?;
            Some(format!("{name}:{}: {mark}", place + 1))
        })
    }));
}

#[test]
fn lines_fit_their_columns() {
    report(rust_files().iter().flat_map(|(name, text)| {
        // What a test expects word for word is as wide as it is.
        let data = name.ends_with("tests.rs");
        let code = without_comments_and_strings(text);
        let lines = text.lines().zip(code.lines()).enumerate();
        let wide = lines.filter_map(|(place, (line, code))| {
            let is_comment = line.trim_start().starts_with("//");
            let counted = if data && !is_comment { code } else { line };
            let columns = counted.chars().count();
            (COLUMNS < columns).then(|| format!("{name}:{}: {columns} columns", place + 1))
        });
        wide.collect::<Vec<_>>()
    }));
}

#[test]
fn the_scanner_sees_what_it_should() {
    let file = Source::new(
        "shard/pool/idle.rs",
        "//! Not crate::config.\nuse crate::{door, plan::{Plan, Life}, tally as t};\n\
         use super::super::upstream;\nuse super::super::super::http::head;\n\
         // crate::control\nfn f() { \"crate::boot\"; crate::fault::Fault::X; ::toml::x(); }\n\
         fn g<'a>(x: &'a str) -> char { '\"' }\nfn h() { a.tokio::x; serde::y() }\n\
         #[cfg(test)]\nmod tests { use crate::units; }\n",
    );
    let rooms: Vec<String> = file.rooms_named().into_iter().collect();
    assert_eq!(rooms, ["door", "fault", "http", "plan", "tally"]);
    let crates = ["toml", "serde", "tokio", "clap"].map(str::to_owned).into();
    let named: Vec<String> = file.crates_named(&crates).into_iter().collect();
    assert_eq!(named, ["serde", "tokio", "toml"]);
    let masked = without_comments_and_strings("a(r#\"b\nc\"#, \"d\n\"); /* e\n */ f");
    assert_eq!(masked, "a(\"\"\n, \"\"\n); \n f");
    assert_eq!(
        parts("HttpClusterName_ttl"),
        ["http", "cluster", "name", "ttl"]
    );
}

/// A file of the library or the binary.
struct Source {
    /// Its path below `src`.
    name: String,
    /// Its text without comments and strings, and mostly without test modules.
    code: String,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let mut source = Self::whole(name, text);
        if let Some(shipped) = source.code.find("#[cfg(test)]\nmod tests {") {
            source.code.truncate(shipped);
        }
        source
    }

    /// With its test module.
    fn whole(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            code: without_comments_and_strings(text),
        }
    }

    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules this file is deep: `a.rs` and `a/mod.rs` are 1.
    fn depth(&self) -> usize {
        let parts = self.name.split('/').count();
        match self.name.as_str() {
            "lib.rs" | "main.rs" => 0,
            name if name.ends_with("/mod.rs") => parts - 1,
            _ => parts,
        }
    }

    /// The rooms that its paths lead into.
    fn rooms_named(&self) -> BTreeSet<String> {
        let up = "super::".repeat(self.depth());
        let mut roots = vec!["crate::", "ringmain::"];
        if 0 < self.depth() {
            roots.push(&up);
        }
        let mut named = BTreeSet::new();
        for root in roots {
            for (at, _) in self.code.match_indices(root) {
                let before = self.code[..at].chars().next_back();
                if before.is_none_or(|before| !is_of_word(before) && before != ':') {
                    named.extend(first_segments(&self.code[at + root.len()..]));
                }
            }
        }
        named.retain(|name| LIBRARY.contains(&name.as_str()));
        named
    }

    /// Those of `crates` that its paths begin with.
    fn crates_named(&self, crates: &BTreeSet<String>) -> BTreeSet<String> {
        let named = crates.iter().filter(|name| {
            let mut places = self.code.match_indices(name.as_str());
            places.any(|(at, _)| {
                let (before, after) = (&self.code[..at], &self.code[at + name.len()..]);
                let begins = !before.ends_with(is_of_word)
                    && (!before.ends_with("::")
                        || !before
                            .trim_end_matches("::")
                            .ends_with(|c| is_of_word(c) || c == '>'));
                let used = before.ends_with("use ") && after.starts_with([';', ' ']);
                begins && (after.starts_with("::") || used)
            })
        });
        named.cloned().collect()
    }
}

/// `a` of `a::b`, or of each part of `{a, b::{c, d}}`.
fn first_segments(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![leading_word(path)];
    };
    let mut segments = vec![leading_word(group.trim_start())];
    let mut depth = 1;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => segments.push(leading_word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    segments
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|c| is_of_word(*c)).collect()
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c| !is_of_word(c))
        .filter(|word| !word.is_empty())
}

/// The parts of a name in snake case or camel case, in lower case.
fn parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for character in word.chars() {
        if character == '_' || character.is_uppercase() {
            parts.push(String::new());
        }
        if let (Some(part), true) = (parts.last_mut(), character != '_') {
            part.extend(character.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// `text` with every comment and the inside of every string and character literal taken out; lines
/// stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let (kept, skipped) = match character {
            '/' if rest.starts_with("//") => ("", rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => ("", rest.find("*/").map_or(rest.len(), |at| at + 2)),
            '"' => ("\"\"", 1 + end_of_quote(&rest[1..], '"')),
            'r' if !code.ends_with(is_of_word) && raw_string(rest).is_some() => {
                ("\"\"", raw_string(rest).unwrap_or(1))
            }
            '\'' => match character_literal(rest) {
                Some(length) => ("' '", length),
                None => ("'", 1),
            },
            _ => ("", 0),
        };
        if skipped == 0 {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        } else {
            code.push_str(kept);
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// How many bytes up to and including the quote that ends a literal.
fn end_of_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string that `text` begins with.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end)?;
    Some(2 + hashes + length + end.len())
}

/// The length of the character literal that `text` begins with; `None` for a lifetime.
fn character_literal(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        return Some(1 + end_of_quote(&text[1..], '\''));
    }
    match characters.next()? {
        (at, '\'') => Some(at + 1),
        _ => None,
    }
}

/// The names of Cargo.toml's dependencies as paths spell them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest exists");
    let tables = manifest.split("\n[").filter(|table| {
        let head = table.lines().next().unwrap_or_default();
        head == "dependencies]" || head.ends_with(".dependencies]")
    });
    let lines = tables.flat_map(|table| table.lines().skip(1));
    let names = lines.filter_map(|line| Some(line.split_once([' ', '='])?.0.replace('-', "_")));
    names
        .filter(|name| !name.is_empty() && name != "#")
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything below `src`.
fn sources() -> Vec<Source> {
    let source = root().join("src");
    let files = files_under(&source, "rs").into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("it was just listed");
        let name = path.strip_prefix(&source).expect("it is below src");
        Source::new(&name.to_string_lossy(), &text)
    });
    // Tests in a file of their own may name what they like.
    files
        .filter(|file| !file.name.ends_with("tests.rs"))
        .collect()
}

/// Name and text of every Rust file of the repository.
fn rust_files() -> Vec<(String, String)> {
    let folders = ["src", "tests", "fuzz/fuzz_targets", "bench"];
    let paths = folders
        .iter()
        .flat_map(|folder| files_under(&root().join(folder), "rs"));
    let files = paths.map(|path| {
        let text = fs::read_to_string(&path).expect("it was just listed");
        let name = path.strip_prefix(root()).expect("it is below the root");
        (name.to_string_lossy().into_owned(), text)
    });
    files.collect()
}

fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(files_under(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[track_caller]
fn report(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
