//! A listening socket in the file system, which goes away with the process.
//!
//! The file has mode 0600: whoever may write it may connect. A process that was killed leaves its
//! file behind; nobody listens there any more, and it is replaced. A file that is no socket is
//! nobody's to replace.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fd;

/// How long the start waits to learn whether somebody listens. Only a queue that is full makes it
/// wait, and whose queue is full does listen.
const GLANCE: Duration = Duration::from_millis(100);

/// The file of a socket that listens; removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put a file of its own in the place of ours.
    identity: (u64, u64),
}

/// Listens at `path`.
///
/// # Errors
/// What bind(2) says, `AddrInUse` where somebody listens there, and `AlreadyExists` where the file
/// is no socket.
pub(super) fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = match fd::listen_at(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_socket(path) => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            fs::remove_file(path)?;
            fd::listen_at(path)?
        }
        other => other?,
    };
    let file = SocketFile::of(path)?;
    Ok((listener.into(), file))
}

impl SocketFile {
    /// The file at `path`, which is there.
    ///
    /// # Errors
    /// What stat(2) says.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// Leaves the file where it is.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

/// True exactly when nobody listens at the socket `path`.
fn is_left_behind(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    fd::connect_at(path, GLANCE).is_err_and(refused)
}

/// True exactly when `path` itself is a socket: not a link to one.
fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Who removed it meanwhile has done the work.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::{env, process};

    use super::*;

    fn path(name: &str) -> PathBuf {
        env::temp_dir().join(format!("ringmain-{}-{name}.sock", process::id()))
    }

    #[test]
    fn the_file_is_the_owners_alone_and_goes_away() {
        let path = path("mode");
        let (listener, file) = listen(&path).expect("the folder is writable");
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = listen(&path).map(drop);
        let again = again.expect_err("somebody listens there");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("the first one still listens");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_queue_that_is_full_is_no_dead_process() {
        let path = path("full");
        let (_listener, _file) = listen(&path).expect("the folder is writable");
        let mut waiting = Vec::new();
        let full = loop {
            match fd::connect_at(&path, GLANCE) {
                Ok(client) => waiting.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let again = listen(&path).map(drop);
        let again = again.expect_err("somebody listens there");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_a_dead_process_left_is_replaced_and_anothers_is_kept() {
        let path = path("left");
        drop(UnixListener::bind(&path).expect("the folder is writable"));
        assert!(path.exists());
        let (_listener, file) = listen(&path).expect("nobody listens there");
        fs::remove_file(&path).expect("it is ours");
        let another = UnixListener::bind(&path).expect("the folder is writable");
        drop(file);
        assert!(path.exists(), "it is another's");
        drop(another);
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "a letter").expect("the folder is writable");
        let refused = listen(&path).map(drop).expect_err("it is no socket");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "a letter");
        fs::remove_file(&path).expect("it is there");
    }
}
