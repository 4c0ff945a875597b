//! A limit on the memory of all batches on their way to the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Memory that batches on their way to the disk may take together.
const MEMORY_BUDGET_KIB: usize = 128 << 10;

/// What a batch takes while it is handled: read, decompressed, and decoded into rows a few times as wide
/// as its bytes.
const KIB_PER_BODY_KIB: usize = 6;

/// How long a request may wait for room before it is told to come again.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(2);

/// Bounds the memory of all batches on their way.
#[derive(Clone)]
pub struct MemoryBudget {
    room: Arc<Semaphore>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(MEMORY_BUDGET_KIB)) }
    }
}

impl MemoryBudget {
    /// Reserves memory for a body of this size.
    ///
    /// # Errors
    /// 429 when there is none in time, 503 when the collector stops.
    pub(crate) async fn reserve(&self, body_bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let room = u32::try_from(reserved_kib(body_bytes)).unwrap_or(u32::MAX);
        tokio::time::timeout(BUDGET_TIMEOUT, Arc::clone(&self.room).acquire_many_owned(room))
            .await
            .map_err(|_| ApiError::busy("the collector is handling as much as it can: send again later"))?
            .map_err(|_| ApiError::unavailable("stopping", "the collector is stopping: send again"))
    }
}

/// What a body of this size takes while it is handled.
pub(crate) const fn reserved_kib(body_bytes: usize) -> usize {
    (body_bytes / 1024 + 1) * KIB_PER_BODY_KIB
}
