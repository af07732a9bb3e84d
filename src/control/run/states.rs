//! States of backends that are set at run time.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::super::admin::Reply;
use super::super::compile::{Override, Stands};
use super::ready::no_such;
use super::{Control, now, say};
use crate::config::{self, Config};

/// How long who has set a state waits for the shards at most.
const ADOPTION: Duration = Duration::from_secs(1);

/// A change that the shards have not all adopted yet.
#[derive(Debug)]
pub(super) struct Adopting {
    /// The first plan that has it.
    generation: u64,
    /// When that is answered for, adopted or not.
    deadline: Instant,
    text: String,
    answer: oneshot::Sender<Reply>,
}

impl Control {
    /// `backend` of `service` is `state` from the next plan on. `answer` is told once every shard
    /// runs that.
    pub(super) fn set_state(
        &mut self,
        service: &str,
        backend: &str,
        state: Override,
        answer: oneshot::Sender<Reply>,
    ) {
        match self.take_state(service, backend, state) {
            Ok(text) => {
                let is_due = self.standings.is_due(now());
                self.adopting.push(Adopting {
                    generation: self.live.generation + u64::from(is_due),
                    deadline: now() + ADOPTION,
                    text,
                    answer,
                });
            }
            Err(reply) => {
                // An error: the client has gone meanwhile.
                let _told = answer.send(reply);
            }
        }
    }

    /// Gives what is to be said of it.
    fn take_state(
        &mut self,
        service: &str,
        backend: &str,
        state: Override,
    ) -> Result<String, Reply> {
        if self.draining.is_some() {
            let text = "draining: nothing is changed any more";
            return Err(Reply::new(StatusCode::CONFLICT, text));
        }
        let place = self.service_at(service)?;
        let service = &self.config.services()[place];
        let backend = backend_of(service, backend)?;
        let overrides = &mut self.live.overrides;
        let before = overrides.state(&service.name, backend);
        let mut text = format!(
            "backend {} of service {:?} is {state}",
            backend.address, service.name
        );
        if before == state {
            text.push_str(", as it was");
        } else {
            overrides.set(&service.name, backend, state);
            log::info!(
                service = service.name.as_str(), backend:% = backend.address,
                from:% = before, to:% = state;
                "a backend's state is set"
            );
        }
        if !overrides.has_ready(service) {
            text.push_str(
                "; warning: no backend of the service is ready, so its requests get 503 \
                 destination_unavailable",
            );
        }
        if before != state {
            let stands = Stands::of(service, &self.live);
            say(&self.standings.follow(&service.name, &stands, now()));
            let health = |address| self.standings.health(&service.name, address);
            self.probers.follow(service, &stands, health);
        }
        Ok(text)
    }

    /// Answers those whose changes every shard that runs has adopted, or for whom it takes too
    /// long.
    pub(super) fn look_at_adopting(&mut self) {
        let now = now();
        for adopting in std::mem::take(&mut self.adopting) {
            let late = self.shards_behind(adopting.generation);
            if !late.is_empty() && now < adopting.deadline {
                self.adopting.push(adopting);
                continue;
            }
            let Adopting { text, answer, .. } = adopting;
            let reply = if late.is_empty() {
                Reply::new(StatusCode::OK, text)
            } else {
                let late: Vec<String> = late.iter().map(|it| format!("shard {it}")).collect();
                let late = late.join(", ");
                let text = format!("{text}; {late}: late, and will follow");
                Reply::new(StatusCode::ACCEPTED, text)
            };
            // An error: the client has gone meanwhile.
            let _told = answer.send(reply);
        }
    }

    /// The states of backends of which the configuration says something else than `last` did, or
    /// that it has not, are the file's again. To be called before a plan of it is compiled.
    pub(super) fn keep_overrides(&mut self, last: &Config) {
        say_forgotten(self.live.overrides.keep(last, &self.config));
    }
}

/// The states of these backends, by service and backend, are the file's again.
pub(super) fn say_forgotten(forgotten: Vec<(String, String, Override)>) {
    for (service, backend, state) in forgotten {
        log::info!(service, backend, was:% = state; "a backend's state is the file's again");
    }
}

/// The backend of `service` that the operator wrote so; case and the spelling of an address do not
/// matter.
fn backend_of<'a>(service: &'a config::Service, name: &str) -> Result<&'a config::Backend, Reply> {
    let address = name.parse().ok();
    let is_it = |backend: &&config::Backend| {
        let written = &backend.address;
        (address.is_some() && written.socket() == address)
            || written.to_string().eq_ignore_ascii_case(name)
    };
    let found = service.backends.iter().find(is_it);
    found.ok_or_else(|| {
        let names = service.backends.iter().map(|it| it.address.to_string());
        let names: Vec<String> = names.collect();
        no_such(
            &format!("backend of service {:?} called", service.name),
            name,
            names.iter().map(String::as_str),
        )
    })
}
