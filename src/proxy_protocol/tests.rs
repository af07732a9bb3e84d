//! Headers that are taken and refused, in any split, and beside another reader, the crate `ppp`.

use ppp::HeaderResult;
use proptest::prelude::*;

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn at(address: &str) -> SocketAddr {
    address.parse().expect("it is a socket address")
}

fn between(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: at(source),
        destination: at(destination),
    }
}

/// A header of version 2: command, family and protocol, and what its length counts.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

/// Addresses from 192.0.2.1:258 to 198.51.100.7:443, and `tlvs`.
fn v2_with(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 187];
    v2(0x21, 0x11, &[&addresses, tlvs].concat())
}

/// `header`, which ends with a checksum of four zeros, with its checksum.
fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    let crc = v2::crc32c(header.iter());
    header.truncate(header.len() - 4);
    header.extend(crc.to_be_bytes());
    header
}

/// What is decided of `bytes` when they come one by one; how many there were by then.
fn decide(bytes: &[u8]) -> (usize, Result<Decoded, HeaderError>) {
    for end in 0..bytes.len() {
        match decode(&bytes[..end]) {
            Ok(Decoded::Incomplete { missing }) => assert!(0 < missing, "{bytes:?}"),
            decided => return (end, decided),
        }
    }
    (bytes.len(), decode(bytes))
}

/// `bytes` and what may follow them: decided alike in any split.
#[track_caller]
fn check(bytes: &[u8], expected: Result<Option<Addresses>, HeaderError>) {
    for behind in ["", "GET / HTTP/1.1\r\n\r\n", "\0"] {
        let all = [bytes, behind.as_bytes()].concat();
        let expected = expected.map(|addresses| {
            Decoded::Whole(Header {
                version: if bytes[0] == b'P' {
                    Version::V1
                } else {
                    Version::V2
                },
                length: bytes.len(),
                addresses,
            })
        });
        assert_eq!(decode(&all), expected, "{}", all.escape_ascii());
        let (end, decided) = decide(&all);
        assert_eq!(decided, expected, "split: {}", all.escape_ascii());
        assert!(expected.is_err() || end == bytes.len(), "{end}");
    }
}

#[test]
fn a_line_tells_whose_connection_it_is() {
    for (line, source, destination) in [
        (
            "TCP4 192.0.2.1 198.51.100.7 56324 443",
            "192.0.2.1:56324",
            "198.51.100.7:443",
        ),
        (
            "TCP4 0.0.0.0 255.255.255.255 0 65535",
            "0.0.0.0:0",
            "255.255.255.255:65535",
        ),
        ("TCP6 2001:db8::1 ::1 1 2", "[2001:db8::1]:1", "[::1]:2"),
        (
            "TCP6 2001:DB8:0:0:0:0:0:1 :: 1 2",
            "[2001:db8::1]:1",
            "[::]:2",
        ),
        (
            "TCP6 ::ffff:c000:201 ::1 1 2",
            "[::ffff:192.0.2.1]:1",
            "[::1]:2",
        ),
        (
            "TCP6 ::ffff:192.0.2.1 ::1 1 2",
            "[::ffff:192.0.2.1]:1",
            "[::1]:2",
        ),
    ] {
        let line = format!("PROXY {line}\r\n");
        check(line.as_bytes(), Ok(Some(between(source, destination))));
    }
}

#[test]
fn a_line_of_no_protocol_leaves_the_connections_own_addresses() {
    let address = ["ffff"; 8].join(":");
    let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
    assert_eq!(longest.len(), v1::LINE_BYTES_MAX);
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN \r\n",
        "PROXY UNKNOWN a  \0b\r\n",
        &longest,
    ] {
        check(line.as_bytes(), Ok(None));
    }
}

#[test]
fn a_line_is_exactly_as_the_protocol_has_it() {
    use HeaderError::{Address, Fields, LineEnd, LineTooLong, Port, Protocol, Signature};
    let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(v1::LINE_BYTES_MAX - 15));
    let endless = "PROXY TCP4 ".repeat(20);
    for (line, error) in [
        ("GET / HTTP/1.1\r\n\r\n", Signature),
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Signature),
        ("PROXY\r\n", Signature),
        (" PROXY UNKNOWN\r\n", Signature),
        ("PROXY UNKNOWN\n", LineEnd),
        ("PROXY UNKNOWN\r\r\n", LineEnd),
        ("PROXY UNKNOWN \rb\r\n", LineEnd),
        ("PROXY \nUNKNOWN\r\n", LineEnd),
        (&long, LineTooLong),
        (&endless, LineTooLong),
        ("PROXY \r\n", Protocol),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Protocol),
        ("PROXY UNKNOWNS\r\n", Protocol),
        ("PROXY TCP4\r\n", Fields),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Fields),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Fields),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Fields),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Fields),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4\t1.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", Address),
        ("PROXY TCP6 ::1 1::2::3 1 2\r\n", Address),
        ("PROXY TCP6 ::1%1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", Address),
        ("PROXY TCP6 1:2:3:4:5:6:7:00008 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1a 2\r\n", Port),
    ] {
        check(line.as_bytes(), Err(error));
    }
}

#[test]
fn a_binary_header_tells_whose_connection_it_is() {
    check(
        &v2_with(&[]),
        Ok(Some(between("192.0.2.1:258", "198.51.100.7:443"))),
    );
    let mut block = [0; 36];
    (block[0], block[15], block[31], block[33], block[35]) = (0xfe, 1, 2, 80, 81);
    check(
        &v2(0x21, 0x21, &block),
        Ok(Some(between("[fe00::1]:80", "[::2]:81"))),
    );
}

#[test]
fn a_binary_header_of_no_tcp_leaves_the_connections_own_addresses() {
    for (command, family, block) in [
        // LOCAL, whatever its family and its block are.
        (0x20, 0x00, vec![]),
        (0x20, 0x11, vec![1; 12]),
        (0x20, 0xff, vec![1; 3]),
        // Unspecified, datagrams, UNIX.
        (0x21, 0x00, vec![]),
        (0x21, 0x00, vec![9; 50]),
        (0x21, 0x10, vec![1; 12]),
        (0x21, 0x01, vec![]),
        (0x21, 0x12, vec![1; 12]),
        (0x21, 0x22, vec![1; 36]),
        (0x21, 0x31, vec![1; 216]),
    ] {
        check(&v2(command, family, &block), Ok(None));
    }
}

#[test]
fn what_is_behind_the_addresses_is_skipped_up_to_a_bound() {
    let addresses = Some(between("192.0.2.1:258", "198.51.100.7:443"));
    check(&v2_with(b"\x02\0\x05a.test"), Err(HeaderError::Tlv));
    check(&v2_with(b"\x02\0\x06a.test\x04\0\0"), Ok(addresses));
    let room = HEADER_BYTES_MAX - v2_with(&[]).len() - 3;
    let noop =
        |length: usize| [&[4][..], &(length as u16).to_be_bytes(), &vec![7; length]].concat();
    check(&v2_with(&noop(room)), Ok(addresses));
    let over = HEADER_BYTES_MAX + 1;
    check(&v2_with(&noop(room + 1)), Err(HeaderError::TooLong(over)));
    check(
        &v2(0x20, 0, &vec![0; over - 16]),
        Err(HeaderError::TooLong(over)),
    );
}

#[test]
fn a_checksum_has_to_match() {
    // RFC 3720 appendix B.4, and what everybody tries first.
    assert_eq!(v2::crc32c([0; 32].iter()), 0x8a91_36aa);
    assert_eq!(v2::crc32c(b"123456789".iter()), 0xe306_9283);
    let good = sealed(v2_with(b"\x02\0\x01a\x03\0\x04\0\0\0\0"));
    check(
        &good,
        Ok(Some(between("192.0.2.1:258", "198.51.100.7:443"))),
    );
    // With another kind it is no checksum.
    let kind = good.len() - 7;
    for place in (16..good.len()).filter(|place| *place != kind) {
        let mut bad = good.clone();
        bad[place] ^= 1;
        assert!(decode(&bad).is_err(), "{place}");
    }
    let mut bad = good;
    bad[16] ^= 0x80;
    check(&bad, Err(HeaderError::Checksum));
}

#[test]
fn a_binary_header_is_exactly_as_the_protocol_has_it() {
    use HeaderError::{Command, Family, Signature, Tlv, TooShort, Version};
    check(b"\r\n\r\n\0\r\nQUIT\r", Err(Signature));
    check(b"\r\nGET / HTTP/1.1\r\n\r\n", Err(Signature));
    for (command, family, block, error) in [
        (0x11, 0x11, &[0; 12][..], Version(1)),
        (0x01, 0x11, &[0; 12], Version(0)),
        (0x31, 0x11, &[0; 12], Version(3)),
        (0x22, 0x11, &[0; 12], Command(2)),
        (0x2f, 0x11, &[0; 12], Command(15)),
        (0x21, 0x13, &[0; 12], Family(0x13)),
        (0x21, 0x41, &[0; 12], Family(0x41)),
        (0x21, 0xff, &[0; 12], Family(0xff)),
        (0x21, 0x11, &[0; 11], TooShort),
        (0x21, 0x21, &[0; 35], TooShort),
        (0x21, 0x11, &[1; 13], Tlv),
        (0x21, 0x11, &[1; 15], Tlv),
    ] {
        check(&v2(command, family, block), Err(error));
    }
    for tlvs in [
        &b"\x03\0\x03\0\0\0"[..],
        b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0",
    ] {
        check(&v2_with(tlvs), Err(Tlv));
    }
}

#[test]
fn so_much_is_missing_at_least() {
    for (bytes, expected) in [
        (&b""[..], 15),
        (b"PROXY UNKNOWN", 2),
        (b"PROXY UNKNOWN\r", 1),
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 5", 2),
        (b"\r\n\r", 13),
        (&v2_with(&[0; 9])[..16], 21),
    ] {
        let incomplete = Decoded::Incomplete { missing: expected };
        assert_eq!(decode(bytes), Ok(incomplete), "{}", bytes.escape_ascii());
    }
}

#[test]
fn headers_are_written_as_they_are_read() {
    let text = |addresses: Option<&Addresses>| {
        let encoded = encode(Version::V1, addresses);
        String::from_utf8(encoded.as_bytes().to_vec()).unwrap()
    };
    assert_eq!(text(None), "PROXY UNKNOWN\r\n");
    let v4 = between("192.0.2.1:1", "198.51.100.7:65535");
    assert_eq!(
        text(Some(&v4)),
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 65535\r\n"
    );
    let v6 = between("[2001:db8::1]:1", "[::1]:2");
    assert_eq!(text(Some(&v6)), "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    let mixed = between("192.0.2.1:1", "[::1]:2");
    assert_eq!(text(Some(&mixed)), "PROXY TCP6 ::ffff:c000:201 ::1 1 2\r\n");
    let local = encode(Version::V2, None);
    assert_eq!(local.as_bytes(), v2(0x20, 0, &[]));
    let v4 = between("192.0.2.1:258", "198.51.100.7:443");
    assert_eq!(encode(Version::V2, Some(&v4)).as_bytes(), v2_with(&[]));
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![v4, v6]
}

/// Words that lines are made of, right and wrong.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("PROXY ".to_owned()),
        Just("TCP4 ".to_owned()),
        Just("TCP6 ".to_owned()),
        Just("UNKNOWN ".to_owned()),
        Just("\r\n".to_owned()),
        any::<[u8; 4]>().prop_map(|ip| format!("{} ", IpAddr::from(ip))),
        any::<[u8; 16]>().prop_map(|ip| format!("{} ", IpAddr::from(ip))),
        any::<u16>().prop_map(|port| format!("{port} ")),
        "[ -~\r\n]{0,3}",
    ];
    prop::collection::vec(word, 0..9).prop_map(|words| words.concat().into_bytes())
}

/// Headers, whole, damaged, and of chance, with something behind them.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(Version::V1), Just(Version::V2)];
    let addresses = prop::option::of((any_address(), any_address()));
    let written = (version, addresses).prop_map(|(version, addresses)| {
        let addresses = addresses.map(|(source, destination)| Addresses {
            source,
            destination,
        });
        encode(version, addresses.as_ref()).as_bytes().to_vec()
    });
    let block = prop::collection::vec(any::<u8>(), 0..300);
    let made = (0x1f_u8..0x23, any::<u8>(), block)
        .prop_map(|(command, family, block)| v2(command, family & 0x33, &block));
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let header = prop_oneof![written, made, any_line()];
    (header, damage, prop::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(mut header, damage, behind)| {
            for (at, byte) in damage {
                if !header.is_empty() {
                    let at = at.index(header.len());
                    header[at] = byte;
                }
            }
            [header, behind].concat()
        },
    )
}

/// What `ppp` makes of bytes: the header's length and its addresses, as far as they are of TCP.
fn ppp_reads(bytes: &[u8]) -> Option<(usize, Option<Addresses>)> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(header) => {
            let header = header.ok()?;
            let addresses = match header.addresses {
                ppp::v1::Addresses::Unknown => None,
                ppp::v1::Addresses::Tcp4(ends) => Some(Addresses {
                    source: (ends.source_address, ends.source_port).into(),
                    destination: (ends.destination_address, ends.destination_port).into(),
                }),
                ppp::v1::Addresses::Tcp6(ends) => Some(Addresses {
                    source: (ends.source_address, ends.source_port).into(),
                    destination: (ends.destination_address, ends.destination_port).into(),
                }),
            };
            Some((header.header.len(), addresses))
        }
        HeaderResult::V2(header) => {
            let header = header.ok()?;
            let is_used = header.command == ppp::v2::Command::Proxy
                && header.protocol == ppp::v2::Protocol::Stream;
            let addresses = match header.addresses {
                ppp::v2::Addresses::IPv4(ends) if is_used => Some(Addresses {
                    source: (ends.source_address, ends.source_port).into(),
                    destination: (ends.destination_address, ends.destination_port).into(),
                }),
                ppp::v2::Addresses::IPv6(ends) if is_used => Some(Addresses {
                    source: (ends.source_address, ends.source_port).into(),
                    destination: (ends.destination_address, ends.destination_port).into(),
                }),
                _ => None,
            };
            Some((header.as_bytes().len(), addresses))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_written_is_read_back(source in any_address(), destination in any_address()) {
        let addresses = Addresses { source, destination };
        for version in [Version::V1, Version::V2] {
            let encoded = encode(version, Some(&addresses));
            let is_mixed = source.is_ipv4() != destination.is_ipv4();
            let read = |end: SocketAddr| match is_mixed {
                true => SocketAddr::new(ipv6(end.ip()).into(), end.port()),
                false => end,
            };
            let header = Header {
                version,
                length: encoded.as_bytes().len(),
                addresses: Some(Addresses { source: read(source), destination: read(destination) }),
            };
            prop_assert_eq!(decode(encoded.as_bytes()), Ok(Decoded::Whole(header)));
            prop_assert_eq!(ppp_reads(encoded.as_bytes()), Some((header.length, header.addresses)));
        }
    }

    #[test]
    fn any_bytes_are_decided_alike_in_any_split(bytes in any_bytes()) {
        let (end, decided) = decide(&bytes);
        prop_assert_eq!(decided, decode(&bytes));
        if let Ok(Decoded::Whole(header)) = decided {
            prop_assert_eq!(header.length, end);
        }
        for end in 0..end {
            if let Ok(Decoded::Incomplete { missing }) = decode(&bytes[..end])
                && let Ok(Decoded::Whole(header)) = decided
            {
                prop_assert!(end + missing <= header.length);
            }
        }
    }

    /// What we take, another reader reads alike. It takes more: a lone LF or spaces at the end of a
    /// line, `+` before a port, TLVs that are none, and checksums that do not match. And less:
    /// bytes behind UNKNOWN that are no UTF-8 or hold more than four words, and what LOCAL, or a
    /// family that is not used, has for a block.
    #[test]
    fn what_is_taken_another_reader_reads_alike(bytes in any_bytes()) {
        let Ok(Decoded::Whole(header)) = decode(&bytes) else { return Ok(()) };
        match ppp_reads(&bytes) {
            Some(read) => prop_assert_eq!(read, (header.length, header.addresses)),
            None => prop_assert_eq!(header.addresses, None),
        }
    }
}
