//! Fills a store with the history of a large fleet, through the store interface.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_proto::batch::Batch;
use bytes::Bytes;
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{HOUR_US, NewBatch, Store, Tenant};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;

use crate::ENVIRONMENTS;
use crate::fleet::{KINDS, batch};

/// Invocations in each hour of each function.
const INVOCATIONS_PER_HOUR: u64 = 120;

/// Days of history.
const DAYS: u64 = 30;

/// Days with one rollup per hour; before them, one per day.
const HOURLY_DAYS: u64 = 8;

/// Batches that wait for their acknowledgement at a time.
const CONCURRENT: usize = 512;

#[derive(Default)]
pub(crate) struct Filled {
    pub(crate) span: Duration,
    /// CPU time of all summaries of one function.
    pub(crate) summary_ms: f64,
}

/// A batch of the environment with this number, as it is sent.
pub(crate) fn environment_batch(number: u64, sequence: u64, count: u64, end_us: u64) -> Batch {
    let (function, environment) = (number / ENVIRONMENTS, number % ENVIRONMENTS);
    let kind = &KINDS[usize::try_from(function).unwrap() % KINDS.len()];
    let mut batch = batch(kind, number + 1, sequence, count, end_us);
    batch.header.environment.function = function_name(function);
    batch.header.environment.region =
        ["eu-west-1", "us-east-1", "eu-central-1"][usize::try_from(function % 3).unwrap()].to_owned();
    batch.header.environment.account = format!("1234567890{:02}", function % 20);
    batch.header.overhead.ticks = environment;
    batch
}

pub(crate) fn function_name(function: u64) -> String {
    format!("{}-{function}", KINDS[usize::try_from(function).unwrap() % KINDS.len()].name)
}

fn rollup(number: u64, hour: u64) -> Rollup {
    let mut rollup = Rollup::default();
    let batch = environment_batch(number, 2 + hour % 50, INVOCATIONS_PER_HOUR, (hour + 1) * HOUR_US - 1);
    batch.invocations.iter().for_each(|invocation| rollup.record(invocation));
    rollup
}

/// The first batch of an environment. That of a function's first environment has the history of the function.
fn first_batch(number: u64, now_us: u64, histories: &[Vec<(u64, Rollup)>]) -> NewBatch {
    let batch = environment_batch(number, 1, 1, now_us);
    let history = match number % ENVIRONMENTS {
        0 => histories[usize::try_from(number / ENVIRONMENTS).unwrap() % histories.len()].clone(),
        _ => vec![],
    };
    NewBatch {
        tenant: Tenant::default(),
        received_at_us: now_us,
        rollups: history,
        last_at_us: now_us,
        invocations: 1,
        body: Bytes::from(batch.encode().unwrap()),
        header: batch.header,
    }
}

/// Fills a new store in `folder`.
pub(crate) fn fill(folder: &Path, functions: u64) -> Filled {
    let start = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let store = Arc::new(SqliteStore::open(folder).unwrap());
    let now_us = now_us();
    let now_hour = now_us / HOUR_US;
    let today = now_hour - now_hour % 24;
    let days = (HOURLY_DAYS..DAYS).map(|day| today - (day + 1) * 24);
    let hours: Vec<u64> = days.chain(today - HOURLY_DAYS * 24..now_hour).collect();
    // Functions of the same kind have the same history.
    let histories: Vec<Vec<(u64, Rollup)>> = (0..KINDS.len() as u64)
        .map(|kind| hours.iter().map(|hour| (*hour, rollup(kind * ENVIRONMENTS, *hour))).collect())
        .collect();
    let histories = Arc::new(histories);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..functions * ENVIRONMENTS {
            while tasks.len() >= CONCURRENT {
                tasks.join_next().await.unwrap().unwrap();
            }
            let (store, histories) = (Arc::clone(&store), Arc::clone(&histories));
            tasks.spawn(async move { store.append(first_batch(number, now_us, &histories)).await.unwrap() });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
        store.maintain().await.unwrap();
    });
    let summarizer = Summarizer {
        store: Arc::clone(&store) as Arc<dyn Store>,
        prices: PriceTable::embedded(),
        clock: Clock::system(),
        enforcements: Arc::default(),
        fleet_sums: Arc::default(),
    };
    let summaries = Instant::now();
    let mut computed = 0;
    loop {
        match runtime.block_on(summarizer.step()).unwrap() {
            0 => break,
            count => computed += count,
        }
    }
    let summary_ms = summaries.elapsed().as_secs_f64() * 1e3 / computed.max(1) as f64;
    Filled { span: start.elapsed(), summary_ms }
}
