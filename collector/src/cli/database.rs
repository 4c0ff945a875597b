//! Which store a command uses: a data folder or a database. What commands that read it have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use tailor_sizing::pricing::prices::PriceTable;

use crate::keys::reload::KeyFiles;
use crate::keys::sources::KeySources;
use crate::prices;
use crate::store::postgres::{Database, PostgresStore, Secrets};
use crate::store::sqlite::{FolderKeys, SqliteStore, is_served};
use crate::store::{KeyStore, Store, Tenant};
use crate::tags::TagTable;

/// The password of the database, when neither its URL nor a file has it.
const PASSWORD_VARIABLE: &str = "TAILOR_DATABASE_PASSWORD";

/// Which store a command reads, whose functions, and with which prices it computes costs.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Data folder to read. A collector may be running with it.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    pub(super) data: PathBuf,
    /// Tenant of the functions.
    #[arg(long, default_value = "default", value_parser = super::keys::tenant)]
    tenant: String,
    /// File with Lambda's prices in place of the built-in ones, as for `tailor serve`.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    // Last, because what follows has its heading.
    #[command(flatten)]
    database: DatabaseArgs,
}

/// The tags of functions, for a command that uses them.
#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// File with the tags of functions, as for `tailor serve`.
    #[arg(long, value_name = "FILE", env = "TAILOR_TAGS")]
    tags: Option<PathBuf>,
}

impl TagArgs {
    /// Reads the file; `None` when none is named.
    pub(super) fn read(&self) -> anyhow::Result<Option<TagTable>> {
        Ok(self.tags.as_deref().map(TagTable::read).transpose()?)
    }
}

/// What [`ReadArgs`] name.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Tenant,
    pub(super) prices: PriceTable,
}

impl ReadArgs {
    /// Whether every function is computed when it is read.
    pub(super) fn computes_all(&self) -> bool {
        self.database.computes_all(&self.data, self.prices.as_deref())
    }

    /// Opens the store for reading, and loads the prices.
    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        Ok(Opened {
            prices: prices::load(self.prices.as_deref())?,
            store: self.database.open_to_read(&self.data)?,
            tenant: Tenant(self.tenant.clone()),
        })
    }
}

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

    /// Whether a command computes every function itself: no collector runs with the data folder, so that summaries are absent or
    /// old, or their costs have other prices.
    pub(super) fn computes_all(&self, folder: &Path, prices: Option<&Path>) -> bool {
        prices.is_some() || (!self.is_set() && !is_served(folder))
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

    /// The API keys that can be changed: those of the store and of the data folder. With `creates`, the store is created when
    /// there is none.
    pub(super) fn keys(&self, folder: &Path, creates: bool) -> anyhow::Result<KeySources> {
        let store: Option<Arc<dyn KeyStore>> = match self.database()? {
            Some(database) => {
                let about = || format!("cannot open the {database}");
                if creates && !PostgresStore::exists(&database).with_context(about)? {
                    drop(PostgresStore::open(&database).with_context(about)?);
                }
                Some(Arc::new(PostgresStore::open_to_read(&database).with_context(about)?))
            }
            None => {
                let keys = FolderKeys::of(folder);
                if creates && !keys.exists() {
                    // It has no store, but a collector has run with it.
                    ensure!(
                        super::serve::last_address_of(folder).is_none(),
                        "there is no store in {}: name the database of its collectors with --database",
                        folder.display()
                    );
                    let about = || format!("cannot create a store in {}", folder.display());
                    std::fs::create_dir_all(folder).with_context(about)?;
                    drop(SqliteStore::open(folder).with_context(about)?);
                }
                if keys.exists() { Some(Arc::new(keys)) } else { None }
            }
        };
        let files = KeyFiles { folder: Some(folder.to_owned()), operator_file: None, lines: None };
        Ok(KeySources { store, files })
    }
}
