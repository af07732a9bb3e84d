//! What control knows of each endpoint, and what of that goes into the plan.
//!
//! Three things come together: what probes say, what shards eject and readmit by the exchanges that
//! they see, and how long ago an endpoint came back. Pure: no clock, no I/O; `now` is an argument.
//!
//! 1. An endpoint that more than half of the living shards have ejected is out for all of them,
//!    but never more of a service's endpoints than `ratio_max` allows.
//! 2. After it was out for all, whichever way, the weight of an endpoint grows in sixteenths over
//!    `slow_start`. Where a few shards alone had ejected it, the others have kept it warm.
//! 3. `is_due` is true exactly when a new plan would differ from the last that [`Standings::live`]
//!    was asked for; at once where exchanges would go elsewhere, else within a second.

mod change;
mod seen;
mod slots;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use change::{Change, News};
pub use seen::Seen;
pub use slots::SlotPlaces;

use super::compile::{EndpointLive, Health, Live, Stand, Stands};
use super::probe::Verdict;
use crate::config::{self, Config};
use crate::plan::endpoint::RAMP_WHOLE;
use crate::tally::EjectReason;

/// How long a plan may wait whose exchanges would go where they go now: at the start thousands of
/// endpoints give their first answers, and each plan of thousands of services is some work.
const UNHURRIED: Duration = Duration::from_secs(1);

/// Which endpoint: the same one over all configurations that have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its service's name.
    pub service: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
}

/// What is known of all endpoints.
#[derive(Debug)]
pub struct Standings {
    shards: usize,
    /// Shards that do not run now.
    dead: BTreeSet<usize>,
    /// By name.
    services: BTreeMap<Arc<str>, ServiceStanding>,
    /// True exactly when something has changed since the last `live`, ramps apart.
    changed: bool,
    /// When the next ramp is a step further than in the last `live`.
    next_step: Option<Instant>,
    /// When what changes no exchange since the last `live` is to be in a plan.
    unhurried: Option<Instant>,
}

#[derive(Debug)]
struct ServiceStanding {
    name: String,
    slow_start: Duration,
    /// How many endpoints may be ejected for all.
    ejected_max: usize,
    /// In the order of the plan.
    endpoints: Vec<EndpointStanding>,
    /// Their places by their addresses.
    places: HashMap<SocketAddr, usize>,
    /// `eject.ratio_max`.
    ratio_max: f64,
    /// They get nothing before their first good probes.
    awaited: bool,
    /// Whether an endpoint was in, or might be, by its health, when that was looked at last.
    has_healthy: bool,
}

#[derive(Debug)]
struct EndpointStanding {
    address: SocketAddr,
    /// It gets no exchanges: the operator wants it so.
    drain: bool,
    /// The same, and it is not probed.
    down: bool,
    /// It gets none before its first good probe.
    awaited: bool,
    health: Health,
    /// What the last probe came to; empty where it was good, or none was.
    reason: String,
    /// True exactly when it was ever healthy, was in when its service began to await that, or is
    /// trusted to be.
    proven: bool,
    /// When `health` was first so.
    since: Instant,
    /// The shards that have ejected it.
    ejected_by: BTreeSet<usize>,
    /// Ejected for all.
    ejected: bool,
    /// When its weight began to grow; `None` where it is whole.
    ramp_from: Option<Instant>,
    recoveries: u32,
}

impl Standings {
    /// Of the endpoints that the backends of `config` stand for, which nobody has asked yet; their
    /// weights are whole.
    pub fn new(config: &Config, live: &Live, shards: usize, now: Instant) -> Self {
        let services = config.services().iter();
        let service = |written: &config::Service| {
            let mut service = ServiceStanding::new(written);
            service.follow(&Stands::of(written, live), now);
            service.look();
            (Arc::from(written.name.as_str()), service)
        };
        Self {
            shards,
            dead: BTreeSet::new(),
            services: services.map(service).collect(),
            changed: false,
            next_step: None,
            unhurried: None,
        }
    }

    /// The services are those of `config` from now on. What is known of those that stay, and of
    /// their endpoints, stays; the weights of services that are new are whole.
    pub fn adopt(&mut self, config: &Config, live: &Live, now: Instant) -> Vec<Change> {
        let mut had = std::mem::take(&mut self.services);
        let mut changes = Vec::new();
        for written in config.services() {
            let known = had.remove_entry(written.name.as_str());
            let is_new = known.is_none();
            let (name, mut service) = known.unwrap_or_else(|| {
                let name = Arc::from(written.name.as_str());
                (name, ServiceStanding::new(written))
            });
            service.take_rules(written, now);
            service.follow(&Stands::of(written, live), now);
            // Of a service that nobody knew yet it is no news how it begins.
            changes.extend(service.look().filter(|_| !is_new));
            self.services.insert(name, service);
        }
        self.changed = true;
        changes.extend(self.settle_all(now));
        changes
    }

    /// Takes all endpoints for good until their first verdicts, also where those are awaited: the
    /// process whose place this one takes has used them until now.
    pub fn trust(&mut self) {
        for service in self.services.values_mut() {
            for endpoint in &mut service.endpoints {
                endpoint.awaited = false;
                endpoint.proven = true;
            }
            service.has_healthy |= !service.endpoints.is_empty();
        }
        self.changed = true;
    }

    /// True exactly when there is a verdict on each endpoint of `service` that is probed.
    pub fn is_judged(&self, service: &str) -> bool {
        let service = self.services.get(service);
        let endpoints = service.into_iter().flat_map(|service| &service.endpoints);
        let mut probed = endpoints.filter(|endpoint| !endpoint.down);
        probed.all(|endpoint| endpoint.health != Health::Unknown)
    }

    /// `service` has the endpoints of `stands` from now on. What is known of those that stay stays;
    /// the weights of new ones grow, unless all are new.
    pub fn follow(&mut self, service: &str, stands: &Stands, now: Instant) -> Vec<Change> {
        let Some(followed) = self.services.get_mut(service) else {
            return Vec::new();
        };
        followed.follow(stands, now);
        self.changed = true;
        let mut changes = Vec::from_iter(followed.look());
        changes.extend(self.settle(service, now));
        changes
    }

    /// What probes have said of an endpoint.
    pub fn health(&self, service: &str, address: SocketAddr) -> Health {
        let known = self.services.get(service);
        let known = known.and_then(|known| Some(&known.endpoints[known.place_of(address)?]));
        known.map_or(Health::Unknown, |endpoint| endpoint.health)
    }

    /// A probe has come to a verdict. One of an endpoint that is gone says nothing.
    pub fn judge(&mut self, verdict: Verdict, now: Instant) -> Vec<Change> {
        let Verdict {
            place,
            health,
            reason,
        } = verdict;
        let Some((service, at)) = find(&mut self.services, &place) else {
            return Vec::new();
        };
        let ramp_from = service.ramp_from(now);
        let endpoint = &mut service.endpoints[at];
        if endpoint.down {
            // Of a probe that was under way as it was set so.
            return Vec::new();
        }
        let was_in = endpoint.may_be_used();
        let was = std::mem::replace(&mut endpoint.health, health);
        endpoint.reason.clone_from(&reason);
        endpoint.proven |= health == Health::Healthy;
        let lasted = now - endpoint.since;
        if was == health {
            // Good again before it was bad: news for shards that have ejected it, and for nobody
            // else.
            let ejected = !endpoint.ejected_by.is_empty();
            endpoint.recoveries += u32::from(ejected);
            self.changed |= ejected;
            return Vec::new();
        }
        endpoint.since = now;
        let news = match health {
            Health::Healthy if was == Health::Unhealthy => {
                endpoint.recoveries += 1;
                endpoint.ramp_from = ramp_from;
                News::Healthy {
                    after: Some(lasted),
                }
            }
            Health::Healthy if !was_in => News::Healthy { after: None },
            Health::Healthy | Health::Unknown => {
                self.unhurried.get_or_insert(now + UNHURRIED);
                return vec![service.change(at, News::FirstAnswer)];
            }
            Health::Unhealthy => {
                endpoint.ramp_from = None;
                News::Unhealthy { reason }
            }
        };
        self.changed = true;
        let mut changes = vec![service.change(at, news)];
        changes.extend(service.look());
        changes
    }

    /// `shard` has ejected an endpoint.
    pub fn eject(
        &mut self,
        place: &Place,
        shard: usize,
        reason: EjectReason,
        now: Instant,
    ) -> Vec<Change> {
        let Some((service, at)) = find(&mut self.services, place) else {
            return Vec::new();
        };
        let by = &mut service.endpoints[at].ejected_by;
        let first = by.is_empty();
        by.insert(shard);
        let news = first.then_some(News::Ejected { shard, reason });
        let mut changes = Vec::from_iter(news.map(|news| service.change(at, news)));
        changes.extend(self.settle(&place.service, now));
        changes
    }

    /// `shard` uses an endpoint again that it had ejected.
    pub fn readmit(&mut self, place: &Place, shard: usize, now: Instant) -> Vec<Change> {
        let Some((service, at)) = find(&mut self.services, place) else {
            return Vec::new();
        };
        let mut changes = Vec::from_iter(service.let_in(at, shard));
        changes.extend(self.settle(&place.service, now));
        changes
    }

    /// Whether `shard` has ejected an endpoint now, where a notice of it may have been dropped. An
    /// ejection has no line then: its reason is not known.
    pub fn catch_up(
        &mut self,
        place: &Place,
        shard: usize,
        is_out: bool,
        now: Instant,
    ) -> Vec<Change> {
        let Some((service, at)) = find(&mut self.services, place) else {
            return Vec::new();
        };
        let by = &mut service.endpoints[at].ejected_by;
        match (by.contains(&shard), is_out) {
            (true, false) => self.readmit(place, shard, now),
            (false, true) => {
                by.insert(shard);
                self.settle(&place.service, now)
            }
            _ => Vec::new(),
        }
    }

    /// `shard` has died, and what it had ejected is forgotten with it.
    pub fn shard_died(&mut self, shard: usize, now: Instant) -> Vec<Change> {
        self.dead.insert(shard);
        let mut changes = Vec::new();
        for service in self.services.values_mut() {
            for endpoint in 0..service.endpoints.len() {
                changes.extend(service.let_in(endpoint, shard));
            }
        }
        changes.extend(self.settle_all(now));
        changes
    }

    /// `shard` runs again.
    pub fn shard_lives(&mut self, shard: usize, now: Instant) -> Vec<Change> {
        self.dead.remove(&shard);
        self.settle_all(now)
    }

    /// True exactly when a plan of now would differ from that of the last [`Standings::live`].
    pub fn is_due(&self, now: Instant) -> bool {
        let times = [self.next_step, self.unhurried];
        self.changed || times.into_iter().flatten().any(|time| time <= now)
    }

    /// What `compile` is to know now, by service and address.
    pub fn live(&mut self, now: Instant) -> BTreeMap<String, BTreeMap<SocketAddr, EndpointLive>> {
        self.changed = false;
        self.next_step = None;
        self.unhurried = None;
        let mut services = BTreeMap::new();
        for (name, service) in &mut self.services {
            let mut known = BTreeMap::new();
            for endpoint in &mut service.endpoints {
                let (ramp, next) = endpoint.ramp(service.slow_start, now);
                self.next_step = [self.next_step, next].into_iter().flatten().min();
                let live = EndpointLive {
                    health: endpoint.health,
                    proven: endpoint.proven,
                    ejected: endpoint.ejected,
                    ramp,
                    recoveries: endpoint.recoveries,
                };
                // Of what is not in the map nothing is known.
                if live != EndpointLive::default() {
                    known.insert(endpoint.address, live);
                }
            }
            if !known.is_empty() {
                services.insert(name.to_string(), known);
            }
        }
        services
    }

    fn settle_all(&mut self, now: Instant) -> Vec<Change> {
        let living = self.shards - self.dead.len();
        let services = self.services.values_mut();
        let changes = services.flat_map(|service| service.settle(living, now));
        let changes: Vec<Change> = changes.collect();
        self.changed |= !changes.is_empty();
        changes
    }

    fn settle(&mut self, service: &str, now: Instant) -> Vec<Change> {
        let living = self.shards - self.dead.len();
        let service = self.services.get_mut(service);
        let changes = service.map_or_else(Vec::new, |service| service.settle(living, now));
        self.changed |= !changes.is_empty();
        changes
    }
}

/// The endpoint at `place`, as its service and its place there; `None` where it is gone.
fn find<'a>(
    services: &'a mut BTreeMap<Arc<str>, ServiceStanding>,
    place: &Place,
) -> Option<(&'a mut ServiceStanding, usize)> {
    let service = services.get_mut(&place.service)?;
    let at = service.place_of(place.address)?;
    Some((service, at))
}

impl ServiceStanding {
    /// Without endpoints.
    fn new(written: &config::Service) -> Self {
        let probe = written.probe.as_ref();
        Self {
            name: written.name.clone(),
            slow_start: written.slow_start,
            ejected_max: 0,
            endpoints: Vec::new(),
            places: HashMap::new(),
            ratio_max: written.eject.ratio_max,
            awaited: probe.is_some_and(config::Probe::is_awaited),
            has_healthy: false,
        }
    }

    /// The rules are those of `written` from now on, also for what is there.
    fn take_rules(&mut self, written: &config::Service, now: Instant) {
        let probe = written.probe.as_ref();
        self.slow_start = written.slow_start;
        self.ratio_max = written.eject.ratio_max;
        self.awaited = probe.is_some_and(config::Probe::is_awaited);
        for endpoint in &mut self.endpoints {
            // Nobody awaited it while it got exchanges, and it is not to lose them for that.
            endpoint.proven |= self.awaited && !endpoint.awaited;
            endpoint.awaited &= self.awaited;
            // What nobody probes any more nobody would find healthy again.
            if probe.is_none() && endpoint.health != Health::Unknown {
                endpoint.health = Health::Unknown;
                endpoint.since = now;
            }
        }
    }

    fn follow(&mut self, stands: &Stands, now: Instant) {
        let ramp_from = self.ramp_from(now);
        let grows_from = ramp_from.filter(|_| !self.endpoints.is_empty());
        let had = std::mem::take(&mut self.endpoints).into_iter();
        let mut had: HashMap<_, _> = had.map(|endpoint| (endpoint.address, endpoint)).collect();
        let endpoint = |stand: &Stand| {
            let fresh = || EndpointStanding {
                address: stand.address,
                drain: stand.drain,
                down: stand.down,
                awaited: self.awaited,
                health: Health::Unknown,
                reason: String::new(),
                proven: false,
                since: now,
                ejected_by: BTreeSet::new(),
                ejected: false,
                ramp_from: grows_from,
                recoveries: 0,
            };
            let mut endpoint = had.remove(&stand.address).unwrap_or_else(fresh);
            if endpoint.down && !stand.down {
                endpoint.come_back(ramp_from, now);
            }
            endpoint.drain = stand.drain;
            endpoint.down = stand.down;
            endpoint
        };
        self.endpoints = stands.endpoints.iter().map(endpoint).collect();
        let addresses = self.endpoints.iter().map(|endpoint| endpoint.address);
        self.places = addresses.zip(0..).collect();
        // A share like 0.29 of 100 may come out a little under the whole number.
        self.ejected_max = (self.ratio_max * self.endpoints.len() as f64 + 1e-9) as usize;
    }

    /// Brings who is ejected for all in step with who is ejected by whom, where `living` shards
    /// run.
    fn settle(&mut self, living: usize, now: Instant) -> Vec<Change> {
        let ramp_from = self.ramp_from(now);
        let agreed = |endpoint: &EndpointStanding| living < 2 * endpoint.ejected_by.len();
        let mut changes = Vec::new();
        let mut out = 0;
        for place in 0..self.endpoints.len() {
            let endpoint = &mut self.endpoints[place];
            // Others may have gone, and these be too large a share of those that are left.
            if endpoint.ejected && agreed(endpoint) && out < self.ejected_max {
                out += 1;
            } else if endpoint.ejected {
                endpoint.ejected = false;
                if endpoint.health != Health::Unhealthy {
                    endpoint.ramp_from = ramp_from;
                }
                changes.push(self.change(place, News::InForAll));
            }
        }
        for place in 0..self.endpoints.len() {
            let endpoint = &mut self.endpoints[place];
            if !endpoint.ejected && agreed(endpoint) && out < self.ejected_max {
                endpoint.ejected = true;
                endpoint.ramp_from = None;
                out += 1;
                changes.push(self.change(place, News::OutForAll));
            }
        }
        changes
    }

    /// Where the endpoint at `address` stands; `None` where it is gone.
    fn place_of(&self, address: SocketAddr) -> Option<usize> {
        self.places.get(&address).copied()
    }

    /// Whether an endpoint may be used by its health, or its first verdict is still awaited; `Some`
    /// where that has changed.
    fn look(&mut self) -> Option<Change> {
        let awaited =
            |endpoint: &EndpointStanding| !endpoint.drain && endpoint.health == Health::Unknown;
        let mut endpoints = self.endpoints.iter();
        let has = endpoints.any(|endpoint| endpoint.may_be_used() || awaited(endpoint));
        if std::mem::replace(&mut self.has_healthy, has) == has {
            return None;
        }
        Some(Change {
            service: self.name.clone(),
            endpoint: None,
            news: if has {
                News::SomeHealthy
            } else {
                News::NoneHealthy
            },
        })
    }

    /// `shard` has not ejected `endpoint` any more; `Some` where it was the last one.
    fn let_in(&mut self, endpoint: usize, shard: usize) -> Option<Change> {
        let by = &mut self.endpoints[endpoint].ejected_by;
        let last = by.remove(&shard) && by.is_empty();
        last.then(|| self.change(endpoint, News::Readmitted))
    }

    fn change(&self, endpoint: usize, news: News) -> Change {
        Change {
            service: self.name.clone(),
            endpoint: Some(self.endpoints[endpoint].address),
            news,
        }
    }

    fn ramp_from(&self, now: Instant) -> Option<Instant> {
        (!self.slow_start.is_zero()).then_some(now)
    }
}

impl EndpointStanding {
    /// Whether it may get exchanges, by its health alone.
    fn may_be_used(&self) -> bool {
        !self.drain
            && match self.health {
                Health::Unknown => !self.awaited,
                Health::Healthy => true,
                Health::Unhealthy => false,
            }
    }

    /// It was away, and nothing of what was known of it holds any more. Shards that had ejected it
    /// readmit it.
    fn come_back(&mut self, ramp_from: Option<Instant>, now: Instant) {
        self.health = Health::Unknown;
        self.reason.clear();
        self.proven = false;
        self.since = now;
        self.ramp_from = ramp_from;
        self.recoveries += 1;
    }

    /// How far its weight has grown, and when it will be a step further.
    fn ramp(&mut self, slow_start: Duration, now: Instant) -> (u32, Option<Instant>) {
        let Some(from) = self.ramp_from else {
            return (RAMP_WHOLE, None);
        };
        let step = slow_start / RAMP_WHOLE;
        let reached = (1..RAMP_WHOLE)
            .rev()
            .find(|steps| from + step * *steps <= now);
        let reached = reached.unwrap_or(0) + 1;
        if reached == RAMP_WHOLE {
            self.ramp_from = None;
            return (RAMP_WHOLE, None);
        }
        (reached, Some(from + step * reached))
    }
}

#[cfg(test)]
mod tests;
