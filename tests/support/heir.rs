//! A process that a process under test has started in its own place: no child of the test.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Once;

use super::DEADLINE;

/// Ended with its owner, if it runs by then.
#[derive(Debug)]
pub(crate) struct Heir {
    pub(crate) id: u32,
    /// True exactly when it has taken over.
    pub(crate) serves: bool,
    /// Once it was waited for.
    ended: Option<Option<i32>>,
    /// Names this process and no later one of the same number.
    handle: OwnedFd,
}

/// From now on a process whose parent has ended becomes a child of the test, which can wait for it.
#[expect(unsafe_code, reason = "prctl(2) is a function of C")]
pub(crate) fn adopt_orphans() {
    static ONCE: Once = Once::new();
    // SAFETY: prctl(2) with this command touches no memory.
    ONCE.call_once(|| assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0));
}

impl Heir {
    /// The process `id`, which is there: its parent has not waited for it.
    #[track_caller]
    pub(crate) fn of(id: u32) -> Self {
        Self {
            id,
            serves: false,
            ended: None,
            handle: handle(id),
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ends(&self) {
        wait(self.id, &self.handle);
    }

    /// Waits for its end, and says its exit code; its parent has ended, and before it.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.wait_for()
            .unwrap_or_else(|error| unreachable!("waitid: {error}"))
    }

    /// Waits for its end; true exactly when that was as it is to be, as far as anybody knows: a
    /// parent that took longer to drain has waited for it.
    #[track_caller]
    pub(crate) fn has_drained(&mut self) -> bool {
        match self.wait_for() {
            Ok(code) => code == Some(0),
            Err(error) => error.raw_os_error() == Some(libc::ECHILD),
        }
    }

    #[track_caller]
    #[expect(unsafe_code, reason = "waitid(2) is a function of C")]
    fn wait_for(&mut self) -> io::Result<Option<i32>> {
        if let Some(code) = self.ended {
            return Ok(code);
        }
        self.ends();
        // SAFETY: all zeroes are a value of this structure of numbers.
        let mut ended: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let handle = self.handle.as_raw_fd() as libc::id_t;
        // SAFETY: the kernel fills the structure, which lives across the call.
        let waited = unsafe { libc::waitid(libc::P_PIDFD, handle, &raw mut ended, libc::WEXITED) };
        if waited != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was filled for a child that has ended.
        let status = unsafe { ended.si_status() };
        let code = (ended.si_code == libc::CLD_EXITED).then_some(status);
        Ok(*self.ended.insert(code))
    }
}

/// Waits for the end of the process `id`, for which nobody has waited; it can still be waited for.
#[track_caller]
pub(crate) fn ends(id: u32) {
    wait(id, &handle(id));
}

#[track_caller]
#[expect(unsafe_code, reason = "pidfd_open(2) is a function of C")]
fn handle(id: u32) -> OwnedFd {
    // SAFETY: pidfd_open(2) touches no memory; its answer is a new descriptor or an error.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, id as libc::pid_t, 0) };
    assert!(0 <= handle, "{}", io::Error::last_os_error());
    // SAFETY: as above; nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(handle as libc::c_int) }
}

#[track_caller]
#[expect(unsafe_code, reason = "poll(2) is a function of C")]
fn wait(id: u32, handle: &OwnedFd) {
    let mut polled = libc::pollfd {
        fd: handle.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = DEADLINE.as_millis() as libc::c_int;
    // SAFETY: the kernel reads and writes one entry, which lives across the call.
    let ended = unsafe { libc::poll(&raw mut polled, 1, milliseconds) };
    assert_eq!(ended, 1, "process {id} does not end");
}

impl Drop for Heir {
    #[expect(
        unsafe_code,
        reason = "pidfd_send_signal(2) and waitid(2) are functions of C"
    )]
    fn drop(&mut self) {
        let handle = self.handle.as_raw_fd();
        let none = std::ptr::null_mut::<libc::siginfo_t>();
        // SAFETY: neither call touches memory of ours. A process that has ended is left alone, and
        // one that is nobody's child of ours is not waited for.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, handle, libc::SIGKILL, none, 0);
            libc::waitid(libc::P_PIDFD, handle as libc::id_t, none, libc::WEXITED);
        }
    }
}
