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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use change::{Change, News};

use super::compile::{EndpointLive, Health, Live, Stand, Stands};
use super::probe::Verdict;
use crate::config::{self, Config};
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::{Plan, Slot};
use crate::tally::EjectReason;

/// How long a plan may wait whose exchanges would go where they go now: at the start thousands of
/// endpoints give their first answers, and each plan of thousands of services is some work.
const UNHURRIED: Duration = Duration::from_secs(1);

/// Which endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its service's place in the configuration.
    pub service: usize,
    /// Where it is.
    pub address: SocketAddr,
}

/// What is known of all endpoints.
#[derive(Debug)]
pub struct Standings {
    shards: usize,
    /// Shards that do not run now.
    dead: BTreeSet<usize>,
    /// In the order of the configuration.
    services: Vec<ServiceStanding>,
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
    /// It never gets exchanges: the operator wants it so.
    drain: bool,
    /// It gets none before its first good probe.
    awaited: bool,
    health: Health,
    /// True exactly when it was ever healthy, or is trusted to be.
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
            service
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

    /// Takes all endpoints for good until their first verdicts, also where those are awaited: the
    /// process whose place this one takes has used them until now.
    pub fn trust(&mut self) {
        for service in &mut self.services {
            for endpoint in &mut service.endpoints {
                endpoint.awaited = false;
                endpoint.proven = true;
            }
            service.has_healthy |= !service.endpoints.is_empty();
        }
        self.changed = true;
    }

    /// True exactly when there is a verdict on each endpoint of the service at `service`.
    pub fn is_judged(&self, service: usize) -> bool {
        let mut endpoints = self.services[service].endpoints.iter();
        endpoints.all(|endpoint| endpoint.health != Health::Unknown)
    }

    /// The endpoint that has `slot` in `plan`, which was compiled from the same configuration.
    pub fn at_slot(plan: &Plan, slot: Slot) -> Option<Place> {
        let mut services = plan.services.iter().enumerate();
        services.find_map(|(service, found)| {
            let mut endpoints = found.endpoints.iter();
            let found = endpoints.find(|endpoint| endpoint.slot == slot)?;
            let address = found.address;
            Some(Place { service, address })
        })
    }

    /// The service at `service` has the endpoints of `stands` from now on. What is known of those
    /// that stay stays; the weights of new ones grow, unless all are new.
    pub fn follow(&mut self, service: usize, stands: &Stands, now: Instant) -> Vec<Change> {
        let followed = &mut self.services[service];
        followed.follow(stands, now);
        self.changed = true;
        let mut changes = Vec::from_iter(followed.look());
        changes.extend(self.settle(service, now));
        changes
    }

    /// A probe has come to a verdict.
    pub fn judge(&mut self, verdict: Verdict, now: Instant) -> Vec<Change> {
        let Verdict {
            place,
            health,
            reason,
        } = verdict;
        let service = &mut self.services[place.service];
        let ramp_from = service.ramp_from(now);
        let Some(at) = service.place_of(place) else {
            return Vec::new();
        };
        let endpoint = &mut service.endpoints[at];
        let was_in = endpoint.may_be_used();
        let was = std::mem::replace(&mut endpoint.health, health);
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
        place: Place,
        shard: usize,
        reason: EjectReason,
        now: Instant,
    ) -> Vec<Change> {
        let service = &mut self.services[place.service];
        let Some(at) = service.place_of(place) else {
            return Vec::new();
        };
        let by = &mut service.endpoints[at].ejected_by;
        let first = by.is_empty();
        by.insert(shard);
        let news = first.then_some(News::Ejected { shard, reason });
        let mut changes = Vec::from_iter(news.map(|news| service.change(at, news)));
        changes.extend(self.settle(place.service, now));
        changes
    }

    /// `shard` uses an endpoint again that it had ejected.
    pub fn readmit(&mut self, place: Place, shard: usize, now: Instant) -> Vec<Change> {
        let service = &mut self.services[place.service];
        let Some(at) = service.place_of(place) else {
            return Vec::new();
        };
        let mut changes = Vec::from_iter(service.let_in(at, shard));
        changes.extend(self.settle(place.service, now));
        changes
    }

    /// Whether `shard` has ejected an endpoint now, where a notice of it may have been dropped. An
    /// ejection has no line then: its reason is not known.
    pub fn catch_up(
        &mut self,
        place: Place,
        shard: usize,
        is_out: bool,
        now: Instant,
    ) -> Vec<Change> {
        let service = &mut self.services[place.service];
        let Some(at) = service.place_of(place) else {
            return Vec::new();
        };
        let by = &mut service.endpoints[at].ejected_by;
        match (by.contains(&shard), is_out) {
            (true, false) => self.readmit(place, shard, now),
            (false, true) => {
                by.insert(shard);
                self.settle(place.service, now)
            }
            _ => Vec::new(),
        }
    }

    /// `shard` has died, and what it had ejected is forgotten with it.
    pub fn shard_died(&mut self, shard: usize, now: Instant) -> Vec<Change> {
        self.dead.insert(shard);
        let mut changes = Vec::new();
        for service in &mut self.services {
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
        for service in &mut self.services {
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
                services.insert(service.name.clone(), known);
            }
        }
        services
    }

    fn settle_all(&mut self, now: Instant) -> Vec<Change> {
        let services = 0..self.services.len();
        let changes = services.flat_map(|service| self.settle(service, now));
        changes.collect()
    }

    /// Brings who is ejected for all in step with who is ejected by whom.
    fn settle(&mut self, service: usize, now: Instant) -> Vec<Change> {
        let living = self.shards - self.dead.len();
        let service = &mut self.services[service];
        let ramp_from = service.ramp_from(now);
        let agreed = |endpoint: &EndpointStanding| living < 2 * endpoint.ejected_by.len();
        let mut changes = Vec::new();
        let mut out = 0;
        for place in 0..service.endpoints.len() {
            let endpoint = &mut service.endpoints[place];
            // Others may have gone, and these be too large a share of those that are left.
            if endpoint.ejected && agreed(endpoint) && out < service.ejected_max {
                out += 1;
            } else if endpoint.ejected {
                endpoint.ejected = false;
                if endpoint.health != Health::Unhealthy {
                    endpoint.ramp_from = ramp_from;
                }
                changes.push(service.change(place, News::InForAll));
            }
        }
        for place in 0..service.endpoints.len() {
            let endpoint = &mut service.endpoints[place];
            if !endpoint.ejected && agreed(endpoint) && out < service.ejected_max {
                endpoint.ejected = true;
                endpoint.ramp_from = None;
                out += 1;
                changes.push(service.change(place, News::OutForAll));
            }
        }
        self.changed |= !changes.is_empty();
        changes
    }
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

    fn follow(&mut self, stands: &Stands, now: Instant) {
        let grows_from = self.ramp_from(now).filter(|_| !self.endpoints.is_empty());
        let had = std::mem::take(&mut self.endpoints).into_iter();
        let mut had: HashMap<_, _> = had.map(|endpoint| (endpoint.address, endpoint)).collect();
        let endpoint = |stand: &Stand| {
            let fresh = || EndpointStanding {
                address: stand.address,
                drain: stand.drain,
                awaited: self.awaited,
                health: Health::Unknown,
                proven: false,
                since: now,
                ejected_by: BTreeSet::new(),
                ejected: false,
                ramp_from: grows_from,
                recoveries: 0,
            };
            let mut endpoint = had.remove(&stand.address).unwrap_or_else(fresh);
            endpoint.drain = stand.drain;
            endpoint
        };
        self.endpoints = stands.endpoints.iter().map(endpoint).collect();
        let addresses = self.endpoints.iter().map(|endpoint| endpoint.address);
        self.places = addresses.zip(0..).collect();
        // A share like 0.29 of 100 may come out a little under the whole number.
        self.ejected_max = (self.ratio_max * self.endpoints.len() as f64 + 1e-9) as usize;
    }

    /// Where an endpoint stands; `None` where it is gone.
    fn place_of(&self, place: Place) -> Option<usize> {
        self.places.get(&place.address).copied()
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
