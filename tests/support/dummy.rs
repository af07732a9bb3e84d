//! A dummy backend in a process of its own: `ringmain backend`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use super::process::{Ended, command};
use super::signal::signal;
use super::{Reserved, socket};

/// A running `ringmain backend`, killed when it is dropped.
pub(crate) struct Dummy {
    process: Ended,
    address: SocketAddr,
}

impl Dummy {
    /// Starts one with `options` on a free port.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", options)
    }

    /// As [`Dummy::start`], at the address of `reserved`; when it is dropped, that refuses again.
    #[track_caller]
    pub(crate) fn start_at(reserved: &Reserved, options: &[&str]) -> Self {
        // Each of several threads has a socket of its own on the address, beside others.
        let address = reserved.address().to_string();
        Self::start_on(&address, &[&["--threads", "2"], options].concat())
    }

    #[track_caller]
    fn start_on(address: &str, options: &[&str]) -> Self {
        let mut command = command(None);
        command.args(["backend", "--listen", address]);
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
            process,
            address: address.expect("the line has an address"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends the signal `name`, as in `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.0.id(), name);
    }
}
