//! The spool of the archive in the database, and the record of its uploads.
//!
//! One row of the table `meta` has the state of the spool. Each transaction that changes the archive locks it first, after the
//! rows of functions, so that these transactions run one after another: numbers of parts are in the order of their commits, and
//! a sealed range never gets another part.

use std::collections::BTreeMap;

use agent_proto::rollup;
use tailor_archive::{DAY_US, Partition, Totals};

use super::compaction::Owner;
use super::connection::{Connection, Parameters};
use super::errors::Failure;
use super::retention::database_now_us;
use super::rows::{Cells, NewRow, PREFIX, Writes, insert, select};
use crate::store::StoreError;
use crate::store::archive::{
    ArchiveComparison, ArchiveRecord, Known, Part, Piece, Pieces, SealLimits, SealedFile, Sealing, Upload,
    file_of, missing, with_file_fields,
};
use crate::store::damage::DamageLog;
use crate::store::recent;
use crate::store::retention::DAY_HOURS;
use crate::store::rows::{
    FILE, Field, PART, PARTITION, PENDING, ROLLUP, column, damaged, decode_rollups, from_sql, to_ordered_sql,
    to_sql,
};

/// The name of the state in the table `meta`.
const STATE: &str = "archive";

/// The condition for the rows of one partition, with its key as the parameters 1 to 3.
const OF_PARTITION: &str = "tenant = $1 AND day = $2 AND account = $3";

/// Maximum number of files that are read for one round of uploads.
const MAX_FILES: usize = 100;

/// Maximum size of the parts that one step removes, bytes.
const REMOVE_BYTES: u64 = 8 << 20;

/// The state of the spool. It exists from the moment when the archive was switched on first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spool {
    /// The number of the next part.
    next: u64,
    /// The limit, bytes; 0 while the archive is off.
    limit_bytes: u64,
    /// When the archive was switched on first, microseconds since the Unix epoch.
    since_us: u64,
    /// The size of all parts, bytes.
    used_bytes: u64,
}

impl Spool {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { next: next()?, limit_bytes: next()?, since_us: next()?, used_bytes: next()? })
    }

    fn text(self) -> String {
        let Self { next, limit_bytes, since_us, used_bytes } = self;
        format!("{next} {limit_bytes} {since_us} {used_bytes}")
    }

    async fn put(self, connection: &Connection) -> Result<(), Failure> {
        let sql = "UPDATE tailor_meta SET value = $2 WHERE name = $1";
        connection.execute(sql, &[&STATE, &self.text()]).await.map(drop)
    }
}

/// The state, locked until the end of the transaction; `None` when the archive was never on.
pub(super) async fn lock(connection: &Connection) -> Result<Option<Spool>, Failure> {
    read_state(connection, " FOR UPDATE").await
}

async fn read_state(connection: &Connection, more: &str) -> Result<Option<Spool>, Failure> {
    let sql = format!("SELECT value FROM tailor_meta WHERE name = $1{more}");
    let rows = connection.query(&sql, &[&STATE]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text: &str = row.try_get(0)?;
    let state = Spool::parse(text);
    Ok(Some(state.ok_or_else(|| damaged(format!("the state of the archive is `{text}`")))?))
}

/// Switches the archive on or off. The size of the spool is added up anew.
pub(super) async fn set(
    connection: &Connection,
    limit_bytes: Option<u64>,
    now_us: u64,
) -> Result<(), Failure> {
    if limit_bytes.is_some() {
        let first = Spool { next: 1, limit_bytes: 0, since_us: now_us, used_bytes: 0 };
        let sql = "INSERT INTO tailor_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        connection.execute(sql, &[&STATE, &first.text()]).await?;
    }
    let Some(state) = lock(connection).await? else { return Ok(()) };
    let sql = format!("SELECT COALESCE(SUM(octet_length(body)), 0)::bigint FROM {PREFIX}archive_part");
    let rows = connection.query(&sql, &[]).await?;
    let used: i64 = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    let state = Spool { limit_bytes: limit_bytes.unwrap_or(0), used_bytes: from_sql(used), ..state };
    state.put(connection).await
}

fn of_partition<'a>(partition: &'a Partition, day: &'a i64) -> Parameters<'a> {
    vec![&partition.tenant, day, &partition.account]
}

/// The partition of a row of any of the three tables, which begin with the same columns.
fn partition(cells: &Cells<'_>) -> Result<Partition, StoreError> {
    Ok(Partition {
        tenant: cells.text(column::archive_partition::tenant)?.to_owned(),
        day: from_sql(cells.integer(column::archive_partition::day)?),
        account: cells.text(column::archive_partition::account)?.to_owned(),
    })
}

fn known(cells: &Cells<'_>) -> Result<Known, StoreError> {
    Known::of(partition(cells)?, |index| cells.integer(index))
}

fn file(cells: &Cells<'_>) -> Result<(SealedFile, bool), StoreError> {
    let text = |index| cells.text(index).map(str::to_owned);
    file_of(partition(cells)?, |index| cells.integer(index), text)
}

fn partition_row(known: &Known) -> NewRow {
    known.with_fields(|fields| NewRow::new(&PARTITION, fields))
}

fn file_row(file: &SealedFile, has_parts: bool) -> NewRow {
    with_file_fields(file, has_parts, |fields| NewRow::new(&FILE, fields))
}

/// The stored state of a partition, or that of a new one, and whether it has a row.
async fn load(
    connection: &Connection,
    partition: &Partition,
    damage: &DamageLog,
) -> Result<(Known, bool), Failure> {
    let sql = format!("{} WHERE {OF_PARTITION}", select(&PARTITION));
    let day = to_sql(partition.day);
    let rows = connection.query(&sql, &of_partition(partition, &day)).await?;
    let Some(row) = rows.first() else { return Ok((Known::new(partition.clone()), false)) };
    let cells = Cells::of(row)?;
    let is_valid = cells.verify(&PARTITION, damage);
    Ok((if is_valid { known(&cells)? } else { Known::new(partition.clone()) }, true))
}

async fn update(connection: &Connection, known: &Known) -> Result<(), Failure> {
    let writes = Writes { changed: vec![partition_row(known)], ..Writes::default() };
    writes.run(connection, &PARTITION).await
}

/// Writes the batches of some functions, at least one part for each function and day. What the spool has no space for is counted. The
/// caller has locked the state.
pub(super) async fn add(
    connection: &Connection,
    mut spool: Spool,
    merged: Vec<(&Owner, Pieces)>,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), Failure> {
    let mut partitions: BTreeMap<Partition, (Known, bool)> = BTreeMap::new();
    let mut parts = vec![];
    for ((tenant, key), pieces) in merged {
        for (day, Piece { batches, totals, absent, .. }) in pieces.into_parts() {
            let partition = Partition { tenant: tenant.0.clone(), day, account: key.account.clone() };
            if !partitions.contains_key(&partition) {
                let loaded = load(connection, &partition, damage).await?;
                partitions.insert(partition.clone(), loaded);
            }
            let Some((known, _)) = partitions.get_mut(&partition) else { continue };
            known.state.dropped.add(absent);
            if totals.invocations == 0 {
                continue;
            }
            let body = recent::compress(&batches)?;
            let bytes = body.len() as u64;
            if spool.used_bytes + bytes > spool.limit_bytes {
                known.state.dropped.add(totals);
                continue;
            }
            parts.push(NewRow::new(
                &PART,
                &[
                    Field::Text(&partition.tenant),
                    Field::Integer(to_sql(day)),
                    Field::Text(&partition.account),
                    Field::Integer(to_ordered_sql(spool.next)),
                    Field::Integer(to_ordered_sql(totals.invocations)),
                    Field::Integer(to_ordered_sql(totals.billed_ms)),
                    Field::Blob(&body),
                ],
            ));
            spool.next += 1;
            spool.used_bytes += bytes;
            known.spool(bytes, totals, now_us);
        }
    }
    insert(connection, &PART, &parts, "").await?;
    let mut writes = Writes::default();
    for (known, exists) in partitions.values() {
        writes.add(*exists, partition_row(known));
    }
    writes.run(connection, &PARTITION).await?;
    spool.put(connection).await
}

/// Seals the files that are due.
pub(super) async fn seal(
    connection: &Connection,
    limits: SealLimits,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), Failure> {
    if lock(connection).await?.is_none() {
        return Ok(());
    }
    let sql = format!("{} WHERE waiting_invocations > 0 ORDER BY tenant, day, account", select(&PARTITION));
    for row in &connection.query(&sql, &[]).await? {
        let cells = Cells::of(row)?;
        if !cells.verify(&PARTITION, damage) {
            continue;
        }
        let known = known(&cells)?;
        let is_old = known.state.waiting_since_us.saturating_add(limits.max_age_us) <= now_us;
        if is_old || known.state.waiting_bytes >= limits.max_bytes {
            seal_partition(connection, known, limits.max_bytes, is_old, now_us).await?;
        }
    }
    Ok(())
}

async fn seal_partition(
    connection: &Connection,
    mut known: Known,
    max_bytes: u64,
    takes_rest: bool,
    now_us: u64,
) -> Result<(), Failure> {
    let partition = known.state.partition.clone();
    let day = to_sql(partition.day);
    let sql = format!("SELECT MAX(last) FROM {PREFIX}archive_file WHERE {OF_PARTITION}");
    let rows = connection.query(&sql, &of_partition(&partition, &day)).await?;
    let last: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
    let start = to_ordered_sql(known.first_waiting.max(last.map_or(0, |last| from_sql(last) + 1)));
    let sql = format!(
        "SELECT number, invocations, billed_ms, octet_length(body)::bigint AS bytes, checksum FROM {PREFIX}archive_part
         WHERE {OF_PARTITION} AND number >= $4 ORDER BY number"
    );
    let mut parameters = of_partition(&partition, &day);
    parameters.push(&start);
    let mut sealing = Sealing::new(max_bytes);
    connection
        .for_each(&sql, &parameters, |row| {
            let number = |name: &str| -> Result<u64, Failure> { Ok(from_sql(row.try_get(name)?)) };
            let totals = Totals { invocations: number("invocations")?, billed_ms: number("billed_ms")? };
            sealing.add(number("number")?, totals, number("bytes")?, row.try_get("checksum")?);
            Ok(true)
        })
        .await?;
    let files = sealing.finish(&mut known, takes_rest, now_us);
    let rows: Vec<NewRow> = files.iter().map(|file| file_row(file, true)).collect();
    insert(connection, &FILE, &rows, "").await?;
    update(connection, &known).await
}

/// The files that wait for their upload, the oldest first.
pub(super) async fn files_to_upload(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<Vec<SealedFile>, Failure> {
    let sql = format!(
        "{} WHERE has_parts > 0 AND uploaded_at_us = 0 ORDER BY sealed_at_us, first LIMIT {MAX_FILES}",
        select(&FILE)
    );
    let mut files = vec![];
    for row in &connection.query(&sql, &[]).await? {
        let cells = Cells::of(row)?;
        if cells.verify(&FILE, damage) {
            files.push(file(&cells)?.0);
        }
    }
    Ok(files)
}

/// The parts of a file from a number on, up to about `max_bytes`. One that cannot be read has no batches, and is reported.
pub(super) async fn parts(
    connection: &Connection,
    file: &SealedFile,
    from: u64,
    max_bytes: u64,
    damage: &DamageLog,
) -> Result<Vec<Part>, Failure> {
    let sql = format!("{} WHERE {OF_PARTITION} AND number BETWEEN $4 AND $5 ORDER BY number", select(&PART));
    let (day, from, last) = (to_sql(file.partition.day), to_ordered_sql(from), to_ordered_sql(file.last));
    let mut parameters = of_partition(&file.partition, &day);
    parameters.push(&from);
    parameters.push(&last);
    let (mut parts, mut bytes) = (vec![], 0);
    connection
        .for_each(&sql, &parameters, |row| {
            let cells = Cells::of(row)?;
            let body = cells.blob(column::archive_part::body)?;
            bytes += body.len() as u64;
            let batches = if cells.is_valid(&PART) { recent::batches(body).ok() } else { None };
            if batches.is_none() {
                damage.report(cells.name(&PART));
            }
            let number = from_sql(cells.integer(column::archive_part::number)?);
            let checksum = cells.integer(column::archive_part::checksum)?;
            parts.push(Part { number, checksum, batches: batches.unwrap_or_default() });
            Ok(bytes < max_bytes)
        })
        .await?;
    Ok(parts)
}

/// Records an upload, unless another collector has recorded it. What damaged parts had is counted as dropped.
pub(super) async fn record_upload(
    connection: &Connection,
    sealed: &SealedFile,
    upload: Upload,
    damage: &DamageLog,
) -> Result<(), Failure> {
    lock(connection).await?;
    let sql = format!("{} WHERE {OF_PARTITION} AND first = $4", select(&FILE));
    let (day, first) = (to_sql(sealed.partition.day), to_ordered_sql(sealed.first));
    let mut parameters = of_partition(&sealed.partition, &day);
    parameters.push(&first);
    let rows = connection.query(&sql, &parameters).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let cells = Cells::of(row)?;
    if cells.is_valid(&FILE) && file(&cells)?.0.upload.is_some() {
        return Ok(());
    }
    let missing = missing(sealed, &upload);
    if missing.invocations > 0 {
        let (mut known, exists) = load(connection, &sealed.partition, damage).await?;
        if exists {
            known.drop_missing(missing);
            update(connection, &known).await?;
        }
    }
    let uploaded = SealedFile { upload: Some(upload), ..sealed.clone() };
    put_file(connection, &uploaded, true).await
}

async fn put_file(connection: &Connection, file: &SealedFile, has_parts: bool) -> Result<(), Failure> {
    let writes = Writes { changed: vec![file_row(file, has_parts)], ..Writes::default() };
    writes.run(connection, &FILE).await
}

/// Removes some parts of one uploaded file. Returns whether there are more.
pub(super) async fn remove_uploaded(connection: &Connection, damage: &DamageLog) -> Result<bool, Failure> {
    let Some(mut spool) = lock(connection).await? else { return Ok(false) };
    let sql =
        format!("{} WHERE has_parts > 0 AND uploaded_at_us > 0 ORDER BY sealed_at_us LIMIT 1", select(&FILE));
    let rows = connection.query(&sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let cells = Cells::of(row)?;
    if !cells.verify(&FILE, damage) {
        return Ok(false);
    }
    let (sealed, _) = file(&cells)?;
    let day = to_sql(sealed.partition.day);
    let (first, last) = (to_ordered_sql(sealed.first), to_ordered_sql(sealed.last));
    let mut parameters = of_partition(&sealed.partition, &day);
    parameters.push(&first);
    parameters.push(&last);
    let sql = format!(
        "SELECT number, octet_length(body)::bigint AS bytes FROM {PREFIX}archive_part
         WHERE {OF_PARTITION} AND number BETWEEN $4 AND $5 ORDER BY number"
    );
    let (mut bytes, mut until): (u64, Option<i64>) = (0, None);
    connection
        .for_each(&sql, &parameters, |row| {
            until = Some(row.try_get("number")?);
            bytes += from_sql(row.try_get("bytes")?);
            Ok(bytes < REMOVE_BYTES)
        })
        .await?;
    let Some(until) = until else {
        put_file(connection, &sealed, false).await?;
        return Ok(true);
    };
    let sql = format!("DELETE FROM {PREFIX}archive_part WHERE {OF_PARTITION} AND number BETWEEN $4 AND $5");
    let mut parameters = of_partition(&sealed.partition, &day);
    parameters.push(&first);
    parameters.push(&until);
    connection.execute(&sql, &parameters).await?;
    spool.used_bytes = spool.used_bytes.saturating_sub(bytes);
    spool.put(connection).await?;
    Ok(true)
}

/// Removes the records of days more than `days` ago of which nothing waits, by the earlier of the two clocks.
pub(super) async fn delete_old_records(
    connection: &Connection,
    days: u64,
    clock_us: u64,
) -> Result<(), Failure> {
    lock(connection).await?;
    let now_us = clock_us.min(database_now_us(connection).await?);
    let day = to_ordered_sql((now_us / DAY_US).saturating_sub(days));
    let sql = format!("DELETE FROM {PREFIX}archive_file WHERE day < $1 AND has_parts = 0");
    connection.execute(&sql, &[&day]).await?;
    let sql = format!(
        "DELETE FROM {PREFIX}archive_partition p WHERE day < $1 AND waiting_invocations = 0 AND NOT EXISTS (
            SELECT 1 FROM {PREFIX}archive_file f WHERE f.tenant = p.tenant AND f.day = p.day AND f.account = p.account)"
    );
    connection.execute(&sql, &[&day]).await.map(drop)
}

/// Everything that is recorded.
pub(super) async fn record(connection: &Connection, damage: &DamageLog) -> Result<ArchiveRecord, Failure> {
    let mut record = ArchiveRecord::default();
    if let Some(Spool { limit_bytes, since_us, used_bytes, .. }) = read_state(connection, "").await? {
        record.max_spool_bytes = Some(limit_bytes).filter(|bytes| *bytes > 0);
        (record.since_us, record.spool_bytes) = (since_us, used_bytes);
    }
    let sql = format!("{} ORDER BY 1, 2, 3", select(&PARTITION));
    connection
        .for_each(&sql, &[], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&PARTITION, damage) {
                record.partitions.push(known(&cells)?.state);
            }
            Ok(true)
        })
        .await?;
    let sql = format!("{} ORDER BY 1, 2, 3, 4", select(&FILE));
    connection
        .for_each(&sql, &[], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&FILE, damage) {
                record.files.push(file(&cells)?.0);
            }
            Ok(true)
        })
        .await?;
    Ok(record)
}

/// The record with the totals of all rollups and pending batches. The caller reads one snapshot.
pub(super) async fn comparison(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<ArchiveComparison, Failure> {
    let record = record(connection, damage).await?;
    let (mut rollups, mut pending) = (BTreeMap::new(), BTreeMap::new());
    let add = |totals: &mut BTreeMap<Partition, Totals>, cells: &Cells<'_>, hour: u64, of: Totals| {
        let (tenant, function) = cells.owner()?;
        let partition = Partition { tenant: tenant.0, account: function.account, day: hour / DAY_HOURS };
        totals.entry(partition).or_default().add(of);
        Ok::<_, StoreError>(())
    };
    connection
        .for_each(&select(&ROLLUP), &[], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&ROLLUP, damage) {
                let rollup = rollup::decode(cells.blob(column::rollup::body)?).map_err(damaged)?;
                let totals = Totals { invocations: rollup.invocations, billed_ms: rollup.billed_ms };
                add(&mut rollups, &cells, from_sql(cells.integer(column::rollup::hour)?), totals)?;
            }
            Ok(true)
        })
        .await?;
    connection
        .for_each(&select(&PENDING), &[], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&PENDING, damage) {
                for (hour, rollup) in decode_rollups(cells.blob(column::pending::rollups)?)? {
                    let totals = Totals { invocations: rollup.invocations, billed_ms: rollup.billed_ms };
                    add(&mut pending, &cells, hour, totals)?;
                }
            }
            Ok(true)
        })
        .await?;
    Ok(ArchiveComparison { record, rollups, pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_spool_is_read_back() {
        let state = Spool { next: 7, limit_bytes: 1 << 32, since_us: u64::MAX, used_bytes: 0 };
        assert_eq!(Spool::parse(&state.text()), Some(state));
        assert_eq!(Spool::parse("7 8 9"), None);
    }
}
