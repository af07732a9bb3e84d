//! The control plane: one thread that may lock, allocate and wait, so that no shard has to.

pub mod compile;
pub mod log;
pub mod run;
pub mod show;
pub mod signal;
