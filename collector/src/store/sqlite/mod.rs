//! The embedded store: one SQLite file in a data folder, with one writer thread and several readers.
//!
//! The writer puts all waiting requests into one transaction, so that many requests share one `fsync`
//! (`synchronous = FULL` with a write-ahead log). Readers have their own connections and see the last commit.
//! A lock file prevents a second collector from writing to the folder; other processes may read it.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    ChangeEvent, EnvironmentState, FunctionKey, NewBatch, Receipt, Recent, Series, Store, StoreError, Tenant,
    Window,
};

mod compaction;
mod read;
mod rows;
mod schema;
mod write;

use write::{Append, Job, LogChange, Reply};

use crate::clock::Clock;

/// Name of the database file in the data folder.
const FILE_NAME: &str = "tailor.sqlite";

/// Name of the lock file, which the writing collector holds.
const LOCK_NAME: &str = "serve.lock";

/// Maximum number of requests that wait for the writer. The memory budget of the ingest limits their size.
const QUEUE: usize = 4_096;

/// Maximum number of read connections. Each has its own page cache.
const READERS: usize = 4;

/// How long a connection waits for a lock of another; checkpoints hold it for a short time.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The embedded store. Dropping it waits until all accepted writes are on disk.
pub struct SqliteStore {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    clock: Clock,
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the store in `folder`, which must exist, creating or upgrading the file as needed.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the folder is in use by another collector or cannot be written,
    /// [`StoreError::NewerSchema`] when a newer version of the program wrote it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with_clock(folder, Clock::system())
    }

    /// As [`Self::open`], with another clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clock(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        let retention_clock = clock.clone();
        let lock = lock(folder)?;
        let path = folder.join(FILE_NAME);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // The page size is fixed at creation: rollups are a few hundred bytes to a few kilobytes, and
        // larger pages keep them out of overflow chains.
        connection.execute_batch(
            "PRAGMA page_size = 8192;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -16384;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA journal_size_limit = 67108864;",
        )?;
        schema::migrate(&mut connection)?;
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write::run(connection, retention_clock, receiver))
            .map_err(|error| StoreError::Engine(format!("cannot start the writer thread: {error}")))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            readers: Arc::new(Readers::new(path)),
            clock,
            _lock: Some(lock),
        })
    }

    /// Opens the store in `folder` for reading, whether or not a collector runs on it.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when there is no store, [`StoreError::NewerSchema`] as for [`Self::open`].
    pub fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        let exists = path
            .try_exists()
            .map_err(|error| StoreError::Engine(format!("cannot look into {}: {error}", folder.display())))?;
        if !exists {
            let message = format!(
                "no store in {}: start `tailor serve --data` there, or name another",
                folder.display()
            );
            return Err(StoreError::Engine(message));
        }
        let readers = Readers::new(path);
        schema::check(&readers.open()?)?;
        Ok(Self { jobs: None, writer: None, readers: Arc::new(readers), clock: Clock::system(), _lock: None })
    }

    /// Merges partial rollups and deletes old data. The writer also does this by itself from time to time.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the store is open for reading only, or the engine fails.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.submit(Job::Compact).await
    }

    async fn submit<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let jobs = self
            .jobs
            .as_ref()
            .ok_or_else(|| StoreError::Engine("the store is open for reading only".to_owned()))?;
        let (reply, received) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| StoreError::Stopping)?;
        received.await.map_err(|_| StoreError::Stopping)?
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        // The permit bounds the blocking threads as well as the connections.
        let permit = Arc::clone(&readers.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.with(query)
        })
        .await
        .map_err(|error| StoreError::Engine(format!("a read panicked: {error}")))?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Closing the channel makes the writer finish all queued requests and end.
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // The panic hook has already printed a panic of the writer.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError> {
        self.submit(|reply| Job::Append(Append { batch: Box::new(batch), reply })).await
    }

    async fn functions(&self, tenant: &Tenant) -> Result<Vec<FunctionKey>, StoreError> {
        let tenant = tenant.clone();
        self.read(move |connection| read::functions(connection, &tenant)).await
    }

    async fn series(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<Series>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        self.read(move |connection| read::series(connection, &tenant, function.as_ref(), window)).await
    }

    async fn environments(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<EnvironmentState>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        let oldest_kept_us = self.clock.now_us().saturating_sub(compaction::BATCH_ROWS_KEPT_US);
        self.read(move |connection| {
            read::environments(connection, &tenant, function.as_ref(), window, oldest_kept_us)
        })
        .await
    }

    async fn recent(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        limit: usize,
    ) -> Result<Vec<Recent>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.clone());
        self.read(move |connection| read::recent(connection, &tenant, &function, limit)).await
    }

    async fn log_change(&self, tenant: &Tenant, event: &ChangeEvent) -> Result<(), StoreError> {
        let (tenant, event) = (tenant.clone(), event.clone());
        self.submit(|reply| Job::LogChange(LogChange { tenant, event, reply })).await
    }

    async fn changes(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
    ) -> Result<Vec<ChangeEvent>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        self.read(move |connection| read::changes(connection, &tenant, function.as_ref())).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        if self.writer.as_ref().is_some_and(JoinHandle::is_finished) {
            return Err(StoreError::Engine("the writer has stopped: restart the collector".to_owned()));
        }
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }
}

/// Read connections. They are opened when first needed and kept open.
struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    // A std mutex is enough: it is locked only to push or pop.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn new(path: PathBuf) -> Self {
        Self { path, permits: Arc::new(Semaphore::new(READERS)), idle: Mutex::new(Vec::new()) }
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let result = query(&connection);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

/// Whether a collector has this folder open for writing.
#[must_use]
pub fn is_served(folder: &Path) -> bool {
    File::open(folder.join(LOCK_NAME)).is_ok_and(|file| file.try_lock_shared().is_err())
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| StoreError::Engine(format!("cannot open {}: {error}", path.display())))?;
    // The kernel releases the lock when the process ends, also after a crash.
    file.try_lock().map_err(|_| {
        StoreError::Engine(format!("{} is in use by another `tailor serve`", folder.display()))
    })?;
    Ok(file)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full("the data folder".to_owned()),
            _ => Self::Engine(error.to_string()),
        }
    }
}
