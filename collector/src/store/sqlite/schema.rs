//! The schema, as migrations from an empty file to the current version.
//!
//! Every primary key begins with tenant and function, by which a sharded database can distribute rows, and
//! ends with an id from the client. There are no sequences, triggers, foreign keys or updates.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Entry N migrates the file from version N to N + 1. New entries are only appended.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE batch (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    environment BLOB NOT NULL, sequence BIGINT NOT NULL,
    received_at_us BIGINT NOT NULL,
    version TEXT NOT NULL, memory_mb BIGINT NOT NULL, architecture TEXT NOT NULL, runtime TEXT NOT NULL,
    initialization_type TEXT NOT NULL, extension_version TEXT NOT NULL,
    ephemeral_mb BIGINT NOT NULL, timeout_ms BIGINT NOT NULL,
    lost_invocations BIGINT NOT NULL, lost_platform_records BIGINT NOT NULL,
    lost_undecodable_records BIGINT NOT NULL, failed_deliveries BIGINT NOT NULL,
    overhead_cpu_us BIGINT NOT NULL, overhead_resident_kib BIGINT NOT NULL,
    overhead_sent_bytes BIGINT NOT NULL, overhead_ticks BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, environment, sequence)
) WITHOUT ROWID;

CREATE TABLE rollup (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    hour BIGINT NOT NULL,
    version TEXT NOT NULL, memory_mb BIGINT NOT NULL, architecture TEXT NOT NULL,
    part BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, account, region, function, hour, version, memory_mb, architecture, part)
) WITHOUT ROWID;

CREATE TABLE recent (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    last_at_us BIGINT NOT NULL,
    environment BLOB NOT NULL, sequence BIGINT NOT NULL,
    invocations BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, account, region, function, last_at_us, environment, sequence)
);

CREATE TABLE change_event (
    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
    change_id TEXT NOT NULL, step BIGINT NOT NULL,
    at_us BIGINT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (tenant, account, region, function, change_id, step)
) WITHOUT ROWID;
",
    "
ALTER TABLE batch ADD COLUMN unsent BIGINT NOT NULL DEFAULT 0;
",
    "
ALTER TABLE batch ADD COLUMN sent_at_us BIGINT NOT NULL DEFAULT 0;
",
];

/// The schema version that this program writes.
#[expect(clippy::cast_possible_wrap, reason = "only a few migrations")]
pub(super) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// Migrates the file to the current schema; refuses a file with a newer schema.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > CURRENT {
        return Err(StoreError::NewerSchema { found, known: CURRENT });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {CURRENT}"))?;
    transaction.commit()?;
    Ok(())
}

/// Refuses a file that does not have the current schema, without changing it.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        CURRENT => Ok(()),
        found if found > CURRENT => Err(StoreError::NewerSchema { found, known: CURRENT }),
        found => Err(StoreError::Engine(format!(
            "schema {found} is older than {CURRENT}: run `tailor serve` once to bring it up to date"
        ))),
    }
}
