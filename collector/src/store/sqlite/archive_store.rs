//! The operations of the archive on the embedded store.

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::SqliteStore;
use super::archive;
use super::write::{Job, Writer};
use crate::clock::DAY_US;
use crate::store::StoreError;
use crate::store::archive::{
    ArchiveComparison, ArchiveRecord, ArchiveStore, Part, SealLimits, SealedFile, Upload,
};
use crate::store::damage::DamageLog;

/// Whether a transaction must be on disk before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    /// With the next commit. A power failure may undo it until then.
    Later,
}

impl SqliteStore {
    /// Runs one transaction on the writer.
    async fn archive<T: Send + 'static>(
        &self,
        sync: Sync,
        work: impl FnOnce(&Connection, &mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let jobs = self.jobs().await?;
        let (reply, received) = oneshot::channel();
        let job = move |writer: &mut Writer| {
            // The requester may have gone away.
            let _ = reply.send(run(writer, sync, work));
        };
        jobs.send(Job::Archive(Box::new(job))).await.map_err(|_| StoreError::Stopping)?;
        received.await.map_err(|_| StoreError::Stopping)?
    }
}

/// What a transaction of the archive needs besides the connection.
struct Writing<'a> {
    spool: &'a mut archive::Spool,
    damage: &'a DamageLog,
    /// The time by which records are old, microseconds since the Unix epoch.
    limited_now_us: u64,
}

fn run<T>(
    writer: &mut Writer,
    sync: Sync,
    work: impl FnOnce(&Connection, &mut Writing<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let Writer { connection, maintenance, damage, .. } = writer;
    if sync == Sync::Later {
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    }
    let limited_now_us = maintenance.limited_now_us();
    let result = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writing = Writing { spool: &mut maintenance.spool, damage, limited_now_us };
        let result = work(&transaction, &mut writing)?;
        transaction.commit()?;
        Ok(result)
    })();
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    maintenance.spool.reset_size();
    // A commit to a deleted file is lost when the process ends.
    writer.files.check()?;
    result
}

#[async_trait]
impl ArchiveStore for SqliteStore {
    async fn set_archive(&self, max_spool_bytes: Option<u64>) -> Result<(), StoreError> {
        let now_us = self.shared.settings.clock.now_us();
        self.archive(Sync::Now, move |connection, writing| {
            writing.spool.set(connection, max_spool_bytes, now_us)
        })
        .await
    }

    async fn seal(&self, limits: SealLimits) -> Result<Vec<SealedFile>, StoreError> {
        let now_us = self.shared.settings.clock.now_us();
        self.archive(Sync::Now, move |connection, writing| {
            archive::seal(connection, limits, now_us, writing.damage)
        })
        .await?;
        self.read(archive::files_to_upload).await
    }

    async fn parts(&self, file: &SealedFile, from: u64, max_bytes: u64) -> Result<Vec<Part>, StoreError> {
        let file = file.clone();
        self.read(move |connection, damage| archive::parts(connection, &file, from, max_bytes, damage)).await
    }

    async fn record_upload(&self, file: &SealedFile, upload: Upload) -> Result<(), StoreError> {
        let file = file.clone();
        self.archive(Sync::Now, move |connection, writing| {
            archive::record_upload(connection, &file, upload, writing.damage)
        })
        .await
    }

    async fn remove_uploaded(&self) -> Result<bool, StoreError> {
        self.archive(Sync::Later, |connection, writing| archive::remove_uploaded(connection, writing.damage))
            .await
    }

    async fn delete_old_records(&self, days: u64) -> Result<(), StoreError> {
        self.archive(Sync::Later, move |connection, writing| {
            let day = (writing.limited_now_us / DAY_US).saturating_sub(days);
            archive::delete_record_before(connection, day)
        })
        .await
    }

    async fn archive_record(&self) -> Result<ArchiveRecord, StoreError> {
        self.read(archive::archive_record).await
    }

    async fn archive_comparison(&self) -> Result<ArchiveComparison, StoreError> {
        self.read(archive::comparison).await
    }

    async fn compact(&self) -> Result<(), StoreError> {
        self.maintain().await
    }
}
