//! Power failures and failing disks at each write and sync of the embedded store.
//!
//! A run takes a sample of the points. `cargo xtask crash` takes all or more of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "SQLite's interface to the file system is one of C")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod vfs;
mod workload;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use common::fleet::{KINDS, batch};
use common::{Collector, count};
use disk::{Disk, Unsynced};
use tailor_collector::clock::now_us;
use tailor_collector::store::StoreError;
use tailor_collector::store::sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vfs::{Event, Fault, Syncs, Watched};
use workload::{Acknowledged, Objects, Request, UPLOADS};

/// A folder in memory, where a sync costs nothing.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The events of a whole run, and its requests.
struct Run {
    requests: Vec<Request>,
    events: Vec<Event>,
    /// The objects of the archive, in the order of their uploads.
    uploads: Vec<(String, u64)>,
    /// The events before which the power fails.
    points: Vec<usize>,
}

impl Run {
    fn record(batches: u64, syncs: Syncs) -> Self {
        let requests = workload::requests(batches);
        let folder = folder();
        let watched = Watched::new(folder.path(), true, syncs);
        let uploads = workload::run(folder.path(), &watched, &requests);
        watched.stop();
        let events = watched.take_events();
        let points = (0..events.len()).filter(|index| events[*index].is_point()).collect();
        Self { requests, events, uploads, points }
    }

    /// How often the write-ahead log began again from its start.
    fn log_restarts(&self) -> usize {
        let is_restart =
            |event: &&Event| matches!(event, Event::Write { file, offset: 0, .. } if file.ends_with("-wal"));
        self.events.iter().filter(is_restart).count()
    }

    /// Fails the power at `count` points that are spread evenly, each time with another fate of the writes that were not
    /// synced. Returns the points and what is wrong, and ends at the first fault if required.
    fn campaign(&self, count: usize, ends_at_first: bool) -> (usize, Vec<String>) {
        let runtime = Runtime::new().unwrap();
        let chosen: BTreeSet<usize> = (0..count)
            .filter_map(|number| self.points.get(number * self.points.len() / count))
            .copied()
            .collect();
        let (mut disk, mut acknowledged, mut id) = (Disk::default(), Acknowledged::default(), None);
        let mut objects = Objects::new();
        let (mut tried, mut faults) = (0, vec![]);
        for (index, event) in self.events.iter().enumerate() {
            if chosen.contains(&index) {
                let seed = index as u64;
                let fates =
                    [Unsynced::Torn { seed }, Unsynced::Lost, Unsynced::Torn { seed: !seed }, Unsynced::Kept];
                let fate = fates[tried % fates.len()];
                tried += 1;
                let folder = folder();
                disk.write_to(folder.path(), fate);
                if let Some(id) = &id {
                    std::fs::write(folder.path().join("store-id"), id).unwrap();
                }
                if let Err(error) = workload::verify(folder.path(), (&acknowledged, &objects), &runtime) {
                    faults.push(format!("before event {index} ({}), {fate:?}: {error}", event.name()));
                    if ends_at_first {
                        break;
                    }
                }
            }
            match event {
                Event::Mark(number) if *number >= UPLOADS => {
                    let (object, invocations) = self.uploads[*number - UPLOADS].clone();
                    objects.insert(object, invocations);
                }
                Event::Mark(number) => acknowledged.add(self.requests[*number]),
                Event::Id(text) => id = Some(text.clone()),
                _ => disk.apply(event),
            }
        }
        (tried, faults)
    }
}

#[test]
fn a_power_failure_at_any_write_or_sync_loses_nothing_acknowledged() {
    let start = Instant::now();
    let points = count("TAILOR_CRASH_POINTS", 200);
    // A batch causes about seven writes and syncs.
    let run = Run::record((points as u64 / 6).clamp(240, 5_000), Syncs::All);
    let restarts = run.log_restarts();
    assert!(restarts >= 5, "the write-ahead log began again only {restarts} times");
    let (tried, faults) = run.campaign(points, false);
    println!(
        "{tried} power failures at {} writes and syncs, {restarts} restarts of the log, {} faults, {:.0} s",
        run.points.len(),
        faults.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(faults.is_empty(), "{}", faults[..faults.len().min(20)].join("\n"));
    assert!(tried * 10 >= points * 9, "only {tried} points");
}

#[test]
fn the_campaign_finds_a_store_without_syncs() {
    for syncs in [Syncs::None, Syncs::NoneOfLog, Syncs::NoneOfDatabase] {
        let run = Run::record(240, syncs);
        let (tried, faults) = run.campaign(400, true);
        println!("{syncs:?}: found after {tried} power failures: {}", faults.join("\n"));
        assert!(!faults.is_empty(), "{syncs:?} is not found");
    }
}

/// Sends batches over HTTP while operations fail, and requires exact totals all the time.
fn with_fault(fault: Fault, first: u64, last: u64) -> u64 {
    let folder = folder();
    let watched = Watched::new(folder.path(), false, Syncs::All);
    let collector = Collector::start_in(folder, |_| {});
    let before = watched.operations();
    watched.fail(fault, before.saturating_add(first)..before.saturating_add(last));
    let runtime = Runtime::new().unwrap();
    let total = || collector.get("/v1/functions").json()["total"]["invocations"].as_u64();
    let (mut stored, mut refused) = (0, vec![]);
    let send = |sequence: u64| {
        let kind = &KINDS[usize::try_from(sequence % 3).unwrap()];
        let body = batch(kind, 1 + sequence % 3, 1 + sequence / 3, 20, now_us()).encode().unwrap();
        collector.post_batch(&body)
    };
    for sequence in 0..12 {
        let response = send(sequence);
        match response.status {
            200 => stored += 20,
            503 => refused.push(sequence),
            _ => panic!("{}", response.text()),
        }
        assert_eq!(total(), Some(stored), "{fault:?} from operation {first}, batch {sequence}");
        if sequence % 4 == 3 {
            let maintained = runtime.block_on(collector.store.maintain());
            let is_expected = matches!(maintained, Ok(()) | Err(StoreError::Full(_) | StoreError::Engine(_)));
            assert!(is_expected, "{maintained:?}");
        }
    }
    let operations = watched.operations() - before;
    watched.end_faults();
    for sequence in refused {
        let response = send(sequence);
        assert_eq!(response.status, 200, "{fault:?} from operation {first}: {}", response.text());
    }
    assert_eq!(total(), Some(240), "{fault:?} from operation {first}");
    assert_eq!(collector.get("/readyz").status, 200);
    runtime.block_on(collector.store.maintain()).unwrap();
    let Collector { folder, .. } = &collector;
    let copy = self::folder();
    for file in ["tailor.sqlite", "tailor.sqlite-wal", "store-id"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let reopened = SqliteStore::open(copy.path()).unwrap();
    drop(reopened);
    let findings = tailor_collector::store::sqlite::check::check(copy.path()).unwrap();
    assert!(findings.is_clean(), "{fault:?} from operation {first}: {findings:?}");
    watched.stop();
    operations
}

#[test]
fn io_errors_and_a_full_disk_at_any_write_refuse_batches_and_lose_nothing() {
    let start = Instant::now();
    let operations = with_fault(Fault::Io, u64::MAX, u64::MAX);
    let samples = count("TAILOR_CRASH_FAULTS", 60) as u64;
    let mut tried = 0;
    for (number, (fault, is_single)) in
        [(Fault::Io, true), (Fault::Io, false), (Fault::Full, false)].into_iter().enumerate()
    {
        let each = (samples / 3).min(operations);
        for sample in 0..each {
            // Other operations in each kind, so that a small sample covers more of them.
            let first = (sample * operations + number as u64 * operations / 3) / each % operations;
            with_fault(fault, first, if is_single { first + 1 } else { u64::MAX });
            tried += 1;
        }
    }
    println!("{tried} faults at {operations} writes and syncs, {:.0} s", start.elapsed().as_secs_f64());
}
