//! `tailor migrate` copies the embedded store into a database, also when it is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::fleet::{KINDS, batch};
use common::places::{AnyStore, Place};
use common::received;
use futures_util::future::join_all;
use tailor_collector::clock::now_us;
use tailor_collector::store::{ChangeEvent, FunctionKey, NewBatch, Receipt, Tenant, Window};
use tokio::runtime::Runtime;

const TENANTS: [&str; 2] = ["a", "b"];

fn new_batch(tenant: &str, environment: u64, sequence: u64) -> NewBatch {
    let at_us = now_us();
    let batch = batch(&KINDS[usize::try_from(environment).unwrap() % 4], environment, sequence, 2, at_us);
    received(Tenant(tenant.to_owned()), &batch, at_us)
}

/// A data folder with compacted and pending batches of two tenants, and a change.
fn filled() -> (Place, ChangeEvent) {
    let (place, runtime) = (Place::folder(), Runtime::new().unwrap());
    let store = place.open_at(now_us());
    let append = |sequence: u64, environments: u64| {
        let batches = TENANTS.iter().flat_map(|tenant| (1..=environments).map(move |one| (tenant, one)));
        let appends = batches.map(|(tenant, one)| store.append(new_batch(tenant, one, sequence)));
        assert!(runtime.block_on(join_all(appends)).iter().all(|receipt| *receipt == Ok(Receipt::Stored)));
    };
    append(1, 1_000);
    runtime.block_on(store.maintain()).unwrap();
    append(2, 1_000);
    let event = ChangeEvent {
        function: FunctionKey::of(&new_batch("a", 1, 1).header.environment),
        change_id: "000001".to_owned(),
        step: 0,
        at_us: now_us(),
        kind: "planned".to_owned(),
        detail: serde_json::json!({"to": 256}),
    };
    runtime.block_on(store.log_change(&Tenant("a".to_owned()), &event)).unwrap();
    drop(store);
    (place, event)
}

fn tailor(arguments: &[&str], folder: &Path, url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.args(arguments).arg("--data").arg(folder).env("TAILOR_DATABASE", url);
    command
}

fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What readers see of a tenant.
fn content(store: &AnyStore, runtime: &Runtime, tenant: &str) -> impl PartialEq + std::fmt::Debug {
    let tenant = Tenant(tenant.to_owned());
    let series = runtime.block_on(store.series(&tenant, None, Window::ALL)).unwrap();
    let environments = runtime.block_on(store.environments(&tenant, None, Window::ALL)).unwrap();
    let mut states = environments.live;
    states.sort_by_key(|state| state.header.environment.id.0);
    let functions = runtime.block_on(store.functions(&tenant, None, 100)).unwrap();
    let recent: Vec<_> = functions
        .iter()
        .map(|key| {
            let recent = runtime.block_on(store.recent(&tenant, key, 100_000)).unwrap();
            let mut starts: Vec<_> =
                recent.into_iter().map(|one| (one.invocation.started_at_us, one.environment.0)).collect();
            starts.sort_unstable();
            starts
        })
        .collect();
    let changes = runtime.block_on(store.changes(&tenant, None)).unwrap();
    let series: Vec<_> = series.into_iter().map(|series| (series.key, series.rollup)).collect();
    (series, states, functions, recent, changes)
}

#[test]
fn a_killed_migration_continues_and_copies_everything() {
    let Some(target) = Place::database() else { return };
    let Place::Database { server, url } = &target else { unreachable!("it is a database") };
    let (source, event) = filled();
    let Place::Folder(folder) = &source else { unreachable!("it is a folder") };
    let (folder, runtime) = (folder.path(), Runtime::new().unwrap());
    let unfinished = |sql: &str| server.sql(url, sql).is_ok_and(|found| found.contains("false"));
    let mut kills_between = 0;
    for lines in 2.. {
        let mut child =
            tailor(&["migrate"], folder, url).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // It writes a line after each transaction.
        let log = BufReader::new(child.stderr.take().unwrap());
        if log.lines().take(lines).count() < lines {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if unfinished("SELECT value FROM tailor_meta WHERE name = 'migration'")
            && target.rows("environment") > 0
        {
            kills_between += 1;
            // Half a store is not shown.
            // The folder is not named: an option wins over a variable.
            let mut summary = Command::new(env!("CARGO_BIN_EXE_tailor"));
            let shown = summary.arg("summary").env("TAILOR_DATABASE", url).output().unwrap();
            assert!(error_of(&shown).contains("not finished"), "{shown:?}");
        }
    }
    assert!(kills_between > 0, "no kill was in time");
    let (before, after) = (source.open_at(now_us()), target.open_at(now_us()));
    for tenant in TENANTS {
        assert_eq!(content(&after, &runtime, tenant), content(&before, &runtime, tenant));
    }
    assert_eq!(runtime.block_on(after.changes(&Tenant("a".to_owned()), None)).unwrap(), vec![event]);
    // Repetitions of pending and of compacted batches are recognized in the new place.
    for sequence in [1, 2] {
        let receipt = runtime.block_on(after.append(new_batch("b", 7, sequence))).unwrap();
        assert_eq!(receipt, Receipt::Duplicate);
    }
    drop(before);
    let again = tailor(&["migrate"], folder, url).output().unwrap();
    assert!(error_of(&again).contains("already migrated"), "{again:?}");
}

#[test]
fn a_migration_needs_an_empty_database_and_a_folder_without_a_collector() {
    let Some(target) = Place::database() else { return };
    let Place::Database { url, .. } = &target else { unreachable!("it is a database") };
    let source = Place::folder();
    let store = source.open_at(now_us());
    let Place::Folder(folder) = &source else { unreachable!("it is a folder") };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(store.append(new_batch("a", 1, 1))).unwrap();
    let served = tailor(&["migrate"], folder.path(), url).output().unwrap();
    assert!(error_of(&served).contains("in use"), "{served:?}");
    drop(store);
    let other = target.open_at(now_us());
    runtime.block_on(other.append(new_batch("a", 2, 1))).unwrap();
    drop(other);
    let refused = tailor(&["migrate"], folder.path(), url).output().unwrap();
    assert!(error_of(&refused).contains("there are measurements"), "{refused:?}");
    assert_eq!(target.rows("pending"), 1);
}

/// Every table of the embedded store is copied or named, so that a new one is not forgotten.
#[test]
fn a_migration_names_what_it_does_not_copy() {
    let Some(target) = Place::database() else { return };
    let Place::Database { url, .. } = &target else { unreachable!("it is a database") };
    let source = Place::folder();
    let store = source.open_at(now_us());
    let Place::Folder(folder) = &source else { unreachable!("it is a folder") };
    Runtime::new().unwrap().block_on(store.append(new_batch("a", 1, 1))).unwrap();
    drop(store);
    std::fs::write(folder.path().join("sent-tags.json"), "{}").unwrap();
    std::fs::write(folder.path().join("webhook-queue.json"), "{}").unwrap();
    let damaged = tailor(&["migrate"], folder.path(), url).output().unwrap();
    assert!(error_of(&damaged).contains("delete "), "{damaged:?}");
    std::fs::remove_file(folder.path().join("webhook-queue.json")).unwrap();
    let migrated = tailor(&["migrate", "--format", "json"], folder.path(), url).output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    let report: serde_json::Value = serde_json::from_slice(&migrated.stdout).unwrap();
    let names = |list: &str, field: &str| -> Vec<String> {
        let items = report[list].as_array().unwrap().iter();
        items.map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    let (copied, left_out) = (names("tables", "table"), names("left_out", "name"));
    assert!(left_out.contains(&"sent-tags.json".to_owned()), "{report}");
    let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
    let mut statement = file
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .unwrap();
    let tables = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    // The table `meta` has the id, which the state of the migration keeps.
    let forgotten: Vec<String> = tables
        .map(Result::unwrap)
        .filter(|table| table != "meta" && !copied.contains(table) && !left_out.contains(table))
        .collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}
