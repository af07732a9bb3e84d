//! The process that takes the place of this one, until it is ready or has failed.
//!
//! ```text
//!   this process                           the new one
//!     a line: what is known at run time --->  read at its start
//!     waits, and goes on serving              binds, resolves, probes; accepts nobody
//!                            <---  a line:    ready, or why not
//!     drains, or goes on
//! ```
//!
//! Both lines are JSON. A member that a reader does not know is skipped, so that either may be of
//! another version.

use std::fmt::{self, Display};
use std::io::{self, Cursor};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream as Channel;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use crate::fd;
use crate::units::format_duration;

/// How much the new process may answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is known at run time and survives an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// What the operator has said of backends: service, backend, state, and what the file says.
    pub overrides: Vec<[String; 4]>,
}

impl Handed {
    /// Reads a line that [`Handed`] has written; nothing is in an empty one.
    ///
    /// # Errors
    /// Where it is not such a line.
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let overrides = value["overrides"].as_array().into_iter().flatten();
        let overrides = overrides.map(|it| {
            let text = |place: usize| it[place].as_str().map(str::to_owned);
            Some([text(0)?, text(1)?, text(2)?, text(3)?])
        });
        let overrides: Option<Vec<_>> = overrides.collect();
        Ok(Self {
            overrides: overrides.ok_or("overrides: four texts each")?,
        })
    }
}

impl Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        json!({ "overrides": self.overrides }).fmt(f)
    }
}

/// What the new process says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It serves.
    Ready {
        /// Its number.
        pid: u32,
        /// The places of the sockets that it was handed and has closed.
        unwanted: Vec<usize>,
    },
    /// It does not, and why.
    Failed(String),
}

impl Answer {
    /// Reads what [`Answer`] has written.
    fn parse(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        if let Some(reason) = value["failed"].as_str() {
            return Some(Self::Failed(reason.to_owned()));
        }
        let pid = u32::try_from(value["ready"].as_u64()?).ok()?;
        let unwanted = value["unwanted"].as_array().into_iter().flatten();
        let unwanted = unwanted.map(|place| usize::try_from(place.as_u64()?).ok());
        Some(Self::Ready {
            pid,
            unwanted: unwanted.collect::<Option<_>>()?,
        })
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { pid, unwanted } => json!({ "ready": pid, "unwanted": unwanted }).fmt(f),
            Self::Failed(reason) => json!({ "failed": reason }).fmt(f),
        }
    }
}

/// A process that was started and has not answered yet.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    channel: Channel,
    /// What it has not taken yet of what is handed on.
    unsent: Cursor<Vec<u8>>,
    /// What it has said.
    heard: Vec<u8>,
    /// True exactly when it says nothing any more.
    silent: bool,
    patience: Duration,
    deadline: Instant,
}

impl Successor {
    /// Starts `command`, which has the other end of `channel`, and has it know `handed`. It may
    /// take `patience`. To be called on control's runtime.
    ///
    /// # Errors
    /// When there is no such program, or no process to be had.
    pub fn start(
        command: std::process::Command,
        channel: UnixStream,
        handed: &Handed,
        patience: Duration,
    ) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        let channel = Channel::from_std(channel)?;
        Ok(Self {
            child: Command::from(command).spawn()?,
            channel,
            unsent: Cursor::new(format!("{handed}\n").into_bytes()),
            heard: Vec::new(),
            silent: false,
            patience,
            deadline: Instant::now() + patience,
        })
    }

    /// Its number, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for what it answers; why it will not is an answer too. May be dropped: nothing is
    /// lost.
    pub async fn answer(&mut self) -> Answer {
        loop {
            let sent = self.unsent.position() == self.unsent.get_ref().len() as u64;
            let (reader, mut writer) = self.channel.split();
            let mut reader = reader.take((ANSWER_BYTES_MAX - self.heard.len()) as u64);
            tokio::select! {
                // What it has said before it ended counts.
                biased;
                read = reader.read_buf(&mut self.heard), if !self.silent => {
                    self.silent = !matches!(read, Ok(1..));
                    if self.heard.ends_with(b"\n") {
                        return self.read();
                    }
                }
                written = writer.write_buf(&mut self.unsent), if !sent => {
                    if written.is_err() {
                        // It does not want to know.
                        self.unsent.set_position(self.unsent.get_ref().len() as u64);
                    }
                }
                ended = self.child.wait() => {
                    return Answer::Failed(match ended {
                        Ok(status) => format!("it ended before it was ready, with {}", end(status)),
                        Err(error) => format!("it cannot be waited for: {error}"),
                    });
                }
                () = sleep_until(self.deadline) => {
                    let patience = format_duration(self.patience);
                    return Answer::Failed(format!("it was not ready within {patience}"));
                }
            }
        }
    }

    /// What it has said; that it serves is worth nothing where it has ended since.
    fn read(&mut self) -> Answer {
        let what = || "what it answers is not understood".to_owned();
        let answer = Answer::parse(&self.heard).unwrap_or_else(|| Answer::Failed(what()));
        match (&answer, self.child.try_wait()) {
            (Answer::Ready { .. }, Ok(Some(status))) => {
                let end = end(status);
                Answer::Failed(format!("it ended as soon as it was ready, with {end}"))
            }
            _ => answer,
        }
    }

    /// Asks it to end, as this process is asked to: whom it may have let in, about to say that it
    /// is ready, is served.
    pub fn terminate(self) {
        if let Some(pid) = self.child.id() {
            fd::terminate(pid);
        }
    }

    /// Ends it.
    pub fn kill(mut self) {
        // An error: it has ended already. The runtime waits for it.
        let _killed = self.child.start_kill();
    }
}

fn end(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a shell that is started as successor.
    async fn answer(script: &str, patience: Duration) -> Answer {
        let (channel, other) = UnixStream::pair().expect("two descriptors are free");
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(std::os::fd::OwnedFd::from(other));
        let handed = Handed::default();
        let started = Successor::start(command, channel, &handed, patience);
        let mut successor = started.expect("there is a shell");
        let answer = successor.answer().await;
        successor.kill();
        answer
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_comes_of_it_is_told() {
        let long = Duration::from_secs(10);
        let failed = |reason: &str| Answer::Failed(reason.to_owned());
        let ended = "it ended before it was ready, with";
        assert_eq!(
            answer("exit 3", long).await,
            failed(&format!("{ended} exit code 3"))
        );
        let said = answer("echo '{\"failed\":\"no room\"}' >&0; exit 1", long).await;
        assert_eq!(said, failed("no room"));
        let said = answer("echo nonsense >&0; exec sleep 10", long).await;
        assert_eq!(said, failed("what it answers is not understood"));
        let said = answer("exec sleep 10", Duration::from_millis(50)).await;
        assert_eq!(said, failed("it was not ready within 50ms"));
        // It has closed its end and still runs.
        let said = answer("exec sleep 10 <&-", Duration::from_millis(50)).await;
        assert_eq!(said, failed("it was not ready within 50ms"));
        let ready = Answer::Ready {
            pid: 7,
            unwanted: vec![1, 3],
        };
        let script = format!("read line; echo '{ready}' >&0; exec sleep 10");
        assert_eq!(answer(&script, long).await, ready);
    }

    #[test]
    fn what_is_handed_on_arrives() {
        let of = |text: &str| text.to_owned();
        let handed = Handed {
            overrides: vec![["a", "127.0.0.1:9090", "drain", "ready"].map(of)],
        };
        assert_eq!(Handed::parse(&handed.to_string()), Ok(handed));
        assert_eq!(Handed::parse(""), Ok(Handed::default()));
        assert_eq!(Handed::parse("{\"other\":1}"), Ok(Handed::default()));
        assert!(Handed::parse("{\"overrides\":[[1]]}").is_err());
        assert!(Handed::parse("nonsense").is_err());
    }
}
