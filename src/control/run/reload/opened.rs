//! What the next configuration needs of the kernel, opened before anything of the one that runs is
//! touched: what cannot be had refuses the reload.

use super::super::super::admin;
use super::super::super::log::NextLog;
use super::super::super::supervisor::Supervisor;
use super::super::Control;
use super::super::listeners::Opening;
use crate::config::{AdminAddress, Config};

/// What was opened.
#[derive(Debug)]
pub(super) struct Opened {
    listeners: Opening,
    /// `None` where the log stays as it is.
    log: Option<NextLog>,
    /// `None` where the admin API stays where it is, or off.
    admin: Option<Option<admin::Bound>>,
}

impl Opened {
    /// It is not needed any more: no plan ever had it, so that no shard would empty it.
    pub(super) fn close(self, supervisor: &mut dyn Supervisor) {
        for fresh in self.listeners.fresh {
            supervisor.let_go(fresh);
        }
    }
}

impl Control {
    /// Opens what `next` needs and the configuration that runs does not.
    ///
    /// # Errors
    /// What cannot be had; then nothing is open that was not before.
    pub(super) fn open(
        &self,
        next: &Config,
        supervisor: &mut dyn Supervisor,
    ) -> Result<Opened, String> {
        let log = (next.log() != self.config.log()).then(|| NextLog::open(&next.log().into()));
        let log = log.transpose().map_err(|error| error.to_string())?;
        let address = &next.admin().address;
        let admin = (next.admin() != self.config.admin()).then(|| admin::Bound::open(address));
        let admin = admin.transpose();
        let admin = admin.map_err(|error| format!("the admin API: {address}: {error}"))?;
        let listeners = self.open_listeners(next, supervisor)?;
        Ok(Opened {
            listeners,
            log,
            admin,
        })
    }

    /// The next plan, of `next`, has what was opened for it.
    pub(super) fn take_over(
        &mut self,
        next: &Config,
        opened: Opened,
        supervisor: &mut dyn Supervisor,
    ) {
        let Opened {
            listeners,
            log,
            admin,
        } = opened;
        if let Some(log) = log {
            log.take_over();
        }
        for (written, bound) in next.listeners().iter().zip(&listeners.bound) {
            if listeners.fresh.contains(&bound.id) {
                let (listener, address) = (written.name.as_str(), bound.address);
                log::info!(listener, address:%; "listening");
            }
        }
        self.take_listeners(next, listeners, supervisor);
        if let Some(bound) = admin {
            let address = bound.as_ref().map(|bound| bound.address().clone());
            let address = address.unwrap_or(AdminAddress::Off);
            match supervisor.serve_admin(bound) {
                Ok(()) => log::info!(address:%; "the admin API answers"),
                Err(error) => {
                    log::error!(address:%, error:%; "the admin API cannot answer here");
                }
            }
        }
    }
}
