//! Another configuration takes the place of the one that runs.
//!
//! ```text
//!   asked for -> loaded -> compared -> opened -> names are known -> published -> adopted -> told
//!                   |          |          |
//!                   |          |          +-- an address cannot be bound: refused
//!                   |          +-- nothing differs: told at once
//!                   +-- it is bad: refused
//! ```
//!
//! Whatever is refused changes nothing. Only one reload is under way at a time: who asks meanwhile
//! asks for another one right after it, all of them together for one. Control's loop goes on while
//! names are looked up and while the shards adopt the plan. A drain ends a reload that has not been
//! published, and refuses every other.

mod opened;
mod outcome;

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::difference::{Difference, Verb};
use super::super::log as process_log;
use super::super::resolve::{self, Question};
use super::super::supervisor::Supervisor;
use super::report::standing_back;
use super::{Control, now, say};
use crate::config::{Config, ConfigErrors, Listener};
use crate::fd::Behind;
use crate::plan::Life;

use opened::Opened;

pub(super) use outcome::{Outcome, Reloads};

/// How long shards may take to adopt a plan until it is said that they do.
const ADOPTION_MAX: Duration = Duration::from_secs(5);

/// How many errors of a configuration a refusal names.
const ERRORS_MAX: usize = 50;

/// Who is told what became of a reload: what it changed, or why it was refused.
pub(super) type Told = oneshot::Sender<Result<String, String>>;

/// Who asked for a reload; a signal and a source ask and are told nothing.
type Askers = Vec<Told>;

/// Where a reload stands.
#[derive(Debug, Default)]
enum Stage {
    /// None is under way.
    #[default]
    Idle,
    /// Loaded and opened; names that are new are looked up.
    Naming {
        next: Box<Next>,
        names: BTreeSet<Question>,
        until: Instant,
    },
    /// Published; shards adopt it.
    Adopting {
        generation: u64,
        since: Instant,
        done: Done,
    },
}

/// A configuration that is about to run.
#[derive(Debug)]
struct Next {
    config: Config,
    opened: Opened,
    done: Done,
}

/// What is told when a reload is over.
#[derive(Debug)]
struct Done {
    difference: Difference,
    askers: Askers,
}

impl Control {
    /// Loads the configuration anew, and runs it where it is good; `told` hears what came of it.
    pub(super) fn reload(&mut self, told: Option<Told>, supervisor: &mut dyn Supervisor) {
        let askers = Vec::from_iter(told);
        if self.is_leaving() {
            return self.refuse(askers, "the process drains");
        }
        if self.upgrading.is_some() || self.live.held {
            return self.refuse(askers, "an upgrade is under way");
        }
        if self.reloads.queue(askers) {
            self.begin_reload(supervisor);
        }
    }

    /// Has the source say when it changes, or not, as the configuration wants it.
    pub(super) fn watch(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        if self.config.runtime().watch {
            source.watch(&self.changed);
        } else {
            source.unwatch();
        }
    }

    /// Whoever moves the files of the log away says so by the signal that asks for a reload.
    pub(super) fn reopen_logs(&self) {
        if let Err(error) = process_log::reopen() {
            log::warn!(error:%; "the log goes on where it was");
        }
    }

    /// Moves the reload on that is under way, if one is.
    pub(super) fn look_at_reload(&mut self, supervisor: &mut dyn Supervisor) {
        match mem::take(&mut self.reloads.stage) {
            Stage::Idle => {}
            Stage::Naming { next, .. } if self.is_leaving() => {
                next.opened.close(supervisor);
                self.refuse(next.done.askers, "the process drains");
            }
            Stage::Naming { next, names, until } => {
                let known = names.iter().all(|name| self.naming.names.is_heard(name));
                if known || until <= now() {
                    self.say_unheard(&names);
                    self.adopt(*next, supervisor);
                } else {
                    self.reloads.stage = Stage::Naming { next, names, until };
                }
            }
            Stage::Adopting {
                generation,
                since,
                done,
            } => {
                let late = self.shards_behind(generation);
                if late.is_empty() || since + ADOPTION_MAX <= now() {
                    for shard in late {
                        log::warn!(shard, generation; "a shard has not adopted the plan yet");
                    }
                    self.finish_reload(done);
                } else {
                    self.reloads.stage = Stage::Adopting {
                        generation,
                        since,
                        done,
                    };
                }
            }
        }
        let is_idle = matches!(self.reloads.stage, Stage::Idle);
        if is_idle && self.reloads.is_asked_for() {
            if self.is_leaving() {
                let askers = self.reloads.take_askers();
                self.refuse(askers, "the process drains");
            } else {
                self.begin_reload(supervisor);
            }
        }
    }

    /// Loads the configuration for all who have asked until now.
    fn begin_reload(&mut self, supervisor: &mut dyn Supervisor) {
        let askers = self.reloads.take_askers();
        self.systemd.reloading();
        let Some(source) = &mut self.source else {
            return self.refuse(askers, "there is no file to load from");
        };
        let last = &self.config;
        let bound = last.listeners().iter().zip(&self.live.bound);
        let clients = bound.map(|(it, bound)| (&*it.name, self.publisher.clients_of(bound.id)));
        let clients: HashMap<&str, u64> = clients.collect();
        // A large file takes some milliseconds.
        let loaded = standing_back(Behind::Plans, || {
            let next = source.load()?;
            let of = |listener: &Listener| clients.get(&*listener.name).copied();
            let difference = Difference::of(last, &next, &of);
            Ok((next, difference))
        });
        let (next, difference) = match loaded {
            Ok(loaded) => loaded,
            Err(errors) => return self.refuse(askers, &reason(&errors)),
        };
        let (config, fixed) = next.in_process_of(&self.config);
        if !fixed.is_empty() {
            let keys = fixed.join(",");
            log::warn!(
                keys;
                "a running process keeps these; an upgrade (SIGUSR2) or a restart is needed"
            );
        }
        let done = Done { difference, askers };
        if config == self.config {
            return self.finish_reload(done);
        }
        let opened = match self.open(&config, supervisor) {
            Ok(opened) => opened,
            Err(error) => return self.refuse(done.askers, &error),
        };
        let names = self.naming.prepare(&config);
        let next = Next {
            config,
            opened,
            done,
        };
        if names.is_empty() {
            return self.adopt(next, supervisor);
        }
        log::info!(names = names.len(); "looking names up");
        self.reloads.stage = Stage::Naming {
            next: Box::new(next),
            names,
            until: now() + resolve::START_MAX,
        };
    }

    /// Everything is ready for `next`: it runs from now on.
    fn adopt(&mut self, next: Next, supervisor: &mut dyn Supervisor) {
        let Next {
            config,
            opened,
            done,
        } = next;
        self.take_over(&config, opened, supervisor);
        self.naming.adopt(&config, &mut self.live);
        let last = mem::replace(&mut self.config, config);
        self.keep_overrides(&last);
        let mut last = Some(last);
        let (standings, config, live) = (&mut self.standings, &self.config, &self.live);
        let changes = standing_back(Behind::Plans, || {
            // To free a large one takes some time as well.
            drop(last.take());
            standings.adopt(config, live, now())
        });
        say(&changes);
        let health = |service: &str, address| self.standings.health(service, address);
        self.probers.adopt(&self.config, &self.live, health);
        self.watch();
        self.publish(Life::Serving);
        self.reloads.stage = Stage::Adopting {
            generation: self.live.generation,
            since: now(),
            done,
        };
    }

    fn say_unheard(&self, names: &BTreeSet<Question>) {
        for name in names {
            if !self.naming.names.is_heard(name) {
                log::warn!(name:%; "a name is not resolved yet; going on without it");
            }
        }
    }

    fn finish_reload(&mut self, done: Done) {
        self.systemd.ready("serving");
        let Done { difference, askers } = done;
        difference.log();
        let generation = self.live.generation;
        let [added, changed, removed] =
            [Verb::Added, Verb::Changed, Verb::Removed].map(|verb| difference.count(verb));
        log::info!(generation, added, changed, removed; "reloaded");
        self.reloads.note(Outcome::Done {
            generation,
            added,
            changed,
            removed,
        });
        for asker in askers {
            // An error: whoever asked has gone.
            let _told = asker.send(Ok(difference.to_string()));
        }
    }

    fn refuse(&mut self, askers: Askers, reason: &str) {
        let from = self.source.as_ref().map(|source| source.name());
        let from = from.unwrap_or_default();
        // Not the operator's fault, or nothing that a look at the file would tell.
        let is_barred = self.is_leaving() || self.upgrading.is_some() || self.live.held;
        if !is_barred {
            self.systemd.ready("serving");
        }
        if is_barred || self.source.is_none() {
            log::warn!(reason; "a reload is refused; nothing is changed");
        } else {
            log::error!(from, reason; "a reload is refused; nothing is changed");
        }
        self.reloads.note(Outcome::Refused {
            reason: reason.to_owned(),
        });
        for asker in askers {
            // An error: whoever asked has gone.
            let _told = asker.send(Err(reason.to_owned()));
        }
    }
}

/// The lines of `errors`, not more than an operator reads.
fn reason(errors: &ConfigErrors) -> String {
    let mut lines: Vec<String> = errors.lines().take(ERRORS_MAX).collect();
    let more = errors.iter().len() - lines.len();
    if 0 < more {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}
