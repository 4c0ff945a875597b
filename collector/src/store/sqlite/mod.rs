//! The embedded store: one SQLite file in a data folder, with one writer thread and several readers.
//!
//! The writer puts all waiting requests into one transaction, so that many requests share one `fsync`
//! (`synchronous = FULL` with a write-ahead log). Readers have their own connections and see the last commit.
//! A lock file prevents a second collector from writing to the folder; other processes may read it.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::damage::DamageLog;
use super::{
    ChangeEvent, ChangedFunction, Damage, Environments, FunctionKey, NewBatch, Receipt, Recent, Series,
    Store, StoreError, StoredRollup, Summary, SummaryKind, SummaryRow, Tenant, Window,
};

pub mod check;
mod checkpoint;
mod compaction;
mod damage;
mod files;
mod maintenance;
mod read;
pub(in crate::store) mod recent;
mod retention;
pub(in crate::store) mod rows;
mod schema;
mod status;
mod summaries;
mod upgrade;
mod write;

pub use files::is_served;
pub use retention::Retention;
pub use status::free_bytes;

use checkpoint::Checkpointer;
use files::{FILE_NAME, OpenFiles};
use maintenance::Maintenance;
use status::WriteStatus;
use write::{Append, Job, LogChange, Reply, Writer};

use crate::clock::Clock;

/// Maximum number of requests that wait for the writer. The memory budget of the ingest limits their size.
const QUEUE: usize = 4_096;

/// Maximum number of read connections. Each has its own page cache.
const READERS: usize = 4;

/// How long a connection waits for a lock of another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two steps of maintenance while there is work.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Time between two steps of maintenance without work.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// The embedded store. Dropping it waits until all accepted writes are on disk.
pub struct SqliteStore {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    clock: Clock,
    damage: DamageLog,
    opened: Option<Arc<OpenFiles>>,
    status: Option<WriteStatus>,
    /// The connection of the readiness check, which does not wait for the other readers.
    health: Arc<Readers>,
    /// Why it refuses writes when it is open for reading only.
    read_only: StoreError,
    checkpointer: Option<Checkpointer>,
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the store in `folder`, which must exist, creating or upgrading the file as needed.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the folder is in use by another collector or cannot be written,
    /// [`StoreError::NewerSchema`] when a newer version of the program wrote it, [`StoreError::FilesChanged`] when the
    /// folder had a database that is missing or empty now.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, Clock::system(), Retention::default())
    }

    /// As [`Self::open`], with another clock and retention.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(folder: &Path, clock: Clock, retention: Retention) -> Result<Self, StoreError> {
        let lock = files::lock(folder)?;
        files::check_not_emptied(folder)?;
        let path = folder.join(FILE_NAME);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(128);
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        if pages == 0 {
            // Fixed at creation. Rollups are a few hundred bytes, and a commit writes whole pages.
            connection.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL;")?;
        }
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -32768;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 67108864;",
        )?;
        schema::migrate(&mut connection, clock.now_us())?;
        files::check_id(&connection, folder)?;
        // The file of the write-ahead log exists from the first read on.
        let _: i64 = connection.query_row("SELECT COUNT(*) FROM meta", [], |row| row.get(0))?;
        let damage = DamageLog::default();
        let rest_is_short = Arc::new(AtomicBool::new(false));
        let readers = Readers::new(path.clone(), READERS);
        let health = Readers::new(path.clone(), 1);
        let checkpoints = Connection::open(&path)?;
        checkpoints.busy_timeout(BUSY_TIMEOUT)?;
        let checkpointer = Checkpointer::start(checkpoints, Arc::clone(&rest_is_short))?;
        // The first step comes after the start: on a full disk, the start has what little space there is.
        let is_behind = Arc::new(AtomicBool::new(false));
        let status = WriteStatus::new(folder);
        let writer = Writer {
            connection,
            files: OpenFiles::of(folder)?,
            status: status.clone(),
            damage: damage.clone(),
            maintenance: Maintenance::new(clock.clone(), retention),
            known: HashSet::new(),
            rest_is_short,
            is_behind: Arc::clone(&is_behind),
        };
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let writer = thread("store-writer", move || writer.run(receiver))?;
        let weak = jobs.downgrade();
        // It ends by itself after the last sender is gone.
        thread("store-maintenance", move || request_maintenance(&weak, &is_behind))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            readers: Arc::new(readers),
            clock,
            damage,
            opened: Some(Arc::new(OpenFiles::of(folder)?)),
            status: Some(status),
            health: Arc::new(health),
            read_only: read_only(),
            checkpointer: Some(checkpointer),
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
        Self::open_read_only(path, false, None, read_only())
    }

    /// Opens the store in `folder` for reading after [`Self::open_with`] failed because the disk is full. Writes are refused
    /// with [`StoreError::Full`]. No other collector can write to the folder meanwhile.
    ///
    /// # Errors
    /// As [`Self::open_to_read`].
    pub fn open_on_full_disk(folder: &Path) -> Result<Self, StoreError> {
        let lock = files::lock(folder)?;
        let path = folder.join(FILE_NAME);
        // SQLite would create files to read the write-ahead log. There is none after a regular stop.
        let log = std::fs::metadata(folder.join(format!("{FILE_NAME}-wal")));
        let is_complete = !log.is_ok_and(|log| log.len() > 0);
        Self::open_read_only(path, is_complete, Some(lock), StoreError::Full(folder.display().to_string()))
    }

    fn open_read_only(
        path: PathBuf,
        immutable: bool,
        lock: Option<File>,
        read_only: StoreError,
    ) -> Result<Self, StoreError> {
        let readers = Readers { immutable, ..Readers::new(path.clone(), READERS) };
        schema::check(&readers.open()?)?;
        Ok(Self {
            jobs: None,
            writer: None,
            readers: Arc::new(readers),
            clock: Clock::system(),
            damage: DamageLog::default(),
            opened: None,
            status: None,
            health: Arc::new(Readers { immutable, ..Readers::new(path, 1) }),
            read_only,
            checkpointer: None,
            _lock: lock,
        })
    }

    /// Does all maintenance that is due. The writer also does it by itself, in short steps.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the store is open for reading only, or the engine fails.
    pub async fn maintain(&self) -> Result<(), StoreError> {
        self.submit(Job::MaintainAll).await
    }

    async fn submit<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let jobs = self.jobs.as_ref().ok_or_else(|| self.read_only.clone())?;
        let (reply, received) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| StoreError::Stopping)?;
        received.await.map_err(|_| StoreError::Stopping)?
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &DamageLog) -> Result<T, StoreError> + Send + 'static,
    {
        let damage = self.damage.clone();
        let readers = Arc::clone(&self.readers);
        // The permit bounds the blocking threads as well as the connections.
        let permit = Arc::clone(&readers.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.with(|connection| query(connection, &damage))
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
        self.checkpointer = None;
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError> {
        self.submit(|reply| Job::Append(Append { batch: Box::new(batch), reply })).await
    }

    async fn functions(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FunctionKey>, StoreError> {
        let (tenant, name) = (tenant.clone(), name.map(str::to_owned));
        self.read(move |connection, damage| {
            read::functions(connection, &tenant, name.as_deref(), limit, damage)
        })
        .await
    }

    async fn series(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<Series>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        self.read(move |connection, damage| {
            read::series(connection, &tenant, function.as_ref(), window, damage)
        })
        .await
    }

    async fn rollups(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        window: Window,
    ) -> Result<Vec<StoredRollup>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.clone());
        self.read(move |connection, damage| read::rollups(connection, &tenant, &function, window, damage))
            .await
    }

    async fn environments(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Environments, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        self.read(move |connection, damage| {
            read::environments(connection, &tenant, function.as_ref(), window, damage)
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
        self.read(move |connection, damage| read::recent(connection, &tenant, &function, limit, damage)).await
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
        self.read(move |connection, damage| read::changes(connection, &tenant, function.as_ref(), damage))
            .await
    }

    async fn changed_functions(&self, limit: usize) -> Result<Vec<ChangedFunction>, StoreError> {
        self.read(move |connection, _| summaries::changed(connection, limit)).await
    }

    async fn put_summaries(&self, functions: Vec<(ChangedFunction, Vec<Summary>)>) -> Result<(), StoreError> {
        let put = summaries::Put { functions, now_us: self.clock.now_us() };
        self.submit(|reply| Job::PutSummaries(put, reply)).await
    }

    async fn summaries(&self, tenant: &Tenant, kind: &SummaryKind) -> Result<Vec<SummaryRow>, StoreError> {
        let (tenant, kind) = (tenant.clone(), kind.clone());
        self.read(move |connection, damage| summaries::rows(connection, &tenant, &kind, damage)).await
    }

    async fn summary_reports(
        &self,
        tenant: &Tenant,
        functions: &[FunctionKey],
        kind: &SummaryKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let (tenant, functions, kind) = (tenant.clone(), functions.to_vec(), kind.clone());
        self.read(move |connection, damage| {
            functions.iter().map(|key| summaries::report(connection, &tenant, key, &kind, damage)).collect()
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        if self.writer.as_ref().is_some_and(JoinHandle::is_finished) {
            return Err(StoreError::Engine("the writer has stopped: restart the collector".to_owned()));
        }
        let StoreError::Engine(_) = &self.read_only else { return Err(self.read_only.clone()) };
        let (opened, status) = (self.opened.clone(), self.status.clone());
        let health = Arc::clone(&self.health);
        let permit = Arc::clone(&health.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            opened.map_or(Ok(()), |opened| opened.check())?;
            status.map_or(Ok(()), |status| status.check())?;
            // Reads the first page, unlike a query without a table.
            health.with(|connection| {
                Ok(connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))?)
            })
        });
        check.await.map_err(|error| StoreError::Engine(format!("the check panicked: {error}")))?
    }

    fn damage(&self) -> Damage {
        self.damage.damage()
    }
}

fn read_only() -> StoreError {
    StoreError::Engine("the store is open for reading only".to_owned())
}

/// A path in a URI.
fn path_segments(path: &Path) -> String {
    const UNRESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encode(path.as_os_str().as_bytes(), UNRESERVED).to_string()
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StoreError::Engine(format!("cannot start the thread {name}: {error}")))
}

/// Asks the writer for steps of maintenance until the store is closed.
fn request_maintenance(jobs: &mpsc::WeakSender<Job>, is_behind: &AtomicBool) {
    loop {
        let pause = if is_behind.load(Ordering::Relaxed) { BUSY_PAUSE } else { IDLE_PAUSE };
        std::thread::sleep(pause);
        let Some(jobs) = jobs.upgrade() else { return };
        if jobs.blocking_send(Job::Maintain).is_err() {
            return;
        }
    }
}

/// Read connections. They are opened when first needed and kept open.
struct Readers {
    path: PathBuf,
    /// Whether nothing else opens the file, so that no log and no lock is necessary.
    immutable: bool,
    permits: Arc<Semaphore>,
    // A std mutex is enough: it is locked only to push or pop.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn new(path: PathBuf, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections));
        Self { path, immutable: false, permits, idle: Mutex::new(Vec::new()) }
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if self.immutable {
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

    fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full("the data folder".to_owned()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Engine(error.to_string()),
        }
    }
}
