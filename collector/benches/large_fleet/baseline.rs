//! The pattern of earlier versions, for comparison in the same run: one row per batch that recognizes repetitions, one with
//! the body, and one partial rollup per series and commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tailor_collector::clock::now_us;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{NewBatch, Store, Tenant};

use super::fill::environment_batch;

/// Batches in each commit, for both.
const GROUP: u64 = 256;

/// Duration of each measurement.
const SPAN: Duration = Duration::from_secs(8);

/// Environments that send in turn.
const ENVIRONMENTS: u64 = 40_000;

fn new_batch(turn: u64) -> NewBatch {
    let (number, sequence) = (turn * 7_919 % ENVIRONMENTS, 1 + turn / ENVIRONMENTS);
    let batch = environment_batch(number, sequence, 1, now_us());
    let body = Bytes::from(batch.encode().unwrap());
    NewBatch::new(Tenant::default(), batch.header, &batch.invocations, body, now_us())
}

/// Batches per second and bytes per batch of both.
pub(crate) fn measure() -> Value {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (old_rate, old_bytes) = one_row_per_batch(&folder.path().join("old.sqlite"));
    let (rate, bytes) = store(&folder.path().join("store"));
    println!(
        "durable batches/s: {rate:.0}; with one row per batch {old_rate:.0} (ratio {:.2})\n\
         bytes on disk per batch: {bytes:.0}; with one row per batch {old_bytes:.0} (ratio {:.3})",
        rate / old_rate,
        bytes / old_bytes
    );
    json!({
        "batches_per_second": old_rate.round(), "store_batches_per_second": rate.round(),
        "bytes_per_batch": old_bytes.round(), "store_bytes_per_batch": bytes.round(),
    })
}

fn one_row_per_batch(path: &std::path::Path) -> (f64, f64) {
    let mut connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;
             CREATE TABLE batch (tenant TEXT, account TEXT, region TEXT, function TEXT, environment BLOB,
                 sequence BIGINT, header BLOB,
                 PRIMARY KEY (tenant, account, region, function, environment, sequence)) WITHOUT ROWID;
             CREATE TABLE rollup (tenant TEXT, account TEXT, region TEXT, function TEXT, hour BIGINT, part BLOB,
                 body BLOB, PRIMARY KEY (tenant, account, region, function, hour, part)) WITHOUT ROWID;
             CREATE TABLE recent (tenant TEXT, account TEXT, region TEXT, function TEXT, last_at_us BIGINT,
                 environment BLOB, sequence BIGINT, body BLOB,
                 PRIMARY KEY (tenant, account, region, function, last_at_us, environment, sequence));",
        )
        .unwrap();
    let (start, mut turn) = (Instant::now(), 0);
    while start.elapsed() < SPAN {
        let transaction = connection.transaction().unwrap();
        for _ in 0..GROUP {
            let batch = new_batch(turn);
            turn += 1;
            let environment = &batch.header.environment;
            let key = (&environment.account, &environment.region, &environment.function);
            let (id, sequence) = (&environment.id.0[..], i64::try_from(batch.header.sequence).unwrap());
            let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
                transaction.prepare_cached(sql).unwrap().execute(values).unwrap();
            };
            execute(
                "INSERT INTO batch VALUES ('default',?1,?2,?3,?4,?5,?6)",
                params![key.0, key.1, key.2, id, sequence, batch.header.encode()],
            );
            let hour = i64::try_from(batch.rollups[0].0).unwrap();
            let body = agent_proto::rollup::encode(&batch.rollups[0].1);
            execute(
                "INSERT INTO rollup VALUES ('default',?1,?2,?3,?4,randomblob(16),?5)",
                params![key.0, key.1, key.2, hour, body],
            );
            execute(
                "INSERT INTO recent VALUES ('default',?1,?2,?3,?4,?5,?6,?7)",
                params![
                    key.0,
                    key.1,
                    key.2,
                    i64::try_from(batch.last_at_us).unwrap(),
                    id,
                    sequence,
                    &batch.body[..]
                ],
            );
        }
        transaction.commit().unwrap();
    }
    let rate = turn as f64 / start.elapsed().as_secs_f64();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    (rate, std::fs::metadata(path).unwrap().len() as f64 / turn as f64)
}

fn store(folder: &std::path::Path) -> (f64, f64) {
    std::fs::create_dir(folder).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Arc::new(SqliteStore::open(folder).unwrap());
    let start = Instant::now();
    let (sent, rate) = runtime.block_on(async {
        let (mut tasks, mut turn) = (tokio::task::JoinSet::new(), 0u64);
        while start.elapsed() < SPAN {
            while tasks.len() as u64 >= GROUP {
                tasks.join_next().await.unwrap().unwrap();
            }
            let (store, batch) = (Arc::clone(&store), new_batch(turn));
            tasks.spawn(async move { store.append(batch).await.unwrap() });
            turn += 1;
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
        (turn, turn as f64 / start.elapsed().as_secs_f64())
    });
    runtime.block_on(store.maintain()).unwrap();
    drop(store);
    (rate, std::fs::metadata(folder.join("tailor.sqlite")).unwrap().len() as f64 / sent as f64)
}
