//! Isolation of damaged rows: a copy in the table `damaged` replaces the row.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::rows::SqliteTable;
use crate::store::StoreError;
use crate::store::damage::{DamageLog, isolated_name};
use crate::store::rows::to_ordered_sql;

/// Copies a row, read with [`SqliteTable::select`], to the table `damaged`, and reports it. The caller deletes the row.
pub(super) fn isolate(
    connection: &Connection,
    table: &SqliteTable,
    row: &Row<'_>,
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), StoreError> {
    let name = table.row_name(row)?;
    let mut content = String::new();
    for (index, column) in table.columns.iter().chain(&["checksum"]).enumerate() {
        let value = match row.get_ref(index)? {
            ValueRef::Null => "null".to_owned(),
            ValueRef::Integer(integer) => integer.to_string(),
            ValueRef::Real(real) => real.to_string(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => hex::encode(bytes),
        };
        content.push_str(&format!("{column}={value}\n"));
    }
    connection
        .prepare_cached(
            "INSERT INTO damaged (noticed_at_us, name, content) VALUES (?1,?2,?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![to_ordered_sql(now_us), isolated_name(&name, &content), content])?;
    damage.report(name);
    Ok(())
}
