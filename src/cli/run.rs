//! `ringmain run`: the proxy, from a file or from the command line alone.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::boot::{self, Inherited};
use crate::config::{self, AdminAddress, Config, ConfigErrors};
use crate::control::log::{self as process_log, LogError, LogHandle};
use crate::control::source::{ConfigSource, FileSource};

use super::Failure;

/// `ringmain run`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  ringmain run --config config.toml --log-level debug\n  \
    ringmain run --config config.toml --report-at-end > report.txt\n  \
    ringmain run --listen 127.0.0.1:8080 --backend http://127.0.0.1:9090 --policy round_robin\n\n\
    Environment:\n  RINGMAIN_CONFIG      the file, where --config is absent\n  \
    LOG_LEVEL, RUST_LOG  as --log-level\n  LOG_FORMAT           as --log-format\n  \
    PROBE_INTERVAL       as interval of every [service.probe], such as 2s"
)]
pub(super) struct Args {
    /// The configuration [default: $RINGMAIN_CONFIG, ./config.toml, /etc/ringmain/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
    /// Prints the report to standard output once everything has drained.
    #[arg(long)]
    report_at_end: bool,
    /// Runs without a file: where to listen, such as 127.0.0.1:8080.
    #[arg(
        long,
        value_name = "ADDR",
        conflicts_with = "config",
        requires = "backend"
    )]
    listen: Option<String>,
    /// Where requests go, such as http://127.0.0.1:9090; again for each further backend.
    #[arg(long, value_name = "URL", requires = "listen")]
    backend: Vec<String>,
    /// How a backend is picked: random, round_robin.
    #[arg(long, value_name = "P", requires = "listen")]
    policy: Option<String>,
    /// Where the admin API answers [default: 127.0.0.1:9901]; "" is nowhere.
    #[arg(long, value_name = "ADDR", requires = "listen")]
    admin: Option<String>,
}

/// What the command line may say about the log; it beats the environment, which beats the file.
#[derive(Clone, Debug, ClapArgs)]
struct LogArgs {
    /// error, warn, info, debug, trace, off, or a filter such as warn,ringmain=debug.
    #[arg(long, value_name = "L")]
    log_level: Option<String>,
    /// The shape of a log line.
    #[arg(long, value_name = "F", value_parser = ["text", "json", "ecs"])]
    log_format: Option<String>,
}

/// Runs the proxy until it has drained.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let inherited = Inherited::take().map_err(|error| {
        Failure::at_run_time(format!("the sockets that were handed over: {error}"))
    })?;
    let predecessor = inherited.predecessor();
    let end = start(args, inherited);
    if let (Err(failure), Some(predecessor)) = (&end, predecessor) {
        predecessor.failed(failure.what());
    }
    end
}

fn start(args: &Args, inherited: Inherited) -> Result<ExitCode, Failure> {
    let (config, source) = load(args)?;
    let log = install_log(&config)?;
    let options = boot::Options {
        report_at_end: args.report_at_end,
        inherited,
    };
    let end = end_of(boot::run(&config, source, options, &mut announce));
    log.flush();
    end
}

/// The configuration, and where others come from: nowhere without a file.
fn load(args: &Args) -> Result<(Config, Option<Box<dyn ConfigSource>>), Failure> {
    let environment = |name: &str| env::var(name).ok();
    let over = args.log.clone();
    let over = move |config: Config| config.with_environment(|name| over.over(name, environment));
    let refused = |errors: ConfigErrors| {
        Failure::of_configuration(&errors).because(
            "the configuration was refused; nothing was started",
            "ringmain check    (after a change), or `ringmain demo`, which needs no file",
        )
    };
    if let Some(listen) = &args.listen {
        let (policy, admin) = (args.policy.as_deref(), args.admin.as_deref());
        let config = Config::single(listen, &args.backend, policy, admin).map_err(refused)?;
        return Ok((over(config).map_err(of_variable)?, None));
    }
    let path = config::find(args.config.as_deref(), environment);
    let mut source = FileSource::new(path, Box::new(over.clone()));
    let config = source.read().map_err(refused)?;
    let config = over(config).map_err(of_variable)?;
    Ok((config, Some(Box::new(source))))
}

fn of_variable(errors: ConfigErrors) -> Failure {
    Failure::of_configuration(&errors).because(
        "a variable of the environment, or the option that stands for it",
        "ringmain run --help    (it lists them)",
    )
}

impl LogArgs {
    /// The variable `name`, as the command line has it, else the environment.
    fn over(&self, name: &str, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
        let typed = match name {
            "LOG_LEVEL" => self.log_level.clone(),
            "LOG_FORMAT" => self.log_format.clone(),
            _ => None,
        };
        typed.or_else(|| environment(name))
    }
}

/// Sets the log up as `config` says.
pub(super) fn install_log(config: &Config) -> Result<LogHandle, Failure> {
    process_log::install(&config.log().into()).map_err(|error| match &error {
        LogError::Open { .. } => Failure::at_run_time(error.to_string()).because(
            "this user may not write there, or the folder does not exist",
            "ls -ld of the folder; [log] to = [\"stderr\"] needs no file",
        ),
        _ => Failure::from_error(&error),
    })
}

/// The exit code of a proxy's end.
pub(super) fn end_of(end: Result<boot::End, boot::BootError>) -> Result<ExitCode, Failure> {
    match end {
        Ok(boot::End::Drained | boot::End::CutShort) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(failure_of(&error)),
    }
}

fn failure_of(error: &boot::BootError) -> Failure {
    let boot::BootError::Admin { address, source } = error else {
        return Failure::from_error(error);
    };
    let failure = Failure::at_run_time(error.to_string());
    match (source.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => failure.because(
            "another process answers there, maybe another ringmain",
            "[admin] address = \"\" or another address in the file; without one: --admin \"\"",
        ),
        (io::ErrorKind::AlreadyExists, _) => failure.because(
            "that file is no socket, and only a socket that was left behind is replaced",
            "ls -l of the file; another [admin] address, or move the file away",
        ),
        (io::ErrorKind::NotFound, AdminAddress::Unix(_)) => failure.because(
            "the folder does not exist",
            "mkdir of the folder; [admin] address = \"127.0.0.1:9901\" needs no file",
        ),
        (io::ErrorKind::PermissionDenied, AdminAddress::Unix(_)) => failure.because(
            "this user may not make files in that folder",
            "ls -ld of the folder; [admin] address = \"127.0.0.1:9901\" needs no file",
        ),
        _ => Failure::from_error(error),
    }
}

fn announce(addresses: &boot::Addresses) {
    for (listener, address) in &addresses.listeners {
        log::info!(listener:%, address:%; "listening");
    }
    if let Some(address) = &addresses.admin {
        log::info!(address:%; "the admin API answers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_beats_the_environment() {
        let typed = LogArgs {
            log_level: Some("debug".to_owned()),
            log_format: None,
        };
        let environment = |name: &str| Some(format!("{name} of the environment"));
        let check = |name, expected: &str| {
            assert_eq!(
                typed.over(name, environment).as_deref(),
                Some(expected),
                "{name}"
            );
        };
        check("LOG_LEVEL", "debug");
        check("LOG_FORMAT", "LOG_FORMAT of the environment");
        check("RUST_LOG", "RUST_LOG of the environment");
    }
}
