//! The schema, and the migration of older versions.
//!
//! The primary keys begin with tenant and function, by which a sharded database can distribute rows, and end with an
//! id from the client. There are no sequences, triggers or foreign keys.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{StoreError, archive, upgrade};

/// The schema version that this program writes. Versions 1 to 3 had one row per batch, version 4 had no archive,
/// version 5 no API keys.
pub(super) const CURRENT: i64 = 6;

/// The tables of [`CURRENT`] but those of the archive. Each has a checksum of the columns before it; see `rows`.
pub(super) const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- `changed_at_us` is 0 when the summaries are current, and 1 when there are none.
CREATE TABLE function (
    tenant TEXT NOT NULL, function TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL,
    received_at_us BIGINT NOT NULL, recent_invocations BIGINT NOT NULL, header BLOB NOT NULL,
    checksum BIGINT NOT NULL,
    changed_at_us BIGINT NOT NULL DEFAULT 1, summarized_at_us BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, function, account, region)
) WITHOUT ROWID;
CREATE INDEX function_changed ON function (changed_at_us) WHERE changed_at_us > 0;

CREATE TABLE pending (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    environment BLOB NOT NULL, sequence BIGINT NOT NULL,
    received_at_us BIGINT NOT NULL, last_at_us BIGINT NOT NULL, invocations BIGINT NOT NULL,
    header BLOB NOT NULL, rollups BLOB NOT NULL, body BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, environment, sequence)
) WITHOUT ROWID;

CREATE TABLE environment (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    environment BLOB NOT NULL,
    received_at_us BIGINT NOT NULL, sequences BLOB NOT NULL, header BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, environment)
) WITHOUT ROWID;

CREATE TABLE ended (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    day BIGINT NOT NULL,
    body BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, day)
) WITHOUT ROWID;

CREATE TABLE rollup (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    hours BIGINT NOT NULL, hour BIGINT NOT NULL,
    version TEXT NOT NULL, memory_mb BIGINT NOT NULL, architecture TEXT NOT NULL,
    body BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, hours, hour, version, memory_mb, architecture)
) WITHOUT ROWID;

CREATE TABLE recent (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    last_at_us BIGINT NOT NULL, part BLOB NOT NULL,
    invocations BIGINT NOT NULL, body BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, last_at_us, part)
) WITHOUT ROWID;

CREATE TABLE change_event (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    change_id TEXT NOT NULL, step BIGINT NOT NULL,
    at_us BIGINT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, change_id, step)
) WITHOUT ROWID;

CREATE TABLE summary (
    tenant TEXT NOT NULL, hours BIGINT NOT NULL, strategy TEXT NOT NULL,
    account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    row TEXT NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, hours, strategy, account, region, function)
) WITHOUT ROWID;

CREATE TABLE summary_report (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    hours BIGINT NOT NULL, strategy TEXT NOT NULL,
    report BLOB NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, hours, strategy)
) WITHOUT ROWID;

-- Rows that `tailor check --repair` isolated.
CREATE TABLE damaged (
    noticed_at_us BIGINT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (noticed_at_us, name)
) WITHOUT ROWID;
";

/// The table of [`API_KEY`](super::rows::API_KEY). `text` is a line of a key file.
const API_KEYS: &str = "
CREATE TABLE api_key (
    digest TEXT PRIMARY KEY, text TEXT NOT NULL, last_used_s BIGINT NOT NULL, checksum BIGINT NOT NULL
) WITHOUT ROWID;
";

/// Creates the tables, or migrates the file to the current schema; rejects a file with a newer schema. It is one
/// transaction, so a crash leaves the older version.
pub(super) fn migrate(connection: &mut Connection, now_us: u64) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    match found {
        CURRENT => return Ok(()),
        0 => transaction.execute_batch(TABLES)?,
        1..4 => upgrade::from_rows_per_batch(&transaction, found, now_us)?,
        4..CURRENT => {}
        found => return Err(StoreError::NewerSchema { found, known: CURRENT }),
    }
    if found < 5 {
        transaction.execute_batch(archive::TABLES)?;
    }
    transaction.execute_batch(API_KEYS)?;
    transaction.execute_batch(&format!("PRAGMA user_version = {CURRENT}"))?;
    transaction.commit()?;
    if (1..4).contains(&found) {
        // The old tables were most of the file. This also enables the incremental vacuum.
        let vacuumed = connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;");
        if let Err(error) = vacuumed {
            tracing::warn!(%error, "the store was migrated, and its free space cannot be returned now");
        }
    }
    Ok(())
}

fn version(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    Ok(transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Rejects a file that does not have the current schema, without changing it.
pub(in crate::store) fn check(connection: &Connection) -> Result<(), StoreError> {
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        CURRENT => Ok(()),
        found if found > CURRENT => Err(StoreError::NewerSchema { found, known: CURRENT }),
        found => Err(StoreError::Engine(format!(
            "schema {found} is older than {CURRENT}: run `tailor serve` once to bring it up to date"
        ))),
    }
}

/// The differences between the definitions of the tables in a file of the current schema and [`TABLES`].
pub(super) fn differences(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let definitions = |connection: &Connection| -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut statement = connection.prepare(
            "SELECT CAST(type || ' ' || name || ' of ' || tbl_name AS BLOB), CAST(sql AS BLOB) FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite_%'",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let new = Connection::open_in_memory()?;
    new.execute_batch(TABLES)?;
    new.execute_batch(archive::TABLES)?;
    new.execute_batch(API_KEYS)?;
    let (expected, found) = (definitions(&new)?, definitions(connection)?);
    let names = expected.keys().chain(found.keys()).collect::<BTreeSet<_>>();
    let differs = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    Ok(differs.map(|name| format!("definition of {}", String::from_utf8_lossy(name))).collect())
}
