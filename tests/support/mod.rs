//! What process tests stand on: the real binary, and both of its peers played byte by byte.
//!
//! A test is the conversation on the wire, as in varnishtest: the test's own thread writes what the
//! client says, accepts at the origin, reads what arrived there, and answers. Nothing sleeps: every
//! wait is a read with a deadline.

mod dns;
mod dummy;
mod heir;
mod origin;
mod process;
mod report;
mod signal;
mod socket;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use dns::{Dns, Failure};
pub(crate) use dummy::Dummy;
pub(crate) use origin::{Origin, Reserved, Served, ok};
pub(crate) use process::{
    Directory, Driver, Proxy, Setup, run_alone, run_to_end, signalled, start_and_stop,
};
pub(crate) use report::{Phases, Report};
pub(crate) use wire::{Head, Message, Wire};

/// How long any single wait of a test may take before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Asks `is_so` again and again until it is.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock to give up"
)]
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < DEADLINE, "it never is so");
        thread::yield_now();
    }
}

/// A request for the service `a`.
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// A request for the service `a` that is not idempotent, and so never sent twice.
pub(crate) const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";

/// Makes two tests of each named case, `io_uring::NAME` and `epoll::NAME`.
macro_rules! on_both_drivers {
    ($($case:ident)*) => {
        mod io_uring {
            $(#[test] fn $case() { super::$case(crate::support::Driver::IoUring); })*
        }
        mod epoll {
            $(#[test] fn $case() { super::$case(crate::support::Driver::Epoll); })*
        }
    };
}
pub(crate) use on_both_drivers;
