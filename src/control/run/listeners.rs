//! The listeners of a reload: those that stay keep their sockets, new ones are bound before
//! anything else changes, and those that go finish what runs.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::compile::{BoundListener, Leaving};
use super::super::supervisor::Supervisor;
use super::{Control, now};
use crate::config::{Config, Listener};
use crate::plan::{Life, ListenerId};

/// What the listeners of the next configuration are bound with.
#[derive(Debug)]
pub(super) struct Opening {
    /// In the order of the configuration.
    pub(super) bound: Vec<BoundListener>,
    /// Those of them that were not there before.
    pub(super) fresh: Vec<ListenerId>,
}

/// Listeners that leave.
pub(super) type Deadlines = BTreeMap<ListenerId, Departure>;

/// How far a listener is that leaves.
#[derive(Debug)]
pub(super) struct Departure {
    /// When what is left of it is cut.
    deadline: Instant,
    /// The first plan in which it does not accept.
    generation: u64,
    /// True exactly when boot has closed its own of the sockets.
    let_go: bool,
    /// How many looks in a row have found nothing of it open.
    empty: u32,
}

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
                    fresh.into_iter().for_each(|id| supervisor.let_go(id));
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
        let mut bound = opening.bound;
        let had = self.config.listeners().iter().cloned();
        let had: Vec<_> = had.zip(self.live.bound.clone()).collect();
        for (written, had) in had {
            match bound.iter().position(|bound| bound.id == had.id) {
                None => {
                    supervisor.close(had.id);
                    self.leaves(next, written, had);
                }
                // Its clients speak what they came for; who is queued has said nothing yet.
                Some(place) if !is_spoken_alike(&written, &next.listeners()[place]) => {
                    bound[place] = supervisor.renew(had.id);
                    let sockets = Vec::new();
                    self.leaves(next, written, BoundListener { sockets, ..had });
                }
                Some(_) => {}
            }
        }
        self.live.bound = bound;
    }

    fn leaves(&mut self, next: &Config, written: Listener, bound: BoundListener) {
        let departure = Departure {
            deadline: now() + next.runtime().drain_timeout,
            generation: self.live.generation + 1,
            let_go: false,
            empty: 0,
        };
        self.leaving.insert(bound.id, departure);
        self.live.leaving.push(Leaving { written, bound });
    }

    /// Closes the sockets that are emptied by the shards: each that lives has its duplicates. With
    /// boot's own closed before, one that takes over from a shard that died would find nothing to
    /// empty; with it closed long after, clients would wait for an answer to their SYNs.
    pub(super) fn let_go_of_listeners(&mut self, supervisor: &mut dyn Supervisor) {
        if self.leaving.values().any(|departure| !departure.let_go) {
            let mut departures = std::mem::take(&mut self.leaving);
            for (id, departure) in &mut departures {
                if !departure.let_go && self.shards_behind(departure.generation).is_empty() {
                    departure.let_go = true;
                    supervisor.let_go(*id);
                }
            }
            self.leaving = departures;
        }
        let is_over = self.live.life != Life::Serving;
        if is_over && self.shards_behind(self.live.generation).is_empty() {
            for bound in &self.live.bound {
                supervisor.let_go(bound.id);
            }
        }
    }

    /// Whether a listener that leaves has had its time, or has nothing left to finish; the next
    /// plan has it no more.
    pub(super) fn look_at_leaving(&mut self) -> bool {
        let before = self.live.leaving.len();
        let Self {
            live,
            leaving: departures,
            publisher,
            ..
        } = self;
        live.leaving.retain(|leaving| {
            let id = leaving.bound.id;
            let departure = departures.get_mut(&id).expect("it has left");
            let clients = publisher.clients_of(id);
            departure.empty = match (publisher.sockets_of(id), clients) {
                (0, 0) => departure.empty + 1,
                _ => 0,
            };
            // Twice: the two numbers of a shard are not of one moment, and between them its last
            // client may have gone from the queue to the clients.
            let is_over = departure.deadline <= now() || 2 <= departure.empty;
            let goes = departure.let_go && is_over;
            if goes {
                say_gone(leaving, clients);
                departures.remove(&id);
            }
            !goes
        });
        live.leaving.len() < before
    }
}

/// True exactly when the connections of one are those of the other: what changes else, changes with
/// their next exchange.
fn is_spoken_alike(last: &Listener, next: &Listener) -> bool {
    (last.protocol, last.proxy_protocol) == (next.protocol, next.proxy_protocol)
}

fn say_gone(leaving: &Leaving, clients: u64) {
    let listener = leaving.written.name.as_str();
    let address = leaving.bound.address;
    if clients == 0 {
        log::info!(listener, address:%; "gone");
    } else {
        log::warn!(listener, address:%, clients; "drain_timeout has passed: clients are cut");
    }
}
