//! Whether the store can be written: for the readiness check, and so that a failure is logged once and not with each batch.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::StoreError;

/// Free space below which the disk counts as full, bytes: about one small commit.
const MIN_FREE_BYTES: u64 = 256 << 10;

/// Free space from which a disk that was full is ready again without a successful write, bytes: one large commit.
pub(super) const FREE_AGAIN_BYTES: u64 = 8 << 20;

/// The results of the latest writes.
#[derive(Debug, Clone)]
pub(super) struct WriteStatus {
    folder: PathBuf,
    failure: Arc<Mutex<Option<Failure>>>,
}

#[derive(Debug)]
struct Failure {
    error: StoreError,
    requests: u64,
}

impl WriteStatus {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), failure: Arc::default() }
    }

    /// A write failed. Logs the first failure after a success, and another kind of failure.
    pub(super) fn failed(&self, error: &StoreError, requests: usize) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failure.as_ref().map_or(0, |failure| failure.requests);
        if failure.as_ref().is_none_or(|failure| failure.error != *error) {
            tracing::error!("{error}; further failures are counted, and logged when writing works again");
        }
        *failure = Some(Failure { error: error.clone(), requests: before.saturating_add(requests as u64) });
    }

    /// A write succeeded.
    pub(super) fn succeeded(&self) {
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let requests = failure.requests;
            tracing::info!("storing works again; {requests} requests were rejected meanwhile");
        }
    }

    /// Whether the latest write failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Fails when the next write will probably fail.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let free_bytes = free_bytes(&self.folder)?;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.as_ref().map(|failure| &failure.error) {
            Some(StoreError::Full(_)) if free_bytes >= FREE_AGAIN_BYTES => Ok(()),
            Some(error) => Err(error.clone()),
            None if free_bytes < MIN_FREE_BYTES => Err(StoreError::Full(self.folder.display().to_string())),
            None => Ok(()),
        }
    }
}

/// Free space of the file system of a folder, bytes.
///
/// # Errors
/// [`StoreError::Engine`] when the folder cannot be read.
pub fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let system = rustix::fs::statvfs(folder).map_err(|error| {
        StoreError::Engine(format!("cannot read the free space of {}: {error}", folder.display()))
    })?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn the_check_does_not_wait_for_readers() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let busy = store.shared.readers.permits.available_permits();
        let _busy = store.shared.readers.permits.acquire_many(u32::try_from(busy).unwrap()).await.unwrap();
        let checked = tokio::time::timeout(std::time::Duration::from_secs(10), store.check()).await;
        assert_eq!(checked.expect("it has its own connection"), Ok(()));
    }

    #[test]
    fn a_failed_write_makes_the_store_unready_until_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let status = WriteStatus::new(folder.path());
        assert_eq!(status.check(), Ok(()));
        let error = StoreError::Engine("disk I/O error".to_owned());
        status.failed(&error, 3);
        status.failed(&error, 2);
        assert_eq!(status.check(), Err(error));
        status.succeeded();
        assert_eq!(status.check(), Ok(()));
    }
}
