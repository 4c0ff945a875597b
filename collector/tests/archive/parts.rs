//! The spool: its limit, the size of its parts, those that cannot be read, and the record of uploads.

use std::sync::Arc;

use agent_proto::batch::Batch;
use tailor_archive::{DAY_US, Totals};
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::store::Store;
use tailor_collector::store::archive::{ArchiveStore, Part, SealLimits, SealedFile, Upload};
use tailor_collector::store::sqlite::SqliteStore;
use tailor_test_kit::postgres::PostgresServer;
use tokio::runtime::Runtime;

use crate::common::fleet::{KINDS, batch};
use crate::common::places::{AnyStore, Place};
use crate::faulty_store::{Fault, FaultyStore};
use crate::{Bucket, new_batch, varied};

/// Everything that is spooled becomes files.
const ALL: SealLimits = SealLimits { max_bytes: 1 << 30, max_age_us: 0 };

fn archive_of(store: &AnyStore) -> Arc<dyn ArchiveStore> {
    match store {
        AnyStore::Sqlite(store) => Arc::clone(store) as Arc<dyn ArchiveStore>,
        AnyStore::Postgres(store) => Arc::clone(store) as Arc<dyn ArchiveStore>,
    }
}

/// Yesterday at noon, so that a batch has one day.
fn noon_us() -> u64 {
    now_us() / DAY_US * DAY_US - DAY_US / 2
}

fn invocations(part: &Part) -> usize {
    part.batches.iter().map(|body| Batch::decode(body).unwrap().invocations.len()).sum()
}

#[test]
fn a_function_with_much_to_compact_has_parts_that_can_be_read() {
    const BYTES: usize = 12 << 20;
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open(Clock::system());
        let archive = archive_of(&store);
        runtime.block_on(archive.set_archive(Some(1 << 30))).unwrap();
        let (mut batches, mut bytes, mut sent) = (vec![], 0, 0);
        while bytes < BYTES {
            let batch = batch(&KINDS[0], 1, batches.len() as u64 + 1, 4_000, noon_us());
            sent += batch.invocations.len();
            batches.push(new_batch(&batch));
            bytes += batches.last().unwrap().body.len();
        }
        let appends = batches.into_iter().map(|batch| store.append(batch));
        for receipt in runtime.block_on(futures_util::future::join_all(appends)) {
            receipt.unwrap();
        }
        runtime.block_on(archive.compact()).unwrap();
        let files = runtime.block_on(archive.seal(ALL)).unwrap();
        let parts: Vec<Part> = files
            .iter()
            .flat_map(|file| runtime.block_on(archive.parts(file, file.first, u64::MAX)).unwrap())
            .collect();
        assert_eq!(parts.iter().map(invocations).sum::<usize>(), sent);
        for part in &parts {
            let bytes: usize = part.batches.iter().map(Vec::len).sum();
            assert!(bytes <= 4 << 20, "part {} has {bytes} bytes", part.number);
        }
        assert_eq!(store.damage().rows, 0);
        assert_eq!((place.rows("pending"), place.rows("rollup")), (0, 2));
    }
}

/// The checksum of a row of the table `archive_part`, whose values before the body have `|` between them.
fn checksum(key: &str, body: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(b"archive_part");
    for (index, value) in key.split('|').enumerate() {
        if matches!(index, 0 | 2) {
            crc.update(b"t");
            crc.update(&(value.len() as u64).to_le_bytes());
            crc.update(value.as_bytes());
        } else {
            crc.update(b"i");
            crc.update(&value.parse::<i64>().unwrap().to_le_bytes());
        }
    }
    crc.update(b"b");
    crc.update(&(body.len() as u64).to_le_bytes());
    crc.update(body);
    crc.sum()
}

/// Replaces the body of the first part by one that is no part, with its checksum.
fn replace_first_part(place: &Place) {
    let key = |prefix: &str| {
        format!(
            "SELECT tenant || '|' || day || '|' || account || '|' || number || '|' || invocations || '|' || billed_ms
             FROM {prefix}archive_part ORDER BY number LIMIT 1"
        )
    };
    let update = |prefix: &str, body: &str, key: &str| {
        let sum = checksum(key.trim(), b"no part");
        let number = key.split('|').nth(3).unwrap();
        format!("UPDATE {prefix}archive_part SET body = {body}, checksum = {sum} WHERE number = {number}")
    };
    match place {
        Place::Folder(folder) => {
            let file = rusqlite::Connection::open(folder.path().join("tailor.sqlite")).unwrap();
            let key: String = file.query_row(&key(""), [], |row| row.get(0)).unwrap();
            file.execute_batch(&update("", "CAST('no part' AS BLOB)", &key)).unwrap();
        }
        Place::Database { server, url } => {
            let server: &PostgresServer = server;
            let key = server.sql(url, &key("tailor_")).unwrap();
            server.sql(url, &update("tailor_", "'no part'::bytea", &key)).unwrap();
        }
    }
}

#[test]
fn a_part_that_cannot_be_read_is_counted_and_does_not_stop_the_archive() {
    let runtime = Runtime::new().unwrap();
    let bucket = Bucket::start();
    for (number, place) in Place::each().enumerate() {
        let store = place.open(Clock::system());
        let archive = archive_of(&store);
        runtime.block_on(archive.set_archive(Some(1 << 20))).unwrap();
        for sequence in 1..3 {
            let batch = batch(&KINDS[0], 1, sequence, 20, noon_us());
            runtime.block_on(store.append(new_batch(&batch))).unwrap();
            runtime.block_on(archive.compact()).unwrap();
        }
        replace_first_part(&place);
        let files = runtime.block_on(archive.seal(ALL)).unwrap();
        let parts = runtime.block_on(archive.parts(&files[0], files[0].first, u64::MAX)).unwrap();
        assert_eq!(parts.iter().map(invocations).collect::<Vec<_>>(), [0, 20]);
        let damage = store.damage();
        assert_eq!(damage.rows, 1);
        assert!(damage.named[0].starts_with("archive_part "), "{damage:?}");

        let Some(bucket) = &bucket else { continue };
        let (prefix, folder) = (format!("unreadable-{number}"), tempfile::tempdir().unwrap());
        let archiver = bucket.archiver(FaultyStore::new(Arc::clone(&archive), Fault::None), &prefix, &folder);
        let round = bucket.runtime.block_on(archiver.flush()).unwrap();
        assert_eq!((round.files, round.totals.invocations), (1, 20));
        let record = runtime.block_on(archive.archive_record()).unwrap();
        assert_eq!((record.dropped().invocations, record.waiting().invocations), (20, 0));
    }
}

fn uploaded(file: &SealedFile) -> Upload {
    let object = "s3://bucket/object".to_owned();
    Upload { at_us: now_us(), object, bytes: 1, sha256: String::new(), totals: file.totals }
}

#[test]
fn a_clock_that_is_ahead_keeps_the_record_of_uploads() {
    let runtime = Runtime::new().unwrap();
    for place in Place::each() {
        let store = place.open_at(now_us() + 20 * 365 * DAY_US);
        let archive = archive_of(&store);
        let files = || runtime.block_on(archive.archive_record()).unwrap().files.len();
        runtime.block_on(archive.set_archive(Some(1 << 20))).unwrap();
        let batch = batch(&KINDS[0], 1, 1, 20, noon_us());
        runtime.block_on(store.append(new_batch(&batch))).unwrap();
        runtime.block_on(archive.compact()).unwrap();
        for file in runtime.block_on(archive.seal(ALL)).unwrap() {
            assert_eq!(file.totals, Totals { billed_ms: file.totals.billed_ms, invocations: 20 });
            runtime.block_on(archive.record_upload(&file, uploaded(&file))).unwrap();
        }
        while runtime.block_on(archive.remove_uploaded()).unwrap() {}
        runtime.block_on(archive.delete_old_records(400)).unwrap();
        assert_eq!(files(), 1);
        // The file is of yesterday.
        runtime.block_on(archive.delete_old_records(0)).unwrap();
        assert_eq!(files(), 0);
    }
}

#[test]
fn a_full_spool_drops_and_counts_and_never_stops_acknowledgements() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let append = |sequence| runtime.block_on(store.append(new_batch(&varied(2, sequence)))).unwrap();
    let compare = || {
        runtime.block_on(store.compact()).unwrap();
        let comparison = runtime.block_on(store.archive_comparison()).unwrap();
        let measured: u64 = comparison.rollups.values().map(|totals| totals.invocations).sum();
        (measured, comparison.record)
    };
    // Before the archive is on, nothing is spooled or counted.
    append(1);
    let (measured, record) = compare();
    assert_eq!((measured, record.partitions.len()), (20, 0));
    runtime.block_on(store.set_archive(Some(4_000))).unwrap();
    for sequence in 2..20 {
        append(sequence);
        runtime.block_on(store.compact()).unwrap();
    }
    let (measured, record) = compare();
    let (waiting, dropped) = (record.waiting().invocations, record.dropped().invocations);
    assert_eq!((measured, waiting + dropped), (380, 360));
    assert!(waiting > 0 && dropped > 0 && record.spool_bytes <= 4_000, "{record:?}");
    // The setting is stored: an import without a collector spools, too. When it is off, everything is counted.
    drop(store);
    let store = SqliteStore::open(folder.path()).unwrap();
    runtime.block_on(store.set_archive(None)).unwrap();
    runtime.block_on(store.append(new_batch(&varied(2, 30)))).unwrap();
    runtime.block_on(store.compact()).unwrap();
    let record = runtime.block_on(store.archive_record()).unwrap();
    assert_eq!(record.dropped().invocations, dropped + 20);
}
