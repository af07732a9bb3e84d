//! Sends signals to the processes under test.

use std::process::Command;

/// Sends `name`, as in `TERM`, to the process of that id.
#[track_caller]
pub(crate) fn signal(process: u32, name: &str) {
    // The shell's own kill: the program of that name is not on every machine.
    let mut shell = Command::new("sh");
    let kill = shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]);
    let status = kill.status().expect("there is a shell");
    assert!(status.success(), "the process runs");
}
