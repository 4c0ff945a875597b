//! Whether the database can be written: for the readiness check, and so that a failure is logged once and not with each
//! batch.

use std::sync::{Arc, Mutex, PoisonError};

use crate::store::StoreError;

/// The results of the latest writes.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteStatus(Arc<Mutex<Option<(StoreError, u64)>>>);

impl WriteStatus {
    /// A write failed. Logs the first failure after a success, and another kind of failure.
    pub(super) fn failed(&self, error: &StoreError, batches: usize) {
        let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failure.as_ref().map_or(0, |(_, batches)| *batches);
        if failure.as_ref().is_none_or(|(known, _)| known != error) {
            tracing::error!("{error}; further failures are counted, and logged when writing works again");
        }
        *failure = Some((error.clone(), before.saturating_add(batches as u64)));
    }

    /// A write succeeded.
    pub(super) fn succeeded(&self) {
        if let Some((_, batches)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::info!("storing works again; {batches} batches were rejected meanwhile");
        }
    }

    /// Why the latest write failed, if it did because the disk is full. Other failures are found by a new attempt.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((error @ StoreError::Full(_), _)) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
