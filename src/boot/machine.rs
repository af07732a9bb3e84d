//! What of the machine the shards get: how many there are, their CPUs, what they run on.

use std::thread;

use core_affinity::CoreId;

use crate::config;
use crate::shard::DriverChoice;

/// A shard per CPU that the process may use: its affinity mask and its cgroup's quota.
pub(super) fn shard_count(configured: u32) -> usize {
    if configured != 0 {
        return configured as usize;
    }
    thread::available_parallelism().map_or(1, usize::from)
}

/// The CPUs to pin the shards to, one each, within the affinity mask; none where that would do
/// harm.
pub(super) fn cpus(pin: config::Pin, shards: usize) -> Vec<CoreId> {
    // Within the mask of the process (sched_getaffinity).
    let mask = core_affinity::get_core_ids().unwrap_or_default();
    let quota = thread::available_parallelism().is_ok_and(|cpus| cpus.get() < mask.len());
    let pinned = match pin {
        config::Pin::Off => false,
        config::Pin::On => !mask.is_empty(),
        // Under a quota the scheduler must be free to move what it has stopped.
        config::Pin::Auto => shards <= mask.len() && !quota,
    };
    if pinned {
        (0..shards).map(|shard| mask[shard % mask.len()]).collect()
    } else {
        Vec::new()
    }
}

pub(super) const fn driver(configured: config::Driver) -> DriverChoice {
    match configured {
        config::Driver::Auto => DriverChoice::Auto,
        config::Driver::IoUring => DriverChoice::IoUring,
        config::Driver::Epoll => DriverChoice::Epoll,
    }
}
