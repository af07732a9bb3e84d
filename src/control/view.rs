//! What runs now, as the admin API shows it at `/plan`: the plan, what control knows beside it,
//! and how far each shard is.
//!
//! No secret is in it: of fields that are set or asked for there are the names and never the
//! values, and of probes the kind. `docs/ADMIN.md` says what each member means. Pure.
//!
//! All of it is owned, or shared with the plan, so that a thread of its own can write it out.

mod json;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compile::{Health, Override, Overrides};
use super::standing::Seen;
use crate::config::{self, Config};
use crate::plan::{Endpoint, Life, Listener, ListenerId, Plan, Protocol, Service};

/// What runs now.
#[derive(Debug)]
pub struct View {
    /// The process.
    pub process: Process,
    /// By shard.
    pub shards: Vec<Shard>,
    /// What became of those that were asked for.
    pub reloads: Reloads,
    /// The newest one, compiled from `config`.
    pub plan: Arc<Plan>,
    /// What the operator wrote.
    pub config: Config,
    /// What an operator has set at run time.
    pub overrides: Overrides,
    /// Where listeners are bound, and how many clients each has now.
    pub bound: BTreeMap<ListenerId, (SocketAddr, u64)>,
    /// By service, in the order of the plan.
    pub known: Vec<Known>,
    /// The time.
    pub now: Instant,
}

/// The process.
#[derive(Clone, Debug)]
pub struct Process {
    /// ringmain's version.
    pub version: &'static str,
    /// Its number.
    pub pid: u32,
    /// When it was started, by the calendar (RFC 3339).
    pub started: String,
    /// How long ago that was.
    pub up: Duration,
    /// Why no clients should be sent here; `None`: they should.
    pub unready: Option<String>,
}

/// A shard.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The plan that it has adopted; 0: none yet.
    pub generation: u64,
    /// False exactly when its thread has ended.
    pub runs: bool,
    /// What it waits for the kernel with; `None` before it has said so.
    pub driver: Option<String>,
    /// Clients that it has now.
    pub connections: u64,
}

/// The reloads of the process.
#[derive(Clone, Debug)]
pub struct Reloads {
    /// How many were run, those that changed nothing included.
    pub done: u64,
    /// How many were refused.
    pub refused: u64,
    /// True exactly when one has begun that is not over.
    pub under_way: bool,
    /// `None` before the first is over.
    pub last: Option<LastReload>,
    /// Why the last of those that were refused was: a line for each error.
    pub refusal: Option<String>,
}

/// What the last reload came to.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When that was, by the calendar (RFC 3339).
    pub at: String,
    /// `None`: it was refused.
    pub done: Option<DoneReload>,
}

/// What a reload that was run has changed.
#[derive(Clone, Copy, Debug)]
pub struct DoneReload {
    /// The number of its plan.
    pub generation: u64,
    /// How much is new.
    pub added: usize,
    /// How much is other than it was.
    pub changed: usize,
    /// How much is gone.
    pub removed: usize,
}

/// What control knows of a service.
#[derive(Clone, Debug)]
pub struct Known {
    /// By endpoint, in the order of the plan; `None` of one that is not followed.
    pub endpoints: Vec<Option<Seen>>,
    /// Its backends that are names, in the order of the file.
    pub names: Vec<Name>,
}

/// What is known of a name.
#[derive(Clone, Debug)]
pub struct Name {
    /// As the operator wrote it.
    pub name: String,
    /// How many addresses it stands for.
    pub addresses: usize,
    /// What of its last good answer is of no use, a sentence each.
    pub remarks: Vec<String>,
    /// For how long, how many times and why it could not be resolved.
    pub failing: Option<(Duration, u64, String)>,
}

/// A service as the operator wrote it and as it runs.
#[derive(Clone, Copy)]
struct Shown<'a> {
    written: &'a config::Service,
    service: &'a Service,
    known: &'a Known,
}

/// A backend, with both words on its state.
struct Stated<'a> {
    name: String,
    written: &'a config::Backend,
    /// What an operator has set at run time.
    set: Option<Override>,
    endpoints: Vec<&'a str>,
}

impl View {
    /// Where the listener is bound.
    fn address(&self, listener: &Listener) -> SocketAddr {
        let bound = self.bound.get(&listener.id);
        bound.map_or(listener.address, |(address, _)| *address)
    }

    /// How many clients the listener has.
    fn clients(&self, listener: &Listener) -> u64 {
        let bound = self.bound.get(&listener.id);
        bound.map_or(0, |(_, clients)| *clients)
    }

    fn accepts(&self, listener: &Listener) -> bool {
        listener.accepting && self.plan.life == Life::Serving
    }

    fn services(&self) -> impl Iterator<Item = Shown<'_>> {
        let services = self.config.services().iter().zip(&self.plan.services);
        let services = services.zip(&self.known);
        services.map(|((written, service), known)| Shown {
            written,
            service,
            known,
        })
    }

    /// The backends of a service, in the order of the file.
    fn stated<'a>(&'a self, shown: Shown<'a>) -> impl Iterator<Item = Stated<'a>> {
        let service = shown.service;
        let backends = shown.written.backends.iter().zip(&service.backends);
        backends.map(move |(backend, planned)| {
            let endpoints = planned.endpoints.iter();
            Stated {
                name: backend.address.to_string(),
                written: backend,
                set: self.overrides.of(&service.name, backend),
                endpoints: endpoints
                    .map(|place| &*service.endpoints[*place as usize].name)
                    .collect(),
            }
        })
    }
}

impl<'a> Shown<'a> {
    /// Each endpoint with the first backend that stands for it, and what is known of it.
    fn endpoints(self) -> impl Iterator<Item = (&'a Endpoint, &'a str, Option<&'a Seen>)> {
        let mut backends = HashMap::new();
        for backend in &self.service.backends {
            for endpoint in &backend.endpoints {
                backends.entry(*endpoint).or_insert(&*backend.name);
            }
        }
        let endpoints = (0..).zip(&self.service.endpoints);
        let endpoints = endpoints.zip(&self.known.endpoints);
        endpoints.map(move |((place, endpoint), seen)| {
            let backend = backends.get(&place).copied().unwrap_or_default();
            (endpoint, backend, seen.as_ref())
        })
    }
}

impl Stated<'_> {
    fn state(&self) -> Override {
        self.set.unwrap_or(self.file())
    }

    fn file(&self) -> Override {
        Override::written(self.written)
    }
}

const fn protocol(listener: &Listener) -> &'static str {
    match listener.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    }
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

const fn probe_kind(probe: &config::Probe) -> &'static str {
    match probe.kind {
        config::ProbeKind::Http => "http",
        config::ProbeKind::Tcp => "tcp",
        config::ProbeKind::Exec => "exec",
    }
}

/// The names of pairs whose values may be secrets.
fn keys(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(name, _)| name.as_str()).collect()
}

/// The services that a route leads to, with their shares.
fn destinations(route: &config::Route) -> Vec<(&str, u32)> {
    if route.service.is_empty() {
        let weights = route.weights.iter();
        weights
            .map(|(name, share)| (name.as_str(), *share))
            .collect()
    } else {
        vec![(&route.service, 1)]
    }
}
