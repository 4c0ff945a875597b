//! The record of uploads.

use std::collections::BTreeMap;

use agent_proto::rollup;
use rusqlite::{Connection, OptionalExtension, params};
use tailor_archive::{Partition, Totals};

use super::{OF_PARTITION, file, known, load, partition, put, put_file, spool};
use crate::store::StoreError;
use crate::store::archive::{ArchiveComparison, ArchiveRecord, SealedFile, Upload, missing};
use crate::store::damage::DamageLog;
use crate::store::retention::DAY_HOURS;
use crate::store::rows::{column, damaged, decode_rollups, from_sql, to_ordered_sql, to_sql};
use crate::store::sqlite::rows::{FILE, PARTITION, PENDING, ROLLUP, blob, owner};

/// Maximum size of the parts that one step removes, bytes, so that acknowledgements wait only a short time.
const REMOVE_BYTES: u64 = 1 << 20;

/// Records an upload. What damaged parts had is counted as dropped.
pub(in crate::store::sqlite) fn record_upload(
    connection: &Connection,
    sealed: &SealedFile,
    upload: Upload,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    let missing = missing(sealed, &upload);
    if missing.invocations > 0 {
        let mut known = load(connection, &sealed.partition, damage)?;
        known.drop_missing(missing);
        put(connection, &known)?;
    }
    put_file(connection, &SealedFile { upload: Some(upload), ..sealed.clone() }, true)
}

/// Removes some parts of one uploaded file. Returns whether there are more.
pub(in crate::store::sqlite) fn remove_uploaded(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<bool, StoreError> {
    let next = {
        let mut statement = connection.prepare_cached(&format!(
            "{} WHERE has_parts > 0 AND uploaded_at_us > 0 ORDER BY sealed_at_us LIMIT 1",
            FILE.select
        ))?;
        let mut rows = statement.query([])?;
        match rows.next()? {
            Some(row) if FILE.verify(row, damage)? => Some(file(row)?.0),
            _ => None,
        }
    };
    let Some(sealed) = next else { return Ok(false) };
    let SealedFile { partition, first, last, .. } = &sealed;
    let (mut bytes, mut until) = (0, None);
    {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT number, LENGTH(body) AS bytes FROM archive_part
             WHERE {OF_PARTITION} AND number BETWEEN ?4 AND ?5 ORDER BY number"
        ))?;
        let mut rows = statement.query(params![
            partition.tenant,
            to_sql(partition.day),
            partition.account,
            to_ordered_sql(*first),
            to_ordered_sql(*last)
        ])?;
        while let Some(row) = rows.next()?.filter(|_| bytes < REMOVE_BYTES) {
            until = Some(row.get::<_, i64>("number")?);
            bytes += from_sql(row.get("bytes")?);
        }
    }
    match until {
        Some(until) => {
            connection
                .prepare_cached(&format!(
                    "DELETE FROM archive_part WHERE {OF_PARTITION} AND number BETWEEN ?4 AND ?5"
                ))?
                .execute(params![
                    partition.tenant,
                    to_sql(partition.day),
                    partition.account,
                    to_ordered_sql(*first),
                    until
                ])?;
        }
        None => put_file(connection, &sealed, false)?,
    }
    Ok(true)
}

/// Removes the records of days before `day` of which nothing waits.
pub(in crate::store::sqlite) fn delete_record_before(
    connection: &Connection,
    day: u64,
) -> Result<(), StoreError> {
    connection.execute("DELETE FROM archive_file WHERE day < ?1 AND has_parts = 0", [to_ordered_sql(day)])?;
    connection.execute(
        "DELETE FROM archive_partition WHERE day < ?1 AND waiting_invocations = 0 AND NOT EXISTS (
            SELECT 1 FROM archive_file f WHERE f.tenant = archive_partition.tenant
            AND f.day = archive_partition.day AND f.account = archive_partition.account)",
        [to_ordered_sql(day)],
    )?;
    Ok(())
}

/// Everything that is recorded.
pub(in crate::store::sqlite) fn archive_record(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<ArchiveRecord, StoreError> {
    let (max_spool_bytes, since_us) = spool::setting(connection)?;
    let spool_bytes = spool::size(connection)?;
    let mut record = ArchiveRecord { max_spool_bytes, since_us, spool_bytes, ..ArchiveRecord::default() };
    let mut statement = connection.prepare_cached(&format!("{} ORDER BY 1, 2, 3", PARTITION.select))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if PARTITION.verify(row, damage)? {
            record.partitions.push(known(row)?.state);
        }
    }
    let mut statement = connection.prepare_cached(&format!("{} ORDER BY 1, 2, 3, 4", FILE.select))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if FILE.verify(row, damage)? {
            record.files.push(file(row)?.0);
        }
    }
    Ok(record)
}

/// The record with the totals of all rollups and pending batches. A read sees one snapshot.
pub(in crate::store::sqlite) fn comparison(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<ArchiveComparison, StoreError> {
    let record = archive_record(connection, damage)?;
    let (mut rollups, mut pending) = (BTreeMap::new(), BTreeMap::new());
    let add = |totals: &mut BTreeMap<Partition, Totals>, row: &rusqlite::Row<'_>, hour: u64, of: Totals| {
        let (tenant, function) = owner(row)?;
        let partition = Partition { tenant: tenant.0, account: function.account, day: hour / DAY_HOURS };
        totals.entry(partition).or_default().add(of);
        Ok::<_, StoreError>(())
    };
    {
        let mut statement = connection.prepare_cached(&ROLLUP.select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if ROLLUP.verify(row, damage)? {
                let rollup = rollup::decode(blob(row, column::rollup::body)?).map_err(damaged)?;
                let totals = Totals { invocations: rollup.invocations, billed_ms: rollup.billed_ms };
                add(&mut rollups, row, from_sql(row.get(column::rollup::hour)?), totals)?;
            }
        }
        let mut statement = connection.prepare_cached(&PENDING.select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if PENDING.verify(row, damage)? {
                for (hour, rollup) in decode_rollups(blob(row, column::pending::rollups)?)? {
                    let totals = Totals { invocations: rollup.invocations, billed_ms: rollup.billed_ms };
                    add(&mut pending, row, hour, totals)?;
                }
            }
        }
    }
    Ok(ArchiveComparison { record, rollups, pending })
}

/// Why the store cannot be migrated to a database: something waits for its upload.
pub(in crate::store) fn migration_problem(connection: &Connection) -> Result<Option<String>, StoreError> {
    let waiting = connection
        .query_row("SELECT tenant, day, account FROM archive_part LIMIT 1", [], |row| Ok(partition(row)))
        .optional()?;
    let Some(partition) = waiting.transpose()? else { return Ok(None) };
    Ok(Some(format!(
        "invocations of {partition} wait for the archive, and are not copied to a database: run `tailor archive flush` first"
    )))
}
