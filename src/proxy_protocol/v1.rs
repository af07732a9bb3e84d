//! Version 1: one line of text (section 2.1).
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n
//! ```
//!
//! Nothing of a line is looked at before its end is here. An IPv6 address may end like an IPv4 one
//! (RFC 4291 section 2.2): the text says "hexadecimal digits", but inet_ntop(3) writes mapped
//! addresses so, and with it HAProxy and nginx. What we write has digits only.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Addresses, Decoded, Encoded, Header, HeaderError, Version, ipv6};

/// The longest line, its end included: two IPv6 addresses behind UNKNOWN.
pub(super) const LINE_BYTES_MAX: usize = 107;
/// The shortest line is `PROXY UNKNOWN` and its end.
const LINE_BYTES_MIN: usize = 15;
const SIGNATURE: &[u8] = b"PROXY ";

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let compared = bytes.len().min(SIGNATURE.len());
    if bytes[..compared] != SIGNATURE[..compared] {
        return Err(HeaderError::Signature);
    }
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let missing = match end.map(|end| &window[end..]) {
        Some([b'\r', b'\n', ..]) => {
            let line = &window[..end.unwrap_or_default()];
            return Ok(Decoded::Whole(Header {
                version: Version::V1,
                length: line.len() + 2,
                addresses: line_of(&line[SIGNATURE.len()..])?,
            }));
        }
        Some([b'\r']) => 1,
        // Whoever takes one of these for the end reads another header than we do.
        Some(_) => return Err(HeaderError::LineEnd),
        None => 2,
    };
    if window.len() == LINE_BYTES_MAX {
        return Err(HeaderError::LineTooLong);
    }
    let missing = missing.max(LINE_BYTES_MIN.saturating_sub(window.len()));
    Ok(Decoded::Incomplete { missing })
}

/// What a line says behind the signature.
fn line_of(line: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    let mut words = line.split(|byte| *byte == b' ');
    match words.next() {
        // Whatever follows is to be ignored.
        Some(b"UNKNOWN") => Ok(None),
        Some(b"TCP4") => addresses::<Ipv4Addr>(words).map(Some),
        Some(b"TCP6") => addresses::<Ipv6Addr>(words).map(Some),
        _ => Err(HeaderError::Protocol),
    }
}

fn addresses<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<Addresses, HeaderError> {
    let mut word = || words.next().ok_or(HeaderError::Fields);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(HeaderError::Fields);
    }
    Ok(Addresses {
        source: SocketAddr::new(address::<A>(source)?, port(source_port)?),
        destination: SocketAddr::new(address::<A>(destination)?, port(destination_port)?),
    })
}

/// The standard library takes no leading zeros of IPv4, which some read as octal, and no zone.
fn address<A: FromStr + Into<IpAddr>>(word: &[u8]) -> Result<IpAddr, HeaderError> {
    let address = std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse::<A>().ok());
    address.map(Into::into).ok_or(HeaderError::Address)
}

fn port(word: &[u8]) -> Result<u16, HeaderError> {
    let number = match word {
        b"0" => Some(0),
        // A sign is none of these.
        [b'1'..=b'9', ..] => std::str::from_utf8(word)
            .ok()
            .and_then(|word| word.parse().ok()),
        _ => None,
    };
    number.ok_or(HeaderError::Port)
}

pub(super) fn encode(addresses: Option<&Addresses>) -> Encoded {
    let mut line = Encoded::empty();
    let written = match addresses {
        None => write!(line, "PROXY UNKNOWN\r\n"),
        Some(Addresses {
            source: SocketAddr::V4(source),
            destination: SocketAddr::V4(destination),
        }) => write!(
            line,
            "PROXY TCP4 {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        Some(Addresses {
            source,
            destination,
        }) => write!(
            line,
            "PROXY TCP6 {} {} {} {}\r\n",
            Hexadecimal(ipv6(source.ip())),
            Hexadecimal(ipv6(destination.ip())),
            source.port(),
            destination.port()
        ),
    };
    written.expect("every line fits");
    line
}

/// An IPv6 address without a tail like IPv4's.
struct Hexadecimal(Ipv6Addr);

impl std::fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}
