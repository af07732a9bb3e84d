//! The control plane: one thread that may lock, allocate and wait, so that no shard has to.

pub mod admin;
mod collect;
pub mod compile;
pub mod difference;
pub mod log;
mod printer;
pub mod probe;
pub mod resolve;
pub mod run;
pub mod show;
pub mod signal;
pub mod source;
pub mod standing;
pub mod successor;
pub mod supervisor;
pub mod systemd;
pub mod view;
