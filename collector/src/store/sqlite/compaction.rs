//! Compaction: merges partial rollups, and deletes old single invocations and old batch rows.
//!
//! Each merge is one short transaction on the writer's connection. No other write can happen between its
//! read and its write, and after a crash the file has either the old rows or the new one.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::rows::{damaged, from_sql, insert_rollup, series_key, to_sql};
use crate::store::{FunctionKey, HOUR_US, SeriesKey, StoreError, Tenant};

/// Partial rollups of one series and hour that are not merged yet.
const MAX_PARTS: u32 = 8;

/// Minimum number of latest single invocations that are kept of each function.
const RECENT_INVOCATIONS: u64 = 2_000;

/// Merges in one compaction, to limit how long batches wait for the writer.
const MAX_MERGES_PER_RUN: usize = 256;

/// Pairs of series and hour that are counted at once. Above it, pairs with few partial rollups are dropped.
const MAX_TRACKED: usize = 65_536;

/// How long batch rows are kept; they detect repeated deliveries. Only environments on managed instances live
/// longer, and no environment sends a batch again after its acknowledgement.
pub(super) const BATCH_ROWS_KEPT_US: u64 = 30 * 24 * HOUR_US;

/// Numbers of partial rollups and of single invocations that wait for compaction.
///
/// The writer counts them as it writes, so that compaction does not scan merged tables.
#[derive(Default)]
pub(super) struct CompactionBacklog {
    parts: BTreeMap<(Tenant, SeriesKey, u64), u32>,
    recent: BTreeMap<(Tenant, FunctionKey), u64>,
}

impl CompactionBacklog {
    /// The backlog that is in the file.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut backlog = Self::default();
        let mut statement = connection.prepare(
            "SELECT tenant, account, region, function, version, memory_mb, architecture, hour, COUNT(*)
             FROM rollup
             GROUP BY tenant, account, region, function, hour, version, memory_mb, architecture
             HAVING COUNT(*) > 1",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = (Tenant(row.get(0)?), series_key(row, 1)?, from_sql(row.get(7)?));
            backlog.parts.insert(key, row.get(8)?);
        }
        let mut statement = connection.prepare(
            "SELECT tenant, account, region, function, SUM(invocations)
             FROM recent GROUP BY tenant, account, region, function",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = FunctionKey { account: row.get(1)?, region: row.get(2)?, name: row.get(3)? };
            backlog.recent.insert((Tenant(row.get(0)?), key), from_sql(row.get(4)?));
        }
        Ok(backlog)
    }

    /// Counts one more partial rollup of a series and hour.
    pub(super) fn count_part(&mut self, tenant: &Tenant, key: &SeriesKey, hour: u64) {
        *self.parts.entry((tenant.clone(), key.clone(), hour)).or_default() += 1;
    }

    /// Counts more single invocations of a function.
    pub(super) fn count_recent(&mut self, tenant: &Tenant, function: FunctionKey, invocations: u64) {
        *self.recent.entry((tenant.clone(), function)).or_default() += invocations;
    }

    /// Compacts every series, hour and function above its limit. What fails stays in the backlog.
    pub(super) fn compact(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let above_limit = self.parts.iter().filter(|&(_, &parts)| parts > MAX_PARTS);
        let due: Vec<_> = above_limit.map(|(key, _)| key.clone()).take(MAX_MERGES_PER_RUN).collect();
        for due_key in due {
            let (tenant, key, hour) = &due_key;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            merge_parts(&transaction, tenant, key, *hour)?;
            transaction.commit()?;
            self.parts.insert(due_key, 1);
        }
        let above_limit =
            self.recent.iter().filter(|&(_, &invocations)| invocations > 2 * RECENT_INVOCATIONS);
        let due: Vec<_> = above_limit.map(|(key, _)| key.clone()).take(MAX_MERGES_PER_RUN).collect();
        for due_key in due {
            let kept = trim_recent(connection, &due_key.0, &due_key.1)?;
            self.recent.insert(due_key, kept);
        }
        // Hours in the past with few partial rollups need no compaction.
        if self.parts.len() > MAX_TRACKED {
            self.parts.retain(|_, parts| *parts > MAX_PARTS);
        }
        Ok(())
    }
}

/// Deletes the batch rows that are older than [`BATCH_ROWS_KEPT_US`].
pub(super) fn delete_old_batches(connection: &Connection, now_us: u64) -> Result<(), StoreError> {
    let oldest_kept = to_sql(now_us.saturating_sub(BATCH_ROWS_KEPT_US));
    connection.execute("DELETE FROM batch WHERE received_at_us < ?1", params![oldest_kept])?;
    Ok(())
}

fn merge_parts(
    transaction: &Transaction<'_>,
    tenant: &Tenant,
    key: &SeriesKey,
    hour: u64,
) -> Result<(), StoreError> {
    const SAME: &str = "tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4 AND hour = ?5
         AND version = ?6 AND memory_mb = ?7 AND architecture = ?8";
    let FunctionKey { account, region, name } = &key.function;
    let same = params![
        tenant.0,
        account,
        region,
        name,
        to_sql(hour),
        key.version,
        key.memory.0,
        key.architecture.as_str()
    ];
    let mut merged = Rollup::default();
    {
        let mut statement = transaction.prepare_cached(&format!("SELECT body FROM rollup WHERE {SAME}"))?;
        let mut rows = statement.query(same)?;
        while let Some(row) = rows.next()? {
            let part = rollup::decode(row.get_ref(0)?.as_blob().map_err(damaged)?).map_err(damaged)?;
            merged.merge(&part);
        }
    }
    transaction.prepare_cached(&format!("DELETE FROM rollup WHERE {SAME}"))?.execute(same)?;
    insert_rollup(transaction, tenant, key, hour, &merged)
}

/// Keeps the newest batches of a function that hold [`RECENT_INVOCATIONS`]; returns the number of invocations kept.
fn trim_recent(connection: &Connection, tenant: &Tenant, function: &FunctionKey) -> Result<u64, StoreError> {
    let FunctionKey { account, region, name } = function;
    let mut kept = 0;
    let mut oldest_kept: (i64, Vec<u8>, i64) = (0, Vec::new(), 0);
    {
        let mut statement = connection.prepare_cached(
            "SELECT last_at_us, environment, sequence, invocations FROM recent
             WHERE tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4
             ORDER BY last_at_us DESC, environment DESC, sequence DESC",
        )?;
        let mut rows = statement.query(params![tenant.0, account, region, name])?;
        while let Some(row) = rows.next()? {
            oldest_kept = (row.get(0)?, row.get(1)?, row.get(2)?);
            kept += from_sql(row.get(3)?);
            if kept >= RECENT_INVOCATIONS {
                break;
            }
        }
    }
    let (last_at_us, environment, sequence) = oldest_kept;
    connection
        .prepare_cached(
            "DELETE FROM recent
             WHERE tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4
               AND (last_at_us, environment, sequence) < (?5, ?6, ?7)",
        )?
        .execute(params![tenant.0, account, region, name, last_at_us, environment, sequence])?;
    Ok(kept)
}
