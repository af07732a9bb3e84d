//! The PROXY protocol: the header in front of a connection's first byte that tells whose connection
//! it is (haproxy.org, `doc/proxy-protocol.txt`, versions 1 and 2). Pure: bytes in, addresses out,
//! and back.
//!
//! A receiver that guesses whether there is a header lets every client say who it is (section 5):
//! where one is expected, what is none is an error.
//!
//! Invariants:
//! 1. The same bytes in any split give the same decision: what is decided of some bytes is decided
//!    of all that begin with them.
//! 2. While a header is incomplete, all bytes belong to it.

mod v1;
mod v2;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The longest header that is taken. A line has at most 107 bytes. Of version 2 a receiver is to
/// take at least 536; with what TLS and clouds add some have more, and nginx takes up to this.
pub const HEADER_BYTES_MAX: usize = 4096;

/// A version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// Its word in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it has connected to.
    pub destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its version.
    pub version: Version,
    /// Its bytes; at most [`HEADER_BYTES_MAX`].
    pub length: usize,
    /// `None` where those of the connection itself stand: the sender speaks for itself, or of a
    /// protocol that is not TCP over IP.
    pub addresses: Option<Addresses>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The begin of a header that has at least `missing` more bytes, which is 1 or more.
    Incomplete {
        /// How many.
        missing: usize,
    },
    /// A header, and perhaps bytes behind it.
    Whole(Header),
}

/// Why bytes are no header that can be taken; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins like neither version.
    #[error("no PROXY header")]
    Signature,
    /// Version 1: no end of the line where it has to be.
    #[error("line over {}", v1::LINE_BYTES_MAX)]
    LineTooLong,
    /// Version 1: a CR or a LF that does not end the line.
    #[error("lone CR or LF")]
    LineEnd,
    /// Version 1: neither TCP4 nor TCP6 nor UNKNOWN.
    #[error("unknown protocol")]
    Protocol,
    /// Version 1: other than two addresses and two ports, each behind one space.
    #[error("not two addresses and two ports")]
    Fields,
    /// Version 1: not an address of the family.
    #[error("invalid address")]
    Address,
    /// Version 1: not a port, `0..=65535` without leading zeros.
    #[error("invalid port")]
    Port,
    /// Version 2: a version other than 2 behind its signature.
    #[error("version {0} is not known")]
    Version(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("command {0} is not known")]
    Command(u8),
    /// Version 2: a byte of family and protocol that is not assigned.
    #[error("family and protocol {0:#04x} are not known")]
    Family(u8),
    /// Version 2: so many bytes are over [`HEADER_BYTES_MAX`].
    #[error("header of {0} is over {HEADER_BYTES_MAX}")]
    TooLong(usize),
    /// Version 2: the addresses of its family do not fit into its length.
    #[error("addresses cut short")]
    TooShort,
    /// Version 2: what is behind the addresses are not values with their types and lengths, or
    /// there are two checksums.
    #[error("invalid TLV")]
    Tlv,
    /// Version 2: the checksum is that of other bytes.
    #[error("checksum does not match")]
    Checksum,
}

/// What the first `bytes` of a connection are.
///
/// # Errors
/// When they can't become a header, however they go on.
pub fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    // No byte of the one signature stands in the same place of the other.
    if bytes.first() == v2::SIGNATURE.first() {
        v2::decode(bytes)
    } else {
        v1::decode(bytes)
    }
}

/// The header that says whose connection it is; without `addresses`, that it is the sender's own
/// (version 1: UNKNOWN, version 2: LOCAL).
pub fn encode(version: Version, addresses: Option<&Addresses>) -> Encoded {
    match version {
        Version::V1 => v1::encode(addresses),
        Version::V2 => v2::encode(addresses),
    }
}

/// A header to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    bytes: [u8; v1::LINE_BYTES_MAX],
    /// `length <= bytes.len()`.
    length: usize,
}

impl Encoded {
    const fn empty() -> Self {
        Self {
            bytes: [0; v1::LINE_BYTES_MAX],
            length: 0,
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The callers write what has room.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

impl fmt::Write for Encoded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.push(part.as_bytes());
        Ok(())
    }
}

/// As IPv6: an IPv4 address is mapped (RFC 4291 section 2.5.5.2). A header has one family for both
/// of its addresses.
fn ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;
