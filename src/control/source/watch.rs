//! Watches a file, on a thread of its own, and rings when another text stands there.
//!
//! A file is seldom written in place: editors rename another one over it, and a ConfigMap of
//! Kubernetes is a link to `..data/config.toml`, where `..data` is itself a link that is swapped.
//! So it is the directories that are watched: of the file, and of every link on the way to it.
//! After each event they are found anew.
//!
//! What comes within 200 ms of each other is one change. A text that was read already is none, and
//! a file that is missing is no configuration: there is a line, and the next file is waited for.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Changed;
use super::file::Seen;
use crate::config;

/// How long nothing must have happened before the file is looked at.
const QUIET: Duration = Duration::from_millis(200);

/// How many times in a row something may happen meanwhile; then it is looked at all the same.
const EVENTS_MAX: usize = 1_000;

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A file that is watched, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    heard: Sender<Heard>,
}

#[derive(Debug)]
enum Heard {
    /// Something has happened in a directory.
    Event(notify::Result<Event>),
    /// Nobody wants to know any more.
    End,
}

/// What the thread has.
#[derive(Debug)]
struct Watcher {
    path: PathBuf,
    seen: Arc<Seen>,
    changed: Changed,
    watcher: RecommendedWatcher,
    heard: Receiver<Heard>,
    /// The file and the links on the way to it, as they were looked up last.
    points: BTreeSet<PathBuf>,
    /// The directories that are watched.
    watched: BTreeSet<PathBuf>,
    /// True exactly when the file could not be read when it was looked at last.
    missing: bool,
    /// True exactly when there was a line that a directory cannot be watched.
    blind: bool,
}

impl Watch {
    /// Watches `path`, whose text was `seen`.
    ///
    /// # Errors
    /// When the kernel lets nobody watch, or there is no thread.
    pub(super) fn start(path: PathBuf, seen: Arc<Seen>, changed: Changed) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let (sender, heard) = channel();
        let to_thread = sender.clone();
        let watcher = notify::recommended_watcher(move |event| {
            // An error: the thread has ended.
            let _unheard = to_thread.send(Heard::Event(event));
        });
        let watcher = Watcher {
            path,
            seen,
            changed,
            watcher: watcher.map_err(io::Error::other)?,
            heard,
            points: BTreeSet::new(),
            watched: BTreeSet::new(),
            missing: false,
            blind: false,
        };
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watcher.live())?;
        Ok(Self { heard: sender })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An error: the thread has ended.
        let _unheard = self.heard.send(Heard::End);
    }
}

impl Watcher {
    fn live(mut self) {
        loop {
            self.follow();
            // Also at first: what has happened before that had no event.
            self.look();
            if self.wait().is_none() {
                return;
            }
        }
    }

    /// Watches the directories on the way to the file, as they are now.
    fn follow(&mut self) {
        for directory in std::mem::take(&mut self.watched) {
            // An error: it is gone.
            let _gone = self.watcher.unwatch(&directory);
        }
        self.points = points(&self.path);
        let directories = self.points.iter().filter_map(|point| point.parent());
        let directories: BTreeSet<PathBuf> = directories.map(Path::to_owned).collect();
        for directory in directories {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory);
                }
                Err(error) if !self.blind => {
                    self.blind = true;
                    let directory = directory.display();
                    log::warn!(
                        directory:%, error:%;
                        "a directory of the configuration cannot be watched; SIGHUP loads it"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Rings where there is a text that nobody has read.
    fn look(&mut self) {
        match config::read(&self.path) {
            Ok(text) => {
                self.missing = false;
                if !self.seen.is(&text) {
                    self.changed.ring();
                }
            }
            Err(error) if !self.missing => {
                self.missing = true;
                let file = self.path.display();
                log::warn!(file:%, error:%; "the configuration cannot be read; it is waited for");
            }
            Err(_) => {}
        }
    }

    /// Waits until something has happened on the way to the file, and then nothing for a while;
    /// `None` when nobody wants to know any more.
    fn wait(&self) -> Option<()> {
        loop {
            match self.heard.recv() {
                Ok(Heard::Event(event)) if self.concerns(&event) => break,
                Ok(Heard::Event(_)) => {}
                Ok(Heard::End) | Err(_) => return None,
            }
        }
        for _ in 0..EVENTS_MAX {
            match self.heard.recv_timeout(QUIET) {
                Ok(Heard::Event(_)) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        Some(())
    }

    /// Whether `event` may mean another text. That somebody reads, as this thread does, does not.
    fn concerns(&self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else { return true };
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        if event.kind.is_access() && event.kind != written {
            return false;
        }
        let is_on_the_way =
            |path: &PathBuf| self.points.contains(path) || self.watched.contains(path);
        event.need_rescan() || event.paths.iter().any(is_on_the_way)
    }
}

/// The file at `path`, which is absolute, and each link on the way to it; where something is
/// missing, that is the last.
fn points(path: &Path) -> BTreeSet<PathBuf> {
    let mut points = BTreeSet::new();
    let mut at = PathBuf::from("/");
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        if let Ok(target) = next.read_link()
            && links < LINKS_MAX
        {
            links += 1;
            points.insert(next);
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
            continue;
        }
        if left.is_empty() || !next.exists() {
            points.insert(next);
            break;
        }
        at = next;
    }
    points
}

/// The names in `path`, `..` included.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::{env, fs, process};

    use super::*;

    /// What is watched, without the folder of the test.
    fn found(path: &Path, folder: &Path) -> Vec<String> {
        let points = points(path).into_iter();
        let points = points.filter_map(|point| {
            let own = point.strip_prefix(folder).ok()?;
            Some(own.display().to_string())
        });
        points.collect()
    }

    #[test]
    fn every_link_on_the_way_to_the_file_is_watched() {
        let folder = env::temp_dir().join(format!("ringmain-{}-points", process::id()));
        fs::create_dir_all(folder.join("..one")).expect("the folder is writable");
        let folder = folder.canonicalize().expect("it is there");
        let path = folder.join("config.toml");
        assert_eq!(found(&path, &folder), ["config.toml"], "nothing is there");
        fs::write(folder.join("..one/config.toml"), "").expect("the folder is writable");
        symlink("..one", folder.join("..data")).expect("the folder is writable");
        symlink("..data/config.toml", &path).expect("the folder is writable");
        let all = ["..data", "..one/config.toml", "config.toml"];
        assert_eq!(found(&path, &folder), all);
        fs::remove_dir_all(folder.join("..one")).expect("it is ours");
        assert_eq!(found(&path, &folder), ["..data", "..one", "config.toml"]);
        fs::remove_file(&path).expect("it is ours");
        symlink("config.toml", &path).expect("the folder is writable");
        assert_eq!(found(&path, &folder), ["config.toml"], "it goes nowhere");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
