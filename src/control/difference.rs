//! What another configuration adds, changes, removes and keeps, and what that means for those who
//! are connected.
//!
//! Pure: two configurations and, where they are known, numbers of clients go in. The log of a
//! reload, the admin API and `ringmain check --diff` say the same words, these. Listeners are the
//! same by their address, services by their name, backends by their address, routes by what they
//! match. What the operator may want to hide, the values of fields and the arguments of commands,
//! is compared and not shown.

mod keys;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::run::is_same_listener;
use crate::config::{Config, Listener, Route, Service};
use crate::units::format_duration;

use keys::{Key, Keys};

/// How many changes the log of a reload names; of more it says how many.
const LOGGED_MAX: usize = 50;

/// What comes of another order of what is there.
const ORDER: &str = "holds from now on; connections, health and counters stay";

/// How many clients a listener has now; `None` where that is not known.
pub type Clients<'a> = dyn Fn(&Listener) -> Option<u64> + 'a;

/// What another configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In the order of the tables: those of the process, listeners, services with their backends,
    /// routes.
    pub changes: Vec<Change>,
    /// What is not touched.
    pub kept: Kept,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What becomes of it.
    pub verb: Verb,
    /// What it is of: `backend 127.0.0.1:9090 of my-service`.
    pub what: String,
    /// Which keys of it, with their values: `timeouts.connect 1s -> 2s`; none where it is added or
    /// removed.
    pub keys: Vec<String>,
    /// What comes of it.
    pub effect: String,
}

/// What becomes of a part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It was not there.
    Added,
    /// It was there, and is another.
    Changed,
    /// It is there no more.
    Removed,
}

/// How much is not touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Listeners.
    pub listeners: usize,
    /// Services.
    pub services: usize,
    /// Backends, those of changed services included.
    pub backends: usize,
    /// Routes.
    pub routes: usize,
}

impl Difference {
    /// What `next` changes where `last` runs.
    pub fn of(last: &Config, next: &Config, clients: &Clients<'_>) -> Self {
        let mut difference = Self {
            changes: Vec::new(),
            kept: Kept::default(),
        };
        difference.compare_tables(last, next);
        difference.compare_listeners(last, next, clients);
        difference.compare_services(last, next);
        difference.compare_routes(last, next);
        difference
    }

    /// True exactly when the two say the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there are of a kind.
    pub fn count(&self, verb: Verb) -> usize {
        let changes = self.changes.iter();
        changes.filter(|change| change.verb == verb).count()
    }

    /// Writes its lines, not more than an operator reads.
    pub fn log(&self) {
        for change in self.changes.iter().take(LOGGED_MAX) {
            log::info!("reload: {change}");
        }
        let more = self.changes.len().saturating_sub(LOGGED_MAX);
        if 0 < more {
            log::info!("reload: and {more} more changes");
        }
    }

    fn push(&mut self, verb: Verb, what: String, keys: Vec<String>, effect: impl Into<String>) {
        self.changes.push(Change {
            verb,
            what,
            keys,
            effect: effect.into(),
        });
    }

    fn compare_tables(&mut self, last: &Config, next: &Config) {
        let fixed = changed(&keys::fixed(last.runtime()), &keys::fixed(next.runtime()));
        let tables = [
            (
                "[runtime]",
                changed(&last.runtime().keys(), &next.runtime().keys()),
                "holds from now on",
            ),
            (
                "[runtime]",
                fixed,
                "stays as it was until an upgrade (SIGUSR2) or a restart",
            ),
            (
                "[admin]",
                changed(&last.admin().keys(), &next.admin().keys()),
                "the admin API answers there; who is connected gets an answer",
            ),
            (
                "[log]",
                changed(&last.log().keys(), &next.log().keys()),
                "records are written so from now on",
            ),
            (
                "[dns]",
                changed(&last.dns().keys(), &next.dns().keys()),
                "names are asked for anew; what they stand for stays until then",
            ),
        ];
        for (table, keys, effect) in tables {
            if !keys.is_empty() {
                self.push(Verb::Changed, table.to_owned(), keys, effect);
            }
        }
    }

    fn compare_listeners(&mut self, last: &Config, next: &Config, clients: &Clients<'_>) {
        let what = |it: &Listener| format!("listener {} {}", it.name, it.address);
        let of_clients = |it: &Listener| {
            let clients = clients(it);
            clients.map_or_else(String::new, |count| format!(" ({count})"))
        };
        for listener in next.listeners() {
            let mut had = last.listeners().iter();
            let Some(had) = had.find(|had| is_same_listener(had, listener)) else {
                self.push(Verb::Added, what(listener), vec![], "accepts from now on");
                continue;
            };
            if had == listener {
                self.kept.listeners += 1;
                continue;
            }
            let effect = format!(
                "its socket and its clients stay{}, and their next exchanges have it",
                of_clients(had)
            );
            let keys = changed(&had.keys(), &listener.keys());
            self.push(Verb::Changed, what(listener), keys, effect);
        }
        let timeout = next.runtime().drain_timeout;
        for listener in last.listeners() {
            let mut stays = next.listeners().iter();
            if stays.all(|next| !is_same_listener(listener, next)) {
                let effect = format!(
                    "who is queued is let in, then it is closed; its clients{} get one more answer \
                     each, and are cut after {}",
                    of_clients(listener),
                    format_duration(timeout)
                );
                self.push(Verb::Removed, what(listener), vec![], effect);
            }
        }
        let names = |config: &Config| -> Vec<String> {
            let listeners = config.listeners().iter();
            listeners.map(|it| it.name.clone()).collect()
        };
        self.compare_order("the listeners", &names(last), &names(next));
    }

    /// Says that those of `last` that `next` has too stand otherwise there; what has gone or come
    /// between them is no other order.
    fn compare_order<T: Ord>(&mut self, what: &str, last: &[T], next: &[T]) {
        let places: BTreeMap<&T, usize> = last.iter().zip(0..).collect();
        let stay = next.iter().filter_map(|it| places.get(it));
        if !stay.is_sorted() {
            let what = format!("the order of {what}");
            self.push(Verb::Changed, what, vec![], ORDER);
        }
    }

    fn compare_services(&mut self, last: &Config, next: &Config) {
        let had = last.services().iter();
        let mut had: HashMap<&str, &Service> = had.map(|it| (it.name.as_str(), it)).collect();
        for service in next.services() {
            let what = format!("service {}", service.name);
            let Some(had) = had.remove(service.name.as_str()) else {
                let backends = service.backends.len();
                let effect = format!("is there from now on, with {}", count(backends, "backend"));
                self.push(Verb::Added, what, vec![], effect);
                continue;
            };
            if had == service {
                self.kept.services += 1;
                self.kept.backends += service.backends.len();
                continue;
            }
            let keys = changed(&had.keys(), &service.keys());
            if !keys.is_empty() {
                let effect = "new exchanges have it; connections, health and counters stay";
                self.push(Verb::Changed, what, keys, effect);
            }
            self.compare_backends(had, service);
            let backends = |service: &Service| -> Vec<_> {
                let backends = service.backends.iter();
                backends.map(|it| it.address.clone()).collect()
            };
            let what = format!("the backends of {}", service.name);
            self.compare_order(&what, &backends(had), &backends(service));
        }
        for service in last.services() {
            if had.contains_key(service.name.as_str()) {
                self.push(
                    Verb::Removed,
                    format!("service {}", service.name),
                    vec![],
                    "what runs finishes, tunnels included; idle connections are closed",
                );
            }
        }
        let names = |config: &Config| -> Vec<String> {
            let services = config.services().iter();
            services.map(|it| it.name.clone()).collect()
        };
        self.compare_order("the services", &names(last), &names(next));
    }

    fn compare_backends(&mut self, last: &Service, next: &Service) {
        let had = last.backends.iter();
        let mut had: BTreeMap<_, _> = had.map(|it| (&it.address, it)).collect();
        let what = |address: &dyn fmt::Display| format!("backend {address} of {}", next.name);
        for backend in &next.backends {
            let what = what(&backend.address);
            let Some(had) = had.remove(&backend.address) else {
                let effect = if next.slow_start.is_zero() {
                    "gets its share from now on"
                } else {
                    "gets its share from now on, growing over slow_start"
                };
                self.push(Verb::Added, what, vec![], effect);
                continue;
            };
            if had == backend {
                self.kept.backends += 1;
                continue;
            }
            let effect = match (had.drain, backend.drain) {
                (false, true) => "gets nothing new; what runs finishes",
                (true, false) => "gets its share again",
                _ => "new exchanges have it; connections, health and counters stay",
            };
            self.push(
                Verb::Changed,
                what,
                changed(&had.keys(), &backend.keys()),
                effect,
            );
        }
        for backend in &last.backends {
            if had.contains_key(&backend.address) {
                let effect = "what runs finishes; idle connections are closed";
                self.push(Verb::Removed, what(&backend.address), vec![], effect);
            }
        }
    }

    fn compare_routes(&mut self, last: &Config, next: &Config) {
        // Two routes may match the same; the first of each is the first of the other.
        let mut had: HashMap<Matched<'_>, Vec<(usize, &Route)>> = HashMap::new();
        for (place, route) in last.routes().iter().enumerate().rev() {
            let same = had.entry(matched(route)).or_default();
            same.push((place, route));
        }
        let mut places = Vec::new();
        for route in next.routes() {
            let what = format!("route {}", keys::route(route));
            let same = had.get_mut(&matched(route));
            let Some((place, had)) = same.and_then(Vec::pop) else {
                self.push(Verb::Added, what, vec![], "holds for new requests");
                continue;
            };
            places.push(place);
            if had == route {
                self.kept.routes += 1;
                continue;
            }
            let keys = changed(&had.keys(), &route.keys());
            self.push(Verb::Changed, what, keys, "holds for new requests");
        }
        let mut gone: Vec<_> = had.into_values().flatten().collect();
        gone.sort_by_key(|(place, _)| *place);
        for (_, route) in gone {
            let what = format!("route {}", keys::route(route));
            self.push(Verb::Removed, what, vec![], "holds for new requests");
        }
        if !places.is_sorted() {
            let what = "the order of the routes".to_owned();
            self.push(Verb::Changed, what, vec![], "holds for new requests");
        }
    }
}

/// What a route matches.
type Matched<'a> = (
    &'a str,
    &'a str,
    &'a [String],
    &'a [(String, String)],
    &'a [(String, String)],
);

fn matched(route: &Route) -> Matched<'_> {
    let Route {
        domain,
        path,
        methods,
        fields,
        query,
        service: _,
        weights: _,
    } = route;
    (domain, path, methods, fields, query)
}

/// The keys that are others in `next` than in `last`. Those of a table that one of the two has not
/// are not among them: that it is absent is a key by itself.
fn changed(last: &[Key], next: &[Key]) -> Vec<String> {
    let line = |next: &Key| {
        let last = last.iter().find(|last| last.name == next.name)?;
        match next.hidden {
            _ if last.value == next.value => None,
            true => Some(format!("{} (its value is not shown)", next.name)),
            false => Some(format!("{} {} -> {}", next.name, last.value, next.value)),
        }
    };
    next.iter().filter_map(line).collect()
}

impl Verb {
    const fn label(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            what,
            keys,
            effect,
        } = self;
        write!(f, "{} {what}: ", verb.label())?;
        if !keys.is_empty() {
            write!(f, "{}; ", keys.join(", "))?;
        }
        f.write_str(effect)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "nothing differs")?;
        }
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        let Kept {
            listeners,
            services,
            backends,
            routes,
        } = self.kept;
        writeln!(
            f,
            "kept {}, {}, {}, {}: not touched",
            count(listeners, "listener"),
            count(services, "service"),
            count(backends, "backend"),
            count(routes, "route"),
        )
    }
}

/// `1 backend`, `2 backends`.
fn count(count: usize, one: &str) -> String {
    let many = if count == 1 { "" } else { "s" };
    format!("{count} {one}{many}")
}

#[cfg(test)]
mod tests;
