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
