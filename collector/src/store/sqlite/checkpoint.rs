//! The checkpoint thread: copies the write-ahead log into the database file, so that the writer does not wait for it.
//!
//! A log can begin again from its start only when all of it is copied. Under load the writer appends while the thread
//! copies, so the thread asks the writer to copy the short rest. It copies often: each pass then writes little, so that the
//! writer's own sync does not wait for a long one, and the rest stays short.
//!
//! SQLite syncs the database file only at the end of a pass in which it copied all of the log, and while the writer appends this
//! is the writer's own pass. So the thread syncs the file after each of its passes: the writer's pass then finds only the
//! pages of the rest.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::phases::{Phase, Phases};
use crate::store::StoreError;

/// Further passes over a log that grew by more than the writer may copy during the pass before.
const MAX_PASSES: usize = 4;

/// Pause of the writer after each commit while the log is long: the thread catches up meanwhile.
pub(super) const WRITER_PAUSE: Duration = Duration::from_millis(10);

/// Limits of the write-ahead log, in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Time between two checkpoints.
    pub interval: Duration,
    /// A log of fewer pages does not begin again: it has not grown much.
    pub restart_pages: i64,
    /// Most pages that the writer copies. The thread makes further passes until the rest is a quarter of them.
    pub writer_pages: i64,
    /// A log of more pages makes the writer pause after each commit, and maintenance wait.
    pub long_pages: i64,
}

impl LogLimits {
    /// Limits for a disk with some hundred `fsync` a second.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_millis(100),
        restart_pages: 4_000,
        writer_pages: 1_000,
        long_pages: 32_000,
    };
}

/// What the checkpoint thread asks of the writer.
#[derive(Debug, Default)]
pub(super) struct LogState {
    rest_is_short: AtomicBool,
    is_long: AtomicBool,
}

impl LogState {
    /// Whether the writer should copy the rest of the log now. Each request is returned once.
    pub(super) fn take_rest_is_short(&self) -> bool {
        self.rest_is_short.swap(false, Ordering::AcqRel)
    }

    /// Whether the writer is faster than the checkpoint thread.
    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Acquire)
    }
}

/// The database file, opened only to sync it.
///
/// It is closed after the connections: a process that closes any descriptor of a file loses all its locks on the file, also those of
/// SQLite.
#[derive(Debug, Clone, Default)]
pub(super) struct DatabaseFile(Arc<OnceLock<File>>);

impl DatabaseFile {
    /// Opens it, unless it is open.
    pub(super) fn open(&self, path: &Path) -> Result<(), StoreError> {
        if self.0.get().is_none() {
            let file = File::open(path);
            let file =
                file.map_err(|error| StoreError::Engine(format!("cannot open {}: {error}", path.display())))?;
            // Only one start at a time opens it.
            let _ = self.0.set(file);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let synced = self.0.get().map_or(Ok(()), File::sync_data);
        synced.map_err(|error| StoreError::Engine(format!("cannot sync the database file: {error}")))
    }
}

/// The thread. Dropping it stops it.
pub(super) struct Checkpointer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        file: DatabaseFile,
        limits: LogLimits,
        log: Arc<LogState>,
        phases: Phases,
    ) -> Result<Self, StoreError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                let mut passes = Passes { connection, file, phases, synced: 0 };
                loop {
                    let (lock, condition) = &*stopped;
                    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    let waited = condition.wait_timeout_while(guard, limits.interval, |stop| !*stop);
                    if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                        return;
                    }
                    if let Err(error) = passes.run(limits, &log) {
                        tracing::debug!(%error, "checkpoint failed; trying again");
                    }
                }
            })
            .map_err(|error| StoreError::Engine(format!("cannot start the checkpoint thread: {error}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // The panic hook has already printed a panic of the thread.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Passes {
    connection: Connection,
    file: DatabaseFile,
    phases: Phases,
    /// The pages of the log that were copied at the last sync.
    synced: i64,
}

impl Passes {
    fn run(&mut self, limits: LogLimits, log: &LogState) -> Result<(), StoreError> {
        let mut copied_before = 0;
        for number in 1..=MAX_PASSES {
            let (pages, copied) = self.pass()?;
            // A log that a reader keeps long does not become shorter when the writer pauses.
            let is_kept = pages - copied > limits.writer_pages;
            log.is_long.store(pages > limits.long_pages && !is_kept, Ordering::Release);
            if pages < limits.restart_pages || is_kept {
                return Ok(());
            }
            let short = if number < MAX_PASSES { limits.writer_pages / 4 } else { limits.writer_pages };
            // What the pass before left is about what this one leaves.
            if pages - copied_before <= short {
                log.rest_is_short.store(true, Ordering::Release);
                return Ok(());
            }
            copied_before = copied;
        }
        Ok(())
    }

    /// Copies, and syncs what was copied. Returns the pages in the log and the pages copied.
    fn pass(&mut self) -> Result<(i64, i64), StoreError> {
        let Self { connection, file, phases, synced } = self;
        phases.time(Phase::Checkpoint, || {
            let (pages, copied) = checkpoint(connection)?;
            if copied != *synced {
                file.sync()?;
                *synced = copied;
            }
            Ok((pages, copied))
        })
    }
}

/// Copies what readers permit, without waiting; returns the pages in the log and the pages copied.
pub(super) fn checkpoint(connection: &Connection) -> Result<(i64, i64), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((row.get("log")?, row.get("checkpointed")?))
    })?)
}
