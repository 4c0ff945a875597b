//! The embedded store: one SQLite file in a data folder, with one writer thread and several readers.
//!
//! The writer puts all waiting requests into one transaction, so that many requests share one `fsync`
//! (`synchronous = FULL` with a write-ahead log). Readers have their own connections and see the last commit.
//! A lock file prevents a second collector from writing to the folder; other processes may read it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::damage::DamageLog;
use super::{
    ChangeEvent, ChangedFunction, Damage, Environments, FunctionKey, NewBatch, Receipt, Recent, Schema,
    Series, Store, StoreError, StoredRollup, Summary, SummaryKind, SummaryRow, Tenant, Window,
};

pub(in crate::store) mod archive;
mod archive_store;
pub mod check;
mod checkpoint;
mod compaction;
mod connections;
mod damage;
pub(in crate::store) mod files;
pub(in crate::store) mod keys;
mod log_check;
mod maintenance;
mod phases;
mod read;
pub(in crate::store) mod recent;
mod retention;
pub(in crate::store) mod rows;
pub(in crate::store) mod schema;
mod status;
mod summaries;
mod time_limit;
mod upgrade;
mod write;
mod writing;

pub use super::Retention;
pub(in crate::store) use archive::migration_problem;
pub use checkpoint::LogLimits;
pub use files::{is_served, store_id};
pub use keys::FolderKeys;
pub use status::free_bytes;

use connections::Readers;
use files::FILE_NAME;
use phases::{Phase, Phases};
use write::{Append, Job, LogChange, Reply};
use writing::{Settings, Shared, Writing, reopen};

use crate::clock::Clock;
use crate::files::cause;

/// Functions whose summaries are stored in one transaction. Those of one function are on about 40 pages, and acknowledgements wait
/// for the transaction.
const SUMMARIES_AT_ONCE: usize = 2;

/// The embedded store. Dropping it waits until all accepted writes are on disk.
pub struct SqliteStore {
    /// The connection of the readiness check, which does not wait for the other readers.
    health: Arc<Readers>,
    shared: Arc<Shared>,
    // Released last.
    _lock: Option<File>,
}

/// Returns an error that says what to do when a folder has no store.
fn require_store(folder: &Path) -> Result<(), StoreError> {
    let exists = folder.join(FILE_NAME).try_exists().map_err(|error| {
        StoreError::Engine(format!("cannot read the folder {}: {}", folder.display(), cause(&error)))
    })?;
    if exists {
        return Ok(());
    }
    Err(StoreError::Engine(format!(
        "no store in {}: start `tailor serve --data` there, or name another",
        folder.display()
    )))
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
        Self::open_limited(folder, clock, retention, LogLimits::DEFAULT)
    }

    /// As [`Self::open_with`], with other limits of the write-ahead log.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_limited(
        folder: &Path,
        clock: Clock,
        retention: Retention,
        limits: LogLimits,
    ) -> Result<Self, StoreError> {
        let lock = files::lock(folder)?;
        let settings = Settings { limits, ..Settings::new(folder, clock, retention) };
        let (damage, phases) = (DamageLog::default(), Phases::default());
        let writing = Writing::start(&settings, &damage, &phases)?;
        Ok(Self::new(Shared::new(settings, Ok(writing), false, damage, phases), Some(lock)))
    }

    /// Opens the store in `folder` for reading, whether or not a collector runs on it.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when there is no store, [`StoreError::NewerSchema`] as for [`Self::open`].
    pub fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        require_store(folder)?;
        let read_only = StoreError::Engine("the store is open for reading only".to_owned());
        let settings = Settings::new(folder, Clock::system(), Retention::default());
        Self::open_read_only(settings, false, None, read_only)
    }

    /// Opens the store in `folder` for reading after [`Self::open_with`] failed because the disk is full. Writes are rejected
    /// with [`StoreError::Full`] until there is space again; then it opens for writing by itself. No other collector can
    /// write to the folder meanwhile.
    ///
    /// # Errors
    /// As [`Self::open_to_read`].
    pub fn open_on_full_disk(folder: &Path, clock: Clock, retention: Retention) -> Result<Self, StoreError> {
        let lock = files::lock(folder)?;
        let settings = Settings::new(folder, clock, retention);
        let full = StoreError::Full(folder.display().to_string());
        Self::open_read_only(settings, files::is_log_empty(folder), Some(lock), full)
    }

    fn open_read_only(
        settings: Settings,
        is_immutable: bool,
        lock: Option<File>,
        rejection: StoreError,
    ) -> Result<Self, StoreError> {
        let shared =
            Shared::new(settings, Err(rejection), is_immutable, DamageLog::default(), Phases::default());
        schema::check(&shared.readers.open()?)?;
        Ok(Self::new(shared, lock))
    }

    fn new(shared: Shared, lock: Option<File>) -> Self {
        let health = Readers::new(shared.settings.folder.join(FILE_NAME), 1, false);
        Self { shared: Arc::new(shared), health: Arc::new(health), _lock: lock }
    }

    /// Does all maintenance that is due. The writer also does it by itself, in short steps.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the store is open for reading only, or the engine fails.
    pub async fn maintain(&self) -> Result<(), StoreError> {
        self.submit(Job::MaintainAll).await
    }

    async fn submit<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let jobs = self.jobs().await?;
        let (reply, received) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_| StoreError::Stopping)?;
        received.await.map_err(|_| StoreError::Stopping)?
    }

    /// The channel to the writer. After a start on a full disk, it first tries to open the store for writing.
    async fn jobs(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        match self.shared.jobs() {
            Err(StoreError::Full(_)) => reopen(&self.shared).await,
            jobs => jobs,
        }
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &DamageLog) -> Result<T, StoreError> + Send + 'static,
    {
        let damage = self.shared.damage.clone();
        let readers = Arc::clone(&self.shared.readers);
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

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError> {
        let start = Instant::now();
        let receipt = self.submit(|reply| Job::Append(Append { batch: Box::new(batch), reply })).await;
        self.shared.phases.record(Phase::Append, start);
        receipt
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
        let now_us = self.shared.settings.clock.now_us();
        let mut functions = functions.into_iter();
        loop {
            let functions: Vec<_> = functions.by_ref().take(SUMMARIES_AT_ONCE).collect();
            if functions.is_empty() {
                return Ok(());
            }
            let put = summaries::Put { functions, now_us };
            self.submit(|reply| Job::PutSummaries(put, reply)).await?;
        }
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
        self.jobs().await.map(drop).or_else(|error| match error {
            // Open for reading only on purpose.
            StoreError::Engine(_) => Ok(()),
            error => Err(error),
        })?;
        let written = self.shared.check()?;
        let health = Arc::clone(&self.health);
        let permit = Arc::clone(&health.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            written.map_or(Ok(()), |(opened, status)| opened.check().and_then(|()| status.check()))?;
            // Reads the first page, unlike a query without a table.
            health.with(|connection| {
                Ok(connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))?)
            })
        });
        check.await.map_err(|error| StoreError::Engine(format!("the check panicked: {error}")))?
    }

    fn damage(&self) -> Damage {
        self.shared.damage.damage()
    }

    fn queued_writes(&self) -> usize {
        self.shared.jobs().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }

    async fn pending_batches(&self) -> Result<u64, StoreError> {
        let count = |connection: &Connection, _: &DamageLog| {
            let sql = "SELECT COUNT(*) FROM pending";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
        };
        self.read(count).await
    }

    fn schema(&self) -> Schema {
        Schema { store: "sqlite", version: schema::CURRENT }
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.shared.phases.register(registry);
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
