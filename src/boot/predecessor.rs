//! The process whose place this one takes, as the new one sees it: what it hands on beside its
//! sockets, and what it is told.
//!
//! It writes one line, what is known at run time, and reads one: that this process is ready, with
//! the sockets that it did not want, or why it is not. `control/successor.rs` is its side.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::control::successor::{Answer, Handed};

/// How long it may take to say what it knows: it has begun to, before this process began.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of what it says, so much is read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The way to it.
#[derive(Debug)]
pub struct Predecessor {
    channel: UnixStream,
    /// The places of the sockets that it has handed over and that are not used.
    pub(super) unwanted: Vec<usize>,
}

impl Predecessor {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self {
            channel: channel.into(),
            unwanted: Vec::new(),
        }
    }

    pub(super) fn another(&self) -> Option<Self> {
        let channel = self.channel.try_clone().ok()?;
        Some(Self::new(channel.into()))
    }

    /// What it knows. Nothing, where it has gone or cannot be understood: this process starts all
    /// the same.
    pub(super) fn handed(&self) -> Handed {
        self.read().unwrap_or_else(|error| {
            log::warn!(error:%; "what was set at run time is not handed on");
            Handed::default()
        })
    }

    fn read(&self) -> io::Result<Handed> {
        self.channel.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&self.channel).take(BYTES_MAX)).read_line(&mut line)?;
        Handed::parse(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Tells it that this process, `pid`, serves: it drains.
    pub(super) fn ready(&self, pid: u32) {
        let unwanted = self.unwanted.clone();
        self.tell(&Answer::Ready { pid, unwanted });
    }

    /// Tells it that this process ends, and why: it goes on.
    pub fn failed(&self, reason: &str) {
        self.tell(&Answer::Failed(reason.to_owned()));
    }

    fn tell(&self, answer: &Answer) {
        let mut line = answer.to_string();
        line.push('\n');
        // An error: it has gone, and there is nobody left who would have to know.
        let _told = (&self.channel).write_all(line.as_bytes());
    }
}
