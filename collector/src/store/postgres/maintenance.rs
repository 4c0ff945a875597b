//! Which maintenance is due: rounds of compaction and of retention over all functions, by the collector that has the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compaction::{self, Owner};
use super::connection::{Begin, Pool};
use super::lease::Leases;
use super::retention;
use crate::clock::Clock;
use crate::store::damage::DamageLog;
use crate::store::sqlite::Retention;
use crate::store::{Lease, StoreError};

/// Time between the beginnings of two rounds of compaction, so that a visit merges many batches.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(10);

/// Time between the beginnings of two rounds of retention.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1_200);

/// Pause between two looks whether something is due.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// Pause of retention after a visit: it has time.
const VISIT_PAUSE: Duration = Duration::from_millis(2);

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
            let functions = functions.await?;
            let Some(last) = functions.last().cloned() else { return Ok(()) };
            for owner in functions {
                while self.visit(&owner).await? {}
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

    async fn visit(&self, owner: &Owner) -> Result<bool, StoreError> {
        let (retention, now_us) = (self.retention, self.clock.now_us());
        let visit = self.pool.transaction(Begin::Write, |connection| {
            let (owner, damage) = (owner.clone(), self.damage.clone());
            async move { retention::visit(&connection, &owner, retention, now_us, &damage).await }
        });
        visit.await
    }
}
