//! The plan that runs, shown to who asks for it.

use std::process;

use super::super::admin::PlanFormat;
use super::super::view::{self, View};
use super::report::standing_back;
use super::{Control, now};

impl Control {
    /// What runs now, in `format`; a plan of thousands of endpoints takes some ten milliseconds.
    pub(super) fn show_plan(&self, format: PlanFormat) -> Option<String> {
        let posted = self.publisher.current()?;
        let counters = self.publisher.shard_counters().iter();
        let known = self.shards.iter().zip(counters).enumerate();
        let shards = known.map(|(number, (life, counters))| view::Shard {
            generation: self.publisher.adopted(number),
            runs: life.runs(),
            driver: life.driver.as_deref(),
            connections: counters.clients_open.get(),
        });
        let now = now();
        let view = View {
            process: view::Process {
                version: env!("CARGO_PKG_VERSION"),
                pid: process::id(),
                started: self.born.to_string(),
                up: now - self.started,
                unready: self.unready(),
            },
            shards: shards.collect(),
            plan: &posted.plan,
            config: &self.config,
            live: &self.live,
            standings: &self.standings,
            names: &self.naming.names,
            now,
        };
        Some(standing_back(|| match format {
            PlanFormat::Json => view.json(),
            PlanFormat::Text => view.to_string(),
        }))
    }
}
