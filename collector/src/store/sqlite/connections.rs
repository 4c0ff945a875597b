//! Connections that only read.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::store::StoreError;

/// How long a connection waits for a lock of another.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Read connections. They are opened when first needed and kept open.
pub(super) struct Readers {
    path: PathBuf,
    /// Whether nothing else opens the file, so that no log and no lock is necessary.
    is_immutable: AtomicBool,
    pub(super) permits: Arc<Semaphore>,
    // A std mutex is enough: it is locked only to push or pop.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, connections: usize, is_immutable: bool) -> Self {
        let permits = Arc::new(Semaphore::new(connections));
        Self { path, is_immutable: is_immutable.into(), permits, idle: Mutex::new(Vec::new()) }
    }

    /// Closes all connections and opens the next ones in the other way. The caller holds all permits.
    pub(super) fn renew(&self, is_immutable: bool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.is_immutable.store(is_immutable, Ordering::Release);
    }

    pub(super) fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if self.is_immutable.load(Ordering::Acquire) {
            let path = path_segments(&self.path);
            Connection::open_with_flags(
                format!("file:{path}?immutable=1"),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?
        } else {
            Connection::open_with_flags(&self.path, flags)?
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    pub(super) fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        // One snapshot for all queries, so that a batch is either pending or compacted in all of them.
        let result = match connection.unchecked_transaction() {
            Ok(transaction) => query(&transaction),
            Err(error) => Err(error.into()),
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

/// A path in a URI.
fn path_segments(path: &Path) -> String {
    const UNRESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encode(path.as_os_str().as_bytes(), UNRESERVED).to_string()
}
