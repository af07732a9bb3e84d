//! The file that has the number of the process that serves, where the operator wants one.
//!
//! It is written beside its path at the start, when there is still time to say that it cannot be,
//! and put there in one step when the process serves: whoever reads it finds a whole number, and
//! after an upgrade the new one's. At the end it is removed only where it still has ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// The file; see above.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    beside: PathBuf,
}

impl PidFile {
    /// # Errors
    /// When it cannot be written.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        let pid = process::id();
        let path = std::path::absolute(path)?;
        let mut beside = path.clone().into_os_string();
        beside.push(format!(".{pid}"));
        let beside = PathBuf::from(beside);
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        fs::write(&beside, format!("{pid}\n"))?;
        Ok(Self { path, beside })
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// What rename(2) says.
    pub(super) fn publish(&self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It is there only where the process ends before it served.
        let _gone = fs::remove_file(&self.beside);
        let own = format!("{}\n", process::id());
        if fs::read_to_string(&self.path).is_ok_and(|found| found == own) {
            // Who removed it meanwhile has done the work.
            let _gone = fs::remove_file(&self.path);
        }
    }
}
