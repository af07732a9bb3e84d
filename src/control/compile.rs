//! From what the operator wrote to what shards run: `compile(&Config, &Live) -> Plan`.
//!
//! Pure: no I/O, no clock, no chance; the same arguments give the same plan. Cannot fail: a
//! [`Config`] breaks no rule, so that every name in it resolves. Limits of the process are split
//! over the shards here, and no shard gets less than 1.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::http::head::HeadLimits;
use crate::http::hop::FieldEdits;
use crate::plan::listener::{ListenerLimits, ListenerTimeouts};
use crate::plan::route::{DomainMatch, PathMatch};
use crate::plan::service::{PoolLimits, ServiceTimeouts};
use crate::plan::{Endpoint, Life, Listener, Plan, Route, Routes, Service, ServiceIndex, Ticks};

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
}

/// The plan for `config` now.
pub fn compile(config: &Config, live: &Live) -> Plan {
    let mut slots = 0;
    let response_head = response_head(config);
    let services: Box<[Arc<Service>]> = config
        .services()
        .iter()
        .map(|written| Arc::new(service(written, live.shards, response_head, &mut slots)))
        .collect();
    let indices = indices(config);
    let listeners = config.listeners().iter();
    let listeners = listeners
        .map(|written| Arc::new(listener(written, &indices, live.shards)))
        .collect();
    let (routes, domains) = routing(config);
    Plan {
        generation: live.generation,
        life: live.life,
        via: via(config, live).into(),
        shard_connections_max: share(connections_max(config, live), live.shards),
        listeners,
        services,
        routes: Arc::new(Routes::new(routes, domains)),
        slots,
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
        service: indices[written.service.as_str()],
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
            let most = live.nofile.saturating_sub(OWN_DESCRIPTORS) / 2;
            u32::try_from(most).unwrap_or(u32::MAX)
        }
        written => written,
    }
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

fn listener(
    written: &config::Listener,
    indices: &HashMap<&str, ServiceIndex>,
    shards: u32,
) -> Listener {
    let config::ListenerLimits {
        connections_max,
        head_bytes_max,
        trailer_bytes_max,
        fields_max,
        body_bytes_max,
    } = written.limits;
    let config::ListenerTimeouts {
        head,
        body_idle,
        keep_alive,
        send_idle,
    } = written.timeouts;
    Listener {
        name: written.name.as_str().into(),
        address: written.address,
        protocol: written.protocol,
        service: (!written.service.is_empty()).then(|| indices[written.service.as_str()]),
        service_parameter: non_empty(&written.service_parameter),
        limits: ListenerLimits {
            shard_connections_max: match connections_max {
                0 => u32::MAX,
                limit => share(limit, shards),
            },
            head_bytes_max: bytes(head_bytes_max),
            trailer_bytes_max: bytes(trailer_bytes_max),
            fields_max: fields_max as usize,
            body_bytes_max: if body_bytes_max == 0 {
                u64::MAX
            } else {
                body_bytes_max
            },
        },
        timeouts: ListenerTimeouts {
            head: Ticks::from_duration(head),
            body_idle: Ticks::from_duration(body_idle),
            keep_alive: Ticks::from_duration(keep_alive),
            send_idle: Ticks::from_duration(send_idle),
        },
    }
}

/// `slots` is the first free slot, before and after.
fn service(
    written: &config::Service,
    shards: u32,
    response_head: HeadLimits,
    slots: &mut u32,
) -> Service {
    let config::ServiceTimeouts {
        connect,
        response,
        send_idle,
        receive_idle,
        until_continued,
        tunnel_idle,
    } = written.timeouts;
    let fields = &written.fields;
    Service {
        name: written.name.as_str().into(),
        policy: written.policy,
        endpoints: written
            .backends
            .iter()
            .map(|backend| endpoint(*backend, slots))
            .collect(),
        timeouts: ServiceTimeouts {
            connect,
            response: Ticks::from_duration(response),
            send_idle: Ticks::from_duration(send_idle),
            receive_idle: Ticks::from_duration(receive_idle),
            until_continued: Ticks::from_duration(until_continued),
            tunnel_idle: Ticks::from_duration(tunnel_idle),
        },
        pool: PoolLimits {
            idle_max: written.pool.idle_max as usize,
            idle: Ticks::from_duration(written.pool.idle),
            shard_connections_max: NonZeroU32::new(written.pool.connections_max)
                .map(|limit| share_of(limit, shards)),
            queue: Ticks::from_duration(written.pool.queue),
        },
        attempts_max: written.retry.attempts_max,
        replayed_bytes_max: bytes(written.retry.body_bytes_max),
        response_head,
        request_edits: edits(&fields.request_set, &fields.request_remove),
        response_edits: edits(&fields.response_set, &fields.response_remove),
        backend_field: non_empty(&written.backend_field),
    }
}

fn endpoint(backend: config::Backend, slots: &mut u32) -> Endpoint {
    let slot = *slots;
    *slots += 1;
    let config::Backend { address, weight } = backend;
    Endpoint {
        address,
        name: address.to_string().into(),
        weight,
        slot,
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
    usize::try_from(size).expect("sizes of heads are at most 1 MiB")
}

#[cfg(test)]
mod tests;
