//! Whether a request is let in, by the limits of its service on this shard.
//!
//! All limits are looked at before anything is noted, so that a request which one of them sheds
//! costs nothing at the others. What is let in holds an [`Admission`] as long as it runs: an
//! exchange until its answer is settled, a tunnel to its end. Plans share the state of a service
//! by its name.

mod bucket;
mod clients;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;

use bucket::{Bucket, Moment};
pub(super) use clients::ClientKey;
use clients::{Clients, Place};

use crate::plan::ServiceLimits;
use crate::tally::{Limit, ServiceCounters};

/// What one service has let in.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// What all clients have spent of the service's rate.
    bucket: Cell<Bucket>,
    /// Admissions that are held.
    running: Cell<u32>,
    /// What each client has; made with the first of them.
    clients: RefCell<Option<Clients>>,
}

/// One that was let in; dropped, it makes room.
#[derive(Debug)]
pub(super) struct Admission {
    limiter: Rc<Limiter>,
    /// Where it counts for its client; `None` where nothing limits that, or where there was no
    /// room to note it.
    place: Option<Place>,
}

/// One that was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shed {
    /// What it was over.
    pub(super) limit: Limit,
    /// After how many seconds it may be let in, where that is known.
    pub(super) retry_after: Option<NonZeroU32>,
}

impl Limiter {
    /// Goes on under other limits. What was spent at one rate says nothing at another, and is
    /// forgotten.
    pub(super) fn adopt(&self, last: &ServiceLimits, next: &ServiceLimits) {
        if last.shard_rate != next.shard_rate {
            self.bucket.take();
        }
        let clients = &mut *self.clients.borrow_mut();
        if let (true, Some(clients)) = (last.client_rate != next.client_rate, clients) {
            clients.forget_spent();
        }
    }

    /// Lets a request of `client` in, `now` in nanoseconds of the shard's clock. The first with a
    /// limit by client takes the memory for all of them; no other allocates.
    ///
    /// # Errors
    /// Where it is over one of `limits`; then nothing but that is noted.
    pub(super) fn admit(
        self: &Rc<Self>,
        limits: &ServiceLimits,
        client: ClientKey,
        now: u64,
        counters: &ServiceCounters,
    ) -> Result<Admission, Shed> {
        let now = Moment::of_nanoseconds(now);
        let by_client = limits.has_clients();
        let admitted = if by_client {
            let mut clients = self.clients.borrow_mut();
            let clients = clients.get_or_insert_with(Clients::new);
            self.admit_client(limits, (clients, client), now, counters)
        } else {
            self.admit_to_service(limits, now).map(|()| None)
        };
        match admitted {
            Ok(place) => {
                self.running.set(self.running.get() + 1);
                Ok(Admission {
                    limiter: Rc::clone(self),
                    place,
                })
            }
            Err(shed) => {
                counters.shed[shed.limit.index()].add(1);
                Err(shed)
            }
        }
    }

    /// The place that it counts at from now on, where it counts.
    fn admit_client(
        &self,
        limits: &ServiceLimits,
        (clients, client): (&mut Clients, ClientKey),
        now: Moment,
        counters: &ServiceCounters,
    ) -> Result<Option<Place>, Shed> {
        let (set, mut entry) = clients.find(client);
        if let Some(rate) = &limits.client_rate {
            let spent = entry.bucket.spend(rate, now);
            entry.bucket = spent.map_err(|wait| Shed::over(Limit::ClientRate, Some(wait)))?;
        }
        if let Some(most) = limits.client_concurrent {
            if most.get() <= entry.running {
                // Nobody knows when one of its exchanges ends.
                let wait = Some(NonZeroU32::MIN);
                return Err(Shed::over(Limit::ClientConcurrent, wait));
            }
            entry.running += 1;
        }
        self.admit_to_service(limits, now)?;
        let noted = clients.note(set, entry, now);
        counters.clients_forgotten.add(u64::from(noted.forgotten));
        Ok(noted.place.filter(|_| limits.client_concurrent.is_some()))
    }

    fn admit_to_service(&self, limits: &ServiceLimits, now: Moment) -> Result<(), Shed> {
        let mut bucket = self.bucket.get();
        if let Some(rate) = &limits.shard_rate {
            let spent = bucket.spend(rate, now);
            bucket = spent.map_err(|wait| Shed::over(Limit::Rate, Some(wait)))?;
        }
        match limits.shard_concurrent {
            Some(most) if most.get() <= self.running.get() => {
                Err(Shed::over(Limit::Concurrent, None))
            }
            _ => {
                self.bucket.set(bucket);
                Ok(())
            }
        }
    }
}

impl Shed {
    fn over(limit: Limit, retry_after: Option<NonZeroU32>) -> Self {
        Self { limit, retry_after }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Limiter {
            running, clients, ..
        } = &*self.limiter;
        running.set(running.get() - 1);
        if let (Some(place), Some(clients)) = (self.place, &mut *clients.borrow_mut()) {
            clients.end(place);
        }
    }
}

#[cfg(test)]
mod tests;
