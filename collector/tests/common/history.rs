//! A fleet with weeks of history: functions of several kinds in several accounts and regions, with a daily rhythm, growth,
//! failures and changes of the tuner. It is written to the store directly, hour by hour.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use serde_json::json;
use tailor_collector::changes::comparison::Measurements;
use tailor_collector::changes::{Intent, Route, StepDetail, Write};
use tailor_collector::store::{ChangeEvent, FunctionKey, HOUR_US, NewBatch, Tenant};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::invocation::{Initialization, Outcome};
use tokio::task::JoinSet;

use super::fleet::{KINDS, Kind, batch};
use super::places::AnyStore;

const TEAMS: [&str; 4] = ["payments", "search", "platform", "logistics"];
const SERVICES: [&str; 10] =
    ["orders", "invoices", "catalog", "images", "users", "mail", "stock", "reports", "billing", "events"];
const REGIONS: [&str; 3] = ["eu-west-1", "us-east-1", "eu-central-1"];
const ACCOUNTS: [&str; 2] = ["123456789012", "210987654321"];

/// The name of a function.
pub(crate) fn name(number: usize) -> String {
    let kind = KINDS[number % KINDS.len()].name.split('-').next().unwrap();
    format!("{}-{kind}-{number:03}", SERVICES[number * 7 % SERVICES.len()])
}

/// The tags of the functions as a file.
pub(crate) fn tags(functions: usize) -> String {
    let lines =
        (0..functions).map(|number| format!("{},{},prod\n", name(number), TEAMS[number % TEAMS.len()]));
    format!("function,team,env\n{}", lines.collect::<String>())
}

/// A function.
pub(crate) fn key(number: usize) -> FunctionKey {
    FunctionKey {
        account: ACCOUNTS[usize::from(number.is_multiple_of(5))].to_owned(),
        region: REGIONS[number % REGIONS.len()].to_owned(),
        name: name(number),
    }
}

/// The size of a function at an hour: some are changed in the third last day.
fn kind_at(number: usize, hours_ago: u64) -> Kind {
    let kind = KINDS[number % KINDS.len()];
    let is_changed = number % 12 == 2 && hours_ago < 60;
    Kind { memory: if is_changed { kind.memory / 2 } else { kind.memory }, ..kind }
}

/// Invocations of one batch, and how often the batch is counted: a daily rhythm and growth over the weeks.
fn traffic(number: usize, hours_ago: u64, hour: u64) -> (u64, u32) {
    let daily = 1.0 + 0.8 * (((hour % 24) as f64 - 14.0) / 24.0 * std::f64::consts::TAU).cos();
    let growth = 1.0 + (720.0 - hours_ago.min(720) as f64) / 1_800.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 4 and 40")]
    let count = (12.0 * daily * growth).max(4.0) as u64;
    (count, 5 + u32::try_from(number * 31 % 9).unwrap())
}

/// Writes `functions` functions: per hour for the last `hourly_hours`, and before that per day, for `days` days.
pub(crate) async fn write(
    store: &std::sync::Arc<AnyStore>,
    functions: usize,
    days: u64,
    hourly_hours: u64,
    now_us: u64,
) {
    let mut writes = JoinSet::new();
    for number in 0..functions {
        for (sequence, hours_ago) in hours(days, hourly_hours).enumerate() {
            let new_batch =
                hour_batch(number, hours_ago, sequence as u64 + 1, now_us, hours_ago < hourly_hours);
            let store = std::sync::Arc::clone(store);
            writes.spawn(async move { store.append(new_batch).await.unwrap() });
            while writes.len() > 200 {
                writes.join_next().await.unwrap().unwrap();
            }
        }
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
    for number in (0..functions).filter(|number| number % 12 == 2) {
        write_change(store, number, now_us).await;
    }
}

fn hours(days: u64, hourly_hours: u64) -> impl Iterator<Item = u64> {
    let daily = (1..days).rev().map(|day| day * 24).filter(move |hours| *hours >= hourly_hours);
    daily.chain((0..hourly_hours).rev())
}

fn hour_batch(number: usize, hours_ago: u64, sequence: u64, now_us: u64, is_hourly: bool) -> NewBatch {
    let kind = kind_at(number, hours_ago);
    let hour = now_us / HOUR_US - hours_ago;
    let at_us = (hour * HOUR_US + HOUR_US / 3).min(now_us);
    let (count, doublings) = traffic(number, hours_ago, hour);
    let mut batch = batch(&kind, number as u64 + 1, sequence, count, at_us);
    let key = key(number);
    let environment = &mut batch.header.environment;
    (environment.account, environment.region, environment.function) = (key.account, key.region, key.name);
    batch.invocations[0].initialization = Initialization::OnDemand;
    batch.invocations[0].init_us = 180_000;
    for invocation in &mut batch.invocations {
        // An outage of a dependency.
        if number % 9 == 4 && (28..31).contains(&hours_ago) {
            invocation.outcome = Outcome::Error;
        }
        invocation.started_at_us = invocation.started_at_us.max(hour * HOUR_US);
    }
    let body = if hours_ago < 2 { batch.encode().unwrap().into() } else { Bytes::new() };
    let mut new_batch = NewBatch::new(Tenant::default(), batch.header, &batch.invocations, body, at_us);
    // Before the hours, one batch has the invocations of a day.
    let doublings = if is_hourly { doublings } else { doublings + 4 };
    for (_, rollup) in &mut new_batch.rollups {
        for _ in 0..doublings {
            let copy = rollup.clone();
            rollup.merge(&copy);
        }
    }
    new_batch
}

/// A change of a function's size that was settled.
async fn write_change(store: &AnyStore, number: usize, now_us: u64) {
    let memory = KINDS[number % KINDS.len()].memory;
    let cost = |dollars: i128| Some(PicoDollars(dollars * 100_000_000_000));
    let before = Measurements {
        invocations: 900,
        warm: 880,
        mean_ms: 184.0,
        p50_ms: 181.0,
        p95_ms: 207.0,
        cost_per_million_pico_usd: cost(63),
        ..Measurements::default()
    };
    let after = Measurements {
        mean_ms: 190.0,
        p50_ms: 188.0,
        p95_ms: 214.0,
        cost_per_million_pico_usd: cost(33),
        ..before
    };
    let intent = Intent {
        from_mb: memory,
        to_mb: memory / 2,
        revision_id: "r1".to_owned(),
        code_sha256: "c1".to_owned(),
        before,
        cost_change_percent: -46.0,
        duration_change_percent: 2.4,
        duration_interval_ms: [180.0, 199.0],
        reasons: vec!["most of the time is waiting".to_owned()],
        route: Route::Latest,
        configuration_digest: "d1".to_owned(),
        uncapped_mb: memory / 2,
        for_memory: false,
        saving_per_million: cost(29).unwrap_or_default(),
        p95_limit_ms: 220.0,
    };
    let step = |reason: &str, after| StepDetail { reason: reason.to_owned(), after, ..StepDetail::default() };
    let write = Write::SetMemory { memory_mb: memory / 2, revision_id: "r1".to_owned() };
    let mut steps = vec![
        (60, "planned", json!(intent)),
        (60, "updating", json!(StepDetail { write: Some(write), ..StepDetail::default() })),
        (60, "soaking", json!(step("the new size is in use", None))),
    ];
    match number % 24 {
        2 => steps.push((36, "settled", json!(step("as predicted", Some(after))))),
        _ => steps.push((
            30,
            "rolled-back",
            json!(step("the duration rose by more than predicted", Some(before))),
        )),
    }
    for (step, (hours_ago, kind, detail)) in (0..).zip(steps) {
        let event = ChangeEvent {
            function: key(number),
            change_id: "00000001".to_owned(),
            step,
            at_us: now_us - hours_ago * HOUR_US,
            kind: kind.to_owned(),
            detail,
        };
        store.log_change(&Tenant::default(), &event).await.unwrap();
    }
}
