//! The life of the process as control sees it: plans are live, signals are answered, shards are
//! watched, the drain ends it.
//!
//! One loop. Nothing here is on the path of an exchange; the shards go on whatever this thread
//! does.

mod hear;
mod resolve;

use std::io;
use std::panic::resume_unwind;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval};

use super::admin::Wanted;
use super::collect::{Collected, Collecting};
use super::compile::{Live, compile};
use super::printer::Printer;
use super::probe::Probers;
use super::resolve::Naming;
use super::signal::{Ask, Signals};
use super::standing::{Change, Standings};
use crate::config::Config;
use crate::door::{Publisher, Subscriber};
use crate::fd;
use crate::plan::{Life, Plan};
use crate::tally::report::{Process, Report};

/// The generation of the first plan.
const FIRST: u64 = 1;
/// How often control looks at what the shards have said.
const TICK: Duration = Duration::from_millis(50);
/// The first wait before a shard that died is started again; doubled up to [`RESTART_MAX`] while it
/// goes on dying.
const RESTART: Duration = Duration::from_millis(10);
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A shard that has lived so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// What boot does for control, which may not name the shards.
pub trait Supervisor {
    /// Starts shard `shard` anew on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    fn restart(&mut self, shard: usize, door: Subscriber) -> io::Result<()>;
    /// Closes boot's listening sockets: the shards let go of theirs as they adopt a plan that
    /// drains.
    fn release_sockets(&mut self);
    /// Every shard runs its first plan.
    fn ready(&mut self);
}

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

/// Control's state.
#[derive(Debug)]
pub struct Control {
    publisher: Publisher,
    config: Config,
    live: Live,
    standings: Standings,
    naming: Naming,
    started: Instant,
    shards: Vec<ShardLife>,
    /// `None` exactly while the process serves.
    draining: Option<Drain>,
    ready: bool,
    collecting: Collecting<Asker>,
    /// Whether the end of the process prints a report, asked for or not.
    report_at_end: bool,
    printer: Printer,
}

/// Who wants a report.
#[derive(Debug)]
enum Asker {
    /// SIGUSR1: it goes to standard output.
    Output,
    /// A client of the admin API.
    Client(Wanted),
}

#[derive(Debug)]
struct ShardLife {
    driver: Option<String>,
    started: Instant,
    /// When it is to be started again; `None` while it runs or when it has ended for good.
    restart_at: Option<Instant>,
    backoff: Duration,
    ended: bool,
    /// How many of its notices had been dropped when that was looked at last.
    notices_dropped: u64,
}

#[derive(Debug)]
struct Drain {
    /// When what still runs is cut.
    deadline: Instant,
    cut: bool,
}

#[expect(clippy::disallowed_methods, reason = "control may read the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Does `work` on a thread that gets only what the shards leave of the CPUs: a report of 1,000
/// endpoints takes some ten milliseconds, and the p99 of what the shards serve meanwhile would feel
/// it. Control waits; its own thread keeps its priority, which the shards that it starts inherit.
fn standing_back<T: Send>(mut work: impl FnMut() -> T + Send) -> T {
    let done = thread::scope(|scope| {
        let standing_back = thread::Builder::new().spawn_scoped(scope, || {
            fd::stand_back();
            work()
        });
        standing_back.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // Without a thread to be had, the work is done all the same.
    done.unwrap_or_else(|_error| work())
}

impl Control {
    /// Posts the first plan, before any shard runs. With `report_at_end` the end of the process
    /// prints a report.
    pub fn new(
        mut publisher: Publisher,
        config: Config,
        live: Live,
        naming: Naming,
        report_at_end: bool,
    ) -> Self {
        publisher.publish(compile(&config, &live, None));
        let started = now();
        let shard = |_| ShardLife {
            driver: None,
            started,
            restart_at: None,
            backoff: RESTART,
            ended: false,
            notices_dropped: 0,
        };
        let shards: Vec<ShardLife> = (0..publisher.shards()).map(shard).collect();
        Self {
            publisher,
            standings: Standings::new(&config, &live, shards.len(), started),
            config,
            live,
            naming,
            started,
            shards,
            draining: None,
            ready: false,
            collecting: Collecting::new(started),
            report_at_end,
            printer: Printer::default(),
        }
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
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probers = Probers::start(&self.config, &self.live);
        loop {
            tokio::select! {
                // Signals first: one that has come before the last shard ended is answered.
                biased;
                ask = signals.next() => {
                    if matches!(ask, Ask::End) && self.draining.is_some() {
                        // Its commands would outlive a process that ends at once.
                        probers.end().await;
                    }
                    self.answer(ask, supervisor);
                }
                Some(end) = ends.recv() => self.shard_ended(end)?,
                Some(wanted) = wanted.recv() => self.ask(Asker::Client(wanted)),
                verdict = probers.next(), if self.draining.is_none() => {
                    say(&self.standings.judge(verdict, now()));
                }
                answer = self.naming.resolvers.next(), if self.draining.is_none() => {
                    self.resolve(answer, &mut probers);
                }
                _ = tick.tick() => self.tick(supervisor),
            }
            if self.draining.is_some() {
                probers.stop();
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
            served.push(Asker::Client(wanted));
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
            Ask::End if self.draining.is_none() => self.drain(supervisor),
            Ask::End => {
                log::warn!("a second signal: ending at once");
                log::logger().flush();
                process::exit(1);
            }
            Ask::Later(signal) => {
                log::warn!(signal; "signal ignored: this version neither reloads nor upgrades");
            }
        }
    }

    fn ask(&mut self, asker: Asker) {
        self.collecting.ask(asker);
        self.collect();
    }

    /// Moves the collecting on, and serves those for whom it is done.
    fn collect(&mut self) {
        let text = if self.collecting.is_under_way() {
            standing_back(|| self.move_on())
        } else {
            self.move_on()
        };
        if let Some(text) = text {
            self.printer.print(text);
        }
    }

    /// As [`Control::collect`]; gives what is to be printed.
    fn move_on(&mut self) -> Option<String> {
        let shards = &self.shards;
        let is_alive = |shard: usize| !shards[shard].ended && shards[shard].restart_at.is_none();
        let collected = self
            .collecting
            .advance(&mut self.publisher, is_alive, now());
        let Collected { served, late } = collected?;
        self.hear();
        self.serve(served, late)
    }

    /// Answers the clients among `served`; gives the text for standard output if it is wanted
    /// there, once for all who want it: it is one place.
    fn serve(&self, served: Vec<Asker>, late: Vec<usize>) -> Option<String> {
        if served.is_empty() {
            return None;
        }
        let report = self.report(late);
        let mut text = None;
        for asker in served {
            match asker {
                Asker::Output => {
                    text.get_or_insert_with(|| report.to_string());
                }
                // Whoever has gone is spared the work.
                Asker::Client(Wanted { answer, .. }) if answer.is_closed() => {}
                Asker::Client(Wanted { query, answer }) => {
                    let excerpt = report.clone().excerpt(&query.selection);
                    let rendered =
                        excerpt.and_then(|excerpt| excerpt.render(query.format, SystemTime::now()));
                    // An error: the client has gone meanwhile.
                    let _answered = answer.send(rendered);
                }
            }
        }
        text
    }

    /// Without what the shards in `late` have recorded lately.
    fn report(&self, late: Vec<usize>) -> Report<'_> {
        let driver = self.shards.iter().find_map(|shard| shard.driver.as_deref());
        let process = Process {
            version: env!("CARGO_PKG_VERSION"),
            pid: process::id(),
            up: now() - self.started,
            driver: driver.unwrap_or("starting"),
        };
        let mut report = self.publisher.report(process, late);
        for (place, service) in report.services.iter_mut().enumerate() {
            service.names = self.naming.names.report(place, now());
        }
        report
    }

    fn drain(&mut self, supervisor: &mut dyn Supervisor) {
        let timeout = self.config.runtime().drain_timeout;
        log::info!(timeout:?; "draining");
        supervisor.release_sockets();
        self.draining = Some(Drain {
            deadline: now() + timeout,
            cut: false,
        });
        self.publish(Life::Draining);
        for shard in self
            .shards
            .iter_mut()
            .filter(|shard| shard.restart_at.is_some())
        {
            // What waits to be started again has nothing left to do.
            shard.restart_at = None;
            shard.ended = true;
        }
    }

    fn publish(&mut self, life: Life) {
        self.live.generation += 1;
        self.live.life = life;
        self.live.endpoints = self.standings.live(now());
        let plan = compile(&self.config, &self.live, self.plan().as_deref());
        self.publisher.publish(plan);
    }

    /// The newest one.
    fn plan(&self) -> Option<Arc<Plan>> {
        let posted = self.publisher.current();
        posted.map(|posted| Arc::clone(&posted.plan))
    }

    fn tick(&mut self, supervisor: &mut dyn Supervisor) {
        self.hear();
        self.publisher.retire();
        // Of plans that follow each other fast, as they may at the start of many endpoints, the
        // shards adopt only some.
        if !self.ready && self.publisher.adopted_by_all(FIRST) {
            self.ready = true;
            supervisor.ready();
            self.say_ready();
        }
        self.restart_dead(supervisor);
        if self.draining.is_none() && self.standings.is_due(now()) {
            self.publish(Life::Serving);
        }
        self.collect();
        if let Some(drain) = &mut self.draining
            && !drain.cut
            && drain.deadline <= now()
        {
            drain.cut = true;
            log::warn!("drain_timeout has passed: connections are cut");
            self.publish(Life::Ended);
        }
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

    fn shard_ended(&mut self, end: ShardEnd) -> Result<(), String> {
        self.hear();
        let ShardEnd { shard, error } = end;
        let life = &mut self.shards[shard];
        let Some(error) = error else {
            life.ended = true;
            return Ok(());
        };
        if !self.ready {
            return Err(error);
        }
        log::error!(shard, error; "a shard died; it is started again");
        if self.draining.is_some() {
            life.ended = true;
            return Ok(());
        }
        if RECOVERED < now() - life.started {
            life.backoff = RESTART;
        }
        life.restart_at = Some(now() + life.backoff);
        life.backoff = (life.backoff * 2).min(RESTART_MAX);
        say(&self.standings.shard_died(shard, now()));
        Ok(())
    }

    fn restart_dead(&mut self, supervisor: &mut dyn Supervisor) {
        for (shard, life) in self.shards.iter_mut().enumerate() {
            let Some(at) = life.restart_at else { continue };
            if now() < at {
                continue;
            }
            life.restart_at = None;
            life.started = now();
            let door = self.publisher.resubscribe(shard);
            if let Err(error) = supervisor.restart(shard, door) {
                log::error!(shard, error:%; "a shard cannot be started again; trying on");
                life.restart_at = Some(now() + life.backoff);
            } else {
                say(&self.standings.shard_lives(shard, now()));
            }
        }
    }
}

fn say(changes: &[Change]) {
    changes.iter().for_each(Change::log);
}
