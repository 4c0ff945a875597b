//! The schema. Its statements are those that Citus, Aurora, CockroachDB and YugabyteDB have, too: no sequences, triggers
//! or foreign keys. Each is a transaction of its own and can be repeated.
//!
//! All keys but those of `summary`, `meta`, `lease`, `damaged`, `api_key` and of the archive have the function's name, by which a
//! sharded database can distribute the rows.

use super::connection::{Connection, Pool};
use super::errors::{Attempts, Failure};
use super::migrate::read_state;
use crate::random;
use crate::store::StoreError;

/// The schema version that this program writes. Version 1 had no API keys, and version 2 no archive.
pub(super) const CURRENT: i64 = 3;

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS tailor_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tailor_lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at TIMESTAMPTZ NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tailor_function (
        tenant TEXT NOT NULL, function TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL,
        received_at_us BIGINT NOT NULL, recent_invocations BIGINT NOT NULL, header BYTEA NOT NULL,
        checksum BIGINT NOT NULL,
        changed_at_us BIGINT NOT NULL DEFAULT 1, summarized_at_us BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, function, account, region))",
    "CREATE INDEX IF NOT EXISTS tailor_function_changed ON tailor_function (changed_at_us) WHERE changed_at_us > 0",
    "CREATE TABLE IF NOT EXISTS tailor_pending (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        environment BYTEA NOT NULL, sequence BIGINT NOT NULL,
        received_at_us BIGINT NOT NULL, last_at_us BIGINT NOT NULL, invocations BIGINT NOT NULL,
        header BYTEA NOT NULL, rollups BYTEA NOT NULL, body BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, environment, sequence))",
    "CREATE TABLE IF NOT EXISTS tailor_environment (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        environment BYTEA NOT NULL,
        received_at_us BIGINT NOT NULL, sequences BYTEA NOT NULL, header BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, environment))",
    "CREATE TABLE IF NOT EXISTS tailor_ended (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        day BIGINT NOT NULL, body BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, day))",
    "CREATE TABLE IF NOT EXISTS tailor_rollup (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        hours BIGINT NOT NULL, hour BIGINT NOT NULL,
        version TEXT NOT NULL, memory_mb BIGINT NOT NULL, architecture TEXT NOT NULL,
        body BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, hours, hour, version, memory_mb, architecture))",
    "CREATE TABLE IF NOT EXISTS tailor_recent (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        last_at_us BIGINT NOT NULL, part BYTEA NOT NULL,
        invocations BIGINT NOT NULL, body BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, last_at_us, part))",
    "CREATE TABLE IF NOT EXISTS tailor_change_event (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        change_id TEXT NOT NULL, step BIGINT NOT NULL,
        at_us BIGINT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, change_id, step))",
    "CREATE TABLE IF NOT EXISTS tailor_summary (
        tenant TEXT NOT NULL, hours BIGINT NOT NULL, strategy TEXT NOT NULL,
        account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        \"row\" TEXT NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, hours, strategy, account, region, function))",
    "CREATE TABLE IF NOT EXISTS tailor_summary_report (
        tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
        hours BIGINT NOT NULL, strategy TEXT NOT NULL, report BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, account, region, function, hours, strategy))",
    // Rows that `tailor check --repair` isolated.
    "CREATE TABLE IF NOT EXISTS tailor_damaged (
        noticed_at_us BIGINT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY (noticed_at_us, name))",
    // `text` is a line of a key file.
    "CREATE TABLE IF NOT EXISTS tailor_api_key (
        digest TEXT PRIMARY KEY, text TEXT NOT NULL, last_used_s BIGINT NOT NULL, checksum BIGINT NOT NULL)",
    // The archive: what is known of the invocations of one day and account, parts that wait for their upload, and files.
    "CREATE TABLE IF NOT EXISTS tailor_archive_partition (
        tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL,
        first_waiting BIGINT NOT NULL, waiting_bytes BIGINT NOT NULL, waiting_invocations BIGINT NOT NULL,
        waiting_since_us BIGINT NOT NULL,
        spooled_invocations BIGINT NOT NULL, spooled_billed_ms BIGINT NOT NULL,
        dropped_invocations BIGINT NOT NULL, dropped_billed_ms BIGINT NOT NULL,
        checksum BIGINT NOT NULL, PRIMARY KEY (tenant, day, account))",
    "CREATE TABLE IF NOT EXISTS tailor_archive_part (
        tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL, number BIGINT NOT NULL,
        invocations BIGINT NOT NULL, billed_ms BIGINT NOT NULL, body BYTEA NOT NULL, checksum BIGINT NOT NULL,
        PRIMARY KEY (tenant, day, account, number))",
    "CREATE TABLE IF NOT EXISTS tailor_archive_file (
        tenant TEXT NOT NULL, day BIGINT NOT NULL, account TEXT NOT NULL, first BIGINT NOT NULL,
        last BIGINT NOT NULL, digest TEXT NOT NULL, invocations BIGINT NOT NULL, billed_ms BIGINT NOT NULL,
        sealed_at_us BIGINT NOT NULL, uploaded_at_us BIGINT NOT NULL, object TEXT NOT NULL, bytes BIGINT NOT NULL,
        sha256 TEXT NOT NULL, uploaded_invocations BIGINT NOT NULL, uploaded_billed_ms BIGINT NOT NULL,
        has_parts BIGINT NOT NULL, checksum BIGINT NOT NULL, PRIMARY KEY (tenant, day, account, first))",
    "CREATE INDEX IF NOT EXISTS tailor_archive_file_open ON tailor_archive_file (sealed_at_us) WHERE has_parts > 0",
];

/// Creates the tables that are absent; rejects a newer schema, and an unfinished migration.
pub(super) async fn create(pool: &Pool) -> Result<(), StoreError> {
    create_tables(pool).await?;
    check(pool).await
}

/// Creates the tables that are absent; rejects a newer schema. Several collectors may do it at once.
pub(super) async fn create_tables(pool: &Pool) -> Result<(), StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let created = pool.once(|connection| async move {
            if version(&connection).await? == Some(CURRENT) {
                return Ok(());
            }
            // `IF NOT EXISTS` fails with a violated key when another collector creates the same table now.
            for table in TABLES {
                connection.batch(table).await?;
            }
            let sql = "INSERT INTO tailor_meta (name, value) VALUES ('schema', $1) ON CONFLICT DO NOTHING";
            connection.execute(sql, &[&CURRENT.to_string()]).await?;
            let sql = "INSERT INTO tailor_meta (name, value) VALUES ('id', $1) ON CONFLICT DO NOTHING";
            connection.execute(sql, &[&random::hex::<8>().map_err(StoreError::from)?]).await?;
            // All tables of an earlier version are those of this one.
            let sql = "UPDATE tailor_meta SET value = $1 WHERE name = 'schema' AND value <> $1";
            connection.execute(sql, &[&CURRENT.to_string()]).await?;
            Ok(())
        });
        match created.await {
            Ok(()) => return Ok(()),
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// Rejects a database without the current schema, or with an unfinished migration, without changing it.
pub(super) async fn check(pool: &Pool) -> Result<(), StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let found = pool.once(|connection| async move {
            let version = version(&connection).await?;
            let migration = if version.is_some() { read_state(&connection).await? } else { None };
            Ok((version, migration))
        });
        match found.await {
            Ok((Some(CURRENT), None)) => return Ok(()),
            Ok((Some(CURRENT), Some(state))) if state.is_finished => return Ok(()),
            Ok((Some(CURRENT), Some(_))) => {
                let message = "a migration into this database is not finished: run `tailor migrate` again";
                return Err(StoreError::Engine(message.to_owned()));
            }
            Ok((Some(found), _)) => {
                return Err(StoreError::Engine(format!(
                    "schema {found} is older than {CURRENT}: run `tailor serve` once to bring it up to date"
                )));
            }
            Ok((None, _)) => {
                let message = "there is no store in this database: start `tailor serve --database` with it, or name another";
                return Err(StoreError::Engine(message.to_owned()));
            }
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// Whether the database has the tables of a store.
pub(super) async fn exists(pool: &Pool) -> Result<bool, StoreError> {
    let mut attempts = Attempts::new();
    loop {
        match pool.once(|connection| async move { version(&connection).await }).await {
            Ok(version) => return Ok(version.is_some()),
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// The version of the schema; `None` without tables. A newer one than [`CURRENT`] is rejected.
async fn version(connection: &Connection) -> Result<Option<i64>, Failure> {
    let exists = "SELECT 1 FROM information_schema.tables
                  WHERE table_name = 'tailor_meta' AND table_schema = ANY (current_schemas(false))";
    if connection.query(exists, &[]).await?.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT value FROM tailor_meta WHERE name = 'schema'";
    let rows = connection.query(sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let value: &str = row.try_get(0)?;
    match value.parse() {
        Ok(found) if found > CURRENT => Err(StoreError::NewerSchema { found, known: CURRENT }.into()),
        Ok(found) => Ok(Some(found)),
        Err(_) => Err(StoreError::Damaged(format!("the schema version `{value}` is not a number")).into()),
    }
}

/// The id of the store, and that of the embedded store that was migrated into it.
pub(super) async fn ids(connection: &Connection) -> Result<(String, Option<String>), Failure> {
    let rows = connection.query("SELECT value FROM tailor_meta WHERE name = 'id'", &[]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Damaged("the store has no id".to_owned()))?;
    let migrated_from = read_state(connection).await?.map(|state| state.source);
    Ok((row.try_get(0)?, migrated_from))
}
