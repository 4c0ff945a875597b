//! The spool of the archive in the embedded store.

mod record;
mod seal;
mod spool;

pub(in crate::store) use record::migration_problem;
pub(super) use record::{archive_record, comparison, forget_before, record_upload, remove_uploaded};
pub(super) use seal::{files_to_upload, parts, seal};
pub(super) use spool::{Pieces, Spool, add, copy_settings};

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tailor_archive::{Partition, Totals};

use super::rows::{Field, Table, from_sql, to_ordered_sql, to_sql};
use crate::store::archive::PartitionState;
use crate::store::damage::DamageLog;
use crate::store::{SealedFile, StoreError, Upload};

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

pub(in crate::store) static PARTITION: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "archive_partition",
        3,
        &[
            "tenant",
            "day",
            "account",
            "first_waiting",
            "waiting_bytes",
            "waiting_invocations",
            "waiting_since_us",
            "spooled_invocations",
            "spooled_billed_ms",
            "dropped_invocations",
            "dropped_billed_ms",
        ],
    )
});

pub(in crate::store) static PART: LazyLock<Table> = LazyLock::new(|| {
    Table::new("archive_part", 4, &["tenant", "day", "account", "number", "invocations", "billed_ms", "body"])
});

pub(in crate::store) static FILE: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "archive_file",
        4,
        &[
            "tenant",
            "day",
            "account",
            "first",
            "last",
            "digest",
            "invocations",
            "billed_ms",
            "sealed_at_us",
            "uploaded_at_us",
            "object",
            "bytes",
            "sha256",
            "uploaded_invocations",
            "uploaded_billed_ms",
            "has_parts",
        ],
    )
});

/// The condition for the rows of one partition, with its key as the parameters 1 to 3.
const OF_PARTITION: &str = "tenant = ?1 AND day = ?2 AND account = ?3";

/// A partition with the number of its first part that is in no file.
#[derive(Debug, Clone)]
struct Known {
    state: PartitionState,
    first_waiting: u64,
}

impl Known {
    fn new(partition: Partition) -> Self {
        let state = PartitionState {
            partition,
            waiting_bytes: 0,
            waiting_invocations: 0,
            waiting_since_us: 0,
            spooled: Totals::default(),
            dropped: Totals::default(),
        };
        Self { state, first_waiting: 0 }
    }

    /// Reads a row of [`PARTITION`].
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let number = |index| -> Result<u64, StoreError> { Ok(from_sql(row.get(index)?)) };
        let totals = |first| -> Result<Totals, StoreError> {
            Ok(Totals { invocations: number(first)?, billed_ms: number(first + 1)? })
        };
        let state = PartitionState {
            partition: partition(row)?,
            waiting_bytes: number(4)?,
            waiting_invocations: number(5)?,
            waiting_since_us: number(6)?,
            spooled: totals(7)?,
            dropped: totals(9)?,
        };
        Ok(Self { state, first_waiting: number(3)? })
    }

    /// The stored state of a partition, or that of a new one.
    fn load(connection: &Connection, key: &Partition, damage: &DamageLog) -> Result<Self, StoreError> {
        let mut statement =
            connection.prepare_cached(&format!("{} WHERE {OF_PARTITION}", PARTITION.select))?;
        let mut rows = statement.query(params![key.tenant, to_sql(key.day), key.account])?;
        match rows.next()? {
            Some(row) if PARTITION.verify(row, damage)? => Self::read(row),
            _ => Ok(Self::new(key.clone())),
        }
    }

    fn put(&self, connection: &Connection) -> Result<(), StoreError> {
        let PartitionState {
            partition,
            waiting_bytes,
            waiting_invocations,
            waiting_since_us,
            spooled,
            dropped,
        } = &self.state;
        let number = |value: u64| Field::Integer(to_ordered_sql(value));
        PARTITION.replace(
            connection,
            &[
                Field::Text(&partition.tenant),
                Field::Integer(to_sql(partition.day)),
                Field::Text(&partition.account),
                number(self.first_waiting),
                number(*waiting_bytes),
                number(*waiting_invocations),
                number(*waiting_since_us),
                number(spooled.invocations),
                number(spooled.billed_ms),
                number(dropped.invocations),
                number(dropped.billed_ms),
            ],
        )
    }
}

/// The partition in the first three columns.
fn partition(row: &Row<'_>) -> Result<Partition, StoreError> {
    Ok(Partition { tenant: row.get(0)?, day: from_sql(row.get(1)?), account: row.get(2)? })
}

/// Reads a row of [`FILE`]. The second value is whether its parts are still there.
fn file(row: &Row<'_>) -> Result<(SealedFile, bool), StoreError> {
    let number = |index| -> Result<u64, StoreError> { Ok(from_sql(row.get(index)?)) };
    let totals = |first| -> Result<Totals, StoreError> {
        Ok(Totals { invocations: number(first)?, billed_ms: number(first + 1)? })
    };
    let at_us = number(9)?;
    let upload =
        Upload { at_us, object: row.get(10)?, bytes: number(11)?, sha256: row.get(12)?, totals: totals(13)? };
    let file = SealedFile {
        partition: partition(row)?,
        first: number(3)?,
        last: number(4)?,
        digest: row.get(5)?,
        totals: totals(6)?,
        sealed_at_us: number(8)?,
        upload: Some(upload).filter(|_| at_us > 0),
    };
    Ok((file, number(15)? > 0))
}

fn put_file(connection: &Connection, file: &SealedFile, has_parts: bool) -> Result<(), StoreError> {
    let none = Upload {
        at_us: 0,
        object: String::new(),
        bytes: 0,
        sha256: String::new(),
        totals: Totals::default(),
    };
    let upload = file.upload.as_ref().unwrap_or(&none);
    let number = |value: u64| Field::Integer(to_ordered_sql(value));
    FILE.replace(
        connection,
        &[
            Field::Text(&file.partition.tenant),
            Field::Integer(to_sql(file.partition.day)),
            Field::Text(&file.partition.account),
            number(file.first),
            number(file.last),
            Field::Text(&file.digest),
            number(file.totals.invocations),
            number(file.totals.billed_ms),
            number(file.sealed_at_us),
            number(upload.at_us),
            Field::Text(&upload.object),
            number(upload.bytes),
            Field::Text(&upload.sha256),
            number(upload.totals.invocations),
            number(upload.totals.billed_ms),
            number(u64::from(has_parts)),
        ],
    )
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
