//! Limits the memory of all batches that are being processed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Total memory of the batches that are being processed, KiB.
const MEMORY_BUDGET_KIB: usize = 128 << 10;

/// Memory for one KiB of a batch: the body as received, decompressed, and decoded, which takes several times
/// its encoded size.
const KIB_PER_BODY_KIB: usize = 6;

/// How long a request waits for memory before it is refused with 429.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits the memory of all batches that are being processed.
#[derive(Clone)]
pub struct MemoryBudget {
    available_kib: Arc<Semaphore>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self { available_kib: Arc::new(Semaphore::new(MEMORY_BUDGET_KIB)) }
    }
}

impl MemoryBudget {
    /// Reserves memory for a body of this size.
    ///
    /// # Errors
    /// 429 when no memory becomes free in time, 503 when the collector stops.
    pub(crate) async fn reserve(&self, body_bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let kib = u32::try_from(reserved_kib(body_bytes)).unwrap_or(u32::MAX);
        tokio::time::timeout(BUDGET_TIMEOUT, Arc::clone(&self.available_kib).acquire_many_owned(kib))
            .await
            .map_err(|_| ApiError::busy("the collector is overloaded: send again later"))?
            .map_err(|_| ApiError::unavailable("stopping", "the collector is stopping: send again"))
    }
}

/// The memory that a body of this size needs while it is processed, KiB.
pub(crate) const fn reserved_kib(body_bytes: usize) -> usize {
    (body_bytes / 1024 + 1) * KIB_PER_BODY_KIB
}
