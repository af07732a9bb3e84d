//! The command line: one file a subcommand, and here the words, the exit codes and what they share.
//!
//! Everything that a command has to say goes to standard output, everything that went wrong to
//! standard error. Exit codes: 0 fine, 1 failed at run time, 2 wrong usage or bad configuration
//! (clap's own usage errors are 2 too).

mod backend;
pub mod check;
mod demo;
mod doctor;
mod failure;
mod generate;
mod interrupt;
mod report;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use failure::Failure;

use crate::boot;

/// A load-balancing reverse proxy for Linux: HTTP/1.1 on io_uring, one shard per core.
#[derive(Debug, Parser)]
#[command(
    name = "ringmain",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  ringmain demo\n  ringmain --config config.toml\n  \
                  ringmain run --listen 127.0.0.1:8080 --backend http://127.0.0.1:9090"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy; what `ringmain` does without a subcommand.
    Run(run::Args),
    /// Prints every error of a configuration, or the plan it compiles to.
    Check(check::CheckArgs),
    /// Prints where the time of a running instance's exchanges went: exact percentiles.
    Report(report::Args),
    /// Runs dummy backends that say which address answered.
    Backend(backend::Args),
    /// Runs the proxy and three dummy backends in one process, and says what to type.
    Demo(demo::Args),
    /// Says what this machine lets ringmain do, and what to type where that is little.
    Doctor(doctor::Args),
    /// Prints a completion script for a shell.
    Completions(generate::CompletionsArgs),
    /// Prints the manual page.
    Man(generate::ManArgs),
}

/// The program's entry: reads the command line, does what it says, gives the exit code.
pub fn main() -> ExitCode {
    if let Err(error) = boot::settle() {
        let failure = Failure::at_run_time(format!("an upgrade cannot go on: {error}"));
        return failure.report();
    }
    let line = CommandLine::parse();
    let outcome = match line.command {
        None => run::run(&line.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Check(args)) => return check::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Backend(args)) => backend::run(&args),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Doctor(_)) => doctor::run(),
        Some(Command::Completions(args)) => generate::completions(&args),
        Some(Command::Man(_)) => generate::man(),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

/// Writes to standard output and flushes. That nobody reads any more (`ringmain man | head`) is no
/// failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::at_run_time(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in CommandLine::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let line = format!("ringmain {}", command.get_name());
            assert!(
                help.contains(&line),
                "{}: no example in its help",
                command.get_name()
            );
        }
    }
}
