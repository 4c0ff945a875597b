//! The checkpoint thread: copies the write-ahead log into the database file, so that the writer does not wait for it.
//!
//! A log can be started again from its beginning only when all of it is copied. Under load the writer appends while the
//! thread copies, so the thread asks the writer to copy the short rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::store::StoreError;

/// Time between two checkpoints.
const INTERVAL: Duration = Duration::from_millis(1_000);

/// A log of fewer pages is not started again: it has not grown much.
const MIN_RESTART_PAGES: i64 = 4_000;

/// Most pages that the writer copies: some milliseconds of work.
const MAX_WRITER_PAGES: i64 = 1_000;

/// Further passes over a log that grew by more than [`MAX_WRITER_PAGES`] during the first one.
const MAX_PASSES: usize = 4;

/// The thread. Dropping it stops it.
pub(super) struct Checkpointer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread. `rest_is_short` is set when the writer should copy the rest of the log.
    pub(super) fn start(connection: Connection, rest_is_short: Arc<AtomicBool>) -> Result<Self, StoreError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                loop {
                    let (lock, condition) = &*stopped;
                    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    let waited = condition.wait_timeout_while(guard, INTERVAL, |stop| !*stop);
                    if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                        return;
                    }
                    if let Err(error) = run(&connection, &rest_is_short) {
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

fn run(connection: &Connection, rest_is_short: &AtomicBool) -> Result<(), StoreError> {
    let mut before = 0;
    for _ in 0..MAX_PASSES {
        let (pages, _) = checkpoint(connection)?;
        if pages < MIN_RESTART_PAGES {
            return Ok(());
        }
        // What was appended since the pass before is about what will be appended after this one.
        if pages - before <= MAX_WRITER_PAGES {
            rest_is_short.store(true, Ordering::Release);
            return Ok(());
        }
        before = pages;
    }
    // The writer is faster than this thread: it has to wait for its own copy.
    rest_is_short.store(true, Ordering::Release);
    Ok(())
}

/// Copies what readers permit, without waiting; returns the pages in the log and the pages copied.
pub(super) fn checkpoint(connection: &Connection) -> Result<(i64, i64), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?)
}
