//! The shard's time: whole ticks since its start, read once a tick.
//!
//! An exchange reads no clock. Deadlines are counted in ticks (100 ms), which is as coarse as any
//! timeout of the configuration.

use std::cell::Cell;
use std::time::Instant;

use crate::plan::TICK;

/// A shard's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    tick: Cell<u32>,
}

impl Clock {
    /// Starts at tick 0.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the shard's one place that reads the clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            tick: Cell::new(0),
        }
    }

    /// Reads the clock and returns the tick that runs now; a tick never comes back.
    pub(crate) fn advance(&self) -> u32 {
        let ticks = self.started.elapsed().as_millis() / TICK.as_millis();
        self.tick.set(u32::try_from(ticks).unwrap_or(u32::MAX));
        self.tick.get()
    }

    /// The tick as of the last [`Clock::advance`].
    pub(crate) fn tick(&self) -> u32 {
        self.tick.get()
    }
}
