//! What runs now, as the admin API shows it at `/plan`: the plan, what control knows beside it,
//! and how far each shard is.
//!
//! No secret is in it: of fields that are set or asked for there are the names and never the
//! values, and of probes the kind. `docs/ADMIN.md` says what each member means. Pure.

mod json;
mod text;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::compile::{BoundListener, Health, Live, Override};
use super::resolve::Names;
use super::standing::{Place, Seen, Standings};
use crate::config::{self, Config};
use crate::plan::{Listener, Plan, Protocol, Service};

/// What runs now.
#[derive(Debug)]
pub struct View<'a> {
    /// The process.
    pub process: Process,
    /// By shard.
    pub shards: Vec<Shard<'a>>,
    /// The newest one, compiled from `config` and `live`.
    pub plan: &'a Plan,
    /// What the operator wrote.
    pub config: &'a Config,
    /// What `compile` knows.
    pub live: &'a Live,
    /// What is known of endpoints.
    pub standings: &'a Standings,
    /// What is known of names.
    pub names: &'a Names,
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
pub struct Shard<'a> {
    /// The plan that it has adopted; 0: none yet.
    pub generation: u64,
    /// False exactly when its thread has ended.
    pub runs: bool,
    /// What it waits for the kernel with; `None` before it has said so.
    pub driver: Option<&'a str>,
    /// Clients that it has now.
    pub connections: u64,
}

/// A service's endpoint, with what is known of it.
struct Known<'a> {
    place: Place,
    /// The first backend that stands for it.
    backend: &'a str,
    seen: Option<Seen<'a>>,
}

/// A backend, with both words on its state.
struct Stated<'a> {
    name: String,
    written: &'a config::Backend,
    /// What an operator has set at run time.
    set: Option<Override>,
    endpoints: Vec<SocketAddr>,
}

impl<'a> View<'a> {
    /// What the listener is bound with; `None` in a plan that is not run.
    fn bound(&self, listener: &Listener) -> Option<&'a BoundListener> {
        let leaving = self.live.leaving.iter().map(|leaving| &leaving.bound);
        let mut all = self.live.bound.iter().chain(leaving);
        all.find(|bound| bound.id == listener.id)
    }

    /// Services as the operator wrote them, and as they run.
    fn services(&self) -> impl Iterator<Item = (usize, &'a config::Service, &'a Service)> {
        let services = self.config.services().iter().zip(&self.plan.services);
        let services = services.enumerate();
        services.map(|(place, (written, service))| (place, written, &**service))
    }

    /// What is known of each endpoint of the service at `service`, in the order of the plan.
    fn known(&self, place: usize, service: &'a Service) -> impl Iterator<Item = Known<'a>> {
        let mut backends = HashMap::new();
        for backend in &service.backends {
            for endpoint in &backend.endpoints {
                backends.entry(*endpoint).or_insert(&*backend.name);
            }
        }
        let standings = self.standings;
        (0..)
            .zip(&service.endpoints)
            .map(move |(number, endpoint)| {
                let place = Place {
                    service: place,
                    address: endpoint.address,
                };
                Known {
                    place,
                    backend: backends.get(&number).copied().unwrap_or_default(),
                    seen: standings.seen(place),
                }
            })
    }

    /// The backends of a service, in the order of the file.
    fn stated(
        &self,
        written: &'a config::Service,
        service: &'a Service,
    ) -> impl Iterator<Item = Stated<'a>> {
        let overrides = &self.live.overrides;
        let backends = written.backends.iter().zip(&service.backends);
        backends.map(move |(backend, planned)| Stated {
            name: backend.address.to_string(),
            written: backend,
            set: overrides.of(&written.name, backend),
            endpoints: planned
                .endpoints
                .iter()
                .map(|place| service.endpoints[*place as usize].address)
                .collect(),
        })
    }
}

impl Stated<'_> {
    fn state(&self) -> Override {
        self.set.unwrap_or(Override::written(self.written))
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
