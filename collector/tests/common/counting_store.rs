//! A store that counts reads of the change log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{
    ChangeEvent, ChangedFunction, Damage, Environments, FunctionKey, KeyStore, NewBatch, Receipt, Recent,
    Schema, Series, Store, StoreError, StoredKey, StoredRollup, Summary, SummaryKind, SummaryRow, Tenant,
    Window,
};

/// A store that counts how often the change log is read.
pub(crate) struct CountingStore {
    store: Arc<SqliteStore>,
    log_reads: AtomicUsize,
}

impl CountingStore {
    pub(crate) fn new(store: Arc<SqliteStore>) -> Self {
        Self { store, log_reads: AtomicUsize::new(0) }
    }

    /// How often the change log was read.
    pub(crate) fn log_reads(&self) -> usize {
        self.log_reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl KeyStore for CountingStore {
    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.store.keys().await
    }
    async fn add_keys(&self, keys: Vec<StoredKey>) -> Result<(), StoreError> {
        self.store.add_keys(keys).await
    }
    async fn add_first_keys(&self, keys: Vec<StoredKey>) -> Result<bool, StoreError> {
        self.store.add_first_keys(keys).await
    }
    async fn remove_key(&self, digest: &str) -> Result<bool, StoreError> {
        self.store.remove_key(digest).await
    }
    async fn note_key_uses(&self, uses: Vec<(String, u64)>) -> Result<(), StoreError> {
        self.store.note_key_uses(uses).await
    }
}

#[async_trait]
impl Store for CountingStore {
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError> {
        self.store.append(batch).await
    }
    async fn functions(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FunctionKey>, StoreError> {
        self.store.functions(tenant, name, limit).await
    }
    async fn series(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<Series>, StoreError> {
        self.store.series(tenant, function, window).await
    }
    async fn rollups(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        window: Window,
    ) -> Result<Vec<StoredRollup>, StoreError> {
        self.store.rollups(tenant, function, window).await
    }
    async fn environments(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Environments, StoreError> {
        self.store.environments(tenant, function, window).await
    }
    async fn recent(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        limit: usize,
    ) -> Result<Vec<Recent>, StoreError> {
        self.store.recent(tenant, function, limit).await
    }
    async fn log_change(&self, tenant: &Tenant, event: &ChangeEvent) -> Result<(), StoreError> {
        self.store.log_change(tenant, event).await
    }
    async fn changes(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
    ) -> Result<Vec<ChangeEvent>, StoreError> {
        self.log_reads.fetch_add(1, Ordering::Relaxed);
        self.store.changes(tenant, function).await
    }
    async fn changed_functions(&self, limit: usize) -> Result<Vec<ChangedFunction>, StoreError> {
        self.store.changed_functions(limit).await
    }
    async fn put_summaries(&self, functions: Vec<(ChangedFunction, Vec<Summary>)>) -> Result<(), StoreError> {
        self.store.put_summaries(functions).await
    }
    async fn summaries(&self, tenant: &Tenant, kind: &SummaryKind) -> Result<Vec<SummaryRow>, StoreError> {
        self.store.summaries(tenant, kind).await
    }
    async fn summary_reports(
        &self,
        tenant: &Tenant,
        functions: &[FunctionKey],
        kind: &SummaryKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.summary_reports(tenant, functions, kind).await
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }
    fn damage(&self) -> Damage {
        self.store.damage()
    }

    fn queued_writes(&self) -> usize {
        self.store.queued_writes()
    }

    async fn pending_batches(&self) -> Result<u64, StoreError> {
        self.store.pending_batches().await
    }

    fn schema(&self) -> Schema {
        self.store.schema()
    }
}
