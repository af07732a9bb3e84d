//! Prints reports on a thread of their own: standard output may be a pipe that nobody reads, and
//! control must not wait for it.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long the end of the process waits for somebody to read what was asked for.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How often it looks meanwhile whether there is room for one more.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// The printer of this process.
#[derive(Debug, Default)]
pub(super) struct Printer {
    /// `None` until the first report.
    thread: Option<Printing>,
}

#[derive(Debug)]
struct Printing {
    /// One report may be on its way and one wait.
    reports: SyncSender<String>,
    /// Says, by being dropped, that the thread has printed all.
    ended: oneshot::Receiver<()>,
}

impl Printer {
    /// Prints `text`, or says in the log that nobody reads.
    pub(super) fn print(&mut self, text: String) {
        if self.started().is_some_and(|printing| {
            let sent = printing.reports.try_send(text);
            sent.is_err()
        }) {
            log::warn!("nobody reads the reports on standard output; this one is left out");
        }
    }

    /// Prints `last`, if there is one, and returns when everything is printed, or when nobody has
    /// read it for a while.
    pub(super) async fn finish(mut self, last: Option<String>) {
        if last.is_some() {
            self.started();
        }
        let Some(Printing { reports, ended }) = self.thread else {
            return;
        };
        let printed = async {
            if let Some(text) = last {
                send(&reports, text).await;
            }
            drop(reports);
            // An error: the thread has dropped its end, and it never sends.
            let _dropped = ended.await;
        };
        if timeout(LAST_WAIT, printed).await.is_err() {
            log::warn!("nobody reads the reports on standard output; the last one is left out");
        }
    }

    /// The thread, started by the first report; `None`, with a line in the log, when there is none
    /// to be had.
    fn started(&mut self) -> Option<&Printing> {
        if self.thread.is_none() {
            let (reports, to_print) = sync_channel(1);
            let (end, ended) = oneshot::channel();
            let body = move || {
                print_all(&to_print);
                drop(end);
            };
            match thread::Builder::new().name("report".to_owned()).spawn(body) {
                Ok(_) => self.thread = Some(Printing { reports, ended }),
                Err(error) => log::warn!(error:%; "there is no thread to print the report"),
            }
        }
        self.thread.as_ref()
    }
}

/// Waits until there is room.
async fn send(reports: &SyncSender<String>, mut text: String) {
    while let Err(TrySendError::Full(back)) = reports.try_send(text) {
        text = back;
        sleep(LAST_LOOK).await;
    }
}

fn print_all(reports: &Receiver<String>) {
    for text in reports {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            log::warn!(error:%; "the report cannot be printed");
        }
    }
}
