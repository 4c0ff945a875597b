//! The record of the invocations that were imported.
//!
//! A file of its own in the data folder has a key for each invocation, so that an import of the same lines counts them once.
//! Keys and batches are written in one transaction, and the batches go from there into the store. The store drops a batch that
//! it has, so that an interrupted import loses nothing and counts nothing twice.

use std::collections::BTreeMap;
use std::path::Path;

use agent_proto::batch::Batch;
use anyhow::Context;
use bytes::Bytes;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Statement, Transaction, TransactionBehavior, params,
    params_from_iter,
};
use sha2::{Digest, Sha256};
use tailor_logs::{ImportedInvocation, SAME_REPORT_US};

use super::filter::Filter;
use crate::store::sqlite::store_id;
use crate::store::{FunctionKey, Tenant, Window};

/// The file in the data folder.
const FILE_NAME: &str = "imports.sqlite";

/// The version of the tables.
const VERSION: i64 = 1;

/// Keys that are written by one statement.
const ROWS: usize = 16;

/// A batch that is on its way into the store.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The owner.
    pub tenant: Tenant,
    /// When it was imported, microseconds since the Unix epoch.
    pub received_at_us: u64,
    /// The batch.
    pub batch: Batch,
    /// The same, encoded.
    pub body: Bytes,
}

/// The file of the imports.
pub struct Ledger {
    connection: Connection,
    /// All keys of the file; `None` when others wrote keys, before this import or beside it.
    filter: Option<Filter>,
    /// Changes when another connection writes to the file.
    data_version: i64,
}

/// The state of the file as it was opened.
struct Opened {
    connection: Connection,
    version: i64,
    data_version: i64,
    is_used: bool,
}

impl Ledger {
    /// Opens the ledger of a data folder, which must exist, for imports into the folder's store.
    ///
    /// # Errors
    /// When the file cannot be used, a newer program wrote it, or it is of imports into a database.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let ledger = Self::open_file(folder)?;
        anyhow::ensure!(ledger.database()?.is_none(), "{}", other_store(folder));
        Ok(ledger)
    }

    /// Opens the ledger of a data folder, which must exist, for imports into the database with the id `database`.
    /// `migrated_from` is the id of the store that was migrated into it: its ledger is continued.
    ///
    /// # Errors
    /// When the file cannot be used, a newer program wrote it, or it is of imports into another store.
    pub fn open_for_database(
        folder: &Path,
        database: &str,
        migrated_from: Option<&str>,
    ) -> anyhow::Result<Self> {
        let ledger = Self::open_file(folder)?;
        match ledger.database()? {
            Some(known) => anyhow::ensure!(known == database, "{}", other_store(folder)),
            None => {
                let is_used = ledger.filter.is_none();
                let is_migrated = migrated_from.is_some() && store_id(folder)?.as_deref() == migrated_from;
                anyhow::ensure!(!is_used || is_migrated, "{}", other_store(folder));
                ledger
                    .connection
                    .execute("INSERT INTO target (database) VALUES (?1)", [database])
                    .context(WRITE)?;
            }
        }
        Ok(ledger)
    }

    /// The id of the database that the imports went into; `None` for the store of the folder.
    fn database(&self) -> anyhow::Result<Option<String>> {
        let found = self.connection.query_row("SELECT database FROM target", [], |row| row.get(0)).optional();
        found.context("cannot read the ledger of the imports")
    }

    fn open_file(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE_NAME);
        let open = || -> rusqlite::Result<Opened> {
            let connection = Connection::open(&path)?;
            connection.execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA cache_size = -65536;
                 CREATE TABLE IF NOT EXISTS imported (
                    key INTEGER NOT NULL, second INTEGER NOT NULL, PRIMARY KEY (key, second)
                 ) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS waiting (
                    environment BLOB NOT NULL, sequence INTEGER NOT NULL, tenant TEXT NOT NULL,
                    received_at_us INTEGER NOT NULL, batch BLOB NOT NULL, PRIMARY KEY (environment, sequence)
                 ) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS log_bytes (
                    tenant TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, function TEXT NOT NULL,
                    hour INTEGER NOT NULL, bytes INTEGER NOT NULL,
                    PRIMARY KEY (tenant, account, region, function, hour)
                 ) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS target (database TEXT PRIMARY KEY) WITHOUT ROWID;",
            )?;
            let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
            }
            let data_version = data_version(&connection)?;
            let sql = "SELECT EXISTS (SELECT 1 FROM imported)";
            let is_used = connection.query_row(sql, [], |row| row.get(0))?;
            Ok(Opened { connection, version, data_version, is_used })
        };
        let Opened { connection, version, data_version, is_used } =
            open().with_context(|| format!("cannot use {}", path.display()))?;
        anyhow::ensure!(
            version <= VERSION,
            "{} has version {version}, this program supports up to {VERSION}: use a newer `tailor`",
            path.display()
        );
        Ok(Self { connection, filter: (!is_used).then(Filter::new), data_version })
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&mut self) -> anyhow::Result<Round<'_>> {
        // From here on, no other import writes.
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).context(WRITE)?;
        if data_version(&transaction).context(WRITE)? != self.data_version {
            self.filter = None;
        }
        Ok(Round { transaction, filter: &mut self.filter })
    }

    /// The batches that an interrupted import has left.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn waiting(&self) -> anyhow::Result<Vec<Waiting>> {
        let mut statement = self
            .connection
            .prepare("SELECT tenant, received_at_us, batch FROM waiting ORDER BY environment, sequence")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        rows.map(|row| {
            let (tenant, received_at_us, batch) = row?;
            Ok(Waiting {
                tenant: Tenant(tenant),
                received_at_us: received_at_us.cast_unsigned(),
                batch: Batch::decode(&batch)?,
                body: batch.into(),
            })
        })
        .collect()
    }

    /// Removes batches that are in the store.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remove(&self, batches: &[Waiting]) -> anyhow::Result<()> {
        let transaction = self.connection.unchecked_transaction().context(WRITE)?;
        for Waiting { batch, .. } in batches {
            let header = &batch.header;
            transaction
                .prepare_cached("DELETE FROM waiting WHERE environment = ?1 AND sequence = ?2")?
                .execute(params![header.environment.id.0, header.sequence.cast_signed()])
                .context(WRITE)?;
        }
        transaction.commit().context(WRITE)
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

fn other_store(folder: &Path) -> String {
    format!(
        "{} is of imports into another store, so that invocations could count twice: name another folder with --data",
        folder.join(FILE_NAME).display()
    )
}

/// The log bytes that imports into a data folder have counted of a function, as CloudWatch Logs counts them; `None` when nothing
/// was counted.
///
/// # Errors
/// When the file of the imports cannot be read.
pub fn log_bytes(
    folder: &Path,
    tenant: &Tenant,
    function: &FunctionKey,
    window: Window,
) -> anyhow::Result<Option<u64>> {
    let path = folder.join(FILE_NAME);
    let read = || -> rusqlite::Result<Option<i64>> {
        let Some(connection) = open_log_bytes(&path)? else { return Ok(None) };
        connection.query_row(
            "SELECT SUM(bytes) FROM log_bytes WHERE tenant = ?1 AND account = ?2 AND region = ?3 AND function = ?4
             AND hour >= ?5 AND hour < ?6",
            params![
                tenant.0,
                function.account,
                function.region,
                function.name,
                window.from_hour.cast_signed(),
                window.until_hour.cast_signed()
            ],
            |row| row.get(0),
        )
    };
    let sum = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sum.map(i64::cast_unsigned))
}

/// The same of every function of a tenant, in one query.
///
/// # Errors
/// When the file of the imports cannot be read.
pub fn all_log_bytes(
    folder: &Path,
    tenant: &Tenant,
    window: Window,
) -> anyhow::Result<BTreeMap<FunctionKey, u64>> {
    let path = folder.join(FILE_NAME);
    let read = || -> rusqlite::Result<BTreeMap<FunctionKey, u64>> {
        let Some(connection) = open_log_bytes(&path)? else { return Ok(BTreeMap::new()) };
        let mut statement = connection.prepare(
            "SELECT account, region, function, SUM(bytes) FROM log_bytes
             WHERE tenant = ?1 AND hour >= ?2 AND hour < ?3 GROUP BY account, region, function",
        )?;
        let hours = (window.from_hour.cast_signed(), window.until_hour.cast_signed());
        let rows = statement.query_map(params![tenant.0, hours.0, hours.1], |row| {
            let key = FunctionKey { account: row.get(0)?, region: row.get(1)?, name: row.get(2)? };
            Ok((key, row.get::<_, i64>(3)?.cast_unsigned()))
        })?;
        rows.collect()
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// The file of the imports; `None` when there is none, or an earlier version without these bytes wrote it.
fn open_log_bytes(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let has_table: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'log_bytes')",
        [],
        |row| row.get(0),
    )?;
    Ok(has_table.then_some(connection))
}

const WRITE: &str = "cannot write to the file of the imports";

/// One transaction. Dropping it undoes everything.
pub struct Round<'a> {
    transaction: Transaction<'a>,
    /// It may have keys of a transaction that was undone. These are looked up in the file.
    filter: &'a mut Option<Filter>,
}

impl Round<'_> {
    /// Records invocations. Returns for each whether it is new.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn add(&mut self, tenant: &Tenant, found: &[ImportedInvocation]) -> anyhow::Result<Vec<bool>> {
        const WITHIN_S: i64 = (SAME_REPORT_US / 1_000_000).cast_signed();
        let mut keys: Vec<(i64, bool, i64, usize)> = found
            .iter()
            .enumerate()
            .map(|(index, found)| {
                let second = (found.invocation.started_at_us / 1_000_000).cast_signed();
                (key(tenant, found), !found.has_time, if found.has_time { second } else { 0 }, index)
            })
            .collect();
        // In the order of the table, neighbouring keys are in the same page. One with a time counts before one without.
        keys.sort_unstable();
        // Zero stands for an unknown time, which is the same as any other.
        let Self { transaction, filter } = self;
        let filter: &mut Option<Filter> = filter;
        let mut find = transaction.prepare_cached(
            "SELECT 1 FROM imported
             WHERE key = ?1 AND (?2 = 0 OR second = 0 OR second BETWEEN ?2 - ?3 + 1 AND ?2 + ?3 - 1) LIMIT 1",
        )?;
        let mut insert = transaction.prepare_cached(&insert_sql(1))?;
        let mut insert_many = transaction.prepare_cached(&insert_sql(ROWS))?;
        let mut rows: Vec<[i64; 2]> = Vec::with_capacity(ROWS);
        let mut is_new = vec![false; found.len()];
        for (key, _, second, index) in keys {
            if filter.as_ref().is_none_or(|filter| filter.may_have(key)) {
                // Of the rows that are not written yet, only the last can have the same key.
                if rows.last().is_some_and(|[last, _]| *last == key) {
                    write(&mut insert, &mut rows, 1)?;
                }
                if find.exists(params![key, second, WITHIN_S])? {
                    continue;
                }
            }
            if let Some(filter) = filter {
                filter.insert(key);
            }
            is_new[index] = true;
            rows.push([key, second]);
            if rows.len() == ROWS {
                write(&mut insert_many, &mut rows, ROWS)?;
            }
        }
        write(&mut insert, &mut rows, 1)?;
        Ok(is_new)
    }

    /// Adds log bytes of invocations of a function that were not known, by hours since the Unix epoch.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add_log_bytes(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        by_hour: &BTreeMap<u64, u64>,
    ) -> anyhow::Result<()> {
        let mut add = self.transaction.prepare_cached(
            "INSERT INTO log_bytes (tenant, account, region, function, hour, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        )?;
        let FunctionKey { account, region, name } = function;
        for (hour, bytes) in by_hour {
            add.execute(params![tenant.0, account, region, name, hour.cast_signed(), bytes.cast_signed()])
                .context(WRITE)?;
        }
        Ok(())
    }

    /// Keeps a batch until it is in the store.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, waiting: &Waiting) -> anyhow::Result<()> {
        let Waiting { tenant, received_at_us, batch, body } = waiting;
        let header = &batch.header;
        self.transaction
            .prepare_cached(
                "INSERT INTO waiting (environment, sequence, tenant, received_at_us, batch)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                header.environment.id.0,
                header.sequence.cast_signed(),
                tenant.0,
                received_at_us.cast_signed(),
                body.as_ref()
            ])
            .context(WRITE)?;
        Ok(())
    }

    /// Writes everything to disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn commit(self) -> anyhow::Result<()> {
        self.transaction.commit().context(WRITE)
    }
}

/// The statement that writes a number of keys.
fn insert_sql(rows: usize) -> String {
    format!("INSERT INTO imported (key, second) VALUES {}", vec!["(?, ?)"; rows].join(", "))
}

/// Writes all rows, as many with each statement as it has places for.
fn write(statement: &mut Statement<'_>, rows: &mut Vec<[i64; 2]>, count: usize) -> anyhow::Result<()> {
    for some in rows.chunks(count) {
        statement.execute(params_from_iter(some.as_flattened())).context(WRITE)?;
    }
    rows.clear();
    Ok(())
}

/// 64 bits of a digest of what makes an invocation unique besides its time. Lambda invokes an asynchronous request again with
/// the same request id. Of 100 million invocations, two have the same key with a probability of 1 in 4,000.
fn key(tenant: &Tenant, found: &ImportedInvocation) -> i64 {
    let mut digest = Sha256::new();
    digest.update(found.invocation.request_id.0.to_be_bytes());
    digest.update(found.invocation.billed_ms.to_be_bytes());
    digest.update(tenant.0.as_bytes());
    let digest = digest.finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}
