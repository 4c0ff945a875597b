//! The sums over a large fleet, kept in memory: one cell for each account, region, runtime and instruction set.
//!
//! They are added up from the sums that are stored with each function's summaries, in the background and with pauses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tailor_sizing::units::Architecture;

use super::sums::{DAILY_DAYS, DAY_HOURS, Spans, Timeline};
use super::{CHUNK, Request};
use crate::clock::Clock;
use crate::store::{FunctionKey, Store, StoreError, SummaryKind, SummaryRow, Tenant};

/// Maximum number of cells of a tenant. Functions beyond it are added up by region and instruction set only.
const MAX_CELLS: usize = 256;

/// How long sums are used before the background task adds them up again, microseconds.
const REFRESH_US: u64 = 300_000_000;

/// Age at which a request adds them up itself, microseconds: no background task runs here.
const MAX_AGE_US: u64 = 3 * REFRESH_US;

/// Pause after a step in the background, as a multiple of its duration.
const PAUSE_FACTOR: u32 = 3;

/// The kind of summary whose report is the sums of a function per hour and day.
pub(in crate::report) fn timeline_kind() -> SummaryKind {
    SummaryKind { hours: DAILY_DAYS * DAY_HOURS, strategy: "time-series".to_owned() }
}

/// What the functions of a cell have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) runtime: String,
    pub(super) architecture: Architecture,
}

/// The sums over the functions of a tenant.
#[derive(Debug, Default)]
pub struct FleetSums {
    computed_at_us: u64,
    oldest_at_us: u64,
    cells: BTreeMap<Cell, Spans>,
    is_complete: bool,
}

impl FleetSums {
    /// Adds up what is stored. In the background it pauses after each step.
    async fn read(
        store: &dyn Store,
        tenant: &Tenant,
        now_us: u64,
        in_background: bool,
    ) -> Result<Self, StoreError> {
        let kind = timeline_kind();
        let rows = store.summaries(tenant, &kind).await?;
        let oldest_at_us = rows.iter().map(|row| row.computed_at_us).min().unwrap_or(now_us);
        let mut sums =
            Self { computed_at_us: now_us, oldest_at_us, cells: BTreeMap::new(), is_complete: true };
        for rows in rows.chunks(CHUNK) {
            let start = Instant::now();
            let keys: Vec<FunctionKey> = rows.iter().map(|row| row.function.clone()).collect();
            let stored = store.summary_reports(tenant, &keys, &kind).await?;
            for (row, bytes) in rows.iter().zip(stored) {
                if let Some(timeline) = bytes.as_deref().and_then(Timeline::decode) {
                    sums.add(row, &timeline);
                }
            }
            if in_background {
                tokio::time::sleep(start.elapsed() * PAUSE_FACTOR).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        Ok(sums)
    }

    fn add(&mut self, row: &SummaryRow, timeline: &Timeline) {
        let FunctionKey { account, region, .. } = &row.function;
        for (architecture, spans) in &timeline.0 {
            let mut cell = Cell {
                account: account.clone(),
                region: region.clone(),
                runtime: row.runtime.clone(),
                architecture: *architecture,
            };
            if self.cells.len() >= MAX_CELLS && !self.cells.contains_key(&cell) {
                (cell.account, cell.runtime) = (String::new(), String::new());
                self.is_complete = false;
            }
            self.cells.entry(cell).or_default().merge(spans);
        }
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = (&Cell, &Spans)> {
        self.cells.iter()
    }

    /// Whether each function is in the cell of its account and runtime.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// When the oldest sums of a function were computed, microseconds since the Unix epoch.
    pub(super) const fn oldest_at_us(&self) -> u64 {
        self.oldest_at_us
    }
}

/// The sums of the fleets of a running collector.
#[derive(Debug, Default)]
pub struct FleetSumsCache(Mutex<BTreeMap<Tenant, Arc<FleetSums>>>);

impl FleetSumsCache {
    fn get(&self, tenant: &Tenant) -> Option<Arc<FleetSums>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    fn put(&self, tenant: &Tenant, sums: FleetSums) -> Arc<FleetSums> {
        let sums = Arc::new(sums);
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(tenant.clone(), Arc::clone(&sums));
        sums
    }

    /// Adds up again what was requested before and is some minutes old. The background task calls it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn refresh(&self, store: &dyn Store, clock: &Clock) -> Result<(), StoreError> {
        let known: Vec<(Tenant, u64)> = {
            let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            cache.iter().map(|(tenant, sums)| (tenant.clone(), sums.computed_at_us)).collect()
        };
        for (tenant, computed_at_us) in known {
            let now_us = clock.now_us();
            if now_us.saturating_sub(computed_at_us) >= REFRESH_US {
                self.put(&tenant, FleetSums::read(store, &tenant, now_us, true).await?);
            }
        }
        Ok(())
    }
}

impl Request<'_> {
    /// The sums over the whole fleet: those in memory, or else added up now.
    pub(super) async fn fleet_sums(&self) -> Result<Arc<FleetSums>, StoreError> {
        let known = self.fleet_sums.and_then(|cache| cache.get(self.tenant));
        let is_fresh = |sums: &Arc<FleetSums>| self.now_us.saturating_sub(sums.computed_at_us) < MAX_AGE_US;
        if let Some(sums) = known.filter(is_fresh) {
            return Ok(sums);
        }
        let sums = FleetSums::read(self.store, self.tenant, self.now_us, false).await?;
        Ok(match self.fleet_sums {
            Some(cache) => cache.put(self.tenant, sums),
            None => Arc::new(sums),
        })
    }
}
