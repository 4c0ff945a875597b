//! Measures the time of the report of a large fleet: reading, merging, advice and output as JSON.
//!
//! `cargo bench -p tailor-collector --bench fleet`.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;

use std::time::Instant;

use bytes::Bytes;
use fleet::{KINDS, batch};
use tailor_collector::clock::now_us;
use tailor_collector::query::{Format, ListQuery, TableStyle};
use tailor_collector::render::output::write;
use tailor_collector::report;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{HOUR_US, NewBatch, Store, Tenant, Window};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;

const FUNCTIONS: u64 = 1_000;
const HOURS: u64 = 24;

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let now = now_us();
    runtime.block_on(async {
        for number in 0..FUNCTIONS {
            let kind = KINDS[usize::try_from(number).unwrap() % KINDS.len()];
            for hour in 0..HOURS {
                let end = now - hour * HOUR_US;
                let mut batch = batch(&kind, number + 1, hour + 1, 100, end);
                batch.header.environment.function = format!("{}-{number}", kind.name);
                let mut rollup = Rollup::default();
                batch.invocations.iter().for_each(|invocation| rollup.record(invocation));
                let new_batch = NewBatch {
                    tenant: Tenant::default(),
                    received_at_us: end,
                    rollups: vec![(end / HOUR_US, rollup)],
                    last_at_us: end,
                    invocations: 0,
                    body: Bytes::new(),
                    header: batch.header,
                };
                store.append(new_batch).await.unwrap();
            }
        }
    });
    let (prices, tenant) = (PriceTable::embedded(), Tenant::default());
    let read = Instant::now();
    let series = runtime.block_on(store.series(&tenant, None, Window::ALL)).unwrap();
    let read = read.elapsed();
    assert_eq!(series.len() as u64, FUNCTIONS);
    let start = Instant::now();
    let request = report::Request {
        store: &store,
        tenant: &tenant,
        window: Window::ALL,
        prices: &prices,
        strategy: Strategy::default(),
        now_us: now_us(),
        enforcements: None,
        fleet_sums: None,
        tags: None,
        computes_all: false,
    };
    let list = ListQuery { limit: 1_000, ..ListQuery::default() };
    let fleet = runtime.block_on(report::fleet(&request, &list)).unwrap();
    let reported = start.elapsed();
    let text = write(&fleet, Format::Json, TableStyle::default());
    println!(
        "{FUNCTIONS} functions over {HOURS} hours: rollups merged in {read:.0?}, whole report in {reported:.0?}, {} KB as JSON",
        text.len() / 1_024
    );
}
