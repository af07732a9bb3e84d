//! Descriptors that a process was started with, and those that it starts another one with: the
//! numbers of sd_listen_fds(3).

#![expect(unsafe_code, reason = "this is the edge to the kernel")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockAddr, SockRef, Type};

/// The first descriptor that is handed over; the others follow it.
pub const FIRST: RawFd = 3;

/// Takes over descriptors that this process was started with: from now on they are its own, and
/// close-on-exec. Works once in the life of a process; later there is nothing to be taken.
///
/// # Errors
/// What fcntl(2) says, `EBADF` where one of them is not open, and `InvalidInput` where a number
/// comes twice.
pub fn take(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut distinct = numbers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < numbers.len() || distinct.iter().any(|number| *number < FIRST) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    for number in numbers {
        // SAFETY: fcntl(2) with this command touches no memory of ours.
        if unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: all are open, no number comes twice, and this line is reached once. Whoever started
    // this process has named them as handed over, so that nobody else here knows of them.
    let own = |number: &RawFd| unsafe { OwnedFd::from_raw_fd(*number) };
    Ok(numbers.iter().map(own).collect())
}

/// A copy of `descriptor` that a program which is started has as well, under the same number.
///
/// # Errors
/// What fcntl(2) says, `EMFILE` among it.
pub fn pass_on(descriptor: &impl AsFd) -> io::Result<OwnedFd> {
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: fcntl(2) touches no memory of ours; the descriptor is borrowed across the call.
    match unsafe { libc::fcntl(descriptor, libc::F_DUPFD, FIRST) } {
        // SAFETY: it is new, and nobody else knows of it.
        copy @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives `descriptors` the numbers from [`FIRST`] on, in their order, for the program that this
/// process becomes next. What had those numbers is closed: to be called before anything else is
/// open.
///
/// # Errors
/// What fcntl(2) or dup2(2) say.
pub fn line_up(descriptors: Vec<OwnedFd>) -> io::Result<()> {
    let behind = FIRST + descriptors.len() as RawFd;
    let mut moved = Vec::new();
    for descriptor in descriptors {
        let fd = descriptor.as_raw_fd();
        // SAFETY: as in `pass_on`; the copy is behind all numbers that are given.
        match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, behind) } {
            // SAFETY: it is new, and nobody else knows of it.
            copy @ 0.. => moved.push(unsafe { OwnedFd::from_raw_fd(copy) }),
            _ => return Err(io::Error::last_os_error()),
        }
    }
    for (number, descriptor) in (FIRST..).zip(moved) {
        // SAFETY: dup2(2) touches no memory of ours. That nobody uses what had the number is the
        // caller's rule.
        let set = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open; it stays so for the next program.
        let _stays = unsafe { OwnedFd::from_raw_fd(set) }.into_raw_fd();
    }
    Ok(())
}

/// Where `socket` listens, made ready for the shards: not blocking, and, on TCP, with SO_REUSEPORT
/// (so that siblings can be bound beside it, also afterwards) and TCP_NODELAY.
///
/// # Errors
/// What the kernel says, `InvalidInput` where it is no listening stream socket.
pub fn prepare(socket: &OwnedFd) -> io::Result<SockAddr> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    if address.as_socket().is_some() {
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
    }
    Ok(address)
}
