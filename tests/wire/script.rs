//! A script: the configuration that it needs, who says and reads what, and what is counted.
//!
//! `tests/wire/README.md` is the language. Pure: nothing is played here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::text::{Text, Token, tokens};

/// One file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// The name of its file.
    pub(crate) file: String,
    /// The digits that the name begins with: its service is `wNNN`.
    pub(crate) number: String,
    /// Tables and keys of its service.
    pub(crate) service: String,
    /// Tables and keys of its listener; empty where it shares one.
    pub(crate) listener: String,
    /// Keys of `[runtime]`; empty where it shares a process.
    pub(crate) runtime: String,
    /// Further tables of the file.
    pub(crate) tables: String,
    /// What its service stands on; never empty.
    pub(crate) backends: Vec<Backend>,
    /// Parts of the WARN and ERROR lines that belong to it.
    pub(crate) log: Vec<String>,
    /// What happens, one after the other.
    pub(crate) steps: Vec<Step>,
    /// What is counted of its service at the end.
    pub(crate) counts: Counts,
}

/// One address of the script's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) kind: BackendKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// The script accepts its connections.
    Played,
    /// Connections to it are refused.
    Refuses,
    /// Its queue is full, so that connections to it are not answered.
    Full,
}

/// What one side does, or reads and holds.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The line of the file, from 1.
    pub(crate) line: usize,
    /// `c1`, `u1`: clients begin with c, upstream connections with u.
    pub(crate) actor: String,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Connects,
    Accepts {
        at: Option<String>,
    },
    Sends(Text),
    SendsBytewise(Text),
    Floods(Text),
    Finishes,
    Resets,
    Closes,
    ReadsHead(Start),
    ReadsAnswer {
        status: u16,
        method: String,
    },
    ReadsRequest(Text),
    ReadsOwn {
        status: u16,
        label: String,
        method: String,
    },
    ReadsRefusal {
        status: u16,
        label: String,
    },
    ReadsBytes(Text),
    ReadsFin,
    ReadsReset,
    ReadsEnd,
    Has {
        name: String,
        value: Option<Text>,
    },
    HasNo {
        name: String,
    },
    HasBody(Text),
}

/// What a head has to begin with.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    Status(u16),
    Line(Text),
}

/// What is counted; what is not named is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) forwarded: u64,
    pub(crate) own: u64,
    /// From the least to the most: which endpoint is picked first is not the script's to say.
    pub(crate) retries: RangeInclusive<u64>,
    pub(crate) replays: RangeInclusive<u64>,
    /// How often all endpoints were at their limit.
    pub(crate) limited: u64,
    pub(crate) tunnels: u64,
    /// Of the service, by label.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Of no service, by label.
    pub(crate) nowhere: BTreeMap<String, u64>,
}

/// Why a file is no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// A line that begins at the margin, and the indented ones below it.
struct Paragraph<'a> {
    line: usize,
    first: &'a str,
    below: Vec<&'a str>,
}

impl Script {
    /// Reads the text of `file`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ScriptError> {
        let digits = file.split('-').next().unwrap_or_default();
        let mut script = Self {
            file: file.to_owned(),
            number: digits.to_owned(),
            ..Self::default()
        };
        let refuse = |line, why: &str| {
            let why = why.to_owned();
            Err(ScriptError { line, why })
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse(0, "the name begins with no three digits");
        }
        if !cites(text) {
            return refuse(1, "the first comment cites no RFC, CVE or docs/ page");
        }
        let mut counted = false;
        for paragraph in paragraphs(text) {
            let Paragraph { line, first, .. } = paragraph;
            counted |= first.starts_with("counts");
            let read = script.read(&paragraph);
            read.map_err(|why| ScriptError { line, why })?;
        }
        if !counted {
            return refuse(0, "it counts nothing");
        }
        if script.backends.is_empty() {
            script.backends.push(Backend {
                name: "b1".to_owned(),
                kind: BackendKind::Played,
            });
        }
        Ok(script)
    }

    fn read(&mut self, paragraph: &Paragraph<'_>) -> Result<(), String> {
        let toml = || paragraph.below.join("\n") + "\n";
        match paragraph.first {
            "service" => self.service = toml(),
            "listener" => self.listener = toml(),
            "runtime" => self.runtime = toml(),
            "tables" => self.tables = toml(),
            _ => {
                let mut all = tokens(paragraph.first)?;
                for line in &paragraph.below {
                    all.extend(tokens(line)?);
                }
                return self.read_tokens(paragraph.line, all);
            }
        }
        Ok(())
    }

    fn read_tokens(&mut self, line: usize, tokens: Vec<Token<'_>>) -> Result<(), String> {
        let mut words = Vec::new();
        let mut text: Option<Text> = None;
        for token in tokens {
            match token {
                Token::Word(_) if text.is_some() => return Err("a word behind a text".to_owned()),
                Token::Word(word) => words.push(word),
                Token::Text(more) => text.get_or_insert_default().append(more),
            }
        }
        match (words.as_slice(), text) {
            (["log"], Some(part)) => {
                let part = String::from_utf8_lossy(&part.bytes(|_| String::new())).into_owned();
                self.log.push(part);
            }
            (["backend", name, kind @ ..], None) => {
                let kind = match kind {
                    [] => BackendKind::Played,
                    ["refuses"] => BackendKind::Refuses,
                    ["full"] => BackendKind::Full,
                    _ => return Err("a backend is played, refuses, or is full".to_owned()),
                };
                let name = (*name).to_owned();
                self.backends.push(Backend { name, kind });
            }
            (["counts", what @ ..], None) => self.counts.read(what)?,
            ([actor, words @ ..], text) if is_actor(actor) => self.steps.push(Step {
                line,
                actor: (*actor).to_owned(),
                action: Action::parse(words, text)?,
            }),
            (words, _) => return Err(format!("nobody knows: {}", words.join(" "))),
        }
        Ok(())
    }
}

impl Action {
    fn parse(words: &[&str], text: Option<Text>) -> Result<Self, String> {
        let status = |word: &str| {
            let status = word.parse::<u16>();
            status.map_err(|error| format!("status {word:?}: {error}"))
        };
        Ok(match (words, text) {
            (["connects"], None) => Self::Connects,
            (["accepts"], None) => Self::Accepts { at: None },
            (["accepts", "at", name], None) => Self::Accepts {
                at: Some((*name).to_owned()),
            },
            (["sends"], Some(text)) => Self::Sends(text),
            (["sends", "bytewise"], Some(text)) => Self::SendsBytewise(text),
            (["floods"], Some(text)) => Self::Floods(text),
            (["finishes"], None) => Self::Finishes,
            (["resets"], None) => Self::Resets,
            (["closes"], None) => Self::Closes,
            (["reads", "head"], Some(start)) => Self::ReadsHead(Start::Line(start)),
            (["reads", "head", word], None) => Self::ReadsHead(Start::Status(status(word)?)),
            (["reads", "answer", word, to @ ..], None) => Self::ReadsAnswer {
                status: status(word)?,
                method: method(to)?,
            },
            (["reads", "request"], Some(start)) => Self::ReadsRequest(start),
            (["reads", "own", word, label, to @ ..], None) => Self::ReadsOwn {
                status: status(word)?,
                label: (*label).to_owned(),
                method: method(to)?,
            },
            (["reads", "refusal", word, label], None) => Self::ReadsRefusal {
                status: status(word)?,
                label: (*label).to_owned(),
            },
            (["reads", "bytes"], Some(text)) => Self::ReadsBytes(text),
            (["reads", "fin"], None) => Self::ReadsFin,
            (["reads", "reset"], None) => Self::ReadsReset,
            (["reads", "end"], None) => Self::ReadsEnd,
            (["has", "body"], Some(text)) => Self::HasBody(text),
            (["has", "no", name], None) => Self::HasNo {
                name: (*name).to_owned(),
            },
            (["has", name], value) => Self::Has {
                name: (*name).to_owned(),
                value,
            },
            (words, _) => return Err(format!("nobody knows how to: {}", words.join(" "))),
        })
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            forwarded: 0,
            own: 0,
            retries: 0..=0,
            replays: 0..=0,
            limited: 0,
            tunnels: 0,
            faults: BTreeMap::new(),
            nowhere: BTreeMap::new(),
        }
    }
}

impl Counts {
    /// True exactly when a script that expects these may have been counted as `other`.
    pub(crate) fn allow(&self, other: &Self) -> bool {
        let within = |span: &RangeInclusive<u64>, other: &RangeInclusive<u64>| {
            span.start() <= other.start() && other.end() <= span.end()
        };
        within(&self.retries, &other.retries)
            && within(&self.replays, &other.replays)
            && (self.forwarded, self.own) == (other.forwarded, other.own)
            && (self.limited, self.tunnels) == (other.limited, other.tunnels)
            && (&self.faults, &self.nowhere) == (&other.faults, &other.nowhere)
    }

    /// `forwarded 1, own 2, nowhere LABEL 1, LABEL 1`, or `nothing`.
    fn read(&mut self, words: &[&str]) -> Result<(), String> {
        let said = words.join(" ");
        if said == "nothing" {
            return Ok(());
        }
        for item in said.split(", ") {
            let words: Vec<&str> = item.split(' ').collect();
            let (Some((number, words)), false) = (words.split_last(), words.len() < 2) else {
                return Err(format!("{item:?} is no count"));
            };
            let parse = |number: &str| {
                let number = number.parse::<u64>();
                number.map_err(|error| format!("{item:?} is no count: {error}"))
            };
            if let Some((least, most)) = number.split_once('-') {
                let span = parse(least)?..=parse(most)?;
                match words {
                    ["retries"] => self.retries = span,
                    ["replays"] => self.replays = span,
                    _ => return Err(format!("{item:?} is exact")),
                }
                continue;
            }
            let number = parse(number)?;
            match words {
                ["forwarded"] => self.forwarded += number,
                ["own"] => self.own += number,
                ["limited"] => self.limited += number,
                ["tunnels"] => self.tunnels += number,
                ["retries"] => self.retries = number..=number,
                ["replays"] => self.replays = number..=number,
                ["nowhere", label] => {
                    *self.nowhere.entry((*label).to_owned()).or_default() += number;
                }
                [label] => *self.faults.entry((*label).to_owned()).or_default() += number,
                _ => return Err(format!("{item:?} is no count")),
            }
        }
        Ok(())
    }
}

/// The method that an answer is read for.
fn method(words: &[&str]) -> Result<String, String> {
    match words {
        [] => Ok("GET".to_owned()),
        ["to", method] => Ok((*method).to_owned()),
        _ => Err(format!("nobody knows: {}", words.join(" "))),
    }
}

/// `c` or `u` and digits.
fn is_actor(word: &str) -> bool {
    let digits = word.strip_prefix(['c', 'u']);
    digits.is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// True exactly when the comment at the top says where the rule stands.
fn cites(text: &str) -> bool {
    let comment = text.lines().take_while(|line| line.starts_with('#'));
    let comment: Vec<&str> = comment.collect();
    let sources = ["RFC ", "CVE-", "docs/"];
    sources
        .iter()
        .any(|source| comment.iter().any(|line| line.contains(source)))
}

/// The text without comments and empty lines.
fn paragraphs(text: &str) -> Vec<Paragraph<'_>> {
    let mut paragraphs: Vec<Paragraph<'_>> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match paragraphs.last_mut() {
            Some(paragraph) if line.starts_with(' ') => paragraph.below.push(line.trim()),
            _ => paragraphs.push(Paragraph {
                line: place + 1,
                first: line.trim(),
                below: Vec::new(),
            }),
        }
    }
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, line: usize, why: &str) {
        let error = Script::parse("001-a.wire", text).unwrap_err();
        let why = why.to_owned();
        assert_eq!(error, ScriptError { line, why });
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_line() {
        check(
            "# nothing\ncounts nothing\n",
            1,
            "the first comment cites no RFC, CVE or docs/ page",
        );
        check("# RFC 9112\n", 0, "it counts nothing");
        check("# RFC 9112\n\nc1 sings\n", 3, "nobody knows how to: sings");
        check("# RFC 9112\nd1 sends \"a\"\n", 2, "nobody knows: d1 sends");
        check("# RFC 9112\nc1 sends \"a\" b\n", 2, "a word behind a text");
        check("# RFC 9112\ncounts x\n", 2, "\"x\" is no count");
    }

    #[test]
    fn a_script_is_read() {
        let text = "# RFC 9112\nservice\n  [service.timeouts]\n  response = \"1s\"\n\
            c1 sends\n  \"a\"\n  # why\n  \"b\"\ncounts forwarded 1, own 2, nowhere x 3, y 4\n";
        let script = Script::parse("012-a.wire", text).unwrap();
        assert_eq!(script.number, "012");
        assert_eq!(script.service, "[service.timeouts]\nresponse = \"1s\"\n");
        let [step] = script.steps.as_slice() else {
            panic!("{:?}", script.steps);
        };
        let Action::Sends(sent) = &step.action else {
            panic!("{step:?}");
        };
        assert_eq!(
            (step.line, sent.bytes(|_| String::new())),
            (5, b"ab".to_vec())
        );
        let counts = script.counts;
        assert_eq!((counts.forwarded, counts.own), (1, 2));
        assert_eq!((counts.nowhere["x"], counts.faults["y"]), (3, 4));
    }
}
