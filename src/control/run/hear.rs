//! What the shards tell control: notices, and, where some were dropped, what their counters say.

use std::io;
use std::sync::Arc;

use super::super::standing::Place;
use super::{Control, now, say};
use crate::door::Notice;
use crate::plan::ListenerId;

impl Control {
    /// Notes and logs what the shards have to say.
    pub(super) fn hear(&mut self) {
        let plan = self.plan();
        let name_of = |id: Option<ListenerId>| {
            let mut listeners = plan.as_deref()?.listeners.iter();
            let it = listeners.find(|listener| Some(listener.id) == id)?;
            Some(&*it.name)
        };
        let slots = &mut self.slots;
        let mut place_of = |slot| slots.find(plan.as_deref()?, slot);
        // Before the notices: see `catch_up`.
        let counters = self.publisher.shard_counters().iter();
        let dropped: Vec<_> = counters.map(|one| one.notices_dropped.get()).collect();
        for (shard, notice) in self.publisher.notices() {
            match notice {
                Notice::ShardReady { driver, reason } => {
                    if let Some(reason) = reason {
                        log::warn!(shard, driver:%, reason:%; "degraded; see: ringmain doctor");
                    }
                    self.shards[shard].driver = Some(driver.into_owned());
                }
                Notice::AcceptFailed { listener, errno } => {
                    let error = io::Error::from_raw_os_error(errno);
                    let listener = name_of(Some(listener));
                    log::warn!(shard, listener, error:%; "accept failed; resting");
                }
                Notice::ConnectionsMax { listener } => {
                    let listener = name_of(listener);
                    log::warn!(shard, listener; "connections_max is reached; clients are shed");
                }
                Notice::Ejected { slot, reason } => {
                    let eject = |place| self.standings.eject(&place, shard, reason, now());
                    say(&place_of(slot).map_or_else(Vec::new, eject));
                }
                Notice::Readmitted { slot } => {
                    let readmit = |place| self.standings.readmit(&place, shard, now());
                    say(&place_of(slot).map_or_else(Vec::new, readmit));
                }
                Notice::Panicked => {
                    log::error!(shard; "a panic was caught and its connection closed");
                }
                Notice::Drained => log::debug!(shard; "drained"),
            }
        }
        for (shard, dropped) in dropped.into_iter().enumerate() {
            self.catch_up(shard, dropped);
        }
    }

    /// Where notices of `shard` were dropped, reads off its counters what it has ejected. Without
    /// that, an endpoint whose way back nobody heard of would be out for ever: it gets no exchange
    /// that could eject it, and so readmit it, again.
    ///
    /// `dropped` was read before all that the ring held then was heard. A notice that is older than
    /// one of those that were dropped is never heard after the counters: it would eject an endpoint
    /// whose way back they had shown. What the ring holds by now is newer, and where one behind it
    /// was dropped, that is not counted yet and the next call catches up again.
    fn catch_up(&mut self, shard: usize, dropped: u64) {
        let known = &mut self.shards[shard].notices_dropped;
        if dropped == *known {
            return;
        }
        let notices = dropped - std::mem::replace(known, dropped);
        log::warn!(shard, notices; "notices were dropped; the shard's ejections are counted anew");
        let Some(posted) = self.publisher.current() else {
            return;
        };
        let services = posted.counters[shard].services.iter();
        for (service, counters) in posted.plan.services.iter().zip(services) {
            let name: Arc<str> = Arc::from(&*service.name);
            for (endpoint, counters) in service.endpoints.iter().zip(&counters.endpoints) {
                let place = Place {
                    service: Arc::clone(&name),
                    address: endpoint.address,
                };
                let is_out = 0 < counters.ejected.get();
                say(&self.standings.catch_up(&place, shard, is_out, now()));
            }
        }
    }
}
