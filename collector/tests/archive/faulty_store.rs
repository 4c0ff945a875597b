//! A store in which one step of an upload goes wrong, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tailor_collector::clock::now_us;
use tailor_collector::store::StoreError;
use tailor_collector::store::archive::{
    ArchiveComparison, ArchiveRecord, ArchiveStore, Part, SealLimits, SealedFile, Upload,
};

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The record of an upload fails, as in a crash after the upload.
    LoseRecord,
    /// The reader pauses after the first part of a file, while another collector uploads the file and removes its parts.
    Overtake,
}

pub(crate) struct FaultyStore {
    store: Arc<dyn ArchiveStore>,
    fault: Fault,
    is_due: AtomicBool,
}

impl FaultyStore {
    pub(crate) fn new(store: Arc<dyn ArchiveStore>, fault: Fault) -> Self {
        Self { store, fault, is_due: AtomicBool::new(true) }
    }

    /// Whether `fault` happens now.
    fn happens(&self, fault: Fault) -> bool {
        self.fault == fault && self.is_due.swap(false, Ordering::Relaxed)
    }

    async fn overtake(&self, file: &SealedFile) -> Result<(), StoreError> {
        let upload = Upload {
            at_us: now_us(),
            object: "s3://other/object".to_owned(),
            bytes: 1,
            sha256: String::new(),
            totals: file.totals,
        };
        self.store.record_upload(file, upload).await?;
        while self.store.remove_uploaded().await? {}
        Ok(())
    }
}

#[async_trait]
impl ArchiveStore for FaultyStore {
    async fn set_archive(&self, max_spool_bytes: Option<u64>) -> Result<(), StoreError> {
        self.store.set_archive(max_spool_bytes).await
    }
    async fn seal(&self, limits: SealLimits) -> Result<Vec<SealedFile>, StoreError> {
        self.store.seal(limits).await
    }
    async fn parts(&self, file: &SealedFile, from: u64, max_bytes: u64) -> Result<Vec<Part>, StoreError> {
        let max_bytes = if self.fault == Fault::Overtake { 1 } else { max_bytes };
        let parts = self.store.parts(file, from, max_bytes).await?;
        if self.happens(Fault::Overtake) {
            self.overtake(file).await?;
        }
        Ok(parts)
    }
    async fn record_upload(&self, file: &SealedFile, upload: Upload) -> Result<(), StoreError> {
        if self.happens(Fault::LoseRecord) {
            return Err(StoreError::Stopping);
        }
        self.store.record_upload(file, upload).await
    }
    async fn remove_uploaded(&self) -> Result<bool, StoreError> {
        self.store.remove_uploaded().await
    }
    async fn delete_old_records(&self, days: u64) -> Result<(), StoreError> {
        self.store.delete_old_records(days).await
    }
    async fn archive_record(&self) -> Result<ArchiveRecord, StoreError> {
        self.store.archive_record().await
    }
    async fn archive_comparison(&self) -> Result<ArchiveComparison, StoreError> {
        self.store.archive_comparison().await
    }
    async fn compact(&self) -> Result<(), StoreError> {
        self.store.compact().await
    }
}
