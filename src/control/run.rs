//! The life of the process as control sees it: plans are live, signals are answered, shards are
//! watched, the drain ends it.
//!
//! One loop. Nothing here is on the path of an exchange; the shards go on whatever this thread
//! does.

mod drain;
mod hear;
mod listeners;
mod plan;
mod ready;
mod reload;
mod report;
mod requests;
mod resolve;
mod shards;
mod states;
mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval};

use super::admin::Wanted;
use super::collect::Collecting;
use super::compile::{Live, Override, compile};
use super::printer::Printer;
use super::probe::Probers;
use super::resolve::Naming;
use super::signal::{Ask, Signals};
use super::source::{Changed, ConfigSource};
use super::standing::{Change, SlotPlaces, Standings};
use super::successor::{Handed, Successor};
use super::supervisor::Supervisor;
use super::systemd::Systemd;
use crate::config::Config;
use crate::door::Publisher;
use crate::fd;
use crate::plan::{Life, Plan};

use self::drain::Drain;
use self::listeners::Deadlines;
use self::reload::Reloads;
use self::report::{Asker, standing_back};
use self::shards::ShardLife;
use self::states::Adopting;

pub(super) use self::listeners::is_same as is_same_listener;

/// The generation of the first plan.
const FIRST: u64 = 1;
/// How often control looks at what the shards have said.
const TICK: Duration = Duration::from_millis(50);

/// From so many services or slots on a plan is large: to compile it takes milliseconds.
const LARGE: usize = 100;

/// How the thread of a shard ended.
#[derive(Debug)]
pub struct ShardEnd {
    /// Which one.
    pub shard: usize,
    /// `None` when its drain was over; else what went wrong.
    pub error: Option<String>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every exchange has finished.
    Drained,
    /// `drain_timeout` passed and connections were cut.
    CutShort,
}

/// What control begins with.
#[derive(Debug)]
pub struct Setting {
    /// The configuration that runs first.
    pub config: Config,
    /// Where others come from; `None` where there is nothing to load them from.
    pub source: Option<Box<dyn ConfigSource>>,
    /// What is known at the start.
    pub live: Live,
    /// The names of the configuration.
    pub naming: Naming,
    /// Whether the end of the process prints a report, asked for or not.
    pub report_at_end: bool,
    /// What the process whose place this one takes knew.
    pub handed: Handed,
}

/// Control's state.
#[derive(Debug)]
pub struct Control {
    publisher: Publisher,
    config: Config,
    source: Option<Box<dyn ConfigSource>>,
    /// Rung by the source.
    changed: Changed,
    reloads: Reloads,
    live: Live,
    standings: Standings,
    /// Of the newest plan that a shard spoke of.
    slots: SlotPlaces,
    naming: Naming,
    probers: Probers,
    /// Of the listeners that leave.
    leaving: Deadlines,
    started: Instant,
    /// `started` by the calendar.
    born: SystemTime,
    shards: Vec<ShardLife>,
    /// When the drain begins; `None` unless it was asked for and waits for `drain_delay`.
    closing: Option<Instant>,
    /// `None` exactly while the process serves.
    draining: Option<Drain>,
    /// True exactly when a signal has asked for the end.
    signalled: bool,
    /// Changes that were asked for and wait for the shards.
    adopting: Vec<Adopting>,
    ready: bool,
    /// The process is ready when every shard has adopted this generation.
    first: u64,
    /// `Some` exactly while another process takes the place of this one.
    upgrading: Option<Successor>,
    /// True exactly when this process has taken the place of another one.
    is_upgraded: bool,
    systemd: Systemd,
    collecting: Collecting<Asker>,
    report_at_end: bool,
    printer: Printer,
}

#[expect(clippy::disallowed_methods, reason = "control may read the clock")]
fn now() -> Instant {
    Instant::now()
}

impl Control {
    /// Posts the first plan, before any shard runs. To be called on control's runtime.
    pub fn new(mut publisher: Publisher, setting: Setting) -> Self {
        let Setting {
            config,
            source,
            mut live,
            naming,
            report_at_end,
            handed,
        } = setting;
        let started = now();
        let handed = handed.overrides.into_iter().filter_map(read_override);
        states::say_forgotten(live.overrides.inherit(handed.collect(), &config));
        let shards = 0..publisher.shards();
        let shards: Vec<ShardLife> = shards.map(|_| ShardLife::new(started)).collect();
        let mut standings = Standings::new(&config, &live, shards.len(), started);
        let is_upgraded = live.held;
        if is_upgraded {
            standings.trust();
            live.endpoints = standings.live(started);
        }
        publisher.publish(compile(&config, &live, None));
        Self {
            publisher,
            standings,
            slots: SlotPlaces::default(),
            probers: Probers::start(&config, &live),
            config,
            source,
            changed: Changed::default(),
            reloads: Reloads::default(),
            live,
            naming,
            leaving: Deadlines::new(),
            started,
            born: SystemTime::now(),
            shards,
            closing: None,
            draining: None,
            signalled: false,
            adopting: Vec::new(),
            ready: false,
            first: FIRST,
            upgrading: None,
            is_upgraded,
            systemd: Systemd::of_environment(started),
            collecting: Collecting::new(started),
            report_at_end,
            printer: Printer::default(),
        }
    }

    /// True exactly while nobody is to be accepted: another process serves.
    pub const fn is_held(&self) -> bool {
        self.live.held
    }

    /// The configuration that runs.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Runs until every shard has ended.
    ///
    /// # Errors
    /// When a shard cannot start at all before the process was ready.
    pub async fn run(
        mut self,
        mut signals: Signals,
        mut ends: UnboundedReceiver<ShardEnd>,
        mut wanted: Receiver<Wanted>,
        supervisor: &mut dyn Supervisor,
    ) -> Result<End, String> {
        self.watch();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Signals first: one that has come before the last shard ended is answered.
                biased;
                ask = signals.next() => {
                    if matches!(ask, Ask::End) && self.signalled {
                        // Its commands would outlive a process that ends at once.
                        self.probers.end().await;
                    }
                    self.answer(ask, supervisor);
                }
                Some(end) = ends.recv() => self.shard_ended(end)?,
                Some(wanted) = wanted.recv() => self.request(wanted, supervisor),
                verdict = self.probers.next(), if self.draining.is_none() => {
                    say(&self.standings.judge(verdict, now()));
                }
                answer = self.naming.resolvers.next(), if self.draining.is_none() => {
                    self.resolve(answer);
                    self.look_at_reload(supervisor);
                }
                () = self.changed.rung(), if self.draining.is_none() => {
                    self.reload(None, supervisor);
                }
                answer = upgrade::answer(&mut self.upgrading) => {
                    self.upgraded(answer, supervisor);
                }
                _ = tick.tick() => self.tick(supervisor)?,
            }
            if self.draining.is_some() {
                self.probers.stop();
                self.naming.resolvers.stop();
            }
            if self.shards.iter().all(|shard| shard.ended) {
                return Ok(self.finish(wanted).await);
            }
        }
    }

    /// Serves whoever still waits for a report, which is exact now: every shard has ended.
    async fn finish(mut self, mut wanted: Receiver<Wanted>) -> End {
        self.hear();
        self.publisher.retire();
        let mut served = self.collecting.finish(&mut self.publisher);
        wanted.close();
        while let Some(wanted) = wanted.recv().await {
            // Who wants anything else hears that the process ends.
            if let Wanted::Report(wanted) = wanted {
                served.push(Asker::Client(wanted));
            }
        }
        let last = self.serve(served, Vec::new());
        let last = last.or_else(|| {
            self.report_at_end
                .then(|| self.report(Vec::new()).to_string())
        });
        self.printer.finish(last).await;
        let cut = self.draining.is_some_and(|drain| drain.cut);
        if cut { End::CutShort } else { End::Drained }
    }

    fn answer(&mut self, ask: Ask, supervisor: &mut dyn Supervisor) {
        match ask {
            Ask::Report => self.ask(Asker::Output),
            Ask::End => self.signalled(supervisor),
            Ask::Reload => {
                self.reopen_logs();
                self.reload(None, supervisor);
            }
            Ask::Upgrade => self.upgrade(supervisor),
        }
    }

    fn publish(&mut self, life: Life) {
        self.live.generation += 1;
        self.live.life = life;
        self.live.endpoints = self.standings.live(now());
        let last = self.plan();
        let slots = last.as_ref().map_or(0, |last| last.slots.len());
        let is_large = LARGE <= slots.max(self.config.services().len());
        let (config, live) = (&self.config, &self.live);
        let compiled = || compile(config, live, last.as_deref());
        let plan = if is_large {
            standing_back(fd::Behind::Plans, compiled)
        } else {
            compiled()
        };
        self.publisher.publish(plan);
    }

    /// The newest one.
    fn plan(&self) -> Option<Arc<Plan>> {
        let posted = self.publisher.current();
        posted.map(|posted| Arc::clone(&posted.plan))
    }

    fn tick(&mut self, supervisor: &mut dyn Supervisor) -> Result<(), String> {
        self.hear();
        self.publisher.retire();
        self.look_at_start(supervisor)?;
        self.restart_dead(supervisor);
        self.let_go_of_listeners(supervisor);
        let has_left = self.look_at_leaving();
        if self.draining.is_none() && (has_left || self.standings.is_due(now())) {
            self.publish(Life::Serving);
        }
        self.look_at_reload(supervisor);
        self.collect();
        self.look_at_adopting();
        self.look_at_drain(supervisor);
        self.beat();
        Ok(())
    }

    /// Says that the process is ready when it is. Of plans that follow each other fast, as they may
    /// at the start of many endpoints, the shards adopt only some.
    fn look_at_start(&mut self, supervisor: &mut dyn Supervisor) -> Result<(), String> {
        if self.ready || self.is_leaving() || !self.publisher.adopted_by_all(self.first) {
            return Ok(());
        }
        if self.live.held {
            return self.look_at_hold(supervisor);
        }
        self.ready = true;
        supervisor.ready();
        self.say_ready();
        if !self.is_upgraded {
            // Who is upgraded tells systemd of this process, which could not before it is known.
            self.systemd.ready("serving");
        }
        Ok(())
    }

    fn say_ready(&self) {
        let driver = self.shards.iter().find_map(|shard| shard.driver.as_deref());
        log::info!(
            generation = self.live.generation,
            shards = self.shards.len(),
            driver = driver.unwrap_or("unknown");
            "ready"
        );
    }
}

/// As [`Control::handed`] has written it; a word of another version is skipped.
fn read_override(
    [service, backend, state, said]: [String; 4],
) -> Option<(String, String, Override, Override)> {
    let [state, said] = [state, said].map(|word| Override::of_label(&word));
    Some((service, backend, state?, said?))
}

fn say(changes: &[Change]) {
    changes.iter().for_each(Change::log);
}
