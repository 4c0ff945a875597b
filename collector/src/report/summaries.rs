//! Computes the stored summaries in the background: functions that changed first, with a limited share of the CPU.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;

use super::bill::{BillMaterial, bill_kind, spans, spans_kind};
use super::build::report;
use super::cost_change::cost_change;
use super::evaluation::{Basis, Material};
use super::list::{self, SUMMARY_HOURS};
use super::load::{EnforcementCache, Request, add_changes, changes, enforcement};
use super::placement;
use super::placement::fleet::{PlaceSum, place_kind};
use super::series::fleet_sums::{FleetSumsCache, timeline_kind};
use super::series::{Timeline, billing, timeline_row};
use crate::clock::Clock;
use crate::query::{self, last_hours};
use crate::store::{
    ChangedFunction, Environments, FunctionKey, HOUR_US, Lease, Series, SeriesKey, Store, StoreError,
    StoredRollup, Summary, SummaryKind, SummaryRow, Tenant, Window,
};

/// The strategies for which summaries are kept.
pub(super) const STRATEGIES: [&str; 3] = ["cost", "balanced", "speed"];

/// Functions in one step.
const STEP_FUNCTIONS: usize = 8;

/// Pause after a step, as a multiple of its duration: a quarter of one CPU at most.
const PAUSE_FACTOR: u32 = 3;

/// Pause when no function changed.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// What the task reads and writes.
pub struct Summarizer {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Lambda's prices.
    pub prices: PriceTable,
    /// The clock.
    pub clock: Clock,
    /// Shared with the requests.
    pub enforcements: Arc<EnforcementCache>,
    /// Shared with the requests.
    pub fleet_sums: Arc<FleetSumsCache>,
}

impl Summarizer {
    /// Runs until `shutdown` resolves.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let start = Instant::now();
            if let Err(error) = self.fleet_sums.refresh(self.store.as_ref(), &self.clock).await {
                tracing::warn!(%error, "cannot add up the fleet's time series; trying again later");
            }
            let pause = match self.step().await {
                Ok(0) => IDLE_PAUSE,
                Ok(_) => start.elapsed() * PAUSE_FACTOR,
                Err(error) => {
                    tracing::warn!(%error, "cannot compute summaries; trying again later");
                    IDLE_PAUSE * 10
                }
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Computes the summaries of some changed functions; returns their number. Of several collectors, only one does.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read or written.
    pub async fn step(&self) -> Result<usize, StoreError> {
        if !self.store.hold(Lease::Summaries).await? {
            return Ok(0);
        }
        let changed = self.store.changed_functions(STEP_FUNCTIONS).await?;
        let mut computed = Vec::with_capacity(changed.len());
        for function in changed {
            let summaries = self.summaries(&function).await?;
            computed.push((function, summaries));
        }
        let count = computed.len();
        if count > 0 {
            self.store.put_summaries(computed).await?;
        }
        Ok(count)
    }

    /// All summaries of one function; none when nothing was measured.
    async fn summaries(&self, changed: &ChangedFunction) -> Result<Vec<Summary>, StoreError> {
        let (tenant, key) = (&changed.tenant, &changed.function);
        let longest = self.request(tenant, SUMMARY_HOURS[SUMMARY_HOURS.len() - 1]);
        let enforcement = enforcement(&longest).await?;
        let changes = changes(&longest, Some(key)).await?;
        let timeline_kind = timeline_kind();
        let window = last_hours(longest.now_us, timeline_kind.hours);
        let mut rollups = self.store.rollups(tenant, key, Window::ALL).await?;
        let all_environments = self.store.environments(tenant, Some(key), Window::ALL).await?;
        // The sums of the bill are for any window, and the others for windows that are not longer than the time series.
        let bill_spans = spans::encode(&rollups, &all_environments);
        rollups.retain(|stored| belongs(stored, window));
        if rollups.is_empty() {
            return Ok(Vec::new());
        }
        let environments = since(&all_environments, window.from_us());
        let header = environments.newest_header();
        let timeline = Timeline::of(&rollups, billing(header)).encode(longest.now_us / HOUR_US);
        let row = timeline_row(key, &rollups, header, longest.now_us);
        let bill_spans = Summary { kind: spans_kind(), row: row.clone(), report: bill_spans };
        let mut summaries = vec![Summary { kind: timeline_kind, row, report: timeline }, bill_spans];
        for hours in SUMMARY_HOURS {
            let request = self.request(tenant, hours);
            let series = merged(&rollups, request.window);
            let from_us = request.window.from_hour.saturating_mul(HOUR_US);
            let environments = since(&environments, from_us);
            let mut material = Material { series, environments, changes: Vec::new() };
            add_changes(&request, key, &mut material, &changes).await?;
            add_sums(hours, &request, (key, &material, &rollups), &mut summaries)?;
            let change = cost_change(&rollups, header, &self.prices, request.now_us, hours);
            for name in STRATEGIES {
                let strategy = query::strategy(Some(name), None).unwrap_or_default();
                let basis = Basis { prices: &self.prices, strategy, enforcement };
                let Some(mut report) = report(key, &material, &basis, from_us, request.now_us) else {
                    continue;
                };
                // Lists do not show curves, which are most of a report.
                if let Some(advice) = &mut report.advice.full {
                    advice.curve.clear();
                }
                let kind = SummaryKind { hours, strategy: name.to_owned() };
                let row = SummaryRow { cost_change: change, ..list::row(&report, request.now_us) };
                summaries.push(Summary { kind, row, report: json(&report)? });
                tokio::task::yield_now().await;
            }
        }
        Ok(summaries)
    }

    fn request<'a>(&'a self, tenant: &'a Tenant, hours: u64) -> Request<'a> {
        let now_us = self.clock.now_us();
        Request {
            store: self.store.as_ref(),
            tenant,
            window: last_hours(now_us, hours),
            prices: &self.prices,
            strategy: query::strategy(None, None).unwrap_or_default(),
            now_us,
            enforcements: Some(&self.enforcements),
            fleet_sums: Some(&self.fleet_sums),
            tags: None,
            computes_all: false,
        }
    }
}

/// The environments that sent a batch at `from_us` or later.
pub(super) fn since(environments: &Environments, from_us: u64) -> Environments {
    let live = environments.live.iter().filter(|state| state.received_at_us >= from_us).cloned().collect();
    let ended = environments.ended.iter().filter(|ended| ended.received_at_us >= from_us).cloned().collect();
    Environments { live, ended }
}

/// Adds what the fleet's bill and the fleet's places are read from.
fn add_sums(
    hours: u64,
    request: &Request<'_>,
    (key, material, rollups): (&FunctionKey, &Material, &[StoredRollup]),
    summaries: &mut Vec<Summary>,
) -> Result<(), StoreError> {
    let row = summaries.first().map(|summary| summary.row.clone());
    let Some(row) = row else { return Ok(()) };
    // Also without measurements in the window: a function without stored sums is computed when it is read.
    let bill = json(&BillMaterial::of(material))?;
    summaries.push(Summary { kind: bill_kind(hours), row: row.clone(), report: bill });
    let stored: Vec<&StoredRollup> = rollups.iter().filter(|one| belongs(one, request.window)).collect();
    let place = placement::of(request, key, material, &stored).as_ref().map(PlaceSum::of);
    summaries.push(Summary { kind: place_kind(hours), row, report: json(&place)? });
    Ok(())
}

fn json(report: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(report).map_err(|error| StoreError::Engine(format!("cannot write a report: {error}")))
}

/// Whether a rollup is in a window. As in the store, a day belongs to the window when its last hour does.
fn belongs(stored: &StoredRollup, window: Window) -> bool {
    stored.from_hour.saturating_add(stored.hours) > window.from_hour && stored.from_hour < window.until_hour
}

/// The series of one function in a window, from its rollups.
pub(super) fn merged(rollups: &[StoredRollup], window: Window) -> Vec<Series> {
    let mut merged: BTreeMap<&SeriesKey, Rollup> = BTreeMap::new();
    for stored in rollups.iter().filter(|stored| belongs(stored, window)) {
        merged.entry(&stored.key).or_default().merge(&stored.rollup);
    }
    merged.into_iter().map(|(key, rollup)| Series { key: key.clone(), rollup }).collect()
}
