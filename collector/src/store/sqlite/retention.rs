//! Retention: ends silent environments, merges old hourly rollups into daily ones, and deletes what is older still.
//!
//! One cursor visits all functions in turn. A visit changes a limited number of rows, and visits the same function again
//! while there are more.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::compaction::{OF_FUNCTION, environment_state, stored_rollup};
use super::rows::{self, ENDED, ENVIRONMENT, ROLLUP, blob, put_rollup, series_key};
use crate::store::damage::DamageLog;
use crate::store::retention::{DAY_HOURS, Limits};
use crate::store::rows::{Field, column, damaged, from_sql, function_fields, to_ordered_sql};
use crate::store::{EndedEnvironments, FunctionKey, HOUR_US, SeriesKey, StoreError, Tenant};

/// Maximum number of rows of one table that a visit reads or deletes.
const MAX_ROWS: usize = 64;

/// The next function after `after`, in the order of the table's key.
pub(super) fn next_function(
    connection: &Connection,
    after: Option<&(Tenant, FunctionKey)>,
) -> Result<Option<(Tenant, FunctionKey)>, StoreError> {
    rows::next_function(
        connection,
        "SELECT tenant, account, region, function FROM function
         WHERE (tenant, function, account, region) > (?1, ?4, ?2, ?3)
         ORDER BY tenant, function, account, region LIMIT 1",
        after,
    )
}

/// One visit of one function. Returns whether there is more to do for it.
pub(super) fn visit(
    connection: &Connection,
    (tenant, key): (&Tenant, &FunctionKey),
    limits: Limits,
    damage: &DamageLog,
) -> Result<bool, StoreError> {
    let mut has_more = end_environments(connection, tenant, key, limits.now_us, damage)?;
    has_more |= merge_hours(connection, tenant, key, limits.hourly_from, damage)?;
    has_more |= delete_days(connection, tenant, key, limits)?;
    connection
        .prepare_cached(&format!(
            "UPDATE function SET changed_at_us = ?5
             WHERE {OF_FUNCTION} AND changed_at_us = 0 AND (summarized_at_us < ?6 OR summarized_at_us > ?5)"
        ))?
        .execute(params![
            tenant.0,
            key.account,
            key.region,
            key.name,
            to_ordered_sql(limits.clock_us),
            to_ordered_sql(limits.summaries_from_us)
        ])?;
    if !has_more {
        delete_function(connection, tenant, key, limits)?;
    }
    Ok(has_more)
}

fn end_environments(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    now_us: u64,
    damage: &DamageLog,
) -> Result<bool, StoreError> {
    let mut ended = vec![];
    {
        let mut statement =
            connection.prepare_cached(&format!("{} WHERE {OF_FUNCTION}", ENVIRONMENT.select))?;
        let mut rows = statement.query(params![tenant.0, key.account, key.region, key.name])?;
        while let Some(row) = rows.next()? {
            if !ENVIRONMENT.verify(row, damage)? {
                continue;
            }
            let state = environment_state(row)?;
            if state.has_ended(now_us) {
                ended.push(state);
            }
            if ended.len() >= MAX_ROWS {
                break;
            }
        }
    }
    let mut days: BTreeMap<u64, EndedEnvironments> = BTreeMap::new();
    for state in &ended {
        let totals = EndedEnvironments::of(state);
        match days.get_mut(&(state.received_at_us / HOUR_US / DAY_HOURS)) {
            Some(sum) => sum.merge(totals),
            None => drop(days.insert(state.received_at_us / HOUR_US / DAY_HOURS, totals)),
        }
        connection
            .prepare_cached(&format!("DELETE FROM environment WHERE {OF_FUNCTION} AND environment = ?5"))?
            .execute(params![tenant.0, key.account, key.region, key.name, state.header.environment.id.0])?;
    }
    for (day, mut totals) in days {
        let mut statement =
            connection.prepare_cached(&format!("{} WHERE {OF_FUNCTION} AND day = ?5", ENDED.select))?;
        let mut rows =
            statement.query(params![tenant.0, key.account, key.region, key.name, to_ordered_sql(day)])?;
        if let Some(row) = rows.next()?
            && ENDED.verify(row, damage)?
        {
            totals.merge(
                EndedEnvironments::decode(blob(row, column::ended::body)?)
                    .ok_or_else(|| damaged("totals of environments cannot be read"))?,
            );
        }
        let [tenant, account, region, function] = function_fields(tenant, key);
        let body = totals.encode();
        let fields =
            [tenant, account, region, function, Field::Integer(to_ordered_sql(day)), Field::Blob(&body)];
        ENDED.replace(connection, &fields)?;
    }
    Ok(ended.len() >= MAX_ROWS)
}

/// Merges hourly rollups before `until_hour` into those of their day.
fn merge_hours(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    until_hour: u64,
    damage: &DamageLog,
) -> Result<bool, StoreError> {
    let mut days: BTreeMap<(SeriesKey, u64), Rollup> = BTreeMap::new();
    let mut merged = vec![];
    {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE {OF_FUNCTION} AND hours = 1 AND hour < ?5 ORDER BY hour LIMIT {MAX_ROWS}",
            ROLLUP.select
        ))?;
        let mut rows = statement.query(params![
            tenant.0,
            key.account,
            key.region,
            key.name,
            to_ordered_sql(until_hour)
        ])?;
        while let Some(row) = rows.next()? {
            // A damaged row stays for `tailor check`; it is deleted with the days of its age.
            if !ROLLUP.verify(row, damage)? {
                continue;
            }
            let (series, hour) = (series_key(row)?, from_sql(row.get(column::rollup::hour)?));
            let part = rollup::decode(blob(row, column::rollup::body)?).map_err(damaged)?;
            days.entry((series.clone(), hour - hour % DAY_HOURS)).or_default().merge(&part);
            merged.push((series, hour));
        }
    }
    for ((series, day), mut rollup) in days {
        if let Some(stored) = stored_rollup(connection, tenant, &series, (DAY_HOURS, day), damage)? {
            rollup.merge(&stored);
        }
        put_rollup(connection, tenant, &series, (DAY_HOURS, day), &rollup)?;
    }
    for (series, hour) in &merged {
        connection
            .prepare_cached(&format!(
                "DELETE FROM rollup WHERE {OF_FUNCTION} AND hours = 1 AND hour = ?5 AND version = ?6
                 AND memory_mb = ?7 AND architecture = ?8"
            ))?
            .execute(params![
                tenant.0,
                key.account,
                key.region,
                key.name,
                to_ordered_sql(*hour),
                series.version,
                series.memory.0,
                series.architecture.as_str()
            ])?;
    }
    Ok(merged.len() >= MAX_ROWS)
}

/// Deletes everything that is old.
fn delete_days(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    limits: Limits,
) -> Result<bool, StoreError> {
    let mut has_more = false;
    for (table, condition, limit) in [
        ("rollup", "hours = 24 AND hour", limits.daily_from),
        ("rollup", "hours = 1 AND hour", limits.daily_from),
        ("ended", "day", limits.ended_from_day()),
    ] {
        let columns = match table {
            "rollup" => "hours, hour, version, memory_mb, architecture",
            _ => "day",
        };
        let deleted = connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE {OF_FUNCTION} AND ({columns}) IN
                 (SELECT {columns} FROM {table} WHERE {OF_FUNCTION} AND {condition} < ?5 LIMIT {MAX_ROWS})"
            ))?
            .execute(params![tenant.0, key.account, key.region, key.name, to_ordered_sql(limit)])?;
        has_more |= deleted >= MAX_ROWS;
    }
    Ok(has_more)
}

/// Deletes a function that has no measurements left.
fn delete_function(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    limits: Limits,
) -> Result<(), StoreError> {
    let of_function =
        params![tenant.0, key.account, key.region, key.name, to_ordered_sql(limits.functions_from_us())];
    let is_old = connection
        .prepare_cached(&format!("SELECT 1 FROM function WHERE {OF_FUNCTION} AND received_at_us < ?5"))?
        .exists(of_function)?;
    if !is_old {
        return Ok(());
    }
    let of_function = params![tenant.0, key.account, key.region, key.name];
    for table in ["pending", "environment", "rollup"] {
        let mut rows = connection.prepare_cached(&format!("SELECT 1 FROM {table} WHERE {OF_FUNCTION}"))?;
        if rows.exists(of_function)? {
            return Ok(());
        }
    }
    // The change log is kept: it is small, and it records what was done to a function.
    for table in ["recent", "summary_report", "function"] {
        connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE {OF_FUNCTION}"))?
            .execute(of_function)?;
    }
    connection
        .prepare_cached(
            "DELETE FROM summary WHERE tenant = ?1 AND hours IN (SELECT DISTINCT hours FROM summary WHERE tenant = ?1)
             AND account = ?2 AND region = ?3 AND function = ?4",
        )?
        .execute(of_function)?;
    Ok(())
}
