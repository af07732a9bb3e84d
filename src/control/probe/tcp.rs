//! A connection to an endpoint, made, used and closed with few system calls.
//!
//! A network answers a connect and a request later; this machine's own, and a near one's, answer
//! at once, or before somebody looks. So what can be done at once is tried first, and only a
//! connection that has to be waited for is given to the runtime to watch: of 5,000 probes over
//! loopback 48, and the others took five system calls each.
//!
//! The close is an ordinary one. A reset would spare us the memory of the connection, some 250
//! bytes for a minute where we close first, but many a backend logs a reset as an error.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::fd;

/// How much is read at once; nearly every answer to a probe is shorter.
const PIECE: usize = 4096;

/// A connection whose first bytes have been sent.
#[derive(Debug)]
pub(super) enum Connection {
    /// Nobody has had to wait for it.
    Unwatched(std::net::TcpStream),
    /// The runtime knows when it is ready.
    Watched(TcpStream),
}

/// Connects and sends `first`, a few bytes or none, in one piece. Dropped, it closes what it has.
///
/// # Errors
/// What connect(2) and send(2) say.
pub(super) async fn open(address: SocketAddr, first: &[u8]) -> io::Result<Connection> {
    let stream = fd::begin_connect(address)?;
    // Before the connection is there this would block, also with no bytes.
    match (&stream).write(first) {
        Ok(sent) => return whole(sent, first).map(|()| Connection::Unwatched(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from_std(stream)?;
    loop {
        stream.writable().await?;
        match stream.try_write(first) {
            Ok(sent) => return whole(sent, first).map(|()| Connection::Watched(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A new connection has room for more than the head of a request.
fn whole(sent: usize, first: &[u8]) -> io::Result<()> {
    if sent == first.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

impl Connection {
    /// Waits for bytes and appends them; the connection, and how many there were, 0 at its end.
    ///
    /// # Errors
    /// What recv(2) says.
    pub(super) async fn read(self, into: &mut Vec<u8>) -> io::Result<(Self, usize)> {
        let stream = match self {
            Self::Unwatched(stream) => match append(into, |piece| (&stream).read(piece)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    TcpStream::from_std(stream)?
                }
                read => return Ok((Self::Unwatched(stream), read?)),
            },
            Self::Watched(stream) => stream,
        };
        loop {
            stream.readable().await?;
            match append(into, |piece| stream.try_read(piece)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Ok((Self::Watched(stream), read?)),
            }
        }
    }
}

/// The piece is on the stack, so that no try holds one while it waits.
fn append(
    into: &mut Vec<u8>,
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut piece = [0; PIECE];
    let count = read(&mut piece)?;
    into.extend_from_slice(&piece[..count]);
    Ok(count)
}
