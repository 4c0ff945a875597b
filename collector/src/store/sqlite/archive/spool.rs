//! Writes invocations to the spool, in the transaction that adds them to the rollups.

use rusqlite::Connection;
use tailor_archive::Partition;

use super::{load, meta, put, put_meta};
use crate::store::archive::{Piece, Pieces};
use crate::store::damage::DamageLog;
use crate::store::recent;
use crate::store::rows::{Field, damaged, to_ordered_sql, to_sql};
use crate::store::sqlite::rows::PART;
use crate::store::{FunctionKey, StoreError, Tenant};

/// The names in the table `meta`: the next number of a part, the limit of the spool (0 when the archive is off), and when the
/// archive was switched on first.
const NEXT: &str = "archive-next";
const LIMIT: &str = "archive-spool-bytes";
const SINCE: &str = "archive-since-us";

/// Whether the archive is on, and how full its spool is.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Spool {
    /// The limit, bytes; `None` when the archive is off.
    limit_bytes: Option<u64>,
    /// Whether the archive was ever on. Then what is not spooled is counted.
    is_counted: bool,
    /// The size of all parts, bytes; `None` when it must be read again.
    used_bytes: Option<u64>,
}

impl Spool {
    /// Reads the setting.
    pub(in crate::store::sqlite) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let limit_bytes = meta(connection, LIMIT)?.filter(|bytes| *bytes > 0);
        Ok(Self { limit_bytes, is_counted: meta(connection, SINCE)?.is_some(), used_bytes: None })
    }

    /// Stores the setting.
    pub(in crate::store::sqlite) fn set(
        &mut self,
        connection: &Connection,
        limit_bytes: Option<u64>,
        now_us: u64,
    ) -> Result<(), StoreError> {
        if self.limit_bytes != limit_bytes {
            put_meta(connection, LIMIT, limit_bytes.unwrap_or(0))?;
        }
        if !self.is_counted && limit_bytes.is_some() {
            put_meta(connection, SINCE, now_us)?;
        }
        *self = Self::load(connection)?;
        Ok(())
    }

    /// Whether the compaction passes its batches to [`add`].
    pub(in crate::store::sqlite) const fn is_used(&self) -> bool {
        self.is_counted
    }

    /// Reads the size again when it is needed next, because parts were removed or a transaction failed.
    pub(in crate::store::sqlite) fn reset_size(&mut self) {
        self.used_bytes = None;
    }

    fn used(&mut self, connection: &Connection) -> Result<u64, StoreError> {
        let used_bytes = match self.used_bytes {
            Some(used_bytes) => used_bytes,
            None => size(connection)?,
        };
        self.used_bytes = Some(used_bytes);
        Ok(used_bytes)
    }
}

/// The size of all parts, bytes.
pub(super) fn size(connection: &Connection) -> Result<u64, StoreError> {
    // The length of a value is known without reading it.
    let bytes: i64 = connection
        .prepare_cached("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM archive_part")?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The limit of the spool, and when the archive was switched on first, microseconds since the Unix epoch.
pub(super) fn setting(connection: &Connection) -> Result<(Option<u64>, u64), StoreError> {
    let limit_bytes = meta(connection, LIMIT)?.filter(|bytes| *bytes > 0);
    Ok((limit_bytes, meta(connection, SINCE)?.unwrap_or(0)))
}

/// Copies the settings into a store that has the rows of `old` that can be read. The numbers of parts continue after all of
/// these.
pub(in crate::store::sqlite) fn copy_settings(old: &Connection, new: &Connection) -> Result<(), StoreError> {
    for name in [NEXT, LIMIT, SINCE] {
        if let Ok(Some(value)) = meta(old, name) {
            put_meta(new, name, value)?;
        }
    }
    let last: Option<i64> = new.query_row(
        "SELECT MAX(number) FROM (SELECT number FROM archive_part UNION ALL SELECT last FROM archive_file)",
        [],
        |row| row.get(0),
    )?;
    let next = meta(new, NEXT)?.unwrap_or(1);
    let after_last = last.map_or(1, |last| u64::try_from(last).unwrap_or(0) + 1);
    if after_last > next { put_meta(new, NEXT, after_last) } else { Ok(()) }
}

/// Writes the batches of one function, at least one part for each day. What the spool has no space for is counted.
pub(in crate::store::sqlite) fn add(
    connection: &Connection,
    spool: &mut Spool,
    (tenant, key): (&Tenant, &FunctionKey),
    pieces: Pieces,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    for (day, Piece { batches, totals, absent, .. }) in pieces.into_parts() {
        let partition = Partition { tenant: tenant.0.clone(), day, account: key.account.clone() };
        let mut known = load(connection, &partition, damage)?;
        known.state.dropped.add(absent);
        let body = recent::compress(&batches)?;
        let bytes = body.len() as u64;
        let used_bytes = spool.used(connection)?;
        if totals.invocations == 0 {
            // All of its batches are absent.
        } else if spool.limit_bytes.is_none_or(|limit| used_bytes + bytes > limit) {
            known.state.dropped.add(totals);
        } else {
            let number = meta(connection, NEXT)?.unwrap_or(1);
            put_meta(connection, NEXT, number + 1)?;
            let is_new = PART.insert(
                connection,
                &[
                    Field::Text(&partition.tenant),
                    Field::Integer(to_sql(day)),
                    Field::Text(&partition.account),
                    Field::Integer(to_ordered_sql(number)),
                    Field::Integer(to_ordered_sql(totals.invocations)),
                    Field::Integer(to_ordered_sql(totals.billed_ms)),
                    Field::Blob(&body),
                ],
            )?;
            if !is_new {
                return Err(damaged(format!("part {number} of the archive exists")));
            }
            spool.used_bytes = Some(used_bytes + bytes);
            known.spool(bytes, totals, now_us);
        }
        put(connection, &known)?;
    }
    Ok(())
}
