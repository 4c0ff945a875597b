//! The measurements that the tuner reads, from the store.

use std::sync::Arc;

use async_trait::async_trait;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::canary::Sample;
use super::dates;
use super::guards::{Evidence, Health};
use crate::clock::Clock;
use crate::query::last_hours;
use crate::report::{self, Evaluation};
use crate::store::{
    ChangeEvent, FunctionKey, HOUR_US, Lease, Series, SeriesKey, Store, StoreError, Tenant, Window,
};

/// Hours of batches from which the health of the telemetry is computed.
const HEALTH_HOURS: u64 = 1;

/// What the tuner reads and logs. Tests and the simulator have their own.
#[async_trait]
pub trait Telemetry: Send + Sync {
    /// The evaluations of all functions, or of one.
    async fn evaluations(
        &self,
        key: Option<&FunctionKey>,
        strategy: Strategy,
    ) -> Result<Vec<Evaluation>, StoreError>;

    /// What was measured at one size, of one version or of all, since a time (microseconds since the Unix epoch).
    async fn sample(
        &self,
        key: &FunctionKey,
        version: Option<&str>,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<(Evidence, Sample), StoreError>;

    /// The invocations of one version at one size that started at a time (microseconds since the Unix epoch) or later. Stored
    /// hours that also have earlier ones are left out.
    async fn measured(
        &self,
        key: &FunctionKey,
        version: &str,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<Rollup, StoreError>;

    /// The health of the telemetry of one function.
    async fn health(&self, key: &FunctionKey) -> Result<Health, StoreError>;

    /// The prices of a function.
    fn rates(&self, key: &FunctionKey, architecture: Architecture) -> Option<Rates>;

    /// Whether this collector may run a round now: of several collectors with one store, only one may.
    async fn may_run(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// The change log.
    async fn log(&self) -> Result<Vec<ChangeEvent>, StoreError>;

    /// Appends one event to the change log. It is on disk when the future resolves.
    async fn append(&self, event: &ChangeEvent) -> Result<(), StoreError>;
}

/// The evidence and the sample of one size, of one version or of all, in measurements by version, size and instruction set.
#[must_use]
pub fn sample_of<'a>(
    measured: impl IntoIterator<Item = (&'a str, Megabytes, Architecture, &'a Rollup)>,
    version: Option<&str>,
    memory: Megabytes,
    rates: impl FnOnce(Architecture) -> Option<Rates>,
) -> (Evidence, Sample) {
    let mut sum = Rollup::default();
    let mut architecture = Architecture::X86_64;
    for (of, size, on, rollup) in measured {
        if size == memory && version.is_none_or(|version| version == of) {
            sum.merge(rollup);
            architecture = on;
        }
    }
    (Evidence::of(&sum, memory, architecture, rates(architecture).as_ref()), Sample::of(&sum))
}

/// The measurements in the store.
pub struct StoreTelemetry {
    pub(super) store: Arc<dyn Store>,
    pub(super) prices: PriceTable,
    pub(super) tenant: Tenant,
    pub(super) hours: u64,
    pub(super) clock: Clock,
}

impl StoreTelemetry {
    async fn series(&self, key: &FunctionKey, window: Window) -> Result<Vec<Series>, StoreError> {
        self.store.series(&self.tenant, Some(key), window).await
    }

    /// The hours since a time, as far as measurements are used.
    fn window_since(&self, since_us: u64) -> Window {
        let now_us = self.clock.now_us();
        let oldest = last_hours(now_us, self.hours);
        let window = Window::covering(since_us, now_us.saturating_add(HOUR_US));
        Window { from_hour: window.from_hour.max(oldest.from_hour), ..window }
    }
}

#[async_trait]
impl Telemetry for StoreTelemetry {
    async fn evaluations(
        &self,
        key: Option<&FunctionKey>,
        strategy: Strategy,
    ) -> Result<Vec<Evaluation>, StoreError> {
        let request = report::Request {
            store: self.store.as_ref(),
            tenant: &self.tenant,
            window: last_hours(self.clock.now_us(), self.hours),
            prices: &self.prices,
            strategy,
            now_us: self.clock.now_us(),
            enforcements: None,
            fleet_sums: None,
            tags: None,
            computes_all: false,
        };
        report::evaluations(&request, key).await
    }

    async fn sample(
        &self,
        key: &FunctionKey,
        version: Option<&str>,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<(Evidence, Sample), StoreError> {
        let series = self.series(key, self.window_since(since_us)).await?;
        let measured = series.iter().map(|series| {
            let SeriesKey { version, memory, architecture, .. } = &series.key;
            (version.as_str(), *memory, *architecture, &series.rollup)
        });
        Ok(sample_of(measured, version, memory, |architecture| self.rates(key, architecture)))
    }

    async fn measured(
        &self,
        key: &FunctionKey,
        version: &str,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<Rollup, StoreError> {
        let mut sum = Rollup::default();
        for stored in self.store.rollups(&self.tenant, key, self.window_since(since_us)).await? {
            let is_meant = stored.key.version == version && stored.key.memory == memory;
            if is_meant && stored.rollup.first_at_us >= since_us {
                sum.merge(&stored.rollup);
            }
        }
        Ok(sum)
    }

    async fn health(&self, key: &FunctionKey) -> Result<Health, StoreError> {
        let now_us = self.clock.now_us();
        let window = last_hours(now_us, HEALTH_HOURS);
        let environments = self.store.environments(&self.tenant, Some(key), window).await?;
        let (mut delay_us, mut batches, mut missing) = (0, 0u64, 0u64);
        for state in &environments.live {
            delay_us = delay_us.max(state.received_at_us.abs_diff(state.header.sent_at_us));
            batches += state.header.sequence;
            missing += state.sequences.missing_since(now_us.saturating_sub(HEALTH_HOURS * HOUR_US));
        }
        let compiled = dates::date(self.prices.compiled());
        let age = compiled.and_then(|compiled| dates::days_since(compiled, now_us));
        let lost = missing as f64 / batches.max(1) as f64;
        Ok(Health { delay_us, lost, price_age_days: age })
    }

    fn rates(&self, key: &FunctionKey, architecture: Architecture) -> Option<Rates> {
        self.prices.rates(&key.region, architecture).ok()
    }

    async fn may_run(&self) -> Result<bool, StoreError> {
        self.store.hold(Lease::Tuner).await
    }

    async fn log(&self) -> Result<Vec<ChangeEvent>, StoreError> {
        self.store.changes(&self.tenant, None).await
    }

    async fn append(&self, event: &ChangeEvent) -> Result<(), StoreError> {
        self.store.log_change(&self.tenant, event).await
    }
}
