//! Owns the log's outputs and the consuming ends of the shards' rings.
//!
//! One lock covers both, and no shard ever takes it after its registration. The writer's thread
//! drains all rings and parks; each push unparks it. An unpark that comes before the park makes the
//! park return at once, so that no record waits for the next one.

#![expect(
    clippy::disallowed_types,
    reason = "control may lock; shards reach this by their rings"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::config::LogFormat;

use super::{LogError, Target, format};

/// Records that a shard may be ahead of the writer; the next one is dropped and counted.
const RING_RECORDS_MAX: usize = 1024;

/// Lines gathered from the rings before they are written in one call.
const BATCH_BYTES: usize = 64 * 1024;

/// The outputs of the process log and what feeds them.
#[derive(Debug)]
pub(super) struct Writer {
    inner: Mutex<Inner>,
    /// Set once, by [`Writer::start`].
    thread: Arc<OnceLock<Thread>>,
}

#[derive(Debug)]
struct Inner {
    /// Of what the writer says itself.
    format: LogFormat,
    outputs: Outputs,
    rings: Vec<Reader>,
    /// Kept between drains for its capacity; empty outside of one.
    batch: Vec<u8>,
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Outputs {
    targets: Vec<Target>,
    /// In their order.
    open: Vec<Output>,
}

impl Outputs {
    /// Opens every target.
    pub(super) fn open(targets: &[Target]) -> Result<Self, LogError> {
        let open = targets.iter().map(Output::open);
        Ok(Self {
            targets: targets.to_vec(),
            open: open.collect::<Result<_, _>>()?,
        })
    }

    fn write(&mut self, lines: &[u8]) {
        self.open.iter_mut().for_each(|output| output.write(lines));
    }
}

#[derive(Debug)]
enum Output {
    Stderr,
    Stdout,
    File(File),
}

/// The writer's end of one shard's ring.
#[derive(Debug)]
struct Reader {
    lines: Consumer<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    /// How many of `dropped` the log has told of.
    told: u64,
}

/// The shard's end of its ring.
#[derive(Debug)]
pub(super) struct ShardRing {
    lines: Producer<Vec<u8>>,
    /// Written by this shard alone, read by the writer.
    dropped: Arc<AtomicU64>,
    thread: Arc<OnceLock<Thread>>,
}

impl ShardRing {
    /// Hands `line` to the writer, or counts it where the ring is full.
    pub(super) fn push(&mut self, line: Vec<u8>) {
        if self.lines.push(line).is_err() {
            // One writer, so that a load and a store are an addition without a locked instruction.
            let dropped = self.dropped.load(Ordering::Relaxed);
            self.dropped.store(dropped + 1, Ordering::Relaxed);
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Writer {
    /// Opens every target.
    pub(super) fn open(format: LogFormat, targets: &[Target]) -> Result<Self, LogError> {
        let inner = Inner {
            format,
            outputs: Outputs::open(targets)?,
            rings: Vec::new(),
            batch: Vec::new(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            thread: Arc::default(),
        })
    }

    /// Writes to `outputs` from now on; what was logged before goes where it went.
    pub(super) fn turn_to(&self, format: LogFormat, outputs: Outputs) {
        let mut inner = self.lock();
        inner.drain();
        inner.format = format;
        inner.outputs = outputs;
    }

    /// Opens every target anew: somebody may have moved its file away. What cannot be opened stays
    /// as it was.
    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let mut inner = self.lock();
        inner.drain();
        inner.outputs = Outputs::open(&inner.outputs.targets)?;
        Ok(())
    }

    /// Starts the thread that drains the rings for as long as the process lives.
    pub(super) fn start(writer: &Arc<Self>) -> io::Result<()> {
        let drained = Arc::clone(writer);
        let forever = move || {
            loop {
                drained.drain();
                thread::park();
            }
        };
        let handle = thread::Builder::new()
            .name("ringmain-log".to_owned())
            .spawn(forever)?;
        // A writer is started once; a second thread would be a second drain, which the lock orders.
        let _ = writer.thread.set(handle.thread().clone());
        Ok(())
    }

    /// A new ring, of which the writer keeps the other end.
    pub(super) fn register(&self) -> ShardRing {
        let (producer, consumer) = RingBuffer::new(RING_RECORDS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            lines: consumer,
            dropped: Arc::clone(&dropped),
            told: 0,
        };
        self.lock().rings.push(reader);
        ShardRing {
            lines: producer,
            dropped,
            thread: Arc::clone(&self.thread),
        }
    }

    /// Writes one line from the calling thread.
    pub(super) fn write(&self, line: &[u8]) {
        self.lock().outputs.write(line);
    }

    /// Writes everything that the rings hold, and says what they dropped.
    pub(super) fn drain(&self) {
        self.lock().drain();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two lines leaves nothing half done that matters more than the log of it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drain(&mut self) {
        let Self {
            format,
            outputs,
            rings,
            batch,
        } = self;
        for ring in rings.iter_mut() {
            // Bounded by what is there now: a shard that logs without end must not keep the others
            // waiting.
            for _ in 0..ring.lines.slots() {
                let Ok(line) = ring.lines.pop() else { break };
                batch.extend_from_slice(&line);
                if BATCH_BYTES <= batch.len() {
                    write_batch(outputs, batch);
                }
            }
            ring.tell_dropped(batch, *format);
        }
        write_batch(outputs, batch);
        // A ring that its shard has left behind goes when it is empty.
        rings.retain(|ring| !(ring.lines.is_abandoned() && ring.lines.is_empty()));
    }
}

impl Reader {
    fn tell_dropped(&mut self, batch: &mut Vec<u8>, format: LogFormat) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped == self.told {
            return;
        }
        let count = dropped - self.told;
        self.told = dropped;
        let record = &[("count", log::kv::Value::from(count))];
        format::write_record(
            batch,
            format,
            jiff::Timestamp::now(),
            &log::Record::builder()
                .level(log::Level::Warn)
                .target(module_path!())
                .args(format_args!("log records dropped"))
                .key_values(&record)
                .build(),
        );
    }
}

fn write_batch(outputs: &mut Outputs, batch: &mut Vec<u8>) {
    if !batch.is_empty() {
        outputs.write(batch);
        batch.clear();
    }
}

impl Output {
    fn open(target: &Target) -> Result<Self, LogError> {
        match target {
            Target::Stderr => Ok(Self::Stderr),
            Target::Stdout => Ok(Self::Stdout),
            // Appending keeps two processes' lines whole, as during an upgrade.
            Target::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Self::File)
                .map_err(|source| LogError::Open {
                    path: path.clone(),
                    source,
                }),
        }
    }

    /// Writes `lines`. There is nowhere left to report that a log can't be written, so that an
    /// error is let go.
    fn write(&mut self, lines: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Self::File(file) => file.write_all(lines),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer without a thread, whose one output is a file that nobody else has.
    fn writer(name: &str) -> (Writer, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("ringmain-{}-{name}", std::process::id()));
        let writer = Writer::open(LogFormat::Text, &[Target::File(path.clone())]);
        (writer.expect("the temporary folder can be written"), path)
    }

    #[track_caller]
    fn written(path: &std::path::Path) -> String {
        let text = std::fs::read_to_string(path).expect("the writer made the file");
        std::fs::remove_file(path).expect("the file is ours");
        text
    }

    #[test]
    fn a_shards_lines_are_written_by_the_next_drain() {
        let (writer, path) = writer("drain");
        let mut ring = writer.register();
        ring.push(b"one\n".to_vec());
        ring.push(b"two\n".to_vec());
        writer.write(b"at once\n");
        writer.drain();
        assert_eq!(written(&path), "at once\none\ntwo\n");
    }

    #[test]
    fn a_full_ring_drops_and_the_log_says_how_many() {
        let (writer, path) = writer("full");
        let mut ring = writer.register();
        for _ in 0..RING_RECORDS_MAX + 3 {
            ring.push(b".\n".to_vec());
        }
        writer.drain();
        writer.drain();
        let text = written(&path);
        assert_eq!(
            text.lines().filter(|line| *line == ".").count(),
            RING_RECORDS_MAX
        );
        let told: Vec<_> = text.lines().filter(|line| *line != ".").collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].ends_with("WARN  log records dropped count=3"),
            "{told:?}"
        );
    }

    #[test]
    fn a_ring_goes_when_its_shard_has_gone_and_its_lines_are_written() {
        let (writer, path) = writer("gone");
        let mut ring = writer.register();
        ring.push(b"last words\n".to_vec());
        drop(ring);
        writer.drain();
        assert!(writer.lock().rings.is_empty());
        assert_eq!(written(&path), "last words\n");
    }
}
