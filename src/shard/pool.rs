//! Idle upstream connections of one shard: per endpoint, last in first out, capped, aged.
//!
//! The last one in is the one whose endpoint is least likely to have closed it. What lies at the
//! bottom grows old there and is swept away; the sweep also finds the connections that their
//! endpoint has closed, so that none waits half-closed until it is next taken.

use std::cell::RefCell;

use super::io::Stream;
use crate::fd;
use crate::plan::{Endpoint, PoolLimits, Ticks};

#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// The tick at which it was put.
    since: u32,
    /// How long it may be idle.
    idle: Ticks,
    /// True exactly when it is looked at however fresh it is.
    suspect: bool,
}

/// A shard's idle upstream connections, by the slot of their endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: RefCell<Vec<Vec<Idle>>>,
}

/// What a look into the pool found.
#[derive(Debug)]
pub(crate) struct Taken {
    /// A connection to use, if there is one.
    pub(crate) stream: Option<Stream>,
    /// How many were found closed on the way.
    pub(crate) stale: u64,
}

impl Pool {
    /// Takes the connection to `endpoint` that was used last. One that was idle for longer than a
    /// tick, or any if `look` says so, is looked at first (a system call): it may have been closed,
    /// or have bytes that nobody asked for.
    pub(crate) fn take(&self, endpoint: &Endpoint, now: u32, look: bool) -> Taken {
        let mut slots = self.slots.borrow_mut();
        let mut stale = 0;
        let Some(idle) = slots.get_mut(endpoint.slot as usize) else {
            return Taken {
                stream: None,
                stale,
            };
        };
        while let Some(Idle {
            stream,
            since,
            suspect,
            ..
        }) = idle.pop()
        {
            let rested = 1 < now.saturating_sub(since);
            if !(look || rested || suspect) || fd::is_quiet(stream.fd()) {
                return Taken {
                    stream: Some(stream),
                    stale,
                };
            }
            stale += 1;
        }
        Taken {
            stream: None,
            stale,
        }
    }

    /// Keeps a connection whose exchange has ended cleanly; one that is `suspect` is looked at
    /// before it is used again. False when the endpoint has as many as
    /// it may, and the connection is closed.
    pub(crate) fn put(
        &self,
        endpoint: &Endpoint,
        (stream, suspect): (Stream, bool),
        now: u32,
        limits: PoolLimits,
    ) -> bool {
        let mut slots = self.slots.borrow_mut();
        let slot = endpoint.slot as usize;
        if slots.len() <= slot {
            // Once per endpoint.
            slots.resize_with(slot + 1, Vec::new);
        }
        let idle = &mut slots[slot];
        if limits.idle_max <= idle.len() || limits.idle.0 == 0 {
            return false;
        }
        idle.push(Idle {
            stream,
            since: now,
            idle: limits.idle,
            suspect,
        });
        true
    }

    /// Closes what is too old or was closed by its endpoint; called about once a second. Returns
    /// how many are gone.
    pub(crate) fn sweep(&self, now: u32) -> u64 {
        let mut gone = 0;
        for idle in self.slots.borrow_mut().iter_mut() {
            let before = idle.len();
            idle.retain(|kept| {
                let age = now.saturating_sub(kept.since);
                // The freshest are in use all the time: they are looked at by `take` if need be.
                age < kept.idle.0 && (age < 10 || fd::is_quiet(kept.stream.fd()))
            });
            gone += (before - idle.len()) as u64;
        }
        gone
    }

    /// Closes the connection that was idle for longest, whoever's it is; false when there is none.
    pub(crate) fn give_up_oldest(&self) -> bool {
        let mut slots = self.slots.borrow_mut();
        let oldest = slots
            .iter_mut()
            .filter(|idle| !idle.is_empty())
            .min_by_key(|idle| idle[0].since);
        // The first of each is its oldest.
        oldest.map(|idle| idle.remove(0)).is_some()
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.slots.borrow_mut().clear();
    }
}
