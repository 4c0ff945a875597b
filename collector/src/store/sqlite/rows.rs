//! Rows with checksums: how values are written, verified and read.
//!
//! The last checked column of a table is `checksum`, a CRC-32 of the table's name and of all columns before it.

use std::str::FromStr;
use std::sync::LazyLock;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::archive;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::{ChangeEvent, FunctionKey, SeriesKey, StoreError, Tenant};

/// Longest name of a damaged row, characters.
const MAX_NAME: usize = 200;

/// A table with checksums.
#[derive(Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) name: &'static str,
    /// The columns that the checksum covers, in order. The first `keys` of them are the primary key.
    pub(in crate::store) columns: &'static [&'static str],
    pub(in crate::store) keys: usize,
    /// `SELECT` of all checked columns and the checksum, for [`Table::verify`].
    pub(in crate::store) select: String,
    /// Inserts a row, unless its key exists.
    insert: String,
    /// Inserts a row, over the one with its key.
    replace: String,
}

pub(in crate::store) static FUNCTION: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "function",
        4,
        &["tenant", "function", "account", "region", "received_at_us", "recent_invocations", "header"],
    )
});

pub(in crate::store) static PENDING: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "pending",
        6,
        &[
            "tenant",
            "account",
            "region",
            "function",
            "environment",
            "sequence",
            "received_at_us",
            "last_at_us",
            "invocations",
            "header",
            "rollups",
            "body",
        ],
    )
});

pub(in crate::store) static ENVIRONMENT: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "environment",
        5,
        &["tenant", "account", "region", "function", "environment", "received_at_us", "sequences", "header"],
    )
});

pub(in crate::store) static ENDED: LazyLock<Table> =
    LazyLock::new(|| Table::new("ended", 5, &["tenant", "account", "region", "function", "day", "body"]));

pub(in crate::store) static ROLLUP: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "rollup",
        9,
        &[
            "tenant",
            "account",
            "region",
            "function",
            "hours",
            "hour",
            "version",
            "memory_mb",
            "architecture",
            "body",
        ],
    )
});

pub(in crate::store) static RECENT: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "recent",
        6,
        &["tenant", "account", "region", "function", "last_at_us", "part", "invocations", "body"],
    )
});

pub(in crate::store) static CHANGE_EVENT: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "change_event",
        6,
        &["tenant", "account", "region", "function", "change_id", "step", "at_us", "kind", "detail"],
    )
});

pub(in crate::store) static SUMMARY: LazyLock<Table> = LazyLock::new(|| {
    Table::new("summary", 6, &["tenant", "hours", "strategy", "account", "region", "function", "row"])
});

pub(in crate::store) static SUMMARY_REPORT: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "summary_report",
        6,
        &["tenant", "account", "region", "function", "hours", "strategy", "report"],
    )
});

pub(in crate::store) static API_KEY: LazyLock<Table> =
    LazyLock::new(|| Table::new("api_key", 1, &["digest", "text", "last_used_s"]));

/// The tables with checksums, without those of the archive, which are not copied from one store to another.
pub(in crate::store) fn tables() -> [&'static Table; 10] {
    [
        &FUNCTION,
        &PENDING,
        &ENVIRONMENT,
        &ENDED,
        &ROLLUP,
        &RECENT,
        &CHANGE_EVENT,
        &SUMMARY,
        &SUMMARY_REPORT,
        &API_KEY,
    ]
}

/// All tables with checksums.
pub(in crate::store) fn all_tables() -> impl Iterator<Item = &'static Table> {
    let archive: [&'static Table; 3] = [&archive::PARTITION, &archive::PART, &archive::FILE];
    tables().into_iter().chain(archive)
}

/// The value of one column.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Field<'a> {
    Text(&'a str),
    Integer(i64),
    Blob(&'a [u8]),
}

impl ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed((*self).into()))
    }
}

impl<'a> From<Field<'a>> for ValueRef<'a> {
    fn from(field: Field<'a>) -> Self {
        match field {
            Field::Text(text) => Self::Text(text.as_bytes()),
            Field::Integer(integer) => Self::Integer(integer),
            Field::Blob(blob) => Self::Blob(blob),
        }
    }
}

/// The CRC-32 of a row.
pub(in crate::store) fn checksum<'a>(table: &Table, values: impl Iterator<Item = ValueRef<'a>>) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(table.name.as_bytes());
    for value in values {
        let (kind, bytes) = match value {
            ValueRef::Text(bytes) => (b't', bytes),
            ValueRef::Blob(bytes) => (b'b', bytes),
            ValueRef::Integer(integer) => {
                crc.update(b"i");
                crc.update(&integer.to_le_bytes());
                continue;
            }
            // No column is null or a float, unless it was damaged.
            ValueRef::Null | ValueRef::Real(_) => (b'?', &b""[..]),
        };
        crc.update(&[kind]);
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    }
    i64::from(crc.sum())
}

impl Table {
    pub(super) fn new(name: &'static str, keys: usize, columns: &'static [&'static str]) -> Self {
        let names = columns.join(", ");
        let marks = (1..=columns.len() + 1).map(|index| format!("?{index}")).collect::<Vec<_>>().join(",");
        let insert = format!("INSERT INTO {name} ({names}, checksum) VALUES ({marks}) ON CONFLICT");
        let updates = columns[keys..].iter().chain(&["checksum"]);
        let updates = updates.map(|column| format!("{column} = excluded.{column}")).collect::<Vec<_>>();
        Self {
            name,
            columns,
            keys,
            select: format!("SELECT {names}, checksum FROM {name}"),
            replace: format!(
                "{insert} ({}) DO UPDATE SET {}",
                columns[..keys].join(", "),
                updates.join(", ")
            ),
            insert: insert + " DO NOTHING",
        }
    }

    /// Inserts a row with its checksum, unless its key exists. Returns whether it was inserted.
    pub(super) fn insert(&self, connection: &Connection, fields: &[Field<'_>]) -> Result<bool, StoreError> {
        self.write(connection, &self.insert, fields)
    }

    /// Inserts a row with its checksum, over the one with its key.
    pub(super) fn replace(&self, connection: &Connection, fields: &[Field<'_>]) -> Result<(), StoreError> {
        self.write(connection, &self.replace, fields).map(drop)
    }

    fn write(&self, connection: &Connection, sql: &str, fields: &[Field<'_>]) -> Result<bool, StoreError> {
        let sum = checksum(self, fields.iter().map(|field| (*field).into()));
        let values = fields.iter().copied().chain([Field::Integer(sum)]);
        Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))? > 0)
    }

    /// Whether the row, read with [`Self::select`], has its checksum. A row that has not is reported.
    pub(super) fn verify(&self, row: &Row<'_>, damage: &DamageLog) -> Result<bool, StoreError> {
        let is_valid = self.is_valid(row)?;
        if !is_valid {
            damage.report(self.row_name(row)?);
        }
        Ok(is_valid)
    }

    pub(in crate::store) fn is_valid(&self, row: &Row<'_>) -> Result<bool, StoreError> {
        let count = self.columns.len();
        let values = (0..count).map(|index| row.get_ref(index)).collect::<Result<Vec<_>, _>>()?;
        let stored = row.get_ref(count)?;
        Ok(stored == ValueRef::Integer(checksum(self, values.into_iter())))
    }

    /// Table and key of a row that was read with [`Self::select`].
    pub(super) fn row_name(&self, row: &Row<'_>) -> Result<String, StoreError> {
        let mut parts = vec![];
        for (index, column) in self.columns.iter().enumerate().take(self.keys) {
            let value = match row.get_ref(index)? {
                ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                ValueRef::Blob(bytes) => hex::encode(bytes),
                ValueRef::Integer(integer) => integer.to_string(),
                ValueRef::Real(real) => real.to_string(),
                ValueRef::Null => "null".to_owned(),
            };
            parts.push(format!("{column}={value}"));
        }
        let name = format!("{} {}", self.name, parts.join(" "));
        Ok(name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect())
    }
}

/// The key columns of a function, in the order of all tables but [`FUNCTION`].
pub(in crate::store) fn function_fields<'a>(tenant: &'a Tenant, key: &'a FunctionKey) -> [Field<'a>; 4] {
    [Field::Text(&tenant.0), Field::Text(&key.account), Field::Text(&key.region), Field::Text(&key.name)]
}

/// The function whose account is in column `first`.
pub(super) fn function_key(row: &Row<'_>, first: usize) -> rusqlite::Result<FunctionKey> {
    Ok(FunctionKey { account: row.get(first)?, region: row.get(first + 1)?, name: row.get(first + 2)? })
}

/// The first function of `query`. Its parameters 1 to 4 are the tenant, account, region and name of `after`, and its columns
/// are the same of the result.
pub(super) fn next_function(
    connection: &Connection,
    query: &str,
    after: Option<&(Tenant, FunctionKey)>,
) -> Result<Option<(Tenant, FunctionKey)>, StoreError> {
    let (tenant, account, region, name) = match after {
        Some((tenant, key)) => (&*tenant.0, &*key.account, &*key.region, &*key.name),
        None => ("", "", "", ""),
    };
    let next = connection
        .prepare_cached(query)?
        .query_row(params![tenant, account, region, name], |row| {
            Ok((Tenant(row.get(0)?), function_key(row, 1)?))
        })
        .optional()?;
    Ok(next)
}

/// Reads the series key of a row of [`ROLLUP`].
pub(super) fn series_key(row: &Row<'_>) -> rusqlite::Result<SeriesKey> {
    let architecture: String = row.get(8)?;
    Ok(SeriesKey {
        function: function_key(row, 1)?,
        version: row.get(6)?,
        memory: Megabytes(row.get(7)?),
        architecture: Architecture::from_str(&architecture).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(8, rusqlite::types::Type::Text, Box::new(error))
        })?,
    })
}

/// The bytes of a column.
pub(super) fn blob<'a>(row: &'a Row<'_>, index: usize) -> Result<&'a [u8], StoreError> {
    row.get_ref(index)?.as_blob().map_err(damaged)
}

/// Writes the rollup of one series and span, over the one that is there.
pub(super) fn put_rollup(
    connection: &Connection,
    tenant: &Tenant,
    key: &SeriesKey,
    (hours, hour): (u64, u64),
    rollup: &Rollup,
) -> Result<(), StoreError> {
    columns::of_rollup(tenant, key, (hours, hour), rollup, |fields| ROLLUP.replace(connection, fields))
}

/// Inserts a step of the change log; `false` when that step exists.
pub(super) fn insert_change(
    connection: &Connection,
    tenant: &Tenant,
    event: &ChangeEvent,
) -> Result<bool, StoreError> {
    columns::of_change(tenant, event, |fields| CHANGE_EVENT.insert(connection, fields))
}

/// Rollups by hour, as one value.
pub(in crate::store) fn encode_rollups(rollups: &[(u64, Rollup)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (hour, rollup) in rollups {
        let body = rollup::encode(rollup);
        bytes.extend_from_slice(&hour.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// Reads what [`encode_rollups`] wrote.
pub(in crate::store) fn decode_rollups(mut bytes: &[u8]) -> Result<Vec<(u64, Rollup)>, StoreError> {
    let mut rollups = vec![];
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let (hour, length) = head.split_at(8);
        let integer = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = usize::try_from(integer(length)).map_err(damaged)?;
        let (body, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("rollups are cut"))?;
        rollups.push((integer(hour), rollup::decode(body).map_err(damaged)?));
        bytes = rest;
    }
    if bytes.is_empty() { Ok(rollups) } else { Err(damaged("rollups are cut")) }
}

/// The error for stored data that cannot be decoded.
pub(in crate::store) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// SQLite's integers are signed. A sequence above `i64::MAX` becomes a negative one and back, so that none collide.
pub(in crate::store) const fn to_sql(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

/// The reverse of [`to_sql`].
pub(in crate::store) const fn from_sql(value: i64) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

/// A value for comparisons in SQL, which order signed integers: values above `i64::MAX` are limited to it.
pub(in crate::store) fn to_ordered_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
