//! The control plane: one thread that may lock, allocate and wait, so that no shard has to.

mod collect;
pub mod compile;
pub mod log;
mod printer;
pub mod run;
pub mod show;
pub mod signal;
