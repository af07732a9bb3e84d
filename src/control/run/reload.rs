//! Another configuration takes the place of the one that runs.

use super::super::supervisor::Supervisor;
use super::Control;
use crate::config::Config;
use crate::plan::Life;

impl Control {
    /// Loads the configuration anew, and runs it where it is good. Gives the number of the plan
    /// that has it, or why nothing is changed; the log has it too.
    pub(super) fn reload(&mut self, supervisor: &mut dyn Supervisor) -> Result<u64, String> {
        if self.is_leaving() {
            log::warn!("draining: no other configuration is loaded any more");
            return Err("draining".to_owned());
        }
        let Some(source) = &mut self.source else {
            log::warn!("there is no file to load from; nothing is changed");
            return Err("there is no file to load from".to_owned());
        };
        let from = source.name();
        match source.load() {
            Ok(next) => self.adopt(next, supervisor),
            Err(errors) => {
                log::error!(from, errors:%; "refused; nothing is changed");
                Err(errors.to_string())
            }
        }
    }

    fn adopt(&mut self, next: Config, supervisor: &mut dyn Supervisor) -> Result<u64, String> {
        let opening = match self.open_listeners(&next, supervisor) {
            Ok(opening) => opening,
            Err(error) => {
                log::error!(error; "refused; nothing is changed");
                return Err(error);
            }
        };
        for (written, bound) in next.listeners().iter().zip(&opening.bound) {
            if opening.fresh.contains(&bound.id) {
                let (listener, address) = (written.name.as_str(), bound.address);
                log::info!(listener, address:%; "listening");
            }
        }
        self.take_listeners(&next, opening, supervisor);
        let last = std::mem::replace(&mut self.config, next.clone());
        self.keep_overrides(&last, &next);
        self.publish(Life::Serving);
        log::info!(generation = self.live.generation; "reloaded");
        Ok(self.live.generation)
    }
}
