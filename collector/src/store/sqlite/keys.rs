//! API keys in the embedded store.
//!
//! `tailor keys` changes them while a collector runs on the folder: each change is a short transaction on a connection of
//! its own, for which the writer waits.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use super::connections::BUSY_TIMEOUT;
use super::files::FILE_NAME;
use super::rows::API_KEY;
use super::{SqliteStore, schema};
use crate::store::damage::DamageLog;
use crate::store::keys::{FIRST_KEYS, KeyStore, StoredKey};
use crate::store::rows::{column, from_sql};
use crate::store::{StoreError, columns};

/// The API keys in the store of a data folder, without the lock of the folder.
#[derive(Debug, Clone)]
pub struct FolderKeys {
    path: PathBuf,
}

impl FolderKeys {
    /// The keys in the store of `folder`.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME) }
    }

    /// Whether there is a store in the folder.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Checkpoints are the work of the collector, whose writes would wait for this one.
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
        Ok(connection)
    }

    /// One transaction on a thread that may wait.
    async fn write<T: Send + 'static>(
        &self,
        is_synced: bool,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let keys = self.clone();
        blocking(move || {
            let mut connection = keys.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            schema::check(&connection)?;
            let sync = if is_synced { "FULL" } else { "NORMAL" };
            connection.execute_batch(&format!("PRAGMA synchronous = {sync}"))?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Engine(format!("a request to the store panicked: {error}")))?
}

#[async_trait]
impl KeyStore for FolderKeys {
    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let keys = self.clone();
        blocking(move || {
            let connection = keys.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            // Earlier versions of the store have no keys, and need not be brought up to date to be read here.
            match schema::check(&connection) {
                Err(StoreError::Engine(_)) => Ok(Vec::new()),
                Err(error) => Err(error),
                Ok(()) => read(&connection, &DamageLog::default()),
            }
        })
        .await
    }

    async fn add_keys(&self, keys: Vec<StoredKey>) -> Result<(), StoreError> {
        self.write(true, move |transaction| insert(transaction, &keys)).await
    }

    async fn add_first_keys(&self, keys: Vec<StoredKey>) -> Result<bool, StoreError> {
        self.write(true, move |transaction| {
            let mark = "INSERT INTO meta (name, value) VALUES (?1, '') ON CONFLICT DO NOTHING";
            let is_first = transaction.execute(mark, [FIRST_KEYS])? == 1;
            let has_keys =
                transaction.query_row("SELECT 1 FROM api_key LIMIT 1", [], |_| Ok(())).optional()?;
            let is_added = is_first && has_keys.is_none();
            if is_added {
                insert(transaction, &keys)?;
            }
            Ok(is_added)
        })
        .await
    }

    async fn remove_key(&self, digest: &str) -> Result<bool, StoreError> {
        let digest = digest.to_owned();
        self.write(true, move |transaction| {
            Ok(transaction.execute("DELETE FROM api_key WHERE digest = ?1", [digest])? > 0)
        })
        .await
    }

    async fn note_key_uses(&self, uses: Vec<(String, u64)>) -> Result<(), StoreError> {
        self.write(false, move |transaction| {
            for key in read(transaction, &DamageLog::default())? {
                let used =
                    uses.iter().filter(|(digest, _)| *digest == key.digest).map(|(_, at_s)| *at_s).max();
                if let Some(last_used_s) = used.filter(|at_s| *at_s > key.last_used_s) {
                    let key = StoredKey { last_used_s, ..key };
                    columns::of_api_key(&key, |fields| API_KEY.replace(transaction, fields))?;
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        if matches!(self.shared.jobs(), Err(StoreError::Full(_))) {
            // These connections need no space.
            return self.read(read).await;
        }
        let (health, damage) = (self.health.clone(), self.shared.damage.clone());
        // Not behind the pages: a revoked key must be noticed in time.
        let permit = health.permits.clone().acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        blocking(move || {
            let _permit = permit;
            health.with(|connection| read(connection, &damage))
        })
        .await
    }

    async fn add_keys(&self, keys: Vec<StoredKey>) -> Result<(), StoreError> {
        self.folder_keys().add_keys(keys).await
    }

    async fn add_first_keys(&self, keys: Vec<StoredKey>) -> Result<bool, StoreError> {
        self.folder_keys().add_first_keys(keys).await
    }

    async fn remove_key(&self, digest: &str) -> Result<bool, StoreError> {
        self.folder_keys().remove_key(digest).await
    }

    async fn note_key_uses(&self, uses: Vec<(String, u64)>) -> Result<(), StoreError> {
        self.folder_keys().note_key_uses(uses).await
    }
}

impl SqliteStore {
    fn folder_keys(&self) -> FolderKeys {
        FolderKeys::of(&self.shared.settings.folder)
    }
}

/// Inserts keys whose digests are not there.
fn insert(connection: &Connection, keys: &[StoredKey]) -> Result<(), StoreError> {
    for key in keys {
        columns::of_api_key(key, |fields| API_KEY.insert(connection, fields))?;
    }
    Ok(())
}

/// Writes keys, over those with the same digests.
pub(super) fn put(connection: &Connection, keys: &[StoredKey]) -> Result<(), StoreError> {
    keys.iter().try_for_each(|key| columns::of_api_key(key, |fields| API_KEY.replace(connection, fields)))
}

pub(in crate::store) fn read(
    connection: &Connection,
    damage: &DamageLog,
) -> Result<Vec<StoredKey>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{} ORDER BY digest", API_KEY.select))?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        if API_KEY.verify(row, damage)? {
            keys.push(StoredKey {
                digest: row.get(column::api_key::digest)?,
                text: row.get(column::api_key::text)?,
                last_used_s: from_sql(row.get(column::api_key::last_used_s)?),
            });
        }
    }
    Ok(keys)
}
