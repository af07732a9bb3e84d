//! The listening sockets of the process, by their listeners. They belong to boot: a shard accepts
//! from a duplicate of its own, so that one that dies takes none along, and what is queued on them
//! waits for its successor.
//!
//! A socket is given up in one of two ways. Where nobody is to listen there any more it is closed:
//! no more SYNs are taken, the shards let in who is queued, and boot's own holds the socket open
//! until each shard has had the chance to take it over. Where another process has inherited it,
//! it is let alone: what this process then closes is one of two names of a queue that goes on.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::others;
use crate::control::compile::BoundListener;
use crate::fd;
use crate::plan::ListenerId;

/// Clients that may wait to be accepted, per socket; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Boot's sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    /// How many each listener is opened with.
    shards: usize,
    /// The number of the listener that is opened next.
    next: u32,
    /// Those that are closed and not let go of are here as well.
    open: BTreeMap<ListenerId, Vec<Arc<OwnedFd>>>,
    /// The inodes of those that were let go of: shards may hold them for a while.
    past: Vec<u64>,
}

impl Sockets {
    /// None yet, for so many shards.
    pub(super) const fn new(shards: usize) -> Self {
        Self {
            shards,
            next: 1,
            open: BTreeMap::new(),
            past: Vec::new(),
        }
    }

    /// Binds `address` once per shard. On port 0 the kernel picks one for the first, and the others
    /// follow.
    ///
    /// # Errors
    /// What bind(2) says, `AddrInUse` where another process listens there.
    pub(super) fn open(&mut self, address: SocketAddr) -> io::Result<BoundListener> {
        let first = self.bind_first(address)?;
        let address = fd::local_address(&first)?;
        let mut sockets = vec![first];
        while sockets.len() < self.shards {
            sockets.push(fd::listen(address, BACKLOG)?);
        }
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Ok(self.keep(address, sockets))
    }

    /// Has the kernel take nobody new by the listener's sockets. The shards empty and close their
    /// duplicates by themselves, as they adopt a plan in which it does not accept.
    pub(super) fn close(&self, id: ListenerId) {
        for socket in self.open.get(&id).into_iter().flatten() {
            if let Err(error) = fd::drop_syns(&**socket) {
                // Then who comes at the very last moment is reset.
                log::debug!(error:%; "a listening socket can't be filtered");
            }
        }
    }

    /// Closes boot's own of the listener's sockets.
    pub(super) fn let_go(&mut self, id: ListenerId) {
        let sockets = self.open.remove(&id).unwrap_or_default();
        let inodes = sockets
            .iter()
            .filter_map(|socket| fd::inode(&**socket).ok());
        self.past.extend(inodes);
    }

    /// Gives the listener's sockets, and who waits on them, to a new one.
    ///
    /// # Panics
    /// When there is no such listener.
    pub(super) fn renew(&mut self, id: ListenerId) -> BoundListener {
        let sockets = self.open.remove(&id).expect("its sockets are open");
        let address = fd::local_address(&*sockets[0]).expect("it is bound");
        self.keep(address, sockets)
    }

    /// Closes boot's own of all sockets, and nothing else: another process has inherited them.
    pub(super) fn release(&mut self) {
        self.open.clear();
    }

    fn keep(&mut self, address: SocketAddr, sockets: Vec<Arc<OwnedFd>>) -> BoundListener {
        let id = ListenerId(self.next);
        self.next += 1;
        let bound = BoundListener {
            id,
            address,
            sockets: sockets.iter().map(Arc::downgrade).collect(),
        };
        self.open.insert(id, sockets);
        bound
    }

    /// SO_REUSEPORT would let a second process of the same user share the port unseen; so the
    /// address is first bound without it. Only our own may be in the way: those of a listener that
    /// moves to another address of its port, or that has just been removed.
    fn bind_first(&mut self, address: SocketAddr) -> io::Result<OwnedFd> {
        if address.port() != 0
            && let Err(error) = fd::probe_bind(address)
        {
            let is_taken = error.kind() == io::ErrorKind::AddrInUse;
            if !is_taken || !self.is_ours_alone(address) {
                return Err(error);
            }
        }
        fd::listen(address, BACKLOG)
    }

    /// True exactly when somebody listens where `address` would, and it is nobody but us.
    fn is_ours_alone(&mut self, address: SocketAddr) -> bool {
        let open = self.open.values().flatten();
        let mut own: Vec<u64> = open
            .filter_map(|socket| fd::inode(&**socket).ok())
            .collect();
        own.extend(&self.past);
        let Ok(there) = others::listening_at(address) else {
            return false;
        };
        // What is not there any more may become somebody else's number.
        self.past.retain(|inode| there.contains(inode));
        !there.is_empty() && there.iter().all(|inode| own.contains(inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn who_was_there_before_a_listener_is_closed_is_served_and_nobody_comes_after() {
        let mut sockets = Sockets::new(1);
        let bound = sockets.open(ANY.parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(bound.address).unwrap();
        sockets.close(bound.id);
        let span = Duration::from_millis(50);
        let late = TcpStream::connect_timeout(&bound.address, span).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut, "its SYN is not answered");
        // Who is accepted from now on has the filter as well.
        let socket = bound.sockets[0].upgrade().unwrap();
        let (mut accepted, _) = fd::accept(socket.as_raw_fd(), false).unwrap().unwrap();
        for round in 0..3 {
            client.write_all(&[round; 64 * 1024]).unwrap();
            accepted.read_exact(&mut [0; 64 * 1024]).unwrap();
            accepted.write_all(&[round; 64 * 1024]).unwrap();
            client.read_exact(&mut [0; 64 * 1024]).unwrap();
        }
        drop(client);
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
        drop(socket);
        sockets.let_go(bound.id);
        let refused = TcpStream::connect(bound.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_is_handed_on_is_left_as_it_is() {
        let mut sockets = Sockets::new(1);
        let bound = sockets.open(ANY.parse().unwrap()).unwrap();
        let inherited = bound.sockets[0].upgrade().unwrap();
        let _first = TcpStream::connect(bound.address).unwrap();
        sockets.release();
        let _second = TcpStream::connect(bound.address).unwrap();
        for _ in 0..2 {
            let accepted = fd::accept(inherited.as_raw_fd(), false).unwrap();
            assert!(accepted.is_some());
        }
    }

    #[test]
    fn an_address_is_shared_with_our_own_sockets_alone() {
        let mut sockets = Sockets::new(2);
        let first = sockets.open(ANY.parse().unwrap()).unwrap();
        let second = sockets.open(first.address).unwrap();
        assert_ne!(first.id, second.id);
        // A duplicate that outlives boot's own is ours, too.
        let held = first.sockets[0].upgrade().unwrap().try_clone().unwrap();
        sockets.let_go(first.id);
        sockets.let_go(second.id);
        let third = sockets.open(first.address).unwrap();
        drop(held);
        let taken = Sockets::new(1).open(third.address).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse, "another process's");
        let theirs = TcpListener::bind(ANY).unwrap();
        let taken = sockets.open(theirs.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_renewed_listener_has_the_sockets_and_who_waits_on_them() {
        let mut sockets = Sockets::new(1);
        let last = sockets.open(ANY.parse().unwrap()).unwrap();
        let _client = TcpStream::connect(last.address).unwrap();
        let next = sockets.renew(last.id);
        assert_ne!(last.id, next.id);
        assert_eq!(last.address, next.address);
        sockets.let_go(last.id);
        let socket = next.sockets[0].upgrade().unwrap();
        assert!(fd::accept(socket.as_raw_fd(), false).unwrap().is_some());
    }
}
