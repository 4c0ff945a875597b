//! Limits the memory of requests and responses.
//!
//! There is a budget for bodies while they arrive, one for batches that are being processed, and one for responses while
//! they are sent. A client that sends or reads slowly uses only the first or the last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Total memory of the bodies that are being received, KiB.
const RECEIVING_KIB: usize = 48 << 10;

/// Total memory of the batches that are being processed, KiB.
const PROCESSING_KIB: usize = 96 << 10;

/// Total memory of the responses that are being sent, KiB. A larger response takes all of it.
const SENDING_KIB: usize = 64 << 10;

/// Memory for one KiB of a batch while it is processed: decompressed, and decoded, which takes several times its
/// encoded size.
const KIB_PER_BATCH_KIB: usize = 6;

/// Maximum number of reports that are computed at the same time, because each needs memory and CPU.
const MAX_REPORTS: usize = 8;

/// How long a request waits for memory before it is rejected.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request waits to compute a report before it is rejected.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits the memory of requests and responses.
pub struct MemoryBudget {
    receiving: Arc<Semaphore>,
    processing: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    reports: Arc<Semaphore>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self {
            receiving: Arc::new(Semaphore::new(RECEIVING_KIB)),
            processing: Arc::new(Semaphore::new(PROCESSING_KIB)),
            sending: Arc::new(Semaphore::new(SENDING_KIB)),
            reports: Arc::new(Semaphore::new(MAX_REPORTS)),
        }
    }
}

impl MemoryBudget {
    /// Reserves memory for this many bytes of a body that is being received.
    ///
    /// # Errors
    /// 429 when no memory becomes free in time, 503 when the collector stops.
    pub(crate) async fn receive(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        acquire(&self.receiving, kib(bytes), BUDGET_TIMEOUT).await
    }

    /// Reserves memory for a batch of this size, decompressed, while it is processed.
    ///
    /// # Errors
    /// 429 when no memory becomes free in time, 503 when the collector stops.
    pub(crate) async fn process(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        acquire(&self.processing, processing_kib(bytes), BUDGET_TIMEOUT).await
    }

    /// Reserves memory for a response of this size while it is sent.
    ///
    /// # Errors
    /// 429 when no memory becomes free within `timeout`, 503 when the collector stops.
    pub(super) async fn send(
        &self,
        bytes: usize,
        timeout: Duration,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        acquire(&self.sending, kib(bytes).min(SENDING_KIB), timeout).await
    }

    /// Waits until fewer than the maximum number of reports are being computed.
    ///
    /// # Errors
    /// 429 when that takes too long, 503 when the collector stops.
    pub(super) async fn report(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        acquire(&self.reports, 1, REPORT_TIMEOUT).await
    }
}

impl MemoryBudget {
    /// Each budget with its memory in use and its size, bytes.
    pub(super) fn used_bytes(&self) -> [(&'static str, usize, usize); 3] {
        let budget = |name, semaphore: &Semaphore, size: usize| {
            (name, size.saturating_sub(semaphore.available_permits()) << 10, size << 10)
        };
        [
            budget("receiving", &self.receiving, RECEIVING_KIB),
            budget("processing", &self.processing, PROCESSING_KIB),
            budget("sending", &self.sending, SENDING_KIB),
        ]
    }

    /// Number of reports that are computed now.
    pub(super) fn running_reports(&self) -> usize {
        MAX_REPORTS.saturating_sub(self.reports.available_permits())
    }
}

async fn acquire(
    semaphore: &Arc<Semaphore>,
    permits: usize,
    timeout: Duration,
) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    tokio::time::timeout(timeout, Arc::clone(semaphore).acquire_many_owned(permits))
        .await
        .map_err(|_| ApiError::busy("the collector is overloaded: send again later"))?
        .map_err(|_| ApiError::unavailable("stopping", "the collector is stopping: send again"))
}

const fn kib(bytes: usize) -> usize {
    bytes / 1024 + 1
}

/// The memory that a batch of this size needs while it is processed, KiB.
pub(crate) const fn processing_kib(bytes: usize) -> usize {
    kib(bytes) * KIB_PER_BATCH_KIB
}
