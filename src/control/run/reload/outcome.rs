//! What became of the reloads of this process: for the report, and for whoever asks what runs.

use std::mem;
use std::time::SystemTime;

use super::{Askers, Stage};
use crate::tally::report;

/// The reloads of this process.
#[derive(Debug, Default)]
pub(in crate::control::run) struct Reloads {
    /// How many were run, those that changed nothing included.
    pub(in crate::control::run) done: u64,
    /// How many were refused.
    pub(in crate::control::run) refused: u64,
    /// What the last one came to, and when.
    pub(in crate::control::run) last: Option<(SystemTime, Outcome)>,
    /// Why the last of those that were refused was.
    pub(in crate::control::run) refusal: Option<String>,
    /// Where the one stands that is under way.
    pub(super) stage: Stage,
    /// Who has asked since it began; `None` where nobody has.
    waiting: Option<Askers>,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control::run) enum Outcome {
    /// Every living shard runs it.
    Done {
        /// The number of its plan; that of the one before where nothing had to be changed.
        generation: u64,
        /// How much is new.
        added: usize,
        /// How much is other than it was.
        changed: usize,
        /// How much is gone.
        removed: usize,
    },
    /// Nothing has changed.
    Refused {
        /// Why: a line for each error.
        reason: String,
    },
}

impl Reloads {
    /// `askers` want one. True exactly when it can begin now.
    pub(super) fn queue(&mut self, askers: Askers) -> bool {
        self.waiting.get_or_insert_default().extend(askers);
        matches!(self.stage, Stage::Idle)
    }

    /// True exactly when one has begun that is not over.
    pub(in crate::control::run) const fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Whether somebody wants one that has not begun.
    pub(super) const fn is_asked_for(&self) -> bool {
        self.waiting.is_some()
    }

    /// Those who want it; it is theirs now.
    pub(super) fn take_askers(&mut self) -> Askers {
        mem::take(&mut self.waiting).unwrap_or_default()
    }

    /// One is over.
    pub(super) fn note(&mut self, outcome: Outcome) {
        match &outcome {
            Outcome::Done { .. } => self.done += 1,
            Outcome::Refused { reason } => {
                self.refused += 1;
                self.refusal = Some(reason.clone());
            }
        }
        self.last = Some((SystemTime::now(), outcome));
    }

    /// What the report says of them.
    pub(in crate::control::run) fn report(&self) -> report::Reloads<'_> {
        report::Reloads {
            done: self.done,
            refused: self.refused,
            refusal: self.refusal.as_deref(),
        }
    }
}
