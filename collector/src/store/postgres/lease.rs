//! Leases: which of several collectors does what only one should do at a time.
//!
//! A lease is a row with its holder and its expiry by the database's clock. It is taken and renewed by one conditional
//! update. A holder counts the time from before it sent the update, by its own monotonic clock, and for less than the
//! lease lasts: it has stopped before another collector begins, also when their clocks differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::{Connection, Pool};
use super::errors::Failure;
use crate::random;
use crate::store::{Lease, StoreError};

/// How long a lease lasts after it was taken or renewed.
const DURATION: Duration = Duration::from_secs(15);

/// How long its holder uses it after that.
const USABLE: Duration = Duration::from_secs(10);

/// Time between two renewals, and between two attempts to take a lease that another holds. Together with [`DURATION`] this
/// is how long work waits after a holder was killed.
pub(super) const RENEWAL: Duration = Duration::from_secs(3);

/// The leases that this collector has requested, held or not.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    /// Unique for each start of a collector.
    holder: String,
    /// When each requested lease was last taken or renewed.
    requested: Arc<Mutex<HashMap<Lease, Option<Instant>>>>,
}

impl Leases {
    pub(super) fn new() -> Result<Self, StoreError> {
        Ok(Self { holder: random::hex::<16>()?, requested: Arc::default() })
    }

    /// Whether this collector holds a lease now. When it does not, it tries to take it, now and from now on.
    pub(super) async fn hold(&self, pool: &Pool, lease: Lease) -> Result<bool, StoreError> {
        if self.is_held(lease) {
            return Ok(true);
        }
        self.renew(pool, lease).await.map_err(Failure::into_store_error)?;
        Ok(self.is_held(lease))
    }

    fn is_held(&self, lease: Lease) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        requested.get(&lease).copied().flatten().is_some_and(|taken| taken.elapsed() < USABLE)
    }

    /// Renews all requested leases.
    pub(super) async fn renew_all(&self, pool: &Pool) {
        let requested: Vec<Lease> =
            self.requested.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for lease in requested {
            if let Err(error) = self.renew(pool, lease).await {
                tracing::debug!(%error, lease = lease.name(), "cannot renew a lease");
            }
        }
    }

    async fn renew(&self, pool: &Pool, lease: Lease) -> Result<(), Failure> {
        let (start, holder) = (Instant::now(), self.holder.clone());
        let is_taken = pool.once(|connection| async move { take(&connection, lease, &holder).await }).await;
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let known = requested.entry(lease).or_default();
        match is_taken {
            Ok(true) => *known = Some(start),
            Ok(false) => *known = None,
            // Without a response, the last one is valid.
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Releases what is held, so that others do not have to wait.
    pub(super) async fn release_all(&self, pool: &Pool) {
        let holder = self.holder.clone();
        let released = pool.once(|connection| async move {
            connection
                .execute("UPDATE tailor_lease SET expires_at = now() WHERE holder = $1", &[&holder])
                .await
        });
        if let Err(error) = released.await {
            tracing::debug!(%error, "cannot release the leases");
        }
    }
}

/// Takes or renews a lease, unless another collector holds it.
async fn take(connection: &Connection, lease: Lease, holder: &str) -> Result<bool, Failure> {
    let (name, duration_ms) = (lease.name(), i64::try_from(DURATION.as_millis()).unwrap_or(i64::MAX));
    let sql =
        "UPDATE tailor_lease SET holder = $2, expires_at = now() + $3::bigint * INTERVAL '1 millisecond'
               WHERE name = $1 AND (holder = $2 OR expires_at <= now())";
    if connection.execute(sql, &[&name, &holder, &duration_ms]).await? == 1 {
        return Ok(true);
    }
    let sql = "INSERT INTO tailor_lease (name, holder, expires_at)
               VALUES ($1, $2, now() + $3::bigint * INTERVAL '1 millisecond') ON CONFLICT DO NOTHING";
    Ok(connection.execute(sql, &[&name, &holder, &duration_ms]).await? == 1)
}
