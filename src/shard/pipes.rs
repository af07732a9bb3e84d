//! Pipes, through which splice(2) moves the bytes of a tunnel from one socket to the other without
//! a copy into our memory.
//!
//! A way of a tunnel has one while its bytes come in bulk, and no longer. There are so many of them
//! on a shard and no more, for each is two descriptors, and its way has two more with it; whoever
//! gets none copies. A pipe that is put back with bytes in it is closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use crate::fd;

/// What a pipe is to hold: what a wake moves at most.
const PIPE_BYTES: usize = 1 << 20;
/// With less a pipe moves less than a copy through a buffer would, and costs more. It is what the
/// kernel gives where a user has had its share of large pipes (pipe(7), `pipe-user-pages-soft`).
const PIPE_BYTES_MIN: usize = 64 * 1024;
/// Pipes of a shard that may be in use.
const LENT_MAX: usize = 256;
/// A shard's pipes take, with what their ways have beside them, a thirty-second of the descriptors
/// at most.
const DESCRIPTORS_PER_PIPE: u64 = 128;
/// Pipes that are kept for the next ones.
const KEPT_MAX: usize = 8;

/// A shard's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    kept: RefCell<Vec<Pipe>>,
    /// How many are in use, at most `lent_max`.
    lent: Cell<usize>,
    lent_max: usize,
}

/// A pipe that is in use.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    of: &'a Pipes,
    /// `None` only while this is dropped.
    pipe: Option<Pipe>,
    /// The bytes in it.
    held: usize,
}

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

const WHOLE: &str = "a pipe is lent until its lending is dropped";

impl Pipes {
    /// None yet.
    pub(super) fn new() -> Self {
        let most = fd::descriptors_max() / DESCRIPTORS_PER_PIPE;
        Self {
            kept: RefCell::default(),
            lent: Cell::new(0),
            lent_max: LENT_MAX.min(most as usize),
        }
    }

    /// An empty pipe; `None` where there are as many as may be, or none is to be had.
    pub(super) fn lend(&self) -> Option<Lent<'_>> {
        if self.lent_max <= self.lent.get() {
            return None;
        }
        let kept = self.kept.borrow_mut().pop();
        let pipe = kept.or_else(Pipe::new)?;
        self.lent.set(self.lent.get() + 1);
        Some(Lent {
            of: self,
            pipe: Some(pipe),
            held: 0,
        })
    }

    /// Closes those that nobody uses.
    pub(super) fn give_up(&self) {
        self.kept.borrow_mut().clear();
    }
}

impl Pipe {
    fn new() -> Option<Self> {
        let (reader, writer, bytes) = fd::pipe(PIPE_BYTES).ok()?;
        (PIPE_BYTES_MIN <= bytes).then_some(Self { reader, writer })
    }
}

impl Lent<'_> {
    /// How many bytes are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what is there of the connection `source` into it; 0 is the end.
    ///
    /// # Errors
    /// What splice(2) says, `WouldBlock` where nothing is there.
    pub(super) fn fill(&mut self, source: RawFd) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().expect(WHOLE);
        let count = fd::splice(source, pipe.writer.as_raw_fd(), PIPE_BYTES)?;
        self.held += count;
        Ok(count)
    }

    /// Moves what the connection `sink` takes out of it.
    ///
    /// # Errors
    /// What splice(2) says, `WouldBlock` where it takes nothing now.
    pub(super) fn empty(&mut self, sink: RawFd) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().expect(WHOLE);
        let count = fd::splice(pipe.reader.as_raw_fd(), sink, self.held)?;
        self.held -= count;
        Ok(count)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Self { of, pipe, held } = self;
        of.lent.set(of.lent.get() - 1);
        let mut kept = of.kept.borrow_mut();
        if *held == 0 && kept.len() < KEPT_MAX {
            kept.extend(pipe.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    fn pipes(lent_max: usize) -> Pipes {
        Pipes {
            lent_max,
            ..Pipes::new()
        }
    }

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_go_through_a_pipe_and_it_is_used_again() {
        let pipes = pipes(2);
        let (mut from, source) = connection();
        let (sink, mut to) = connection();
        for _ in 0..3 {
            from.write_all(b"hello").unwrap();
            let mut pipe = pipes.lend().unwrap();
            assert_eq!(pipe.fill(source.as_raw_fd()).unwrap(), 5);
            assert_eq!(pipe.held(), 5);
            assert_eq!(pipe.empty(sink.as_raw_fd()).unwrap(), 5);
            assert_eq!(pipe.held(), 0);
            let mut bytes = [0; 5];
            to.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
            drop(pipe);
            assert_eq!(pipes.kept.borrow().len(), 1);
        }
        pipes.give_up();
        assert!(pipes.kept.borrow().is_empty());
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_closed() {
        let pipes = pipes(2);
        let (mut from, source) = connection();
        from.write_all(b"hello").unwrap();
        let mut pipe = pipes.lend().unwrap();
        assert_eq!(pipe.fill(source.as_raw_fd()).unwrap(), 5);
        drop(pipe);
        assert!(pipes.kept.borrow().is_empty());
        assert_eq!(pipes.lent.get(), 0);
    }

    #[test]
    fn so_many_are_lent_and_no_more() {
        let pipes = pipes(2);
        let lent = [pipes.lend().unwrap(), pipes.lend().unwrap()];
        assert!(pipes.lend().is_none());
        drop(lent);
        assert!(pipes.lend().is_some());
    }

    #[test]
    fn an_end_and_nothing_are_told_apart() {
        let pipes = pipes(1);
        let (from, source) = connection();
        source.set_nonblocking(true).unwrap();
        let mut pipe = pipes.lend().unwrap();
        let nothing = pipe.fill(source.as_raw_fd()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        from.shutdown(std::net::Shutdown::Write).unwrap();
        while pipe.fill(source.as_raw_fd()).is_err() {}
        assert_eq!(pipe.fill(source.as_raw_fd()).unwrap(), 0);
    }
}
