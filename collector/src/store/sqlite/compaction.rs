//! Compaction: merges the pending batches of one function into its environments, rollups and single invocations.
//!
//! Every function is visited in turn, so that none waits without limit. A visit takes a limited number of batches; their rows are
//! deleted in the transaction that merges them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Connection, Row, params};

use agent_proto::batch::{BatchHeader, EnvironmentId};
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;

use super::archive::{self, Spool};
use super::recent;
use super::rows::{self, ENVIRONMENT, FUNCTION, PENDING, ROLLUP, blob, put_rollup};
use crate::store::archive::Pieces;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::recent::{Body, RECENT_INVOCATIONS};
use crate::store::rows::{column, damaged, decode_rollups, from_sql, to_ordered_sql, to_sql};
use crate::store::sequences::Sequences;
use crate::store::{EnvironmentState, FunctionKey, SeriesKey, StoreError, Tenant};

/// Maximum number of batches that one visit merges.
const MAX_BATCHES: usize = 512;

/// Maximum size of the bodies that one visit reads, bytes.
const MAX_BYTES: usize = 2 << 20;

/// The condition for the rows of one function, with its key as the parameters 1 to 4.
pub(super) const OF_FUNCTION: &str = "tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4";

/// A pending batch.
pub(super) struct Pending {
    pub(super) header: BatchHeader,
    pub(super) received_at_us: u64,
    pub(super) rollups: Vec<(u64, Rollup)>,
    pub(super) body: Body,
}

impl Pending {
    /// Reads a row of [`PENDING`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            header: BatchHeader::decode(blob(row, column::pending::header)?).map_err(damaged)?,
            received_at_us: from_sql(row.get(column::pending::received_at_us)?),
            rollups: decode_rollups(blob(row, column::pending::rollups)?)?,
            body: Body {
                last_at_us: from_sql(row.get(column::pending::last_at_us)?),
                invocations: from_sql(row.get(column::pending::invocations)?),
                bytes: row.get(column::pending::body)?,
            },
        })
    }
}

/// The next function after `after` that has pending batches, in the order of keys.
pub(super) fn next_function(
    connection: &Connection,
    after: Option<&(Tenant, FunctionKey)>,
) -> Result<Option<(Tenant, FunctionKey)>, StoreError> {
    rows::next_function(
        connection,
        "SELECT tenant, account, region, function FROM pending
         WHERE (tenant, account, region, function) > (?1, ?2, ?3, ?4)
         ORDER BY tenant, account, region, function LIMIT 1",
        after,
    )
}

/// Merges pending batches of one function; returns their number.
pub(super) fn compact_function(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    now_us: u64,
    spool: &mut Spool,
    damage: &DamageLog,
) -> Result<usize, StoreError> {
    let mut states: BTreeMap<EnvironmentId, EnvironmentState> = BTreeMap::new();
    let mut rollups: BTreeMap<(SeriesKey, u64), Rollup> = BTreeMap::new();
    let mut bodies = vec![];
    let mut pieces = Pieces::default();
    let mut newest: Option<(BatchHeader, u64)> = None;
    let (mut last, mut batches, mut bytes) = (None, 0, 0);
    {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE {OF_FUNCTION} ORDER BY environment, sequence LIMIT {MAX_BATCHES}",
            PENDING.select
        ))?;
        let mut rows = statement.query(params![tenant.0, key.account, key.region, key.name])?;
        while let Some(row) = rows.next()? {
            let environment: Vec<u8> = row.get(column::pending::environment)?;
            last = Some((environment, row.get::<_, i64>(column::pending::sequence)?));
            batches += 1;
            if !PENDING.is_valid(row)? {
                // The copy keeps the row for `tailor check`.
                super::damage::isolate(connection, &PENDING, row, now_us, damage)?;
                continue;
            }
            let Pending { header, received_at_us, rollups: by_hour, body } = Pending::read(row)?;
            for (hour, rollup) in &by_hour {
                rollups.entry((SeriesKey::of(&header.environment), *hour)).or_default().merge(rollup);
            }
            bytes += body.bytes.len();
            if spool.is_used() {
                pieces.add(&by_hour, &body.bytes)?;
            }
            bodies.push(body);
            if newest.as_ref().is_none_or(|(_, newest_us)| received_at_us >= *newest_us) {
                newest = Some((header.clone(), received_at_us));
            }
            add_batch(connection, tenant, &mut states, header, received_at_us, damage)?;
            if bytes >= MAX_BYTES {
                break;
            }
        }
    }
    let Some(last) = last else { return Ok(0) };
    for state in states.values() {
        put_environment(connection, tenant, state)?;
    }
    for ((series, hour), mut rollup) in rollups {
        if let Some(stored) = stored_rollup(connection, tenant, &series, (1, hour), damage)? {
            rollup.merge(&stored);
        }
        put_rollup(connection, tenant, &series, (1, hour), &rollup)?;
    }
    archive::add(connection, spool, (tenant, key), pieces, now_us, damage)?;
    let recent = recent::insert(connection, tenant, key, bodies)?;
    if let Some((header, received_at_us)) = newest {
        put_function(connection, tenant, &header, received_at_us, recent)?;
    }
    trim_recent(connection, tenant, key, damage)?;
    mark_as_changed(connection, tenant, key, now_us)?;
    delete_pending(connection, tenant, key, last)?;
    Ok(batches)
}

/// Deletes the pending batches of one function up to `last`, an environment and a sequence.
fn delete_pending(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    last: (Vec<u8>, i64),
) -> Result<(), StoreError> {
    connection
        .prepare_cached(&format!(
            "DELETE FROM pending WHERE {OF_FUNCTION} AND (environment, sequence) <= (?5, ?6)"
        ))?
        .execute(params![tenant.0, key.account, key.region, key.name, last.0, last.1])?;
    Ok(())
}

/// Marks a function as changed since its summaries were computed, unless it is marked already.
fn mark_as_changed(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    now_us: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(&format!(
            "UPDATE function SET changed_at_us = ?5 WHERE {OF_FUNCTION} AND changed_at_us = 0"
        ))?
        .execute(params![tenant.0, key.account, key.region, key.name, to_ordered_sql(now_us)])?;
    Ok(())
}

/// Adds a batch to the state of its environment, which is read first.
fn add_batch(
    connection: &Connection,
    tenant: &Tenant,
    states: &mut BTreeMap<EnvironmentId, EnvironmentState>,
    header: BatchHeader,
    received_at_us: u64,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    let state = match states.entry(header.environment.id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => match stored_environment(connection, tenant, &header, damage)? {
            Some(state) => place.insert(state),
            None => {
                place.insert(EnvironmentState::first(header, received_at_us));
                return Ok(());
            }
        },
    };
    state.add(header, received_at_us);
    Ok(())
}

/// The stored state of the environment of a batch. Of a damaged one, only this batch is taken as new: an environment
/// sends a batch only after the one before is acknowledged or given up.
pub(super) fn stored_environment(
    connection: &Connection,
    tenant: &Tenant,
    header: &BatchHeader,
    damage: &DamageLog,
) -> Result<Option<EnvironmentState>, StoreError> {
    let environment = &header.environment;
    let mut statement = connection
        .prepare_cached(&format!("{} WHERE {OF_FUNCTION} AND environment = ?5", ENVIRONMENT.select))?;
    let mut rows = statement.query(params![
        tenant.0,
        environment.account,
        environment.region,
        environment.function,
        environment.id.0
    ])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    if ENVIRONMENT.verify(row, damage)? {
        return environment_state(row).map(Some);
    }
    Ok(Some(EnvironmentState {
        header: header.clone(),
        sequences: Sequences::up_to(header.sequence.saturating_sub(1)),
        received_at_us: 0,
    }))
}

/// Reads a row of [`ENVIRONMENT`].
pub(super) fn environment_state(row: &Row<'_>) -> Result<EnvironmentState, StoreError> {
    Ok(EnvironmentState {
        received_at_us: from_sql(row.get(column::environment::received_at_us)?),
        sequences: Sequences::decode(blob(row, column::environment::sequences)?)
            .ok_or_else(|| damaged("sequences cannot be read"))?,
        header: BatchHeader::decode(blob(row, column::environment::header)?).map_err(damaged)?,
    })
}

pub(super) fn put_environment(
    connection: &Connection,
    tenant: &Tenant,
    state: &EnvironmentState,
) -> Result<(), StoreError> {
    columns::of_environment(tenant, state, |fields| ENVIRONMENT.replace(connection, fields))
}

/// The rollup that is stored of a series and span.
pub(super) fn stored_rollup(
    connection: &Connection,
    tenant: &Tenant,
    series: &SeriesKey,
    (hours, hour): (u64, u64),
    damage: &DamageLog,
) -> Result<Option<Rollup>, StoreError> {
    let FunctionKey { account, region, name } = &series.function;
    let mut statement = connection.prepare_cached(&format!(
        "{} WHERE {OF_FUNCTION} AND hours = ?5 AND hour = ?6 AND version = ?7 AND memory_mb = ?8
         AND architecture = ?9",
        ROLLUP.select
    ))?;
    let mut rows = statement.query(params![
        tenant.0,
        account,
        region,
        name,
        to_sql(hours),
        to_sql(hour),
        series.version,
        series.memory.0,
        series.architecture.as_str()
    ])?;
    match rows.next()? {
        Some(row) if ROLLUP.verify(row, damage)? => {
            Ok(Some(rollup::decode(blob(row, column::rollup::body)?).map_err(damaged)?))
        }
        _ => Ok(None),
    }
}

/// The function's newest batch and number of stored single invocations.
struct FunctionRow {
    received_at_us: u64,
    recent_invocations: u64,
    header: Vec<u8>,
}

fn function_row(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
) -> Result<Option<FunctionRow>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{} WHERE {OF_FUNCTION}", FUNCTION.select))?;
    let mut rows = statement.query(params![tenant.0, key.account, key.region, key.name])?;
    match rows.next()? {
        // A damaged row is written again from what is known now.
        Some(row) if FUNCTION.is_valid(row)? => Ok(Some(FunctionRow {
            received_at_us: from_sql(row.get(column::function::received_at_us)?),
            recent_invocations: from_sql(row.get(column::function::recent_invocations)?),
            header: row.get(column::function::header)?,
        })),
        _ => Ok(None),
    }
}

fn write_function(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    row: &FunctionRow,
) -> Result<(), StoreError> {
    let counts = (row.received_at_us, row.recent_invocations);
    columns::of_function(tenant, key, counts, &row.header, |fields| FUNCTION.replace(connection, fields))
}

/// Writes the row of a function: its newest batch, and how many single invocations were added.
pub(super) fn put_function(
    connection: &Connection,
    tenant: &Tenant,
    header: &BatchHeader,
    received_at_us: u64,
    recent_added: u64,
) -> Result<(), StoreError> {
    let key = FunctionKey::of(&header.environment);
    let stored = function_row(connection, tenant, &key)?;
    let is_newest = stored.as_ref().is_none_or(|stored| received_at_us >= stored.received_at_us);
    let mut row =
        stored.unwrap_or(FunctionRow { received_at_us: 0, recent_invocations: 0, header: Vec::new() });
    if is_newest {
        row.received_at_us = received_at_us;
        row.header = header.encode();
    }
    row.recent_invocations = row.recent_invocations.saturating_add(recent_added);
    write_function(connection, tenant, &key, &row)
}

/// Adds to the number of stored single invocations of a function that has a row.
pub(super) fn add_recent(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    added: u64,
) -> Result<(), StoreError> {
    let Some(mut row) = function_row(connection, tenant, key)? else { return Ok(()) };
    row.recent_invocations = row.recent_invocations.saturating_add(added);
    write_function(connection, tenant, key, &row)
}

/// Deletes old single invocations when there are twice as many as are kept, so that it is done rarely.
fn trim_recent(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    let Some(mut row) = function_row(connection, tenant, key)? else { return Ok(()) };
    if row.recent_invocations > 2 * RECENT_INVOCATIONS {
        row.recent_invocations = recent::trim(connection, tenant, key, damage)?;
        write_function(connection, tenant, key, &row)?;
    }
    Ok(())
}
