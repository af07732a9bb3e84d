//! Why a command failed, in three parts: what happened, the likely cause, and what to type.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Style};

use crate::config::ConfigErrors;

/// The end of a command that did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    /// True exactly when `what` begins with a label of its own.
    framed: bool,
    cause: Option<String>,
    advice: Option<String>,
}

impl Failure {
    /// It began and failed: exit code 1.
    pub(crate) fn at_run_time(what: impl Into<String>) -> Self {
        Self {
            code: 1,
            what: what.into(),
            framed: false,
            cause: None,
            advice: None,
        }
    }

    /// It could not begin, because of what was typed or configured: exit code 2.
    pub(crate) fn of_usage(what: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::at_run_time(what)
        }
    }

    /// Every error of the configuration: exit code 2. Their text comes with labels, places and
    /// colours of its own.
    pub(crate) fn of_configuration(errors: &ConfigErrors) -> Self {
        Self {
            framed: true,
            ..Self::of_usage(format!("{errors:#}"))
        }
    }

    /// Adds the likely cause, and what to type.
    pub(crate) fn because(mut self, cause: &str, advice: &str) -> Self {
        self.cause = Some(cause.to_owned());
        self.advice = Some(advice.to_owned());
        self
    }

    /// The run-time failure of `error`; where the kernel's answer is known, with its likely cause.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        let failure = Self::at_run_time(error.to_string());
        match kernel_error(error).and_then(explanation) {
            Some((cause, advice)) => failure.because(cause, advice),
            None => failure,
        }
    }

    /// What happened, without the cause and the advice.
    pub(crate) fn what(&self) -> &str {
        self.what.trim_end()
    }

    /// Writes the failure to standard error and gives its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let label = AnsiColor::Red.on_default().bold();
        // With standard error gone there is nobody left to tell.
        let _ = self.write(&mut anstream::stderr().lock(), label);
        ExitCode::from(self.code)
    }

    fn write(&self, out: &mut impl Write, label: Style) -> io::Result<()> {
        match self.framed {
            true => writeln!(out, "{}", self.what.trim_end())?,
            false => writeln!(out, "{label}error:{label:#} {}", self.what.trim_end())?,
        }
        for (word, part) in [("cause:", &self.cause), ("try:  ", &self.advice)] {
            if let Some(part) = part {
                writeln!(out, "  {word} {part}")?;
            }
        }
        Ok(())
    }
}

/// The first answer of the kernel among the causes of `error`.
fn kernel_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .next()
}

/// The likely cause and what to type, where we know them.
fn explanation(error: &io::Error) -> Option<(&'static str, &'static str)> {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return Some((
            "this process has used up its file descriptors",
            "ulimit -n 65536",
        ));
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => Some((
            "another process listens there",
            "ss -ltnp    (to see which), or choose another address",
        )),
        io::ErrorKind::AddrNotAvailable => Some((
            "no interface of this machine has that address",
            "ip address",
        )),
        io::ErrorKind::PermissionDenied => Some((
            "this user may not; ports below 1024 need CAP_NET_BIND_SERVICE",
            "setcap cap_net_bind_service=+ep \"$(command -v ringmain)\", or choose a higher port",
        )),
        io::ErrorKind::NotFound => Some(("there is no such file", "ls -l")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failure: &Failure, expected: &str) {
        let mut out = Vec::new();
        failure
            .write(&mut out, Style::new())
            .expect("a Vec takes every write");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_type() {
        check(&Failure::at_run_time("it broke"), "error: it broke\n");
        check(
            &Failure::of_usage("no backend").because("none was given", "ringmain --help"),
            "error: no backend\n  cause: none was given\n  try:   ringmain --help\n",
        );
    }

    #[test]
    fn a_configurations_own_frame_is_left_as_it_is() {
        let text = "error: x\n --> c.toml:1:1\n";
        let failure = Failure {
            framed: true,
            ..Failure::of_usage(text)
        };
        check(&failure, text);
    }

    #[test]
    fn the_kernels_answer_is_found_under_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("listener `web`: {0}")]
        struct Outer(#[source] io::Error);
        let failure = Failure::from_error(&Outer(io::ErrorKind::AddrInUse.into()));
        assert_eq!(
            failure.cause.as_deref(),
            Some("another process listens there")
        );
        assert!(failure.what.starts_with("listener `web`: "));
    }
}
