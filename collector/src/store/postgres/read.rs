//! The read queries: stored state, merged with the pending batches of the same snapshot.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use agent_proto::batch::{BatchHeader, EnvironmentId};
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::connection::{Connection, Parameters};
use super::errors::Failure;
use super::rows::{Cells, PREFIX, columns_of, select};
use crate::store::damage::DamageLog;
use crate::store::recent::{self, Body};
use crate::store::retention::DAY_HOURS;
use crate::store::rows::{
    CHANGE_EVENT, ENDED, ENVIRONMENT, FUNCTION, PENDING, RECENT, ROLLUP, column, damaged, decode_rollups,
    from_sql, to_ordered_sql,
};
use crate::store::sequences::Sequences;
use crate::store::{
    ChangeEvent, EndedEnvironments, EnvironmentState, Environments, FunctionKey, HOUR_US, Recent, Series,
    SeriesKey, StoreError, StoredRollup, Tenant, Window,
};

/// A pending batch.
pub(super) struct Pending {
    pub(super) header: BatchHeader,
    pub(super) received_at_us: u64,
    pub(super) rollups: Vec<(u64, Rollup)>,
    pub(super) body: Body,
}

impl Pending {
    pub(super) fn read(cells: &Cells<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            header: BatchHeader::decode(cells.blob(column::pending::header)?).map_err(damaged)?,
            received_at_us: from_sql(cells.integer(column::pending::received_at_us)?),
            rollups: decode_rollups(cells.blob(column::pending::rollups)?)?,
            body: Body {
                last_at_us: from_sql(cells.integer(column::pending::last_at_us)?),
                invocations: from_sql(cells.integer(column::pending::invocations)?),
                bytes: cells.blob(column::pending::body)?.to_vec(),
            },
        })
    }
}

pub(super) async fn functions(
    connection: &Connection,
    tenant: &Tenant,
    name: Option<&str>,
    limit: usize,
    damage: &DamageLog,
) -> Result<Vec<FunctionKey>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut parameters: Parameters<'_> = vec![&tenant.0, &limit];
    let condition = if name.is_some() { "AND function = $3" } else { "" };
    if let Some(name) = &name {
        parameters.push(name);
    }
    let sql = format!(
        "{} WHERE tenant = $1 {condition} ORDER BY function, account, region LIMIT $2",
        select(&FUNCTION)
    );
    let mut functions = vec![];
    connection
        .for_each(&sql, &parameters, |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&FUNCTION, damage) {
                functions.push(FunctionKey {
                    name: cells.text(column::function::function)?.to_owned(),
                    account: cells.text(column::function::account)?.to_owned(),
                    region: cells.text(column::function::region)?.to_owned(),
                });
            }
            Ok(true)
        })
        .await?;
    functions.sort_unstable();
    Ok(functions)
}

pub(super) async fn series(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
) -> Result<Vec<Series>, Failure> {
    let mut merged: BTreeMap<SeriesKey, Rollup> = BTreeMap::new();
    visit_rollups(connection, tenant, function, window, damage, |stored| {
        merged.entry(stored.key).or_default().merge(&stored.rollup);
    })
    .await?;
    Ok(merged.into_iter().map(|(key, rollup)| Series { key, rollup }).collect())
}

pub(super) async fn rollups(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionKey,
    window: Window,
    damage: &DamageLog,
) -> Result<Vec<StoredRollup>, Failure> {
    let mut found = vec![];
    visit_rollups(connection, tenant, Some(function), window, damage, |stored| found.push(stored)).await?;
    Ok(found)
}

/// Calls `visit` with each rollup in the window.
async fn visit_rollups(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
    mut visit: impl FnMut(StoredRollup),
) -> Result<(), Failure> {
    let (from, until) = (to_ordered_sql(window.from_hour), to_ordered_sql(window.until_hour));
    // A day belongs to the window when its last hour does.
    let from_day = to_ordered_sql(window.from_hour.saturating_sub(23));
    for (hours, from) in [(1u64, from), (24, from_day)] {
        let stored_hours = to_ordered_sql(hours);
        let mut scope = Scope::new(tenant, function);
        scope.and("hours = ", &stored_hours);
        scope.and("hour >= ", &from);
        scope.and("hour < ", &until);
        let sql = format!("{} WHERE {}", select(&ROLLUP), scope.condition);
        connection
            .for_each(&sql, &scope.parameters, |row| {
                let cells = Cells::of(row)?;
                if cells.verify(&ROLLUP, damage) {
                    let rollup = rollup::decode(cells.blob(column::rollup::body)?).map_err(damaged)?;
                    let (key, from_hour) =
                        (cells.series_key()?, from_sql(cells.integer(column::rollup::hour)?));
                    visit(StoredRollup { key, from_hour, hours, rollup });
                }
                Ok(true)
            })
            .await?;
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
    .await
}

/// Calls `visit` with each pending batch that its environment's state does not contain. One that it contains is a
/// repetition, which arrived at the same time as the compaction of the first.
async fn pending(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    damage: &DamageLog,
    mut visit: impl FnMut(Pending) -> Result<(), StoreError>,
) -> Result<(), Failure> {
    let scope = Scope::of("p.", tenant, function);
    let sql = format!(
        "SELECT {}, e.sequences FROM {PREFIX}pending p LEFT JOIN {PREFIX}environment e
         ON e.tenant = p.tenant AND e.account = p.account AND e.region = p.region AND e.function = p.function
         AND e.environment = p.environment
         WHERE {}",
        columns_of(&PENDING, "p"),
        scope.condition
    );
    let state = PENDING.columns.len() + 1;
    connection
        .for_each(&sql, &scope.parameters, |row| {
            let sequences: Option<&[u8]> = row.try_get(state)?;
            let cells = Cells::of_first(row, state)?;
            let sequence = cells.integer(column::pending::sequence).ok().map(from_sql);
            let is_repetition = sequences
                .and_then(Sequences::decode)
                .is_some_and(|sequences| sequence.is_some_and(|one| sequences.contains(one)));
            if !is_repetition && cells.verify(&PENDING, damage) {
                visit(Pending::read(&cells)?)?;
            }
            Ok(true)
        })
        .await
}

/// Reads a row of the table `environment`.
pub(super) fn environment_state(cells: &Cells<'_>) -> Result<EnvironmentState, StoreError> {
    Ok(EnvironmentState {
        received_at_us: from_sql(cells.integer(column::environment::received_at_us)?),
        sequences: Sequences::decode(cells.blob(column::environment::sequences)?)
            .ok_or_else(|| damaged("sequences cannot be read"))?,
        header: BatchHeader::decode(cells.blob(column::environment::header)?).map_err(damaged)?,
    })
}

pub(super) async fn environments(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    damage: &DamageLog,
) -> Result<Environments, Failure> {
    let from_us = window.from_hour.saturating_mul(HOUR_US);
    let mut states: BTreeMap<(FunctionKey, EnvironmentId), EnvironmentState> = BTreeMap::new();
    let id = |header: &BatchHeader| (FunctionKey::of(&header.environment), header.environment.id);
    let scope = Scope::new(tenant, function);
    let sql = format!("{} WHERE {}", select(&ENVIRONMENT), scope.condition);
    connection
        .for_each(&sql, &scope.parameters, |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&ENVIRONMENT, damage) {
                let state = environment_state(&cells)?;
                states.insert(id(&state.header), state);
            }
            Ok(true)
        })
        .await?;
    pending(connection, tenant, function, damage, |batch| {
        match states.get_mut(&id(&batch.header)) {
            Some(state) => drop(state.add(batch.header, batch.received_at_us)),
            None => {
                let state = EnvironmentState::first(batch.header, batch.received_at_us);
                states.insert(id(&state.header), state);
            }
        }
        Ok(())
    })
    .await?;
    let live = states.into_values().filter(|state| state.received_at_us >= from_us).collect();
    Ok(Environments { live, ended: ended(connection, tenant, function, from_us, damage).await? })
}

async fn ended(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    from_us: u64,
    damage: &DamageLog,
) -> Result<Vec<EndedEnvironments>, Failure> {
    let from_day = to_ordered_sql(from_us / HOUR_US / DAY_HOURS);
    let mut scope = Scope::new(tenant, function);
    scope.and("day >= ", &from_day);
    let sql = format!("{} WHERE {}", select(&ENDED), scope.condition);
    let mut ended = vec![];
    connection
        .for_each(&sql, &scope.parameters, |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&ENDED, damage) {
                ended.push(ended_totals(&cells)?);
            }
            Ok(true)
        })
        .await?;
    ended.retain(|totals: &EndedEnvironments| totals.received_at_us >= from_us);
    Ok(ended)
}

/// Reads a row of the table `ended`.
pub(super) fn ended_totals(cells: &Cells<'_>) -> Result<EndedEnvironments, StoreError> {
    EndedEnvironments::decode(cells.blob(column::ended::body)?)
        .ok_or_else(|| damaged("totals of environments cannot be read"))
}

pub(super) async fn recent(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionKey,
    limit: usize,
    damage: &DamageLog,
) -> Result<Vec<Recent>, Failure> {
    let mut newest = recent::Newest::default();
    pending(connection, tenant, Some(function), damage, |batch| newest.add(&batch.body.bytes)).await?;
    let scope = Scope::new(tenant, Some(function));
    let sql = format!("{} WHERE {} ORDER BY last_at_us DESC", select(&RECENT), scope.condition);
    let mut compacted = 0usize;
    connection
        .for_each(&sql, &scope.parameters, |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&RECENT, damage) {
                recent::batches(cells.blob(column::recent::body)?)?
                    .iter()
                    .try_for_each(|batch| newest.add(batch))?;
                let invocations = cells.integer(column::recent::invocations)?;
                compacted = compacted.saturating_add(usize::try_from(invocations).unwrap_or(0));
            }
            Ok(compacted < limit)
        })
        .await?;
    Ok(newest.take(limit))
}

pub(super) async fn changes(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    damage: &DamageLog,
) -> Result<Vec<ChangeEvent>, Failure> {
    let scope = Scope::new(tenant, function);
    let sql = format!("{} WHERE {} ORDER BY change_id, step", select(&CHANGE_EVENT), scope.condition);
    let mut events = Vec::new();
    connection
        .for_each(&sql, &scope.parameters, |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&CHANGE_EVENT, damage) {
                events.push(change_event(&cells)?);
            }
            Ok(true)
        })
        .await?;
    Ok(events)
}

/// Reads a row of the table `change_event`.
pub(super) fn change_event(cells: &Cells<'_>) -> Result<ChangeEvent, StoreError> {
    Ok(ChangeEvent {
        function: cells.function_key()?,
        change_id: cells.text(column::change_event::change_id)?.to_owned(),
        step: from_sql(cells.integer(column::change_event::step)?),
        at_us: from_sql(cells.integer(column::change_event::at_us)?),
        kind: cells.text(column::change_event::kind)?.to_owned(),
        detail: serde_json::from_str(cells.text(column::change_event::detail)?).map_err(damaged)?,
    })
}

/// Selects the rows of one tenant, or of one of its functions.
struct Scope<'a> {
    condition: String,
    parameters: Parameters<'a>,
}

impl<'a> Scope<'a> {
    fn new(tenant: &'a Tenant, function: Option<&'a FunctionKey>) -> Self {
        Self::of("", tenant, function)
    }

    /// The same for the columns of the table with this prefix.
    fn of(prefix: &str, tenant: &'a Tenant, function: Option<&'a FunctionKey>) -> Self {
        let mut scope = Self { condition: format!("{prefix}tenant = $1"), parameters: vec![&tenant.0] };
        if let Some(function) = function {
            scope.and(&format!("{prefix}account = "), &function.account);
            scope.and(&format!("{prefix}region = "), &function.region);
            scope.and(&format!("{prefix}function = "), &function.name);
        }
        scope
    }

    /// Adds a condition. `comparison` is a constant with a column and an operator, never external input.
    fn and(&mut self, comparison: &str, value: &'a (dyn ToSql + Sync)) {
        self.parameters.push(value);
        self.condition.push_str(&format!(" AND {comparison}${}", self.parameters.len()));
    }
}
