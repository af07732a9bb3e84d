//! What the shards count: numbers with one writer each, read by control at any time and merged
//! there.
//!
//! A shard writes its own counters and nobody else's; control reads them while they move. No
//! counter is read to decide anything on the path of an exchange, so each is exact in the end and
//! the set of them is only roughly of one moment: a report may show an exchange that is counted
//! already and whose answer is not yet.
//!
//! Histograms stand beside the counters: a service's recorders belong to its [`ServiceCounters`],
//! an endpoint's to its [`EndpointCounters`], so that both keep what they recorded from one
//! generation to the next as the counters do.

pub mod counters;
pub mod names;
pub mod report;
pub mod totals;

pub use counters::{
    Counter, EndpointCounters, PlanCounters, STATUS_CLASSES, ServiceCounters, ShardCounters,
    status_class,
};
pub use totals::{EndpointTotals, NoServiceTotals, ServiceTotals, ShardTotals};
