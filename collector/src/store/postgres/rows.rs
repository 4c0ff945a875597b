//! Rows with checksums: how values are written, verified and read. Tables, columns and checksums are those of the
//! embedded store, so that a row can be copied from one to the other.

use std::str::FromStr;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use tailor_sizing::units::{Architecture, Megabytes};

use super::connection::{Connection, Parameters};
use super::errors::Failure;
use crate::store::damage::{self, DamageLog};
use crate::store::rows::{self, Field, Table, column, damaged};
use crate::store::{FunctionKey, SeriesKey, StoreError, Tenant};

/// Begins the names of all tables, which may share a database with others.
pub(super) const PREFIX: &str = "tailor_";

/// The condition for the rows of one function, with its key as the parameters 1 to 4.
pub(super) const OF_FUNCTION: &str = "tenant = $1 AND account = $2 AND region = $3 AND function = $4";

/// A value that is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Blob(Vec<u8>),
}

impl Value {
    fn field(&self) -> Field<'_> {
        match self {
            Self::Text(text) => Field::Text(text),
            Self::Integer(integer) => Field::Integer(*integer),
            Self::Blob(bytes) => Field::Blob(bytes),
        }
    }
}

impl From<Field<'_>> for Value {
    fn from(field: Field<'_>) -> Self {
        match field {
            Field::Text(text) => Self::Text(text.to_owned()),
            Field::Integer(integer) => Self::Integer(integer),
            Field::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Field<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Text(text) => text.to_sql(kind, out),
            Self::Integer(integer) => integer.to_sql(kind, out),
            Self::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        <&str as ToSql>::accepts(kind) || <i64 as ToSql>::accepts(kind) || <&[u8] as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

/// A row to write: the values of all checked columns, and its checksum.
#[derive(Debug, Clone)]
pub(super) struct NewRow {
    values: Vec<Value>,
    checksum: i64,
}

impl NewRow {
    pub(super) fn new(table: &Table, fields: &[Field<'_>]) -> Self {
        let checksum = rows::checksum(table, fields.iter().map(|field| (*field).into()));
        Self { values: fields.iter().map(|field| (*field).into()).collect(), checksum }
    }

    fn fields(&self) -> Vec<Field<'_>> {
        self.values.iter().map(Value::field).chain([Field::Integer(self.checksum)]).collect()
    }
}

/// Rows of one table to write: new ones, and ones whose key is there.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) new: Vec<NewRow>,
    pub(super) changed: Vec<NewRow>,
}

impl Writes {
    pub(super) fn add(&mut self, exists: bool, row: NewRow) {
        if exists { self.changed.push(row) } else { self.new.push(row) }
    }

    /// Writes them. That a new row's key exists is a conflict with another collector.
    pub(super) async fn run(&self, connection: &Connection, table: &Table) -> Result<(), Failure> {
        insert(connection, table, &self.new, "").await?;
        let changed: Vec<_> = self.changed.iter().map(NewRow::fields).collect();
        let changed: Vec<_> = changed.iter().map(|fields| parameters(fields)).collect();
        let counts = connection.execute_each(&update(table), &changed).await?;
        if counts.iter().all(|count| *count == 1) { Ok(()) } else { Err(Failure::Conflict) }
    }
}

fn parameters<'a>(fields: &'a [Field<'a>]) -> Parameters<'a> {
    fields.iter().map(|field| field as &(dyn ToSql + Sync)).collect()
}

/// `"a", "b"`: `row` is a word of SQL.
fn names(columns: &[&str]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

fn all_columns(table: &Table) -> Vec<&'static str> {
    table.columns.iter().copied().chain(["checksum"]).collect()
}

/// `SELECT` of all checked columns and the checksum, for [`Cells`].
pub(super) fn select(table: &Table) -> String {
    format!("SELECT {} FROM {PREFIX}{}", names(&all_columns(table)), table.name)
}

/// The same columns, of the table with a short name.
pub(super) fn columns_of(table: &Table, short: &str) -> String {
    let columns = all_columns(table);
    columns.iter().map(|column| format!("{short}.\"{column}\"")).collect::<Vec<_>>().join(", ")
}

/// The condition for one row, with its key as the first parameters.
fn of_key(table: &Table) -> String {
    let keys = table.columns.iter().take(table.keys).enumerate();
    keys.map(|(index, column)| format!("\"{column}\" = ${}", index + 1)).collect::<Vec<_>>().join(" AND ")
}

fn update(table: &Table) -> String {
    let columns = all_columns(table);
    let assigned = |range: std::ops::Range<usize>, separator: &str| {
        range
            .map(|index| format!("\"{}\" = ${}", columns[index], index + 1))
            .collect::<Vec<_>>()
            .join(separator)
    };
    format!(
        "UPDATE {PREFIX}{} SET {} WHERE {}",
        table.name,
        assigned(table.keys..columns.len(), ", "),
        assigned(0..table.keys, " AND ")
    )
}

/// One column of several rows.
enum Column<'a> {
    Text(Vec<&'a str>),
    Integer(Vec<i64>),
    Blob(Vec<&'a [u8]>),
}

/// Inserts rows in one statement, in their order, with what follows `VALUES` in `more`. Returns the rows that it returns.
pub(super) async fn insert(
    connection: &Connection,
    table: &Table,
    rows: &[NewRow],
    more: &str,
) -> Result<Vec<Row>, Failure> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let mut columns: Vec<Column<'_>> = first
        .fields()
        .iter()
        .map(|field| match field {
            Field::Text(_) => Column::Text(Vec::with_capacity(rows.len())),
            Field::Integer(_) => Column::Integer(Vec::with_capacity(rows.len())),
            Field::Blob(_) => Column::Blob(Vec::with_capacity(rows.len())),
        })
        .collect();
    for row in rows {
        for (column, field) in columns.iter_mut().zip(row.fields()) {
            match (column, field) {
                (Column::Text(column), Field::Text(text)) => column.push(text),
                (Column::Integer(column), Field::Integer(integer)) => column.push(integer),
                (Column::Blob(column), Field::Blob(bytes)) => column.push(bytes),
                // Each table has one type per column.
                _ => return Err(damaged("a value has the wrong type").into()),
            }
        }
    }
    let arrays = columns.iter().enumerate().map(|(index, column)| match column {
        Column::Text(_) => format!("${}::text[]", index + 1),
        Column::Integer(_) => format!("${}::bigint[]", index + 1),
        Column::Blob(_) => format!("${}::bytea[]", index + 1),
    });
    let sql = format!(
        "INSERT INTO {PREFIX}{} ({}) SELECT * FROM UNNEST({}) {more}",
        table.name,
        names(&all_columns(table)),
        arrays.collect::<Vec<_>>().join(", ")
    );
    let parameters = columns.iter().map(|column| match column {
        Column::Text(column) => column as &(dyn ToSql + Sync),
        Column::Integer(column) => column,
        Column::Blob(column) => column,
    });
    connection.query(&sql, &parameters.collect::<Vec<_>>()).await
}

/// The values of a row that was read with [`select`].
pub(super) struct Cells<'a>(Vec<Field<'a>>);

impl<'a> Cells<'a> {
    pub(super) fn of(row: &'a Row) -> Result<Self, Failure> {
        Self::of_first(row, row.len())
    }

    /// The values of the first columns.
    pub(super) fn of_first(row: &'a Row, columns: usize) -> Result<Self, Failure> {
        let fields = row.columns().iter().take(columns).enumerate().map(|(index, column)| {
            Ok(match *column.type_() {
                Type::BYTEA => Field::Blob(row.try_get(index)?),
                Type::INT8 => Field::Integer(row.try_get(index)?),
                _ => Field::Text(row.try_get(index)?),
            })
        });
        Ok(Self(fields.collect::<Result<_, tokio_postgres::Error>>()?))
    }

    /// The values of a row that was read before.
    pub(super) fn of_values(values: &'a [Value]) -> Self {
        Self(values.iter().map(Value::field).collect())
    }

    /// Whether the row has its checksum.
    pub(super) fn is_valid(&self, table: &Table) -> bool {
        let (values, checksum) = self.0.split_at(table.columns.len());
        let sum = rows::checksum(table, values.iter().map(|field| (*field).into()));
        matches!(checksum, [Field::Integer(stored), ..] if *stored == sum)
    }

    /// The same. A row that has not its checksum is reported.
    pub(super) fn verify(&self, table: &Table, damage: &DamageLog) -> bool {
        let is_valid = self.is_valid(table);
        if !is_valid {
            damage.report(self.name(table));
        }
        is_valid
    }

    /// Table and key.
    pub(super) fn name(&self, table: &Table) -> String {
        let parts = table.columns.iter().zip(&self.0).take(table.keys).map(|(column, field)| match field {
            Field::Text(text) => format!("{column}={text}"),
            Field::Integer(integer) => format!("{column}={integer}"),
            Field::Blob(bytes) => format!("{column}={}", hex::encode(bytes)),
        });
        damage::row_name(table.name, &parts.collect::<Vec<_>>())
    }

    /// All values, for the table `damaged`.
    pub(super) fn content(&self, table: &Table) -> String {
        let columns = all_columns(table);
        let lines = columns.iter().zip(&self.0).map(|(column, field)| match field {
            Field::Text(text) => format!("{column}={}\n", hex::encode(text.as_bytes())),
            Field::Integer(integer) => format!("{column}={integer}\n"),
            Field::Blob(bytes) => format!("{column}={}\n", hex::encode(bytes)),
        });
        lines.collect()
    }

    /// The row that has the key now, locked until the end of the transaction.
    pub(super) async fn lock(&self, connection: &Connection, table: &Table) -> Result<Option<Row>, Failure> {
        let sql = format!("{} WHERE {} FOR UPDATE", select(table), of_key(table));
        let rows = connection.query(&sql, &parameters(&self.0[..table.keys])).await?;
        Ok(rows.into_iter().next())
    }

    /// Deletes the row by its key.
    pub(super) async fn delete(&self, connection: &Connection, table: &Table) -> Result<(), Failure> {
        let sql = format!("DELETE FROM {PREFIX}{} WHERE {}", table.name, of_key(table));
        connection.execute(&sql, &parameters(&self.0[..table.keys])).await.map(drop)
    }

    /// The row as it is, to be written elsewhere.
    pub(super) fn fields(&self) -> &[Field<'a>] {
        &self.0
    }

    pub(super) fn text(&self, index: usize) -> Result<&'a str, StoreError> {
        match self.0.get(index) {
            Some(Field::Text(text)) => Ok(text),
            _ => Err(damaged(format!("column {index} is no text"))),
        }
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, StoreError> {
        match self.0.get(index) {
            Some(Field::Integer(integer)) => Ok(*integer),
            _ => Err(damaged(format!("column {index} is no integer"))),
        }
    }

    pub(super) fn blob(&self, index: usize) -> Result<&'a [u8], StoreError> {
        match self.0.get(index) {
            Some(Field::Blob(bytes)) => Ok(bytes),
            _ => Err(damaged(format!("column {index} has no bytes"))),
        }
    }

    /// The tenant and the function of a row that begins with `tenant, account, region, function`, as those of most tables.
    pub(super) fn owner(&self) -> Result<(Tenant, FunctionKey), StoreError> {
        Ok((Tenant(self.text(0)?.to_owned()), self.function_key()?))
    }

    /// The function of such a row.
    pub(super) fn function_key(&self) -> Result<FunctionKey, StoreError> {
        Ok(FunctionKey {
            account: self.text(1)?.to_owned(),
            region: self.text(2)?.to_owned(),
            name: self.text(3)?.to_owned(),
        })
    }

    /// The series of a row of the table `rollup`.
    pub(super) fn series_key(&self) -> Result<SeriesKey, StoreError> {
        Ok(SeriesKey {
            function: self.function_key()?,
            version: self.text(column::rollup::version)?.to_owned(),
            memory: Megabytes(u32::try_from(self.integer(column::rollup::memory_mb)?).map_err(damaged)?),
            architecture: Architecture::from_str(self.text(column::rollup::architecture)?)
                .map_err(damaged)?,
        })
    }
}

/// Copies a damaged row to the table `damaged`, and reports it. The caller deletes the row.
pub(super) async fn isolate(
    connection: &Connection,
    table: &Table,
    cells: &Cells<'_>,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), Failure> {
    let (name, content) = (cells.name(table), cells.content(table));
    let sql = format!(
        "INSERT INTO {PREFIX}damaged (noticed_at_us, name, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    );
    let key = damage::isolated_name(&name, &content);
    connection.execute(&sql, &[&rows::to_ordered_sql(now_us), &key, &content]).await?;
    damage.report(name);
    Ok(())
}
