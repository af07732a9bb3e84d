//! The door between the planes: plans go down to the shards, counters and notices come up.
//!
//! It carries state, not commands: what the shards shall run is the newest [`Plan`], whole and
//! numbered, and what they do run is the generation that each has adopted. No question crosses the
//! door, so nobody waits at it.
//!
//! ```text
//!   Publisher (control)                              Subscriber (one a shard)
//!     shelf: every plan not freed yet
//!     post: cell, then generation  --- plan --->     poll: generation, then cell
//!     adopted(shard)               <-- number --     adopt(generation)
//!     counters of all shards       <-- counts --     counters of this shard
//!     ask_for_recorders            --- number -->    asked_for_recorders
//!     gather                       <-- recorders --  (a counters' `Handed`), then answer
//!     notices                      <-- ring ----     notify
//! ```
//!
//! # Who touches what
//!
//! | Field | Writes | Reads |
//! | --- | --- | --- |
//! | `cell`: the newest plan (arc-swap) | control | shards |
//! | `generation`: its number | control, after `cell` | shards |
//! | `adopted[s]` | shard `s`; control while it is dead | control |
//! | `shelf`, `ledger` | control | control |
//! | counters of shard `s` | shard `s`; control while it is dead | control |
//! | `collect`: what is asked for | control | shards |
//! | `collect`: what shard `s` has answered | shard `s` | control |
//! | the `Handed` of shard `s`'s counters | shard `s` puts in, both take out | |
//! | notice ring of shard `s` | shard `s` at one end, control at the other | |
//!
//! # Handing over
//!
//! Control stores the plan, then its number (release). A shard that reads a number greater than the
//! last it saw reads it again (acquire), and so finds that plan in the cell or a later one; it
//! never finds an older one, and what it finds is always newer than what it has. When it finds a
//! later plan before the later number, it remembers the plan's own number, and the later number is
//! no news to it. When it sees the number late, it runs the older plan a little longer, which is
//! what it did anyway.
//!
//! # Retirement
//!
//! Control frees a plan, never a shard: freeing walks the whole plan, and its allocations belong to
//! control's thread. Every plan is put on the shelf before it is posted and leaves it only in
//! [`Publisher::retire`], when it is not the newest and the shelf's pointer is the only one. Until
//! then the count is at least two while a shard holds a pointer, so a shard's drop never brings it
//! to zero. It cannot grow again from one: a pointer is cloned by one who holds one, or loaded from
//! the cell, which holds a newer plan by then; arc-swap's store returns after every load of the old
//! pointer that was under way has been counted. The last drop by a shard and the freeing by control
//! are ordered by `Arc` itself (release on each decrement, acquire before the last). The same holds
//! for the sets of counters, which the ledger holds until it is alone with them. Both rest on two
//! rules:
//!
//! - The publisher outlives the shards' threads; `boot` joins them first.
//! - What a shard keeps is an `Arc` of a [`Posted`], of its plan, of its counters or of a service's
//!   or a listener's counters: those are what is looked at. It keeps no `Arc` from further inside
//!   beyond them.
//!
//! A shard thread that dies and forgets its runtime leaks its pointers; the plan they point to is
//! then never freed, and nothing else comes of it.
//!
//! # Recorders
//!
//! A shard records where no other thread looks. When control has raised the number that it asks by,
//! the shard's next tick lays every recorder that is not empty down in its `Handed`, and then
//! writes the number back (release). Control that reads it (acquire) finds all that was recorded
//! before that tick; what it gathers earlier or later is neither lost nor counted twice, because a
//! place is emptied in one step. A shard lays down once more when it ends, after its last exchange.
//! What a shard that dies had laid down stays; what it had not is lost with it.
//!
//! `handover`, `collect` and [`Handed`](crate::tally::Handed) are the part of this that is ours;
//! their tests run them under loom. arc-swap's inside and rtrb's are theirs.

mod collect;
mod handover;
mod ledger;
pub mod notice;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::ArcSwapOption;

use collect::Collect;
use handover::{Cell, Counted, Handover, Shelf};
use ledger::Ledger;
pub use notice::{NOTICES_MAX, Notice};

use crate::plan::{Endpoint, ListenerId, Plan, Service};
use crate::tally::report::{EndpointReport, Process, Report, ServiceReport};
use crate::tally::{Phases, PlanCounters, ServiceTotals, ShardCounters, ShardTotals};

/// A plan as the shards get it, with what they count under it.
#[derive(Debug)]
pub struct Posted {
    /// What to run.
    pub plan: Arc<Plan>,
    /// By shard: what to count.
    pub counters: Box<[Arc<PlanCounters>]>,
}

/// A door for so many shards: control's side and each shard's, in their order.
pub fn door(shards: usize) -> (Publisher, Vec<Subscriber>) {
    let handover = Arc::new(Handover::new(ArcSwapOption::empty(), shards));
    let collect = Arc::new(Collect::new(shards));
    let ledger = Ledger::new(shards);
    let mut rings = Vec::with_capacity(shards);
    let mut subscribers = Vec::with_capacity(shards);
    for (shard, counters) in ledger.shards().iter().enumerate() {
        let (ring_in, ring_out) = rtrb::RingBuffer::new(NOTICES_MAX);
        rings.push(ring_out);
        subscribers.push(Subscriber {
            shard,
            handover: Arc::clone(&handover),
            seen: 0,
            collect: Arc::clone(&collect),
            answered: 0,
            counters: Arc::clone(counters),
            notices: ring_in,
        });
    }
    let publisher = Publisher {
        handover,
        collect,
        shelf: Shelf::new(),
        ledger,
        rings,
    };
    (publisher, subscribers)
}

/// Control's side of the door.
#[derive(Debug)]
pub struct Publisher {
    handover: Arc<Handover<ArcSwapOption<Posted>>>,
    collect: Arc<Collect<AtomicU64>>,
    shelf: Shelf<Arc<Posted>>,
    ledger: Ledger,
    /// By shard.
    rings: Vec<rtrb::Consumer<Notice>>,
}

impl Publisher {
    /// Hands `plan` to every shard. Services (by name) and endpoints (by address) that the last
    /// plan had keep their counters.
    ///
    /// # Panics
    /// When the plan's generation is not greater than the last one's.
    pub fn publish(&mut self, plan: Plan) {
        assert!(self.generation() < plan.generation, "generations grow");
        let posted = Arc::new(Posted {
            counters: self.ledger.open(&plan),
            plan: Arc::new(plan),
        });
        self.shelf.keep(Arc::clone(&posted));
        self.handover.post(posted);
    }

    /// The number of the newest plan; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.current().map_or(0, |posted| posted.plan.generation)
    }

    /// The newest plan; `None` before the first.
    pub fn current(&self) -> Option<&Arc<Posted>> {
        self.shelf.current()
    }

    /// The generation that `shard` runs; 0 before it has adopted one.
    pub fn adopted(&self, shard: usize) -> u64 {
        self.handover.adopted(shard)
    }

    /// True exactly when every shard runs `generation` or a later one.
    pub fn adopted_by_all(&self, generation: u64) -> bool {
        (0..self.shards()).all(|shard| generation <= self.adopted(shard))
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.handover.shards()
    }

    /// Frees the plans and the counters that only control still holds. Returns how many plans that
    /// were. To be called now and then, on control's tick.
    pub fn retire(&mut self) -> usize {
        let retired = self.shelf.retire();
        self.ledger.settle();
        retired
    }

    /// What each shard counted for itself.
    pub fn shard_counters(&self) -> &[Arc<ShardCounters>] {
        self.ledger.shards()
    }

    /// What the service at `index` of the newest plan counted, merged over the shards and over
    /// every plan that had it.
    ///
    /// # Panics
    /// When the newest plan has no such service.
    pub fn service_totals(&self, index: usize) -> ServiceTotals {
        self.ledger.service(index)
    }

    /// How many clients of the listener `id` are open, on all shards.
    pub fn clients_of(&self, id: ListenerId) -> u64 {
        let shards = self.ledger.listener(id).unwrap_or_default().iter();
        shards.map(|own| own.clients_open.get()).sum()
    }

    /// How many sockets of the listener `id` the shards accept from, or still empty.
    pub fn sockets_of(&self, id: ListenerId) -> u64 {
        let shards = self.ledger.listener(id).unwrap_or_default().iter();
        shards.map(|own| own.sockets_open.get()).sum()
    }

    /// Asks every shard to lay down what it has recorded. Returns the number by which the answers
    /// are known.
    pub fn ask_for_recorders(&self) -> u64 {
        self.collect.ask()
    }

    /// The shards that have not answered `asked` yet.
    pub fn late(&self, asked: u64) -> Vec<usize> {
        let is_late = |shard: &usize| self.collect.answered(*shard) < asked;
        (0..self.shards()).filter(is_late).collect()
    }

    /// Picks up what the shards have laid down.
    pub fn gather(&mut self) {
        self.ledger.gather();
    }

    /// The report of what was counted until now, and of what was recorded until the last
    /// [`Publisher::gather`]; `late` are the shards whose part is missing from that.
    pub fn report<'a>(&'a self, process: Process<'a>, late: Vec<usize>) -> Report<'a> {
        let plan = self.current().map(|posted| &*posted.plan);
        let services = plan.map_or(&[][..], |plan| &plan.services);
        let shards = self.shard_counters().iter();
        Report {
            process,
            generation: self.generation(),
            late,
            services: (0..)
                .zip(services)
                .map(|(index, service)| self.report_of(index, service))
                .collect(),
            gone: self.gone_totals(),
            gone_phases: self.ledger.gone_phases(),
            shards: shards.map(|own| ShardTotals::from(&**own)).collect(),
        }
    }

    fn report_of<'a>(&'a self, index: usize, service: &'a Service) -> ServiceReport<'a> {
        let (phases, endpoint_phases) = self.ledger.phases(index);
        let endpoints = service.endpoints.iter().zip(endpoint_phases);
        let endpoint = |(endpoint, phases): (&'a Endpoint, &'a Phases)| EndpointReport {
            name: &endpoint.name,
            standing: endpoint.standing.label(),
            phases,
        };
        ServiceReport {
            name: &service.name,
            totals: self.service_totals(index),
            phases,
            backends: service.backends.iter().map(|it| &*it.name).collect(),
            endpoints: endpoints.map(endpoint).collect(),
            // Control's to know, and to fill in.
            names: Vec::new(),
        }
    }

    /// What services counted that the newest plan does not have.
    pub fn gone_totals(&self) -> ServiceTotals {
        self.ledger.gone()
    }

    /// Takes what the shards have to say since the last call, shard by shard. Ends also when shards
    /// keep talking: it takes at most [`NOTICES_MAX`] of each.
    pub fn notices(&mut self) -> impl Iterator<Item = (usize, Notice)> {
        let rings = self.rings.iter_mut().enumerate();
        rings.flat_map(|(shard, ring)| {
            std::iter::from_fn(move || ring.pop().ok())
                .take(NOTICES_MAX)
                .map(move |notice| (shard, notice))
        })
    }

    /// The door's side for a shard that is started anew: gauges are zero, counters go on, nothing
    /// is adopted yet. What the dead thread said last must have been taken by
    /// [`Publisher::notices`] before.
    ///
    /// The shard's last thread has ended and its `Subscriber` with it: until the new one runs,
    /// control is the one writer.
    pub fn resubscribe(&mut self, shard: usize) -> Subscriber {
        let counters = Arc::clone(&self.ledger.shards()[shard]);
        self.ledger.zero_gauges(shard);
        counters.restarts.add(1);
        self.handover.adopt(shard, 0);
        let (ring_in, ring_out) = rtrb::RingBuffer::new(NOTICES_MAX);
        self.rings[shard] = ring_out;
        Subscriber {
            shard,
            handover: Arc::clone(&self.handover),
            seen: 0,
            collect: Arc::clone(&self.collect),
            answered: 0,
            counters,
            notices: ring_in,
        }
    }
}

/// One shard's side of the door: moved into the shard's thread and used there alone.
#[derive(Debug)]
pub struct Subscriber {
    shard: usize,
    handover: Arc<Handover<ArcSwapOption<Posted>>>,
    /// The generation of the last plan that `poll` gave.
    seen: u64,
    collect: Arc<Collect<AtomicU64>>,
    /// The number that `answer` was told last.
    answered: u64,
    counters: Arc<ShardCounters>,
    notices: rtrb::Producer<Notice>,
}

impl Subscriber {
    /// Which shard this is.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// What this shard counts for itself, also before its first plan.
    pub fn counters(&self) -> &Arc<ShardCounters> {
        &self.counters
    }

    /// The newest plan, when it is newer than the last that this gave. One relaxed load when there
    /// is none.
    #[inline]
    pub fn poll(&mut self) -> Option<Arc<Posted>> {
        let posted = self.handover.newer_than(self.seen)?;
        self.seen = posted.plan.generation;
        Some(posted)
    }

    /// Tells control that this shard runs `generation` now.
    pub fn adopt(&mut self, generation: u64) {
        debug_assert!(generation <= self.seen, "adopted what was not polled");
        self.handover.adopt(self.shard, generation);
    }

    /// The number by which control asks for what this shard has recorded, when that is news. One
    /// relaxed load.
    pub fn asked_for_recorders(&self) -> Option<u64> {
        let asked = self.collect.asked();
        (self.answered < asked).then_some(asked)
    }

    /// Tells control that everything this shard had recorded is laid down.
    pub fn answer(&mut self, asked: u64) {
        self.answered = asked;
        self.collect.answer(self.shard, asked);
    }

    /// Tells control what happened, or counts that there was no room. Never waits.
    pub fn notify(&mut self, notice: Notice) {
        if self.notices.push(notice).is_err() {
            self.counters.notices_dropped.add(1);
        }
    }
}

impl Cell for ArcSwapOption<Posted> {
    type Plan = Arc<Posted>;
    type Number = AtomicU64;

    fn store(&self, plan: Arc<Posted>) {
        self.store(Some(plan));
    }

    fn load(&self) -> Option<Arc<Posted>> {
        self.load_full()
    }
}

impl Counted for Arc<Posted> {
    /// Those of the plan and of the counters are looked at too: a shard may keep one of them alone.
    fn holders(&self) -> usize {
        let whole = Self::strong_count(self);
        // Acquire: who let go of the whole had, before that, cloned the part that it keeps.
        fence(Ordering::Acquire);
        let counters = self.counters.iter().map(Arc::strong_count).max();
        whole
            .max(Arc::strong_count(&self.plan))
            .max(counters.unwrap_or(0))
    }

    fn generation(&self) -> u64 {
        self.plan.generation
    }
}

#[cfg(test)]
mod tests;
