//! How this process was started, and how another one is started in its place.
//!
//! sd_listen_fds(3) has the number of the process in its variables, which nobody knows before there
//! is one. So the process that is started becomes its program twice: at first with the sockets
//! under any numbers ([`SOCKETS`] says which), and then, the same process, with them in line from 3
//! on and the variables of the protocol. Between the two there is one thread and nothing else open.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::control::supervisor::{LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, SOCKETS, UPGRADE};
use crate::fd::inherited::{self, FIRST};

/// What this process was started by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    program: PathBuf,
    /// As it was typed.
    name: OsString,
    arguments: Vec<OsString>,
}

impl Launch {
    /// To be asked before the directory is changed.
    pub(super) fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let found = find(&name, env::var_os("PATH").as_deref());
        let program = found.or_else(|| env::current_exe().ok());
        Self {
            program: program.unwrap_or_else(|| name.clone().into()),
            name,
            arguments: arguments.collect(),
        }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.name).args(&self.arguments);
        command
    }

    /// What starts the program anew with `sockets`, each with its name, and `channel` to this
    /// process. They are open in whatever else is started while the copies that come with it are
    /// there.
    ///
    /// # Errors
    /// When there are no descriptors for the copies.
    pub(super) fn successor(
        &self,
        sockets: &[(String, &OwnedFd)],
        channel: &OwnedFd,
    ) -> io::Result<(Command, Vec<OwnedFd>)> {
        let descriptors = sockets.iter().map(|(_, socket)| *socket);
        let descriptors = descriptors.chain([channel]);
        let copies: Vec<OwnedFd> = descriptors
            .map(inherited::pass_on)
            .collect::<io::Result<_>>()?;
        let numbers = copies.iter().map(|copy| copy.as_raw_fd().to_string());
        let numbers = numbers.collect::<Vec<_>>().join(",");
        let names = sockets.iter().map(|(name, _)| name.as_str());
        let mut command = self.command();
        command
            .env(SOCKETS, numbers)
            .env(LISTEN_FDNAMES, names.collect::<Vec<_>>().join(":"))
            .env_remove(LISTEN_PID)
            .env_remove(LISTEN_FDS)
            .env_remove(UPGRADE);
        Ok((command, copies))
    }
}

/// Where an upgrade has started this process: it becomes its program once more, with the variables
/// of sd_listen_fds(3). To be called before anything else.
///
/// # Errors
/// When the descriptors that are named are not there, or the program is not.
pub fn settle() -> io::Result<()> {
    let Some(numbers) = env::var_os(SOCKETS) else {
        return Ok(());
    };
    let numbers = numbers.to_str().unwrap_or_default().split(',');
    let numbers: Result<Vec<RawFd>, _> = numbers.map(str::parse).collect();
    let numbers = numbers.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let descriptors = inherited::take(&numbers)?;
    // The last one is the channel.
    let sockets = descriptors.len().saturating_sub(1);
    inherited::line_up(descriptors)?;
    let pid = process::id().to_string();
    let mut command = Launch::of_this_process().command();
    command
        .env_remove(SOCKETS)
        .env(LISTEN_PID, &pid)
        .env(LISTEN_FDS, sockets.to_string())
        .env(UPGRADE, (FIRST as usize + sockets).to_string());
    if env::var_os("WATCHDOG_USEC").is_some() {
        // sd_watchdog_enabled(3): it names the process that it is meant for.
        command.env("WATCHDOG_PID", &pid);
    }
    Err(command.exec())
}

/// The program that a shell would have run for `name`: a path, or a name that it looks for.
fn find(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let here = env::current_dir().unwrap_or_default();
    if Path::new(name).components().nth(1).is_some() {
        return Some(here.join(name));
    }
    if name.is_empty() {
        return None;
    }
    let folders = path.map(env::split_paths).into_iter().flatten();
    let mut found = folders.map(|folder| here.join(folder).join(name));
    found.find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    let file = path.metadata();
    file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let here = env::current_dir().expect("there is one");
        let check = |name: &str, path: &str, expected: Option<PathBuf>| {
            let found = find(OsStr::new(name), Some(OsStr::new(path)));
            assert_eq!(found, expected, "{name} in {path}");
        };
        check("/opt/it", "/bin", Some("/opt/it".into()));
        check("./it", "/bin", Some(here.join("./it")));
        check("folder/it", "/bin", Some(here.join("folder/it")));
        check("sh", "/nowhere:/bin", Some("/bin/sh".into()));
        check("no-such-program", "/nowhere:/bin", None);
        check("", "/bin", None);
    }
}
