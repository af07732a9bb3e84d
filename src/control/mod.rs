//! (being built)

pub mod compile;
pub mod show;
