//! The read queries: stored state, merged with the pending batches of the same snapshot.
//!
//! Rows are merged while they are read, so there is one rollup per series in memory, not per row.

use std::collections::BTreeMap;

use rusqlite::{Connection, ToSql, params};

use agent_proto::batch::{BatchHeader, EnvironmentId};
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::compaction::{Pending, environment_state};
use super::rows::{
    CHANGE_EVENT, ENDED, ENVIRONMENT, FUNCTION, PENDING, RECENT, ROLLUP, blob, function_key, series_key,
};
use crate::store::damage::DamageLog;
use crate::store::recent;
use crate::store::retention::DAY_HOURS;
use crate::store::rows::{column, damaged, from_sql, to_ordered_sql};
use crate::store::{
    ChangeEvent, EndedEnvironments, EnvironmentState, Environments, FunctionKey, HOUR_US, Recent, Series,
    SeriesKey, StoreError, StoredRollup, Tenant, Window,
};

pub(super) fn functions(
    connection: &Connection,
    tenant: &Tenant,
    name: Option<&str>,
    limit: usize,
    damage: &DamageLog,
) -> Result<Vec<FunctionKey>, StoreError> {
    let condition = if name.is_some() { "AND function = ?3" } else { "" };
    let mut statement =
        connection.prepare_cached(&format!("{} WHERE tenant = ?1 {condition} LIMIT ?2", FUNCTION.select))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = match name {
        Some(name) => statement.query(params![tenant.0, limit, name])?,
        None => statement.query(params![tenant.0, limit])?,
    };
    let mut functions = vec![];
    while let Some(row) = rows.next()? {
        if FUNCTION.verify(row, damage)? {
            functions.push(FunctionKey {
                name: row.get(column::function::function)?,
                account: row.get(column::function::account)?,
                region: row.get(column::function::region)?,
            });
        }
    }
    functions.sort_unstable();
    Ok(functions)
}

pub(super) fn series(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
) -> Result<Vec<Series>, StoreError> {
    let mut merged: BTreeMap<SeriesKey, Rollup> = BTreeMap::new();
    visit_rollups(connection, tenant, function, window, damage, |stored| {
        merged.entry(stored.key).or_default().merge(&stored.rollup);
    })?;
    Ok(merged.into_iter().map(|(key, rollup)| Series { key, rollup }).collect())
}

pub(super) fn rollups(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionKey,
    window: Window,
    damage: &DamageLog,
) -> Result<Vec<StoredRollup>, StoreError> {
    let mut found = vec![];
    visit_rollups(connection, tenant, Some(function), window, damage, |stored| found.push(stored))?;
    Ok(found)
}

/// Calls `visit` with each rollup in the window.
fn visit_rollups(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
    mut visit: impl FnMut(StoredRollup),
) -> Result<(), StoreError> {
    let (from, until) = (to_ordered_sql(window.from_hour), to_ordered_sql(window.until_hour));
    // A day belongs to the window when its last hour does.
    let from_day = to_ordered_sql(window.from_hour.saturating_sub(23));
    for (hours, from) in [(1u64, from), (24, from_day)] {
        let stored_hours = to_ordered_sql(hours);
        let mut scope = Scope::new(tenant, function);
        scope.and("hours = ", &stored_hours);
        scope.and("hour >= ", &from);
        scope.and("hour < ", &until);
        let mut statement =
            connection.prepare_cached(&format!("{} WHERE {}", ROLLUP.select, scope.condition))?;
        let mut rows = statement.query(scope.parameters.as_slice())?;
        while let Some(row) = rows.next()? {
            if ROLLUP.verify(row, damage)? {
                let rollup = rollup::decode(blob(row, column::rollup::body)?).map_err(damaged)?;
                let (key, from_hour) = (series_key(row)?, from_sql(row.get(column::rollup::hour)?));
                visit(StoredRollup { key, from_hour, hours, rollup });
            }
        }
    }
    pending(connection, tenant, function, damage, |batch| {
        for (hour, rollup) in batch.rollups {
            if (window.from_hour..window.until_hour).contains(&hour) {
                let key = SeriesKey::of(&batch.header.environment);
                visit(StoredRollup { key, from_hour: hour, hours: 1, rollup });
            }
        }
        Ok(())
    })
}

/// Calls `visit` with each pending batch, by environment and sequence.
fn pending(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    damage: &DamageLog,
    mut visit: impl FnMut(Pending) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let scope = Scope::new(tenant, function);
    let mut statement =
        connection.prepare_cached(&format!("{} WHERE {}", PENDING.select, scope.condition))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    while let Some(row) = rows.next()? {
        if PENDING.verify(row, damage)? {
            visit(Pending::read(row)?)?;
        }
    }
    Ok(())
}

pub(super) fn environments(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
) -> Result<Environments, StoreError> {
    let from_us = window.from_hour.saturating_mul(HOUR_US);
    let mut states: BTreeMap<(FunctionKey, EnvironmentId), EnvironmentState> = BTreeMap::new();
    let id = |header: &BatchHeader| (FunctionKey::of(&header.environment), header.environment.id);
    let scope = Scope::new(tenant, function);
    let mut statement =
        connection.prepare_cached(&format!("{} WHERE {}", ENVIRONMENT.select, scope.condition))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    while let Some(row) = rows.next()? {
        if ENVIRONMENT.verify(row, damage)? {
            let state = environment_state(row)?;
            states.insert(id(&state.header), state);
        }
    }
    pending(connection, tenant, function, damage, |batch| {
        match states.get_mut(&id(&batch.header)) {
            Some(state) => drop(state.add(batch.header, batch.received_at_us)),
            None => {
                let state = EnvironmentState::first(batch.header, batch.received_at_us);
                states.insert(id(&state.header), state);
            }
        }
        Ok(())
    })?;
    let live = states.into_values().filter(|state| state.received_at_us >= from_us).collect();
    Ok(Environments { live, ended: ended(connection, tenant, function, from_us, damage)? })
}

fn ended(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    from_us: u64,
    damage: &DamageLog,
) -> Result<Vec<EndedEnvironments>, StoreError> {
    let from_day = to_ordered_sql(from_us / HOUR_US / DAY_HOURS);
    let mut scope = Scope::new(tenant, function);
    scope.and("day >= ", &from_day);
    let mut statement = connection.prepare_cached(&format!("{} WHERE {}", ENDED.select, scope.condition))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut ended = vec![];
    while let Some(row) = rows.next()? {
        if ENDED.verify(row, damage)? {
            let totals = EndedEnvironments::decode(blob(row, column::ended::body)?);
            ended.push(totals.ok_or_else(|| damaged("totals of environments cannot be read"))?);
        }
    }
    ended.retain(|totals| totals.received_at_us >= from_us);
    Ok(ended)
}

pub(super) fn recent(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionKey,
    limit: usize,
    damage: &DamageLog,
) -> Result<Vec<Recent>, StoreError> {
    let mut newest = recent::Newest::default();
    pending(connection, tenant, Some(function), damage, |batch| newest.add(&batch.body.bytes))?;
    let scope = Scope::new(tenant, Some(function));
    let mut statement = connection
        .prepare_cached(&format!("{} WHERE {} ORDER BY last_at_us DESC", RECENT.select, scope.condition))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut compacted = 0usize;
    while let Some(row) = rows.next()? {
        if RECENT.verify(row, damage)? {
            for batch in recent::batches(blob(row, column::recent::body)?)? {
                newest.add(&batch)?;
            }
            let invocations: i64 = row.get(column::recent::invocations)?;
            compacted = compacted.saturating_add(usize::try_from(invocations).unwrap_or(0));
        }
        if compacted >= limit {
            break;
        }
    }
    Ok(newest.take(limit))
}

pub(super) fn changes(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    damage: &DamageLog,
) -> Result<Vec<ChangeEvent>, StoreError> {
    let scope = Scope::new(tenant, function);
    let mut statement = connection.prepare_cached(&format!(
        "{} WHERE {} ORDER BY change_id, step",
        CHANGE_EVENT.select, scope.condition
    ))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        if !CHANGE_EVENT.verify(row, damage)? {
            continue;
        }
        let detail: String = row.get(column::change_event::detail)?;
        events.push(ChangeEvent {
            function: function_key(row)?,
            change_id: row.get(column::change_event::change_id)?,
            step: from_sql(row.get(column::change_event::step)?),
            at_us: from_sql(row.get(column::change_event::at_us)?),
            kind: row.get(column::change_event::kind)?,
            detail: serde_json::from_str(&detail).map_err(damaged)?,
        });
    }
    Ok(events)
}

/// Selects the rows of one tenant, or of one of its functions.
struct Scope<'a> {
    condition: String,
    parameters: Vec<&'a dyn ToSql>,
}

impl<'a> Scope<'a> {
    fn new(tenant: &'a Tenant, function: Option<&'a FunctionKey>) -> Self {
        let mut scope = Self { condition: "tenant = ?1".to_owned(), parameters: vec![&tenant.0] };
        if let Some(function) = function {
            scope.and("account = ", &function.account);
            scope.and("region = ", &function.region);
            scope.and("function = ", &function.name);
        }
        scope
    }

    /// Adds a condition. `comparison` is a constant with a column and an operator, never external input.
    fn and(&mut self, comparison: &str, value: &'a dyn ToSql) {
        self.parameters.push(value);
        self.condition.push_str(&format!(" AND {comparison}?{}", self.parameters.len()));
    }
}
