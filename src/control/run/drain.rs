//! The end of the process: nothing new, and what runs may finish.
//!
//! ```text
//!   asked for, by a signal or by POST /drain      not ready any more, all else as before
//!        | drain_delay
//!   drain                                         nobody is accepted, clients are sent away
//!        | drain_timeout
//!   what still runs is cut
//! ```

use std::process;
use std::time::Instant;

use super::{Control, Supervisor, now};
use crate::plan::Life;
use crate::units::format_duration;

/// A drain that has begun.
#[derive(Debug)]
pub(super) struct Drain {
    /// When what still runs is cut.
    pub(super) deadline: Instant,
    pub(super) cut: bool,
}

impl Control {
    /// True exactly when the end was asked for.
    pub(super) const fn is_leaving(&self) -> bool {
        self.closing.is_some() || self.draining.is_some()
    }

    /// A signal asks for the end; a second one ends at once. What else has asked for it before is
    /// no signal: an orchestrator that has asked over the admin API sends one all the same.
    pub(super) fn signalled(&mut self, supervisor: &mut dyn Supervisor) {
        if self.signalled {
            log::warn!("a second signal: ending at once");
            log::logger().flush();
            process::exit(1);
        }
        self.signalled = true;
        if self.is_leaving() {
            log::info!("draining already; another signal ends at once");
        } else {
            self.leave(supervisor);
        }
    }

    /// The admin API asks for the end; gives what is to be said of it.
    pub(super) fn asked_to_drain(&mut self, supervisor: &mut dyn Supervisor) -> String {
        let already = self.is_leaving();
        if !already {
            log::info!("the admin API was asked to drain");
            self.leave(supervisor);
        }
        let left = |until: Instant| format_duration(until.saturating_duration_since(now()));
        let text = match (self.closing, &self.draining) {
            (Some(at), _) => {
                let timeout = format_duration(self.config.runtime().drain_timeout);
                format!(
                    "nobody is accepted from {} on, and what runs then is cut {timeout} later",
                    left(at)
                )
            }
            (None, Some(drain)) => {
                let left = left(drain.deadline);
                format!("nobody is accepted, and what still runs is cut in {left}")
            }
            (None, None) => String::new(),
        };
        let already = if already { "already " } else { "" };
        format!("{already}draining: {text}")
    }

    /// Clients are to be sent elsewhere from now on, and after `drain_delay` nobody is accepted:
    /// who balances over several of us has that long to hear of it.
    fn leave(&mut self, supervisor: &mut dyn Supervisor) {
        self.give_up_upgrade();
        self.systemd.stopping();
        let delay = self.config.runtime().drain_delay;
        // Who has not taken the place of another process yet is known to nobody.
        let is_unknown = self.is_upgraded && !self.ready;
        if delay.is_zero() || is_unknown {
            self.drain(supervisor);
            return;
        }
        log::info!(drain_delay:? = delay; "not ready any more; draining after drain_delay");
        self.closing = Some(now() + delay);
    }

    /// Accepts nobody from now on.
    pub(super) fn drain(&mut self, supervisor: &mut dyn Supervisor) {
        self.closing = None;
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

    /// Begins the drain when its delay is over, and cuts what still runs when its time is.
    pub(super) fn look_at_drain(&mut self, supervisor: &mut dyn Supervisor) {
        if self.closing.is_some_and(|at| at <= now()) {
            self.drain(supervisor);
        }
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
