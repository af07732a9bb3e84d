//! Reports: asked for, collected from the shards, given to who wanted them.

use std::panic::resume_unwind;
use std::process;
use std::thread;
use std::time::SystemTime;

use super::super::admin::WantedReport;
use super::super::collect::Collected;
use super::{Control, now};
use crate::fd::{self, Behind};
use crate::tally::report::{Process, Report};

/// Who wants a report.
#[derive(Debug)]
pub(super) enum Asker {
    /// SIGUSR1: it goes to standard output.
    Output,
    /// A client of the admin API.
    Client(WantedReport),
}

impl Control {
    pub(super) fn ask(&mut self, asker: Asker) {
        self.collecting.ask(asker);
        self.collect();
    }

    /// Moves the collecting on, and serves those for whom it is done.
    pub(super) fn collect(&mut self) {
        let text = if self.collecting.is_under_way() {
            standing_back(Behind::Reports, || self.move_on())
        } else {
            self.move_on()
        };
        if let Some(text) = text {
            self.printer.print(text);
        }
    }

    /// As [`Control::collect`]; gives what is to be printed.
    fn move_on(&mut self) -> Option<String> {
        let shards = &self.shards;
        let is_alive = |shard: usize| shards[shard].runs();
        let collected = self
            .collecting
            .advance(&mut self.publisher, is_alive, now());
        let Collected { served, late } = collected?;
        self.hear();
        self.serve(served, late)
    }

    /// Answers the clients among `served`; gives the text for standard output if it is wanted
    /// there, once for all who want it: it is one place.
    pub(super) fn serve(&self, served: Vec<Asker>, late: Vec<usize>) -> Option<String> {
        if served.is_empty() {
            return None;
        }
        let report = self.report(late);
        let mut text = None;
        for asker in served {
            match asker {
                Asker::Output => {
                    text.get_or_insert_with(|| report.to_string());
                }
                // Whoever has gone is spared the work.
                Asker::Client(WantedReport { answer, .. }) if answer.is_closed() => {}
                Asker::Client(WantedReport { query, answer }) => {
                    let excerpt = report.clone().excerpt(&query.selection);
                    let rendered =
                        excerpt.and_then(|excerpt| excerpt.render(query.format, SystemTime::now()));
                    // An error: the client has gone meanwhile.
                    let _answered = answer.send(rendered);
                }
            }
        }
        text
    }

    /// Without what the shards in `late` have recorded lately.
    pub(super) fn report(&self, late: Vec<usize>) -> Report<'_> {
        let driver = self.shards.iter().find_map(|shard| shard.driver.as_deref());
        let process = Process {
            version: env!("CARGO_PKG_VERSION"),
            pid: process::id(),
            started: self.born,
            up: now() - self.started,
            driver: driver.unwrap_or("starting"),
            reloads: self.reloads.report(),
        };
        let mut report = self.publisher.report(process, late);
        for service in &mut report.services {
            service.names = self.naming.names.report(service.name, now());
        }
        report
    }
}

/// Does `work` on a thread that gets only what the shards leave of the CPUs: a report of 1,000
/// endpoints, or a plan of 10,000, takes some ten milliseconds, and the p99 of what the shards
/// serve meanwhile would feel it. Control waits; its own thread keeps its priority, which the
/// shards that it starts inherit.
pub(super) fn standing_back<T: Send>(behind: Behind, mut work: impl FnMut() -> T + Send) -> T {
    let done = thread::scope(|scope| {
        let standing_back = thread::Builder::new().spawn_scoped(scope, || {
            fd::stand_back(behind);
            work()
        });
        standing_back.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // Without a thread to be had, the work is done all the same.
    done.unwrap_or_else(|_error| work())
}
