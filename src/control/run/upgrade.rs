//! Another process takes the place of this one, as the old one sees it and as the new one does.
//!
//! The old one starts it, with all sockets, and goes on until it says that it is ready: then this
//! one drains, and lets go of the sockets without emptying them, for what is queued there is the
//! other's. The new one accepts nobody before every shard runs and one round of probes is over, so
//! that one that fails has lost nobody.

use std::future::pending;
use std::time::Duration;

use super::super::successor::{Answer, Handed, Successor};
use super::super::supervisor::Supervisor;
use super::{Control, now};
use crate::plan::Life;

/// What a first round of probes may take beyond the longest of their timeouts.
const ROUND: Duration = Duration::from_millis(500);

/// Waits for what the new process answers; for ever where there is none.
pub(super) async fn answer(upgrading: &mut Option<Successor>) -> Answer {
    match upgrading {
        Some(successor) => successor.answer().await,
        None => pending().await,
    }
}

impl Control {
    /// Starts the binary anew, and drains when that is ready.
    pub(super) fn upgrade(&mut self, supervisor: &mut dyn Supervisor) {
        let refused = if self.is_leaving() {
            Some("this process drains")
        } else if self.upgrading.is_some() {
            Some("an upgrade is under way")
        } else if !self.ready {
            Some("this process is not ready itself")
        } else if self.reloads.is_under_way() {
            Some("a reload is under way")
        } else {
            None
        };
        if let Some(because) = refused {
            log::warn!(because; "the upgrade is refused");
            return;
        }
        let listeners = self.config.listeners().iter().zip(&self.live.bound);
        let listeners = listeners.map(|(written, bound)| (bound.id, written.name.as_str()));
        let listeners: Vec<_> = listeners.collect();
        match supervisor.start_successor(&listeners, &self.handed()) {
            Ok(successor) => {
                log::info!(pid = successor.pid(); "upgrading: the new process starts");
                self.upgrading = Some(successor);
            }
            Err(error) => {
                log::error!(error:%; "the upgrade failed; this process goes on");
            }
        }
    }

    /// What the new process is to know.
    fn handed(&self) -> Handed {
        let overrides = self.live.overrides.said(&self.config);
        let overrides = overrides.map(|(service, backend, state, said)| {
            [service, backend, state.label(), said.label()].map(str::to_owned)
        });
        Handed {
            overrides: overrides.collect(),
        }
    }

    /// The new process has answered.
    pub(super) fn upgraded(&mut self, answer: Answer, supervisor: &mut dyn Supervisor) {
        let successor = self.upgrading.take();
        match answer {
            Answer::Ready { pid, unwanted } => {
                log::info!(pid; "upgraded: the new process serves");
                self.systemd.leave_to(pid);
                let handed_on = supervisor.leave_to_successor(&unwanted);
                self.live.handed_on.extend(handed_on);
                self.drain(supervisor);
            }
            Answer::Failed(error) => {
                if let Some(successor) = successor {
                    successor.kill();
                }
                log::error!(error; "the upgrade failed; this process goes on");
            }
        }
    }

    /// This process ends; so does the one that was to take its place.
    pub(super) fn give_up_upgrade(&mut self) {
        if let Some(successor) = self.upgrading.take() {
            log::warn!("the upgrade is given up: this process is to end");
            successor.terminate();
        }
    }

    /// In the new process: accepts, once one round of probes is over, or has had its time.
    ///
    /// # Errors
    /// When nobody could come by the sockets.
    pub(super) fn look_at_hold(&mut self, supervisor: &mut dyn Supervisor) -> Result<(), String> {
        let services = self.config.services().iter();
        let mut probed = services.filter_map(|it| Some((&it.name, it.probe.as_ref()?)));
        let longest = probed.clone().map(|(_, probe)| probe.timeout).max();
        let is_over = self.started + longest.unwrap_or_default() + ROUND <= now();
        if !is_over && !probed.all(|(name, _)| self.standings.is_judged(name)) {
            return Ok(());
        }
        supervisor.begin().map_err(|error| error.to_string())?;
        self.live.held = false;
        self.publish(Life::Serving);
        self.first = self.live.generation;
        Ok(())
    }
}
