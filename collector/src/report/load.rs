//! From the store to reports.

use std::collections::BTreeMap;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

use super::build::report;
use super::evaluation::{Basis, Material};
use super::{FleetReport, FleetTotal, FunctionReport};
use crate::changes::{self, comparison};
use crate::store::{FunctionKey, HOUR_US, Series, Store, StoreError, Tenant, Window};

/// How many recent invocations are looked at to compare a change's outcome with its prediction.
const COMPARED: usize = 2_000;

/// Hours looked back to learn how the kernel enforces the quota: a busy fleet tells within the first of them,
/// and more of a quiet one is quickly read.
const LOOK_BACK_HOURS: [u64; 2] = [1, 24];

/// The fleet of a tenant, the function with most to save first.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(
    store: &dyn Store,
    tenant: &Tenant,
    window: Window,
    prices: &PriceTable,
    strategy: Strategy,
    now_us: u64,
) -> Result<FleetReport, StoreError> {
    let mut functions = reports(store, tenant, None, window, prices, strategy, now_us).await?;
    functions.sort_by(|a, b| {
        let key = |report: &FunctionReport| (std::cmp::Reverse(report.saving()), report.name.clone());
        key(a).cmp(&key(b))
    });
    let total = functions.iter().fold(FleetTotal::default(), |sum, report| FleetTotal {
        invocations: sum.invocations.saturating_add(report.invocations),
        errors: sum.errors.saturating_add(report.errors),
        cold_starts: sum.cold_starts.saturating_add(report.cold_starts),
        billed_ms: sum.billed_ms.saturating_add(report.billed_ms),
        cost_pico_usd: sum.cost_pico_usd + report.cost_pico_usd.unwrap_or(PicoDollars::ZERO),
        saving_pico_usd: sum.saving_pico_usd + report.saving().max(PicoDollars::ZERO),
        spending_pico_usd: sum.spending_pico_usd - report.saving().min(PicoDollars::ZERO),
    });
    Ok(FleetReport { total, functions, prices_of: prices.compiled().to_owned() })
}

/// One function of a tenant; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    store: &dyn Store,
    tenant: &Tenant,
    key: &FunctionKey,
    window: Window,
    prices: &PriceTable,
    strategy: Strategy,
    now_us: u64,
) -> Result<Option<FunctionReport>, StoreError> {
    Ok(reports(store, tenant, Some(key), window, prices, strategy, now_us).await?.pop())
}

async fn reports(
    store: &dyn Store,
    tenant: &Tenant,
    key: Option<&FunctionKey>,
    window: Window,
    prices: &PriceTable,
    strategy: Strategy,
    now_us: u64,
) -> Result<Vec<FunctionReport>, StoreError> {
    let Loaded { materials, enforcement } = load(store, tenant, key, window, prices, now_us).await?;
    let basis = Basis { prices, strategy, enforcement };
    let mut reports = Vec::with_capacity(materials.len());
    for (key, material) in &materials {
        reports.extend(report(key, material, &basis, now_us));
        // Each takes a fraction of a millisecond, a fleet of thousands does not: batches are stored in between.
        tokio::task::yield_now().await;
    }
    for report in &mut reports {
        report.changes.sort_by_key(|change| std::cmp::Reverse(change.planned_at_us));
    }
    Ok(reports)
}

/// What the store has of some functions, and how the kernel that they share enforces the quota.
pub(super) struct Loaded {
    pub(super) materials: BTreeMap<FunctionKey, Material>,
    pub(super) enforcement: Enforcement,
}

/// Reads the material of all functions of a tenant, or of one.
pub(super) async fn load(
    store: &dyn Store,
    tenant: &Tenant,
    key: Option<&FunctionKey>,
    window: Window,
    prices: &PriceTable,
    now_us: u64,
) -> Result<Loaded, StoreError> {
    let mut materials: BTreeMap<FunctionKey, Material> = BTreeMap::new();
    for series in store.series(tenant, key, window).await? {
        materials.entry(series.key.function.clone()).or_default().series.push(series);
    }
    for state in store.environments(tenant, key, window).await? {
        if let Some(material) = materials.get_mut(&FunctionKey::of(&state.header.environment)) {
            material.environments.push(state);
        }
    }
    for mut change in changes::fold(store.changes(tenant, key).await?) {
        let Some(material) = materials.get_mut(&change.function) else { continue };
        if change.is_being_compared() {
            let recent = store.recent(tenant, &change.function, COMPARED).await?;
            let rates = material
                .latest()
                .and_then(|latest| prices.rates(&change.function.region, latest.key.architecture).ok());
            let since_us = change.applied_at_us.unwrap_or(0);
            change.compare(comparison::since(&recent, change.to, since_us, rates.as_ref()));
        }
        material.changes.push(change);
    }
    let enforcement = if materials.is_empty() {
        Enforcement::default()
    } else {
        enforcement(store, tenant, window, now_us).await?
    };
    Ok(Loaded { materials, enforcement })
}

/// How the kernel enforces the quota, inferred from all functions of the tenant, so that one function and the whole fleet
/// get the same advice.
async fn enforcement(
    store: &dyn Store,
    tenant: &Tenant,
    window: Window,
    now_us: u64,
) -> Result<Enforcement, StoreError> {
    let until_hour = window.until_hour.min(now_us.div_ceil(HOUR_US));
    let mut enforcement = Enforcement::default();
    for hours in LOOK_BACK_HOURS {
        let from_hour = until_hour.saturating_sub(hours).max(window.from_hour);
        let series = store.series(tenant, None, Window { from_hour, until_hour }).await?;
        // However many versions a function has, it is one witness at each of its sizes.
        let mut witnesses: BTreeMap<(&FunctionKey, Megabytes), &Rollup> = BTreeMap::new();
        for Series { key, rollup } in &series {
            let witness = witnesses.entry((&key.function, key.memory)).or_insert(rollup);
            if rollup.warm.invocations > witness.warm.invocations {
                *witness = rollup;
            }
        }
        enforcement = Enforcement::of(witnesses.into_iter().map(|((_, memory), rollup)| (memory, rollup)));
        if enforcement.is_decided() {
            break;
        }
    }
    Ok(enforcement)
}

#[cfg(test)]
mod tests {
    use agent_proto::batch::{BatchHeader, Environment, EnvironmentId, Lost, Overhead};
    use bytes::Bytes;
    use tailor_sizing::model::cfs_simulation::Kernel;
    use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};

    use super::*;
    use crate::clock::now_us;
    use crate::store::NewBatch;
    use crate::store::sqlite::SqliteStore;

    /// What a function of one burst sends that at 256 MB waits for its second refill every time.
    fn delivery(number: u8, busy_us: u64) -> NewBatch {
        let now = now_us();
        let starved_us = 20_000 - busy_us % 2_900;
        let mut rollup = Rollup::default();
        for i in 0..30 {
            rollup.record(&Invocation {
                outcome: Outcome::Success,
                started_at_us: now - 1_000_000,
                duration_us: busy_us + starved_us + 10 * (i % 5),
                billed_ms: 25,
                peak_kib: 60_000,
                work: Some(Work {
                    user_us: busy_us,
                    starved_us,
                    top_busy_us: busy_us,
                    top_starved_us: starved_us,
                    effective_threads_milli: 1_000,
                    voluntary_switches: 1,
                    ..Work::default()
                }),
                ..Invocation::default()
            });
        }
        NewBatch {
            tenant: Tenant::default(),
            header: BatchHeader {
                environment: Environment {
                    id: EnvironmentId([number; 16]),
                    function: format!("burst-{number}"),
                    memory: Megabytes(256),
                    timeout_ms: 30_000,
                    ..crate::report::losses::tests::environment()
                },
                sequence: 1,
                sent_at_us: now,
                lost: Lost::default(),
                overhead: Overhead::default(),
                unsent: 0,
            },
            received_at_us: now,
            rollups: vec![(now / HOUR_US, rollup)],
            last_at_us: now,
            invocations: 30,
            body: Bytes::new(),
        }
    }

    #[tokio::test]
    async fn the_kernel_is_told_by_all_functions_and_the_same_for_one_as_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let tenant = Tenant::default();
        let (prices, strategy) = (PriceTable::embedded(), Strategy::default());
        let kernel = async || enforcement(&store, &tenant, Window::ALL, now_us()).await.unwrap().likeliest();
        store.append(delivery(1, 3_600)).await.unwrap();
        assert_eq!(kernel().await, Kernel::TickBased, "one function may have met a neighbour");
        for number in 2..8 {
            store.append(delivery(number, 3_400 + 150 * u64::from(number))).await.unwrap();
        }
        assert_eq!(kernel().await, Kernel::HighResolution);
        let fleet = fleet(&store, &tenant, Window::ALL, &prices, strategy, now_us()).await.unwrap();
        for number in 1..8 {
            let environment = delivery(number, 4_000).header.environment;
            let key = FunctionKey::of(&environment);
            let one = function(&store, &tenant, &key, Window::ALL, &prices, strategy, now_us())
                .await
                .unwrap()
                .unwrap();
            let listed = fleet.functions.iter().find(|report| report.name == environment.function).unwrap();
            assert_eq!(one.advice.full, listed.advice.full);
        }
    }
}
