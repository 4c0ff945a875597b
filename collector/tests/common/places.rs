//! Where a store can be: a folder or a database. What every store must do is tested in each.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailor_collector::clock::Clock;
use tailor_collector::store::postgres::{Database, PostgresStore, Secrets};
use tailor_collector::store::sqlite::{Retention, SqliteStore};
use tailor_collector::store::{Store, StoreError};
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::skip;
use tempfile::TempDir;

/// Where a store is. Its data is deleted when it is dropped.
#[derive(Debug)]
pub(crate) enum Place {
    Folder(TempDir),
    Database { server: Arc<PostgresServer>, url: String },
}

/// A store in one of the places.
pub(crate) enum AnyStore {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Place {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    /// An empty database; `None` when PostgreSQL is not installed.
    pub(crate) fn database() -> Option<Self> {
        if !PostgresServer::is_installed() {
            skip("PostgreSQL is not installed");
            return None;
        }
        let server = PostgresServer::shared().unwrap();
        let url = server.new_database().unwrap();
        Some(Self::Database { server, url })
    }

    /// One of each kind.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        [Self::folder()].into_iter().chain(Self::database())
    }

    pub(crate) fn open(&self, clock: Clock) -> AnyStore {
        let retention = Retention::default();
        match self {
            Self::Folder(folder) => {
                // A process that another test starts has the lock of a closed store until it runs its program.
                let deadline = Instant::now() + Duration::from_secs(20);
                loop {
                    match SqliteStore::open_with(folder.path(), clock.clone(), retention) {
                        Ok(store) => return AnyStore::Sqlite(Arc::new(store)),
                        Err(error) => assert!(Instant::now() < deadline, "{error}"),
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Self::Database { url, .. } => {
                let database = Database::new(url, &Secrets::default()).unwrap();
                AnyStore::Postgres(Arc::new(PostgresStore::open_with(&database, clock, retention).unwrap()))
            }
        }
    }

    /// A store whose clock does not advance.
    pub(crate) fn open_at(&self, now_us: u64) -> AnyStore {
        self.open(Clock::from_fn(move || now_us))
    }

    /// Number of rows of a table.
    pub(crate) fn rows(&self, table: &str) -> i64 {
        match self {
            Self::Folder(folder) => {
                let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
                file.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
            }
            Self::Database { server, url } => {
                let count = server.sql(url, &format!("SELECT COUNT(*) FROM tailor_{table}")).unwrap();
                count.trim().parse().unwrap()
            }
        }
    }
}

impl AnyStore {
    /// The same store, as the program uses it.
    pub(crate) fn shared(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Postgres(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    pub(crate) async fn maintain(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.maintain().await,
            Self::Postgres(store) => store.maintain().await,
        }
    }
}

impl Deref for AnyStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Sqlite(store) => store.as_ref(),
            Self::Postgres(store) => store.as_ref(),
        }
    }
}

/// Makes a test of each function, once with a folder and once with a database as its place.
#[allow(unused_macros, reason = "each test file uses a part")]
macro_rules! test_each_place {
    ($($test:ident),+ $(,)?) => {
        mod in_a_folder {
            $(
                #[test]
                fn $test() {
                    super::$test(crate::common::places::Place::folder());
                }
            )+
        }

        mod in_a_database {
            $(
                #[test]
                fn $test() {
                    if let Some(place) = crate::common::places::Place::database() {
                        super::$test(place);
                    }
                }
            )+
        }
    };
}
#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use test_each_place;
