//! A client's connection, from accept to close.
//!
//! Between two requests it is a small task that waits for readability and holds no buffer: about a
//! kilobyte, the kernel's part aside. While it has something to say, its conversation runs in a
//! slot of the shard ([`slots`](super::slots)).

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::admit::ClientKey;
use super::buffer::{Buffer, Share};
use super::deadline::Late;
use super::io::Stream;
use super::linger::linger;
use super::listeners::RunningListener;
use super::slots::Slots;
use super::tunnel::Tunnel;
use super::{QUIET, Shard, proxied, serve, tcp};
use crate::fd;
use crate::plan::{ListenerTimeouts, Protocol, Ticks};
use crate::proxy_protocol::Addresses;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    /// The connection itself.
    pub(super) stream: Stream,
    /// Its address as text, for `X-Forwarded-For`.
    pub(super) address: AddressText,
    /// Its address, as far as limits tell clients apart.
    pub(super) key: ClientKey,
    /// What a header of the PROXY protocol has said of it; the address and the key are of that.
    proxied: Option<Box<Addresses>>,
    /// When the first byte of the running request, or of the next one, was there, in nanoseconds of
    /// the shard's clock.
    pub(super) begun: u64,
    /// False exactly while a head's deadline runs: the first one's from accept, a later one's from
    /// its first byte.
    pub(super) greeted: bool,
    /// What a large buffer with its next requests takes of the memory for slow peers.
    pub(super) held: Option<Share>,
    /// What it counts as, while it is open.
    presence: Presence,
}

/// What becomes of a client's connection after an exchange.
#[derive(Debug)]
pub(super) enum After {
    /// Another request may come.
    KeepAlive,
    /// It is closed.
    Close,
    /// It has had its last answer and is closed, so that it can read that.
    LastAnswer,
    /// It has left HTTP.
    Tunnel(Box<Tunnel>),
}

impl Client {
    /// A client that was just accepted.
    pub(super) fn new(
        shard: &Rc<Shard>,
        stream: Stream,
        listener: &Rc<RunningListener>,
        address: SocketAddr,
    ) -> Self {
        let (key, address) = (ClientKey::of(address.ip()), AddressText::new(address.ip()));
        let presence = Presence::enter(shard, listener);
        stream.belongs_to(listener.id);
        Self {
            stream,
            address,
            key,
            proxied: None,
            begun: 0,
            greeted: false,
            held: None,
            presence,
        }
    }

    /// The listener that it was accepted on.
    pub(super) fn listener(&self) -> &RunningListener {
        &self.presence.listener
    }

    /// True from when on it gets one more answer; asked when that is begun.
    pub(super) fn is_leaving(&self) -> bool {
        self.listener().is_leaving()
    }

    /// True from when on our side of it is ended, because it was idle for too long.
    pub(super) fn is_parted(&self) -> bool {
        self.stream.reading().expired() == Some(Late::KeepAlive)
    }

    /// From now on it is who a header says it is.
    pub(super) fn stands_for(&mut self, addresses: Addresses) {
        let ip = addresses.source.ip();
        (self.key, self.address) = (ClientKey::of(ip), AddressText::new(ip));
        self.proxied = Some(Box::new(addresses));
    }

    /// Whose connection this is and where it goes to: what a header has said, or else, for two
    /// system calls, what its socket says.
    ///
    /// # Errors
    /// Where the client is gone.
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        if let Some(proxied) = &self.proxied {
            return Ok(**proxied);
        }
        let (source, destination) = fd::ends(self.stream.fd())?;
        Ok(Addresses {
            source,
            destination,
        })
    }

    /// Some bytes of a head are here and more are awaited: from the first on it has `timeout`.
    pub(super) fn head_begun(&mut self, timeout: Ticks) {
        if self.greeted {
            self.greeted = false;
            self.stream.reading().arm(timeout, Late::Head);
        }
    }
}

/// Serves one client to its end. It is boxed so that handing it to a conversation and back copies a
/// pointer.
pub(super) async fn client(shard: Rc<Shard>, mut client: Box<Client>) {
    arm_head(&shard, &client);
    if client.listener().proxy_protocol {
        // In a box of its own it is not part of every idle client.
        if !Box::pin(proxied::take_header(&shard, &mut client)).await {
            return;
        }
        // The header was the time of who has sent it; the head has its own.
        arm_head(&shard, &client);
    }
    if client.listener().protocol == Protocol::Tcp {
        client.stream.reading().disarm();
        // In boxes of their own they are not part of every idle client.
        if let Some(tunnel) = Box::pin(tcp::open(&shard, &mut client)).await {
            Box::pin(tunnel.run(&shard, &mut client)).await;
        }
        return;
    }
    loop {
        let asked = shard.clock.turn();
        if client.stream.readable().await.is_err() {
            return;
        }
        client.begun = shard.clock.ready_at(asked);
        let after;
        (client, after) = Slots::converse(&shard, client).await;
        match after {
            After::KeepAlive => {}
            After::Close | After::LastAnswer => return,
            // In a box of its own it is not part of every idle client.
            After::Tunnel(tunnel) => {
                return Box::pin(tunnel.run(&shard, &mut client)).await;
            }
        }
        client
            .stream
            .reading()
            .arm(keep_alive(&shard, &client), Late::KeepAlive);
    }
}

/// From now on the first head, or the header before it, has its time.
fn arm_head(shard: &Shard, client: &Client) {
    let timeout = patience(shard, client, |timeouts| timeouts.head);
    client.stream.reading().arm(timeout, Late::Head);
}

/// How long a client may be idle now.
fn keep_alive(shard: &Shard, client: &Client) -> Ticks {
    patience(shard, client, |timeouts| timeouts.keep_alive)
}

/// What is left of the time that the plan of the moment gives it. One whose listener that does not
/// have is about to be cut.
fn patience(shard: &Shard, client: &Client, of: fn(&ListenerTimeouts) -> Ticks) -> Ticks {
    let current = shard.current.borrow();
    let listener = client.listener();
    let usual = listener.now(&current).map(|now| of(&now.timeouts));
    listener.patience(usual.unwrap_or(QUIET))
}

/// Serves requests as long as bytes of the next one are already here. Runs in a slot.
pub(super) async fn converse(shard: &Shard, client: &mut Client) -> After {
    let mut inbox = Buffer::default();
    loop {
        let after = serve::exchange(shard, client, &mut inbox).await;
        shard.give_way().await;
        if inbox.filled() == b"\r\n" {
            // RFC 9112 section 2.2: some clients end a body with one. It begins no request.
            inbox.clear();
        }
        match after {
            After::KeepAlive if !inbox.is_empty() => {}
            After::Tunnel(mut tunnel) => {
                tunnel.begin_with(inbox);
                return After::Tunnel(tunnel);
            }
            After::KeepAlive | After::Close | After::LastAnswer => {
                let is_last = matches!(after, After::LastAnswer);
                let fd = client.stream.fd();
                let sends_on = !inbox.is_empty() || fd::has_unread(fd);
                shard.stock.put(inbox);
                client.held = None;
                // RFC 9112 section 9.6: a close with bytes unread, or bytes that come after it,
                // would reset away what the client has not taken of its answer.
                let is_last = is_last && (sends_on || fd::has_unsent(fd));
                // It was idle for too long, and has sent a request when it could not know that.
                if is_last || (sends_on && client.is_parted()) {
                    linger(shard, client).await;
                }
                return after;
            }
        }
        // Its first bytes have been here for a while, but it was not its turn.
        client.begun = shard.clock.now();
    }
}

/// Counts a client in where it is made and out where it is dropped, whatever ends it.
#[derive(Debug)]
struct Presence {
    shard: Rc<Shard>,
    listener: Rc<RunningListener>,
}

impl Presence {
    fn enter(shard: &Rc<Shard>, listener: &Rc<RunningListener>) -> Self {
        listener.counters.clients_open.add(1);
        shard.clients.set(shard.clients.get() + 1);
        shard.counters.clients_accepted.add(1);
        shard.counters.clients_open.add(1);
        Self {
            shard: Rc::clone(shard),
            listener: Rc::clone(listener),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.listener.counters.clients_open.sub(1);
        self.shard.clients.set(self.shard.clients.get() - 1);
        self.shard.counters.clients_open.sub(1);
        self.shard.shedding.set(false);
    }
}

/// The longest text of an IP address: eight groups and an IPv4 tail (RFC 4291 section 2.2).
const ADDRESS_BYTES_MAX: usize = 45;

/// An IP address as text, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressText {
    bytes: [u8; ADDRESS_BYTES_MAX],
    length: u8,
}

impl AddressText {
    fn new(address: IpAddr) -> Self {
        let mut text = Self {
            bytes: [0; ADDRESS_BYTES_MAX],
            length: 0,
        };
        write!(text, "{}", address.to_canonical()).expect("every address fits");
        text
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        let text = &self.bytes[..usize::from(self.length)];
        std::str::from_utf8(text).expect("it was written as a str")
    }
}

impl Write for AddressText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let begin = usize::from(self.length);
        let room = self
            .bytes
            .get_mut(begin..begin + part.len())
            .ok_or(std::fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.length += part.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_is_small() {
        // The task that every idle client has; its exchange runs in a slot.
        fn size<F>(_task: fn(Rc<Shard>, Box<Client>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size_of::<Client>() <= 256, "{}", size_of::<Client>());
        assert!(size(client) <= 256, "{}", size(client));
    }

    #[test]
    fn addresses_are_written_as_their_own_display_has_them() {
        let long = "1111:2222:3333:4444:5555:6666:7777:8888";
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            (long, long),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            let text = AddressText::new(address.parse().unwrap());
            assert_eq!(text.as_str(), expected);
        }
    }
}
