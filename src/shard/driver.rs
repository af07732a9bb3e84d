//! Which driver a shard runs on: the ring with the best flags that this kernel allows, or epoll.
//!
//! The ladder: SINGLE_ISSUER with DEFER_TASKRUN, COOP_TASKRUN and SUBMIT_ALL; COOP_TASKRUN; a plain
//! ring; epoll. Any errno means "not available here" (seccomp answers EPERM or ENOSYS, an old
//! kernel EINVAL, a memlock limit ENOMEM), so any steps down. The ring is built on the shard's own
//! thread, which SINGLE_ISSUER demands.

use std::fmt;
use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// The ring, or epoll where there is none.
    Auto,
    /// The ring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// What a shard got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// Which one.
    pub kind: DriverKind,
    /// Why not a better one; empty when it is the best or was asked for.
    pub reason: String,
}

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring with SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN and SUBMIT_ALL.
    RingDefer,
    /// io_uring with COOP_TASKRUN.
    RingCoop,
    /// io_uring without flags.
    RingPlain,
    /// epoll.
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::RingDefer => "io_uring (defer)",
            Self::RingCoop => "io_uring (coop)",
            Self::RingPlain => "io_uring (plain)",
            Self::Epoll => "epoll",
        })
    }
}

/// A runtime on one of the drivers.
pub(crate) enum AnyRuntime {
    Ring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

/// How many operations can be queued between two calls of the kernel; more are flushed earlier.
const RING_ENTRIES: u32 = 1024;

impl AnyRuntime {
    /// Builds the best runtime that `choice` and the kernel allow, for the calling thread.
    ///
    /// # Errors
    /// When `choice` is the ring and there is none, or epoll itself fails.
    pub(crate) fn build(choice: DriverChoice) -> io::Result<(Self, DriverInfo)> {
        if choice == DriverChoice::Epoll {
            return Self::epoll(String::new());
        }
        let mut reason = String::new();
        for kind in [
            DriverKind::RingDefer,
            DriverKind::RingCoop,
            DriverKind::RingPlain,
        ] {
            match ring(kind) {
                Ok(runtime) => return Ok((Self::Ring(runtime), DriverInfo { kind, reason })),
                Err(error) => reason = format!("{kind}: {error}"),
            }
        }
        if choice == DriverChoice::IoUring {
            return Err(io::Error::other(reason));
        }
        Self::epoll(reason)
    }

    fn epoll(reason: String) -> io::Result<(Self, DriverInfo)> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?;
        Ok((
            Self::Epoll(runtime),
            DriverInfo {
                kind: DriverKind::Epoll,
                reason,
            },
        ))
    }

    /// Runs `future` and every task that it starts, until it ends.
    pub(crate) fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Ring(runtime) => runtime.block_on(future),
            Self::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

fn ring(kind: DriverKind) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut builder = io_uring::IoUring::builder();
    match kind {
        DriverKind::RingDefer => {
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_coop_taskrun()
                .setup_submit_all();
        }
        DriverKind::RingCoop => {
            builder.setup_coop_taskrun();
        }
        DriverKind::RingPlain | DriverKind::Epoll => {}
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(builder)
        .enable_timer()
        .build()
}
