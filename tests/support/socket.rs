//! Sockets that close when they are dropped, whatever other tests do at the same time.
//!
//! From fork to exec a child holds a copy of every descriptor of the test's process. What is closed
//! meanwhile stays open until the exec has closed the copy, and its FIN is not sent before that: so
//! no socket is closed while a child is made.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command};
use std::sync::PoisonError;

use ringmain::fd;

/// Held for writing while a child is made.
#[expect(clippy::disallowed_types, reason = "tests have no shards")]
static MAKING: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Starts `command`; when it returns, the child has nothing of ours but what it was given.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _alone = MAKING.write().unwrap_or_else(PoisonError::into_inner);
    let (mut reader, writer) = io::pipe()?;
    let last = last_descriptor(&writer)?;
    drop(writer);
    let child = command.spawn();
    drop(last);
    // The child is let go at the begin of its exec, which then closes what it was not given in the
    // order of the numbers; the end of this pipe comes after all others.
    reader.read_exact(&mut [0]).expect_err("nobody writes");
    child
}

/// A copy of `descriptor`, close-on-exec, whose number no other descriptor's is above.
#[expect(unsafe_code, reason = "fcntl(2) is a function of C")]
fn last_descriptor(descriptor: &impl AsRawFd) -> io::Result<File> {
    // The table of descriptors grows with it; tests have fewer than this open.
    let least = fd::descriptors_max().min(30_000) - 1;
    let fd = descriptor.as_raw_fd();
    // SAFETY: fcntl(2) touches no memory of ours, and its answer is a new descriptor or an error.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least as libc::c_int) } {
        // SAFETY: as above; nobody else knows of it.
        copy @ 0.. => Ok(unsafe { File::from_raw_fd(copy) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A socket of the standard library.
pub(crate) struct Socket<S>(Option<S>);

impl<S> Socket<S> {
    pub(crate) const fn new(socket: S) -> Self {
        Self(Some(socket))
    }

    /// What `call` returns, called again where a signal interrupts it: with a deadline on the
    /// socket the kernel does not do so (signal(7), "Interruption of system calls"), and stopping
    /// and continuing the process is such a signal.
    pub(crate) fn wait<T>(&self, mut call: impl FnMut(&S) -> io::Result<T>) -> io::Result<T> {
        loop {
            match call(self) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl<S> Deref for Socket<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.as_ref().expect("it is open until it is dropped")
    }
}

impl<S> DerefMut for Socket<S> {
    fn deref_mut(&mut self) -> &mut S {
        self.0.as_mut().expect("it is open until it is dropped")
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        let _none_is_made = MAKING.read().unwrap_or_else(PoisonError::into_inner);
        self.0 = None;
    }
}
