//! A plan as text, for `ringmain check` and for tests.
//!
//! One line a fact, in the order of the file, with the units of the configuration.

use std::fmt::{self, Display};
use std::num::NonZeroU32;
use std::time::Duration;

use super::compile::routing;
use crate::config::{self, BackendAddress, Config, ProbeKind};
use crate::http::hop::FieldEdits;
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::limits::{CLIENT_BYTES, CLIENTS_KEPT};
use crate::plan::route::{Destination, DomainMatch, PathMatch};
use crate::plan::{
    EjectRules, Endpoint, FanoutRules, HashKey, Listener, Plan, Protocol, Rate, RetryRules, Route,
    Service, ServiceIndex, ServiceLimits, TICK, Ticks,
};
use crate::tally::recorder;
use crate::units::{format_duration, format_size};

/// `plan`, compiled from `config`, as text.
pub fn show<'a>(config: &'a Config, plan: &'a Plan) -> impl Display + 'a {
    Shown { config, plan }
}

/// The memory that the tallies of `plan` can take with so many shards, in a line; another one says
/// what an address adds where `plan` has names that stand for none yet.
pub fn show_tallies(plan: &Plan, shards: u32) -> impl Display {
    const USUAL: Duration = Duration::from_secs(1);
    let services = plan.services.len() as u64;
    let endpoints = plan.services.iter().map(|service| service.endpoints.len());
    let endpoints = endpoints.sum::<usize>() as u64;
    let backends = plan.services.iter().flat_map(|service| &service.backends);
    let has_names = backends.into_iter().any(|it| it.endpoints.is_empty());
    let bytes = move |services: u64, endpoints: u64, longest| {
        let of_shard = services * recorder::service_bytes(longest) as u64
            + endpoints * recorder::endpoint_bytes(longest) as u64;
        // What a shard has laid down stays until control has it, and the shard records anew
        // meanwhile. Control's copy, one for all shards, counts in twice as many bits.
        of_shard * (2 * u64::from(shards) + 2)
    };
    fmt::from_fn(move |f| {
        writeln!(
            f,
            "tallies of {services} services and {endpoints} endpoints on {shards} shards: up to {} \
             while no time is over {}, at most {}",
            in_mebibytes(bytes(services, endpoints, USUAL)),
            format_duration(USUAL),
            in_mebibytes(bytes(services, endpoints, recorder::LONGEST)),
        )?;
        if has_names {
            writeln!(
                f,
                "  each address that a name stands for: up to {}, at most {} more",
                in_mebibytes(bytes(0, 1, USUAL)),
                in_mebibytes(bytes(0, 1, recorder::LONGEST)),
            )?;
        }
        Ok(())
    })
}

/// Rounded up.
fn in_mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    format_size(bytes.div_ceil(MEBIBYTE) * MEBIBYTE)
}

struct Shown<'a> {
    config: &'a Config,
    plan: &'a Plan,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, plan } = self;
        let life = format!("{:?}", plan.life).to_lowercase();
        writeln!(
            f,
            "plan generation {} {life} via {}",
            plan.generation, plan.via
        )?;
        writeln!(
            f,
            "  each shard: connections_max {}",
            plan.shard_connections_max
        )?;
        for listener in &plan.listeners {
            show_listener(f, plan, listener)?;
        }
        for (service, written) in plan.services.iter().zip(config.services()) {
            show_service(f, service)?;
            show_names(f, written)?;
            show_health(f, written)?;
        }
        // Built by the same function as the plan's own table, which keeps its parts to itself.
        let (routes, domains) = routing(config);
        for route in routes {
            show_route(f, plan, &route)?;
        }
        for (domain, service) in domains {
            writeln!(f, "domain {domain} -> {}", name(plan, service))?;
        }
        Ok(())
    }
}

fn show_listener(f: &mut fmt::Formatter<'_>, plan: &Plan, listener: &Listener) -> fmt::Result {
    let limits = listener.limits;
    let timeouts = listener.timeouts;
    let protocol = match listener.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    };
    writeln!(
        f,
        "listener {} {} {protocol}",
        listener.name, listener.address
    )?;
    let service = listener
        .service
        .map_or("none (404)", |index| name(plan, index));
    writeln!(f, "  service {service}")?;
    if let Some(parameter) = &listener.service_parameter {
        writeln!(f, "  service_parameter {parameter}")?;
    }
    if listener.proxy_protocol {
        writeln!(f, "  proxy_protocol")?;
    }
    let connections = limits.shard_connections_max;
    writeln!(
        f,
        "  each shard: connections_max {}",
        limit(connections != u32::MAX, || connections.to_string())
    )?;
    let body = limits.body_bytes_max;
    writeln!(
        f,
        "  head_bytes_max {} trailer_bytes_max {} fields_max {} body_bytes_max {}",
        format_size(limits.head_bytes_max as u64),
        format_size(limits.trailer_bytes_max as u64),
        limits.fields_max,
        limit(body != u64::MAX, || format_size(body)),
    )?;
    writeln!(
        f,
        "  timeouts head {} body_idle {} keep_alive {} send_idle {}",
        ticks(timeouts.head),
        ticks(timeouts.body_idle),
        ticks(timeouts.keep_alive),
        ticks(timeouts.send_idle),
    )
}

fn show_service(f: &mut fmt::Formatter<'_>, service: &Service) -> fmt::Result {
    let timeouts = service.timeouts;
    write!(f, "service {} {}", service.name, service.policy.label)?;
    match &service.hash_key {
        _ if !service.policy.keyed => writeln!(f)?,
        HashKey::Client => writeln!(f, " of client")?,
        HashKey::Path => writeln!(f, " of path")?,
        HashKey::Field(name) => writeln!(f, " of field:{name}")?,
        HashKey::Cookie(name) => writeln!(f, " of cookie:{name}")?,
    }
    for endpoint in &service.endpoints {
        show_endpoint(f, endpoint)?;
    }
    if service.fails_open {
        writeln!(f, "  fails open: no endpoint is in, and all are used")?;
    }
    writeln!(
        f,
        "  timeouts connect {} response {} send_idle {} receive_idle {} continue {} tunnel_idle {} \
         total {}",
        format_duration(timeouts.connect),
        ticks(timeouts.response),
        ticks(timeouts.send_idle),
        ticks(timeouts.receive_idle),
        ticks(timeouts.until_continued),
        ticks(timeouts.tunnel_idle),
        none_or_ticks(timeouts.total),
    )?;
    let pool = service.pool;
    let connections = pool.shard_connections_max;
    writeln!(
        f,
        "  pool idle_min {} idle_max {} idle {} queue {}",
        pool.idle_min,
        pool.idle_max,
        ticks(pool.idle),
        ticks(pool.queue),
    )?;
    let connections = connections.map_or_else(|| "none".into(), |limit| limit.to_string());
    writeln!(
        f,
        "  each shard and endpoint: connections_max {connections}"
    )?;
    show_retry(f, &service.retry)?;
    show_eject(f, &service.eject)?;
    show_limits(f, &service.limits)?;
    if let Some(fanout) = &service.fanout {
        show_fanout(f, fanout)?;
    }
    let head = service.response_head;
    let bytes = format_size(head.bytes_max as u64);
    writeln!(
        f,
        "  response head_bytes_max {bytes} fields_max {}",
        head.fields_max
    )?;
    if let Some(version) = service.send_proxy_protocol {
        writeln!(f, "  send_proxy_protocol {}", version.label())?;
    }
    show_edits(f, "request", &service.request_edits)?;
    show_edits(f, "response", &service.response_edits)?;
    match &service.backend_field {
        Some(field) => writeln!(f, "  backend_field {field}"),
        None => Ok(()),
    }
}

/// The backends that have no endpoint before their names are resolved.
fn show_names(f: &mut fmt::Formatter<'_>, service: &config::Service) -> fmt::Result {
    for backend in &service.backends {
        let what = match &backend.address {
            BackendAddress::Socket(_) => continue,
            BackendAddress::Host(..) => "addresses",
            BackendAddress::Srv(_) => "SRV records",
        };
        let (name, weight) = (&backend.address, backend.weight);
        write!(f, "  backend {name} weight {weight}")?;
        for (is_set, word) in [(backend.backup, " backup"), (backend.drain, " drain")] {
            f.write_str(if is_set { word } else { "" })?;
        }
        writeln!(f, " its {what} are looked up while ringmain runs")?;
    }
    Ok(())
}

/// What control does about the endpoints; it is not in the plan.
fn show_health(f: &mut fmt::Formatter<'_>, service: &config::Service) -> fmt::Result {
    let slow_start = format_duration(service.slow_start);
    writeln!(
        f,
        "  slow_start {slow_start} fail_open {}",
        service.fail_open
    )?;
    let Some(probe) = &service.probe else {
        return writeln!(f, "  probe none");
    };
    match probe.kind {
        ProbeKind::Http => {
            write!(
                f,
                "  probe http {} statuses {:?}",
                probe.path, probe.statuses
            )?;
            if !probe.ready_path.is_empty() {
                write!(f, " ready_path {}", probe.ready_path)?;
            }
            if !probe.host.is_empty() {
                write!(f, " host {}", probe.host)?;
            }
        }
        ProbeKind::Tcp => write!(f, "  probe tcp")?,
        ProbeKind::Exec => write!(f, "  probe exec {:?}", probe.command)?,
    }
    writeln!(
        f,
        " interval {} interval_failing {} timeout {} healthy_after {} unhealthy_after {} \
         wait_first {}",
        format_duration(probe.interval),
        format_duration(probe.interval_failing),
        format_duration(probe.timeout),
        probe.healthy_after,
        probe.unhealthy_after,
        probe.wait_first,
    )
}

fn show_endpoint(f: &mut fmt::Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    let Endpoint {
        name,
        weight,
        ramp,
        slot,
        backup,
        standing,
        ..
    } = endpoint;
    write!(
        f,
        "  endpoint {name} weight {weight} slot {} {}",
        slot.index,
        standing.label()
    )?;
    if *ramp != RAMP_WHOLE {
        write!(f, " at {ramp}/{RAMP_WHOLE} of its weight")?;
    }
    writeln!(f, "{}", if *backup { " backup" } else { "" })
}

fn show_retry(f: &mut fmt::Formatter<'_>, retry: &RetryRules) -> fmt::Result {
    let kept = format_size(retry.replayed_bytes_max as u64);
    write!(
        f,
        "  retry attempts_max {} body_bytes_max {kept}",
        retry.attempts_max
    )?;
    if !retry.statuses.is_empty() {
        let statuses: Vec<_> = retry.statuses.iter().map(u16::to_string).collect();
        write!(f, " statuses {}", statuses.join(","))?;
    }
    writeln!(
        f,
        " attempt {} backoff {} budget {} each shard at least {}/s",
        none_or_ticks(retry.attempt),
        format_duration(retry.backoff),
        retry.budget,
        retry.shard_retries_min,
    )
}

fn show_fanout(f: &mut fmt::Formatter<'_>, fanout: &FanoutRules) -> fmt::Result {
    writeln!(
        f,
        "  fanout require {} status {} attempts_max {} backoff_max {} jitter {} body_bytes_max {}",
        fanout.require.label(),
        fanout.status,
        fanout.attempts_max,
        format_duration(fanout.backoff_max),
        format_duration(fanout.jitter),
        format_size(fanout.body_bytes_max as u64),
    )?;
    writeln!(
        f,
        "  fanout each shard: legs_max {} kept_bytes_max {}{}",
        fanout.shard_legs_max,
        format_size(fanout.shard_kept_bytes_max as u64),
        if fanout.detached { " detached" } else { "" },
    )
}

fn show_eject(f: &mut fmt::Formatter<'_>, eject: &EjectRules) -> fmt::Result {
    writeln!(
        f,
        "  eject consecutive_faults {} duration {} ratio_max {} latency_factor {}",
        eject.consecutive_faults,
        ticks(eject.duration),
        eject.ratio_max,
        eject.latency_factor,
    )
}

fn show_limits(f: &mut fmt::Formatter<'_>, limits: &ServiceLimits) -> fmt::Result {
    if limits.is_none() {
        return Ok(());
    }
    let shown = |number: Option<NonZeroU32>| {
        number.map_or_else(|| "none".to_owned(), |number| number.to_string())
    };
    let rate = |rate: Option<Rate>| {
        let (per_second, burst) = (rate.map(|it| it.per_second()), rate.map(|it| it.burst()));
        format!("rate {} burst {}", shown(per_second), shown(burst))
    };
    if limits.has_clients() {
        let bytes = format_size((CLIENTS_KEPT * CLIENT_BYTES) as u64);
        writeln!(
            f,
            "  each shard and client: {} concurrent {}; {CLIENTS_KEPT} clients in {bytes} a shard",
            rate(limits.client_rate),
            shown(limits.client_concurrent),
        )?;
    }
    writeln!(
        f,
        "  each shard: {} concurrent {}",
        rate(limits.shard_rate),
        shown(limits.shard_concurrent),
    )
}

fn show_edits(f: &mut fmt::Formatter<'_>, message: &str, edits: &FieldEdits) -> fmt::Result {
    for (name, value) in &edits.set {
        writeln!(f, "  {message} set {name}: {value}")?;
    }
    for name in &edits.remove {
        writeln!(f, "  {message} remove {name}")?;
    }
    Ok(())
}

fn show_route(f: &mut fmt::Formatter<'_>, plan: &Plan, route: &Route) -> fmt::Result {
    f.write_str("route ")?;
    match &route.domain {
        DomainMatch::Any => f.write_str("any-domain")?,
        DomainMatch::Exact(domain) => f.write_str(domain)?,
        DomainMatch::Suffix(suffix) => write!(f, "*{suffix}")?,
    }
    match &route.path {
        PathMatch::Any => f.write_str(" any-path")?,
        PathMatch::Exact(path) => write!(f, " {path}")?,
        PathMatch::Prefix(prefix) => write!(f, " {prefix}*")?,
    }
    match route.methods.as_ref() {
        [] => f.write_str(" any-method")?,
        methods => write!(f, " {}", methods.join(","))?,
    }
    for (name, value) in &route.fields {
        write!(f, " field {name}: {value:?}")?;
    }
    for (name, value) in &route.query {
        write!(f, " query {name}={value}")?;
    }
    match &route.destination {
        Destination::Service(service) => writeln!(f, " -> {}", name(plan, *service)),
        Destination::Weighted(weights) => {
            let services = weights.services();
            let services = services
                .map(|(service, weight)| format!("{} weight {weight}", name(plan, service)));
            writeln!(f, " -> {}", services.collect::<Vec<_>>().join(", "))
        }
    }
}

fn name(plan: &Plan, service: ServiceIndex) -> &str {
    &plan.service(service).name
}

fn ticks(Ticks(count): Ticks) -> String {
    format_duration(Duration::saturating_mul(TICK, count))
}

fn none_or_ticks(span: Ticks) -> String {
    limit(span != Ticks(0), || ticks(span))
}

fn limit(is_set: bool, show: impl FnOnce() -> String) -> String {
    if is_set { show() } else { "none".into() }
}
