//! Where configurations come from.
//!
//! A source loads a configuration whole, checks it, and says when another one may be there; what
//! becomes of it is control's. `docs/EXTENDING.md` says how to add one.

use std::fmt::{self, Debug};
use std::path::PathBuf;

use crate::config::{self, Config, ConfigErrors};

/// Where configurations come from.
pub trait ConfigSource: Debug + Send {
    /// What it is called in messages, such as the path of a file.
    fn name(&self) -> String;

    /// The configuration that is there now.
    ///
    /// # Errors
    /// Every one that it has.
    fn load(&mut self) -> Result<Config, ConfigErrors>;
}

/// What the command line and the environment say in place of a file's text.
pub type Override = dyn Fn(Config) -> Result<Config, ConfigErrors> + Send;

/// A file.
pub struct FileSource {
    path: PathBuf,
    over: Box<Override>,
}

impl FileSource {
    /// The file at `path`, over which goes what `over` says.
    pub fn new(path: PathBuf, over: Box<Override>) -> Self {
        Self { path, over }
    }
}

impl Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileSource").field(&self.path).finish()
    }
}

impl ConfigSource for FileSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn load(&mut self) -> Result<Config, ConfigErrors> {
        config::load(&self.path).and_then(&self.over)
    }
}
