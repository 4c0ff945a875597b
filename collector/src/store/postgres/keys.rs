//! API keys in a database, which all its collectors accept.

use std::sync::Arc;

use async_trait::async_trait;

use super::PostgresStore;
use super::connection::{Begin, Connection};
use super::errors::Failure;
use super::rows::{Cells, NewRow, Writes, insert as insert_rows, select};
use crate::store::damage::DamageLog;
use crate::store::keys::{FIRST_KEYS, KeyStore, StoredKey};
use crate::store::rows::{API_KEY, column, from_sql};
use crate::store::{StoreError, columns};

#[async_trait]
impl KeyStore for PostgresStore {
    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        // Not behind the pages: a revoked key must be noticed in time.
        let (pool, damage) = (Arc::clone(&self.small), self.damage.clone());
        self.run(async move {
            let read = pool.once(|connection| async move { read(&connection, "", &damage).await });
            read.await.map_err(Failure::into_store_error)
        })
        .await
    }

    async fn add_keys(&self, keys: Vec<StoredKey>) -> Result<(), StoreError> {
        let (pool, keys) = (Arc::clone(&self.small), Arc::new(keys));
        self.run(async move {
            pool.transaction(Begin::Write, |connection| {
                let keys = Arc::clone(&keys);
                async move { insert(&connection, &keys).await }
            })
            .await
        })
        .await
    }

    async fn add_first_keys(&self, keys: Vec<StoredKey>) -> Result<bool, StoreError> {
        let (pool, keys) = (Arc::clone(&self.small), Arc::new(keys));
        self.run(async move {
            pool.transaction(Begin::Write, |connection| {
                let keys = Arc::clone(&keys);
                async move {
                    // A second collector waits here for the commit of the first, and then does nothing.
                    let mark = "INSERT INTO tailor_meta (name, value) VALUES ($1, '') ON CONFLICT DO NOTHING";
                    let is_first = connection.execute(mark, &[&FIRST_KEYS]).await? == 1;
                    let sql = "SELECT 1 FROM tailor_api_key LIMIT 1";
                    let is_added = is_first && connection.query(sql, &[]).await?.is_empty();
                    if is_added {
                        insert(&connection, &keys).await?;
                    }
                    Ok(is_added)
                }
            })
            .await
        })
        .await
    }

    async fn remove_key(&self, digest: &str) -> Result<bool, StoreError> {
        let (pool, digest) = (Arc::clone(&self.small), digest.to_owned());
        self.run(async move {
            pool.transaction(Begin::Write, |connection| {
                let digest = digest.clone();
                async move {
                    let sql = "DELETE FROM tailor_api_key WHERE digest = $1";
                    Ok(connection.execute(sql, &[&digest]).await? > 0)
                }
            })
            .await
        })
        .await
    }

    async fn note_key_uses(&self, uses: Vec<(String, u64)>) -> Result<(), StoreError> {
        let (pool, uses, damage) = (Arc::clone(&self.small), Arc::new(uses), self.damage.clone());
        self.run(async move {
            pool.transaction(Begin::Write, |connection| {
                let (uses, damage) = (Arc::clone(&uses), damage.clone());
                async move {
                    let mut writes = Writes::default();
                    // The order of the locks is that of the digests, as in every collector.
                    for key in read(&connection, "FOR UPDATE", &damage).await? {
                        let used = uses.iter().filter(|(digest, _)| *digest == key.digest);
                        let used = used.map(|(_, at_s)| *at_s).max();
                        if let Some(last_used_s) = used.filter(|at_s| *at_s > key.last_used_s) {
                            writes.add(true, new_row(&StoredKey { last_used_s, ..key }));
                        }
                    }
                    writes.run(&connection, &API_KEY).await
                }
            })
            .await
        })
        .await
    }
}

fn new_row(key: &StoredKey) -> NewRow {
    columns::of_api_key(key, |fields| NewRow::new(&API_KEY, fields))
}

/// Inserts keys whose digests are not there.
pub(super) async fn insert(connection: &Connection, keys: &[StoredKey]) -> Result<(), Failure> {
    let rows: Vec<_> = keys.iter().map(new_row).collect();
    insert_rows(connection, &API_KEY, &rows, "ON CONFLICT DO NOTHING").await.map(drop)
}

async fn read(connection: &Connection, lock: &str, damage: &DamageLog) -> Result<Vec<StoredKey>, Failure> {
    let sql = format!("{} ORDER BY digest {lock}", select(&API_KEY));
    let mut keys = Vec::new();
    for row in connection.query(&sql, &[]).await? {
        let cells = Cells::of(&row)?;
        if cells.verify(&API_KEY, damage) {
            keys.push(StoredKey {
                digest: cells.text(column::api_key::digest)?.to_owned(),
                text: cells.text(column::api_key::text)?.to_owned(),
                last_used_s: from_sql(cells.integer(column::api_key::last_used_s)?),
            });
        }
    }
    Ok(keys)
}
