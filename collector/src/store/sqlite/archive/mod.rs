//! The spool of the archive in the embedded store.

mod record;
mod seal;
mod spool;

pub(in crate::store) use record::migration_problem;
pub(super) use record::{archive_record, comparison, delete_record_before, record_upload, remove_uploaded};
pub(super) use seal::{files_to_upload, parts, seal};
pub(super) use spool::{Spool, add, copy_settings};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tailor_archive::Partition;

use super::rows::{FILE, PARTITION};
use crate::store::archive::{Known, file_of, with_file_fields};
use crate::store::damage::DamageLog;
use crate::store::rows::column::archive_partition;
use crate::store::rows::{from_sql, to_sql};
use crate::store::{SealedFile, StoreError};

/// The tables of the archive.
pub(super) const TABLES: &str = "
-- What is known of the invocations of one day and account.
CREATE TABLE archive_partition (
    tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL,
    first_waiting BIGINT NOT NULL, waiting_bytes BIGINT NOT NULL, waiting_invocations BIGINT NOT NULL,
    waiting_since_us BIGINT NOT NULL,
    spooled_invocations BIGINT NOT NULL, spooled_billed_ms BIGINT NOT NULL,
    dropped_invocations BIGINT NOT NULL, dropped_billed_ms BIGINT NOT NULL,
    checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, account)
) WITHOUT ROWID;
CREATE INDEX archive_partition_waiting ON archive_partition (waiting_invocations) WHERE waiting_invocations > 0;

-- Parts wait for their upload. The numbers increase and are not used again.
CREATE TABLE archive_part (
    tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL, number BIGINT NOT NULL,
    invocations BIGINT NOT NULL, billed_ms BIGINT NOT NULL, body BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, account, number)
) WITHOUT ROWID;

-- A file has the parts from `first` to `last`. `uploaded_at_us` is 0 while it waits for its upload, and `has_parts` is 0
-- when its parts are removed.
CREATE TABLE archive_file (
    tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL, first BIGINT NOT NULL,
    last BIGINT NOT NULL, digest TEXT NOT NULL, invocations BIGINT NOT NULL, billed_ms BIGINT NOT NULL,
    sealed_at_us BIGINT NOT NULL, uploaded_at_us BIGINT NOT NULL, object TEXT NOT NULL, bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL, uploaded_invocations BIGINT NOT NULL, uploaded_billed_ms BIGINT NOT NULL,
    has_parts BIGINT NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, account, first)
) WITHOUT ROWID;
CREATE INDEX archive_file_open ON archive_file (sealed_at_us) WHERE has_parts > 0;
";

/// The condition for the rows of one partition, with its key as the parameters 1 to 3.
const OF_PARTITION: &str = "tenant = ?1 AND day = ?2 AND account = ?3";

/// Reads a row of [`PARTITION`].
fn known(row: &Row<'_>) -> Result<Known, StoreError> {
    Known::of(partition(row)?, |index| Ok(row.get(index)?))
}

/// The stored state of a partition, or that of a new one.
fn load(connection: &Connection, key: &Partition, damage: &DamageLog) -> Result<Known, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{} WHERE {OF_PARTITION}", PARTITION.select))?;
    let mut rows = statement.query(params![key.tenant, to_sql(key.day), key.account])?;
    match rows.next()? {
        Some(row) if PARTITION.verify(row, damage)? => known(row),
        _ => Ok(Known::new(key.clone())),
    }
}

fn put(connection: &Connection, known: &Known) -> Result<(), StoreError> {
    known.with_fields(|fields| PARTITION.replace(connection, fields))
}

/// The partition of a row of any of the three tables, which begin with the same columns.
fn partition(row: &Row<'_>) -> Result<Partition, StoreError> {
    Ok(Partition {
        tenant: row.get(archive_partition::tenant)?,
        day: from_sql(row.get(archive_partition::day)?),
        account: row.get(archive_partition::account)?,
    })
}

/// Reads a row of [`FILE`]. The second value is whether its parts are still there.
fn file(row: &Row<'_>) -> Result<(SealedFile, bool), StoreError> {
    file_of(partition(row)?, |index| Ok(row.get(index)?), |index| Ok(row.get(index)?))
}

fn put_file(connection: &Connection, file: &SealedFile, has_parts: bool) -> Result<(), StoreError> {
    with_file_fields(file, has_parts, |fields| FILE.replace(connection, fields))
}

/// A value of the table `meta`.
fn meta(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let value: Option<String> = connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.and_then(|value| value.parse().ok()))
}

fn put_meta(connection: &Connection, name: &str, value: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![name, value.to_string()])?;
    Ok(())
}
