//! The end of the process: nothing new, and what runs may finish.

use std::time::Instant;

use super::{Control, Supervisor, now};
use crate::plan::Life;

/// A drain that has begun.
#[derive(Debug)]
pub(super) struct Drain {
    /// When what still runs is cut.
    pub(super) deadline: Instant,
    pub(super) cut: bool,
}

impl Control {
    pub(super) fn drain(&mut self, supervisor: &mut dyn Supervisor) {
        self.give_up_upgrade();
        self.systemd.stopping();
        let timeout = self.config.runtime().drain_timeout;
        log::info!(timeout:?; "draining");
        for bound in self
            .live
            .bound
            .iter()
            .chain(self.live.leaving.iter().map(|it| &it.bound))
        {
            supervisor.close(bound.id);
        }
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

    /// Cuts what still runs when its time is over.
    pub(super) fn look_at_drain(&mut self) {
        if let Some(drain) = &mut self.draining
            && !drain.cut
            && drain.deadline <= now()
        {
            drain.cut = true;
            log::warn!("drain_timeout has passed: connections are cut");
            self.publish(Life::Ended);
        }
    }
}
