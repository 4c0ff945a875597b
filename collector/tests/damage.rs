//! Damage of the store: one bad row costs itself, it is named and counted, and files that are deleted, replaced or emptied
//! are noticed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::fleet::{KINDS, batch};
use common::{Collector, received};
use tailor_collector::clock::now_us;
use tailor_collector::store::sqlite::{SqliteStore, check};
use tailor_collector::store::{HOUR_US, Store, StoreError, Tenant, Window};
use tokio::runtime::Runtime;

const DATABASE: &str = "tailor.sqlite";

fn measured() -> Collector {
    let collector = Collector::start();
    // Before the present hour, so that each function has one rollup at any time of the day.
    let end_us = now_us() / HOUR_US * HOUR_US;
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 150, end_us).encode().unwrap()).status, 200);
    }
    Runtime::new().unwrap().block_on(collector.store.maintain()).unwrap();
    collector
}

fn edit(folder: &Path, sql: &str) -> usize {
    rusqlite::Connection::open(folder.join(DATABASE)).unwrap().execute(sql, []).unwrap()
}

fn tailor(folder: &Path, arguments: &[&str]) -> Output {
    let data = ["--data", folder.to_str().unwrap()];
    Command::new(env!("CARGO_BIN_EXE_tailor")).args([arguments, &data].concat()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn one_damaged_rollup_costs_itself_and_is_shown() {
    let collector = measured();
    let folder = collector.folder.path();
    let name = KINDS[1].name;
    let flipped = edit(
        folder,
        &format!("UPDATE rollup SET body = CAST(body || x'00' AS BLOB) WHERE function = '{name}'"),
    );
    assert!(flipped > 0);
    let list = collector.get("/v1/functions").json();
    assert_eq!(list["functions"].as_array().unwrap().len(), KINDS.len() - 1);
    assert_eq!(list["damage"]["rows"], flipped);
    let named = list["damage"]["named"][0].as_str().unwrap();
    assert!(named.starts_with("rollup ") && named.contains(name), "{named}");
    let page = collector.get("/").text();
    assert!(page.contains("The store is damaged") && page.contains(name), "{page}");
    let metrics = collector.get("/metrics").text();
    assert!(metrics.contains(&format!("tailor_store_damaged_rows {flipped}")), "{metrics}");
    // Batches are still stored.
    assert_eq!(collector.post_batch(&batch(&KINDS[1], 2, 2, 5, now_us()).encode().unwrap()).status, 200);
    let report = collector.get(&format!("/v1/functions/{name}")).json();
    assert_eq!(report["invocations"], 5);
}

#[test]
fn check_finds_damage_and_repair_isolates_it() {
    let collector = measured();
    let folder = collector.folder.path();
    let clean = tailor(folder, &["check"]);
    assert!(clean.status.success() && stdout(&clean).contains(" 0 damaged"), "{clean:?}");
    // A changed key would be a function that does not exist.
    assert!(edit(folder, "UPDATE rollup SET function = 'ghost' WHERE function = 'auth'") > 0);
    assert!(
        edit(
            folder,
            "UPDATE environment SET received_at_us = received_at_us + 1 WHERE function = 'thumbnails'"
        ) > 0
    );
    // A key can also be no text any more.
    let environments =
        "UPDATE environment SET region = CAST(x'65ff75' AS TEXT) WHERE function = 'checkout-price'";
    assert!(edit(folder, environments) > 0);
    let found = tailor(folder, &["check"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(
        stdout(&found).contains("function=ghost") && stdout(&found).contains("environment "),
        "{found:?}"
    );
    let refused = tailor(folder, &["check", "--repair"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");
    // The folder outlives the collector.
    let copy = tempfile::tempdir().unwrap();
    let store = copy.path().join(DATABASE);
    assert!(tailor(folder, &["backup", store.to_str().unwrap()]).status.success());
    assert!(tailor(copy.path(), &["check", "--repair"]).status.success());
    let repaired = tailor(copy.path(), &["check"]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(
        stdout(&repaired).contains(" 0 damaged, 0 faults of the file; 3 rows were isolated"),
        "{repaired:?}"
    );
    let summary = tailor(copy.path(), &["summary", "--format", "json"]);
    let summary: serde_json::Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!((&summary["damage"]["rows"], &summary["matching_functions"]), (&0.into(), &5.into()));
}

/// Everything that is stored, except for two times of the background work, which it corrects.
fn dump(folder: &Path) -> rusqlite::Result<Vec<String>> {
    let connection = rusqlite::Connection::open(folder.join(DATABASE))?;
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut lines = vec![];
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let kept = columns.iter().enumerate();
        let kept = kept.filter(|(_, name)| !matches!(name.as_str(), "changed_at_us" | "summarized_at_us"));
        let kept: Vec<usize> = kept.map(|(index, _)| index).collect();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values: Result<Vec<_>, _> =
                kept.iter().map(|index| row.get_ref(*index).map(|value| format!("{value:?}"))).collect();
            lines.push(format!("{table}: {}", values?.join(" ")));
        }
    }
    Ok(lines)
}

/// A store as a regular stop leaves it and one as a kill leaves it, with rows of all tables.
fn stopped_and_killed() -> [tempfile::TempDir; 2] {
    let collector = measured();
    let folder = collector.folder.path();
    let [stopped, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    check::backup(folder, &stopped.path().join(DATABASE), &[]).unwrap();
    // More than is in the database file.
    for sequence in 2..6 {
        let body = batch(&KINDS[1], 2, sequence, 40, now_us()).encode().unwrap();
        assert_eq!(collector.post_batch(&body).status, 200);
    }
    for name in [DATABASE, "tailor.sqlite-wal", "store-id"] {
        std::fs::copy(folder.join(name), killed.path().join(name)).unwrap();
    }
    std::fs::copy(folder.join("store-id"), stopped.path().join("store-id")).unwrap();
    [stopped, killed]
}

/// Every flipped bit of the files is found, or changes nothing that is stored; and repair keeps the other rows.
#[test]
fn flipped_bits_are_found_and_a_damaged_file_is_written_anew() {
    let flips = common::count("TAILOR_CRASH_FLIPS", 200);
    let (runtime, mut random) = (Runtime::new().unwrap(), 0x2545_f491_4f6c_dd1d_u64);
    let (mut found, mut rebuilt) = (0, 0);
    for source in stopped_and_killed() {
        let mut bytes: Vec<(String, Vec<u8>)> = vec![];
        for name in [DATABASE, "tailor.sqlite-wal", "store-id"] {
            bytes.extend(std::fs::read(source.path().join(name)).map(|content| (name.to_owned(), content)));
        }
        let copy = |flip: Option<(usize, usize)>| {
            let folder =
                tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" });
            let folder = folder.unwrap();
            for (index, (name, content)) in bytes.iter().enumerate() {
                let mut content = content.clone();
                if let Some((_, bit)) = flip.filter(|(file, _)| *file == index) {
                    content[bit / 8] ^= 1 << (bit % 8);
                }
                std::fs::write(folder.path().join(name), content).unwrap();
            }
            folder
        };
        let original = copy(None);
        assert!(check::check(original.path()).unwrap().is_clean());
        let expected = dump(original.path()).unwrap();
        let log = bytes.iter().position(|(name, _)| name.ends_with("-wal"));
        for number in 0..flips / 2 {
            // Each second flip of the killed store is in its log; some are in the id.
            let file = match (log, number % 50) {
                (_, 49) => bytes.len() - 1,
                (Some(log), even) if even % 2 == 0 => log,
                _ => 0,
            };
            // Unused bytes are zero. Most flips are in others, so that they hit what is stored.
            let bit = loop {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let bit = usize::try_from(random).unwrap() % (8 * bytes[file].1.len());
                if number % 4 == 0 || bytes[file].1[bit / 8] != 0 {
                    break bit;
                }
            };
            let about = format!("bit {bit} of {}", bytes[file].0);
            let folder = copy(Some((file, bit)));
            let before = check::check(folder.path());
            if before.as_ref().is_ok_and(check::Findings::is_clean) {
                // Unused bytes of a page, old frames of the log and counters of the header contain nothing.
                let opened = SqliteStore::open(folder.path()).map(drop);
                let is_noticed = opened.is_err();
                assert!(is_noticed || dump(folder.path()).as_ref() == Ok(&expected), "{about} is not found");
                found += usize::from(is_noticed);
                continue;
            }
            found += 1;
            // Repair is slower than the check, so a long run tries it with some.
            if before.is_ok() && (flips <= 200 || number % 3 == 0) && bytes[file].0 == DATABASE {
                let (_, kept) = check::repair(folder.path(), 1).unwrap();
                rebuilt += u32::from(kept.is_some());
                let after = check::check(folder.path()).unwrap();
                assert!(after.is_clean(), "{about}: {after:?}");
                let store = SqliteStore::open_to_read(folder.path()).unwrap();
                let series = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
                let kept = series.iter().map(|series| series.rollup.invocations).sum::<u64>();
                assert!(kept <= 1_060, "{about}: {kept}");
            }
        }
    }
    println!("{flips} flips: {found} found, the others change nothing; {rebuilt} files were written anew");
    assert!(found * 2 > flips && rebuilt > 0, "{found} found, {rebuilt} written anew");
}

/// A copy of a store in a new folder, which no other process has locked.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    check::backup(folder, &copy.path().join(DATABASE), &[]).unwrap();
    std::fs::copy(folder.join("store-id"), copy.path().join("store-id")).unwrap();
    copy
}

/// The names of rows in reports have a limit, and these rows differ only after it.
#[test]
fn repair_keeps_each_row_with_a_long_name() {
    let folder = tempfile::tempdir().unwrap();
    let (store, runtime) = (SqliteStore::open(folder.path()).unwrap(), Runtime::new().unwrap());
    for sequence in 1..=3 {
        let mut batch = batch(&KINDS[0], 1, sequence, 10, now_us() - sequence * HOUR_US);
        batch.header.environment.function = "n".repeat(300);
        runtime.block_on(store.append(received(Tenant::default(), &batch, now_us()))).unwrap();
    }
    runtime.block_on(store.maintain()).unwrap();
    let expected = dump(folder.path()).unwrap();
    let rollups = expected.iter().filter(|line| line.starts_with("rollup: ")).count();
    assert!(rollups >= 3, "{expected:#?}");

    let without_index = copy_of(folder.path());
    edit(without_index.path(), "DROP INDEX function_changed");
    let (_, kept) = check::repair(without_index.path(), 1).unwrap();
    assert!(kept.is_some());
    assert_eq!(dump(without_index.path()).unwrap(), expected);

    let with_damage = copy_of(folder.path());
    edit(with_damage.path(), "UPDATE rollup SET body = CAST(body || x'00' AS BLOB)");
    let (findings, _) = check::repair(with_damage.path(), 1).unwrap();
    let names: std::collections::BTreeSet<_> = findings.damaged_rows.iter().collect();
    assert_eq!((findings.damaged_rows.len(), names.len()), (rollups, rollups), "{findings:?}");
    let isolated = dump(with_damage.path()).unwrap();
    assert_eq!(isolated.iter().filter(|line| line.starts_with("damaged: ")).count(), rollups);
}

#[test]
fn a_backup_is_restored_by_copying_it() {
    let collector = measured();
    let backup = tempfile::tempdir().unwrap();
    let file = backup.path().join("copy.sqlite");
    let made = tailor(collector.folder.path(), &["backup", file.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(collector.folder.path().join("store-id"), folder.path().join("store-id")).unwrap();
    let lost = SqliteStore::open(folder.path()).err().unwrap();
    assert!(matches!(&lost, StoreError::FilesChanged(text) if text.contains("store-id")), "{lost}");
    std::fs::write(folder.path().join(DATABASE), b"").unwrap();
    assert!(matches!(SqliteStore::open(folder.path()), Err(StoreError::FilesChanged(_))));
    std::fs::copy(&file, folder.path().join(DATABASE)).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let runtime = Runtime::new().unwrap();
    let series = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
    assert_eq!(series.iter().map(|series| series.rollup.invocations).sum::<u64>(), 900);
    // A batch that was acknowledged before the backup is still recognized.
    let batch = batch(&KINDS[0], 1, 1, 150, now_us());
    let again = received(Tenant::default(), &batch, now_us());
    let receipt = runtime.block_on(store.append(again)).unwrap();
    assert_eq!(receipt, tailor_collector::store::Receipt::Duplicate);
}

#[test]
fn a_deleted_or_replaced_file_is_noticed() {
    for replaces in [false, true] {
        let collector = measured();
        let path = collector.folder.path().join(DATABASE);
        if replaces {
            let other = collector.folder.path().join("other.sqlite");
            std::fs::copy(&path, &other).unwrap();
            std::fs::rename(&other, &path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let response = collector.post_batch(&batch(&KINDS[0], 9, 1, 5, now_us()).encode().unwrap());
        assert_eq!(response.status, 503, "{}", response.text());
        assert!(response.text().contains("restore"), "{}", response.text());
        assert_eq!(collector.get("/readyz").status, 503);
    }
}
