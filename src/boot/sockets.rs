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
    /// True exactly while clients are not to come by what this process binds itself: it is not
    /// sure yet that it will serve them.
    held: bool,
    /// The number of the listener that is opened next.
    next: u32,
    /// Those that are closed and not let go of are here as well.
    open: BTreeMap<ListenerId, Vec<Arc<OwnedFd>>>,
    /// The inodes of those that were let go of: shards may hold them for a while.
    past: Vec<u64>,
    /// The inodes of those that somebody else keeps as well, for when this process has ended:
    /// systemd, which has opened them.
    kept: Vec<u64>,
    /// Those of them that no listener has now, by their address: who has it next goes on with them.
    idle: BTreeMap<SocketAddr, Vec<Arc<OwnedFd>>>,
    /// The inodes of those that the process whose place this one takes serves by until it is told
    /// to leave.
    lent: Vec<u64>,
}

/// A socket that this process was started with.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) socket: OwnedFd,
    /// True exactly when somebody else keeps it as well.
    pub(super) is_kept: bool,
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
            past: Vec::new(),
            kept: Vec::new(),
            idle: BTreeMap::new(),
            lent: Vec::new(),
        }
    }

    /// Binds `address` once per shard. On port 0 the kernel picks one for the first, and the others
    /// follow. Where systemd keeps sockets at `address`, clients come by them whoever listens
    /// beside them, so that they are the listener's again.
    ///
    /// # Errors
    /// What bind(2) says, `AddrInUse` where another process listens there.
    pub(super) fn open(&mut self, address: SocketAddr) -> io::Result<BoundListener> {
        if let Some(kept) = self.idle.get(&address) {
            let kept: io::Result<_> = kept.iter().map(|socket| socket.try_clone()).collect();
            let sockets = fill(kept?, self.shards, address, || self.bind(address))?;
            self.idle.remove(&address);
            return Ok(self.keep(address, sockets.into_iter().map(Arc::new).collect()));
        }
        let first = self.bind_first(address)?;
        let address = fd::local_address(&first)?;
        let mut sockets = vec![first];
        while sockets.len() < self.shards {
            sockets.push(self.bind(address)?);
        }
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Ok(self.keep(address, sockets))
    }

    /// Takes over the sockets of a listener at `address`, at least one. Where they are fewer than
    /// the shards, others are bound beside them; where that is refused (systemd has bound it as
    /// another user, or to a port that is not ours to bind), shards share what there is.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn adopt(
        &mut self,
        address: SocketAddr,
        sockets: Vec<HandedOver>,
    ) -> io::Result<BoundListener> {
        for handed in &sockets {
            let inode = fd::inode(&handed.socket)?;
            if handed.is_kept {
                self.kept.push(inode);
            }
            if self.held {
                self.lent.push(inode);
            }
        }
        let sockets = sockets.into_iter().map(|it| it.socket).collect();
        let bind = || self.bind(address);
        let sockets = fill(sockets, self.shards, address, bind)?;
        let sockets = sockets.into_iter().map(Arc::new).collect();
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

    /// Nobody else serves by what was handed over any more.
    pub(super) fn own(&mut self) {
        self.lent = Vec::new();
    }

    /// Notes that somebody else keeps `socket` as well.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub(super) fn note_kept(&mut self, socket: &OwnedFd) -> io::Result<()> {
        self.kept.push(fd::inode(socket)?);
        Ok(())
    }

    /// What a listener is bound with.
    pub(super) fn of(&self, id: ListenerId) -> &[Arc<OwnedFd>] {
        self.open.get(&id).map_or(&[], |sockets| sockets)
    }

    /// How many shards there are.
    pub(super) const fn shards(&self) -> usize {
        self.shards
    }

    /// True exactly when somebody else keeps the socket as well.
    pub(super) fn is_kept(&self, socket: &OwnedFd) -> bool {
        let inode = fd::inode(socket);
        inode.is_ok_and(|inode| self.kept.contains(&inode))
    }

    /// Has the kernel take nobody new by the listener's sockets. The shards empty and close their
    /// duplicates by themselves, as they adopt a plan in which it does not accept. By those that
    /// somebody else keeps as well, clients come on: they wait for whoever has them next. So they
    /// do by those that another process still serves by: a filter would be on its sockets, too.
    pub(super) fn close(&self, id: ListenerId) {
        let sockets = self.open.get(&id).into_iter().flatten();
        for socket in sockets.filter(|socket| !self.is_anothers(socket)) {
            if let Err(error) = fd::drop_syns(&**socket) {
                // Then who comes at the very last moment is reset.
                log::debug!(error:%; "a listening socket can't be filtered");
            }
        }
    }

    /// Closes boot's own of the listener's sockets, but for those that somebody else keeps as well:
    /// what comes by them waits.
    pub(super) fn let_go(&mut self, id: ListenerId) {
        let sockets = self.open.remove(&id).unwrap_or_default();
        for socket in &sockets {
            if self.is_kept(socket)
                && let Ok(address) = fd::local_address(&**socket)
            {
                let idle = self.idle.entry(address).or_default();
                idle.push(Arc::clone(socket));
            }
        }
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

    fn is_anothers(&self, socket: &OwnedFd) -> bool {
        let inode = fd::inode(socket);
        inode.is_ok_and(|inode| self.kept.contains(&inode) || self.lent.contains(&inode))
    }

    fn bind(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        if self.held {
            fd::bind(address)
        } else {
            fd::listen(address, BACKLOG)
        }
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
        self.bind(address)
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
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn who_was_there_before_a_listener_is_closed_is_served_and_nobody_comes_after() {
        let mut sockets = Sockets::new(1, false);
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
        let mut sockets = Sockets::new(1, false);
        let bound = sockets.open(ANY.parse().unwrap()).unwrap();
        let inherited = bound.sockets[0].upgrade().unwrap();
        let _first = TcpStream::connect(bound.address).unwrap();
        sockets.let_go(bound.id);
        let _second = TcpStream::connect(bound.address).unwrap();
        for _ in 0..2 {
            let accepted = fd::accept(inherited.as_raw_fd(), false).unwrap();
            assert!(accepted.is_some());
        }
    }

    #[test]
    fn an_address_is_shared_with_our_own_sockets_alone() {
        let mut sockets = Sockets::new(2, false);
        let first = sockets.open(ANY.parse().unwrap()).unwrap();
        let second = sockets.open(first.address).unwrap();
        assert_ne!(first.id, second.id);
        // A duplicate that outlives boot's own is ours, too.
        let held = first.sockets[0].upgrade().unwrap().try_clone().unwrap();
        sockets.let_go(first.id);
        sockets.let_go(second.id);
        let third = sockets.open(first.address).unwrap();
        drop(held);
        let taken = Sockets::new(1, false).open(third.address).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse, "another process's");
        let theirs = TcpListener::bind(ANY).unwrap();
        let taken = sockets.open(theirs.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_renewed_listener_has_the_sockets_and_who_waits_on_them() {
        let mut sockets = Sockets::new(1, false);
        let last = sockets.open(ANY.parse().unwrap()).unwrap();
        let _client = TcpStream::connect(last.address).unwrap();
        let next = sockets.renew(last.id);
        assert_ne!(last.id, next.id);
        assert_eq!(last.address, next.address);
        sockets.let_go(last.id);
        let socket = next.sockets[0].upgrade().unwrap();
        assert!(fd::accept(socket.as_raw_fd(), false).unwrap().is_some());
    }

    #[test]
    fn shards_share_what_is_handed_over_where_nothing_can_be_bound_beside_it() {
        let first = fd::listen(ANY.parse().unwrap(), BACKLOG).unwrap();
        let address = fd::local_address(&first).unwrap();
        let refused = || Err(ErrorKind::PermissionDenied.into());
        let shared = fill(vec![first], 3, address, refused).unwrap();
        let addresses: Vec<_> = shared.iter().map(|it| fd::local_address(it).ok()).collect();
        assert_eq!(addresses, [Some(address); 3]);
        // One queue: who comes waits for any of the three.
        let _client = TcpStream::connect(address).unwrap();
        let last = TcpListener::from(shared.into_iter().next_back().unwrap());
        last.accept().unwrap();
    }

    #[test]
    fn by_a_socket_that_systemd_keeps_clients_come_also_when_it_is_closed_here() {
        let kept = fd::listen(ANY.parse().unwrap(), BACKLOG).unwrap();
        let address = fd::local_address(&kept).unwrap();
        let mut sockets = Sockets::new(1, false);
        let handed = HandedOver {
            socket: kept.try_clone().unwrap(),
            is_kept: true,
        };
        let bound = sockets.adopt(address, vec![handed]).unwrap();
        sockets.close(bound.id);
        sockets.let_go(bound.id);
        let _client = TcpStream::connect(address).unwrap();
        let accepted = fd::accept(kept.as_raw_fd(), false).unwrap();
        assert!(accepted.is_some());
        // A listener that has the address next, has them, too.
        let _client = TcpStream::connect(address).unwrap();
        let next = sockets.open(address).unwrap();
        let socket = next.sockets[0].upgrade().unwrap();
        assert!(fd::accept(socket.as_raw_fd(), false).unwrap().is_some());
    }

    #[test]
    fn what_another_process_serves_by_is_not_closed_to_its_clients_before_it_leaves() {
        let theirs = fd::listen(ANY.parse().unwrap(), BACKLOG).unwrap();
        let address = fd::local_address(&theirs).unwrap();
        let mut sockets = Sockets::new(1, true);
        let handed = HandedOver {
            socket: theirs.try_clone().unwrap(),
            is_kept: false,
        };
        let bound = sockets.adopt(address, vec![handed]).unwrap();
        sockets.close(bound.id);
        drop(TcpStream::connect(address).unwrap());
        sockets.own();
        sockets.close(bound.id);
        let span = Duration::from_millis(50);
        TcpStream::connect_timeout(&address, span).expect_err("its SYN is not answered");
    }
}
