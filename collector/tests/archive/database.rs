//! The archive of several collectors with one database.

use std::sync::Arc;
use std::time::Duration;

use tailor_archive::DAY_US;
use tailor_collector::archive::request;
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::store::archive::ArchiveStore;
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::skip;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::fleet::{KINDS, batch};
use crate::common::places::{AnyStore, Place};
use crate::common::{KEY, send_batch};
use crate::faulty_store::{Fault, FaultyStore};
use crate::{BUCKET, Bucket, new_batch, text, varied};

#[test]
fn kills_of_two_collectors_with_one_database_leave_each_invocation_in_the_archive_once() {
    const ROUNDS: u64 = 6;
    if !PostgresServer::is_installed() {
        return skip("PostgreSQL is not installed");
    }
    let Some(bucket) = Bucket::start() else { return };
    let server = PostgresServer::shared().unwrap();
    let url = server.new_database().unwrap();
    let folders: [TempDir; 2] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let keys = folders[0].path().with_extension("keys");
    std::fs::write(&keys, KEY).unwrap();
    let address = format!("s3://{BUCKET}/shared");
    let database = ["--database", url.as_str(), "--archive", address.as_str()];
    let arguments = [&database[..], &["--api-key-file", keys.to_str().unwrap()]].concat();
    let (mut invocations, mut billed_ms) = (0, 0);
    for round in 0..ROUNDS {
        let mut collectors = folders.each_ref().map(|folder| bucket.collector(folder.path(), &arguments));
        for sequence in round * 10 + 1..round * 10 + 11 {
            for sender in 0..4 {
                let batch = varied(sender, sequence);
                let body = batch.encode().unwrap();
                // A repetition goes to the other collector, which may compact it at the same time.
                for collector in &collectors[..if sequence % 3 == 0 { 2 } else { 1 }] {
                    assert_eq!(send_batch(&collector.address, KEY, &body), Some(200));
                }
                invocations += batch.invocations.len() as u64;
                billed_ms += batch.invocations.iter().map(|one| one.billed_ms).sum::<u64>();
            }
        }
        // Both compact, seal and upload now, whichever has the lease. They are killed at another moment of that in each round.
        folders.iter().for_each(|folder| request::submit(folder.path()).unwrap());
        std::thread::sleep(Duration::from_millis(150 + 170 * round));
        collectors.iter_mut().for_each(|collector| collector.kill());
    }
    let data = folders[0].path().to_str().unwrap();
    let flushed = bucket.tailor(&[&["archive", "flush", "--data", data][..], &database].concat());
    assert!(flushed.status.success(), "{}", text(&flushed));
    let uploaded = format!("uploaded: {invocations} invocations");
    for line in [uploaded.as_str(), "waiting: 0 invocations (0 files)", "dropped: 0 invocations"] {
        assert!(text(&flushed).contains(line), "{line} is not in {}", text(&flushed));
    }
    let verify = ["archive", "verify", "--read", "--data", data];
    let verified = bucket.tailor(&[&verify[..], &database].concat());
    assert!(verified.status.success(), "{}", text(&verified));
    let Some(read) = bucket.read("shared", None) else { return };
    assert_eq!((&read["rows"], &read["keys"]), (&invocations.into(), &invocations.into()), "{read}");
    assert_eq!(&read["billed_ms"], &serde_json::Value::from(billed_ms), "{read}");
    let status = ["archive", "status", "--format", "json", "--database", url.as_str()];
    let status: serde_json::Value = serde_json::from_slice(&bucket.tailor(&status).stdout).unwrap();
    assert_eq!((&status["uploaded_invocations"], &status["spool_bytes"]), (&invocations.into(), &0.into()));
}

#[test]
fn a_collector_that_was_paused_never_writes_an_object_with_fewer_rows() {
    let Some(bucket) = Bucket::start() else { return };
    let runtime = Runtime::new().unwrap();
    for (number, place) in Place::each().enumerate() {
        let store = place.open(Clock::system());
        let archive_store: Arc<dyn ArchiveStore> = match &store {
            AnyStore::Sqlite(store) => Arc::clone(store) as Arc<dyn ArchiveStore>,
            AnyStore::Postgres(store) => Arc::clone(store) as Arc<dyn ArchiveStore>,
        };
        runtime.block_on(archive_store.set_archive(Some(1 << 20))).unwrap();
        for sequence in 1..4 {
            let noon_us = now_us() / DAY_US * DAY_US - DAY_US / 2;
            let batch = batch(&KINDS[0], 1, sequence, 20, noon_us);
            runtime.block_on(store.append(new_batch(&batch))).unwrap();
            runtime.block_on(archive_store.compact()).unwrap();
        }
        let prefix = format!("overtaken-{number}");
        let folder = tempfile::tempdir().unwrap();
        let overtaken = FaultyStore::new(archive_store, Fault::Overtake);
        let archiver = bucket.archiver(overtaken, &prefix, &folder);
        let error = runtime.block_on(archiver.flush()).unwrap_err();
        assert!(format!("{error:#}").contains("its parts changed"), "{error:#}");
        assert_eq!(bucket.objects(&prefix), [""; 0]);
        // The next round goes on with what is left.
        assert_eq!(runtime.block_on(archiver.flush()).unwrap().files, 0);
    }
}
