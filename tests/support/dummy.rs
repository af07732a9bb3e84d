//! A dummy backend in a process of its own: `ringmain backend`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use super::process::{Ended, command};
use super::socket;

/// A running `ringmain backend` on a free port.
pub(crate) struct Dummy {
    _process: Ended,
    address: SocketAddr,
}

impl Dummy {
    /// Starts one with `options`.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = command(None);
        command.args(["backend", "--listen", "127.0.0.1:0"]);
        command.args(options).stdout(Stdio::piped());
        let mut child = socket::spawn(&mut command).expect("the binary is built");
        let stdout = child.stdout.take().expect("it is piped");
        let process = Ended(child);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.and_then(|address| address.parse().ok());
        Self {
            _process: process,
            address: address.expect("the line has an address"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
