//! States of backends that an operator has set at run time, beside what the file says.
//!
//! Plain data, by the names of services and backends as the file has them. Only what differs from
//! the file is kept, and no longer than until the file says something else of that backend. Pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{self, Config};

/// A state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// It gets exchanges, as far as it is well.
    Ready,
    /// It gets nothing new; what runs there finishes.
    Drain,
    /// As `Drain`, and it is not probed: it is expected to be away.
    Down,
}

impl Override {
    const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Down];

    /// Its word in the admin API and in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }

    /// The one with this word.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.label() == label)
    }

    /// What the file says of `backend`.
    pub const fn written(backend: &config::Backend) -> Self {
        if backend.drain {
            Self::Drain
        } else {
            Self::Ready
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// All that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// By service and backend, both by name; no service without one.
    set: BTreeMap<String, BTreeMap<String, Override>>,
}

impl Overrides {
    /// None.
    pub const fn new() -> Self {
        Self {
            set: BTreeMap::new(),
        }
    }

    /// What is set for `backend` of the service of that name; `None` where the file's word holds.
    pub fn of(&self, service: &str, backend: &config::Backend) -> Option<Override> {
        // Nearly always there is none, and a backend's name has to be written out first.
        let of_service = self.set.get(service)?;
        of_service.get(&backend.address.to_string()).copied()
    }

    /// What `backend` is, by both words.
    pub fn state(&self, service: &str, backend: &config::Backend) -> Override {
        let set = self.of(service, backend);
        set.unwrap_or(Override::written(backend))
    }

    /// True exactly when a backend of `service` may get exchanges, as far as operators say.
    pub fn has_ready(&self, service: &config::Service) -> bool {
        let mut backends = service.backends.iter();
        backends.any(|backend| self.state(&service.name, backend) == Override::Ready)
    }

    /// `backend` is `state` from now on.
    pub fn set(&mut self, service: &str, backend: &config::Backend, state: Override) {
        let name = backend.address.to_string();
        if state != Override::written(backend) {
            let of_service = self.set.entry(service.to_owned()).or_default();
            of_service.insert(name, state);
        } else if let Some(of_service) = self.set.get_mut(service) {
            of_service.remove(&name);
            self.set.retain(|_, of_service| !of_service.is_empty());
        }
    }

    /// Every one: service, backend and state, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Override)> {
        self.set.iter().flat_map(|(service, of_service)| {
            let of_service = of_service.iter();
            of_service.map(move |(backend, state)| (service.as_str(), backend.as_str(), *state))
        })
    }

    /// Forgets those of backends that `next` has not, or of which it says something else than
    /// `last` did; gives them.
    pub fn keep(&mut self, last: &Config, next: &Config) -> Vec<(String, String, Override)> {
        self.keep_where(|service, backend| {
            let said = word(next, service, backend);
            said.is_some() && said == word(last, service, backend)
        })
    }

    /// Every one with what `config` says of its backend: service, backend, state, the file's.
    pub fn said<'a>(
        &'a self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'a str, &'a str, Override, Override)> {
        self.iter().filter_map(|(service, backend, state)| {
            let said = word(config, service, backend)?;
            Some((service, backend, state, said))
        })
    }

    /// Takes over what another process has had, as [`Overrides::said`] gives it. Forgets those of
    /// backends that `config` has not, or of which it says something else; gives them.
    pub fn inherit(
        &mut self,
        handed: Vec<(String, String, Override, Override)>,
        config: &Config,
    ) -> Vec<(String, String, Override)> {
        let mut gone = Vec::new();
        for (service, backend, state, said) in handed {
            if word(config, &service, &backend) == Some(said) {
                self.extend([(service, backend, state)]);
            } else {
                gone.push((service, backend, state));
            }
        }
        gone
    }

    fn keep_where(
        &mut self,
        stays: impl Fn(&str, &str) -> bool,
    ) -> Vec<(String, String, Override)> {
        let all = std::mem::take(self);
        let owned = |(service, backend, state): (&str, &str, _)| {
            (service.to_owned(), backend.to_owned(), state)
        };
        let (kept, gone): (Vec<_>, Vec<_>) = all
            .iter()
            .map(owned)
            .partition(|(service, backend, _)| stays(service, backend));
        self.extend(kept);
        gone
    }
}

impl Extend<(String, String, Override)> for Overrides {
    /// As another process has had them: service, backend and state.
    fn extend<I: IntoIterator<Item = (String, String, Override)>>(&mut self, all: I) {
        for (service, backend, state) in all {
            self.set.entry(service).or_default().insert(backend, state);
        }
    }
}

/// What `config` says of a backend; `None` where it has no such one.
fn word(config: &Config, service: &str, backend: &str) -> Option<Override> {
    let mut services = config.services().iter();
    let service = services.find(|it| it.name == service)?;
    let mut backends = service.backends.iter();
    let found = backends.find(|it| it.address.to_string() == backend)?;
    Some(Override::written(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The services `a` and `b`, each with these backends.
    fn config(a: &str, b: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n\
             [[service]]\nname = \"a\"\nbackends = [{a}]\n\
             [[service]]\nname = \"b\"\nbackends = [{b}]\n"
        );
        config::parse("config.toml", &text).expect("the text breaks no rule")
    }

    const ONE: &str = r#""127.0.0.1:1", "x.test:2""#;

    fn lines(overrides: &Overrides) -> Vec<String> {
        let line = |(service, backend, state)| format!("{service} {backend} {state}");
        overrides.iter().map(line).collect()
    }

    /// All of `config`, in the order of the file, set to `state`.
    fn all(config: &Config, state: Override) -> Overrides {
        let mut overrides = Overrides::new();
        for service in config.services() {
            for backend in &service.backends {
                overrides.set(&service.name, backend, state);
            }
        }
        overrides
    }

    #[test]
    fn what_the_file_says_anyway_is_not_kept() {
        let config = config(ONE, r#"{ address = "[::1]:1", drain = true }"#);
        let readied = all(&config, Override::Ready);
        assert_eq!(lines(&readied), ["b [::1]:1 ready"]);
        assert!(config.services().iter().all(|it| readied.has_ready(it)));
        let drained = all(&config, Override::Drain);
        assert_eq!(lines(&drained), ["a 127.0.0.1:1 drain", "a x.test:2 drain"]);
        let mut down = all(&config, Override::Down);
        assert_eq!(down.iter().count(), 3);
        let service = &config.services()[0];
        assert!(!down.has_ready(service) && !drained.has_ready(service));
        let backend = &service.backends[1];
        assert_eq!(down.state("a", backend), Override::Down);
        down.set("a", backend, Override::Ready);
        assert_eq!(down.of("a", backend), None);
        assert_eq!(down.state("a", backend), Override::Ready);
        assert_eq!(lines(&down), ["a 127.0.0.1:1 down", "b [::1]:1 down"]);
    }

    /// What is left of all that are down with `last`, once the file is `next`.
    #[track_caller]
    fn check(last: &Config, next: &Config, expected: &[&str]) {
        let mut overrides = all(last, Override::Down);
        let before = overrides.iter().count();
        let gone = overrides.keep(last, next);
        assert_eq!(lines(&overrides), expected);
        assert_eq!(before, expected.len() + gone.len());
    }

    #[test]
    fn a_state_stays_until_the_file_says_otherwise_of_that_backend() {
        let last = config(ONE, r#"{ address = "127.0.0.1:1", drain = true }"#);
        let same = [
            "a 127.0.0.1:1 down",
            "a x.test:2 down",
            "b 127.0.0.1:1 down",
        ];
        check(&last, &last, &same);
        // Another order, another weight and others beside them change nothing.
        let other = config(
            r#""127.0.0.1:9", { address = "x.test:2", weight = 7, drain = false }, "127.0.0.1:1""#,
            r#"{ address = "127.0.0.1:1", drain = true }, "127.0.0.1:2""#,
        );
        check(&last, &other, &same);
        let readied = config(ONE, r#""127.0.0.1:1""#);
        check(&last, &readied, &same[..2]);
        let drained = config(
            r#""127.0.0.1:1", { address = "x.test:2", drain = true }"#,
            r#"{ address = "127.0.0.1:1", drain = true }"#,
        );
        check(&last, &drained, &[same[0], same[2]]);
        let fewer = config(r#""127.0.0.1:1""#, r#""127.0.0.1:3""#);
        check(&last, &fewer, &same[..1]);
    }

    #[test]
    fn an_upgrade_keeps_those_of_which_the_file_says_what_it_said() {
        let last = config(ONE, r#""127.0.0.1:1""#);
        let overrides = all(&last, Override::Down);
        let handed = || {
            let all = overrides.said(&last);
            let owned = all.map(|(service, backend, state, said)| {
                (service.to_owned(), backend.to_owned(), state, said)
            });
            owned.collect::<Vec<_>>()
        };
        let mut others = Overrides::new();
        assert_eq!(others.inherit(handed(), &last), []);
        assert_eq!(others, overrides);
        // One is to be drained by now, another one is gone.
        let next = config(
            r#""127.0.0.1:1", { address = "x.test:2", drain = true }"#,
            r#""127.0.0.1:3""#,
        );
        let mut others = Overrides::new();
        let gone = others.inherit(handed(), &next);
        let names = gone
            .iter()
            .map(|(service, backend, _)| format!("{service} {backend}"));
        assert_eq!(names.collect::<Vec<_>>(), ["a x.test:2", "b 127.0.0.1:1"]);
        assert_eq!(lines(&others), ["a 127.0.0.1:1 down"]);
    }
}
