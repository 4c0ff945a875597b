//! `tailor migrate`: copies the embedded store into a database.
//!
//! Rows are copied as they are, with their checksums, in the order of their keys. How far the copy is, is written in the
//! transaction of the rows, so that a killed migration continues. Until it is finished, the database cannot be served.
//! API keys are added to those that the database has. [`LEFT_OUT`] has the tables that are not copied.

use std::path::Path;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection as File, OpenFlags};
use serde::{Deserialize, Serialize};

use super::connection::{Begin, Connection, Pool};
use super::database::Database;
use super::errors::Failure;
use super::rows::{NewRow, PREFIX, insert};
use super::{keys, requests, schema};
use crate::store::damage::DamageLog;
use crate::store::rows::Field;
use crate::store::sqlite::keys as sqlite_keys;
use crate::store::sqlite::rows::{SqliteTable, tables};
use crate::store::sqlite::schema as sqlite_schema;
use crate::store::sqlite::{files, migration_problem};
use crate::store::{StoreError, StoredKey, Tenant};

/// Maximum number of rows in one transaction.
const MAX_ROWS: usize = 500;

/// Size of the rows from which a transaction ends, bytes.
const MAX_BYTES: usize = 4 << 20;

const COMPUTED: &str = "it is computed again";

const NO_ARCHIVE: &str = "the record of the archive is not copied; everything is uploaded";

/// Tables of the embedded store that are not copied, with the reason.
const LEFT_OUT: [(&str, &str); 6] = [
    ("summary", COMPUTED),
    ("summary_report", COMPUTED),
    ("archive_partition", NO_ARCHIVE),
    ("archive_part", NO_ARCHIVE),
    ("archive_file", NO_ARCHIVE),
    ("damaged", "`tailor check --repair` isolated these rows; they stay in the data folder"),
];

const STAYS: &str = "it stays in the data folder: keep it as the `--data` of a collector";

/// What else is in a data folder and is not copied.
const FILES_LEFT_OUT: [(&str, &str); 5] = [
    ("recommendations.json", STAYS),
    ("reconciliation.json", STAYS),
    ("sent-tags.json", STAYS),
    ("imports.sqlite", "import logs with this data folder as `--data`, so that nothing is imported twice"),
    ("tuner-requests", "the tuner did not carry these requests out: make them again"),
];

/// The table that may have rows before the migration.
const KEYS: &str = "api_key";

/// How far a migration is. It is stored in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The id of the embedded store.
    pub(super) source: String,
    /// The table that is being copied.
    table: String,
    /// How many of its rows are copied.
    rows: u64,
    /// Whether everything was copied and verified.
    pub(super) is_finished: bool,
}

/// What was copied of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// Number of rows, of this run and of earlier ones.
    pub rows: u64,
    /// Number of damaged rows, which are not copied.
    pub damaged: u64,
    /// Sum of the checksums.
    checksums: i64,
}

/// What is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The table, or the file in the data folder.
    pub name: &'static str,
    /// Number of rows; `None` for a file.
    pub rows: Option<u64>,
    /// Why, and what to do.
    pub reason: &'static str,
}

/// What is copied beside the tables.
#[derive(Debug, Clone, Default)]
pub struct FromFiles {
    /// API keys of the folder that are not in the store. They take precedence over those in the store.
    pub keys: Vec<StoredKey>,
    /// Texts that the database keeps under a name. They replace those that it has.
    pub texts: Vec<NamedText>,
}

/// A text that a part of the collector keeps under a name.
#[derive(Debug, Clone)]
pub struct NamedText {
    /// The owner.
    pub tenant: Tenant,
    /// Its name.
    pub name: &'static str,
    /// The text.
    pub text: String,
    /// How many entries it has.
    pub entries: u64,
}

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// What was copied.
    pub copied: Vec<CopiedTable>,
    /// What was not.
    pub left_out: Vec<LeftOut>,
}

/// Copies the store in `folder`, on which no collector may run, into an empty database. Continues a migration of the same
/// store that was interrupted. `progress` gets each table after each transaction.
///
/// # Errors
/// [`StoreError::Engine`] when the database is not empty, when a collector runs on the folder, when the totals differ in
/// the end, and when the database or the folder fails.
pub async fn migrate(
    folder: &Path,
    database: &Database,
    from_files: FromFiles,
    progress: impl Fn(&CopiedTable),
) -> Result<Migration, StoreError> {
    let _lock = files::lock(folder)?;
    let file = File::open_with_flags(folder.join(files::FILE_NAME), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    sqlite_schema::check(&file)?;
    if let Some(problem) = migration_problem(&file)? {
        return Err(StoreError::Engine(problem));
    }
    let source: String = file.query_row("SELECT value FROM meta WHERE name = 'id'", [], |row| row.get(0))?;
    let pool = Pool::new(database.clone(), 1);
    schema::create_tables(&pool).await?;
    let start = begin(&pool, &source).await?;
    let is_copied = |table: &&SqliteTable| table.name != KEYS && !is_left_out(table.name);
    let copied_tables = || tables().into_iter().filter(is_copied);
    let mut state = start.clone();
    let mut results = vec![];
    let mut is_before = copied_tables().any(|table| table.name == start.table);
    for table in copied_tables() {
        // Tables before that of the interrupted migration are complete, and only counted.
        let skipped = match (is_before, table.name == start.table) {
            (_, true) => start.rows,
            (true, false) => u64::MAX,
            (false, false) => 0,
        };
        is_before &= table.name != start.table;
        state = State { table: table.name.to_owned(), rows: skipped, ..state };
        results.push(copy_table(&file, &pool, table, &mut state, &progress).await?);
    }
    verify(&pool, &results).await?;
    finish(&file, &pool, State { is_finished: true, ..state }, from_files, &mut results).await?;
    Ok(Migration { copied: results, left_out: left_out(&file, folder)? })
}

/// Copies what is in no table with checksums of both stores, and marks the migration as finished, in one transaction.
async fn finish(
    file: &File,
    pool: &Pool,
    finished: State,
    from_files: FromFiles,
    results: &mut Vec<CopiedTable>,
) -> Result<(), StoreError> {
    let (mut keys, damaged) = stored_keys(file)?;
    keys.splice(0..0, from_files.keys);
    let (keys, texts) = (Arc::new(keys), Arc::new(from_files.texts));
    pool.transaction(Begin::Write, |connection| {
        let (finished, keys, texts) = (finished.clone(), Arc::clone(&keys), Arc::clone(&texts));
        async move {
            keys::insert(&connection, &keys).await?;
            for NamedText { tenant, name, text, .. } in texts.iter() {
                let name = requests::text_name(tenant, name);
                connection.execute(requests::PUT_TEXT, &[&name, text]).await?;
            }
            write_state(&connection, &finished).await
        }
    })
    .await?;
    results.push(CopiedTable { name: KEYS, rows: keys.len() as u64, damaged, checksums: 0 });
    let texts = texts.iter();
    results.extend(texts.map(|text| CopiedTable {
        name: text.name,
        rows: text.entries,
        damaged: 0,
        checksums: 0,
    }));
    Ok(())
}

fn is_left_out(table: &str) -> bool {
    LEFT_OUT.iter().any(|(name, _)| *name == table)
}

/// The tables that are not copied, and the files that are there and are not copied.
fn left_out(file: &File, folder: &Path) -> Result<Vec<LeftOut>, StoreError> {
    let mut found = vec![];
    for (name, reason) in LEFT_OUT {
        let rows: i64 = file.query_row(&format!("SELECT COUNT(*) FROM {name}"), [], |row| row.get(0))?;
        found.push(LeftOut { name, rows: Some(rows.unsigned_abs()), reason });
    }
    for (name, reason) in FILES_LEFT_OUT {
        let path = folder.join(name);
        let has_content = match std::fs::read_dir(&path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => path.exists(),
        };
        if has_content {
            found.push(LeftOut { name, rows: None, reason });
        }
    }
    Ok(found)
}

/// The API keys in the embedded store, and the number of damaged ones.
fn stored_keys(file: &File) -> Result<(Vec<StoredKey>, u64), StoreError> {
    let damage = DamageLog::default();
    let keys = sqlite_keys::read(file, &damage)?;
    Ok((keys, damage.damage().rows))
}

/// Rejects a database that is not empty and has no unfinished migration of this store. Returns where to begin.
async fn begin(pool: &Pool, source: &str) -> Result<State, StoreError> {
    let source = Arc::new(source.to_owned());
    pool.transaction(Begin::Write, |connection| {
        let source = Arc::clone(&source);
        async move {
            let rejected = |reason: &str| {
                Err(Failure::Store(StoreError::Engine(format!(
                    "{reason}: choose an empty database, or delete its tables `{PREFIX}*`"
                ))))
            };
            match read_state(&connection).await? {
                Some(state) if state.is_finished => {
                    return rejected("a store was already migrated into this database");
                }
                Some(state) if state.source == *source => return Ok(state),
                Some(_) => return rejected("another store is being migrated into this database"),
                None => {}
            }
            for table in tables().into_iter().filter(|table| table.name != KEYS) {
                let sql = format!("SELECT 1 FROM {PREFIX}{} LIMIT 1", table.name);
                if !connection.query(&sql, &[]).await?.is_empty() {
                    return rejected("there are measurements in this database");
                }
            }
            let state =
                State { source: source.to_string(), table: String::new(), rows: 0, is_finished: false };
            write_state(&connection, &state).await?;
            Ok(state)
        }
    })
    .await
}

/// The migration into this database, if there was one.
pub(super) async fn read_state(connection: &Connection) -> Result<Option<State>, Failure> {
    let rows = connection.query("SELECT value FROM tailor_meta WHERE name = 'migration'", &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let state = serde_json::from_str(row.try_get(0)?);
    state
        .map(Some)
        .map_err(|error| StoreError::Damaged(format!("the state of the migration: {error}")).into())
}

async fn write_state(connection: &Connection, state: &State) -> Result<(), Failure> {
    let value = serde_json::to_string(state).map_err(|error| StoreError::Engine(error.to_string()))?;
    let sql = "UPDATE tailor_meta SET value = $1 WHERE name = 'migration'";
    if connection.execute(sql, &[&value]).await? == 0 {
        connection
            .execute("INSERT INTO tailor_meta (name, value) VALUES ('migration', $1)", &[&value])
            .await?;
    }
    Ok(())
}

/// Copies one table from the row `state.rows` on, and counts it from the first.
async fn copy_table(
    file: &File,
    pool: &Pool,
    table: &'static SqliteTable,
    state: &mut State,
    progress: &impl Fn(&CopiedTable),
) -> Result<CopiedTable, StoreError> {
    let keys = table.columns[..table.keys].join(", ");
    let mut statement = file.prepare(&format!("{} ORDER BY {keys}", table.select))?;
    let mut rows = statement.query([])?;
    let mut copied = CopiedTable { name: table.name, rows: 0, damaged: 0, checksums: 0 };
    let (mut part, mut part_bytes) = (vec![], 0);
    let mut is_last = false;
    while !is_last {
        match rows.next()? {
            Some(row) if !table.is_valid(row)? => copied.damaged += 1,
            Some(row) => {
                let checksum: i64 = row.get(table.columns.len())?;
                copied.rows += 1;
                copied.checksums = copied.checksums.wrapping_add(checksum);
                if copied.rows > state.rows {
                    let fields = (0..table.columns.len()).map(|index| field(row.get_ref(index)?));
                    let fields = fields.collect::<Result<Vec<_>, StoreError>>()?;
                    part_bytes += fields.iter().map(size).sum::<usize>();
                    part.push(NewRow::new(table, &fields));
                }
            }
            None => is_last = true,
        }
        if part.len() >= MAX_ROWS || part_bytes >= MAX_BYTES || (is_last && !part.is_empty()) {
            let rows = Arc::new(std::mem::take(&mut part));
            part_bytes = 0;
            state.rows = copied.rows;
            let stored = state.clone();
            pool.transaction(Begin::Write, |connection| {
                let (rows, stored) = (Arc::clone(&rows), stored.clone());
                async move {
                    // After a lost connection they may be there.
                    insert(&connection, table, &rows, "ON CONFLICT DO NOTHING").await?;
                    write_state(&connection, &stored).await
                }
            })
            .await?;
            progress(&copied);
        }
    }
    Ok(copied)
}

fn field(value: ValueRef<'_>) -> Result<Field<'_>, StoreError> {
    match value {
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Field::Text(text)),
            Err(error) => Err(StoreError::Damaged(error.to_string())),
        },
        ValueRef::Integer(integer) => Ok(Field::Integer(integer)),
        ValueRef::Blob(bytes) => Ok(Field::Blob(bytes)),
        ValueRef::Null | ValueRef::Real(_) => {
            Err(StoreError::Damaged("a value has no valid type".to_owned()))
        }
    }
}

fn size(field: &Field<'_>) -> usize {
    match field {
        Field::Text(text) => text.len(),
        Field::Integer(_) => 8,
        Field::Blob(bytes) => bytes.len(),
    }
}

/// Compares the number of rows and the sums of their checksums.
async fn verify(pool: &Pool, results: &[CopiedTable]) -> Result<(), StoreError> {
    for copied in results {
        let sql = format!(
            "SELECT COUNT(*)::bigint, COALESCE(SUM(checksum), 0)::bigint FROM {PREFIX}{}",
            copied.name
        );
        let found = pool.transaction(Begin::Read, |connection| {
            let sql = sql.clone();
            async move {
                let rows = connection.query(&sql, &[]).await?;
                let row = rows.first().ok_or_else(|| StoreError::Engine("no totals".to_owned()))?;
                Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?))
            }
        });
        let expected = (i64::try_from(copied.rows).unwrap_or(i64::MAX), copied.checksums);
        if found.await? != expected {
            return Err(StoreError::Engine(format!(
                "the copy of the table `{}` differs: the data folder was used since the migration began. Delete the \
                 tables `{PREFIX}*` of the database and migrate again",
                copied.name
            )));
        }
    }
    Ok(())
}
