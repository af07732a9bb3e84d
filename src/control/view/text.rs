//! What runs now, as lines for people: one a fact.

use std::fmt::{self, Display};

use super::{DoneReload, Name, Reloads, Shard, Shown, Stated, View, destinations, keys, protocol};
use crate::config;
use crate::control::compile::Health;
use crate::control::standing::Seen;
use crate::plan::endpoint::RAMP_WHOLE;
use crate::plan::{Endpoint, Listener};
use crate::units::format_duration;

/// How much of why a reload was refused is shown.
const REFUSAL_LINES_MAX: usize = 5;

impl Display for View {
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
        show_reloads(f, &self.reloads)?;
        for (number, shard) in self.shards.iter().enumerate() {
            show_shard(f, number, shard)?;
        }
        for listener in &self.plan.listeners {
            self.show_listener(f, listener)?;
        }
        for shown in self.services() {
            self.show_service(f, shown)?;
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

impl View {
    fn show_listener(&self, f: &mut fmt::Formatter<'_>, listener: &Listener) -> fmt::Result {
        let (name, address) = (&listener.name, self.address(listener));
        let protocol = protocol(listener);
        let accepts = self.accepts(listener);
        let accepting = if accepts { "accepting" } else { "draining" };
        let clients = self.clients(listener);
        writeln!(
            f,
            "listener {name}   {address}   {protocol}   {accepting}   {clients} clients"
        )
    }

    fn show_service(&self, f: &mut fmt::Formatter<'_>, shown: Shown<'_>) -> fmt::Result {
        let service = shown.service;
        let all = service.endpoints.len();
        let are_in = service.endpoints.iter();
        let are_in = are_in.filter(|it| it.standing.is_in()).count();
        let (name, policy) = (&service.name, service.policy.label);
        write!(
            f,
            "service {name}   {policy}   {are_in} of {all} endpoints in"
        )?;
        let open = service.fails_open;
        writeln!(f, "{}", if open { ", so all are used" } else { "" })?;
        for backend in self.stated(shown) {
            show_backend(f, &backend)?;
        }
        for (endpoint, _, seen) in shown.endpoints() {
            self.show_endpoint(f, endpoint, seen)?;
        }
        shown.known.names.iter().try_for_each(|it| show_name(f, it))
    }

    fn show_endpoint(
        &self,
        f: &mut fmt::Formatter<'_>,
        endpoint: &Endpoint,
        seen: Option<&Seen>,
    ) -> fmt::Result {
        let (name, weight) = (&endpoint.name, endpoint.weight);
        let standing = endpoint.standing.label();
        write!(f, "  endpoint {name}   weight {weight}   {standing}")?;
        let Some(seen) = seen else {
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

fn show_reloads(f: &mut fmt::Formatter<'_>, reloads: &Reloads) -> fmt::Result {
    let (done, refused) = (reloads.done, reloads.refused);
    write!(f, "reloads   done {done}   refused {refused}")?;
    if let Some(last) = &reloads.last {
        write!(f, "   last at {}: ", last.at)?;
        match last.done {
            None => f.write_str("refused")?,
            Some(DoneReload {
                generation,
                added,
                changed,
                removed,
            }) => write!(
                f,
                "generation {generation}, added {added}, changed {changed}, removed {removed}"
            )?,
        }
    }
    writeln!(
        f,
        "{}",
        if reloads.under_way {
            "   another is under way"
        } else {
            ""
        }
    )?;
    let refusal = reloads.refusal.iter().flat_map(|reason| reason.lines());
    refusal
        .take(REFUSAL_LINES_MAX)
        .try_for_each(|line| writeln!(f, "  refused: {line}"))
}

fn show_shard(f: &mut fmt::Formatter<'_>, number: usize, shard: &Shard) -> fmt::Result {
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
        write!(f, " (the file: {})", backend.file())?;
    }
    let backup = backend.written.backup;
    writeln!(f, "{}", if backup { "   backup" } else { "" })
}

fn show_name(f: &mut fmt::Formatter<'_>, name: &Name) -> fmt::Result {
    write!(f, "  name {}   {} addresses", name.name, name.addresses)?;
    if let Some((lasted, times, reason)) = &name.failing {
        let lasted = format_duration(*lasted);
        write!(f, "   failing for {lasted}, {times} times: {reason}")?;
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
