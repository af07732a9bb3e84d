//! The PROXY protocol: the header in front of a connection's first byte that tells whose connection
//! it is (haproxy.org, `doc/proxy-protocol.txt`, versions 1 and 2). Pure: bytes in, addresses out,
//! and back.

/// A version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}
