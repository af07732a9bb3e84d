//! What a configuration allows and hardly means: a sentence each.

use std::collections::HashSet;

use super::{AdminAddress, Config, Fields, Route, Service};
use crate::plan::{HashKey, Protocol};

impl Config {
    /// What is allowed and hardly meant, with so many shards: a sentence each.
    pub fn warnings(&self, shards: u32) -> Vec<String> {
        let process = (
            "runtime.connections_max".to_owned(),
            self.runtime.connections_max,
        );
        let listeners = self.listeners.iter().map(|listener| {
            let key = format!("listener.limits.connections_max of {:?}", listener.name);
            (key, listener.limits.connections_max)
        });
        let services = self.services.iter().flat_map(|service| {
            let limits = [
                ("pool.connections_max", service.pool.connections_max),
                ("limits.rate", service.limits.rate),
                ("limits.concurrent", service.limits.concurrent),
            ];
            limits.map(|(key, limit)| (format!("service.{key} of {:?}", service.name), limit))
        });
        let limits = std::iter::once(process).chain(listeners).chain(services);
        let small = limits.filter(|(_, limit)| (1..shards).contains(limit));
        let small = small.map(|(key, limit)| too_few(&key, limit, shards));
        small
            .chain(self.unreachable())
            .chain(self.drained())
            .chain(self.unhashable())
            .chain(self.cramped())
            .chain(self.nameless())
            .chain(self.speechless())
            .chain(self.exposed())
            .collect()
    }

    /// An admin API that strangers may reach.
    fn exposed(&self) -> Option<String> {
        match &self.admin.address {
            AdminAddress::Tcp(address) if !address.ip().to_canonical().is_loopback() => {
                Some(format!(
                    "admin.address: {address} is not on the loopback interface; reports are \
                     refused there"
                ))
            }
            _ => None,
        }
    }

    /// Services whose requests can go to nobody.
    fn drained(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter();
        let drained = services.filter(|service| {
            let mut backends = service.backends.iter();
            !service.backends.is_empty() && backends.all(|backend| backend.drain)
        });
        drained.map(|Service { name, .. }| {
            format!("service {name:?} has no backend without drain: its requests get a 503")
        })
    }

    /// Services whose `hash_key` the connections of a TCP listener do not have.
    fn unhashable(&self) -> impl Iterator<Item = String> {
        let tcp = self.listeners.iter();
        let tcp = tcp.filter(|listener| listener.protocol == Protocol::Tcp);
        tcp.filter_map(|listener| {
            let named = |service: &&Service| service.name == listener.service;
            let Service {
                name,
                policy,
                hash_key,
                ..
            } = self.services.iter().find(named)?;
            (policy.keyed && *hash_key != HashKey::Client).then(|| {
                format!(
                    "service.hash_key of {name:?} is nothing that a TCP connection has: those of \
                     listener {:?} are told apart by their client",
                    listener.name
                )
            })
        })
    }

    /// Fan-outs that have no room for a request.
    fn cramped(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter();
        let fanouts = services.filter_map(|service| Some((service, service.fanout?)));
        fanouts.flat_map(|(Service { name, backends, .. }, fanout)| {
            let legs = backends.iter().filter(|backend| !backend.drain).count();
            let legs_max = fanout.legs_max;
            let is_few = (legs_max as usize) < legs;
            let few = is_few.then(|| {
                format!(
                    "service.fanout.legs_max of {name:?}: {legs_max} is below the number of its \
                     backends, {legs}: its requests get a 503"
                )
            });
            let is_tight = fanout.kept_bytes_max < fanout.body_bytes_max;
            let tight = is_tight.then(|| {
                format!(
                    "service.fanout.kept_bytes_max of {name:?} is below body_bytes_max: requests \
                     in between get a 503"
                )
            });
            few.into_iter().chain(tight)
        })
    }

    /// Fan-outs that are to name the endpoint that answered.
    fn nameless(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter();
        let fanouts = services.filter(|service| service.fanout.is_some());
        let nameless = fanouts.filter(|service| !service.backend_field.is_empty());
        nameless.map(|Service { name, .. }| {
            format!("service.backend_field of {name:?} does nothing beside [service.fanout]")
        })
    }

    /// Services that no request comes to, only connections, with keys for requests.
    fn speechless(&self) -> impl Iterator<Item = String> {
        let of = |protocol| {
            let listeners = self.listeners.iter();
            listeners.filter(move |listener| listener.protocol == protocol)
        };
        let has_http = of(Protocol::Http).next().is_some();
        let routed = self.routes.iter().flat_map(Route::services);
        let named: HashSet<&String> = of(Protocol::Http)
            .map(|listener| &listener.service)
            .chain(routed.filter(|_| has_http))
            .collect();
        let tcp: HashSet<&String> = of(Protocol::Tcp)
            .map(|listener| &listener.service)
            .collect();
        let services = self.services.iter().filter(move |service| {
            let has_requests = has_http && !service.domains.is_empty();
            tcp.contains(&service.name) && !named.contains(&service.name) && !has_requests
        });
        services.filter_map(|service| {
            let keys = [
                ("domains", !service.domains.is_empty()),
                ("backend_field", !service.backend_field.is_empty()),
                ("retry.statuses", !service.retry.statuses.is_empty()),
                ("pool.idle_min", service.pool.idle_min != 0),
                ("fields", service.fields != Fields::default()),
            ];
            let set = keys.iter().filter(|(_, is_set)| *is_set);
            let set: Vec<&str> = set.map(|(key, _)| *key).collect();
            (!set.is_empty()).then(|| {
                format!(
                    "service {:?} has connections of TCP alone, for which these keys do nothing: \
                     {}",
                    service.name,
                    set.join(", ")
                )
            })
        })
    }

    /// Services that no request can come to.
    fn unreachable(&self) -> impl Iterator<Item = String> {
        let listeners = self.listeners.iter().map(|listener| &listener.service);
        let named: HashSet<&String> = listeners
            .chain(self.routes.iter().flat_map(Route::services))
            .collect();
        let services = self.services.iter();
        let lost = services
            .filter(move |service| service.domains.is_empty() && !named.contains(&service.name));
        lost.map(|Service { name, .. }| {
            format!("service {name:?} has no domains, and no route or listener names it")
        })
    }
}

/// Limits are split over the shards, and none gets less than 1.
fn too_few(key: &str, limit: u32, shards: u32) -> String {
    format!(
        "{key}: {limit} is below the number of shards, {shards}; each shard allows 1, so {shards} \
         in all"
    )
}
