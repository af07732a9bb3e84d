//! What the shards count: numbers with one writer each, read by control at any time and merged
//! there.
//!
//! A shard writes its own counters and nobody else's; control reads them while they move. No
//! counter is read to decide anything on the path of an exchange, so each is exact in the end and
//! the set of them is only roughly of one moment: a report may show an exchange that is counted
//! already and whose answer is not yet.
//!
//! Histograms stand beside the counters. A shard records into [`Recorder`]s of its own, which no
//! other thread sees, and when control asks for them it hands them over whole, through the
//! [`Handed`] of their [`ServiceCounters`] or [`EndpointCounters`]; control adds them up in
//! [`Phases`].

pub mod by_fault;
pub mod counters;
pub mod handed;
pub mod limit;
pub mod names;
pub mod phase;
pub mod reason;
pub mod recorder;
pub mod report;
pub mod totals;

pub use by_fault::ByFault;
pub use counters::{
    BackendCounters, Counter, EndpointCounters, ListenerCounters, PlanCounters, STATUS_CLASSES,
    ServiceCounters, ShardCounters, status_class,
};
pub use handed::Handed;
pub use limit::Limit;
pub use phase::Phase;
pub use reason::{EjectReason, RetryReason};
pub use recorder::{Phases, Recorder};
pub use totals::{BackendTotals, EndpointTotals, NoServiceTotals, ServiceTotals, ShardTotals};
