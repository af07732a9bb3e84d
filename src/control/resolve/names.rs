//! What control knows of each name: what it stands for, since when it can't be resolved, and what
//! of that is news.
//!
//! Pure: no clock, no I/O; `now` is an argument. A failure changes nothing of what a name stands
//! for: the last good answer stays, be it that the name is gone (NXDOMAIN).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
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
    /// By the place of each service in the configuration: its name, and its backends that are
    /// names.
    services: Vec<(String, Vec<BackendAddress>)>,
}

#[derive(Debug, Default)]
struct Known {
    /// The backends that it is, each with the places of the services that have it.
    backends: BTreeMap<BackendAddress, Vec<usize>>,
    /// True exactly when an answer or a failure was heard.
    heard: bool,
    /// How many addresses the last good answer had; 0 where there was none.
    addresses: usize,
    /// What of the last good answer cannot be used.
    remarks: Vec<String>,
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
    /// The places of the services that have other endpoints now.
    pub services: Vec<usize>,
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
        let mut known: BTreeMap<Question, Known> = BTreeMap::new();
        let mut services = Vec::new();
        for (place, service) in config.services().iter().enumerate() {
            let mut names = Vec::new();
            for address in service.backends.iter().map(|backend| &backend.address) {
                let Some(question) = Question::of(address) else {
                    continue;
                };
                let users = &mut known.entry(question).or_default().backends;
                users.entry(address.clone()).or_default().push(place);
                names.push(address.clone());
            }
            services.push((service.name.clone(), names));
        }
        Self { known, services }
    }

    /// The names of which nothing was heard.
    pub fn unheard(&self) -> impl Iterator<Item = &Question> {
        let unheard = self.known.iter().filter(|(_, known)| !known.heard);
        unheard.map(|(question, _)| question)
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
        known.addresses = found.addresses.len();
        known.remarks.clone_from(&found.remarks);
        let mut services = BTreeSet::new();
        for (address, users) in &self.known[question].backends {
            let next = found.at(address);
            let last = resolved.get(address).map_or(&[][..], Vec::as_slice);
            if last == next {
                continue;
            }
            services.extend(users.iter().copied());
            news.push(changed(self.list(users), address, last, &next));
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
        let kept = known.addresses;
        let lasted = known.fail(&reason, now)?;
        let users = known.backends.values().flatten().copied();
        let users: BTreeSet<usize> = users.collect();
        Some(News::Failing {
            services: self.list(&Vec::from_iter(users)),
            name: question.to_string(),
            reason,
            kept,
            lasted,
        })
    }

    /// The names of the services at `places`.
    fn list(&self, places: &[usize]) -> String {
        let names = places.iter().map(|place| self.services[*place].0.as_str());
        first_of(names, ",")
    }

    /// What the report says of the names of the service at `service`.
    pub fn report(&self, service: usize, now: Instant) -> Vec<NameReport<'_>> {
        let names = self.services[service].1.iter();
        let report = |name: &BackendAddress| {
            let known = self.known.get(&Question::of(name)?)?;
            Some(NameReport {
                name: name.to_string(),
                addresses: known.addresses,
                remarks: &known.remarks,
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
    /// Whether what of `found` cannot be used has a line.
    fn is_remarkable(&self, found: &Found, now: Instant) -> bool {
        let is_due = self.remarked.is_none_or(|said| said + WARN_EVERY <= now);
        is_due && !found.remarks.is_empty() && found.remarks != self.remarks
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
