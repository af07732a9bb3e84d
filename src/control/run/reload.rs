//! Another configuration takes the place of the one that runs.

use super::super::supervisor::Supervisor;
use super::Control;
use crate::config::Config;
use crate::plan::Life;

impl Control {
    /// Loads the configuration anew, and runs it where it is good.
    pub(super) fn reload(&mut self, supervisor: &mut dyn Supervisor) {
        if self.upgrading.is_some() {
            log::warn!("the reload is refused: an upgrade is under way");
            return;
        }
        self.systemd.reloading();
        self.load(supervisor);
        self.systemd.ready("serving");
    }

    fn load(&mut self, supervisor: &mut dyn Supervisor) {
        let Some(source) = &mut self.source else {
            log::warn!("there is no file to load from; nothing is changed");
            return;
        };
        let from = source.name();
        match source.load() {
            Ok(next) => self.adopt(next, supervisor),
            Err(errors) => log::error!(from, errors:%; "refused; nothing is changed"),
        }
    }

    fn adopt(&mut self, next: Config, supervisor: &mut dyn Supervisor) {
        let opening = match self.open_listeners(&next, supervisor) {
            Ok(opening) => opening,
            Err(error) => {
                log::error!(error; "refused; nothing is changed");
                return;
            }
        };
        for (written, bound) in next.listeners().iter().zip(&opening.bound) {
            if opening.fresh.contains(&bound.id) {
                let (listener, address) = (written.name.as_str(), bound.address);
                log::info!(listener, address:%; "listening");
            }
        }
        self.take_listeners(&next, opening, supervisor);
        self.config = next;
        self.publish(Life::Serving);
        log::info!(generation = self.live.generation; "reloaded");
    }
}
