//! `ringmain check`: every error of a configuration, or the plan it compiles to, or what a reload
//! of it would change.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::Args;

use crate::config::{self, Config, ConfigErrors};
use crate::control::compile::{Live, compile};
use crate::control::difference::Difference;
use crate::control::show::{show, show_tallies};

/// What RLIMIT_NOFILE is taken for where the kernel does not say.
const NOFILE_FALLBACK: u64 = 1_024;

/// Check a configuration: print every error with its place and what is allowed, or the compiled
/// plan
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  ringmain check --config config.toml\n  \
    ringmain check --config new.toml --diff config.toml")]
pub struct CheckArgs {
    /// The configuration file [default: $RINGMAIN_CONFIG, ./config.toml, /etc/ringmain/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints what a reload would add, change, remove and keep where OLD runs
    #[arg(long, value_name = "OLD")]
    pub diff: Option<PathBuf>,
}

/// Exit code 0 and the plan, or the difference, on standard output, or 2 and the errors on standard
/// error.
pub fn run(args: &CheckArgs) -> ExitCode {
    let path = config::find(args.config.as_deref(), environment);
    let last = args.diff.as_deref().map(checked);
    match (last, checked(&path)) {
        (None, Ok(config)) => print_plan(&config),
        (Some(Ok(last)), Ok(next)) => print(&Difference::of(&last, &next, &|_| None).to_string()),
        (last, next) => {
            let last = last.and_then(Result::err);
            for errors in last.into_iter().chain(next.err()) {
                // A closed standard error leaves the exit code to say it.
                let _ = writeln!(anstream::stderr(), "{errors:#}");
            }
            ExitCode::from(2)
        }
    }
}

fn environment(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn checked(path: &Path) -> Result<Config, ConfigErrors> {
    config::load(path)?.with_environment(environment)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn print_plan(config: &Config) -> ExitCode {
    let shards = match config.runtime().shards {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        shards => shards as usize,
    };
    let shards = u32::try_from(shards).unwrap_or(u32::MAX);
    let live = Live {
        via: "ringmain-XXXX".into(),
        ..Live::new(shards, nofile().unwrap_or(NOFILE_FALLBACK))
    };
    for warning in config.warnings(live.shards) {
        let _ = writeln!(anstream::stderr(), "warning: {warning}");
    }
    let plan = compile(config, &live, None);
    let shown = format!(
        "{}{}",
        show(config, &plan),
        show_tallies(&plan, live.shards)
    );
    print(&shown)
}

/// The soft limit of descriptors, from proc(5): a row `Max open files  SOFT  HARD  files`.
fn nofile() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let row = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_many_descriptors_there_may_be() {
        assert!(nofile().is_some_and(|limit| 0 < limit));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let path = PathBuf::from("/nonexistent/config.toml");
        assert!(checked(&path).is_err());
    }
}
