//! Single invocations: the newest batches of a function, several in one compressed row.

use agent_proto::batch::Batch;

use super::rows::damaged;
use super::{Recent, StoreError};
use crate::random;

/// Minimum number of latest single invocations that are kept of each function.
pub(super) const RECENT_INVOCATIONS: u64 = 2_000;

/// Compression level: the fastest. Batches of one function are similar, so it saves most of what a higher one does.
const LEVEL: i32 = 1;

/// Largest uncompressed row, bytes. A larger batch has a row of its own.
const MAX_ROW_BYTES: usize = 256 << 10;

/// Largest row that is decompressed, bytes: more than what one compaction merges, and one batch.
const MAX_DECOMPRESSED_BYTES: usize = 8 << 20;

/// A batch to keep.
pub(super) struct Body {
    pub(super) last_at_us: u64,
    pub(super) invocations: u64,
    pub(super) bytes: Vec<u8>,
}

/// Several batches in one compressed row.
pub(super) struct PackedRow {
    /// Distinguishes rows with the same time.
    pub(super) part: [u8; 8],
    pub(super) last_at_us: u64,
    pub(super) invocations: u64,
    pub(super) body: Vec<u8>,
}

/// Collects the single invocations of batches.
#[derive(Default)]
pub(super) struct Newest(Vec<Recent>);

impl Newest {
    /// Adds the invocations of an encoded batch; none when its invocations are not kept.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), StoreError> {
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
    pub(super) fn take(mut self, limit: usize) -> Vec<Recent> {
        self.0.sort_by_key(|recent| std::cmp::Reverse(recent.invocation.started_at_us));
        self.0.truncate(limit);
        self.0
    }
}

/// The newest of these batches, up to [`RECENT_INVOCATIONS`], as rows.
pub(super) fn pack(mut bodies: Vec<Body>) -> Result<Vec<PackedRow>, StoreError> {
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
pub(super) fn compress(batches: &[Vec<u8>]) -> Result<Vec<u8>, StoreError> {
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
pub(super) fn batches(body: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
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
