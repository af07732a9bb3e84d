//! The listening sockets of the process, by their listeners. They belong to boot: a shard accepts
//! from a duplicate of its own, so that one that dies takes none along, and what is queued on them
//! waits for its successor.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    open: BTreeMap<ListenerId, Vec<Arc<OwnedFd>>>,
}

impl Sockets {
    /// None yet, for so many shards.
    pub(super) const fn new(shards: usize) -> Self {
        Self {
            shards,
            next: 1,
            open: BTreeMap::new(),
        }
    }

    /// Binds `address` once per shard. On port 0 the kernel picks one for the first, and the others
    /// follow.
    ///
    /// # Errors
    /// What bind(2) says, `AddrInUse` where somebody else listens there.
    pub(super) fn open(&mut self, address: SocketAddr) -> io::Result<BoundListener> {
        let first = bind_first(address)?;
        let address = fd::local_address(&first)?;
        let mut sockets = vec![first];
        while sockets.len() < self.shards {
            sockets.push(fd::listen(address, BACKLOG)?);
        }
        Ok(self.keep(address, sockets))
    }

    /// Closes what the listener is bound with. The shards let go of their duplicates by themselves,
    /// as they adopt a plan in which it does not accept.
    pub(super) fn close(&mut self, id: ListenerId) {
        self.open.remove(&id);
    }

    fn keep(&mut self, address: SocketAddr, sockets: Vec<OwnedFd>) -> BoundListener {
        let id = ListenerId(self.next);
        self.next += 1;
        let sockets: Vec<Arc<OwnedFd>> = sockets.into_iter().map(Arc::new).collect();
        let bound = BoundListener {
            id,
            address,
            sockets: sockets.iter().map(Arc::downgrade).collect(),
        };
        self.open.insert(id, sockets);
        bound
    }
}

/// SO_REUSEPORT would let a second process of the same user share the port unseen; so the address
/// is first bound without it.
fn bind_first(address: SocketAddr) -> io::Result<OwnedFd> {
    if address.port() != 0 {
        fd::probe_bind(address)?;
    }
    fd::listen(address, BACKLOG)
}
