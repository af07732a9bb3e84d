//! What runs now, as one JSON object.

use serde_json::{Value, json};

use super::{
    Name, Reloads, Shard, Shown, Stated, View, destinations, health, keys, probe_kind, protocol,
};
use crate::config;
use crate::control::standing::Seen;
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::{Endpoint, Life, Listener};

impl View {
    /// On one line.
    pub fn json(&self) -> String {
        let process = &self.process;
        let listeners = self.plan.listeners.iter();
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
            "reloads": reloads(&self.reloads),
            "shards": self.shards.iter().enumerate().map(shard).collect::<Value>(),
            "listeners": listeners.map(|it| self.listener(it)).collect::<Value>(),
            "services": self.services().map(|it| self.service(it)).collect::<Value>(),
            "routes": routes.map(route).collect::<Value>(),
        });
        let mut text = value.to_string();
        text.push('\n');
        text
    }

    fn listener(&self, listener: &Listener) -> Value {
        let service = listener.service.map(|index| self.plan.service(index));
        json!({
            "listener": listener.name,
            "address": self.address(listener).to_string(),
            "protocol": protocol(listener),
            "proxy_protocol": listener.proxy_protocol,
            "accepting": self.accepts(listener),
            "sockets": listener.sockets.len(),
            "clients": self.clients(listener),
            "service": service.map(|service| &service.name),
        })
    }

    fn service(&self, shown: Shown<'_>) -> Value {
        let (written, service) = (shown.written, shown.service);
        let fields = &written.fields;
        let endpoints = shown.endpoints();
        let names = shown.known.names.iter();
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
            "backends": self.stated(shown).map(|it| backend(&it)).collect::<Value>(),
            "endpoints": endpoints
                .map(|(it, backend, seen)| self.endpoint(it, backend, seen))
                .collect::<Value>(),
            "names": names.map(name).collect::<Value>(),
        })
    }

    fn endpoint(&self, endpoint: &Endpoint, backend: &str, seen: Option<&Seen>) -> Value {
        let reason = seen.map(|seen| &seen.reason);
        json!({
            "endpoint": endpoint.name,
            "backend": backend,
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

fn reloads(reloads: &Reloads) -> Value {
    let last = reloads.last.as_ref();
    let done = last.and_then(|last| last.done);
    let result = last.map(|last| {
        if last.done.is_some() {
            "done"
        } else {
            "refused"
        }
    });
    json!({
        "done": reloads.done,
        "refused": reloads.refused,
        "under_way": reloads.under_way,
        "last": {
            "at": last.map(|last| &last.at),
            "result": result,
            "generation": done.map(|done| done.generation),
            "added": done.map(|done| done.added),
            "changed": done.map(|done| done.changed),
            "removed": done.map(|done| done.removed),
        },
        "refusal": reloads.refusal,
    })
}

fn shard((number, shard): (usize, &Shard)) -> Value {
    json!({
        "shard": number,
        "generation": shard.generation,
        "runs": shard.runs,
        "driver": shard.driver,
        "connections": shard.connections,
    })
}

fn backend(backend: &Stated<'_>) -> Value {
    json!({
        "backend": backend.name,
        "weight": backend.written.weight,
        "backup": backend.written.backup,
        "state": backend.state().label(),
        "file": backend.file().label(),
        "run_time": backend.set.map(|state| state.label()),
        "endpoints": backend.endpoints,
    })
}

fn name(name: &Name) -> Value {
    let failing = name.failing.as_ref();
    json!({
        "name": name.name,
        "addresses": name.addresses,
        "remarks": name.remarks,
        "failing_seconds": failing.map(|(lasted, _, _)| lasted.as_secs_f64()),
        "failing_times": failing.map(|(_, times, _)| times),
        "reason": failing.map(|(_, _, reason)| reason),
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
