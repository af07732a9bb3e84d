//! What runs now, as one JSON object.

use serde_json::{Value, json};

use super::{Known, Shard, Stated, View, destinations, health, keys, probe_kind, protocol};
use crate::config;
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::{Endpoint, Life, Listener, Service};
use crate::tally::report::NameReport;

impl View<'_> {
    /// On one line.
    pub fn json(&self) -> String {
        let process = &self.process;
        let listeners = self.plan.listeners.iter();
        let services = self.services();
        let routes = self.config.routes().iter();
        let value = json!({
            "ringmain": process.version,
            "pid": process.pid,
            "started": process.started,
            "up_seconds": process.up.as_secs_f64(),
            "generation": self.plan.generation,
            "life": life(self.plan.life),
            "ready": process.unready.is_none(),
            "unready": process.unready,
            "shards": self.shards.iter().enumerate().map(shard).collect::<Value>(),
            "listeners": listeners.map(|it| self.listener(it)).collect::<Value>(),
            "services": services
                .map(|(place, written, service)| self.service(place, written, service))
                .collect::<Value>(),
            "routes": routes.map(route).collect::<Value>(),
        });
        let mut text = value.to_string();
        text.push('\n');
        text
    }

    fn listener(&self, listener: &Listener) -> Value {
        let bound = self.bound(listener);
        let address = bound.map_or(listener.address, |bound| bound.address);
        let service = listener.service.map(|index| self.plan.service(index));
        json!({
            "listener": listener.name,
            "address": address.to_string(),
            "protocol": protocol(listener),
            "proxy_protocol": listener.proxy_protocol,
            "accepting": listener.accepting && self.plan.life == Life::Serving,
            "sockets": listener.sockets.len(),
            "service": service.map(|service| &service.name),
        })
    }

    fn service(&self, place: usize, written: &config::Service, service: &Service) -> Value {
        let fields = &written.fields;
        let known = service.endpoints.iter().zip(self.known(place, service));
        let names = self.names.report(place, self.now);
        json!({
            "service": service.name,
            "domains": written.domains,
            "policy": service.policy.label,
            "fanout": service.fanout.is_some(),
            "probe": written.probe.as_ref().map(probe_kind),
            "fails_open": service.fails_open,
            "fields": {
                "request_set": keys(&fields.request_set),
                "request_remove": fields.request_remove,
                "response_set": keys(&fields.response_set),
                "response_remove": fields.response_remove,
            },
            "backends": self.stated(written, service).map(|it| backend(&it)).collect::<Value>(),
            "endpoints": known
                .map(|(endpoint, known)| self.endpoint(endpoint, &known))
                .collect::<Value>(),
            "names": names.iter().map(name).collect::<Value>(),
        })
    }

    fn endpoint(&self, endpoint: &Endpoint, known: &Known<'_>) -> Value {
        let seen = known.seen;
        let reason = seen.map(|seen| seen.reason);
        json!({
            "endpoint": endpoint.name,
            "backend": known.backend,
            "weight": endpoint.weight,
            "ramp": f64::from(endpoint.ramp) / f64::from(RAMP_WHOLE),
            "backup": endpoint.backup,
            "standing": endpoint.standing.label(),
            "health": seen.map(|seen| health(seen.health)),
            "health_seconds": seen.map(|seen| (self.now - seen.since).as_secs_f64()),
            "reason": reason.filter(|reason| !reason.is_empty()),
            "ejected_by_shards": seen.map(|seen| seen.ejected_by),
        })
    }
}

const fn life(life: Life) -> &'static str {
    match life {
        Life::Serving => "serving",
        Life::Draining => "draining",
        Life::Ended => "ended",
    }
}

fn shard((number, shard): (usize, &Shard<'_>)) -> Value {
    json!({
        "shard": number,
        "generation": shard.generation,
        "runs": shard.runs,
        "driver": shard.driver,
        "connections": shard.connections,
    })
}

fn backend(backend: &Stated<'_>) -> Value {
    let endpoints = backend.endpoints.iter();
    json!({
        "backend": backend.name,
        "weight": backend.written.weight,
        "backup": backend.written.backup,
        "state": backend.state().label(),
        "file": config_word(backend),
        "run_time": backend.set.map(|state| state.label()),
        "endpoints": endpoints.map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn config_word(backend: &Stated<'_>) -> &'static str {
    super::Override::written(backend.written).label()
}

fn name(name: &NameReport<'_>) -> Value {
    let failure = name.failure.as_ref();
    json!({
        "name": name.name,
        "addresses": name.addresses,
        "remarks": name.remarks,
        "failing_seconds": failure.map(|failure| failure.lasted.as_secs_f64()),
        "failing_times": failure.map(|failure| failure.times),
        "reason": failure.map(|failure| failure.reason),
    })
}

fn route(route: &config::Route) -> Value {
    let services = destinations(route).into_iter();
    json!({
        "domain": route.domain,
        "path": route.path,
        "methods": route.methods,
        "fields": keys(&route.fields),
        "query": keys(&route.query),
        "services": services
            .map(|(service, weight)| json!({"service": service, "weight": weight}))
            .collect::<Value>(),
    })
}
