//! Listening sockets that this process was started with: by systemd, or by the process that it
//! takes the place of. Both speak sd_listen_fds(3), so that they are one thing here.
//!
//! A socket belongs to the listener at its address. Where the configuration leaves the port to the
//! kernel, the name that came with the socket says whose it is: the listener's, or [`ADMIN`].

use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::process;

use super::predecessor::Predecessor;
use super::sockets::HandedOver;
use crate::config::AdminAddress;
use crate::control::supervisor::{LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, UPGRADE};
use crate::fd::inherited::{self, FIRST};

/// The name of the admin API's socket; no listener can have it.
pub(super) const ADMIN: &str = "@admin";

/// What stands in an upgrade before the name of a socket that systemd keeps as well.
pub(super) const KEPT: &str = "@kept.";

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    /// Who has handed it over; `None` where that was no upgrade.
    predecessor: Option<Predecessor>,
}

#[derive(Debug)]
struct Socket {
    /// Its place among those that were handed over.
    place: usize,
    name: String,
    /// True exactly when systemd has it as well.
    is_kept: bool,
    socket: OwnedFd,
    address: Address,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// Not looked at yet.
    Unknown,
    Inet(SocketAddr),
    Unix(PathBuf),
    /// It is nothing that a client could come by; with the reason.
    Useless(String),
}

impl Inherited {
    /// Takes it over. To be called once, before descriptors are closed.
    ///
    /// # Errors
    /// When the variables of sd_listen_fds(3) are for this process and make no sense.
    pub fn take() -> io::Result<Self> {
        if variable(LISTEN_PID)? != Some(process::id()) {
            return Ok(Self::default());
        }
        let count = variable::<u16>(LISTEN_FDS)?.map_or(0, RawFd::from);
        let channel = variable::<RawFd>(UPGRADE)?;
        let numbers: Vec<RawFd> = (FIRST..FIRST + count).chain(channel).collect();
        let mut taken = inherited::take(&numbers)?;
        let channel = channel.and_then(|_| taken.pop());
        let names = env::var(LISTEN_FDNAMES).unwrap_or_default();
        let mut names = names.split(':');
        let sockets = (0..).zip(taken).map(|(place, socket)| {
            let name = names.next().unwrap_or_default();
            let kept = name.strip_prefix(KEPT).filter(|_| channel.is_some());
            Socket {
                place,
                name: kept.unwrap_or(name).to_owned(),
                is_kept: channel.is_none() || kept.is_some(),
                socket,
                address: Address::Unknown,
            }
        });
        let sockets: Vec<Socket> = sockets.collect();
        Ok(Self {
            sockets,
            predecessor: channel.map(Predecessor::new),
        })
    }

    /// Another hand on the way to who has handed over; `None` where that was no upgrade.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.predecessor.as_ref().and_then(Predecessor::another)
    }

    pub(super) const fn is_upgrade(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Looks at where the sockets listen, and makes them ready for the shards.
    pub(super) fn prepare(&mut self) {
        for socket in &mut self.sockets {
            socket.address = match inherited::prepare(&socket.socket) {
                Ok(address) => {
                    let path = address.as_pathname().map(|path| path.to_owned());
                    let inet = address.as_socket().map(Address::Inet);
                    let useless = || Address::Useless("it has no address".to_owned());
                    inet.or(path.map(Address::Unix)).unwrap_or_else(useless)
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    Address::Useless("it is no listening stream socket".to_owned())
                }
                Err(error) => Address::Useless(error.to_string()),
            };
        }
    }

    /// The sockets of the listener `name` at `address`, and the address that they have; `None`
    /// where there is none.
    pub(super) fn listener(
        &mut self,
        name: &str,
        address: SocketAddr,
    ) -> Option<(SocketAddr, Vec<HandedOver>)> {
        let is_own = |socket: &Socket| match socket.address {
            Address::Inet(found) if address.port() == 0 => {
                socket.name == name && found.ip() == address.ip()
            }
            Address::Inet(found) => found == address,
            _ => false,
        };
        let first = self.sockets.iter().find(|socket| is_own(socket))?;
        let Address::Inet(found) = first.address else {
            return None;
        };
        Some((found, self.take_all(&Address::Inet(found))))
    }

    /// The socket of the admin API at `address`.
    pub(super) fn admin(&mut self, address: &AdminAddress) -> Option<HandedOver> {
        let is_own = |socket: &Socket| match (&socket.address, address) {
            (Address::Inet(found), AdminAddress::Tcp(address)) if address.port() == 0 => {
                socket.name == ADMIN && found.ip() == address.ip()
            }
            (Address::Inet(found), AdminAddress::Tcp(address)) => found == address,
            (Address::Unix(found), AdminAddress::Unix(path)) => found == path,
            _ => false,
        };
        let found = self.sockets.iter().find(|socket| is_own(socket));
        let address = found?.address.clone();
        self.take_all(&address).into_iter().next()
    }

    fn take_all(&mut self, address: &Address) -> Vec<HandedOver> {
        let taken = self
            .sockets
            .extract_if(.., |socket| socket.address == *address);
        let taken = taken.map(
            |Socket {
                 socket, is_kept, ..
             }| HandedOver { socket, is_kept },
        );
        taken.collect()
    }

    /// Closes what nobody has asked for. Who has handed it over in an upgrade is told later which
    /// they are, and goes on with them until then.
    pub(super) fn finish(self) -> Option<Predecessor> {
        let mut predecessor = self.predecessor;
        for socket in &self.sockets {
            let (name, address) = (&socket.name, &socket.address);
            match (address, &mut predecessor) {
                (_, Some(predecessor)) => predecessor.unwanted.push(socket.place),
                (Address::Useless(why), None) => {
                    log::warn!(name, why; "a socket that was handed over cannot be used; closed");
                }
                (_, None) => log::warn!(
                    name, address:?;
                    "a socket that was handed over is of no listener of the configuration; closed"
                ),
            }
        }
        predecessor
    }
}

/// The number in the variable `name`; `None` where it is not set.
fn variable<N: std::str::FromStr>(name: &str) -> io::Result<Option<N>> {
    let Some(text) = env::var_os(name) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name}={text:?}"));
    number.map(Some).ok_or_else(wrong)
}
