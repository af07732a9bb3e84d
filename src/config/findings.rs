//! What the readers of a configuration found, over the whole document: errors, names, keys.
//!
//! Names may be used before they are defined, and a key is known to be misplaced once all keys are
//! known; both are looked up at the end. Pure.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::errors::{Finding, Lines};
use crate::plan::Protocol;

/// What the readers found, over the whole document.
#[derive(Debug)]
pub(super) struct Findings<'t> {
    text: &'t str,
    lines: Lines<'t>,
    wrong: Vec<Finding>,
    /// `None` where nobody wants to know.
    known: Option<Vec<KnownKey>>,
    unknown: Vec<Unknown>,
    /// Where each name was taken first.
    defined: HashMap<(Kind, String), Range<usize>>,
    references: Vec<Reference>,
    /// The services that send what they get to every backend.
    fanned_out: HashSet<String>,
}

impl<'t> Findings<'t> {
    /// None yet, of the source `text`.
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            lines: Lines::new(text),
            wrong: Vec::new(),
            known: None,
            unknown: Vec::new(),
            defined: HashMap::new(),
            references: Vec::new(),
            fanned_out: HashSet::new(),
        }
    }

    /// As [`Findings::new`]; [`Findings::into_known`] will tell every key that was asked for.
    pub(super) fn that_note_keys(text: &'t str) -> Self {
        Self {
            known: Some(Vec::new()),
            ..Self::new(text)
        }
    }

    /// The source.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Something is wrong.
    pub(super) fn report(&mut self, finding: Finding) {
        self.wrong.push(finding);
    }

    /// A reader asked for the key at `path`, which has this default.
    pub(super) fn ask(&mut self, path: &str, default: Option<&str>) {
        let Some(known) = &mut self.known else { return };
        if known.iter().all(|known| known.path != path) {
            known.push(KnownKey {
                path: path.into(),
                default: default.map(str::to_owned),
            });
        }
    }

    /// No reader asked for this key.
    pub(super) fn meet(&mut self, unknown: Unknown) {
        self.unknown.push(unknown);
    }

    /// `name` is taken from here on; a finding where it already was.
    pub(super) fn define(&mut self, kind: Kind, key: String, name: &str, span: Range<usize>) {
        match self.defined.entry((kind, name.to_owned())) {
            Entry::Vacant(entry) => {
                entry.insert(span);
            }
            Entry::Occupied(first) => {
                let (line, _) = self.lines.position(first.get().start);
                let message = format!("{name:?} is taken already, in line {line}");
                self.wrong.push(Finding { span, key, message });
            }
        }
    }

    /// The value of `key` names a service, which may stand further down.
    pub(super) fn refer(&mut self, reference: Reference) {
        self.references.push(reference);
    }

    /// The service `name` sends what it gets to every backend.
    pub(super) fn fans_out(&mut self, name: &str) {
        self.fanned_out.insert(name.to_owned());
    }

    /// Every finding, once the document has been read; `keys` are those of a whole configuration.
    pub(super) fn finish(mut self, keys: impl FnOnce() -> Vec<KnownKey>) -> Vec<Finding> {
        self.resolve();
        if !self.unknown.is_empty() {
            let keys = keys();
            let unknown = self.unknown.iter().map(|unknown| unknown.finding(&keys));
            self.wrong.extend(unknown);
        }
        self.wrong
    }

    /// Every key that was asked for, each once; none unless they were noted.
    pub(super) fn into_known(self) -> Vec<KnownKey> {
        self.known.unwrap_or_default()
    }

    /// Looks up what `refer` was told.
    fn resolve(&mut self) {
        for Reference {
            span,
            key,
            service,
            protocol,
        } in std::mem::take(&mut self.references)
        {
            if self.defined.contains_key(&(Kind::Service, service.clone())) {
                if protocol == Protocol::Tcp && self.fanned_out.contains(&service) {
                    let message = format!(
                        "service {service:?} has a [service.fanout]; with protocol \"tcp\" a \
                         connection goes to one backend"
                    );
                    self.wrong.push(Finding { span, key, message });
                }
                continue;
            }
            let mut names: Vec<&str> = self
                .defined
                .keys()
                .filter(|(kind, _)| *kind == Kind::Service)
                .map(|(_, name)| name.as_str())
                .collect();
            names.sort_unstable();
            let message = match nearest(&service, names) {
                Some(near) => format!("no service {service:?}; the nearest is {near:?}"),
                None => format!("no service {service:?}; there is none at all"),
            };
            self.wrong.push(Finding { span, key, message });
        }
    }
}

/// A key that some reader asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The key's path, as in `service.timeouts.connect`.
    pub path: String,
    /// Its default as TOML writes it; `None` for a key that has none.
    pub default: Option<String>,
}

/// What a name is a name of; names are unique within their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Listener,
    Address,
    Service,
    Domain,
}

/// A key that no reader asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) span: Range<usize>,
    /// The path of the table that it stands in.
    pub(super) table: String,
    pub(super) key: String,
    /// The keys that were asked for in that table.
    pub(super) siblings: Vec<&'static str>,
}

/// Where a service is named that may stand further down.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) service: String,
    /// What is spoken to it.
    pub(super) protocol: Protocol,
}

impl Unknown {
    fn finding(&self, keys: &[KnownKey]) -> Finding {
        let Self {
            span,
            table,
            key,
            siblings,
        } = self;
        let sections = keys.iter().filter_map(|known| {
            let (section, last) = known.path.rsplit_once('.')?;
            (last == key).then_some(section)
        });
        // Of several sections with such a key, one inside this table is the likeliest.
        let elsewhere = sections.max_by_key(|section| section.starts_with(table.as_str()));
        let near = nearest(key, siblings.iter().copied());
        let message = match (near, elsewhere) {
            (near, Some(section)) if near.is_none_or(|near| !alike(near, key)) => {
                format!("unknown key here; it belongs to [{section}]")
            }
            (Some(near), _) => format!("unknown key; the nearest is {near:?}"),
            (None, _) => "unknown key".into(),
        };
        Finding {
            span: span.clone(),
            key: join(table, key),
            message,
        }
    }
}

/// The path of `key` in the table at `table`.
pub(super) fn join(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

/// The name among `names` that reads most like `name`; `None` where there is none at all.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |near: &&str| strsim::jaro_winkler(near, name);
    names
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// True exactly when one of the two may be a slip of the other.
fn alike(one: &str, other: &str) -> bool {
    0.8 <= strsim::jaro_winkler(one, other)
}
