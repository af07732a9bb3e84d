//! (being built)

pub mod compile;
pub mod log;
pub mod show;
