//! Which maintenance is due: rounds of compaction and of retention over all functions, by the collector that has the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::compaction::{self, Owner};
use super::connection::{Begin, Pool};
use super::lease::Leases;
use super::retention::{self, Functions};
use crate::clock::Clock;
use crate::store::damage::DamageLog;
use crate::store::retention::Limits;
use crate::store::{HOUR_US, Lease, Retention, StoreError};

/// Time between the beginnings of two rounds of compaction, so that a visit merges many batches.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(10);

/// Time between the beginnings of two rounds of retention.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1_200);

/// Pause between two looks whether something is due.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// Pause of retention after a visit: it has time.
const VISIT_PAUSE: Duration = Duration::from_millis(2);

/// A clock that is so far ahead of the database's is logged, microseconds.
const MAX_AHEAD_US: u64 = HOUR_US;

/// What one round of compaction did.
#[derive(Debug, Default)]
struct Round {
    batches: u64,
    /// Whether a function has batches left.
    has_more: bool,
}

/// What maintenance works with.
#[derive(Clone)]
pub(super) struct Maintenance {
    pub(super) pool: Arc<Pool>,
    pub(super) leases: Leases,
    pub(super) clock: Clock,
    pub(super) retention: Retention,
    pub(super) damage: DamageLog,
    /// Whether it was logged that the clock is ahead.
    pub(super) is_clock_logged: Arc<AtomicBool>,
}

impl Maintenance {
    /// Runs rounds of compaction until it is aborted.
    pub(super) async fn compact_forever(self) {
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due && self.holds().await {
                due = Instant::now() + COMPACTION_INTERVAL;
                match self.compact(true).await {
                    Ok(Round { has_more: true, .. }) => due = Instant::now(),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "cannot compact the store; trying again later"),
                }
            }
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }

    /// Runs rounds of retention until it is aborted.
    pub(super) async fn retain_forever(self) {
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due && self.holds().await {
                due = Instant::now() + RETENTION_INTERVAL;
                if let Err(error) = self.retain(true).await {
                    tracing::warn!(%error, "cannot delete old measurements; trying again later");
                }
            }
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }

    async fn holds(&self) -> bool {
        // When the database cannot be reached, the writer logs it.
        self.leases.hold(&self.pool, Lease::Maintenance).await.unwrap_or(false)
    }

    /// Everything that is due now, whoever has the lease.
    pub(super) async fn run_all(&self) -> Result<(), StoreError> {
        self.retain(false).await?;
        while self.compact(false).await?.batches > 0 {}
        self.retain(false).await
    }

    /// One round of compaction. `needs_lease`: it ends early when the lease is lost.
    async fn compact(&self, needs_lease: bool) -> Result<Round, StoreError> {
        let (mut cursor, mut round): (Option<Owner>, Round) = (None, Round::default());
        while !needs_lease || self.holds().await {
            let now_us = self.clock.now_us();
            let step = self.pool.transaction(Begin::Write, |connection| {
                let (cursor, damage) = (cursor.clone(), self.damage.clone());
                async move { compaction::next_functions(&connection, cursor.as_ref(), now_us, &damage).await }
            });
            let Some(step) = step.await? else { break };
            round.batches += step.batches;
            round.has_more |= step.has_more;
            cursor = Some(step.last);
        }
        Ok(round)
    }

    /// One round of retention.
    async fn retain(&self, needs_lease: bool) -> Result<(), StoreError> {
        let mut cursor: Option<Owner> = None;
        loop {
            let functions = self.pool.transaction(Begin::Read, |connection| {
                let cursor = cursor.clone();
                async move { retention::next_functions(&connection, cursor.as_ref()).await }
            });
            let Functions { owners, database_us } = functions.await?;
            let Some(last) = owners.last().cloned() else { return Ok(()) };
            let limits = self.limits(database_us);
            for owner in owners {
                while self.visit(&owner, limits).await? {}
                if needs_lease {
                    if !self.holds().await {
                        return Ok(());
                    }
                    tokio::time::sleep(VISIT_PAUSE).await;
                }
            }
            cursor = Some(last);
        }
    }

    /// What is old by the earlier of the two clocks, so that one that is ahead deletes nothing. Such a clock is logged once.
    fn limits(&self, database_us: u64) -> Limits {
        let clock_us = self.clock.now_us();
        let ahead_us = clock_us.saturating_sub(database_us);
        if ahead_us > MAX_AHEAD_US && !self.is_clock_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the clock is {} hours ahead of that of the database: set the clock. Measurements are deleted by the \
                 database's clock meanwhile",
                ahead_us / HOUR_US
            );
        }
        self.retention.limits(clock_us.min(database_us), clock_us)
    }

    async fn visit(&self, owner: &Owner, limits: Limits) -> Result<bool, StoreError> {
        let visit = self.pool.transaction(Begin::Write, |connection| {
            let (owner, damage) = (owner.clone(), self.damage.clone());
            async move { retention::visit(&connection, &owner, limits, &damage).await }
        });
        visit.await
    }
}
