//! A store of an earlier schema is migrated, also when the migration is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_proto::batch::{Batch, BatchHeader};
use common::received;
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::store::sqlite::{Retention, SqliteStore, check};
use tailor_collector::store::{Receipt, Store, Tenant, Window};
use tokio::runtime::Runtime;

const SCHEMA_1: &str = include_str!("data/schema-1.sql");
const SCHEMA_2: &str = include_str!("data/schema-2.sql");
const SCHEMA_3: &str = include_str!("data/schema-3.sql");

/// When the fixtures were written. Environments end after two silent days.
const WRITTEN_US: u64 = 1_795_944_480_000_000;

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open_with(folder, Clock::from_fn(|| WRITTEN_US), Retention::default()).unwrap()
}

/// A data folder with the store of a fixture, with `copies` more environments.
fn old_store(fixture: &str, copies: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
    file.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    file.execute_batch(fixture).unwrap();
    let columns: Vec<String> = file
        .prepare("SELECT name FROM pragma_table_info('batch')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let values: Vec<&str> = columns
        .iter()
        .map(|column| if column == "environment" { "randomblob(16)" } else { column.as_str() })
        .collect();
    let copy = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {copies})
         INSERT INTO batch ({}) SELECT {} FROM numbers, (SELECT * FROM batch LIMIT 1) WHERE {copies} > 0",
        columns.join(","),
        values.join(",")
    );
    file.execute_batch(&copy).unwrap();
    folder
}

fn invocations(store: &SqliteStore, runtime: &Runtime) -> u64 {
    let series = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
    series.iter().map(|series| series.rollup.invocations).sum()
}

fn append(store: &SqliteStore, runtime: &Runtime, header: BatchHeader) -> Receipt {
    let batch = Batch { header, invocations: vec![] };
    runtime.block_on(store.append(received(Tenant::default(), &batch, now_us()))).unwrap()
}

#[test]
fn a_store_of_schema_3_keeps_everything() {
    let (folder, runtime) = (old_store(SCHEMA_3, 0), Runtime::new().unwrap());
    let unread = SqliteStore::open_to_read(folder.path()).err().unwrap().to_string();
    assert!(unread.contains("run `tailor serve` once"), "{unread}");
    let store = open(folder.path());
    assert_eq!(invocations(&store, &runtime), 360);
    let tenant = Tenant::default();
    let functions = runtime.block_on(store.functions(&tenant, None, 10)).unwrap();
    let names: Vec<&str> = functions.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["auth", "thumbnails"]);
    for (function, invocations) in functions.iter().zip([240, 120]) {
        let recent = runtime.block_on(store.recent(&tenant, function, 1_000)).unwrap();
        assert_eq!(recent.len(), invocations);
    }
    assert_eq!(runtime.block_on(store.changes(&tenant, None)).unwrap().len(), 1);
    let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL)).unwrap();
    assert_eq!(environments.live.len(), 3);
    for state in environments.live {
        assert_eq!((state.sequences.highest(), state.sequences.missing_since(0)), (1, 0));
        assert_eq!(append(&store, &runtime, state.header.clone()), Receipt::Duplicate);
        assert_eq!(append(&store, &runtime, BatchHeader { sequence: 2, ..state.header }), Receipt::Stored);
    }
}

#[test]
fn a_store_of_schema_1_or_2_keeps_everything() {
    for (fixture, unsent) in [(SCHEMA_1, 0), (SCHEMA_2, 3)] {
        let (folder, runtime) = (old_store(fixture, 0), Runtime::new().unwrap());
        let store = open(folder.path());
        assert_eq!(invocations(&store, &runtime), 240);
        let tenant = Tenant::default();
        let functions = runtime.block_on(store.functions(&tenant, None, 10)).unwrap();
        assert_eq!(functions.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["auth", "thumbnails"]);
        for function in &functions {
            assert_eq!(runtime.block_on(store.recent(&tenant, function, 1_000)).unwrap().len(), 120);
        }
        assert_eq!(runtime.block_on(store.changes(&tenant, None)).unwrap().len(), 1);
        let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL)).unwrap();
        let found = environments.live.iter().find(|state| state.header.environment.function == "thumbnails");
        let header = &found.unwrap().header;
        // Columns that the version did not have are 0.
        assert_eq!((header.unsent, header.sent_at_us, environments.live.len()), (unsent, 0, 2));
        for state in environments.live {
            assert_eq!(append(&store, &runtime, state.header), Receipt::Duplicate);
        }
        drop(store);
        assert!(check::check(folder.path()).unwrap().is_clean());
    }
}

fn schema(folder: &Path) -> i64 {
    let file = rusqlite::Connection::open(folder.join("tailor.sqlite")).unwrap();
    file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_killed_migration_is_repeated() {
    for (version, fixture, invocations, environments) in
        [(1, SCHEMA_1, 240, 2), (2, SCHEMA_2, 240, 2), (3, SCHEMA_3, 360, 3)]
    {
        check_killed_migration(version, fixture, invocations, environments);
    }
}

fn check_killed_migration(version: i64, fixture: &str, expected: u64, live: usize) {
    const COPIES: u32 = 2_500;
    let (folder, runtime) = (old_store(fixture, COPIES), Runtime::new().unwrap());
    let mut kills_before = 0;
    for delay in (0..).map(|round| Duration::from_millis(20 + 60 * round)) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        std::thread::sleep(delay.saturating_sub(start.elapsed()));
        child.kill().unwrap();
        child.wait().unwrap();
        match schema(folder.path()) {
            found if found == version => kills_before += 1,
            6 => break,
            other => panic!("schema {other}"),
        }
    }
    assert!(kills_before > 0, "no kill was in time");
    let store = open(folder.path());
    assert_eq!(invocations(&store, &runtime), expected);
    let tenant = Tenant::default();
    let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL)).unwrap();
    assert_eq!(environments.live.len(), live + COPIES as usize);
}
