//! Stored summaries of functions.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::compaction::OF_FUNCTION;
use super::rows::{from_sql, function_key, to_ordered_sql};
use crate::store::damage::DamageLog;
use crate::store::summary::{ChangedFunction, Summary, SummaryKind, SummaryRow};
use crate::store::{FunctionKey, StoreError, Tenant};

/// All summaries of some functions, to store.
pub(super) struct Put {
    pub(super) functions: Vec<(ChangedFunction, Vec<Summary>)>,
    pub(super) now_us: u64,
}

/// The functions whose summaries are out of date, the one that waits for the longest time first.
pub(super) fn changed(connection: &Connection, limit: usize) -> Result<Vec<ChangedFunction>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT tenant, account, region, function, received_at_us FROM function
         WHERE changed_at_us > 0 ORDER BY changed_at_us LIMIT ?1",
    )?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(ChangedFunction {
            tenant: Tenant(row.get(0)?),
            function: function_key(row, 1)?,
            received_at_us: from_sql(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Replaces the summaries of functions.
pub(super) fn put(connection: &mut Connection, put: &Put) -> Result<(), StoreError> {
    // Summaries are computed again when they are lost.
    connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    let result = put_without_sync(connection, put);
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    result
}

fn put_without_sync(connection: &mut Connection, put: &Put) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (changed, summaries) in &put.functions {
        put_function(&transaction, changed, summaries, put.now_us)?;
    }
    transaction.commit()?;
    Ok(())
}

fn put_function(
    transaction: &Transaction<'_>,
    changed: &ChangedFunction,
    summaries: &[Summary],
    now_us: u64,
) -> Result<(), StoreError> {
    let (Tenant(tenant), FunctionKey { account, region, name }) = (&changed.tenant, &changed.function);
    let mut outdated: Vec<SummaryKind> = transaction
        .prepare_cached(&format!("SELECT hours, strategy FROM summary_report WHERE {OF_FUNCTION}"))?
        .query_map(params![tenant, account, region, name], |row| {
            Ok(SummaryKind { hours: from_sql(row.get(0)?), strategy: row.get(1)? })
        })?
        .collect::<Result<_, _>>()?;
    outdated.retain(|kind| summaries.iter().all(|summary| summary.kind != *kind));
    for SummaryKind { hours, strategy } in outdated {
        for table in ["summary", "summary_report"] {
            transaction
                .prepare_cached(&format!(
                    "DELETE FROM {table} WHERE {OF_FUNCTION} AND hours = ?5 AND strategy = ?6"
                ))?
                .execute(params![tenant, account, region, name, to_ordered_sql(hours), strategy])?;
        }
    }
    for Summary { kind, row, report } in summaries {
        let row = serde_json::to_string(row).map_err(super::rows::damaged)?;
        let hours = to_ordered_sql(kind.hours);
        transaction
            .prepare_cached(
                "INSERT INTO summary (tenant, account, region, function, hours, strategy, row)
                 VALUES (?1,?2,?3,?4,?5,?6,?7)
                 ON CONFLICT (tenant, hours, strategy, account, region, function) DO UPDATE SET row = excluded.row",
            )?
            .execute(params![tenant, account, region, name, hours, kind.strategy, row])?;
        transaction
            .prepare_cached(
                "INSERT INTO summary_report (tenant, account, region, function, hours, strategy, report)
                 VALUES (?1,?2,?3,?4,?5,?6,?7)
                 ON CONFLICT (tenant, account, region, function, hours, strategy)
                 DO UPDATE SET report = excluded.report",
            )?
            .execute(params![tenant, account, region, name, hours, kind.strategy, report])?;
    }
    // A function that changed since it was read waits at the end of the queue.
    transaction
        .prepare_cached(&format!(
            "UPDATE function SET summarized_at_us = ?6,
                changed_at_us = CASE WHEN received_at_us = ?5 THEN 0 ELSE ?6 END
             WHERE {OF_FUNCTION}"
        ))?
        .execute(params![
            tenant,
            account,
            region,
            name,
            to_ordered_sql(changed.received_at_us),
            to_ordered_sql(now_us)
        ])?;
    Ok(())
}

/// The rows of one kind. A row that cannot be read is left out and reported; it is computed again.
pub(super) fn rows(
    connection: &Connection,
    tenant: &Tenant,
    kind: &SummaryKind,
    damage: &DamageLog,
) -> Result<Vec<SummaryRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT row, account, region, function FROM summary WHERE tenant = ?1 AND hours = ?2 AND strategy = ?3",
    )?;
    let mut found = statement.query(params![tenant.0, to_ordered_sql(kind.hours), kind.strategy])?;
    let mut summaries = vec![];
    while let Some(row) = found.next()? {
        let text = row.get_ref(0)?.as_bytes().map_err(super::rows::damaged)?;
        match serde_json::from_slice::<SummaryRow>(text) {
            Ok(summary) => summaries.push(summary),
            Err(_) => {
                let FunctionKey { account, region, name } = function_key(row, 1)?;
                damage.report(format!("summary account={account} region={region} function={name}"));
            }
        }
    }
    Ok(summaries)
}

/// The report of one function; `None` when there is none.
pub(super) fn report(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    kind: &SummaryKind,
) -> Result<Option<Vec<u8>>, StoreError> {
    let report = connection
        .prepare_cached(&format!(
            "SELECT report FROM summary_report WHERE {OF_FUNCTION} AND hours = ?5 AND strategy = ?6"
        ))?
        .query_row(
            params![tenant.0, key.account, key.region, key.name, to_ordered_sql(kind.hours), kind.strategy],
            |row| row.get(0),
        )
        .optional()?;
    Ok(report)
}
