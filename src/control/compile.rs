//! From what the operator wrote to what shards run: `compile(&Config, &Live) -> Plan`.
//!
//! Pure: no I/O, no clock, no chance; the same arguments give the same plan (the plan before it is
//! an argument too, for what need not be made anew). Cannot fail: a
//! [`Config`] breaks no rule, so that every name in it resolves. Limits of the process are split
//! over the shards here, and no shard gets less than 1.

mod listeners;
mod overrides;
mod slots;
mod stands;
mod tiers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

pub use overrides::{Override, Overrides};
pub use stands::{Resolved, Stand, Stands};

use self::listeners::listeners;
use self::slots::Slots;
use self::tiers::tiers;
use super::probe::tries_max;
use super::resolve::{self, Question};
use crate::config::{self, BackendAddress, Config};
use crate::http::head::HeadLimits;
use crate::http::hop::FieldEdits;
use crate::plan::route::{Destination, DomainMatch, PathMatch, Weights};
use crate::plan::{
    Backend, EjectRules, Endpoint, FanoutRules, Life, ListenerId, Plan, PoolLimits, Rate,
    RetryRules, Route, Routes, Service, ServiceIndex, ServiceLimits, ServiceTimeouts, Slot,
    Standing, Ticks, endpoint::RAMP_WHOLE,
};

/// Descriptors that the process keeps for itself: rings, logs, the admin API, files.
const OWN_DESCRIPTORS: u64 = 64;

/// What is known now, beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The plan's number, from 1.
    pub generation: u64,
    /// Whether clients are served, sent away, or cut off.
    pub life: Life,
    /// The name in Via that was drawn at the start; it stands where the configuration has none.
    pub via: String,
    /// How many shards there are, at least 1.
    pub shards: u32,
    /// Descriptors that the process may open (RLIMIT_NOFILE).
    pub nofile: u64,
    /// What is known of endpoints, by the name of their service and their address; of others
    /// nothing is.
    pub endpoints: BTreeMap<String, BTreeMap<SocketAddr, EndpointLive>>,
    /// What the names of backends stand for; those that are not in it, for nothing.
    pub resolved: BTreeMap<BackendAddress, Vec<Resolved>>,
    /// What an operator has set at run time of backends.
    pub overrides: Overrides,
    /// What the listeners of the configuration are bound with, in its order; empty for a plan that
    /// is not run.
    pub bound: Vec<BoundListener>,
    /// Listeners that the configuration has no more, and that still finish.
    pub leaving: Vec<Leaving>,
    /// Shards that do not run now: others accept for them.
    pub dead: BTreeSet<u32>,
    /// Listeners whose queues are another process's: the plan has none of their sockets, and the
    /// shards leave what is queued there to that process.
    pub handed_on: BTreeSet<ListenerId>,
    /// True exactly while nobody is accepted, because the process whose place this one takes
    /// still serves, and this one is not ready.
    pub held: bool,
}

/// What a listener is bound with.
#[derive(Clone, Debug)]
pub struct BoundListener {
    /// Its number.
    pub id: ListenerId,
    /// The address that it has, with the port that the kernel chose.
    pub address: SocketAddr,
    /// At least one.
    pub sockets: Vec<Weak<OwnedFd>>,
}

impl PartialEq for BoundListener {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for BoundListener {}

/// A listener that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// As the operator wrote it last.
    pub written: config::Listener,
    /// What it is bound with.
    pub bound: BoundListener,
}

impl Live {
    /// What is known at the start of so many shards, which may open `nofile` descriptors.
    pub const fn new(shards: u32, nofile: u64) -> Self {
        Self {
            generation: 1,
            life: Life::Serving,
            via: String::new(),
            shards,
            nofile,
            endpoints: BTreeMap::new(),
            resolved: BTreeMap::new(),
            overrides: Overrides::new(),
            bound: Vec::new(),
            leaving: Vec::new(),
            dead: BTreeSet::new(),
            handed_on: BTreeSet::new(),
            held: false,
        }
    }
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLive {
    /// What probes have said.
    pub health: Health,
    /// True exactly when a probe was ever good.
    pub proven: bool,
    /// True exactly when most shards have ejected it.
    pub ejected: bool,
    /// Sixteenths of its weight that it has grown to since it was new or had recovered, `1..=16`.
    pub ramp: u32,
    /// How many times it was healthy again.
    pub recoveries: u32,
}

/// What probes have said of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Unknown,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// Retries a second that a process always allows: `[service.retry] budget`.
const RETRIES_MIN: u32 = 10;

impl Default for EndpointLive {
    fn default() -> Self {
        Self {
            health: Health::Unknown,
            proven: false,
            ejected: false,
            ramp: RAMP_WHOLE,
            recoveries: 0,
        }
    }
}

/// The plan for `config` now. Services, listeners and routes that are as in the plan `last` are
/// shared with it.
pub fn compile(config: &Config, live: &Live, last: Option<&Plan>) -> Plan {
    let mut slots = Slots::after(last);
    let response_head = response_head(config);
    let had = last.iter().flat_map(|last| &last.services);
    let had: HashMap<&str, _> = had.map(|service| (&*service.name, service)).collect();
    let mut compiled = |written: &config::Service| {
        let service = service(written, live, response_head, &mut slots);
        match had.get(written.name.as_str()) {
            Some(had) if ***had == service => Arc::clone(had),
            _ => {
                for tier in &service.tiers {
                    tier.picker(service.policy);
                }
                Arc::new(service)
            }
        }
    };
    let services: Box<[Arc<Service>]> = config.services().iter().map(&mut compiled).collect();
    let indices = indices(config);
    let listeners = listeners(config, live, &indices).map(|listener| {
        let mut had = last.iter().flat_map(|last| &last.listeners);
        let had = had.find(|had| ***had == listener);
        had.map_or_else(|| Arc::new(listener), Arc::clone)
    });
    let (routes, domains) = routing(config);
    let routes = Routes::new(routes, domains);
    let had = last.map(|last| &last.routes).filter(|had| ***had == routes);
    let routes = had.map_or_else(|| Arc::new(routes), Arc::clone);
    Plan {
        generation: live.generation,
        life: live.life,
        via: via(config, live).into(),
        shard_connections_max: share(connections_max(config, live), live.shards),
        listeners: listeners.collect(),
        services,
        routes,
        slots: slots.finish(),
    }
}

/// The routing table's parts: routes in the order of the file, then the services' domains.
pub(super) fn routing(config: &Config) -> (Vec<Route>, Vec<(String, ServiceIndex)>) {
    let indices = indices(config);
    let routes = config.routes().iter().map(|written| Route {
        domain: domain_match(&written.domain),
        path: path_match(&written.path),
        methods: written
            .methods
            .iter()
            .map(|method| method.as_str().into())
            .collect(),
        fields: texts(&written.fields),
        query: texts(&written.query),
        destination: match indices.get(written.service.as_str()) {
            Some(service) => Destination::Service(*service),
            None => {
                let weights = written.weights.iter();
                let weights = weights.map(|(name, weight)| (indices[name.as_str()], *weight));
                Destination::Weighted(Weights::new(weights))
            }
        },
    });
    let domains = config.services().iter().flat_map(|service| {
        let index = indices[service.name.as_str()];
        service
            .domains
            .iter()
            .map(move |domain| (domain.clone(), index))
    });
    (routes.collect(), domains.collect())
}

fn texts(pairs: &[(String, String)]) -> Box<[(Box<str>, Box<str>)]> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

/// A service's name to its place.
fn indices(config: &Config) -> HashMap<&str, ServiceIndex> {
    let names = config
        .services()
        .iter()
        .map(|service| service.name.as_str());
    (0..)
        .map(ServiceIndex)
        .zip(names)
        .map(|(index, name)| (name, index))
        .collect()
}

fn via<'a>(config: &'a Config, live: &'a Live) -> &'a str {
    let written = config.runtime().via.as_str();
    if written.is_empty() {
        &live.via
    } else {
        written
    }
}

/// Clients of the whole process.
fn connections_max(config: &Config, live: &Live) -> u32 {
    match config.runtime().connections_max {
        // Each client may need an upstream connection.
        0 => {
            let probes = probed(config, live).min(tries_max(live.nofile));
            let lookups = resolve::descriptors_max(&Question::all(config));
            let own = OWN_DESCRIPTORS + probes + lookups;
            let most = live.nofile.saturating_sub(own) / 2;
            u32::try_from(most).unwrap_or(u32::MAX)
        }
        written => written,
    }
}

/// How many endpoints are probed; each try holds a descriptor.
fn probed(config: &Config, live: &Live) -> u64 {
    let services = config.services().iter();
    let probed = services.filter(|service| service.probe.is_some());
    probed
        .map(|service| Stands::of(service, live).endpoints.len() as u64)
        .sum()
}

/// A shard's part of a limit of the process: their sum is not above it, unless that would leave a
/// shard none.
fn share(limit: u32, shards: u32) -> u32 {
    NonZeroU32::new(limit).map_or(1, |limit| share_of(limit, shards).get())
}

fn share_of(limit: NonZeroU32, shards: u32) -> NonZeroU32 {
    NonZeroU32::new(limit.get() / shards.max(1)).unwrap_or(NonZeroU32::MIN)
}

/// A response head has the same limits as a request's; where listeners differ, the widest.
fn response_head(config: &Config) -> HeadLimits {
    let limits = config.listeners().iter().map(|listener| listener.limits);
    let bytes_max = limits.clone().map(|limits| limits.head_bytes_max).max();
    let fields_max = limits.map(|limits| limits.fields_max).max();
    HeadLimits {
        bytes_max: bytes(bytes_max.expect("a configuration has a listener")),
        fields_max: fields_max.expect("a configuration has a listener") as usize,
    }
}

fn service(
    written: &config::Service,
    live: &Live,
    response_head: HeadLimits,
    slots: &mut Slots<'_>,
) -> Service {
    let known = live.endpoints.get(&written.name);
    let endpoint = |stand: &Stand| {
        let known = known.and_then(|known| known.get(&stand.address));
        let slot = slots.of(&written.name, stand.address);
        endpoint(written, stand, known.copied().unwrap_or_default(), slot)
    };
    let stands = Stands::of(written, live);
    let endpoints: Box<[Endpoint]> = stands.endpoints.iter().map(endpoint).collect();
    let backends = written.backends.iter().zip(stands.backends);
    let backends = backends.map(|(backend, endpoints)| Backend {
        name: backend.address.to_string().into(),
        endpoints: endpoints.into(),
        drain: live.overrides.state(&written.name, backend) != Override::Ready,
    });
    let (tiers, fails_open) = tiers(&endpoints, written.fail_open);
    let fields = &written.fields;
    Service {
        name: written.name.as_str().into(),
        policy: written.policy,
        hash_key: written.hash_key.clone(),
        endpoints,
        backends: backends.collect(),
        tiers,
        fails_open,
        timeouts: timeouts(written.timeouts),
        pool: pool(written, live.shards),
        retry: retry(&written.retry, live.shards),
        eject: eject(written.eject),
        limits: limits(written.limits, live.shards),
        fanout: written.fanout.map(fanout),
        send_proxy_protocol: written.send_proxy_protocol,
        response_head,
        request_edits: edits(&fields.request_set, &fields.request_remove),
        response_edits: edits(&fields.response_set, &fields.response_remove),
        backend_field: non_empty(&written.backend_field),
    }
}

fn endpoint(service: &config::Service, stand: &Stand, known: EndpointLive, slot: Slot) -> Endpoint {
    let Stand {
        address,
        weight,
        backup,
        drain,
        down,
    } = *stand;
    let awaited = service
        .probe
        .as_ref()
        .is_some_and(config::Probe::is_awaited);
    Endpoint {
        address,
        name: address.to_string().into(),
        weight,
        ramp: known.ramp,
        slot,
        backup,
        standing: match known.health {
            _ if down => Standing::Down,
            _ if drain => Standing::Draining,
            // Also where its probes fail: nothing says that it could answer, if all are used.
            _ if awaited && !known.proven => Standing::Unproven,
            Health::Unhealthy => Standing::Unhealthy,
            _ if known.ejected => Standing::Ejected,
            Health::Unknown => Standing::Unknown,
            Health::Healthy => Standing::Healthy,
        },
        recoveries: known.recoveries,
    }
}

fn timeouts(written: config::ServiceTimeouts) -> ServiceTimeouts {
    let config::ServiceTimeouts {
        connect,
        response,
        send_idle,
        receive_idle,
        until_continued,
        tunnel_idle,
        total,
    } = written;
    ServiceTimeouts {
        connect,
        response: Ticks::from_duration(response),
        send_idle: Ticks::from_duration(send_idle),
        receive_idle: Ticks::from_duration(receive_idle),
        until_continued: Ticks::from_duration(until_continued),
        tunnel_idle: Ticks::from_duration(tunnel_idle),
        total: Ticks::from_duration(total),
    }
}

fn pool(service: &config::Service, shards: u32) -> PoolLimits {
    let written = service.pool;
    let connections_max = NonZeroU32::new(written.connections_max);
    PoolLimits {
        idle_max: match service.send_proxy_protocol {
            None => written.idle_max as usize,
            // A connection that has said whose it is serves nobody else.
            Some(_) => 0,
        },
        idle_min: written.idle_min as usize,
        idle: Ticks::from_duration(written.idle),
        shard_connections_max: connections_max.map(|limit| share_of(limit, shards)),
        queue: Ticks::from_duration(written.queue),
    }
}

fn retry(written: &config::Retry, shards: u32) -> RetryRules {
    let statuses = written.statuses.iter();
    let mut statuses: Vec<u16> = statuses.map(|status| *status as u16).collect();
    statuses.sort_unstable();
    statuses.dedup();
    RetryRules {
        attempts_max: written.attempts_max as u8,
        statuses: statuses.into(),
        attempt: Ticks::from_duration(written.attempt),
        backoff: written.backoff,
        budget: written.budget,
        shard_retries_min: share(RETRIES_MIN, shards),
        replayed_bytes_max: bytes(written.body_bytes_max),
    }
}

fn eject(written: config::Eject) -> EjectRules {
    EjectRules {
        consecutive_faults: written.consecutive_faults,
        duration: Ticks::from_duration(written.duration),
        ratio_max: written.ratio_max,
        latency_factor: written.latency_factor,
    }
}

fn limits(written: config::Limits, shards: u32) -> ServiceLimits {
    let split = |limit| NonZeroU32::new(limit).map(|limit| share_of(limit, shards));
    // One second's worth may be asked for at once.
    let of_second = |rate| Rate::new(rate, rate);
    let client_burst = NonZeroU32::new(written.client_burst);
    ServiceLimits {
        client_rate: NonZeroU32::new(written.client_rate)
            .map(|rate| client_burst.map_or(of_second(rate), |burst| Rate::new(rate, burst))),
        client_concurrent: NonZeroU32::new(written.client_concurrent),
        shard_rate: split(written.rate).map(of_second),
        shard_concurrent: split(written.concurrent),
    }
}

fn fanout(written: config::Fanout) -> FanoutRules {
    FanoutRules {
        require: written.require,
        status: written.status as u16,
        attempts_max: written.attempts_max,
        backoff_max: written.backoff_max,
        jitter: written.jitter,
        body_bytes_max: bytes(written.body_bytes_max),
        shard_legs_max: written.legs_max,
        shard_kept_bytes_max: bytes(written.kept_bytes_max),
        detached: written.detached,
    }
}

fn edits(set: &[(String, String)], remove: &[String]) -> FieldEdits {
    FieldEdits {
        set: set
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
        remove: remove.iter().map(|name| name.as_str().into()).collect(),
    }
}

fn domain_match(domain: &str) -> DomainMatch {
    match domain.strip_prefix('*') {
        Some(suffix) => DomainMatch::Suffix(suffix.into()),
        None if domain.is_empty() => DomainMatch::Any,
        None => DomainMatch::Exact(domain.into()),
    }
}

fn path_match(path: &str) -> PathMatch {
    match path
        .strip_suffix('*')
        .filter(|prefix| prefix.ends_with('/'))
    {
        Some(prefix) => PathMatch::Prefix(prefix.into()),
        None if path.is_empty() => PathMatch::Any,
        None => PathMatch::Exact(path.into()),
    }
}

fn non_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// A size in memory: the configuration's bounds are far below what an address holds.
fn bytes(size: u64) -> usize {
    usize::try_from(size).expect("addresses have 64 bits")
}

#[cfg(test)]
mod tests;
