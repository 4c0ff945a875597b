//! Seals files: fixes their parts, so that the name and the content of an object stay the same in each attempt.

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use tailor_archive::{Partition, Totals};

use super::{FILE, Known, OF_PARTITION, PART, PARTITION, file, put_file};
use crate::store::StoreError;
use crate::store::archive::{Part, SealLimits, SealedFile};
use crate::store::damage::DamageLog;
use crate::store::sqlite::recent;
use crate::store::sqlite::rows::{blob, from_sql, to_ordered_sql, to_sql};

/// Maximum number of invocations in a file. More would only make each query read larger objects.
const MAX_FILE_INVOCATIONS: u64 = 1_000_000;

/// Characters of the digest in the name of an object.
const DIGEST_CHARACTERS: usize = 12;

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
                let known = Known::read(row)?;
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

/// A file that is being collected.
#[derive(Default)]
struct Collected {
    range: Option<(u64, u64)>,
    totals: Totals,
    bytes: u64,
    digest: Sha256,
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
    let mut files = vec![];
    let mut current = Collected::default();
    {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT number, invocations, billed_ms, LENGTH(body), checksum FROM archive_part
             WHERE {OF_PARTITION} AND number >= ?4 ORDER BY number"
        ))?;
        let mut rows = statement.query(params![
            partition.tenant,
            to_sql(partition.day),
            partition.account,
            to_ordered_sql(start)
        ])?;
        while let Some(row) = rows.next()? {
            let number = from_sql(row.get(0)?);
            current.range = Some((current.range.map_or(number, |(first, _)| first), number));
            current
                .totals
                .add(Totals { invocations: from_sql(row.get(1)?), billed_ms: from_sql(row.get(2)?) });
            current.bytes += from_sql(row.get(3)?);
            current.digest.update(number.to_be_bytes());
            current.digest.update(row.get::<_, i64>(4)?.to_be_bytes());
            if current.bytes >= max_bytes || current.totals.invocations >= MAX_FILE_INVOCATIONS {
                files.push(std::mem::take(&mut current));
            }
        }
    }
    if takes_rest {
        files.push(std::mem::take(&mut current));
    }
    for Collected { range, totals, digest, .. } in files {
        let Some((first, last)) = range else { continue };
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = SealedFile {
            partition: partition.clone(),
            first,
            last,
            digest: digest[..DIGEST_CHARACTERS].to_owned(),
            totals,
            sealed_at_us: now_us,
            upload: None,
        };
        put_file(connection, &file, true)?;
        known.first_waiting = last + 1;
    }
    known.state.waiting_bytes = current.bytes;
    known.state.waiting_invocations = current.totals.invocations;
    known.state.waiting_since_us = if current.totals.invocations > 0 { now_us } else { 0 };
    known.put(connection)
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

/// The parts of a file from a number on, up to about `max_bytes`.
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
        let body = blob(row, 6)?;
        bytes += body.len() as u64;
        let batches = if PART.verify(row, damage)? { recent::batches(body)? } else { vec![] };
        parts.push(Part { number: from_sql(row.get(3)?), batches });
    }
    Ok(parts)
}
