//! Waiting until a connection can be read or written, beside the handles that read and write it.

use std::io;
use std::os::fd::RawFd;

use monoio::net::TcpStream;

use crate::fd;

/// A second handle of a connection, for its readiness alone: the first is in two halves while both
/// ways are relayed at once, and a half of the runtime's has no readiness. A descriptor each.
#[derive(Debug)]
pub(crate) struct Ready {
    tcp: TcpStream,
}

impl Ready {
    /// Of the connection `fd`.
    ///
    /// # Errors
    /// What fcntl(2) says, `EMFILE` among it, or the runtime when it registers the descriptor
    /// (epoll only).
    pub(crate) fn of(fd: RawFd) -> io::Result<Self> {
        let handle = std::net::TcpStream::from(fd::duplicate(fd)?);
        Ok(Self {
            tcp: TcpStream::from_std(handle)?,
        })
    }

    /// Waits until something can be read: bytes, an end or an error.
    ///
    /// # Errors
    /// What the poll says.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable(false).await
    }

    /// Waits until something can be written, or never will be.
    ///
    /// # Errors
    /// What the poll says.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable(false).await
    }
}
