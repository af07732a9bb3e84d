//! Whose connection it is, where another proxy says so or is told: headers of the PROXY protocol,
//! taken off a client's connection and sent on an endpoint's.
//!
//! Of a client's connection exactly the header is read, so that nothing behind it has to be carried
//! to where requests are read. Its bytes are looked at first: with the first look, as a rule, it is
//! whole. Those of an incomplete one are read all the same, or else the connection would stay
//! readable and waiting for more of them would be a busy loop.

use std::io;

use super::Shard;
use super::client::Client;
use super::deadline::Late;
use super::io::Stream;
use crate::fd;
use crate::proxy_protocol::{
    self, Addresses, Decoded, HEADER_BYTES_MAX, Header, HeaderError, Version,
};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
enum Unproxied {
    /// It was not whole in time.
    #[error("late")]
    Late,
    /// The connection ended within it.
    #[error("ended")]
    Ended,
    /// The connection ended before it, without a byte: a health check that only connects does so,
    /// and a client that a drain is too short for.
    #[error("silent")]
    Silent,
    /// It is none, or not one that can be taken.
    #[error(transparent)]
    Invalid(#[from] HeaderError),
}

/// Waits for the header that `client` has to begin with, and has it be who that says. False where
/// none comes: then it is closed without an answer, for nobody knows whether it speaks HTTP.
pub(super) async fn take_header(shard: &Shard, client: &mut Client) -> bool {
    let why = match read_header(shard, client).await {
        Ok(header) => {
            if let Some(addresses) = header.addresses {
                client.stands_for(addresses);
            }
            return true;
        }
        Err(Unproxied::Silent) => return false,
        Err(why) => why,
    };
    shard.counters.clients_unproxied.add(1);
    let address = client.address.as_str();
    log::debug!(client = address, reason:% = why; "no PROXY header");
    false
}

async fn read_header(shard: &Shard, client: &Client) -> Result<Header, Unproxied> {
    let mut begin = Vec::new();
    loop {
        let waited = client.stream.readable().await;
        match client.stream.cut_for() {
            None => {}
            // It has not said anything, and is not told that it was late with it.
            Some(Late::Head) if begin.is_empty() && client.is_leaving() => {
                return Err(Unproxied::Silent);
            }
            Some(Late::Head) => return Err(Unproxied::Late),
            Some(_) => return Err(Unproxied::Silent),
        }
        let read = match waited {
            Ok(()) => read_more(shard, client, &mut begin),
            Err(_) => Err(Unproxied::Ended),
        };
        match read {
            Ok(Some(header)) => return Ok(header),
            Ok(None) => {}
            Err(Unproxied::Ended) if begin.is_empty() => return Err(Unproxied::Silent),
            Err(why) => return Err(why),
        }
    }
}

/// Reads what is here of the header behind its `begin`, and nothing else. `None` while more of it
/// is to come; what there is stands in `begin` then.
fn read_more(
    shard: &Shard,
    client: &Client,
    begin: &mut Vec<u8>,
) -> Result<Option<Header>, Unproxied> {
    let fd = client.stream.fd();
    let mut bytes = [0; HEADER_BYTES_MAX];
    // An incomplete header is shorter than the longest one.
    let (known, room) = bytes.split_at_mut(begin.len());
    known.copy_from_slice(begin);
    let seen = match fd::look(fd, room) {
        Ok(0) => return Err(Unproxied::Ended),
        Ok(count) => begin.len() + count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(_) => return Err(Unproxied::Ended),
    };
    let header = match proxy_protocol::decode(&bytes[..seen])? {
        Decoded::Whole(header) => Some(header),
        Decoded::Incomplete { .. } => None,
    };
    let end = header.map_or(seen, |header| header.length);
    let room = &mut bytes[begin.len()..end];
    let count = fd::take(fd, room).map_err(|_error| Unproxied::Ended)?;
    shard.counters.bytes_client_in.add(count as u64);
    // What was looked at is there to be taken; were it less, the next turn would take the rest.
    let header = header.filter(|header| begin.len() + count == header.length);
    if header.is_none() {
        begin.extend_from_slice(&room[..count]);
    }
    Ok(header)
}

/// Sends the header that tells of `addresses`, or that nothing is known of them, as the first bytes
/// of `stream`; says how many these are. A new connection has room for so few.
///
/// # Errors
/// `ConnectionReset` where the endpoint does not take them: it has closed already.
pub(super) fn send_header(
    stream: &Stream,
    version: Version,
    addresses: Option<&Addresses>,
) -> io::Result<usize> {
    let header = proxy_protocol::encode(version, addresses);
    let bytes = header.as_bytes();
    if fd::send_now(stream.fd(), bytes) {
        Ok(bytes.len())
    } else {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
