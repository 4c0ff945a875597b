//! The store in a database with PostgreSQL's protocol, for several collectors at once.
//!
//! The tables are those of the embedded store. One task writes: all waiting batches share one transaction. Reads,
//! maintenance and leases have their own connections. Everything runs on two threads of its own, so that the store
//! can be used from any runtime, and so that all accepted writes are finished when it is dropped.
//!
//! Only what Citus, Aurora, CockroachDB and YugabyteDB have, too, is used: no sequences, foreign keys, triggers,
//! savepoints or advisory locks. A transaction that conflicts with others runs again, as one on a lost connection.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::damage::DamageLog;
use super::{
    ChangeEvent, ChangedFunction, Damage, Environments, FunctionKey, Lease, NewBatch, Receipt, Recent,
    Retention, Schema, Series, Store, StoreError, StoredRollup, Summary, SummaryKind, SummaryRow, Tenant,
    Window,
};
use crate::clock::Clock;

mod archive;
mod archive_store;
mod check;
mod compaction;
mod connection;
mod database;
mod errors;
mod keys;
mod lease;
mod log;
mod maintenance;
mod migrate;
mod read;
mod requests;
mod retention;
mod rows;
mod schema;
mod status;
mod summaries;
mod tasks;
mod tls;
mod write;

pub use database::{Database, Secrets};
pub use migrate::{CopiedTable, FromFiles, LeftOut, Migration, NamedText, migrate};

use connection::{Begin, Connection, Pool};
use errors::Failure;
use lease::Leases;
use maintenance::Maintenance;
use status::WriteStatus;
use tasks::Tasks;
use write::{Append, Writer};

/// Maximum number of batches that wait for the writer. The memory budget of the ingest limits their size.
const QUEUE: usize = 4_096;

/// Maximum number of connections for reads.
const READERS: usize = 4;

/// Connections of the writer, the two tasks of maintenance and the change log; and of the leases and the readiness check.
const WRITERS: usize = 4;
const SMALL: usize = 2;

/// A store in a database. Dropping it waits until all accepted writes are committed.
pub struct PostgresStore {
    appends: Option<mpsc::Sender<Append>>,
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Handle,
    readers: Arc<Pool>,
    writers: Arc<Pool>,
    /// For what must not wait for others.
    small: Arc<Pool>,
    maintenance: Maintenance,
    status: WriteStatus,
    damage: DamageLog,
    clock: Clock,
}

impl PostgresStore {
    /// Opens the store in `database`, creating the tables as needed.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the database fails, [`StoreError::NewerSchema`] when a newer
    /// version of the program created the tables.
    pub fn open(database: &Database) -> Result<Self, StoreError> {
        Self::open_with(database, Clock::system(), Retention::default())
    }

    /// As [`Self::open`], with another clock and retention.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(database: &Database, clock: Clock, retention: Retention) -> Result<Self, StoreError> {
        Self::start(database, clock, retention, true)
    }

    /// Opens the store for reading. Collectors may be running with it.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StoreError::Engine`] when there is no store in the database.
    pub fn open_to_read(database: &Database) -> Result<Self, StoreError> {
        Self::start(database, Clock::system(), Retention::default(), false)
    }

    /// Whether there is a store in the database. Nothing is created.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn exists(database: &Database) -> Result<bool, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| StoreError::Engine(format!("cannot start a runtime: {error}")))?;
        runtime.block_on(schema::exists(&Pool::new(database.clone(), 1)))
    }

    fn start(
        database: &Database,
        clock: Clock,
        retention: Retention,
        writes: bool,
    ) -> Result<Self, StoreError> {
        let readers = Arc::new(Pool::new(database.clone(), READERS));
        let writers = Arc::new(Pool::new(database.clone(), WRITERS));
        let small = Arc::new(Pool::new(database.clone(), SMALL));
        let (damage, status) = (DamageLog::default(), WriteStatus::default());
        let maintenance = Maintenance {
            pool: Arc::clone(&writers),
            leases: Leases::new()?,
            clock: clock.clone(),
            retention,
            damage: damage.clone(),
            is_clock_logged: Arc::default(),
        };
        let (appends, received) = mpsc::channel(QUEUE);
        let (stop, stopped) = oneshot::channel();
        let (started, start) = std::sync::mpsc::channel();
        let tasks = Tasks {
            writer: Writer {
                pool: Arc::clone(&writers),
                status: status.clone(),
                damage: damage.clone(),
                known: HashSet::new(),
            },
            maintenance: maintenance.clone(),
            small: Arc::clone(&small),
            writes,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || tasks.run(received, stopped, &started))
            .map_err(|error| StoreError::Engine(format!("cannot start the thread of the store: {error}")))?;
        let runtime =
            start.recv().map_err(|_| StoreError::Engine("the store did not start".to_owned()))??;
        Ok(Self {
            appends: writes.then_some(appends),
            thread: Some(thread),
            stop: Some(stop),
            runtime,
            readers,
            writers,
            small,
            maintenance,
            status,
            damage,
            clock,
        })
    }

    /// The id of the store, and that of the embedded store that was migrated into it.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the database fails.
    pub async fn ids(&self) -> Result<(String, Option<String>), StoreError> {
        let pool = Arc::clone(&self.small);
        self.run(async move {
            let read = pool.once(|connection| async move { schema::ids(&connection).await });
            read.await.map_err(Failure::into_store_error)
        })
        .await
    }

    /// Does all maintenance that is due, whichever collector has its lease. The collector with the lease also does it by
    /// itself.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the database fails.
    pub async fn maintain(&self) -> Result<(), StoreError> {
        let maintenance = self.maintenance.clone();
        self.run(async move { maintenance.run_all().await }).await
    }

    /// Runs on the threads of the store. It is finished also when the caller goes away, so that a connection is always
    /// returned.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.runtime.spawn(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                Err(StoreError::Engine(format!("a request to the store panicked: {error}")))
            }
            Err(_) => Err(StoreError::Stopping),
        }
    }

    async fn read<T, F, Fut>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(Arc<Connection>, DamageLog) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        self.transaction(&self.readers, Begin::Read, query).await
    }

    async fn transaction<T, F, Fut>(&self, pool: &Arc<Pool>, begin: Begin, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(Arc<Connection>, DamageLog) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let (pool, damage) = (Arc::clone(pool), self.damage.clone());
        self.run(async move { pool.transaction(begin, |connection| work(connection, damage.clone())).await })
            .await
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Closing the channel makes the writer finish all queued batches and end.
        self.appends = None;
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already printed a panic.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError> {
        let Some(appends) = &self.appends else {
            return Err(StoreError::Engine("the store is open for reading only".to_owned()));
        };
        let (reply, received) = oneshot::channel();
        let append = Append { batch: Box::new(batch), reply };
        appends.send(append).await.map_err(|_| StoreError::Stopping)?;
        received.await.map_err(|_| StoreError::Stopping)?
    }

    async fn functions(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FunctionKey>, StoreError> {
        let (tenant, name) = (tenant.clone(), name.map(str::to_owned));
        self.read(move |connection, damage| {
            let (tenant, name) = (tenant.clone(), name.clone());
            async move { read::functions(&connection, &tenant, name.as_deref(), limit, &damage).await }
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
            let (tenant, function) = (tenant.clone(), function.clone());
            async move { read::series(&connection, &tenant, function.as_ref(), window, &damage).await }
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
        self.read(move |connection, damage| {
            let (tenant, function) = (tenant.clone(), function.clone());
            async move { read::rollups(&connection, &tenant, &function, window, &damage).await }
        })
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
            let (tenant, function) = (tenant.clone(), function.clone());
            async move { read::environments(&connection, &tenant, function.as_ref(), window, &damage).await }
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
        self.read(move |connection, damage| {
            let (tenant, function) = (tenant.clone(), function.clone());
            async move { read::recent(&connection, &tenant, &function, limit, &damage).await }
        })
        .await
    }

    async fn log_change(&self, tenant: &Tenant, event: &ChangeEvent) -> Result<(), StoreError> {
        if self.appends.is_none() {
            return Err(StoreError::Engine("the store is open for reading only".to_owned()));
        }
        let (pool, tenant, event) = (Arc::clone(&self.writers), tenant.clone(), event.clone());
        self.run(async move { log::insert(&pool, tenant, event).await }).await
    }

    async fn changes(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
    ) -> Result<Vec<ChangeEvent>, StoreError> {
        let (tenant, function) = (tenant.clone(), function.cloned());
        self.read(move |connection, damage| {
            let (tenant, function) = (tenant.clone(), function.clone());
            async move { read::changes(&connection, &tenant, function.as_ref(), &damage).await }
        })
        .await
    }

    async fn changed_functions(&self, limit: usize) -> Result<Vec<ChangedFunction>, StoreError> {
        self.read(move |connection, _| async move { summaries::changed(&connection, limit).await }).await
    }

    async fn put_summaries(&self, functions: Vec<(ChangedFunction, Vec<Summary>)>) -> Result<(), StoreError> {
        let (pool, now_us, functions) = (Arc::clone(&self.writers), self.clock.now_us(), Arc::new(functions));
        self.run(async move {
            pool.transaction(Begin::Write, |connection| {
                let functions = Arc::clone(&functions);
                async move { summaries::put(&connection, &functions, now_us).await }
            })
            .await
        })
        .await
    }

    async fn summaries(&self, tenant: &Tenant, kind: &SummaryKind) -> Result<Vec<SummaryRow>, StoreError> {
        let (tenant, kind) = (tenant.clone(), kind.clone());
        self.read(move |connection, damage| {
            let (tenant, kind) = (tenant.clone(), kind.clone());
            async move { summaries::rows(&connection, &tenant, &kind, &damage).await }
        })
        .await
    }

    async fn summary_reports(
        &self,
        tenant: &Tenant,
        functions: &[FunctionKey],
        kind: &SummaryKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let (tenant, functions, kind) = (tenant.clone(), Arc::new(functions.to_vec()), kind.clone());
        self.read(move |connection, damage| {
            let (tenant, functions, kind) = (tenant.clone(), Arc::clone(&functions), kind.clone());
            async move { summaries::reports(&connection, &tenant, &functions, &kind, &damage).await }
        })
        .await
    }

    async fn hold(&self, lease: Lease) -> Result<bool, StoreError> {
        let (leases, pool) = (self.maintenance.leases.clone(), Arc::clone(&self.small));
        self.run(async move { leases.hold(&pool, lease).await }).await
    }

    async fn put_request(&self, tenant: &Tenant, name: &str, text: &str) -> Result<(), StoreError> {
        let (pool, tenant) = (Arc::clone(&self.small), tenant.clone());
        let (name, text) = (name.to_owned(), text.to_owned());
        self.run(async move { requests::put(&pool, tenant, name, text).await }).await
    }

    async fn requests(&self, tenant: &Tenant) -> Result<Vec<(String, String)>, StoreError> {
        let (pool, tenant) = (Arc::clone(&self.small), tenant.clone());
        self.run(async move { requests::list(&pool, tenant).await }).await
    }

    async fn remove_request(&self, tenant: &Tenant, name: &str) -> Result<(), StoreError> {
        let (pool, tenant, name) = (Arc::clone(&self.small), tenant.clone(), name.to_owned());
        self.run(async move { requests::remove(&pool, tenant, name).await }).await
    }

    async fn put_text(&self, tenant: &Tenant, name: &str, text: &str) -> Result<(), StoreError> {
        let (pool, name, text) =
            (Arc::clone(&self.small), requests::text_name(tenant, name), text.to_owned());
        self.run(async move { requests::put_text(&pool, name, text).await }).await
    }

    async fn text(&self, tenant: &Tenant, name: &str) -> Result<Option<String>, StoreError> {
        let (pool, name) = (Arc::clone(&self.small), requests::text_name(tenant, name));
        self.run(async move { requests::text(&pool, name).await }).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.status.check()?;
        let pool = Arc::clone(&self.small);
        self.run(async move {
            let sql = "SELECT name FROM tailor_meta WHERE name = 'schema'";
            let check = pool.once(|connection| async move { connection.query(sql, &[]).await });
            let rows = check.await.map_err(Failure::into_store_error)?;
            if rows.is_empty() {
                return Err(StoreError::Engine("the tables of the store are empty".to_owned()));
            }
            Ok(())
        })
        .await
    }

    fn damage(&self) -> Damage {
        self.damage.damage()
    }

    fn queued_writes(&self) -> usize {
        self.appends.as_ref().map_or(0, |appends| appends.max_capacity() - appends.capacity())
    }

    async fn pending_batches(&self) -> Result<u64, StoreError> {
        self.read(|connection, _| async move {
            let rows = connection.query("SELECT COUNT(*) FROM tailor_pending", &[]).await?;
            Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
        })
        .await
    }

    fn schema(&self) -> Schema {
        Schema { store: "postgresql", version: schema::CURRENT }
    }
}
