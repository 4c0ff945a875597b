//! Named values: requests of people to the tuner, of which there are few, for a short time; and texts of other parts.

use super::connection::Pool;
use super::errors::{Attempts, Failure};
use crate::store::{StoreError, Tenant};

fn prefix(tenant: &Tenant) -> String {
    format!("tuner-request/{}/", tenant.0)
}

/// Keeps a request. A repetition changes nothing.
pub(super) async fn put(pool: &Pool, tenant: Tenant, name: String, text: String) -> Result<(), StoreError> {
    let name = format!("{}{name}", prefix(&tenant));
    let mut attempts = Attempts::new();
    loop {
        let (name, text) = (name.clone(), text.clone());
        let put = pool.once(|connection| async move {
            let sql = "INSERT INTO tailor_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            connection.execute(sql, &[&name, &text]).await
        });
        match put.await {
            Ok(_) => return Ok(()),
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// The names and texts of the requests, sorted by name.
pub(super) async fn list(pool: &Pool, tenant: Tenant) -> Result<Vec<(String, String)>, StoreError> {
    let prefix = prefix(&tenant);
    let read = pool.once(|connection| async move {
        let sql = "SELECT name, value FROM tailor_meta WHERE substr(name, 1, length($1)) = $1 ORDER BY name";
        let mut requests = Vec::new();
        for row in connection.query(sql, &[&prefix]).await? {
            let (name, text): (&str, &str) = (row.try_get("name")?, row.try_get("value")?);
            requests.push((name.trim_start_matches(prefix.as_str()).to_owned(), text.to_owned()));
        }
        Ok(requests)
    });
    read.await.map_err(Failure::into_store_error)
}

/// Removes a request.
pub(super) async fn remove(pool: &Pool, tenant: Tenant, name: String) -> Result<(), StoreError> {
    let name = format!("{}{name}", prefix(&tenant));
    let removed = pool.once(|connection| async move {
        connection.execute("DELETE FROM tailor_meta WHERE name = $1", &[&name]).await
    });
    removed.await.map(drop).map_err(Failure::into_store_error)
}

/// The name of a text. No name of a request begins so.
pub(super) fn text_name(tenant: &Tenant, name: &str) -> String {
    format!("text/{}/{name}", tenant.0)
}

/// Replaces the text under a name.
pub(super) const PUT_TEXT: &str = "INSERT INTO tailor_meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value";

/// Replaces a text.
pub(super) async fn put_text(pool: &Pool, name: String, text: String) -> Result<(), StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let (name, text) = (name.clone(), text.clone());
        let put = pool.once(|connection| async move { connection.execute(PUT_TEXT, &[&name, &text]).await });
        match put.await {
            Ok(_) => return Ok(()),
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// Reads a text.
pub(super) async fn text(pool: &Pool, name: String) -> Result<Option<String>, StoreError> {
    let read = pool.once(|connection| async move {
        let rows = connection.query("SELECT value FROM tailor_meta WHERE name = $1", &[&name]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    });
    read.await.map_err(Failure::into_store_error)
}
