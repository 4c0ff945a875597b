//! Conversion between values and rows.

use std::str::FromStr;

use rusqlite::{Row, Transaction, params};

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::store::{FunctionKey, SeriesKey, StoreError, Tenant};

/// Reads a series key whose account is in column `first`.
pub(super) fn series_key(row: &Row<'_>, first: usize) -> rusqlite::Result<SeriesKey> {
    let architecture: String = row.get(first + 5)?;
    Ok(SeriesKey {
        function: FunctionKey {
            account: row.get(first)?,
            region: row.get(first + 1)?,
            name: row.get(first + 2)?,
        },
        version: row.get(first + 3)?,
        memory: Megabytes(row.get(first + 4)?),
        architecture: Architecture::from_str(&architecture).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(first + 5, rusqlite::types::Type::Text, Box::new(error))
        })?,
    })
}

/// The error for stored data that cannot be decoded.
pub(super) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// Inserts one partial rollup with a new random id.
pub(super) fn insert_rollup(
    transaction: &Transaction<'_>,
    tenant: &Tenant,
    key: &SeriesKey,
    hour: u64,
    rollup: &Rollup,
) -> Result<(), StoreError> {
    let FunctionKey { account, region, name } = &key.function;
    transaction
        .prepare_cached(
            "INSERT INTO rollup
                 (tenant, account, region, function, hour, version, memory_mb, architecture, part, body)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        )?
        .execute(params![
            tenant.0,
            account,
            region,
            name,
            to_sql(hour),
            key.version,
            key.memory.0,
            key.architecture.as_str(),
            part_id()?.as_slice(),
            rollup::encode(rollup),
        ])?;
    Ok(())
}

fn part_id() -> Result<[u8; 16], StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| StoreError::Engine(format!("the system provides no random numbers: {error}")))?;
    Ok(id)
}

/// SQLite's integers are signed; no stored value exceeds `i64::MAX` in practice.
pub(super) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
