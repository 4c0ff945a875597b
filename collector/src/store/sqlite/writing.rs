//! The part of the store that writes: its connections and threads. After a start on a full disk it begins later.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::archive::Spool;
use super::checkpoint::{Checkpointer, DatabaseFile, LogLimits, LogState};
use super::connections::{BUSY_TIMEOUT, Readers};
use super::files::{self, FILE_NAME, OpenFiles};
use super::log_check::{self, LogFault};
use super::maintenance::Maintenance;
use super::phases::Phases;
use super::schema;
use super::status::{FREE_AGAIN_BYTES, WriteStatus, free_bytes};
use super::time_limit::{TimeLimit, newest_sent_us};
use super::write::{Job, Writer};
use crate::clock::Clock;
use crate::store::damage::DamageLog;
use crate::store::{Retention, StoreError};

/// Maximum number of requests that wait for the writer. The memory budget of the ingest limits their size.
const QUEUE: usize = 4_096;

/// Maximum number of read connections. Each has its own page cache.
const READERS: u32 = 4;

/// Time between two steps of maintenance while there is work.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Time between two steps of maintenance without work.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// Time between two attempts to open the store for writing after a start on a full disk.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// How a store is opened for writing.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    pub(super) clock: Clock,
    pub(super) retention: Retention,
    pub(super) limits: LogLimits,
    pub(super) database: DatabaseFile,
}

impl Settings {
    pub(super) fn new(folder: &Path, clock: Clock, retention: Retention) -> Self {
        let (limits, database) = (LogLimits::DEFAULT, DatabaseFile::default());
        Self { folder: folder.to_owned(), clock, retention, limits, database }
    }
}

/// Threads and connections that write. Dropping it waits until all accepted writes are on disk.
pub(super) struct Writing {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    opened: Arc<OpenFiles>,
    status: WriteStatus,
    checkpointer: Option<Checkpointer>,
}

impl Writing {
    /// Opens the database for writing, creating or upgrading it as needed. The caller holds the lock of the folder.
    pub(super) fn start(
        settings: &Settings,
        damage: &DamageLog,
        phases: &Phases,
    ) -> Result<Self, StoreError> {
        let folder = &settings.folder;
        files::check_not_emptied(folder)?;
        if let Some(fault @ (LogFault::Header | LogFault::Frame { later: 1.., .. })) =
            log_check::fault(folder)?
        {
            tracing::error!(
                "{fault}. After a power failure this is normal. If there was none, acknowledged batches are missing"
            );
        }
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
        schema::migrate(&mut connection, settings.clock.now_us())?;
        files::check_id(&connection, folder)?;
        files::restore(&connection, folder)?;
        // The file of the write-ahead log exists from the first read on.
        let _: i64 = connection.query_row("SELECT COUNT(*) FROM meta", [], |row| row.get(0))?;
        let checkpoints = Connection::open(&path)?;
        checkpoints.busy_timeout(BUSY_TIMEOUT)?;
        settings.database.open(&path)?;
        let (database, log) = (settings.database.clone(), Arc::new(LogState::default()));
        let checkpointer =
            Checkpointer::start(checkpoints, database, settings.limits, Arc::clone(&log), phases.clone())?;
        // The first step comes after the start: on a full disk, the start has what little space there is.
        let is_behind = Arc::new(AtomicBool::new(false));
        let status = WriteStatus::new(folder);
        let spool = Spool::load(&connection)?;
        let time_limit = TimeLimit::new(newest_sent_us(&connection), Instant::now());
        let writer = Writer {
            connection,
            files: OpenFiles::of(folder)?,
            status: status.clone(),
            damage: damage.clone(),
            maintenance: Maintenance::new(settings.clock.clone(), time_limit, settings.retention, spool),
            known: HashSet::new(),
            log,
            is_behind: Arc::clone(&is_behind),
            phases: phases.clone(),
        };
        let opened = Arc::new(OpenFiles::of(folder)?);
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let writer = thread("store-writer", move || writer.run(receiver))?;
        let weak = jobs.downgrade();
        // It ends by itself after the last sender is gone.
        thread("store-maintenance", move || request_maintenance(&weak, &is_behind))?;
        Ok(Self { jobs: Some(jobs), writer: Some(writer), opened, status, checkpointer: Some(checkpointer) })
    }
}

impl Drop for Writing {
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

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StoreError::Engine(format!("cannot start the thread {name}: {error}")))
}

/// Requests steps of maintenance from the writer, one after the other, until the store is closed.
fn request_maintenance(jobs: &mpsc::WeakSender<Job>, is_behind: &AtomicBool) {
    loop {
        let pause = if is_behind.load(Ordering::Relaxed) { BUSY_PAUSE } else { IDLE_PAUSE };
        std::thread::sleep(pause);
        let Some(jobs) = jobs.upgrade() else { return };
        let (done, is_done) = oneshot::channel();
        if jobs.blocking_send(Job::Maintain(done)).is_err() {
            return;
        }
        // The writer ends when there is no sender any more.
        drop(jobs);
        // With several steps in the queue, an acknowledgement would wait for all of them. An error means that the writer ended.
        let _ = is_done.blocking_recv();
    }
}

/// The state of an open store.
pub(super) struct Shared {
    pub(super) damage: DamageLog,
    pub(super) phases: Phases,
    pub(super) readers: Arc<Readers>,
    /// Or why writes are rejected.
    writing: RwLock<Result<Writing, StoreError>>,
    /// The last attempt to open it for writing.
    reopened: Mutex<Option<Instant>>,
    /// Released last: they have the database file.
    pub(super) settings: Settings,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        writing: Result<Writing, StoreError>,
        is_immutable: bool,
        damage: DamageLog,
        phases: Phases,
    ) -> Self {
        let path = settings.folder.join(FILE_NAME);
        let readers = Arc::new(Readers::new(path, READERS as usize, is_immutable));
        let writing = RwLock::new(writing);
        Self { damage, phases, readers, writing, reopened: Mutex::default(), settings }
    }

    /// The channel to the writer, or why writes are rejected.
    pub(super) fn jobs(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        let writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        writing.as_ref().map_err(Clone::clone)?.jobs.clone().ok_or(StoreError::Stopping)
    }

    /// Fails when the writer has stopped. Returns what else to check; nothing when it is open for reading only.
    pub(super) fn check(&self) -> Result<Option<(Arc<OpenFiles>, WriteStatus)>, StoreError> {
        let writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(writing) = writing.as_ref() else { return Ok(None) };
        if writing.writer.as_ref().is_some_and(JoinHandle::is_finished) {
            return Err(StoreError::Engine("the writer has stopped: restart the collector".to_owned()));
        }
        Ok(Some((Arc::clone(&writing.opened), writing.status.clone())))
    }
}

/// Opens a store for writing that was started on a full disk, when there is space again.
pub(super) async fn reopen(shared: &Arc<Shared>) -> Result<mpsc::Sender<Job>, StoreError> {
    // A task of its own, because it must end also when the request that began it is cancelled.
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let mut reopened = shared.reopened.lock().await;
        let rejection = match shared.jobs() {
            Err(rejection @ StoreError::Full(_)) => rejection,
            other => return other,
        };
        let is_early = reopened.is_some_and(|last| last.elapsed() < REOPEN_INTERVAL);
        if is_early || free_bytes(&shared.settings.folder)? < FREE_AGAIN_BYTES {
            return Err(rejection);
        }
        *reopened = Some(Instant::now());
        // Connections that expect no changes are closed first.
        let permits = shared.readers.permits.acquire_many(READERS).await;
        let _permits = permits.map_err(|_| StoreError::Stopping)?;
        let opening = Arc::clone(&shared);
        let writing = tokio::task::spawn_blocking(move || {
            opening.readers.renew(false);
            let writing = Writing::start(&opening.settings, &opening.damage, &opening.phases);
            if writing.is_err() {
                opening.readers.renew(files::is_log_empty(&opening.settings.folder));
            }
            writing
        });
        let writing =
            writing.await.map_err(|error| StoreError::Engine(format!("it panicked: {error}")))??;
        *shared.writing.write().unwrap_or_else(PoisonError::into_inner) = Ok(writing);
        tracing::info!("there is space again: batches are stored");
        shared.jobs()
    });
    task.await.map_err(|error| StoreError::Engine(format!("cannot open the store: {error}")))?
}
