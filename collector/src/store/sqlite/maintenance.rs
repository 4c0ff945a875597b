//! Which maintenance is due, and one step of it.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::archive::Spool;
use super::compaction;
use super::retention;
use super::time_limit::TimeLimit;
use crate::clock::Clock;
use crate::store::damage::DamageLog;
use crate::store::{FunctionKey, NewBatch, Retention, StoreError, Tenant};

/// Time budget of one step. It can be exceeded by one visit of a function, which takes some milliseconds.
const STEP_BUDGET: Duration = Duration::from_millis(15);

/// Time between the beginnings of two rounds of compaction, so that a visit merges many batches.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(10);

/// Number of pending batches from which rounds follow each other without a pause.
const MANY_PENDING: u64 = 20_000;

/// Time between the beginnings of two rounds of retention.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1_200);

/// Free pages that are kept for the next writes.
const MIN_FREE_PAGES: i64 = 512;

/// Pages returned to the file system in one step.
const VACUUM_PAGES: u32 = 64;

type Cursor = Option<(Tenant, FunctionKey)>;

/// One round over all functions.
#[derive(Default)]
struct Round {
    started: Option<Instant>,
    is_finished: bool,
    cursor: Cursor,
}

impl Round {
    /// Whether there is work in this round, or a new one begins.
    fn is_due(&mut self, interval: Duration) -> bool {
        if self.started.is_none_or(|started| self.is_finished && started.elapsed() >= interval) {
            *self = Self { started: Some(Instant::now()), ..Self::default() };
        }
        !self.is_finished
    }
}

/// The state of maintenance. It is not stored: after a restart, the rounds begin again.
pub(super) struct Maintenance {
    clock: Clock,
    time_limit: TimeLimit,
    retention: Retention,
    compaction: Round,
    retention_round: Round,
    /// About how many batches are pending.
    pending: u64,
    /// The spool of the archive.
    pub(super) spool: Spool,
}

impl Maintenance {
    pub(super) fn new(clock: Clock, time_limit: TimeLimit, retention: Retention, spool: Spool) -> Self {
        let (compaction, retention_round) = (Round::default(), Round::default());
        Self { clock, time_limit, retention, compaction, retention_round, pending: 0, spool }
    }

    /// Takes note of a batch that was stored.
    pub(super) fn stored(&mut self, batch: &NewBatch) {
        self.pending += 1;
        self.time_limit.add(batch, Instant::now());
    }

    /// The time by which measurements are old, microseconds since the Unix epoch.
    pub(super) fn limited_now_us(&mut self) -> u64 {
        self.time_limit.apply(self.clock.now_us(), Instant::now())
    }

    /// Begins all rounds again.
    pub(super) fn restart(&mut self) {
        self.compaction = Round::default();
        self.retention_round = Round::default();
    }

    /// One step; returns whether more work is due now.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        damage: &DamageLog,
    ) -> Result<bool, StoreError> {
        // The next commit of requests makes it durable; see the module comment of `write`.
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let result = self.step_without_sync(connection, damage);
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        if result.is_err() {
            // What it added to the spool is undone.
            self.spool.reset_size();
        }
        result
    }

    fn step_without_sync(
        &mut self,
        connection: &mut Connection,
        damage: &DamageLog,
    ) -> Result<bool, StoreError> {
        let start = Instant::now();
        let interval = if self.pending > MANY_PENDING { Duration::ZERO } else { COMPACTION_INTERVAL };
        let compacts = self.compaction.is_due(interval);
        let retains = self.retention_round.is_due(RETENTION_INTERVAL);
        if compacts || retains {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if compacts {
                self.compact(&transaction, damage, start)?;
            }
            if retains {
                self.retain(&transaction, damage, Instant::now())?;
            }
            transaction.commit()?;
        }
        let vacuums = vacuum(connection)?;
        Ok(!self.compaction.is_finished || !self.retention_round.is_finished || vacuums)
    }

    fn compact(
        &mut self,
        connection: &Connection,
        damage: &DamageLog,
        start: Instant,
    ) -> Result<(), StoreError> {
        while start.elapsed() < STEP_BUDGET {
            let Some((tenant, key)) = compaction::next_function(connection, self.compaction.cursor.as_ref())?
            else {
                self.compaction.is_finished = true;
                break;
            };
            let (now_us, spool) = (self.clock.now_us(), &mut self.spool);
            let batches = compaction::compact_function(connection, &tenant, &key, now_us, spool, damage)?;
            self.pending = self.pending.saturating_sub(batches as u64);
            self.compaction.cursor = Some((tenant, key));
        }
        Ok(())
    }

    fn retain(
        &mut self,
        connection: &Connection,
        damage: &DamageLog,
        start: Instant,
    ) -> Result<(), StoreError> {
        /// Compaction has most of the time: it grows with the load.
        const BUDGET: Duration = Duration::from_millis(5);
        while start.elapsed() < BUDGET {
            let Some((tenant, key)) =
                retention::next_function(connection, self.retention_round.cursor.as_ref())?
            else {
                self.retention_round.is_finished = true;
                break;
            };
            let limits = self.retention.limits(self.limited_now_us(), self.clock.now_us());
            let has_more = retention::visit(connection, (&tenant, &key), limits, damage)?;
            if !has_more {
                self.retention_round.cursor = Some((tenant, key));
            }
        }
        Ok(())
    }
}

/// Returns free pages to the file system, except for some that the next writes use. Returns whether there are more.
fn vacuum(connection: &Connection) -> Result<bool, StoreError> {
    let pragma = |name: &str| -> Result<i64, StoreError> {
        Ok(connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
    };
    let (free, pages) = (pragma("freelist_count")?, pragma("page_count")?);
    if free <= MIN_FREE_PAGES.max(pages / 10) {
        return Ok(false);
    }
    // Each row of the result is one page.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    // Without incremental vacuum nothing is returned; see `schema::migrate`.
    Ok(pragma("freelist_count")? < free)
}
