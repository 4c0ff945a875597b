//! Requirements of every implementation of the `Store` trait, tested with each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::fleet::{KINDS, Kind, batch, environment};
use common::places::{AnyStore, Place};
use common::received;
use proptest::prelude::*;
use tailor_collector::clock::Clock;
use tailor_collector::report::Losses;
use tailor_collector::store::sqlite::{Retention, SqliteStore};
use tailor_collector::store::{
    ChangeEvent, FunctionKey, HOUR_US, NewBatch, Receipt, SeriesKey, Store, StoreError, StoredRollup, Tenant,
    Window,
};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;
use tokio::runtime::Runtime;

/// An hour since the Unix epoch, for test data.
const HOUR: u64 = 490_000;

fn new_batch(tenant: &str, kind: &Kind, id: u64, sequence: u64, count: u64, hour: u64) -> NewBatch {
    let batch = batch(kind, id, sequence, count, hour * HOUR_US + HOUR_US - 1);
    received(Tenant(tenant.to_owned()), &batch, HOUR * HOUR_US)
}

fn all_rollups(
    store: &dyn Store,
    runtime: &Runtime,
    tenant: &str,
    window: Window,
) -> BTreeMap<SeriesKey, Rollup> {
    let series = runtime.block_on(store.series(&Tenant(tenant.to_owned()), None, window)).unwrap();
    series.into_iter().map(|series| (series.key, series.rollup)).collect()
}

/// The rollups of functions, merged by series and hour.
fn rollups_by_hour(
    store: &dyn Store,
    runtime: &Runtime,
    tenant: &str,
    functions: &[FunctionKey],
    window: Window,
) -> BTreeMap<(SeriesKey, u64), Rollup> {
    let mut merged: BTreeMap<(SeriesKey, u64), Rollup> = BTreeMap::new();
    let tenant = Tenant(tenant.to_owned());
    for function in functions {
        let rollups = runtime.block_on(store.rollups(&tenant, function, window)).unwrap();
        for StoredRollup { key, from_hour, hours, rollup } in rollups {
            assert_eq!(hours, 1);
            merged.entry((key, from_hour)).or_default().merge(&rollup);
        }
    }
    merged
}

/// A batch: tenant, function, environment, sequence, number of invocations, hour.
type Sent = (usize, usize, u64, u64, u64, u64);

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec((0usize..2, 0usize..2, 0u64..3, 1u64..12, 1u64..4, 0u64..2), 1..120)
}

/// Batches arrive in any order and repeatedly, with restarts and compactions in between. The rollups that are
/// read count each batch once.
fn check_reads(
    place: &Place,
    sent: Vec<Sent>,
    restarts: &[usize],
    compactions: &[usize],
) -> Result<(), TestCaseError> {
    let runtime = Runtime::new().unwrap();
    let mut store = place.open_at(HOUR * HOUR_US);
    let mut expected: BTreeMap<(&str, SeriesKey, u64), Rollup> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for (index, (tenant, kind, id, sequence, count, hour)) in sent.into_iter().enumerate() {
        if restarts.contains(&index) {
            drop(store);
            store = place.open_at(HOUR * HOUR_US);
        }
        if compactions.contains(&index) {
            runtime.block_on(store.maintain()).unwrap();
        }
        let tenant = ["a", "b"][tenant];
        let kind = &KINDS[kind];
        let new_batch = new_batch(tenant, kind, id, sequence, count, HOUR + hour);
        let new = seen.insert((tenant, kind.name, id, sequence));
        if new {
            let key = SeriesKey::of(&new_batch.header.environment);
            expected.entry((tenant, key, HOUR + hour)).or_default().merge(&new_batch.rollups[0].1);
        }
        let receipt = runtime.block_on(store.append(new_batch)).unwrap();
        prop_assert_eq!(receipt, if new { Receipt::Stored } else { Receipt::Duplicate });
    }
    for (tenant, window) in [
        ("a", Window::ALL),
        ("b", Window::ALL),
        ("a", Window { from_hour: HOUR + 1, until_hour: HOUR + 2 }),
        ("c", Window::ALL),
    ] {
        let mut merged: BTreeMap<SeriesKey, Rollup> = BTreeMap::new();
        let mut by_hour: BTreeMap<(SeriesKey, u64), Rollup> = BTreeMap::new();
        for ((owner, key, hour), rollup) in &expected {
            if *owner == tenant && (window.from_hour..window.until_hour).contains(hour) {
                by_hour.entry((key.clone(), *hour)).or_default().merge(rollup);
                merged.entry(key.clone()).or_default().merge(rollup);
            }
        }
        let mut functions: Vec<FunctionKey> = expected
            .keys()
            .filter(|(owner, ..)| *owner == tenant)
            .map(|(_, key, _)| key.function.clone())
            .collect();
        functions.sort_unstable();
        functions.dedup();
        let listed = runtime.block_on(store.functions(&Tenant(tenant.to_owned()), None, 100)).unwrap();
        prop_assert_eq!(&listed, &functions);
        prop_assert_eq!(rollups_by_hour(&*store, &runtime, tenant, &functions, window), by_hour);
        prop_assert_eq!(all_rollups(&*store, &runtime, tenant, window), merged);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reads_count_each_batch_once(
        sent in sent(),
        restarts in prop::collection::vec(0usize..120, 0..3),
        compactions in prop::collection::vec(0usize..120, 0..6),
    ) {
        check_reads(&Place::folder(), sent, &restarts, &compactions)?;
    }
}

proptest! {
    // Each case needs a database of its own.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn reads_count_each_batch_once_in_a_database(
        sent in sent(),
        restarts in prop::collection::vec(0usize..120, 0..2),
        compactions in prop::collection::vec(0usize..120, 0..6),
    ) {
        let Some(place) = Place::database() else { return Ok(()) };
        check_reads(&place, sent, &restarts, &compactions)?;
    }
}

#[test]
fn the_latest_state_of_an_environment_is_read_and_gaps_are_counted() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open_at(HOUR * HOUR_US);
        for sequence in [1, 4, 2] {
            let mut new_batch = new_batch("a", &KINDS[0], 1, sequence, 1, HOUR);
            new_batch.header.lost.invocations = 10 * sequence;
            runtime.block_on(store.append(new_batch)).unwrap();
        }
        // Pending batches and compacted ones give the same state.
        for _ in 0..2 {
            let tenant = Tenant("a".to_owned());
            let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL)).unwrap();
            assert_eq!((environments.live.len(), environments.ended.len()), (1, 0));
            let state = &environments.live[0];
            assert_eq!(
                (state.header.sequence, state.sequences.missing_since(0), state.header.lost.invocations),
                (4, 1, 40)
            );
            assert_eq!(state.header.environment, environment(&KINDS[0], 1));
            runtime.block_on(store.maintain()).unwrap();
        }
    }
}

/// An environment may live longer than the window. Its earlier batches are not lost.
#[test]
fn batches_before_the_window_are_not_missing() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let start_us = HOUR * HOUR_US;
        let received_at = |store: &AnyStore, sequence: u64, at_us: u64| {
            let batch = NewBatch { received_at_us: at_us, ..new_batch("a", &KINDS[0], 1, sequence, 1, HOUR) };
            assert_eq!(runtime.block_on(store.append(batch)).unwrap(), Receipt::Stored);
        };
        let missing = |store: &AnyStore, window: Window| {
            let environments =
                runtime.block_on(store.environments(&Tenant("a".into()), None, window)).unwrap();
            Losses::of(&environments, window.from_hour * HOUR_US, start_us).batches
        };
        let last_hour = |until_hour: u64| Window { from_hour: until_hour - 1, until_hour };
        let store = place.open_at(start_us);
        // Batches 1 to 4 arrive in the first hour, 5 and 7 in the second: the sixth is missing.
        (1..=4).for_each(|sequence| received_at(&store, sequence, start_us + sequence));
        received_at(&store, 5, start_us + HOUR_US);
        assert_eq!(missing(&store, last_hour(HOUR + 2)), 0);
        received_at(&store, 7, start_us + HOUR_US + 1);
        assert_eq!(missing(&store, last_hour(HOUR + 2)), 1);
        assert_eq!(missing(&store, Window::ALL), 1);
        // A late batch is not missing in the window that it arrives in.
        received_at(&store, 6, start_us + 2 * HOUR_US);
        assert_eq!(missing(&store, last_hour(HOUR + 3)), 0);
        assert_eq!(missing(&store, Window::ALL), 0);
    }
}

/// A store whose clock does not advance.
fn open_at(folder: &Path, now_us: u64) -> SqliteStore {
    SqliteStore::open_with(folder, Clock::from_fn(move || now_us), Retention::default()).unwrap()
}

#[test]
fn recent_invocations_are_complete_and_newest_first() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open_at(HOUR * HOUR_US);
        for sequence in 1..=3 {
            runtime
                .block_on(store.append(new_batch("a", &KINDS[0], 1, sequence, 10, HOUR + sequence)))
                .unwrap();
        }
        let key = FunctionKey::of(&environment(&KINDS[0], 1));
        let recent = runtime.block_on(store.recent(&Tenant("a".to_owned()), &key, 15)).unwrap();
        assert_eq!(recent.len(), 15);
        assert!(recent.is_sorted_by(|a, b| a.invocation.started_at_us > b.invocation.started_at_us));
        assert_eq!(recent[0].memory, Megabytes(KINDS[0].memory));
        assert!(recent[0].invocation.work.is_some());
    }
}

#[test]
fn compaction_limits_the_rows_and_keeps_the_totals() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open_at(HOUR * HOUR_US);
        for sequence in 1..=40 {
            runtime.block_on(store.append(new_batch("a", &KINDS[0], 1, sequence, 200, HOUR))).unwrap();
        }
        let before = all_rollups(&*store, &runtime, "a", Window::ALL);
        runtime.block_on(store.maintain()).unwrap();
        assert_eq!((place.rows("pending"), place.rows("rollup"), place.rows("environment")), (0, 1, 1));
        // The newest invocations are kept, a limited number of them.
        let key = FunctionKey::of(&environment(&KINDS[0], 1));
        let recent = runtime.block_on(store.recent(&Tenant("a".to_owned()), &key, 100_000)).unwrap();
        assert!((2_000..=4_000).contains(&recent.len()), "{}", recent.len());
        assert!(recent[0].invocation.started_at_us > recent[1_999].invocation.started_at_us);
        assert_eq!(all_rollups(&*store, &runtime, "a", Window::ALL), before);
        let again = runtime.block_on(store.append(new_batch("a", &KINDS[0], 1, 7, 200, HOUR))).unwrap();
        assert_eq!(again, Receipt::Duplicate, "a batch is still recognized after it was compacted");
    }
}

#[test]
fn a_step_of_a_change_is_stored_once() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open_at(HOUR * HOUR_US);
        let tenant = Tenant::default();
        let event = ChangeEvent {
            function: FunctionKey::of(&environment(&KINDS[0], 1)),
            change_id: "000001".to_owned(),
            step: 0,
            at_us: 1,
            kind: "planned".to_owned(),
            detail: serde_json::json!({"to": 256}),
        };
        runtime.block_on(store.log_change(&tenant, &event)).unwrap();
        let again = runtime.block_on(store.log_change(&tenant, &event));
        assert!(matches!(again, Err(StoreError::StepTaken { step: 0, .. })), "{again:?}");
        assert_eq!(runtime.block_on(store.changes(&tenant, None)).unwrap(), vec![event]);
    }
}

#[test]
fn one_collector_writes_and_other_processes_only_read() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |result: Result<SqliteStore, StoreError>| result.err().unwrap().to_string();
    assert!(refused(SqliteStore::open_to_read(folder.path())).contains("tailor serve"));
    let store = open_at(folder.path(), HOUR * HOUR_US);
    assert!(refused(SqliteStore::open(folder.path())).contains("in use"));
    runtime.block_on(store.append(new_batch("a", &KINDS[0], 1, 1, 5, HOUR))).unwrap();
    let reader = SqliteStore::open_to_read(folder.path()).unwrap();
    assert_eq!(all_rollups(&reader, &runtime, "a", Window::ALL).len(), 1);
    assert!(runtime.block_on(reader.append(new_batch("a", &KINDS[0], 1, 2, 5, HOUR))).is_err());
    drop(store);
    // Reading also works without a running collector.
    assert_eq!(all_rollups(&reader, &runtime, "a", Window::ALL).len(), 1);
}

#[test]
fn a_store_with_a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_at(folder.path(), HOUR * HOUR_US));
    set_schema(folder.path(), 99);
    for result in [SqliteStore::open(folder.path()), SqliteStore::open_to_read(folder.path())] {
        assert!(matches!(result.err(), Some(StoreError::NewerSchema { found: 99, .. })));
    }
}

fn set_schema(folder: &Path, version: u32) {
    let file = rusqlite::Connection::open(folder.join("tailor.sqlite")).unwrap();
    file.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
}

/// What both have in common is beside them, in `store/`.
#[test]
fn neither_store_uses_the_other() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut folders = vec![store.join("sqlite"), store.join("postgres")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&store).unwrap();
            let other = if relative.starts_with("sqlite") { "store::postgres" } else { "store::sqlite" };
            // The migration from one into the other.
            let is_expected = relative == Path::new("postgres/migrate.rs");
            let uses_other = std::fs::read_to_string(&path).unwrap().contains(other);
            assert_eq!(uses_other, is_expected, "{}", relative.display());
            files += 1;
        }
    }
    assert!(files > 40, "{files}");
}
