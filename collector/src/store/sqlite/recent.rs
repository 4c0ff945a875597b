//! Single invocations: the newest batches of a function, several in one compressed row.

use agent_proto::batch::Batch;
use rusqlite::{Connection, params};

use super::rows::{RECENT, damaged, from_sql};
use crate::random;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::{FunctionKey, Recent, StoreError, Tenant};

/// Minimum number of latest single invocations that are kept of each function.
pub(in crate::store) const RECENT_INVOCATIONS: u64 = 2_000;

/// Compression level: the fastest. Batches of one function are similar, so it saves most of what a higher one does.
const LEVEL: i32 = 1;

/// Largest uncompressed row, bytes. A larger batch has a row of its own.
const MAX_ROW_BYTES: usize = 256 << 10;

/// Largest row that is decompressed, bytes: more than what one compaction merges, and one batch.
const MAX_DECOMPRESSED_BYTES: usize = 8 << 20;

/// A batch to keep.
pub(in crate::store) struct Body {
    pub(in crate::store) last_at_us: u64,
    pub(in crate::store) invocations: u64,
    pub(in crate::store) bytes: Vec<u8>,
}

/// Several batches in one compressed row.
pub(in crate::store) struct PackedRow {
    /// Distinguishes rows with the same time.
    pub(in crate::store) part: [u8; 8],
    pub(in crate::store) last_at_us: u64,
    pub(in crate::store) invocations: u64,
    pub(in crate::store) body: Vec<u8>,
}

/// Collects the single invocations of batches.
#[derive(Default)]
pub(in crate::store) struct Newest(Vec<Recent>);

impl Newest {
    /// Adds the invocations of an encoded batch; none when its invocations are not kept.
    pub(in crate::store) fn add(&mut self, body: &[u8]) -> Result<(), StoreError> {
        if body.is_empty() {
            return Ok(());
        }
        let batch = Batch::decode(body).map_err(damaged)?;
        let (environment, memory) = (batch.header.environment.id, batch.header.environment.memory);
        self.0.extend(batch.invocations.into_iter().map(|invocation| Recent {
            environment,
            memory,
            invocation,
        }));
        Ok(())
    }

    /// At most `limit` invocations, the newest first.
    pub(in crate::store) fn take(mut self, limit: usize) -> Vec<Recent> {
        self.0.sort_by_key(|recent| std::cmp::Reverse(recent.invocation.started_at_us));
        self.0.truncate(limit);
        self.0
    }
}

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

/// The newest of these batches, up to [`RECENT_INVOCATIONS`], as rows.
pub(in crate::store) fn pack(mut bodies: Vec<Body>) -> Result<Vec<PackedRow>, StoreError> {
    bodies.retain(|body| body.invocations > 0 && !body.bytes.is_empty());
    bodies.sort_by_key(|body| std::cmp::Reverse(body.last_at_us));
    let mut rows = vec![];
    let (mut stored, mut row, mut row_invocations, mut row_last_us) = (0u64, Vec::new(), 0, 0);
    for body in bodies {
        if stored >= RECENT_INVOCATIONS {
            break;
        }
        if !row.is_empty() && row.len() + body.bytes.len() > MAX_ROW_BYTES {
            rows.push(pack_row((row_last_us, row_invocations), &std::mem::take(&mut row))?);
            (row_invocations, row_last_us) = (0, 0);
        }
        row_last_us = row_last_us.max(body.last_at_us);
        row_invocations += body.invocations;
        stored += body.invocations;
        push(&mut row, &body.bytes);
    }
    if !row.is_empty() {
        rows.push(pack_row((row_last_us, row_invocations), &row)?);
    }
    Ok(rows)
}

/// Appends a batch with its length.
fn push(row: &mut Vec<u8>, batch: &[u8]) {
    row.extend_from_slice(&(batch.len() as u64).to_le_bytes());
    row.extend_from_slice(batch);
}

/// Several batches as one compressed value, which [`batches`] reads.
pub(in crate::store) fn compress(batches: &[Vec<u8>]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![];
    batches.iter().for_each(|batch| push(&mut bytes, batch));
    zstd::bulk::compress(&bytes, LEVEL)
        .map_err(|error| StoreError::Engine(format!("cannot compress: {error}")))
}

fn pack_row((last_at_us, invocations): (u64, u64), bytes: &[u8]) -> Result<PackedRow, StoreError> {
    let part = random::bytes()?;
    let body = zstd::bulk::compress(bytes, LEVEL)
        .map_err(|error| StoreError::Engine(format!("cannot compress: {error}")))?;
    Ok(PackedRow { part, last_at_us, invocations, body })
}

/// The batches of one row's body.
pub(in crate::store) fn batches(body: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let bytes = zstd::bulk::decompress(body, MAX_DECOMPRESSED_BYTES).map_err(damaged)?;
    let mut rest = bytes.as_slice();
    let mut batches = vec![];
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(damaged)?;
        let (batch, after) = after.split_at_checked(length).ok_or_else(|| damaged("batches are cut"))?;
        batches.push(batch.to_vec());
        rest = after;
    }
    Ok(batches)
}

/// Deletes the rows that are older than the newest [`RECENT_INVOCATIONS`]; returns the number of invocations kept.
pub(super) fn trim(
    connection: &Connection,
    tenant: &Tenant,
    key: &FunctionKey,
    damage: &DamageLog,
) -> Result<u64, StoreError> {
    const FUNCTION: &str = "tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4";
    let FunctionKey { account, region, name } = key;
    let mut kept = 0u64;
    let mut oldest_kept: Option<(i64, Vec<u8>)> = None;
    {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE {FUNCTION} ORDER BY last_at_us DESC, part DESC",
            RECENT.select
        ))?;
        let mut rows = statement.query(params![tenant.0, account, region, name])?;
        while let Some(row) = rows.next()? {
            // A damaged row is kept for `tailor check`, and its number of invocations is not trusted.
            if RECENT.verify(row, damage)? {
                kept = kept.saturating_add(from_sql(row.get(6)?));
            }
            oldest_kept = Some((row.get(4)?, row.get(5)?));
            if kept >= RECENT_INVOCATIONS {
                break;
            }
        }
    }
    if let Some((last_at_us, part)) = oldest_kept {
        connection
            .prepare_cached(&format!(
                "DELETE FROM recent WHERE {FUNCTION} AND (last_at_us, part) < (?5, ?6)"
            ))?
            .execute(params![tenant.0, account, region, name, last_at_us, part])?;
    }
    Ok(kept)
}
