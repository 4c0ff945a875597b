//! Retention: ends silent environments, merges old hourly rollups into daily ones, and deletes what is older still. A visit
//! of a function is one transaction that locks the function's row.

use std::collections::BTreeMap;

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::compaction::{Owner, after, lock, of_function, rollup_row, stored_rollups};
use super::connection::Connection;
use super::errors::Failure;
use super::read::{ended_totals, environment_state};
use super::rows::{Cells, NewRow, OF_FUNCTION, PREFIX, Writes, select};
use crate::store::damage::DamageLog;
use crate::store::environments::ENDED_AFTER_US;
use crate::store::retention::{DAY_HOURS, Limits};
use crate::store::rows::{
    ENDED, ENVIRONMENT, Field, ROLLUP, column, damaged, from_sql, function_fields, to_ordered_sql, to_sql,
};
use crate::store::{EndedEnvironments, HOUR_US, SeriesKey, StoreError};

/// Maximum number of rows of one table that a visit reads.
const MAX_ROWS: usize = 1_000;

/// The database's time as SQL, microseconds since the Unix epoch.
const NOW_US: &str = "(EXTRACT(EPOCH FROM now()) * 1000000)::bigint";

/// The database's time, microseconds since the Unix epoch.
pub(super) async fn database_now_us(connection: &Connection) -> Result<u64, Failure> {
    let rows = connection.query(&format!("SELECT {NOW_US}"), &[]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Engine("the database returned no time".to_owned()))?;
    Ok(from_sql(row.try_get(0)?))
}

/// Some functions, and when they were read by the database's clock.
pub(super) struct Functions {
    pub(super) owners: Vec<Owner>,
    /// Microseconds since the Unix epoch; 0 without functions.
    pub(super) database_us: u64,
}

/// The next functions after `cursor`, in the order of the table's key.
pub(super) async fn next_functions(
    connection: &Connection,
    cursor: Option<&Owner>,
) -> Result<Functions, Failure> {
    let [tenant, account, region, function] = after(cursor);
    let sql = format!(
        "SELECT tenant, account, region, function, {NOW_US} AS now_us FROM {PREFIX}function
         WHERE (tenant, function, account, region) > ($1, $4, $2, $3)
         ORDER BY tenant, function, account, region LIMIT 64"
    );
    let rows = connection.query(&sql, &[&tenant, &account, &region, &function]).await?;
    let mut functions = Functions { owners: vec![], database_us: 0 };
    for row in &rows {
        functions.owners.push(Cells::of(row)?.owner()?);
        functions.database_us = from_sql(row.try_get("now_us")?);
    }
    Ok(functions)
}

/// One visit of one function. Returns whether there is more to do for it.
pub(super) async fn visit(
    connection: &Connection,
    owner: &Owner,
    limits: Limits,
    damage: &DamageLog,
) -> Result<bool, Failure> {
    lock(connection, std::slice::from_ref(owner)).await?;
    let mut has_more = end_environments(connection, owner, limits.now_us, damage).await?;
    has_more |= merge_hours(connection, owner, limits.hourly_from, damage).await?;
    for (table, condition, limit) in
        [("rollup", "hour < $5", limits.daily_from), ("ended", "day < $5", limits.ended_from_day())]
    {
        let sql = format!("DELETE FROM {PREFIX}{table} WHERE {OF_FUNCTION} AND {condition}");
        let limit = to_ordered_sql(limit);
        let mut parameters = of_function(owner);
        parameters.push(&limit);
        connection.execute(&sql, &parameters).await?;
    }
    let sql = format!(
        "UPDATE {PREFIX}function SET changed_at_us = $5
         WHERE {OF_FUNCTION} AND changed_at_us = 0 AND (summarized_at_us < $6 OR summarized_at_us > $5)"
    );
    let (clock, old) = (to_ordered_sql(limits.clock_us), to_ordered_sql(limits.summaries_from_us));
    let mut parameters = of_function(owner);
    parameters.push(&clock);
    parameters.push(&old);
    connection.execute(&sql, &parameters).await?;
    if !has_more {
        delete_function(connection, owner, limits).await?;
    }
    Ok(has_more)
}

async fn end_environments(
    connection: &Connection,
    owner: &Owner,
    now_us: u64,
    damage: &DamageLog,
) -> Result<bool, Failure> {
    let until = to_ordered_sql(now_us.saturating_sub(ENDED_AFTER_US));
    let sql = format!(
        "{} WHERE {OF_FUNCTION} AND received_at_us <= $5 ORDER BY received_at_us LIMIT {MAX_ROWS}",
        select(&ENVIRONMENT)
    );
    let mut parameters = of_function(owner);
    parameters.push(&until);
    let rows = connection.query(&sql, &parameters).await?;
    let (mut ids, mut days): (Vec<Vec<u8>>, BTreeMap<u64, EndedEnvironments>) = (vec![], BTreeMap::new());
    for row in &rows {
        let cells = Cells::of(row)?;
        if !cells.verify(&ENVIRONMENT, damage) {
            continue;
        }
        let state = environment_state(&cells)?;
        if !state.has_ended(now_us) {
            continue;
        }
        ids.push(cells.blob(column::environment::environment)?.to_vec());
        let day = state.received_at_us / HOUR_US / DAY_HOURS;
        match days.get_mut(&day) {
            Some(sum) => sum.merge(EndedEnvironments::of(&state)),
            None => drop(days.insert(day, EndedEnvironments::of(&state))),
        }
    }
    if ids.is_empty() {
        return Ok(false);
    }
    let mut writes = Writes::default();
    for (day, mut totals) in days {
        let day = to_ordered_sql(day);
        let mut parameters = of_function(owner);
        parameters.push(&day);
        let sql = format!("{} WHERE {OF_FUNCTION} AND day = $5", select(&ENDED));
        let stored = connection.query(&sql, &parameters).await?;
        if let Some(row) = stored.first() {
            let cells = Cells::of(row)?;
            if cells.verify(&ENDED, damage) {
                totals.merge(ended_totals(&cells)?);
            }
        }
        let [tenant, account, region, function] = function_fields(&owner.0, &owner.1);
        let body = totals.encode();
        let fields = [tenant, account, region, function, Field::Integer(day), Field::Blob(&body)];
        writes.add(!stored.is_empty(), NewRow::new(&ENDED, &fields));
    }
    writes.run(connection, &ENDED).await?;
    let sql = format!("DELETE FROM {PREFIX}environment WHERE {OF_FUNCTION} AND environment = ANY ($5)");
    let mut parameters = of_function(owner);
    parameters.push(&ids);
    connection.execute(&sql, &parameters).await?;
    Ok(rows.len() >= MAX_ROWS)
}

/// Merges hourly rollups before `until_hour` into those of their day.
async fn merge_hours(
    connection: &Connection,
    owner: &Owner,
    until_hour: u64,
    damage: &DamageLog,
) -> Result<bool, Failure> {
    let until = to_ordered_sql(until_hour);
    let mut parameters = of_function(owner);
    parameters.push(&until);
    let sql = format!(
        "{} WHERE {OF_FUNCTION} AND hours = 1 AND hour < $5 ORDER BY hour LIMIT {MAX_ROWS}",
        select(&ROLLUP)
    );
    let rows = connection.query(&sql, &parameters).await?;
    let mut days: BTreeMap<(SeriesKey, u64), Rollup> = BTreeMap::new();
    let mut merged: Vec<(SeriesKey, i64, i64)> = vec![];
    for row in &rows {
        let cells = Cells::of(row)?;
        // A damaged row stays for `tailor check`; it is deleted with the days of its age.
        if !cells.verify(&ROLLUP, damage) {
            continue;
        }
        let (series, hour) = (cells.series_key()?, from_sql(cells.integer(column::rollup::hour)?));
        let part = rollup::decode(cells.blob(column::rollup::body)?).map_err(damaged)?;
        days.entry((series.clone(), hour - hour % DAY_HOURS)).or_default().merge(&part);
        let memory = i64::from(series.memory.0);
        merged.push((series, to_sql(hour), memory));
    }
    if merged.is_empty() {
        return Ok(false);
    }
    let hours = days.keys().map(|(_, day)| to_sql(*day)).collect();
    let mut stored = stored_rollups(connection, &[(owner, to_sql(DAY_HOURS), hours)], damage)
        .await?
        .pop()
        .unwrap_or_default();
    let mut writes = Writes::default();
    for ((series, day), mut rollup) in days {
        let key = (series, day);
        let known = stored.remove(&key);
        if let Some((known, true)) = &known {
            rollup.merge(known);
        }
        writes.add(known.is_some(), rollup_row(&owner.0, &key.0, (DAY_HOURS, day), &rollup));
    }
    writes.run(connection, &ROLLUP).await?;
    let sql = format!(
        "DELETE FROM {PREFIX}rollup WHERE {OF_FUNCTION} AND hours = 1 AND hour = $5 AND version = $6
         AND memory_mb = $7 AND architecture = $8"
    );
    let architectures: Vec<_> = merged.iter().map(|(series, ..)| series.architecture.as_str()).collect();
    let each = merged.iter().zip(&architectures).map(|((series, hour, memory), architecture)| {
        let mut parameters = of_function(owner);
        parameters.push(hour);
        parameters.push(&series.version);
        parameters.push(memory);
        parameters.push(architecture);
        parameters
    });
    connection.execute_each(&sql, &each.collect::<Vec<_>>()).await?;
    Ok(rows.len() >= MAX_ROWS)
}

/// Deletes a function that has no measurements left.
async fn delete_function(connection: &Connection, owner: &Owner, limits: Limits) -> Result<(), Failure> {
    let limit = to_ordered_sql(limits.functions_from_us());
    let mut parameters = of_function(owner);
    parameters.push(&limit);
    let sql = format!("SELECT 1 FROM {PREFIX}function WHERE {OF_FUNCTION} AND received_at_us < $5");
    if connection.query(&sql, &parameters).await?.is_empty() {
        return Ok(());
    }
    for table in ["pending", "environment", "rollup"] {
        let sql = format!("SELECT 1 FROM {PREFIX}{table} WHERE {OF_FUNCTION} LIMIT 1");
        if !connection.query(&sql, &of_function(owner)).await?.is_empty() {
            return Ok(());
        }
    }
    // The change log is kept: it is small, and it records what was done to a function.
    for table in ["recent", "summary_report", "summary", "function"] {
        let sql = format!("DELETE FROM {PREFIX}{table} WHERE {OF_FUNCTION}");
        connection.execute(&sql, &of_function(owner)).await?;
    }
    Ok(())
}
