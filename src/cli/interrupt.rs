//! Waits for the operator to end a tool: SIGINT (Ctrl-C) or SIGTERM.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// From its making on, neither signal kills the process.
#[derive(Debug)]
pub(super) struct Interrupt {
    runtime: Runtime,
    signals: [Signal; 2],
}

impl Interrupt {
    /// Takes both signals over. A tool does this before it says that it is there: what is typed
    /// after that must find it ready.
    pub(super) fn new() -> Result<Self, Failure> {
        Self::take_over().map_err(|error| Failure::from_error(&error))
    }

    fn take_over() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let context = runtime.enter();
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ];
        drop(context);
        Ok(Self { runtime, signals })
    }

    /// Returns when one of them has come.
    pub(super) fn wait(mut self) {
        self.runtime.block_on(poll_fn(|context| {
            let mut came = false;
            // Each is asked, so that each wakes us.
            for signal in &mut self.signals {
                came |= signal.poll_recv(context).is_ready();
            }
            if came { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}
