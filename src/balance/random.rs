//! Picks by weight, each independent of the last and of what the endpoints do.

use std::sync::Arc;

use super::weights::Weights;
use super::{Candidates, Member, Picker, Xorshift};

/// The picker of the policy `random`.
#[derive(Clone, Debug)]
pub struct Random {
    weights: Arc<Weights>,
}

impl Random {
    /// Picks among `members`.
    ///
    /// # Panics
    /// When a weight is 0.
    pub fn new(members: &[Member]) -> Self {
        Self {
            weights: Arc::new(Weights::new(members)),
        }
    }
}

impl Picker for Random {
    fn of_shard(&self, _generator: &mut Xorshift) -> Box<dyn Picker> {
        Box::new(self.clone())
    }

    fn pick(&mut self, candidates: &dyn Candidates, generator: &mut Xorshift) -> Option<usize> {
        self.weights
            .pick(generator, |place| candidates.is_in(place))
    }
}
