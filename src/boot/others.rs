//! Who listens where: what the kernel says of all processes' listening sockets (proc_net_tcp(5)).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a socket that listens.
const LISTEN: &str = "0A";

/// The inodes of the sockets, of whatever process, that listen where one at `address` would get
/// some of their clients, or they some of its.
///
/// # Errors
/// Where the kernel does not tell.
pub(super) fn listening_at(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut there = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let listening = text.lines().skip(1).filter_map(listening);
        let near = listening.filter(|(at, _)| overlap(*at, address));
        there.extend(near.map(|(_, inode)| inode));
    }
    Ok(there)
}

/// The address and the inode of a line's socket, if it listens.
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if *words.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = words[1].split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = words.get(9)?.parse().ok()?;
    Some((SocketAddr::new(address(ip)?, port), inode))
}

/// An address is in words of 32 bits, in the byte order of the machine.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into());
    }
    let mut bytes = [0; 16];
    for (place, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(place * 8)?.to_ne_bytes());
    }
    Some(Ipv6Addr::from(bytes).into())
}

/// A socket at `[::]` may have the clients of IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_line_is_read_as_the_kernel_writes_it() {
        let (one, other) = match cfg!(target_endian = "little") {
            true => ("0100007F", "00000000000000000000000001000000"),
            false => ("7F000001", "00000000000000000000000000000001"),
        };
        for (ip, expected) in [(one, "127.0.0.1:8080"), (other, "[::1]:8080")] {
            let line =
                |state| format!("0: {ip}:1F90 {ip}:0000 {state} 0:0 00:0 0 1000 0 4711 1 0 100 0");
            let expected = expected.parse().unwrap();
            assert_eq!(listening(&line("0A")), Some((expected, 4711)));
            assert_eq!(listening(&line("01")), None);
        }
        assert_eq!(listening("nothing of this"), None);
    }

    #[test]
    fn who_listens_is_found_also_by_the_address_of_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = listening_at(address).unwrap();
        assert_eq!(own.len(), 1);
        let of_all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(listening_at(of_all).unwrap().contains(&own[0]));
        let beside = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), address.port());
        assert!(!listening_at(beside).unwrap().contains(&own[0]));
    }
}
