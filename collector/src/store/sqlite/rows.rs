//! Rows with checksums in the embedded store: how they are written, verified and read.

use std::ops::Deref;
use std::str::FromStr;
use std::sync::LazyLock;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::store::columns;
use crate::store::damage::{self, DamageLog};
use crate::store::rows::{self, Field, StoredValue, Table, checksum, column, damaged};
use crate::store::{ChangeEvent, FunctionKey, SeriesKey, StoreError, Tenant};

/// A table with checksums, and its statements.
#[derive(Debug)]
pub(in crate::store) struct SqliteTable {
    table: &'static Table,
    /// `SELECT` of all checked columns and the checksum, for [`SqliteTable::verify`].
    pub(in crate::store) select: String,
    /// Inserts a row, unless its key exists.
    insert: String,
    /// Inserts a row, over the one with its key.
    replace: String,
}

pub(in crate::store) static FUNCTION: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::FUNCTION));
pub(in crate::store) static PENDING: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::PENDING));
pub(in crate::store) static ENVIRONMENT: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::ENVIRONMENT));
pub(in crate::store) static ENDED: LazyLock<SqliteTable> = LazyLock::new(|| SqliteTable::new(&rows::ENDED));
pub(in crate::store) static ROLLUP: LazyLock<SqliteTable> = LazyLock::new(|| SqliteTable::new(&rows::ROLLUP));
pub(in crate::store) static RECENT: LazyLock<SqliteTable> = LazyLock::new(|| SqliteTable::new(&rows::RECENT));
pub(in crate::store) static CHANGE_EVENT: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::CHANGE_EVENT));
pub(in crate::store) static SUMMARY: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::SUMMARY));
pub(in crate::store) static SUMMARY_REPORT: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::SUMMARY_REPORT));
pub(in crate::store) static API_KEY: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::API_KEY));
pub(in crate::store) static PARTITION: LazyLock<SqliteTable> =
    LazyLock::new(|| SqliteTable::new(&rows::PARTITION));
pub(in crate::store) static PART: LazyLock<SqliteTable> = LazyLock::new(|| SqliteTable::new(&rows::PART));
pub(in crate::store) static FILE: LazyLock<SqliteTable> = LazyLock::new(|| SqliteTable::new(&rows::FILE));

/// The tables with checksums, without those of the archive, which are not copied from one store to another.
pub(in crate::store) fn tables() -> [&'static SqliteTable; 10] {
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
pub(super) fn all_tables() -> impl Iterator<Item = &'static SqliteTable> {
    let archive: [&'static SqliteTable; 3] = [&PARTITION, &PART, &FILE];
    tables().into_iter().chain(archive)
}

impl Deref for SqliteTable {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table
    }
}

impl ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Integer(integer) => ValueRef::Integer(integer),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

impl<'a> From<ValueRef<'a>> for StoredValue<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Text(bytes) => Self::Text(bytes),
            ValueRef::Integer(integer) => Self::Integer(integer),
            ValueRef::Blob(bytes) => Self::Blob(bytes),
            ValueRef::Null | ValueRef::Real(_) => Self::Other,
        }
    }
}

impl SqliteTable {
    fn new(table: &'static Table) -> Self {
        let Table { name, columns, keys } = *table;
        let names = columns.join(", ");
        let marks = (1..=columns.len() + 1).map(|index| format!("?{index}")).collect::<Vec<_>>().join(",");
        let insert = format!("INSERT INTO {name} ({names}, checksum) VALUES ({marks}) ON CONFLICT");
        let updates = columns[keys..].iter().chain(&["checksum"]);
        let updates = updates.map(|column| format!("{column} = excluded.{column}")).collect::<Vec<_>>();
        Self {
            table,
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
        let sum = checksum(self, values.into_iter().map(StoredValue::from));
        Ok(stored == ValueRef::Integer(sum))
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
        Ok(damage::row_name(self.name, &parts))
    }
}

/// The tenant and the function of a row that begins with `tenant, account, region, function`, as those of most tables.
pub(super) fn owner(row: &Row<'_>) -> rusqlite::Result<(Tenant, FunctionKey)> {
    Ok((Tenant(row.get(0)?), function_key(row)?))
}

/// The function of such a row.
pub(super) fn function_key(row: &Row<'_>) -> rusqlite::Result<FunctionKey> {
    Ok(FunctionKey { account: row.get(1)?, region: row.get(2)?, name: row.get(3)? })
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
        .query_row(params![tenant, account, region, name], owner)
        .optional()?;
    Ok(next)
}

/// Reads the series key of a row of [`ROLLUP`].
pub(super) fn series_key(row: &Row<'_>) -> rusqlite::Result<SeriesKey> {
    let position = column::rollup::architecture;
    let architecture: String = row.get(position)?;
    Ok(SeriesKey {
        function: function_key(row)?,
        version: row.get(column::rollup::version)?,
        memory: Megabytes(row.get(column::rollup::memory_mb)?),
        architecture: Architecture::from_str(&architecture).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(position, rusqlite::types::Type::Text, Box::new(error))
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
