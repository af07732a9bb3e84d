//! Thousands of mutated messages through the real binary, both ways, and two readers who must agree
//! on what came out.
//!
//! What is held is what request smuggling and response splitting break: nothing leaves ringmain
//! that two readers frame differently, and no message arrives that nobody sent as one. Every case
//! is drawn from a seed, which a failure names:
//!
//! ```text
//! RINGMAIN_DIFFERENTIAL_SEED=N       the seed (drawn anew for each run)
//! RINGMAIN_DIFFERENTIAL_MESSAGES=N   how many messages of each kind and driver (4000)
//! ```

#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    clippy::needless_pass_by_ref_mut,
    reason = "other tests need more of it"
)]
mod support;

mod answers;
mod lenient;
mod mutation;
mod requests;
mod strict;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use lenient::Profile;
use rand::SeedableRng;
use rand_xorshift::XorShiftRng;
use strict::{Kind, Reading};
use support::DEADLINE;

/// What the cases of one test are drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    seed: u64,
    /// How many messages there are.
    pub(crate) messages: u32,
}

/// How many clients speak at once.
pub(crate) const THREADS: u32 = 4;

impl Draw {
    /// As the environment has it.
    pub(crate) fn new() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().expect("the variable is a number"))
        };
        let messages = number("RINGMAIN_DIFFERENTIAL_MESSAGES").unwrap_or(4000);
        Self {
            seed: number("RINGMAIN_DIFFERENTIAL_SEED").unwrap_or_else(drawn_seed),
            messages: messages.try_into().expect("not so many"),
        }
    }

    /// The generator of one case.
    pub(crate) fn case(self, id: u32) -> XorShiftRng {
        let mut generator = XorShiftRng::seed_from_u64(self.seed ^ (u64::from(id) << 32));
        // Its first numbers are much like its seed.
        for _ in 0..8 {
            rand::Rng::next_u32(&mut generator);
        }
        generator
    }
}

fn drawn_seed() -> u64 {
    let mut system = rand::rngs::SysRng;
    rand::TryRng::try_next_u64(&mut system).expect("the kernel has random numbers")
}

/// A client with an address of its own, by which the backend knows it: all of 127.0.0.0/8 is ours.
pub(crate) fn connect_from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    let address = SocketAddr::from((address, 0));
    socket.bind(&address.into()).expect("a port is free");
    socket.connect(&to.into()).expect("a listener accepts");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("the socket is open");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    stream
}

/// Appends everything up to the end of the connection to `bytes`; true when that was a RST.
#[track_caller]
pub(crate) fn until_end(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut part = [0; 16 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return false,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let reset = error.kind() == ErrorKind::ConnectionReset;
                assert!(reset, "{error}, behind {}", bytes.escape_ascii());
                return true;
            }
        }
    }
}

/// Holds that every lenient reader sees what the strict one does in what came out of ringmain.
#[track_caller]
pub(crate) fn all_agree(
    bytes: &[u8],
    kind: impl Fn(usize) -> Kind + Copy,
    drawn: &[Profile],
    draw: Draw,
) {
    // Where only the last LF was cut off, a reader who needs none has lost nothing.
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let strict = Reading::of(bytes, &strict::read, kind).messages;
    for profile in Profile::KNOWN.iter().chain(drawn) {
        let read = |kind, bytes: &[u8]| profile.read(kind, bytes);
        let lenient = Reading::of(bytes, &read, kind).messages;
        let pairs = strict.iter().zip(&lenient);
        let alike = pairs
            .take_while(|(one, other)| one.framed() == other.framed())
            .count();
        assert!(
            alike == strict.len() && alike == lenient.len(),
            "{draw:?}: {profile:?} has {:?} where the strict reader has {:?}, in {}",
            lenient.get(alike),
            strict.get(alike),
            bytes.escape_ascii()
        );
    }
}
