//! Events that a shard tells control: bounded, never awaited, counted when they do not fit.

use std::borrow::Cow;

use crate::plan::{ListenerId, Slot};
use crate::tally::EjectReason;

/// How many notices of one shard may wait for control, which reads them many times a second.
pub const NOTICES_MAX: usize = 256;

/// An event on a shard. None is sent per exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The shard's runtime is built; it looks for its first plan.
    ShardReady {
        /// What runs, in the words of the report: `io_uring (defer)`, `epoll`.
        driver: Cow<'static, str>,
        /// Why it is not the best one, and what to type; `None` when it is.
        reason: Option<String>,
    },
    /// Accept failed, or a socket could not be taken over to accept from; the listener rests for a
    /// while.
    AcceptFailed {
        /// Which.
        listener: ListenerId,
        /// The error number of the system.
        errno: i32,
    },
    /// The limit on client connections was reached: of a listener, or, with `None`, of the shard.
    /// Sent when refusing begins, not for each client refused.
    ConnectionsMax {
        /// Which.
        listener: Option<ListenerId>,
    },
    /// An endpoint was taken out, for a while.
    Ejected {
        /// The endpoint's slot.
        slot: Slot,
        /// Why.
        reason: EjectReason,
    },
    /// An endpoint that was ejected is in again.
    Readmitted {
        /// The endpoint's slot.
        slot: Slot,
    },
    /// A panic was caught; its connection is closed.
    Panicked,
    /// The shard has closed its last connection under a plan whose life is over.
    Drained,
}
