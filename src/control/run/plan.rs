//! The plan that runs, shown to who asks for it.
//!
//! To write out ten thousand endpoints takes some ten milliseconds of a CPU, and much longer where
//! the shards leave none. So control gathers what there is to show, which takes two or three, and a
//! thread of its own writes it, on what the shards leave.

use std::process;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use jiff::{Timestamp, Unit};
use tokio::sync::oneshot;

use super::super::admin::PlanFormat;
use super::super::view::{self, View};
use super::reload::{Outcome, Reloads};
use super::{Control, now};
use crate::fd::{self, Behind};
use crate::plan::{Plan, Service};
use crate::tally::report::NameReport;

impl Control {
    /// Has `answer` told what runs now, in `format`.
    pub(super) fn show_plan(&self, format: PlanFormat, answer: oneshot::Sender<String>) {
        let Some(plan) = self.plan() else { return };
        let view = self.view(plan);
        let write = move || {
            fd::stand_back(Behind::Reports);
            let text = match format {
                PlanFormat::Json => view.json(),
                PlanFormat::Text => view.to_string(),
            };
            // An error: the client has gone meanwhile.
            let _told = answer.send(text);
        };
        // The clients are few, and so are these threads. Without one to be had the client gets a
        // 503, as the sender is dropped.
        if let Err(error) = thread::Builder::new().name("plan".to_owned()).spawn(write) {
            log::warn!(error:%; "no thread to show the plan with");
        }
    }

    fn view(&self, plan: Arc<Plan>) -> View {
        let now = now();
        let counters = self.publisher.shard_counters().iter();
        let shards = self.shards.iter().zip(counters).enumerate();
        let shards = shards.map(|(number, (life, counters))| view::Shard {
            generation: self.publisher.adopted(number),
            runs: life.runs(),
            driver: life.driver.clone(),
            connections: counters.clients_open.get(),
        });
        let leaving = self.live.leaving.iter().map(|leaving| &leaving.bound);
        let bound = self.live.bound.iter().chain(leaving);
        let services = plan.services.iter();
        View {
            process: view::Process {
                version: env!("CARGO_PKG_VERSION"),
                pid: process::id(),
                started: calendar(self.born),
                up: now - self.started,
                unready: self.unready(),
            },
            shards: shards.collect(),
            reloads: self.seen_reloads(),
            config: self.config.clone(),
            overrides: self.live.overrides.clone(),
            bound: bound
                .map(|bound| {
                    let clients = self.publisher.clients_of(bound.id);
                    (bound.id, (bound.address, clients))
                })
                .collect(),
            known: services.map(|it| self.known(it)).collect(),
            now,
            plan,
        }
    }

    fn seen_reloads(&self) -> view::Reloads {
        let Reloads {
            done,
            refused,
            last,
            refusal,
            ..
        } = &self.reloads;
        view::Reloads {
            done: *done,
            refused: *refused,
            under_way: self.reloads.is_under_way(),
            last: last.as_ref().map(|(at, outcome)| view::LastReload {
                at: calendar(*at),
                done: match outcome {
                    Outcome::Done {
                        generation,
                        added,
                        changed,
                        removed,
                    } => Some(view::DoneReload {
                        generation: *generation,
                        added: *added,
                        changed: *changed,
                        removed: *removed,
                    }),
                    Outcome::Refused { .. } => None,
                },
            }),
            refusal: refusal.clone(),
        }
    }

    fn known(&self, service: &Service) -> view::Known {
        let endpoints = service.endpoints.iter();
        let names = self.naming.names.report(&service.name, now());
        view::Known {
            endpoints: endpoints
                .map(|endpoint| self.standings.seen(&service.name, endpoint.address))
                .collect(),
            names: names.iter().map(name).collect(),
        }
    }
}

/// In whole seconds (RFC 3339).
fn calendar(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    // Only years that have no four digits cannot be rounded.
    time.round(Unit::Second).unwrap_or(time).to_string()
}

fn name(name: &NameReport<'_>) -> view::Name {
    let failing = name.failure.as_ref();
    view::Name {
        name: name.name.clone(),
        addresses: name.addresses,
        remarks: name.remarks.to_vec(),
        failing: failing.map(|it| (it.lasted, it.times, it.reason.to_owned())),
    }
}
