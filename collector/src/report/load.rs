//! From the store to reports.

use std::collections::BTreeMap;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

use super::build::report;
use super::evaluation::{Basis, Evaluation, Material, evaluate};
use super::{FleetReport, FleetTotal, FunctionReport};
use crate::changes;
use crate::changes::comparison::{self, MAX_COMPARED_INVOCATIONS};
use crate::store::{Environments, FunctionKey, HOUR_US, Series, Store, StoreError, Tenant, Window};

/// Hours before the end of the window from which the kernel's enforcement of the quota is inferred. The functions of a
/// busy fleet decide it within the first hour; of a quiet fleet, a whole day is read.
const LOOK_BACK_HOURS: [u64; 2] = [1, 24];

/// What a report is computed from.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The store that is read.
    pub store: &'a dyn Store,
    /// The owner of the functions.
    pub tenant: &'a Tenant,
    /// The invocations that are included.
    pub window: Window,
    /// Lambda's prices.
    pub prices: &'a PriceTable,
    /// The optimization goal.
    pub strategy: Strategy,
    /// The present time, microseconds since the Unix epoch.
    pub now_us: u64,
}

/// The fleet of a tenant, the function with the highest saving first.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(request: &Request<'_>) -> Result<FleetReport, StoreError> {
    let mut functions = reports(request, None).await?;
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
    Ok(FleetReport { total, functions, prices_of: request.prices.compiled().to_owned() })
}

/// The report of one function; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    request: &Request<'_>,
    key: &FunctionKey,
) -> Result<Option<FunctionReport>, StoreError> {
    Ok(reports(request, Some(key)).await?.pop())
}

/// The evaluations of all functions of the tenant, or of one.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn evaluations(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<Vec<Evaluation>, StoreError> {
    let materials = materials(request, key).await?;
    for_each(request, &materials, |key, material, basis| {
        evaluate(key, material, basis).map(|evaluated| evaluated.evaluation)
    })
    .await
}

async fn reports(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<Vec<FunctionReport>, StoreError> {
    let mut materials = materials(request, key).await?;
    add_changes(request, key, &mut materials).await?;
    let from_us = request.window.from_hour.saturating_mul(HOUR_US);
    for_each(request, &materials, |key, material, basis| {
        report(key, material, basis, from_us, request.now_us)
    })
    .await
}

/// What `compute` returns for each function.
async fn for_each<T>(
    request: &Request<'_>,
    materials: &BTreeMap<FunctionKey, Material>,
    compute: impl Fn(&FunctionKey, &Material, &Basis<'_>) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    if materials.is_empty() {
        return Ok(Vec::new());
    }
    let enforcement = enforcement(request.store, request.tenant, request.window, request.now_us).await?;
    let basis = Basis { prices: request.prices, strategy: request.strategy, enforcement };
    let mut results = Vec::with_capacity(materials.len());
    for (key, material) in materials {
        results.extend(compute(key, material, &basis));
        // One function takes a fraction of a millisecond, but there can be thousands. Other requests run in between.
        tokio::task::yield_now().await;
    }
    Ok(results)
}

/// Reads the series and the environments of all functions of the tenant, or of one.
async fn materials(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<BTreeMap<FunctionKey, Material>, StoreError> {
    let Request { store, tenant, window, .. } = *request;
    let mut materials: BTreeMap<FunctionKey, Material> = BTreeMap::new();
    for series in store.series(tenant, key, window).await? {
        materials.entry(series.key.function.clone()).or_default().series.push(series);
    }
    let Environments { live, ended } = store.environments(tenant, key, window).await?;
    for state in live {
        if let Some(material) = materials.get_mut(&FunctionKey::of(&state.header.environment)) {
            material.environments.live.push(state);
        }
    }
    for totals in ended {
        if let Some(material) = materials.get_mut(&totals.function()) {
            material.environments.ended.push(totals);
        }
    }
    Ok(materials)
}

/// Adds the changes of each function, latest first, with the measurements since a change that is being compared.
async fn add_changes(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
    materials: &mut BTreeMap<FunctionKey, Material>,
) -> Result<(), StoreError> {
    let Request { store, tenant, prices, .. } = *request;
    // The log is folded into changes in the order of their plans.
    for mut change in changes::fold(store.changes(tenant, key).await?).into_iter().rev() {
        let Some(material) = materials.get_mut(&change.function) else { continue };
        if change.is_being_compared() {
            let recent = store.recent(tenant, &change.function, MAX_COMPARED_INVOCATIONS).await?;
            let rates = material
                .latest()
                .and_then(|latest| prices.rates(&change.function.region, latest.key.architecture).ok());
            let since_us = change.applied_at_us.unwrap_or(0);
            change.compare(comparison::since(&recent, change.to, since_us, rates.as_ref()));
        }
        material.changes.push(change);
    }
    Ok(())
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
        // A function counts once at each of its sizes: the version with the most measured invocations.
        let mut by_size: BTreeMap<(&FunctionKey, Megabytes), &Rollup> = BTreeMap::new();
        for Series { key, rollup } in &series {
            let largest = by_size.entry((&key.function, key.memory)).or_insert(rollup);
            if rollup.warm.invocations > largest.warm.invocations {
                *largest = rollup;
            }
        }
        enforcement = Enforcement::of(by_size.into_iter().map(|((_, memory), rollup)| (memory, rollup)));
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

    /// The batch of a function whose CPU burst needs two periods of the quota at 256 MB.
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
    async fn one_function_and_the_fleet_get_the_enforcement_of_all_functions() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let tenant = Tenant::default();
        let (prices, strategy) = (PriceTable::embedded(), Strategy::default());
        let request = Request {
            store: &store,
            tenant: &tenant,
            window: Window::ALL,
            prices: &prices,
            strategy,
            now_us: now_us(),
        };
        let kernel = async || enforcement(&store, &tenant, Window::ALL, now_us()).await.unwrap().likeliest();
        store.append(delivery(1, 3_600)).await.unwrap();
        assert_eq!(kernel().await, Kernel::TickBased, "one function is not enough evidence");
        for number in 2..8 {
            store.append(delivery(number, 3_400 + 150 * u64::from(number))).await.unwrap();
        }
        assert_eq!(kernel().await, Kernel::HighResolution);
        let fleet = fleet(&request).await.unwrap();
        for number in 1..8 {
            let environment = delivery(number, 4_000).header.environment;
            let key = FunctionKey::of(&environment);
            let one = function(&request, &key).await.unwrap().unwrap();
            let listed = fleet.functions.iter().find(|report| report.name == environment.function).unwrap();
            assert_eq!(one.advice.full, listed.advice.full);
        }
    }
}
