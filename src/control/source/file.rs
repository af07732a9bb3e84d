//! A file as a source of configurations.

use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::watch::Watch;
use super::{Changed, ConfigSource};
use crate::config::{self, Config, ConfigErrors};

/// What the command line and the environment say in place of a file's text.
pub type Override = dyn Fn(Config) -> Result<Config, ConfigErrors> + Send;

/// A file.
pub struct FileSource {
    path: PathBuf,
    over: Box<Override>,
    /// The text that was read last, be it good or bad: it is no news.
    seen: Arc<Seen>,
    /// `None` exactly when nobody watches.
    watch: Option<Watch>,
}

/// A text that was read, without its bytes.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU64);

impl Seen {
    /// True exactly when `text` is the one that was read last.
    pub(super) fn is(&self, text: &str) -> bool {
        self.0.load(Ordering::Relaxed) == digest(text)
    }

    fn note(&self, text: &str) {
        self.0.store(digest(text), Ordering::Relaxed);
    }
}

/// Never 0, which is no text at all.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish() | 1
}

impl FileSource {
    /// The file at `path`, over which goes what `over` says.
    pub fn new(path: PathBuf, over: Box<Override>) -> Self {
        Self {
            path,
            over,
            seen: Arc::default(),
            watch: None,
        }
    }

    /// What the file says, without what goes over it.
    ///
    /// # Errors
    /// When it cannot be read; else every error of its text.
    pub fn read(&mut self) -> Result<Config, ConfigErrors> {
        let text = config::read(&self.path);
        let text = text.map_err(|error| config::unreadable(&self.path, &error))?;
        self.seen.note(&text);
        config::parse(&self.name(), &text)
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
        self.read().and_then(&self.over)
    }

    fn watch(&mut self, changed: &Changed) {
        if self.watch.is_some() {
            return;
        }
        let watch = Watch::start(self.path.clone(), Arc::clone(&self.seen), changed.clone());
        match watch {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                let file = self.name();
                log::warn!(file, error:%; "the file cannot be watched; SIGHUP loads it");
            }
        }
    }

    fn unwatch(&mut self) {
        self.watch = None;
    }
}
