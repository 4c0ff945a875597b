//! Computes the stored summaries in the background: functions that changed first, with a limited share of the CPU.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailor_sizing::pricing::prices::PriceTable;

use super::build::report;
use super::evaluation::{Basis, Material};
use super::list::{SUMMARY_HOURS, row};
use super::load::{EnforcementCache, Request, add_changes, changes, enforcement};
use crate::clock::Clock;
use crate::query::{self, last_hours};
use crate::store::{ChangedFunction, Environments, HOUR_US, Store, StoreError, Summary, SummaryKind, Tenant};

/// The strategies for which summaries are kept.
pub(super) const STRATEGIES: [&str; 3] = ["balanced", "cost", "speed"];

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
}

impl Summarizer {
    /// Runs until `shutdown` resolves.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let start = Instant::now();
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

    /// Computes the summaries of some changed functions; returns their number.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read or written.
    pub async fn step(&self) -> Result<usize, StoreError> {
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
        let environments = self.store.environments(tenant, Some(key), longest.window).await?;
        let mut summaries = vec![];
        for hours in SUMMARY_HOURS {
            let request = self.request(tenant, hours);
            let series = self.store.series(tenant, Some(key), request.window).await?;
            let from_us = request.window.from_hour.saturating_mul(HOUR_US);
            let environments = since(&environments, from_us);
            let mut material = Material { series, environments, changes: Vec::new() };
            add_changes(&request, key, &mut material, &changes).await?;
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
                let bytes = serde_json::to_vec(&report)
                    .map_err(|error| StoreError::Engine(format!("cannot write a report: {error}")))?;
                summaries.push(Summary { kind, row: row(&report, request.now_us), report: bytes });
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
        }
    }
}

/// The environments that sent a batch at `from_us` or later.
fn since(environments: &Environments, from_us: u64) -> Environments {
    let live = environments.live.iter().filter(|state| state.received_at_us >= from_us).cloned().collect();
    let ended = environments.ended.iter().filter(|ended| ended.received_at_us >= from_us).cloned().collect();
    Environments { live, ended }
}
