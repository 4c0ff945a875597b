//! Tidying up: partial rollups merged, old single invocations and old batch rows dropped.
//!
//! Each piece of work is one short transaction on the writer's own connection, so nothing can come between
//! what it reads and what it replaces, and a crash leaves either the old rows or the new one.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::rows::{damaged, from_sql, insert_rollup, series_key, to_sql};
use crate::store::{FunctionKey, HOUR_US, SeriesKey, StoreError, Tenant};

/// Partial rollups of one series and hour that are left alone.
const FEW_PARTS: u32 = 8;

/// Single invocations kept of each function, at least.
const RECENT_INVOCATIONS: u64 = 2_000;

/// CompactionBacklog cleared in one go, so that the writer is never away for long.
const MAX_SERIES_PER_PASS: usize = 256;

/// Series and hours watched at once; beyond it, those that have not piled up are let go.
const MAX_WATCHED: usize = 65_536;

/// Batch rows are what recognises a repeated delivery. No environment lives this long, managed instances
/// excepted, and none repeats a batch it has been told is stored.
pub(super) const BATCH_ROWS_KEPT_US: u64 = 30 * 24 * HOUR_US;

/// Partial rollups and single invocations that piled up, as the writer saw them.
///
/// Counting them while they are written is what spares the store a scan of everything it holds.
#[derive(Default)]
pub(super) struct CompactionBacklog {
    parts: BTreeMap<(Tenant, SeriesKey, u64), u32>,
    recent: BTreeMap<(Tenant, FunctionKey), u64>,
}

impl CompactionBacklog {
    /// What an earlier run left behind.
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

    /// One more partial rollup of a series and hour.
    pub(super) fn part(&mut self, tenant: &Tenant, key: &SeriesKey, hour: u64) {
        *self.parts.entry((tenant.clone(), key.clone(), hour)).or_default() += 1;
    }

    /// More single invocations of a function.
    pub(super) fn recent(&mut self, tenant: &Tenant, function: FunctionKey, invocations: u64) {
        *self.recent.entry((tenant.clone(), function)).or_default() += invocations;
    }

    /// Clears the highest backlog; what fails stays for the next time.
    pub(super) fn tidy(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let high = self.parts.iter().filter(|&(_, &parts)| parts > FEW_PARTS);
        let crowded: Vec<_> = high.map(|(key, _)| key.clone()).take(MAX_SERIES_PER_PASS).collect();
        for place in crowded {
            let (tenant, key, hour) = &place;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            merge_parts(&transaction, tenant, key, *hour)?;
            transaction.commit()?;
            self.parts.insert(place, 1);
        }
        let high = self.recent.iter().filter(|&(_, &invocations)| invocations > 2 * RECENT_INVOCATIONS);
        let crowded: Vec<_> = high.map(|(key, _)| key.clone()).take(MAX_SERIES_PER_PASS).collect();
        for place in crowded {
            let kept = trim_recent(connection, &place.0, &place.1)?;
            self.recent.insert(place, kept);
        }
        // Single parts of hours gone by need no watching.
        if self.parts.len() > MAX_WATCHED {
            self.parts.retain(|_, parts| *parts > FEW_PARTS);
        }
        Ok(())
    }
}

/// Drops batch rows too old to be repeated.
pub(super) fn forget_batches(connection: &Connection, now_us: u64) -> Result<(), StoreError> {
    let horizon = to_sql(now_us.saturating_sub(BATCH_ROWS_KEPT_US));
    connection.execute("DELETE FROM batch WHERE received_at_us < ?1", params![horizon])?;
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
    let mut whole = Rollup::default();
    {
        let mut statement = transaction.prepare_cached(&format!("SELECT body FROM rollup WHERE {SAME}"))?;
        let mut rows = statement.query(same)?;
        while let Some(row) = rows.next()? {
            let part = rollup::decode(row.get_ref(0)?.as_blob().map_err(damaged)?).map_err(damaged)?;
            whole.merge(&part);
        }
    }
    transaction.prepare_cached(&format!("DELETE FROM rollup WHERE {SAME}"))?.execute(same)?;
    insert_rollup(transaction, tenant, key, hour, &whole)
}

/// Keeps the newest batches of a function that hold enough invocations; returns how many they hold.
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
