//! The shards' threads: one that dies is started again, and rests between two deaths.

use std::time::{Duration, Instant};

use super::{Control, ShardEnd, Supervisor, now, say};

/// The first wait before a shard that died is started again; doubled up to [`RESTART_MAX`] while it
/// goes on dying.
const RESTART: Duration = Duration::from_millis(10);
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A shard that has lived so long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// A shard, as control sees it.
#[derive(Debug)]
pub(super) struct ShardLife {
    pub(super) driver: Option<String>,
    pub(super) started: Instant,
    /// When it is to be started again; `None` while it runs or when it has ended for good.
    pub(super) restart_at: Option<Instant>,
    pub(super) backoff: Duration,
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
            ended: false,
            notices_dropped: 0,
        }
    }

    /// True exactly when its thread runs, as far as is known.
    pub(super) const fn runs(&self) -> bool {
        !self.ended && self.restart_at.is_none()
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
        if RECOVERED < now() - life.started {
            life.backoff = RESTART;
        }
        life.restart_at = Some(now() + life.backoff);
        life.backoff = (life.backoff * 2).min(RESTART_MAX);
        say(&self.standings.shard_died(shard, now()));
        Ok(())
    }

    pub(super) fn restart_dead(&mut self, supervisor: &mut dyn Supervisor) {
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
