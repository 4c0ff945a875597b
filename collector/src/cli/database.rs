//! Which store a command uses: a data folder or a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use crate::store::Store;
use crate::store::postgres::{Database, PostgresStore, Secrets};
use crate::store::sqlite::SqliteStore;

/// The password of the database, when neither its URL nor a file has it.
const PASSWORD_VARIABLE: &str = "TAILOR_DATABASE_PASSWORD";

#[derive(Args)]
#[command(next_help_heading = "Database")]
pub(super) struct DatabaseArgs {
    /// Database with PostgreSQL's protocol in place of a data folder, such as `postgres://tailor@db.example.com/tailor`.
    /// Several collectors may use it. The password can be in `TAILOR_DATABASE_PASSWORD`.
    #[arg(long, env = "TAILOR_DATABASE", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    /// File with the password of the database.
    #[arg(long, env = "TAILOR_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// PEM file with the certificate authorities of the database; those of the system when absent.
    #[arg(long, env = "TAILOR_DATABASE_CA", value_name = "FILE")]
    database_ca: Option<PathBuf>,
}

/// The URL may have a password.
impl std::fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseArgs").field("is_set", &self.database.is_some()).finish_non_exhaustive()
    }
}

impl DatabaseArgs {
    /// Whether there is a database.
    pub(super) fn is_set(&self) -> bool {
        self.database.as_ref().is_some_and(|url| !url.is_empty())
    }

    /// The database; `None` when a data folder is used.
    pub(super) fn database(&self) -> anyhow::Result<Option<Database>> {
        let Some(url) = self.database.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let secrets = Secrets {
            password: std::env::var(PASSWORD_VARIABLE).ok(),
            password_file: self.database_password_file.clone(),
            ca_file: self.database_ca.clone(),
        };
        Database::new(url, &secrets).map(Some).context("cannot use --database")
    }

    /// Opens the store for reading: that of the database, or of the data folder.
    pub(super) fn open_to_read(&self, folder: &Path) -> anyhow::Result<Arc<dyn Store>> {
        match self.database()? {
            Some(database) => {
                let store = PostgresStore::open_to_read(&database);
                Ok(Arc::new(store.with_context(|| format!("cannot open the {database}"))?))
            }
            None => Ok(Arc::new(SqliteStore::open_to_read(folder)?)),
        }
    }
}
