//! Waits for the operator to end a tool: SIGINT (Ctrl-C) or SIGTERM.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Returns when the process is asked to end.
pub(super) fn wait() -> Result<(), Failure> {
    wait_for_signal().map_err(|error| Failure::from_error(&error))
}

fn wait_for_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        std::future::poll_fn(|context| {
            let interrupted = interrupt.poll_recv(context).is_ready();
            match interrupted || terminate.poll_recv(context).is_ready() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
        Ok(())
    })
}
