//! `tailor check`: finds damage, and `--repair` isolates it.

use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ToSql};

use super::archive;
use super::damage;
use super::files::{self, FILE_NAME};
use super::keys;
use super::log_check;
use super::rows::{SqliteTable, all_tables};
use super::schema;
use crate::store::damage::DamageLog;
use crate::store::rows::from_sql;
use crate::store::{StoreError, StoredKey};

pub use crate::store::Findings;

/// Reads the whole store in `folder`, whether or not a collector runs on it.
///
/// # Errors
/// [`StoreError`] when there is no store of this schema, or it cannot be read at all.
pub fn check(folder: &Path) -> Result<Findings, StoreError> {
    super::require_store(folder)?;
    // The log of a running collector is being written.
    let fault = if files::is_served(folder) { None } else { log_check::fault(folder)? };
    let connection = Connection::open_with_flags(folder.join(FILE_NAME), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    schema::check(&connection)?;
    let mut findings = examine(&connection)?;
    findings.structure.extend(fault.map(|fault| fault.to_string()));
    findings.structure.extend(id_fault(&connection, folder)?);
    Ok(findings)
}

/// Compares the id in the database with that of the folder.
fn id_fault(connection: &Connection, folder: &Path) -> Result<Option<String>, StoreError> {
    let stored: Option<String> = connection
        .query_row("SELECT CAST(value AS TEXT) FROM meta WHERE name = 'id'", [], |row| row.get(0))
        .optional()?;
    let expected = files::read_id(folder)?;
    // A copy without the file of the id gets one from the next start.
    let is_same = stored.is_some() && (expected.is_none() || expected == stored);
    Ok((!is_same).then(|| format!("the id of the database is {stored:?}, that of the folder {expected:?}")))
}

fn examine(connection: &Connection) -> Result<Findings, StoreError> {
    let mut findings = Findings::default();
    let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = statement.query([])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let line: String = row.get(0)?;
                if line != "ok" {
                    findings.structure.push(line);
                }
            }
            Ok(None) => break,
            Err(error) => {
                findings.structure.push(error.to_string());
                break;
            }
        }
    }
    findings.structure.extend(schema::differences(connection)?);
    for table in all_tables() {
        let unreadable = scan(connection, table, |is_valid, row| {
            findings.rows += 1;
            if !is_valid {
                findings.damaged_rows.push(table.row_name(row)?);
            }
            Ok(())
        })?;
        findings.structure.extend(unreadable.map(|error| format!("{}: {error}", table.name)));
    }
    let isolated: i64 = connection.query_row("SELECT COUNT(*) FROM damaged", [], |row| row.get(0))?;
    findings.isolated_rows = from_sql(isolated);
    Ok(findings)
}

/// Calls `visit` with each row that can be read, and whether it has its checksum. Returns the error that ended the scan,
/// if one did.
fn scan(
    connection: &Connection,
    table: &SqliteTable,
    mut visit: impl FnMut(bool, &rusqlite::Row<'_>) -> Result<(), StoreError>,
) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare(&table.select)?;
    let mut rows = statement.query([])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => visit(table.is_valid(row)?, row)?,
            Ok(None) => return Ok(None),
            Err(error) if is_damage(&error) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Checks the store and isolates what is damaged: damaged rows move to the table `damaged`, and a file whose structure is
/// damaged is written anew from the rows that can be read. Returns what was found, and where the damaged file is kept.
///
/// # Errors
/// [`StoreError`] when a collector runs on the folder, or the store cannot be read or written.
pub fn repair(folder: &Path, now_us: u64) -> Result<(Findings, Option<PathBuf>), StoreError> {
    let _lock = files::lock(folder)?;
    let path = folder.join(FILE_NAME);
    let findings = {
        let mut connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        schema::check(&connection)?;
        let findings = examine(&connection)?;
        if findings.structure.is_empty() {
            isolate(&mut connection, now_us)?;
            return Ok((findings, None));
        }
        findings
    };
    let kept = rebuild(folder, &path, now_us)?;
    Ok((findings, Some(kept)))
}

/// A value as it is stored: damaged text need not be UTF-8.
enum Stored {
    Text(Vec<u8>),
    Other(Value),
}

impl Stored {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Other(Value::Blob(bytes.to_vec())),
            ValueRef::Integer(integer) => Self::Other(Value::Integer(integer)),
            ValueRef::Real(real) => Self::Other(Value::Real(real)),
            ValueRef::Null => Self::Other(Value::Null),
        }
    }
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(bytes) => Ok(ToSqlOutput::Borrowed(ValueRef::Text(bytes))),
            Self::Other(value) => value.to_sql(),
        }
    }
}

/// Moves damaged rows to the table `damaged`.
fn isolate(connection: &mut Connection, now_us: u64) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    for table in all_tables() {
        let mut bad: Vec<Vec<Stored>> = vec![];
        scan(&transaction, table, |is_valid, row| {
            if !is_valid {
                damage::isolate(&transaction, table, row, now_us, &DamageLog::default())?;
                let key = (0..table.keys).map(|index| row.get_ref(index).map(Stored::of));
                bad.push(key.collect::<Result<_, _>>()?);
            }
            Ok(())
        })?;
        let condition: Vec<String> = table.columns[..table.keys]
            .iter()
            .enumerate()
            .map(|(index, column)| format!("{column} IS ?{}", index + 1))
            .collect();
        let delete = format!("DELETE FROM {} WHERE {}", table.name, condition.join(" AND "));
        for key in bad {
            transaction.execute(&delete, rusqlite::params_from_iter(key))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Copies the rows that can be read and have their checksums into a new file, which replaces the damaged one.
fn rebuild(folder: &Path, path: &Path, now_us: u64) -> Result<PathBuf, StoreError> {
    let new_path = folder.join(format!("{FILE_NAME}.new"));
    remove(&new_path)?;
    {
        let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut new = Connection::open(&new_path)?;
        new.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL;")?;
        schema::migrate(&mut new, now_us)?;
        let transaction = new.transaction()?;
        copy_meta(&old, &transaction, folder)?;
        for table in all_tables() {
            let insert = format!(
                "INSERT OR IGNORE INTO {0} ({1}, checksum) VALUES ({2})",
                table.name,
                table.columns.join(", "),
                vec!["?"; table.columns.len() + 1].join(", ")
            );
            // From both ends, because a damaged page ends a scan. A row that was copied is left as it is.
            for order in ["ASC", "DESC"] {
                let keys: Vec<String> =
                    table.columns[..table.keys].iter().map(|key| format!("{key} {order}")).collect();
                let mut statement = old.prepare(&format!("{} ORDER BY {}", table.select, keys.join(", ")))?;
                let mut rows = statement.query([])?;
                while let Ok(Some(row)) = rows.next() {
                    if table.is_valid(row)? {
                        let values = (0..=table.columns.len()).map(|index| row.get(index));
                        let values: Vec<rusqlite::types::Value> = values.collect::<Result<_, _>>()?;
                        transaction.prepare_cached(&insert)?.execute(rusqlite::params_from_iter(values))?;
                    }
                }
            }
        }
        archive::copy_settings(&old, &transaction)?;
        transaction.commit()?;
    }
    let kept = folder.join(format!("{FILE_NAME}.damaged-{now_us}"));
    let rename = |from: &Path, to: &Path| {
        std::fs::rename(from, to)
            .map_err(|error| StoreError::Engine(format!("cannot rename {}: {error}", from.display())))
    };
    rename(path, &kept)?;
    for suffix in ["-wal", "-shm"] {
        remove(&folder.join(format!("{FILE_NAME}{suffix}")))?;
    }
    rename(&new_path, path)?;
    Ok(kept)
}

fn copy_meta(old: &Connection, new: &Connection, folder: &Path) -> Result<(), StoreError> {
    let id = old.query_row("SELECT value FROM meta WHERE name = 'id'", [], |row| row.get::<_, String>(0));
    let id = match (id, files::read_id(folder)?) {
        (Ok(id), _) | (Err(_), Some(id)) => id,
        (Err(error), None) => return Err(error.into()),
    };
    new.execute("INSERT INTO meta (name, value) VALUES ('id', ?1)", [id])?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Engine(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Writes a consistent copy of the store in `folder` to a new file, also while a collector runs on it. `file_keys` are API
/// keys of the folder that are not in the store. The copy has them, too, and the small files of the folder, which the start
/// with the copy writes again.
///
/// # Errors
/// [`StoreError`] when there is no store, or the copy cannot be written or exists.
pub fn backup(folder: &Path, copy: &Path, file_keys: &[StoredKey]) -> Result<(), StoreError> {
    let connection = Connection::open_with_flags(folder.join(FILE_NAME), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    schema::check(&connection)?;
    let copy = copy.to_str().ok_or_else(|| StoreError::Engine("the path is not UTF-8".to_owned()))?;
    connection.execute("VACUUM INTO ?1", [copy])?;
    let mut copy = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let transaction = copy.transaction()?;
    keys::put(&transaction, file_keys)?;
    files::copy_into(&transaction, folder)?;
    transaction.commit()?;
    Ok(())
}
