//! Single invocations in the embedded store.

use rusqlite::{Connection, params};

use super::compaction::OF_FUNCTION;
use super::rows::RECENT;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::recent::{Body, RECENT_INVOCATIONS, pack};
use crate::store::rows::{column, from_sql};
use crate::store::{FunctionKey, StoreError, Tenant};

/// Stores the newest of these batches, up to [`RECENT_INVOCATIONS`]; returns the number of invocations stored.
pub(super) fn insert(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    bodies: Vec<Body>,
) -> Result<u64, StoreError> {
    let mut stored = 0;
    for row in pack(bodies)? {
        stored += row.invocations;
        columns::of_recent(tenant, key, &row, |fields| RECENT.insert(connection, fields))?;
    }
    Ok(stored)
}

/// Deletes the rows that are older than the newest [`RECENT_INVOCATIONS`]; returns the number of invocations kept.
pub(super) fn trim(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    damage: &DamageLog,
) -> Result<u64, StoreError> {
    let FunctionKey { account, region, name } = key;
    let mut kept = 0u64;
    let mut oldest_kept: Option<(i64, Vec<u8>)> = None;
    {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE {OF_FUNCTION} ORDER BY last_at_us DESC, part DESC",
            RECENT.select
        ))?;
        let mut rows = statement.query(params![tenant.0, account, region, name])?;
        while let Some(row) = rows.next()? {
            // A damaged row is kept for `tailor check`, and its number of invocations is not trusted.
            if RECENT.verify(row, damage)? {
                kept = kept.saturating_add(from_sql(row.get(column::recent::invocations)?));
            }
            oldest_kept = Some((row.get(column::recent::last_at_us)?, row.get(column::recent::part)?));
            if kept >= RECENT_INVOCATIONS {
                break;
            }
        }
    }
    if let Some((last_at_us, part)) = oldest_kept {
        connection
            .prepare_cached(&format!(
                "DELETE FROM recent WHERE {OF_FUNCTION} AND (last_at_us, part) < (?5, ?6)"
            ))?
            .execute(params![tenant.0, account, region, name, last_at_us, part])?;
    }
    Ok(kept)
}
