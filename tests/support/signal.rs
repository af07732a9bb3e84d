//! Sends signals to the processes under test.

/// Sends `name`, as in `TERM`, to the process of that id.
#[track_caller]
#[expect(unsafe_code, reason = "kill(2) is a function of C")]
pub(crate) fn signal(process: u32, name: &str) {
    let number = match name {
        "INT" => libc::SIGINT,
        "TERM" => libc::SIGTERM,
        "HUP" => libc::SIGHUP,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "STOP" => libc::SIGSTOP,
        "CONT" => libc::SIGCONT,
        _ => unreachable!("no test sends {name}"),
    };
    // SAFETY: kill(2) touches no memory; the process is a child that nobody has waited for.
    let sent = unsafe { libc::kill(process as libc::pid_t, number) };
    assert_eq!(sent, 0, "the process runs");
}
