//! The shards' threads: one that dies is started again, and rests between two deaths.

use std::time::{Duration, Instant};

use super::{Control, ShardEnd, Supervisor, now, say};
use crate::plan::Life;

/// The first wait before a shard that died is started again; doubled up to [`RESTART_MAX`] while it
/// goes on dying.
const RESTART: Duration = Duration::from_millis(10);
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A shard that has lived so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);
/// A shard that has died so often without recovering once will go on dying.
const CRASH_LOOP: u32 = 3;

/// A shard, as control sees it.
#[derive(Debug)]
pub(super) struct ShardLife {
    pub(super) driver: Option<String>,
    pub(super) started: Instant,
    /// When it is to be started again; `None` while it runs or when it has ended for good.
    pub(super) restart_at: Option<Instant>,
    pub(super) backoff: Duration,
    /// How often in a row it has died before it had recovered.
    deaths: u32,
    pub(super) ended: bool,
    /// How many of its notices had been dropped when that was looked at last.
    pub(super) notices_dropped: u64,
}

impl ShardLife {
    /// It is started now.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            driver: None,
            started: now,
            restart_at: None,
            backoff: RESTART,
            deaths: 0,
            ended: false,
            notices_dropped: 0,
        }
    }

    /// It has died, and is to be started again after a wait.
    fn died(&mut self, now: Instant) {
        if RECOVERED < now - self.started {
            self.backoff = RESTART;
            self.deaths = 0;
        }
        self.deaths += 1;
        self.restart_at = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(RESTART_MAX);
    }

    /// True exactly while it dies again and again.
    fn is_in_crash_loop(&self, now: Instant) -> bool {
        let recovered = self.restart_at.is_none() && RECOVERED < now - self.started;
        CRASH_LOOP <= self.deaths && !recovered
    }
}

impl Control {
    pub(super) fn shard_ended(&mut self, end: ShardEnd) -> Result<(), String> {
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
        life.died(now());
        say(&self.standings.shard_died(shard, now()));
        // Who is queued on its sockets is let in by others, until it is back.
        self.live.dead.insert(shard as u32);
        self.publish(Life::Serving);
        Ok(())
    }

    /// How many shards die again and again: clients are better sent elsewhere.
    pub fn not_ready_shards(&self) -> usize {
        let shards = self.shards.iter();
        shards.filter(|life| life.is_in_crash_loop(now())).count()
    }

    /// Tells systemd that the process is well, where every shard that runs has ticked.
    pub(super) fn beat(&mut self) {
        let shards = self.shards.iter().zip(self.publisher.shard_counters());
        let lived = shards.map(|(life, counters)| {
            let runs = !life.ended && life.restart_at.is_none();
            runs.then(|| counters.lived_microseconds.get())
        });
        self.systemd.look(lived, now());
    }

    pub(super) fn restart_dead(&mut self, supervisor: &mut dyn Supervisor) {
        let due = |life: &ShardLife| life.restart_at.is_some_and(|at| at <= now());
        let due: Vec<usize> = (0..self.shards.len())
            .filter(|shard| due(&self.shards[*shard]))
            .collect();
        for shard in due {
            self.restart(shard, supervisor);
        }
    }

    /// The plan that it finds at its start has its sockets again.
    fn restart(&mut self, shard: usize, supervisor: &mut dyn Supervisor) {
        self.live.dead.remove(&(shard as u32));
        self.publish(Life::Serving);
        let life = &mut self.shards[shard];
        life.restart_at = None;
        life.started = now();
        let door = self.publisher.resubscribe(shard);
        if let Err(error) = supervisor.restart(shard, door) {
            log::error!(shard, error:%; "a shard cannot be started again; trying on");
            life.restart_at = Some(now() + life.backoff);
            self.live.dead.insert(shard as u32);
            self.publish(Life::Serving);
        } else {
            say(&self.standings.shard_lives(shard, now()));
        }
    }
}
