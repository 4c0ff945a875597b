//! The operations of the archive on the database.

use std::sync::Arc;

use async_trait::async_trait;

use super::connection::{Begin, Connection};
use super::errors::Failure;
use super::{PostgresStore, archive};
use crate::store::archive::{
    ArchiveComparison, ArchiveRecord, ArchiveStore, Part, SealLimits, SealedFile, Upload,
};
use crate::store::damage::DamageLog;
use crate::store::{Lease, StoreError};

impl PostgresStore {
    /// Runs one transaction that changes the archive.
    async fn archive<T, F, Fut>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(Arc<Connection>, DamageLog) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        self.transaction(&self.writers, Begin::Write, work).await
    }
}

#[async_trait]
impl ArchiveStore for PostgresStore {
    async fn may_upload(&self) -> Result<bool, StoreError> {
        let (leases, pool) = (self.maintenance.leases.clone(), Arc::clone(&self.small));
        self.run(async move { leases.hold(&pool, Lease::Archive).await }).await
    }

    async fn set_archive(&self, max_spool_bytes: Option<u64>) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.archive(
            move |connection, _| async move { archive::set(&connection, max_spool_bytes, now_us).await },
        )
        .await
    }

    async fn seal(&self, limits: SealLimits) -> Result<Vec<SealedFile>, StoreError> {
        let now_us = self.clock.now_us();
        self.archive(move |connection, damage| async move {
            archive::seal(&connection, limits, now_us, &damage).await
        })
        .await?;
        self.read(|connection, damage| async move { archive::files_to_upload(&connection, &damage).await })
            .await
    }

    async fn parts(&self, file: &SealedFile, from: u64, max_bytes: u64) -> Result<Vec<Part>, StoreError> {
        let file = file.clone();
        self.read(move |connection, damage| {
            let file = file.clone();
            async move { archive::parts(&connection, &file, from, max_bytes, &damage).await }
        })
        .await
    }

    async fn record_upload(&self, file: &SealedFile, upload: Upload) -> Result<(), StoreError> {
        let file = file.clone();
        self.archive(move |connection, damage| {
            let (file, upload) = (file.clone(), upload.clone());
            async move { archive::record_upload(&connection, &file, upload, &damage).await }
        })
        .await
    }

    async fn remove_uploaded(&self) -> Result<bool, StoreError> {
        self.archive(|connection, damage| async move { archive::remove_uploaded(&connection, &damage).await })
            .await
    }

    async fn delete_old_records(&self, days: u64) -> Result<(), StoreError> {
        let clock_us = self.clock.now_us();
        self.archive(move |connection, _| async move {
            archive::delete_old_records(&connection, days, clock_us).await
        })
        .await
    }

    async fn archive_record(&self) -> Result<ArchiveRecord, StoreError> {
        self.read(|connection, damage| async move { archive::record(&connection, &damage).await }).await
    }

    async fn archive_comparison(&self) -> Result<ArchiveComparison, StoreError> {
        self.read(|connection, damage| async move { archive::comparison(&connection, &damage).await }).await
    }

    async fn compact(&self) -> Result<(), StoreError> {
        self.maintain().await
    }
}
