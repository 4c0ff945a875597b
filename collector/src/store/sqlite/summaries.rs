//! Stored summaries of functions.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::compaction::OF_FUNCTION;
use super::rows::{SUMMARY, SUMMARY_REPORT, owner};
use crate::store::damage::DamageLog;
use crate::store::rows::{Field, column, damaged, from_sql, function_fields, to_ordered_sql};
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
        let (tenant, function) = owner(row)?;
        Ok(ChangedFunction { tenant, function, received_at_us: from_sql(row.get("received_at_us")?) })
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
            Ok(SummaryKind { hours: from_sql(row.get("hours")?), strategy: row.get("strategy")? })
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
        let row = serde_json::to_string(row).map_err(damaged)?;
        let hours = Field::Integer(to_ordered_sql(kind.hours));
        let strategy = Field::Text(&kind.strategy);
        let [tenant, account, region, function] = function_fields(&changed.tenant, &changed.function);
        let fields = [tenant, hours, strategy, account, region, function, Field::Text(&row)];
        SUMMARY.replace(transaction, &fields)?;
        let fields = [tenant, account, region, function, hours, strategy, Field::Blob(report)];
        SUMMARY_REPORT.replace(transaction, &fields)?;
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

/// The rows of one kind. A damaged row is left out; it is computed again.
pub(super) fn rows(
    connection: &Connection,
    tenant: &Tenant,
    kind: &SummaryKind,
    damage: &DamageLog,
) -> Result<Vec<SummaryRow>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!("{} WHERE tenant = ?1 AND hours = ?2 AND strategy = ?3", SUMMARY.select))?;
    let mut found = statement.query(params![tenant.0, to_ordered_sql(kind.hours), kind.strategy])?;
    let mut summaries = vec![];
    while let Some(row) = found.next()? {
        if SUMMARY.verify(row, damage)? {
            let text = row.get_ref(column::summary::row)?.as_bytes().map_err(damaged)?;
            // A summary of another version of the program may have other fields; it is computed again.
            summaries.extend(serde_json::from_slice::<SummaryRow>(text).ok());
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
    damage: &DamageLog,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "{} WHERE {OF_FUNCTION} AND hours = ?5 AND strategy = ?6",
        SUMMARY_REPORT.select
    ))?;
    let mut rows = statement.query(params![
        tenant.0,
        key.account,
        key.region,
        key.name,
        to_ordered_sql(kind.hours),
        kind.strategy
    ])?;
    match rows.next()? {
        Some(row) if SUMMARY_REPORT.verify(row, damage)? => {
            Ok(Some(row.get(column::summary_report::report)?))
        }
        _ => Ok(None),
    }
}
