//! What runs now, as lines for people: one a fact.

use std::fmt::{self, Display};

use super::{Known, Shard, Stated, View, destinations, keys, protocol};
use crate::config;
use crate::control::compile::{Health, Override};
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::{Endpoint, Life, Listener, Service};
use crate::tally::report::NameReport;
use crate::units::format_duration;

impl Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = &self.process;
        writeln!(
            f,
            "ringmain {}  pid {}  started {}  generation {}",
            process.version, process.pid, process.started, self.plan.generation
        )?;
        match &process.unready {
            None => writeln!(f, "ready")?,
            Some(reason) => writeln!(f, "not ready: {reason}")?,
        }
        for (number, shard) in self.shards.iter().enumerate() {
            show_shard(f, number, shard)?;
        }
        for listener in &self.plan.listeners {
            self.show_listener(f, listener)?;
        }
        for (place, written, service) in self.services() {
            self.show_service(f, place, written, service)?;
        }
        for route in self.config.routes() {
            show_route(f, route)?;
        }
        for service in self.config.services() {
            for domain in &service.domains {
                writeln!(f, "domain {domain} -> {}", service.name)?;
            }
        }
        Ok(())
    }
}

impl View<'_> {
    fn show_listener(&self, f: &mut fmt::Formatter<'_>, listener: &Listener) -> fmt::Result {
        let bound = self.bound(listener);
        let address = bound.map_or(listener.address, |bound| bound.address);
        let (name, protocol) = (&listener.name, protocol(listener));
        let accepting = if listener.accepting && self.plan.life == Life::Serving {
            "accepting"
        } else {
            "draining"
        };
        writeln!(f, "listener {name}   {address}   {protocol}   {accepting}")
    }

    fn show_service(
        &self,
        f: &mut fmt::Formatter<'_>,
        place: usize,
        written: &config::Service,
        service: &Service,
    ) -> fmt::Result {
        let endpoints = service.endpoints.iter();
        let are_in = endpoints.filter(|it| it.standing.is_in()).count();
        write!(
            f,
            "service {}   {}   {are_in} of {} endpoints in",
            service.name,
            service.policy.label,
            service.endpoints.len()
        )?;
        let open = if service.fails_open {
            ", so all are used"
        } else {
            ""
        };
        writeln!(f, "{open}")?;
        for backend in self.stated(written, service) {
            show_backend(f, &backend)?;
        }
        for (endpoint, known) in service.endpoints.iter().zip(self.known(place, service)) {
            self.show_endpoint(f, endpoint, &known)?;
        }
        for name in self.names.report(place, self.now) {
            show_name(f, &name)?;
        }
        Ok(())
    }

    fn show_endpoint(
        &self,
        f: &mut fmt::Formatter<'_>,
        endpoint: &Endpoint,
        known: &Known<'_>,
    ) -> fmt::Result {
        let (address, weight) = (known.place.address, endpoint.weight);
        let standing = endpoint.standing.label();
        write!(f, "  endpoint {address}   weight {weight}   {standing}")?;
        let Some(seen) = known.seen else {
            return writeln!(f);
        };
        if seen.health != Health::Unknown {
            write!(f, " for {}", format_duration(self.now - seen.since))?;
        }
        if !seen.reason.is_empty() {
            write!(f, ": {}", seen.reason)?;
        }
        if endpoint.ramp != RAMP_WHOLE {
            write!(f, "   at {}/{RAMP_WHOLE} of its weight", endpoint.ramp)?;
        }
        if 0 < seen.ejected_by {
            let shards = self.shards.len();
            write!(f, "   ejected by {} of {shards} shards", seen.ejected_by)?;
        }
        writeln!(f, "{}", if endpoint.backup { "   backup" } else { "" })
    }
}

fn show_shard(f: &mut fmt::Formatter<'_>, number: usize, shard: &Shard<'_>) -> fmt::Result {
    let Shard {
        generation,
        connections,
        ..
    } = shard;
    let runs = if shard.runs { "runs" } else { "has ended" };
    writeln!(
        f,
        "shard {number}   generation {generation}   {runs}   {connections} connections"
    )
}

fn show_backend(f: &mut fmt::Formatter<'_>, backend: &Stated<'_>) -> fmt::Result {
    let (name, weight, state) = (&backend.name, backend.written.weight, backend.state());
    write!(f, "  backend {name}   weight {weight}   {state}")?;
    if backend.set.is_some() {
        write!(f, " (the file: {})", Override::written(backend.written))?;
    }
    let backup = backend.written.backup;
    writeln!(f, "{}", if backup { "   backup" } else { "" })
}

fn show_name(f: &mut fmt::Formatter<'_>, name: &NameReport<'_>) -> fmt::Result {
    write!(f, "  name {}   {} addresses", name.name, name.addresses)?;
    if let Some(failure) = &name.failure {
        let lasted = format_duration(failure.lasted);
        write!(f, "   failing for {lasted}: {}", failure.reason)?;
    }
    writeln!(f)
}

fn show_route(f: &mut fmt::Formatter<'_>, route: &config::Route) -> fmt::Result {
    let or_any = |text: &str| if text.is_empty() { "any" } else { text }.to_owned();
    let (domain, path) = (or_any(&route.domain), or_any(&route.path));
    let methods = or_any(&route.methods.join(","));
    write!(f, "route {domain} {path} {methods}")?;
    for (what, names) in [
        ("field", keys(&route.fields)),
        ("query", keys(&route.query)),
    ] {
        for name in names {
            write!(f, " {what} {name}")?;
        }
    }
    let services = destinations(route).into_iter();
    let services = services.map(|(service, weight)| format!("{service} weight {weight}"));
    writeln!(f, " -> {}", services.collect::<Vec<_>>().join(", "))
}
