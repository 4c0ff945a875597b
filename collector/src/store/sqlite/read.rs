//! The read queries. Rows are merged while they are read, so memory holds one rollup per series, not per row.

use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use agent_proto::batch::{Batch, BatchHeader, Environment, EnvironmentId, Lost, Overhead};
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::rows::{damaged, from_sql, series_key, to_sql};
use crate::store::{
    ChangeEvent, EnvironmentState, FunctionKey, HOUR_US, Recent, Series, SeriesKey, StoreError, Tenant,
    Window,
};

/// Seeks along the index from function to function, so the cost does not depend on the rows of each.
pub(super) fn functions(connection: &Connection, tenant: &Tenant) -> Result<Vec<FunctionKey>, StoreError> {
    let mut next = connection.prepare_cached(
        "SELECT account, region, function FROM rollup
         WHERE tenant = ?1 AND (account, region, function) > (?2, ?3, ?4)
         ORDER BY account, region, function LIMIT 1",
    )?;
    let mut functions: Vec<FunctionKey> = Vec::new();
    // No function has an empty name, so this key sorts before the first one.
    let before = FunctionKey { account: String::new(), region: String::new(), name: String::new() };
    loop {
        let FunctionKey { account, region, name } = functions.last().unwrap_or(&before);
        let found = next
            .query_row([&tenant.0, account, region, name], |row| {
                Ok(FunctionKey { account: row.get(0)?, region: row.get(1)?, name: row.get(2)? })
            })
            .optional()?;
        match found {
            Some(key) => functions.push(key),
            None => return Ok(functions),
        }
    }
}

pub(super) fn series(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
) -> Result<Vec<Series>, StoreError> {
    let (from, until) = (to_sql(window.from_hour), to_sql(window.until_hour));
    let mut scope = Scope::new(tenant, function);
    scope.and("hour >= ", &from);
    scope.and("hour < ", &until);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT account, region, function, version, memory_mb, architecture, body FROM rollup WHERE {}",
        scope.condition
    ))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut merged: BTreeMap<SeriesKey, Rollup> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let part = rollup::decode(row.get_ref(6)?.as_blob().map_err(damaged)?).map_err(damaged)?;
        merged.entry(series_key(row, 0)?).or_default().merge(&part);
    }
    Ok(merged.into_iter().map(|(key, rollup)| Series { key, rollup }).collect())
}

pub(super) fn environments(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
    window: Window,
    oldest_kept_us: u64,
) -> Result<Vec<EnvironmentState>, StoreError> {
    let from = to_sql(window.from_hour.saturating_mul(HOUR_US));
    let until = to_sql(window.until_hour.saturating_mul(HOUR_US));
    let mut scope = Scope::new(tenant, function);
    scope.and("received_at_us >= ", &from);
    scope.and("received_at_us < ", &until);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT *,
            (SELECT MAX(earlier.sequence) FROM batch AS earlier
             WHERE earlier.tenant = ?1 AND earlier.account = a AND earlier.region = r AND earlier.function = f
               AND earlier.environment = e AND earlier.sequence < first) AS previous,
            (SELECT COUNT(*) FROM batch AS arrived
             WHERE arrived.tenant = ?1 AND arrived.account = a AND arrived.region = r AND arrived.function = f
               AND arrived.environment = e AND arrived.sequence BETWEEN first AND latest) AS batches
         FROM batch JOIN
            (SELECT account AS a, region AS r, function AS f, environment AS e,
                    MIN(sequence) AS first, MAX(sequence) AS latest,
                    MIN(received_at_us) AS oldest_us
             FROM batch WHERE {} GROUP BY account, region, function, environment)
         ON account = a AND region = r AND function = f AND environment = e AND sequence = latest
         WHERE tenant = ?1",
        scope.condition
    ))?;
    let rows =
        statement.query_map(scope.parameters.as_slice(), |row| environment_state(row, oldest_kept_us))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Batches of an environment that did not arrive, in the window of the query.
///
/// `previous` is the last batch before the window. Without one, the environment's first batch belongs to the window,
/// unless the oldest row is so old that earlier rows may have been deleted.
fn missing_batches(row: &Row<'_>, oldest_kept_us: u64) -> rusqlite::Result<u64> {
    /// Much longer than the time between two batches of an environment.
    const DAY_US: u64 = 24 * HOUR_US;
    let count = |name: &str| row.get::<_, i64>(name).map(from_sql);
    let before = match row.get::<_, Option<i64>>("previous")? {
        Some(previous) => from_sql(previous),
        None if count("oldest_us")? < oldest_kept_us.saturating_add(DAY_US) => {
            count("first")?.saturating_sub(1)
        }
        None => 0,
    };
    Ok(count("latest")?.saturating_sub(before).saturating_sub(count("batches")?))
}

fn environment_state(row: &Row<'_>, oldest_kept_us: u64) -> rusqlite::Result<EnvironmentState> {
    let count = |name: &str| row.get::<_, i64>(name).map(from_sql);
    let architecture: String = row.get("architecture")?;
    let conversion = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error)
    };
    let header = BatchHeader {
        environment: Environment {
            id: EnvironmentId(row.get("environment")?),
            account: row.get("account")?,
            region: row.get("region")?,
            function: row.get("function")?,
            version: row.get("version")?,
            memory: Megabytes(row.get("memory_mb")?),
            architecture: Architecture::from_str(&architecture).map_err(|error| conversion(error.into()))?,
            runtime: row.get("runtime")?,
            initialization_type: row.get::<_, String>("initialization_type")?.into(),
            extension_version: row.get("extension_version")?,
            ephemeral_mb: row.get("ephemeral_mb")?,
            timeout_ms: count("timeout_ms")?,
        },
        sequence: count("sequence")?,
        sent_at_us: count("sent_at_us")?,
        lost: Lost {
            invocations: count("lost_invocations")?,
            platform_records: count("lost_platform_records")?,
            undecodable_records: count("lost_undecodable_records")?,
            failed_deliveries: count("failed_deliveries")?,
        },
        unsent: count("unsent")?,
        overhead: Overhead {
            cpu_us: count("overhead_cpu_us")?,
            resident_kib: count("overhead_resident_kib")?,
            sent_bytes: count("overhead_sent_bytes")?,
            ticks: count("overhead_ticks")?,
        },
    };
    Ok(EnvironmentState {
        header,
        missing_batches: missing_batches(row, oldest_kept_us)?,
        received_at_us: count("received_at_us")?,
    })
}

pub(super) fn recent(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionKey,
    limit: usize,
) -> Result<Vec<Recent>, StoreError> {
    let scope = Scope::new(tenant, Some(function));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT body FROM recent WHERE {} ORDER BY last_at_us DESC",
        scope.condition
    ))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut newest = Vec::new();
    while let Some(row) = rows.next()? {
        let batch = Batch::decode(row.get_ref(0)?.as_blob().map_err(damaged)?).map_err(damaged)?;
        newest.extend(batch.invocations.into_iter().map(|invocation| Recent {
            environment: batch.header.environment.id,
            memory: batch.header.environment.memory,
            invocation,
        }));
        if newest.len() >= limit {
            break;
        }
    }
    newest.sort_by_key(|recent| std::cmp::Reverse(recent.invocation.started_at_us));
    newest.truncate(limit);
    Ok(newest)
}

pub(super) fn changes(
    connection: &Connection,
    tenant: &Tenant,
    function: Option<&FunctionKey>,
) -> Result<Vec<ChangeEvent>, StoreError> {
    let scope = Scope::new(tenant, function);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT account, region, function, change_id, step, at_us, kind, detail FROM change_event
         WHERE {} ORDER BY change_id, step",
        scope.condition
    ))?;
    let mut rows = statement.query(scope.parameters.as_slice())?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: String = row.get(7)?;
        events.push(ChangeEvent {
            function: FunctionKey { account: row.get(0)?, region: row.get(1)?, name: row.get(2)? },
            change_id: row.get(3)?,
            step: from_sql(row.get(4)?),
            at_us: from_sql(row.get(5)?),
            kind: row.get(6)?,
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
