//! Something for each fault: the counters of a shard, the sums of control.

use std::ops::{Deref, DerefMut};

use super::Counter;
use crate::fault::Fault;

/// A `T` for each fault, in the order of [`Fault::ALL`]: an array that begins empty, which the
/// standard library's of more than 32 elements do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByFault<T>([T; Fault::COUNT]);

impl<T: Default> Default for ByFault<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl ByFault<Counter> {
    /// The counts.
    pub fn totals(&self) -> ByFault<u64> {
        ByFault(self.0.each_ref().map(Counter::get))
    }
}

impl<T> Deref for ByFault<T> {
    type Target = [T; Fault::COUNT];

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for ByFault<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
