//! Migration of the schema versions 1 to 3, which had one row per batch.

use std::str::FromStr;

use rusqlite::{Row, Transaction, params};

use agent_proto::batch::{BatchHeader, Environment, EnvironmentId, Lost, Overhead};
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::compaction::{add_recent, put_environment, put_function};
use super::recent;
use super::rows::{insert_change, owner, put_rollup};
use super::schema;
use crate::store::recent::Body;
use crate::store::rows::damaged;
use crate::store::sequences::Sequences;
use crate::store::{ChangeEvent, EnvironmentState, FunctionKey, HOUR_US, SeriesKey, StoreError, Tenant};

/// Bytes of single invocations that are written at a time.
const MAX_BODIES_BYTES: usize = 4 << 20;

/// Batch rows were deleted after 30 days. The first batches of an environment that is older are not missing.
const OLDEST_ROWS_US: u64 = 29 * 24 * HOUR_US;

/// Moves everything into the current tables.
pub(super) fn from_rows_per_batch(
    transaction: &Transaction<'_>,
    found: i64,
    now_us: u64,
) -> Result<(), StoreError> {
    if found < 2 {
        transaction.execute_batch("ALTER TABLE batch ADD COLUMN unsent BIGINT NOT NULL DEFAULT 0")?;
    }
    if found < 3 {
        transaction.execute_batch("ALTER TABLE batch ADD COLUMN sent_at_us BIGINT NOT NULL DEFAULT 0")?;
    }
    transaction.execute_batch(
        "ALTER TABLE rollup RENAME TO old_rollup; ALTER TABLE recent RENAME TO old_recent;
         ALTER TABLE change_event RENAME TO old_change_event;",
    )?;
    transaction.execute_batch(schema::TABLES)?;
    environments(transaction, now_us)?;
    rollups(transaction)?;
    recent_invocations(transaction)?;
    changes(transaction)?;
    transaction.execute_batch(
        "DROP TABLE batch; DROP TABLE old_rollup; DROP TABLE old_recent; DROP TABLE old_change_event;",
    )?;
    Ok(())
}

/// One state for each environment, from the rows of its batches.
fn environments(transaction: &Transaction<'_>, now_us: u64) -> Result<(), StoreError> {
    let mut statement = transaction
        .prepare("SELECT * FROM batch ORDER BY tenant, account, region, function, environment, sequence")?;
    let mut rows = statement.query([])?;
    let mut current: Option<(Tenant, EnvironmentState)> = None;
    let finish = |current: Option<(Tenant, EnvironmentState)>| match current {
        Some((tenant, state)) => {
            put_environment(transaction, &tenant, &state)?;
            put_function(transaction, &tenant, &state.header, state.received_at_us, 0)
        }
        None => Ok(()),
    };
    while let Some(row) = rows.next()? {
        let tenant = Tenant(row.get("tenant")?);
        let (header, received_at_us) = (header(row)?, count(row, "received_at_us")?);
        let same = current.as_mut().filter(|(owner, state)| {
            let (a, b) = (&state.header.environment, &header.environment);
            *owner == tenant && a.id == b.id && FunctionKey::of(a) == FunctionKey::of(b)
        });
        if let Some((_, state)) = same {
            state.add(header, received_at_us);
            continue;
        }
        finish(current.take())?;
        let mut state = EnvironmentState::first(header, received_at_us);
        if received_at_us < now_us.saturating_sub(OLDEST_ROWS_US) {
            state.sequences = Sequences::up_to(state.header.sequence);
        }
        current = Some((tenant, state));
    }
    finish(current)
}

fn count(row: &Row<'_>, name: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(name)?).unwrap_or(0))
}

fn header(row: &Row<'_>) -> Result<BatchHeader, StoreError> {
    let count = |name: &str| count(row, name);
    let architecture: String = row.get("architecture")?;
    Ok(BatchHeader {
        environment: Environment {
            id: EnvironmentId(row.get("environment")?),
            account: row.get("account")?,
            region: row.get("region")?,
            function: row.get("function")?,
            version: row.get("version")?,
            memory: Megabytes(row.get("memory_mb")?),
            architecture: Architecture::from_str(&architecture).map_err(damaged)?,
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
        interval: None,
        overhead: Overhead {
            cpu_us: count("overhead_cpu_us")?,
            resident_kib: count("overhead_resident_kib")?,
            sent_bytes: count("overhead_sent_bytes")?,
            ticks: count("overhead_ticks")?,
        },
    })
}

/// One row for each series and hour, from its partial rollups.
fn rollups(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let mut statement = transaction.prepare(
        "SELECT tenant, account, region, function, hour, version, memory_mb, architecture, body FROM old_rollup
         ORDER BY tenant, account, region, function, hour, version, memory_mb, architecture",
    )?;
    let mut rows = statement.query([])?;
    let mut current: Option<((Tenant, SeriesKey, u64), Rollup)> = None;
    while let Some(row) = rows.next()? {
        let (tenant, function) = owner(row)?;
        let architecture: String = row.get("architecture")?;
        let key = SeriesKey {
            function,
            version: row.get("version")?,
            memory: Megabytes(row.get("memory_mb")?),
            architecture: Architecture::from_str(&architecture).map_err(damaged)?,
        };
        let key = (tenant, key, count(row, "hour")?);
        // These rows have no checksum. One that cannot be read is left out, so that the others are kept.
        let part = match row.get_ref("body")?.as_blob().map_err(damaged).map(rollup::decode) {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => {
                tracing::error!(%error, function = key.1.function.name, hour = key.2, "a damaged rollup is left out");
                continue;
            }
            Err(error) => return Err(error),
        };
        match &mut current {
            Some((same, merged)) if *same == key => merged.merge(&part),
            _ => {
                if let Some(((tenant, key, hour), merged)) = current.replace((key, part)) {
                    put_rollup(transaction, &tenant, &key, (1, hour), &merged)?;
                }
            }
        }
    }
    if let Some(((tenant, key, hour), merged)) = current {
        put_rollup(transaction, &tenant, &key, (1, hour), &merged)?;
    }
    Ok(())
}

fn recent_invocations(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let mut statement = transaction.prepare(
        "SELECT tenant, account, region, function, last_at_us, invocations, body FROM old_recent
         ORDER BY tenant, account, region, function, last_at_us",
    )?;
    let mut rows = statement.query([])?;
    let mut current: Option<(Tenant, FunctionKey)> = None;
    let (mut bodies, mut bytes) = (Vec::new(), 0);
    let write = |function: &Option<(Tenant, FunctionKey)>, bodies: Vec<Body>| -> Result<(), StoreError> {
        let Some((tenant, key)) = function else { return Ok(()) };
        let stored = recent::insert(transaction, tenant, key, bodies)?;
        add_recent(transaction, tenant, key, stored)
    };
    while let Some(row) = rows.next()? {
        let function = owner(row)?;
        if current.as_ref() != Some(&function) || bytes > MAX_BODIES_BYTES {
            write(&current, std::mem::take(&mut bodies))?;
            bytes = 0;
            current = Some(function);
        }
        let body: Vec<u8> = row.get("body")?;
        bytes += body.len();
        bodies.push(Body {
            last_at_us: count(row, "last_at_us")?,
            invocations: count(row, "invocations")?,
            bytes: body,
        });
    }
    write(&current, bodies)
}

fn changes(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let mut statement = transaction.prepare(
        "SELECT tenant, account, region, function, change_id, step, at_us, kind, detail FROM old_change_event",
    )?;
    let mut rows = statement.query(params![])?;
    while let Some(row) = rows.next()? {
        let (tenant, function) = owner(row)?;
        let detail: String = row.get("detail")?;
        let event = ChangeEvent {
            function,
            change_id: row.get("change_id")?,
            step: count(row, "step")?,
            at_us: count(row, "at_us")?,
            kind: row.get("kind")?,
            detail: serde_json::from_str(&detail).map_err(damaged)?,
        };
        insert_change(transaction, &tenant, &event)?;
    }
    Ok(())
}
