//! What control knows of each name: what it stands for, since when it can't be resolved, and what
//! of that is news.
//!
//! Pure: no clock, no I/O; `now` is an argument. A failure changes nothing of what a name stands
//! for: the last good answer stays, be it that the name is gone (NXDOMAIN).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Found, Question};
use crate::config::{BackendAddress, Config};
use crate::control::compile::Resolved;
use crate::tally::report::{NameFailure, NameReport};
use crate::units::format_duration;

/// From one warning of a kind about a name to the next.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Addresses, services or remarks that a line names; of more it says how many.
const SHOWN_MAX: usize = 8;

/// What is known of all names.
#[derive(Debug)]
pub struct Names {
    known: BTreeMap<Question, Known>,
    /// By the name of each service that has any: its backends that are names.
    services: BTreeMap<String, Vec<BackendAddress>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The backends that it is, each with the names of the services that have it, in the order of
    /// the file. None while it is asked for ahead of its configuration.
    backends: BTreeMap<BackendAddress, Vec<Arc<str>>>,
    /// True exactly when an answer or a failure was heard.
    heard: bool,
    /// The last good answer; `None` where there was none.
    found: Option<Found>,
    /// When that had a line last.
    remarked: Option<Instant>,
    /// `None` exactly when the last lookup was good, or none is over yet.
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    times: u64,
    reason: String,
    /// When that had a line last.
    said: Instant,
}

/// What comes of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The names of the services that have other endpoints now.
    pub services: Vec<Arc<str>>,
    /// What is to be said.
    pub news: Vec<News>,
}

/// What has changed for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It stands for other addresses.
    Changed {
        /// The services that have it.
        services: String,
        /// As the operator wrote it.
        name: String,
        /// What it stands for now and did not, sorted.
        added: Vec<SocketAddr>,
        /// What it stood for, sorted.
        removed: Vec<SocketAddr>,
        /// How many weights or backups are others.
        altered: usize,
    },
    /// Some of its answer can't be used.
    Remarked {
        /// Which name.
        name: String,
        /// What is wrong.
        remark: String,
    },
    /// It cannot be resolved.
    Failing {
        /// The services that have it.
        services: String,
        /// Which name.
        name: String,
        /// Why not.
        reason: String,
        /// How many addresses of the last good answer are kept.
        kept: usize,
        /// For how long, where that is no news.
        lasted: Option<Duration>,
    },
    /// It can be resolved again.
    Recovered {
        /// Which name.
        name: String,
        /// For how long it could not.
        lasted: Duration,
    },
}

impl Names {
    /// Those of `config`, of which nothing is known yet.
    pub fn of(config: &Config) -> Self {
        let mut names = Self {
            known: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        names.adopt(config, &mut BTreeMap::new());
        names
    }

    /// `question` is asked for from now on, also if no backend is that name yet.
    pub fn expect(&mut self, question: Question) {
        self.known.entry(question).or_default();
    }

    /// The names are those of `config` from now on, and `resolved` has what they stand for. What is
    /// known of those that stay stays.
    pub fn adopt(
        &mut self,
        config: &Config,
        resolved: &mut BTreeMap<BackendAddress, Vec<Resolved>>,
    ) {
        let mut had = std::mem::take(&mut self.known);
        self.services.clear();
        for service in config.services() {
            let mut names = Vec::new();
            for address in service.backends.iter().map(|backend| &backend.address) {
                let Some(question) = Question::of(address) else {
                    continue;
                };
                let fresh = || Known {
                    backends: BTreeMap::new(),
                    ..had.remove(&question).unwrap_or_default()
                };
                let known = self.known.entry(question.clone()).or_insert_with(fresh);
                let users = known.backends.entry(address.clone()).or_default();
                users.push(service.name.as_str().into());
                names.push(address.clone());
            }
            if !names.is_empty() {
                self.services.insert(service.name.clone(), names);
            }
        }
        resolved.clear();
        for known in self.known.values() {
            let Some(found) = &known.found else { continue };
            let backends = known.backends.keys();
            resolved.extend(backends.map(|address| (address.clone(), found.at(address))));
        }
    }

    /// The names of which nothing was heard.
    pub fn unheard(&self) -> impl Iterator<Item = &Question> {
        let unheard = self.known.iter().filter(|(_, known)| !known.heard);
        unheard.map(|(question, _)| question)
    }

    /// Whether an answer for `question`, or a failure, was heard.
    pub fn is_heard(&self, question: &Question) -> bool {
        self.known.get(question).is_some_and(|known| known.heard)
    }

    /// True exactly when there is one of which nothing was heard.
    pub fn has_unheard(&self) -> bool {
        self.unheard().next().is_some()
    }

    /// `answer` came; `resolved` has what it changes.
    pub fn hear(
        &mut self,
        answer: Answer,
        resolved: &mut BTreeMap<BackendAddress, Vec<Resolved>>,
        now: Instant,
    ) -> Heard {
        let Answer { question, found } = answer;
        match found {
            Ok(found) => self.found(&question, &found, resolved, now),
            Err(reason) => Heard {
                services: Vec::new(),
                news: Vec::from_iter(self.failed(&question, reason, now)),
            },
        }
    }

    fn found(
        &mut self,
        question: &Question,
        found: &Found,
        resolved: &mut BTreeMap<BackendAddress, Vec<Resolved>>,
        now: Instant,
    ) -> Heard {
        let Some(known) = self.known.get_mut(question) else {
            return Heard::default();
        };
        let name = question.to_string();
        let mut news = Vec::new();
        if let Some(failing) = known.failing.take() {
            let lasted = now - failing.since;
            let name = name.clone();
            news.push(News::Recovered { name, lasted });
        }
        if known.is_remarkable(found, now) {
            known.remarked = Some(now);
            let remark = first_of(found.remarks.iter().map(String::as_str), "; ");
            news.push(News::Remarked { name, remark });
        }
        known.heard = true;
        known.found = Some(found.clone());
        let mut services: BTreeSet<Arc<str>> = BTreeSet::new();
        for (address, users) in &self.known[question].backends {
            let next = found.at(address);
            let last = resolved.get(address).map_or(&[][..], Vec::as_slice);
            if last == next {
                continue;
            }
            services.extend(users.iter().cloned());
            news.push(changed(list(users), address, last, &next));
            resolved.insert(address.clone(), next);
        }
        Heard {
            services: services.into_iter().collect(),
            news,
        }
    }

    fn failed(&mut self, question: &Question, reason: String, now: Instant) -> Option<News> {
        let known = self.known.get_mut(question)?;
        known.heard = true;
        let kept = known.addresses();
        let lasted = known.fail(&reason, now)?;
        let users = known.backends.values().flatten();
        let users: BTreeSet<&Arc<str>> = users.collect();
        Some(News::Failing {
            services: list(users),
            name: question.to_string(),
            reason,
            kept,
            lasted,
        })
    }

    /// What the report says of the names of `service`.
    pub fn report(&self, service: &str, now: Instant) -> Vec<NameReport<'_>> {
        let names = self.services.get(service).into_iter().flatten();
        let report = |name: &BackendAddress| {
            let known = self.known.get(&Question::of(name)?)?;
            Some(NameReport {
                name: name.to_string(),
                addresses: known.addresses(),
                remarks: known.remarks(),
                failure: known.failing.as_ref().map(|failing| NameFailure {
                    lasted: now - failing.since,
                    times: failing.times,
                    reason: &failing.reason,
                }),
            })
        };
        names.filter_map(report).collect()
    }
}

impl Known {
    /// How many addresses the last good answer had.
    fn addresses(&self) -> usize {
        let found = self.found.as_ref();
        found.map_or(0, |found| found.addresses.len())
    }

    /// What of the last good answer cannot be used.
    fn remarks(&self) -> &[String] {
        let found = self.found.as_ref();
        found.map_or(&[], |found| &found.remarks)
    }

    /// Whether what of `found` cannot be used has a line.
    fn is_remarkable(&self, found: &Found, now: Instant) -> bool {
        let is_due = self.remarked.is_none_or(|said| said + WARN_EVERY <= now);
        is_due && !found.remarks.is_empty() && found.remarks != self.remarks()
    }

    /// A lookup has failed. `None` where that has no line; else for how long that was so, where it
    /// is no news.
    fn fail(&mut self, reason: &str, now: Instant) -> Option<Option<Duration>> {
        let Some(failing) = &mut self.failing else {
            self.failing = Some(Failing {
                since: now,
                times: 1,
                reason: reason.to_owned(),
                said: now,
            });
            return Some(None);
        };
        failing.times += 1;
        reason.clone_into(&mut failing.reason);
        if now < failing.said + WARN_EVERY {
            return None;
        }
        failing.said = now;
        Some(Some(now - failing.since))
    }
}

fn changed(
    services: String,
    address: &BackendAddress,
    last: &[Resolved],
    next: &[Resolved],
) -> News {
    let addresses = |all: &[Resolved]| -> BTreeSet<SocketAddr> {
        all.iter().map(|resolved| resolved.address).collect()
    };
    let (before, now) = (addresses(last), addresses(next));
    let added: Vec<_> = now.difference(&before).copied().collect();
    let other = next.iter().filter(|resolved| !last.contains(resolved));
    News::Changed {
        services,
        name: address.to_string(),
        altered: other.count() - added.len(),
        added,
        removed: before.difference(&now).copied().collect(),
    }
}

impl News {
    /// Writes its line.
    pub fn log(&self) {
        match self {
            Self::Changed {
                services,
                name,
                added,
                removed,
                altered,
            } => log::info!(
                services, name,
                added = shown(added), removed = shown(removed), altered;
                "a name stands for other addresses"
            ),
            Self::Remarked { name, remark } => {
                log::warn!(name, remark; "an answer of DNS cannot be used whole");
            }
            Self::Failing {
                services,
                name,
                reason,
                kept,
                lasted,
            } => {
                let lasted = lasted.map_or_else(String::new, format_duration);
                let addresses_kept = kept;
                if 0 < *kept {
                    log::warn!(
                        services, name, reason, addresses_kept, lasted;
                        "a name cannot be resolved; its last answer is kept"
                    );
                } else {
                    log::warn!(
                        services, name, reason, lasted;
                        "a name cannot be resolved; it stands for nothing"
                    );
                }
            }
            Self::Recovered { name, lasted } => {
                let failed_for = format_duration(*lasted);
                log::info!(name, failed_for; "a name is resolved again");
            }
        }
    }
}

/// How many, and the first ones: `2 (127.0.0.1:80 127.0.0.2:80)`.
fn shown(addresses: &[SocketAddr]) -> String {
    if addresses.is_empty() {
        return "0".to_owned();
    }
    let first = addresses.iter().take(SHOWN_MAX).map(SocketAddr::to_string);
    let mut text = format!(
        "{} ({}",
        addresses.len(),
        first.collect::<Vec<_>>().join(" ")
    );
    if SHOWN_MAX < addresses.len() {
        text.push_str(" ...");
    }
    text.push(')');
    text
}

/// The names of services.
fn list<'a>(
    services: impl IntoIterator<Item = &'a Arc<str>, IntoIter: ExactSizeIterator>,
) -> String {
    first_of(services.into_iter().map(|name| &**name), ",")
}

/// The first ones, and how many others there are: `a,b and 3 more`.
fn first_of<'a>(all: impl ExactSizeIterator<Item = &'a str>, between: &str) -> String {
    let others = all.len().saturating_sub(SHOWN_MAX);
    let mut text = all.take(SHOWN_MAX).collect::<Vec<_>>().join(between);
    if 0 < others {
        text.push_str(&format!(" and {others} more"));
    }
    text
}

#[cfg(test)]
mod tests;
