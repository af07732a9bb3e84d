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
    /// True exactly while clients are not to come by what this process binds itself: it is not
    /// sure yet that it will serve them.
    held: bool,
    /// The number of the listener that is opened next.
    next: u32,
    open: BTreeMap<ListenerId, Vec<Arc<OwnedFd>>>,
}

impl Sockets {
    /// None yet, for so many shards. Where they are `held`, nobody can connect to what is bound
    /// before [`Sockets::begin`].
    pub(super) const fn new(shards: usize, held: bool) -> Self {
        Self {
            shards,
            held,
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
        // SO_REUSEPORT would let a second process of the same user share the port unseen; so the
        // address is first bound without it.
        if address.port() != 0 {
            fd::probe_bind(address)?;
        }
        let first = self.bind(address)?;
        let address = fd::local_address(&first)?;
        let mut sockets = vec![first];
        while sockets.len() < self.shards {
            sockets.push(self.bind(address)?);
        }
        Ok(self.keep(address, sockets))
    }

    /// Takes over the `inherited` sockets of a listener at `address`, at least one. Where they are
    /// fewer than the shards, others are bound beside them; where that is refused (systemd has
    /// bound it as another user, or to a port that is not ours to bind), shards share what there
    /// is.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn adopt(
        &mut self,
        address: SocketAddr,
        inherited: Vec<OwnedFd>,
    ) -> io::Result<BoundListener> {
        let bind = || self.bind(address);
        let sockets = fill(inherited, self.shards, address, bind)?;
        Ok(self.keep(address, sockets))
    }

    /// Lets clients come by all sockets, from now on also by those that are opened later.
    ///
    /// # Errors
    /// What listen(2) says.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.held = false;
        let mut sockets = self.open.values().flatten();
        sockets.try_for_each(|socket| fd::start_listening(socket, BACKLOG))
    }

    /// What a listener is bound with.
    pub(super) fn of(&self, id: ListenerId) -> &[Arc<OwnedFd>] {
        self.open.get(&id).map_or(&[], |sockets| sockets)
    }

    /// How many shards there are.
    pub(super) const fn shards(&self) -> usize {
        self.shards
    }

    fn bind(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        if self.held {
            fd::bind(address)
        } else {
            fd::listen(address, BACKLOG)
        }
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

/// `sockets`, and as many more as there are shards without one: bound, or else shared.
fn fill(
    mut sockets: Vec<OwnedFd>,
    shards: usize,
    address: SocketAddr,
    bind: impl Fn() -> io::Result<OwnedFd>,
) -> io::Result<Vec<OwnedFd>> {
    let own = sockets.len();
    while sockets.len() < shards {
        match bind() {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                log::info!(
                    address:%, error:%, sockets = sockets.len(), shards;
                    "no further socket can be bound beside those that were handed over; shards \
                     share them"
                );
                break;
            }
        }
    }
    while sockets.len() < shards {
        let shared = sockets[sockets.len() % own].try_clone()?;
        sockets.push(shared);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_what_is_handed_over_where_nothing_can_be_bound_beside_it() {
        let any = "127.0.0.1:0".parse().expect("it is an address");
        let first = fd::listen(any, BACKLOG).expect("a free port");
        let address = fd::local_address(&first).expect("it is bound");
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        let shared = fill(vec![first], 3, address, refused).expect("there are descriptors");
        let addresses: Vec<_> = shared.iter().map(|it| fd::local_address(it).ok()).collect();
        assert_eq!(addresses, [Some(address); 3]);
        // One queue: who comes waits for any of the three.
        let _client = std::net::TcpStream::connect(address).expect("it listens");
        let last = std::net::TcpListener::from(shared.into_iter().next_back().expect("the third"));
        last.accept().expect("somebody waits");
    }
}
