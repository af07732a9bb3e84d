//! One run of the operator's command.
//!
//! It is the leader of a process group of its own, so that what it has started is killed with it.
//! Where it exits by itself nothing is killed: what it leaves behind is its own affair.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use super::ProbeError;
use crate::control::supervisor::OWN_VARIABLES;
use crate::fd;

/// Runs `command` (a program and its arguments) for the endpoint at `address` until it exits.
/// Dropped, it kills the process group.
///
/// # Errors
/// When it cannot be run, or ends in another way than with 0.
pub(super) async fn run(command: &[String], address: SocketAddr) -> Result<(), ProbeError> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| ProbeError::NotRun(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let mut command = Command::new(program);
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
    let mut child = command
        .args(arguments)
        .env("RINGMAIN_ENDPOINT", address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(not_run)?;
    // Dropped before the child, which is waited for no earlier: until then the number is its own.
    let mut group = Group(child.id());
    let status = child.wait().await.map_err(ProbeError::NotRun)?;
    group.0 = None;
    judge(status)
}

fn judge(status: ExitStatus) -> Result<(), ProbeError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(ProbeError::Exit(code)),
        (None, signal) => Err(ProbeError::Signal(signal.unwrap_or_default())),
    }
}

/// fork(2): EAGAIN is a limit of ours as well.
fn not_run(error: io::Error) -> ProbeError {
    if fd::is_exhaustion(&error) || error.kind() == io::ErrorKind::WouldBlock {
        ProbeError::Exhausted(error)
    } else {
        ProbeError::NotRun(error)
    }
}

/// The process group of a command that runs.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            fd::kill_group(leader);
        }
    }
}
