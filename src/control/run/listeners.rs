//! The listeners of a reload: those that stay keep their sockets, new ones are bound before
//! anything else changes, and those that go finish what runs.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::compile::{BoundListener, Leaving};
use super::super::supervisor::Supervisor;
use super::{Control, now};
use crate::config::{Config, Listener};
use crate::plan::ListenerId;

/// What the listeners of the next configuration are bound with.
#[derive(Debug)]
pub(super) struct Opening {
    /// In the order of the configuration.
    pub(super) bound: Vec<BoundListener>,
    /// Those of them that were not there before.
    pub(super) fresh: Vec<ListenerId>,
}

/// When the clients of listeners that leave are cut.
pub(super) type Deadlines = BTreeMap<ListenerId, Instant>;

/// True exactly when `next` is `last`, be it changed: the same address, or, where the kernel chose
/// the port, the same name.
pub(in crate::control) fn is_same(last: &Listener, next: &Listener) -> bool {
    last.address == next.address && (next.address.port() != 0 || last.name == next.name)
}

impl Control {
    /// Opens what `next` listens on and nothing does yet. Who comes there waits until a plan has
    /// it.
    ///
    /// # Errors
    /// What cannot be bound; then nothing is open that was not before.
    pub(super) fn open_listeners(
        &self,
        next: &Config,
        supervisor: &mut dyn Supervisor,
    ) -> Result<Opening, String> {
        let mut bound = Vec::new();
        let mut fresh = Vec::new();
        for written in next.listeners() {
            let mut had = self.config.listeners().iter().zip(&self.live.bound);
            if let Some((_, had)) = had.find(|(last, _)| is_same(last, written)) {
                bound.push(had.clone());
                continue;
            }
            match supervisor.open(written.address) {
                Ok(opened) => {
                    fresh.push(opened.id);
                    bound.push(opened);
                }
                Err(error) => {
                    fresh.into_iter().for_each(|id| supervisor.close(id));
                    let (name, address) = (&written.name, written.address);
                    return Err(format!("listener `{name}`: {address}: {error}"));
                }
            }
        }
        Ok(Opening { bound, fresh })
    }

    /// Has the next plan, whose configuration is `next`, listen on what was opened for it. Those
    /// that it has not leave, for as long as a drain may take.
    pub(super) fn take_listeners(
        &mut self,
        next: &Config,
        opening: Opening,
        supervisor: &mut dyn Supervisor,
    ) {
        let stays = |id| opening.bound.iter().any(|bound| bound.id == id);
        let had = self.config.listeners().iter().zip(&self.live.bound);
        let gone = had.filter(|(_, bound)| !stays(bound.id));
        for (written, bound) in gone {
            supervisor.close(bound.id);
            let deadline = now() + next.runtime().drain_timeout;
            self.leaving.insert(bound.id, deadline);
            self.live.leaving.push(Leaving {
                written: written.clone(),
                bound: bound.clone(),
            });
        }
        self.live.bound = opening.bound;
    }

    /// Whether a listener that leaves has had its time; the next plan has it no more.
    pub(super) fn look_at_leaving(&mut self) -> bool {
        let before = self.live.leaving.len();
        let deadlines = &mut self.leaving;
        deadlines.retain(|_, deadline| now() < *deadline);
        let leaving = &mut self.live.leaving;
        leaving.retain(|leaving| deadlines.contains_key(&leaving.bound.id));
        leaving.len() < before
    }
}
