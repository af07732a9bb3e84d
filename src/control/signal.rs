//! The signals that the process answers to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// SIGUSR1: print the report.
    Report,
    /// SIGTERM or SIGINT: drain and end.
    End,
    /// SIGHUP: load the configuration anew.
    Reload,
    /// SIGUSR2: start the binary anew.
    Upgrade,
}

/// The signals, taken over from the system's defaults.
#[derive(Debug)]
pub struct Signals {
    usr1: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    usr2: Signal,
}

impl Signals {
    /// Takes them over; from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// What sigaction(2) says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            usr1: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for one that ends the process, before there is anything to drain or to report.
    pub async fn end(&mut self) {
        loop {
            match self.next().await {
                Ask::End => return,
                other => log::warn!(signal:? = other; "signal ignored: it came before the start"),
            }
        }
    }

    /// Waits for the next one. May be dropped: none is lost.
    pub async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.usr1.recv() => Ask::Report,
            _ = self.terminate.recv() => Ask::End,
            _ = self.interrupt.recv() => Ask::End,
            _ = self.hangup.recv() => Ask::Reload,
            _ = self.usr2.recv() => Ask::Upgrade,
        }
    }
}
