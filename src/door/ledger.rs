//! Which counters each plan's services write to, so that a reload loses no count and control frees
//! what no plan needs.
//!
//! Used by control alone. The ledger holds every set of counters that a shard may still write to. A
//! set whose service or endpoints have changed is kept until the ledger is its only holder; then
//! nothing writes it any more, its numbers are added to those of its service that are final, and it
//! is freed.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::plan::{ListenerId, Plan, Service};
use crate::tally::{
    ListenerCounters, Phases, PlanCounters, ServiceCounters, ServiceTotals, ShardCounters,
};

/// The counters of all shards.
#[derive(Debug)]
pub(super) struct Ledger {
    shards: Box<[Arc<ShardCounters>]>,
    /// Of each listener, by shard: those of the newest plan, and those whose clients are not gone.
    listeners: HashMap<ListenerId, Box<[Arc<ListenerCounters>]>>,
    /// Those of the newest plan, in its order.
    services: Vec<Entry>,
    /// Sets of services that the newest plan does not have, not final yet.
    gone: Vec<Set>,
    /// The final numbers of services that are gone.
    gone_final: ServiceTotals,
    /// What was recorded of services that are gone.
    gone_phases: Phases,
}

/// One service of the newest plan.
#[derive(Debug)]
struct Entry {
    name: Box<str>,
    addresses: Box<[SocketAddr]>,
    /// The names of its backends, where it has a fan-out.
    backends: Box<[Box<str>]>,
    /// By shard: what the newest plan writes.
    current: Box<[Arc<ServiceCounters>]>,
    /// What earlier plans wrote, over other endpoints, and exchanges begun under them may still
    /// write.
    earlier: Vec<Set>,
    /// The numbers of sets that nothing writes any more.
    earlier_final: ServiceTotals,
    /// What was recorded of the service, under all plans that had it.
    phases: Phases,
    /// What was recorded of each endpoint, in the order of `addresses`.
    endpoint_phases: Vec<Phases>,
}

/// What one shard writes of one service, under a plan that is not the newest.
#[derive(Debug)]
struct Set {
    shard: usize,
    counters: Arc<ServiceCounters>,
}

impl Ledger {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            listeners: HashMap::new(),
            services: Vec::new(),
            gone: Vec::new(),
            gone_final: ServiceTotals::default(),
            gone_phases: Phases::of_service(),
        }
    }

    /// By shard.
    pub(super) fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards
    }

    /// The counters for `plan`, by shard: services and endpoints that the last plan had keep
    /// theirs.
    pub(super) fn open(&mut self, plan: &Plan) -> Box<[Arc<PlanCounters>]> {
        let last = std::mem::take(&mut self.services).into_iter();
        let mut last: HashMap<_, _> = last.map(|entry| (entry.name.clone(), entry)).collect();
        for service in &plan.services {
            let entry = match last.remove(&service.name) {
                Some(entry) => entry.carried_over(service),
                None => Entry::new(service, self.shards.len()),
            };
            self.services.push(entry);
        }
        for entry in last.into_values() {
            self.gone.extend(sets(entry.current));
            self.gone.extend(entry.earlier);
            self.gone_final += &entry.earlier_final;
            self.gone_phases.merge(&entry.phases);
        }
        let shards = self.shards.len();
        let fresh = || (0..shards).map(|_| Arc::default()).collect();
        let listeners = plan.listeners.iter();
        let listeners: Vec<_> = listeners
            .map(|it| self.listeners.entry(it.id).or_insert_with(fresh).clone())
            .collect();
        let of_shard = |(shard, own): (usize, &Arc<ShardCounters>)| {
            Arc::new(PlanCounters {
                shard: Arc::clone(own),
                services: self
                    .services
                    .iter()
                    .map(|entry| Arc::clone(&entry.current[shard]))
                    .collect(),
                listeners: listeners
                    .iter()
                    .map(|by_shard| Arc::clone(&by_shard[shard]))
                    .collect(),
            })
        };
        self.shards.iter().enumerate().map(of_shard).collect()
    }

    /// Forgets what was open on `shard`, whose thread has ended, under any plan.
    pub(super) fn zero_gauges(&self, shard: usize) {
        self.shards[shard].zero_gauges();
        for by_shard in self.listeners.values() {
            by_shard[shard].zero_gauges();
        }
        let earlier = self.services.iter().flat_map(|entry| &entry.earlier);
        let of_shard = earlier.chain(&self.gone).filter(|set| set.shard == shard);
        for set in of_shard {
            set.counters.zero_gauges();
        }
        for entry in &self.services {
            entry.current[shard].zero_gauges();
        }
    }

    /// Takes the numbers of the sets that nothing writes any more, and frees them.
    pub(super) fn settle(&mut self) {
        // Those of a plan have other holders.
        let is_held = |counters: &mut Arc<ListenerCounters>| Arc::get_mut(counters).is_none();
        self.listeners
            .retain(|_, by_shard| by_shard.iter_mut().any(is_held));
        settle(&mut self.gone, &mut self.gone_final, &mut self.gone_phases);
        for entry in &mut self.services {
            settle(
                &mut entry.earlier,
                &mut entry.earlier_final,
                &mut entry.phases,
            );
        }
    }

    /// Picks up what the shards have laid down.
    pub(super) fn gather(&mut self) {
        for Set { counters, .. } in &self.gone {
            counters.handed.gather(&mut self.gone_phases);
        }
        for entry in &mut self.services {
            entry.gather();
        }
    }

    /// What the service at `index` of the newest plan counted, on all shards and under every plan
    /// that had it.
    pub(super) fn service(&self, index: usize) -> ServiceTotals {
        let entry = &self.services[index];
        let mut totals = entry.earlier_final.clone();
        for Set { counters, .. } in &entry.earlier {
            totals.add_own(counters);
        }
        for counters in &entry.current {
            totals.add(counters);
        }
        totals
    }

    /// What each shard has open of the listener `id`; `None` where nothing is known of it.
    pub(super) fn listener(&self, id: ListenerId) -> Option<&[Arc<ListenerCounters>]> {
        self.listeners.get(&id).map(|by_shard| &**by_shard)
    }

    /// What was recorded of the service at `index` of the newest plan, and of its endpoints.
    pub(super) fn phases(&self, index: usize) -> (&Phases, &[Phases]) {
        let entry = &self.services[index];
        (&entry.phases, &entry.endpoint_phases)
    }

    /// What was recorded of services that the newest plan does not have.
    pub(super) fn gone_phases(&self) -> &Phases {
        &self.gone_phases
    }

    /// What services counted that the newest plan does not have.
    pub(super) fn gone(&self) -> ServiceTotals {
        let mut totals = self.gone_final.clone();
        for Set { counters, .. } in &self.gone {
            totals.add_own(counters);
        }
        totals
    }
}

impl Entry {
    fn new(service: &Service, shards: usize) -> Self {
        let (addresses, backends) = (addresses_of(service), backends_of(service));
        let fresh = |_| {
            let endpoints = addresses.iter().map(|_| Arc::default()).collect();
            let backends = backends.iter().map(|_| Arc::default()).collect();
            Arc::new(ServiceCounters::over(endpoints, backends))
        };
        Self {
            name: service.name.clone(),
            current: (0..shards).map(fresh).collect(),
            earlier: Vec::new(),
            earlier_final: ServiceTotals::default(),
            phases: Phases::of_service(),
            endpoint_phases: addresses.iter().map(|_| Phases::of_endpoint()).collect(),
            addresses,
            backends,
        }
    }

    fn gather(&mut self) {
        let earlier = self.earlier.iter().map(|set| &set.counters);
        for counters in earlier.chain(&self.current) {
            counters.handed.gather(&mut self.phases);
        }
        // Endpoints that earlier sets have and the current ones have not are gone.
        for counters in &self.current {
            for (endpoint, phases) in counters.endpoints.iter().zip(&mut self.endpoint_phases) {
                endpoint.handed.gather(phases);
            }
        }
    }

    /// The same service in the next plan.
    fn carried_over(mut self, service: &Service) -> Self {
        let (addresses, backends) = (addresses_of(service), backends_of(service));
        if addresses == self.addresses && backends == self.backends {
            return self;
        }
        let last = &self.addresses;
        let next = self.current.iter().map(|counters| {
            let endpoints = counters.endpoints.iter().cloned();
            let endpoints = carried(last, endpoints, &addresses, Arc::default);
            let had = counters.backends.iter().cloned();
            let backends = carried(&self.backends, had, &backends, Arc::default);
            Arc::new(ServiceCounters::over(
                endpoints.collect(),
                backends.collect(),
            ))
        });
        let next = next.collect();
        let phases = std::mem::take(&mut self.endpoint_phases).into_iter();
        let phases = carried(last, phases, &addresses, Phases::of_endpoint);
        self.endpoint_phases = phases.collect();
        self.earlier
            .extend(sets(std::mem::replace(&mut self.current, next)));
        (self.addresses, self.backends) = (addresses, backends);
        self
    }
}

/// One set of each shard, with its shard.
fn sets(counters: Box<[Arc<ServiceCounters>]>) -> impl Iterator<Item = Set> {
    let counters = counters.into_iter().enumerate();
    counters.map(|(shard, counters)| Set { shard, counters })
}

fn addresses_of(service: &Service) -> Box<[SocketAddr]> {
    let endpoints = service.endpoints.iter();
    endpoints.map(|endpoint| endpoint.address).collect()
}

fn backends_of(service: &Service) -> Box<[Box<str>]> {
    let backends = service.backends.iter();
    let backends = backends.filter(|_| service.fanout.is_some());
    backends.map(|backend| backend.name.clone()).collect()
}

/// What endpoints or backends have, for `next`: of a key that stands in `last` what it had there,
/// each taken once, of others what `fresh` makes.
fn carried<K: Eq + Hash, T>(
    last: &[K],
    had: impl Iterator<Item = T>,
    next: &[K],
    fresh: impl Fn() -> T,
) -> impl Iterator<Item = T> {
    let mut left: HashMap<&K, VecDeque<T>> = HashMap::new();
    for (key, had) in last.iter().zip(had) {
        left.entry(key).or_default().push_back(had);
    }
    next.iter().map(move |key| {
        let had = left.get_mut(key).and_then(VecDeque::pop_front);
        had.unwrap_or_else(&fresh)
    })
}

/// Moves those of `open` that have no other holder to `done`.
fn settle(open: &mut Vec<Set>, done: &mut ServiceTotals, phases: &mut Phases) {
    open.retain_mut(|Set { counters, .. }| {
        // `get_mut` and not the count: it acquires what the last other holder wrote before it let
        // go.
        let is_final = Arc::get_mut(counters).is_some();
        if is_final {
            done.add_own(counters);
            counters.handed.gather(phases);
        }
        !is_final
    });
}
