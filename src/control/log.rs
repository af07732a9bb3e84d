//! The process log: which records are written, in which format, and where to.
//!
//! Records come through the `log` crate, so that a call below the level costs one relaxed load of
//! its maximum. The filter is `env_logger`'s; its writer is not used, because it takes the lock of
//! stderr on the thread that logs, and a shard never waits for a log line (invariant 1). Instead a
//! record becomes one line of bytes on the thread that makes it:
//!
//! ```text
//!   shard thread   -> its own bounded ring --+
//!   shard thread   -> its own bounded ring --+-> writer thread -> stderr, stdout, files
//!   other threads  -> the outputs, under one lock, at once ----->
//! ```
//!
//! The filter, the format and the outputs can be swapped while the process runs; nobody who logs
//! waits for that.
//!
//! A full ring drops the record and counts it; the writer says how many were lost. Records of one
//! thread keep their order; between threads the stamps tell it.

pub mod format;
mod writer;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use log::{Log, Metadata, Record};

use crate::config::{LogConfig, LogFormat};

use writer::{Outputs, ShardRing, Writer};

/// What to log and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A level or a filter such as `warn,ringmain=debug`, as `[log] level` takes it; `config/` has
    /// checked it.
    pub filter: String,
    /// The shape of a line.
    pub format: LogFormat,
    /// Every line goes to each of them; none is silence.
    pub to: Vec<Target>,
}

impl From<&LogConfig> for LogSettings {
    fn from(config: &LogConfig) -> Self {
        let to = config.to.iter().map(|place| match place.as_str() {
            "stderr" => Target::Stderr,
            "stdout" => Target::Stdout,
            path => Target::File(path.into()),
        });
        Self {
            filter: config.level.clone(),
            format: config.format,
            to: to.collect(),
        }
    }
}

/// One place that lines are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, made where absent and appended to.
    File(PathBuf),
}

/// Why the log can't be set up; the process does not start then.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file can't be opened for appending.
    #[error("log file {}: {source}", path.display())]
    Open {
        /// As the operator wrote it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The writer's thread can't be started.
    #[error("log writer: {0}")]
    Thread(#[source] io::Error),
    /// This process has a log already.
    #[error("log: there is one already")]
    Installed,
}

/// The log of this process; the first [`install`] makes it.
static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    /// Some exactly on threads that called [`register_shard_thread`] after [`install`].
    static RING: RefCell<Option<ShardRing>> = const { RefCell::new(None) };
}

/// Makes the log of this process and starts its writer's thread.
///
/// # Errors
/// When a file can't be opened, the thread can't be started, or a log is installed already.
pub fn install(settings: &LogSettings) -> Result<LogHandle, LogError> {
    let shape = Shape::of(settings);
    let level_max = shape.filter.filter();
    let writer = Arc::new(Writer::open(settings.format, &settings.to)?);
    let logger = Logger {
        shape: ArcSwap::from_pointee(shape),
        writer: Arc::clone(&writer),
    };
    let mut logger = Some(logger);
    let installed = LOGGER.get_or_init(|| logger.take().expect("it is asked for once"));
    if logger.is_some() {
        return Err(LogError::Installed);
    }
    log::set_logger(installed).map_err(|_| LogError::Installed)?;
    Writer::start(&writer).map_err(LogError::Thread)?;
    log::set_max_level(level_max);
    Ok(LogHandle { writer })
}

/// Other settings of the log, whose places are open.
#[derive(Debug)]
pub struct NextLog {
    shape: Shape,
    outputs: Outputs,
}

impl NextLog {
    /// Opens what `settings` write to.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn open(settings: &LogSettings) -> Result<Self, LogError> {
        Ok(Self {
            shape: Shape::of(settings),
            outputs: Outputs::open(&settings.to)?,
        })
    }

    /// The log of this process, where it has one, follows these settings from now on. No thread
    /// that logs waits for that.
    pub fn take_over(self) {
        let Some(logger) = LOGGER.get() else { return };
        let level_max = self.shape.filter.filter();
        logger.writer.turn_to(self.shape.format, self.outputs);
        logger.shape.store(Arc::new(self.shape));
        log::set_max_level(level_max);
    }
}

/// Opens the files of the log anew, for whoever has moved them away (logrotate).
///
/// # Errors
/// When a file can't be opened; all go on as they were.
pub fn reopen() -> Result<(), LogError> {
    LOGGER.get().map_or(Ok(()), |logger| logger.writer.reopen())
}

/// Gives the calling thread a ring of its own. A shard's thread calls it once, before its first
/// exchange: this is the only moment at which it may wait for the writer. Without a log it does
/// nothing.
pub fn register_shard_thread() {
    let Some(logger) = LOGGER.get() else { return };
    let ring = logger.writer.register();
    RING.with(|slot| *slot.borrow_mut() = Some(ring));
}

/// The log of this process.
#[derive(Debug)]
pub struct LogHandle {
    writer: Arc<Writer>,
}

impl LogHandle {
    /// Returns when everything that was logged before the call has been given to the kernel.
    pub fn flush(&self) {
        self.writer.drain();
    }
}

#[derive(Debug)]
struct Logger {
    /// Swapped whole: who logs while another one comes finishes with the one that it has.
    shape: ArcSwap<Shape>,
    writer: Arc<Writer>,
}

/// Which records are written, and how.
#[derive(Debug)]
struct Shape {
    filter: env_logger::Logger,
    format: LogFormat,
}

impl Shape {
    fn of(settings: &LogSettings) -> Self {
        let mut filter = env_logger::Builder::new();
        Self {
            filter: filter.parse_filters(&settings.filter).build(),
            format: settings.format,
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shape.load().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let shape = self.shape.load();
        if !shape.filter.matches(record) {
            return;
        }
        let format = shape.format;
        // The line is complete before the ring is borrowed: a value whose Display logs must not
        // find it taken.
        let mut line = Vec::with_capacity(256);
        format::write_record(&mut line, format, jiff::Timestamp::now(), record);
        let left = RING.try_with(|slot| match slot.borrow_mut().as_mut() {
            Some(ring) => {
                ring.push(line);
                None
            }
            None => Some(line),
        });
        // `try_with` fails only while the thread ends; what it still says is lost with its ring.
        if let Ok(Some(line)) = left {
            self.writer.write(&line);
        }
    }

    fn flush(&self) {
        self.writer.drain();
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process, thread};

    use super::*;

    #[test]
    fn records_of_shards_and_others_reach_the_file_by_the_flush() {
        let path = env::temp_dir().join(format!("ringmain-{}-install", process::id()));
        let settings = LogSettings {
            filter: "off,ringmain::control::log=debug".to_owned(),
            format: LogFormat::Text,
            to: vec![Target::File(path.clone())],
        };
        let handle = install(&settings).expect("this process has no log yet");
        log::info!(listener = "web"; "from control");
        log::info!(target: "elsewhere", "filtered");
        log::trace!("below the level");
        let shard = thread::spawn(|| {
            register_shard_thread();
            log::debug!(host = "a b"; "from a shard");
            // A value whose Display logs finds the ring free.
            log::info!(value:% = Talkative; "nested");
        });
        shard.join().expect("the shard's thread ends");
        handle.flush();
        let text = fs::read_to_string(&path).expect("the writer made the file");
        fs::remove_file(&path).expect("the file is ours");
        let lines: Vec<_> = text.lines().filter_map(|line| line.get(25..)).collect();
        assert_eq!(
            lines,
            [
                "INFO  from control listener=web",
                "DEBUG from a shard host=\"a b\"",
                "INFO  within",
                "INFO  nested value=said",
            ]
        );
        assert!(matches!(install(&settings), Err(LogError::Installed)));
        let moved = path.with_extension("moved");
        fs::rename(&path, &moved).expect("the file is ours");
        reopen().expect("the folder is writable");
        log::info!("into the new file");
        let json = LogSettings {
            filter: "off,ringmain::control::log=trace".to_owned(),
            format: LogFormat::Json,
            ..settings
        };
        NextLog::open(&json)
            .expect("the folder is writable")
            .take_over();
        log::trace!("at the new level");
        handle.flush();
        let text = fs::read_to_string(&path).expect("the writer made the file");
        let [old, new] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        assert!(old.ends_with("INFO  into the new file"), "{old}");
        assert!(new.contains("\"at the new level\""), "{new}");
        fs::remove_file(&moved).expect("the file is ours");
        let _ = fs::remove_file(&path);
    }

    struct Talkative;

    impl std::fmt::Display for Talkative {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            log::info!("within");
            f.write_str("said")
        }
    }
}
