//! What is made from the command line's own description: completion scripts and the manual page.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CommandLine, Failure, print};

/// `ringmain completions SHELL`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringmain completions bash > \
                        ~/.local/share/bash-completion/completions/ringmain")]
pub(super) struct CompletionsArgs {
    /// The shell that will read the script.
    shell: Shell,
}

/// `ringmain man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringmain man | man -l -")]
pub(super) struct ManArgs {}

/// Prints the completion script.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    // Into memory first: clap_complete panics where standard output can't be written.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut CommandLine::command(),
        "ringmain",
        &mut script,
    );
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page: the program's, then each subcommand's in a section of its own.
pub(super) fn man() -> Result<ExitCode, Failure> {
    let page = manual_page().map_err(|error| Failure::from_error(&error))?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}

fn manual_page() -> std::io::Result<Vec<u8>> {
    let mut command = CommandLine::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let man = clap_mangen::Man::new(subcommand.clone());
        page.extend_from_slice(b".SH COMMAND: RINGMAIN ");
        page.extend_from_slice(subcommand.get_name().to_uppercase().as_bytes());
        page.push(b'\n');
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        man.render_extra_section(&mut page)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_subcommand() {
        let page = manual_page().expect("a Vec takes every write");
        let page = String::from_utf8_lossy(&page);
        for name in [
            "RUN",
            "CHECK",
            "REPORT",
            "BACKEND",
            "DEMO",
            "DOCTOR",
            "COMPLETIONS",
            "MAN",
        ] {
            assert!(
                page.contains(&format!(".SH COMMAND: RINGMAIN {name}\n")),
                "{name}"
            );
        }
    }
}
