//! Version 2: binary (section 2.2).
//!
//! ```text
//! 0                    12          13          14      16              16 + length
//! | signature          | 2 command | family,   | length | addresses | TLVs |
//! |                    |           | protocol  |        |           |      |
//! ```
//!
//! What follows LOCAL is skipped, whatever it is. So it is behind PROXY where the family or the
//! protocol is unspecified, UNIX or a datagram's: a receiver falls back so for what it does not
//! support, and over TCP none of these says who the client is. Behind addresses that are used, the
//! TLVs are looked through for a checksum, which then has to match; what else they say is skipped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Decoded, Encoded, HEADER_BYTES_MAX, Header, HeaderError, Version, ipv6};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Where the addresses begin.
const FIXED_BYTES: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const CRC32C: u8 = 0x03;

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let compared = bytes.len().min(SIGNATURE.len());
    if bytes[..compared] != SIGNATURE[..compared] {
        return Err(HeaderError::Signature);
    }
    // Each byte is judged when it is here, so that a split changes nothing.
    let Some(&command) = bytes.get(12) else {
        return incomplete(bytes, FIXED_BYTES);
    };
    match (command >> 4, command) {
        (2, LOCAL | PROXY) => {}
        (2, _) => return Err(HeaderError::Command(command & 0x0f)),
        (version, _) => return Err(HeaderError::Version(version)),
    }
    let Some(&family) = bytes.get(13) else {
        return incomplete(bytes, FIXED_BYTES);
    };
    // The family of LOCAL is ignored.
    if command == PROXY && (0x3f < family || 0x02 < family & 0x0f) {
        return Err(HeaderError::Family(family));
    }
    let Some(length) = bytes.get(14..FIXED_BYTES) else {
        return incomplete(bytes, FIXED_BYTES);
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if HEADER_BYTES_MAX < length {
        return Err(HeaderError::TooLong(length));
    }
    let used = match (command, family) {
        (PROXY, TCP4) => 12,
        (PROXY, TCP6) => 36,
        _ => 0,
    };
    if length < FIXED_BYTES + used {
        return Err(HeaderError::TooShort);
    }
    let Some(header) = bytes.get(..length) else {
        return incomplete(bytes, length);
    };
    let addresses = match used {
        0 => None,
        _ => {
            check_tlvs(header, FIXED_BYTES + used)?;
            Some(addresses(&header[FIXED_BYTES..FIXED_BYTES + used]))
        }
    };
    Ok(Decoded::Whole(Header {
        version: Version::V2,
        length,
        addresses,
    }))
}

fn incomplete(bytes: &[u8], length: usize) -> Result<Decoded, HeaderError> {
    let missing = length - bytes.len();
    Ok(Decoded::Incomplete { missing })
}

/// Of a block of 12 or 36 bytes.
fn addresses(block: &[u8]) -> Addresses {
    let (ips, ports) = block.split_at(block.len() - 4);
    let (source, destination) = ips.split_at(ips.len() / 2);
    let end = |ip: &[u8], port: &[u8]| {
        let port = u16::from_be_bytes([port[0], port[1]]);
        match <[u8; 16]>::try_from(ip) {
            Ok(ip) => SocketAddr::from((Ipv6Addr::from(ip), port)),
            Err(_) => SocketAddr::from((Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), port)),
        }
    };
    Addresses {
        source: end(source, &ports[..2]),
        destination: end(destination, &ports[2..]),
    }
}

/// Looks through the TLVs of `header` from `begin` on; a checksum among them has to be the
/// header's.
fn check_tlvs(header: &[u8], begin: usize) -> Result<(), HeaderError> {
    let mut rest = &header[begin..];
    let mut checksum = None;
    while let [kind, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if behind.len() < length {
            return Err(HeaderError::Tlv);
        }
        let at = header.len() - behind.len();
        if *kind == CRC32C && (length != 4 || checksum.replace(at).is_some()) {
            return Err(HeaderError::Tlv);
        }
        rest = &behind[length..];
    }
    if !rest.is_empty() {
        return Err(HeaderError::Tlv);
    }
    let Some(at) = checksum else { return Ok(()) };
    let (before, behind) = (&header[..at], &header[at + 4..]);
    // Section 2.2.3: of the header with zeros in place of the checksum.
    let whole = before.iter().chain(&[0; 4]).chain(behind);
    if crc32c(whole).to_be_bytes() == header[at..at + 4] {
        Ok(())
    } else {
        Err(HeaderError::Checksum)
    }
}

/// What one byte adds to a checksum: RFC 9260 appendix A, its polynomial reflected.
const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (0x82f6_3b78 * (rest & 1));
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

pub(super) fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| {
        (crc >> 8) ^ CRC_OF_BYTE[usize::from(crc as u8 ^ byte)]
    })
}

pub(super) fn encode(addresses: Option<&Addresses>) -> Encoded {
    let mut header = Encoded::empty();
    header.push(&SIGNATURE);
    let Some(Addresses {
        source,
        destination,
    }) = addresses
    else {
        header.push(&[LOCAL, UNSPECIFIED, 0, 0]);
        return header;
    };
    if let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) {
        header.push(&[PROXY, TCP4, 0, 12]);
        header.push(&source.ip().octets());
        header.push(&destination.ip().octets());
    } else {
        header.push(&[PROXY, TCP6, 0, 36]);
        header.push(&ipv6(source.ip()).octets());
        header.push(&ipv6(destination.ip()).octets());
    }
    header.push(&source.port().to_be_bytes());
    header.push(&destination.port().to_be_bytes());
    header
}
