//! Reads the store and computes reports and evaluations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

use super::FunctionReport;
use super::build::report;
use super::evaluation::{Basis, Evaluation, Material, evaluate};
use super::series::fleet_sums::FleetSumsCache;
use crate::changes::comparison::{self, MAX_COMPARED_INVOCATIONS};
use crate::changes::{self, Change};
use crate::store::{FunctionKey, HOUR_US, Series, Store, StoreError, Tenant, Window};
use crate::tags::{CurrentTags, TagTable};

/// Hours before the end of the window from which the kernel's enforcement of the quota is inferred. The functions of a
/// busy fleet decide it within the first hour; of a fleet with few invocations, a whole day is read.
const LOOK_BACK_HOURS: [u64; 2] = [1, 24];

/// Functions from which the enforcement is inferred.
const MAX_OBSERVED_FUNCTIONS: usize = 64;

/// How long the enforcement of a large fleet is used, microseconds.
const ENFORCEMENT_KEPT_US: u64 = 300_000_000;

/// A fleet of at most so many functions is computed when it is read; a larger one is read from summaries, where a collector
/// keeps them.
const LIVE_FUNCTIONS: usize = 50;

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
    /// What was inferred of large fleets some minutes ago.
    pub enforcements: Option<&'a EnforcementCache>,
    /// The sums over large fleets for time series.
    pub fleet_sums: Option<&'a FleetSumsCache>,
    /// The tags of functions.
    pub tags: Option<&'a CurrentTags>,
    /// Whether every function is computed now, whatever their number: no collector keeps summaries of them, or they have other
    /// prices.
    pub computes_all: bool,
}

impl Request<'_> {
    /// Whether the fleet is computed now, and not read from summaries.
    pub(super) async fn computes_fleet(&self) -> Result<bool, StoreError> {
        let few = LIVE_FUNCTIONS + 1;
        Ok(self.computes_all || self.computes(self.store.functions(self.tenant, None, few).await?.len()))
    }

    /// Whether so many functions are computed now.
    pub(super) fn computes(&self, functions: usize) -> bool {
        self.computes_all || functions <= LIVE_FUNCTIONS
    }

    /// The tags of the tenant's functions.
    pub(super) fn tag_table(&self) -> Arc<TagTable> {
        self.tags.map(|tags| tags.of(self.tenant)).unwrap_or_default()
    }
}

/// The report of one function; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    request: &Request<'_>,
    key: &FunctionKey,
) -> Result<Option<FunctionReport>, StoreError> {
    let mut report = reports(request, Some(key)).await?.pop();
    if let Some(report) = &mut report {
        report.tags = request.tag_table().of(key);
    }
    Ok(report)
}

/// The evaluations of all functions of the tenant, or of one.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn evaluations(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<Vec<Evaluation>, StoreError> {
    let keys = keys(request, key).await?;
    let basis = basis(request).await?;
    let mut evaluations = Vec::new();
    // One function at a time, so that memory does not grow with the rollups of a fleet.
    for key in &keys {
        let material = material(request, key).await?;
        evaluations.extend(evaluate(key, &material, &basis).map(|evaluated| evaluated.evaluation));
        tokio::task::yield_now().await;
    }
    Ok(evaluations)
}

/// The reports of all functions of the tenant, or of one.
pub(super) async fn reports(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<Vec<FunctionReport>, StoreError> {
    let keys = keys(request, key).await?;
    let basis = basis(request).await?;
    let changes = changes(request, key).await?;
    let from_us = request.window.from_hour.saturating_mul(HOUR_US);
    let mut reports = Vec::with_capacity(keys.len());
    for key in &keys {
        let mut material = material(request, key).await?;
        add_changes(request, key, &mut material, &changes).await?;
        reports.extend(report(key, &material, &basis, from_us, request.now_us));
        tokio::task::yield_now().await;
    }
    Ok(reports)
}

pub(super) async fn keys(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<Vec<FunctionKey>, StoreError> {
    match key {
        Some(key) => Ok(vec![key.clone()]),
        None => request.store.functions(request.tenant, None, usize::MAX).await,
    }
}

async fn basis<'a>(request: &Request<'a>) -> Result<Basis<'a>, StoreError> {
    let enforcement = enforcement(request).await?;
    Ok(Basis { prices: request.prices, strategy: request.strategy, enforcement })
}

/// Reads the series and the environments of one function.
pub(super) async fn material(request: &Request<'_>, key: &FunctionKey) -> Result<Material, StoreError> {
    let Request { store, tenant, window, .. } = *request;
    let series = store.series(tenant, Some(key), window).await?;
    if series.is_empty() {
        return Ok(Material::default());
    }
    let environments = store.environments(tenant, Some(key), window).await?;
    Ok(Material { series, environments, changes: Vec::new() })
}

/// The changes of all functions of the tenant, or of one, latest first.
pub(super) async fn changes(
    request: &Request<'_>,
    key: Option<&FunctionKey>,
) -> Result<BTreeMap<FunctionKey, Vec<Change>>, StoreError> {
    let mut changes: BTreeMap<FunctionKey, Vec<Change>> = BTreeMap::new();
    // The log is folded into changes in the order of their plans.
    for change in changes::fold(request.store.changes(request.tenant, key).await?).into_iter().rev() {
        changes.entry(change.function.clone()).or_default().push(change);
    }
    Ok(changes)
}

/// Adds the changes of the function, with the measurements since a change that is being compared.
pub(super) async fn add_changes(
    request: &Request<'_>,
    key: &FunctionKey,
    material: &mut Material,
    changes: &BTreeMap<FunctionKey, Vec<Change>>,
) -> Result<(), StoreError> {
    let Request { store, tenant, prices, .. } = *request;
    let Some(latest) = material.latest() else { return Ok(()) };
    let rates = prices.rates(&key.region, latest.key.architecture).ok();
    for mut change in changes.get(key).cloned().unwrap_or_default() {
        if change.is_being_compared() {
            let recent = store.recent(tenant, key, MAX_COMPARED_INVOCATIONS).await?;
            let since_us = change.applied_at_us.unwrap_or(0);
            change.compare(comparison::since(&recent, change.to, since_us, rates.as_ref()));
        }
        material.changes.push(change);
    }
    Ok(())
}

/// The enforcement of the quota, by tenant. A running collector keeps it for some minutes.
#[derive(Debug, Default)]
pub struct EnforcementCache(Mutex<BTreeMap<Tenant, (u64, Enforcement)>>);

impl EnforcementCache {
    fn get(&self, tenant: &Tenant, now_us: u64) -> Option<Enforcement> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (inferred_at_us, enforcement) = cache.get(tenant)?;
        (now_us.saturating_sub(*inferred_at_us) < ENFORCEMENT_KEPT_US).then_some(*enforcement)
    }

    fn put(&self, tenant: &Tenant, now_us: u64, enforcement: Enforcement) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(tenant.clone(), (now_us, enforcement));
    }
}

/// How the kernel enforces the quota, inferred from many functions of the tenant, so that one function and the whole fleet
/// get the same advice.
pub(super) async fn enforcement(request: &Request<'_>) -> Result<Enforcement, StoreError> {
    let Request { store, tenant, window, now_us, .. } = *request;
    let functions = store.functions(tenant, None, MAX_OBSERVED_FUNCTIONS).await?;
    // A small fleet is always read, so that its reports depend only on what is stored.
    let cache = request.enforcements.filter(|_| functions.len() > LIVE_FUNCTIONS);
    if let Some(enforcement) = cache.and_then(|cache| cache.get(tenant, now_us)) {
        return Ok(enforcement);
    }
    let until_hour = window.until_hour.min(now_us.div_ceil(HOUR_US));
    let mut enforcement = Enforcement::default();
    for hours in LOOK_BACK_HOURS {
        let from_hour = until_hour.saturating_sub(hours).max(window.from_hour);
        let mut series = vec![];
        for key in &functions {
            series.extend(store.series(tenant, Some(key), Window { from_hour, until_hour }).await?);
        }
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
    if let Some(cache) = cache {
        cache.put(tenant, now_us, enforcement);
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
    use crate::query::ListQuery;
    use crate::store::NewBatch;
    use crate::store::sqlite::SqliteStore;

    /// The batch of a function whose CPU burst needs two periods of the quota at 256 MB.
    fn delivery(number: u8, busy_us: u64) -> NewBatch {
        let now = now_us();
        let starved_us = 20_000 - busy_us % 2_900;
        let invocations = (0..30).map(|i| Invocation {
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
        let header = BatchHeader {
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
            interval: None,
        };
        NewBatch::new(Tenant::default(), header, &invocations.collect::<Vec<_>>(), Bytes::new(), now)
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
            enforcements: None,
            fleet_sums: None,
            tags: None,
            computes_all: false,
        };
        let kernel = async || enforcement(&request).await.unwrap().likeliest();
        store.append(delivery(1, 3_600)).await.unwrap();
        assert_eq!(kernel().await, Kernel::TickBased, "one function is not enough evidence");
        for number in 2..8 {
            store.append(delivery(number, 3_400 + 150 * u64::from(number))).await.unwrap();
        }
        assert_eq!(kernel().await, Kernel::HighResolution);
        let fleet = crate::report::fleet(&request, &ListQuery::default()).await.unwrap();
        for number in 1..8 {
            let environment = delivery(number, 4_000).header.environment;
            let key = FunctionKey::of(&environment);
            let one = function(&request, &key).await.unwrap().unwrap();
            let listed = fleet.functions.iter().find(|report| report.name == environment.function).unwrap();
            assert_eq!(one.advice.full, listed.advice.full);
        }
    }
}
