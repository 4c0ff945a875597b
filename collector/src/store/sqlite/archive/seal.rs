//! Seals files: fixes their parts, so that the name and the content of an object stay the same in each attempt.

use rusqlite::{Connection, params};
use tailor_archive::{Partition, Totals};

use super::{OF_PARTITION, file, known, put, put_file};
use crate::store::StoreError;
use crate::store::archive::{Known, Part, SealLimits, SealedFile, Sealing};
use crate::store::damage::DamageLog;
use crate::store::recent;
use crate::store::rows::column::archive_part;
use crate::store::rows::{from_sql, to_ordered_sql, to_sql};
use crate::store::sqlite::rows::{FILE, PART, PARTITION, blob};

/// Maximum number of files that are read for one round of uploads.
const MAX_FILES: usize = 100;

/// Seals the files that are due. The caller commits it with a sync before an upload begins.
pub(in crate::store::sqlite) fn seal(
    connection: &Connection,
    limits: SealLimits,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    let mut due = vec![];
    {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE waiting_invocations > 0 ORDER BY tenant, day, account",
            PARTITION.select
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if PARTITION.verify(row, damage)? {
                let known = known(row)?;
                let is_old = known.state.waiting_since_us.saturating_add(limits.max_age_us) <= now_us;
                if is_old || known.state.waiting_bytes >= limits.max_bytes {
                    due.push((known, is_old));
                }
            }
        }
    }
    for (known, is_old) in due {
        seal_partition(connection, known, limits.max_bytes, is_old, now_us)?;
    }
    Ok(())
}

fn seal_partition(
    connection: &Connection,
    mut known: Known,
    max_bytes: u64,
    takes_rest: bool,
    now_us: u64,
) -> Result<(), StoreError> {
    let partition = known.state.partition.clone();
    let start = known.first_waiting.max(last_sealed(connection, &partition)?.map_or(0, |last| last + 1));
    let mut sealing = Sealing::new(max_bytes);
    {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT number, invocations, billed_ms, LENGTH(body) AS bytes, checksum FROM archive_part
             WHERE {OF_PARTITION} AND number >= ?4 ORDER BY number"
        ))?;
        let mut rows = statement.query(params![
            partition.tenant,
            to_sql(partition.day),
            partition.account,
            to_ordered_sql(start)
        ])?;
        while let Some(row) = rows.next()? {
            let number = |name| Ok::<_, StoreError>(from_sql(row.get(name)?));
            let totals = Totals { invocations: number("invocations")?, billed_ms: number("billed_ms")? };
            sealing.add(number("number")?, totals, number("bytes")?, row.get("checksum")?);
        }
    }
    for file in sealing.finish(&mut known, takes_rest, now_us) {
        put_file(connection, &file, true)?;
    }
    put(connection, &known)
}

/// The last part of the last file of a partition.
fn last_sealed(connection: &Connection, partition: &Partition) -> Result<Option<u64>, StoreError> {
    let last: Option<i64> = connection
        .prepare_cached(&format!("SELECT MAX(last) FROM archive_file WHERE {OF_PARTITION}"))?
        .query_row(params![partition.tenant, to_sql(partition.day), partition.account], |row| row.get(0))?;
    Ok(last.map(from_sql))
}

/// The files that wait for their upload, the oldest first.
pub(in crate::store::sqlite) fn files_to_upload(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<Vec<SealedFile>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "{} WHERE has_parts > 0 AND uploaded_at_us = 0 ORDER BY sealed_at_us, first LIMIT {MAX_FILES}",
        FILE.select
    ))?;
    let mut rows = statement.query([])?;
    let mut files = vec![];
    while let Some(row) = rows.next()? {
        if FILE.verify(row, damage)? {
            files.push(file(row)?.0);
        }
    }
    Ok(files)
}

/// The parts of a file from a number on, up to about `max_bytes`. One that cannot be read has no batches, and is reported.
pub(in crate::store::sqlite) fn parts(
    connection: &Connection,
    file: &SealedFile,
    from: u64,
    max_bytes: u64,
    damage: &DamageLog,
) -> Result<Vec<Part>, StoreError> {
    let SealedFile { partition, last, .. } = file;
    let mut statement = connection.prepare_cached(&format!(
        "{} WHERE {OF_PARTITION} AND number BETWEEN ?4 AND ?5 ORDER BY number",
        PART.select
    ))?;
    let mut rows = statement.query(params![
        partition.tenant,
        to_sql(partition.day),
        partition.account,
        to_ordered_sql(from),
        to_ordered_sql(*last)
    ])?;
    let (mut parts, mut bytes) = (vec![], 0);
    while let Some(row) = rows.next()?.filter(|_| bytes < max_bytes) {
        let body = blob(row, archive_part::body)?;
        bytes += body.len() as u64;
        let batches = if PART.is_valid(row)? { recent::batches(body).ok() } else { None };
        if batches.is_none() {
            damage.report(PART.row_name(row)?);
        }
        let (number, checksum) = (from_sql(row.get(archive_part::number)?), row.get(archive_part::checksum)?);
        parts.push(Part { number, checksum, batches: batches.unwrap_or_default() });
    }
    Ok(parts)
}
