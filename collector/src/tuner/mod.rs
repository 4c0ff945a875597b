//! The tuner: changes memory sizes of functions. It needs two permissions: `--tuner apply` and the function's tag.
//!
//! - [`guards`] decide whether a function is changed, [`machine`] decides the next step of a change, and [`canary`] judges
//!   measurements. They do no I/O and have no clock.
//! - `round` reads, decides, logs and writes, in this order.
//!
//! Before each write, the intent is stored on disk, so that an interrupted change is resumed after a crash. Each write
//! names the revision on which it was decided, so that a change outside the tuner is never overwritten. A function that is
//! invoked through an alias gets a new version for a growing part of its invocations; a function that is invoked as
//! `$LATEST` is changed at once and then observed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;

use crate::changes::refusal_counts::RefusalCounts;
use crate::clock::Clock;
use crate::store::{Store, StoreError, Tenant};
use crate::tags::CurrentTags;

pub mod aws;
pub mod canary;
mod candidates;
pub mod dates;
mod execute;
mod executed;
mod fleet_state;
pub mod guards;
mod known;
pub mod lambda;
pub mod latest_round;
pub mod limits;
pub mod machine;
pub mod mode;
pub mod permission;
pub mod plan;
pub mod policy_file;
mod queue;
mod refusals;
pub mod requests;
mod resume;
mod round;
mod served;
pub mod telemetry;
pub mod unfinished;

use guards::Refusal;
use lambda::Lambda;
use latest_round::{LatestRound, RoundResult};
use limits::Limits;
use machine::Omitted;
use mode::Mode;
use policy_file::FilePolicy;
use requests::{RequestStore, TunerRequest};
use telemetry::{StoreTelemetry, Telemetry};

/// Time between two attempts to take over from another collector.
const TAKEOVER_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time between two rounds, if the interval is not shorter, and time between two searches for requests.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Settings of the tuner. The defaults are those of the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant whose functions are tuned: the credentials are for its accounts only.
    pub tenant: Tenant,
    /// How far the tuner may go.
    pub mode: Mode,
    /// The policy file.
    pub policy: FilePolicy,
    /// Time between two rounds.
    pub interval: Duration,
    /// Time between two reads of a function that is being updated.
    pub poll: Duration,
    /// The limits of the guard-rails.
    pub limits: Limits,
    /// Length of the window of measurements, hours.
    pub hours: u64,
    /// The optimization goal.
    pub strategy: Strategy,
    /// Where requests of people are; none when absent.
    pub requests: Option<RequestStore>,
    /// A check that is left out, for tests that must find it.
    #[doc(hidden)]
    pub omitted: Omitted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: Tenant::default(),
            mode: Mode::Apply,
            policy: FilePolicy::default(),
            interval: Duration::from_secs(300),
            poll: Duration::from_millis(500),
            limits: Limits::default(),
            hours: 15 * 24,
            strategy: Strategy::default(),
            requests: None,
            omitted: Omitted::None,
        }
    }
}

/// Checks all functions at intervals and changes memory sizes where that is permitted and recommended.
pub struct Tuner {
    telemetry: Arc<dyn Telemetry>,
    lambda: Arc<dyn Lambda>,
    settings: Settings,
    clock: Clock,
    /// Where the tags that AWS returns are kept.
    tags: Option<Arc<CurrentTags>>,
    /// Where refusals are counted.
    refusals: Arc<RefusalCounts>,
    /// What the latest round decided.
    latest_round: Arc<LatestRound>,
    /// What is known of functions that were read.
    known: known::Known,
    /// The functions that wait for others.
    queue: queue::Queue,
    /// The requests that were executed and could not be removed.
    executed: executed::Executed,
}

impl Tuner {
    /// Keeps the tags that AWS returns, for filters and groups of lists.
    #[must_use]
    pub fn with_tags(mut self, tags: Arc<CurrentTags>) -> Self {
        self.tags = Some(tags);
        self
    }

    /// Counts refusals in `refusals`, for metrics.
    #[must_use]
    pub fn with_refusals(mut self, refusals: Arc<RefusalCounts>) -> Self {
        self.refusals = refusals;
        self
    }

    /// Counts what the guard-rails refused.
    fn count_refusals(&self, refusals: &[Refusal]) {
        for refusal in refusals {
            self.refusals.count(&self.settings.tenant, refusal.code);
        }
    }

    /// Shows the decisions of each round also to `latest_round`.
    #[must_use]
    pub fn with_latest_round(mut self, latest_round: Arc<LatestRound>) -> Self {
        self.latest_round = latest_round;
        self
    }

    /// What the latest round decided for each function whose advice is to change.
    #[must_use]
    pub fn latest_round(&self) -> Arc<RoundResult> {
        self.latest_round.get()
    }

    /// Keeps the tags of a function.
    fn keep_tags(&self, function: &crate::store::FunctionKey, live: &lambda::Live) {
        if let Some(tags) = &self.tags {
            let known = live.tags.iter().map(|(key, value)| (key.clone(), value.clone()));
            tags.set_aws(&self.settings.tenant, function, known.collect());
        }
    }

    /// A tuner that reads from `store` and calls `lambda`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        lambda: Arc<dyn Lambda>,
        prices: PriceTable,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        let telemetry = StoreTelemetry {
            store,
            prices,
            tenant: settings.tenant.clone(),
            hours: settings.hours,
            clock: clock.clone(),
        };
        Self::with_telemetry(Arc::new(telemetry), lambda, settings, clock)
    }

    /// A tuner with other measurements than those of a store.
    #[must_use]
    pub fn with_telemetry(
        telemetry: Arc<dyn Telemetry>,
        lambda: Arc<dyn Lambda>,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        Self {
            telemetry,
            lambda,
            settings,
            clock,
            tags: None,
            refusals: Arc::default(),
            latest_round: Arc::default(),
            known: known::Known::default(),
            queue: queue::Queue::default(),
            executed: executed::Executed::default(),
        }
    }

    /// Runs rounds until `shutdown` resolves. A round that has started is finished first.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let is_mine = self.telemetry.may_run().await;
            let round = match &is_mine {
                Ok(true) => self.round().await,
                // Another collector tunes.
                Ok(false) => Ok(()),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = round {
                tracing::warn!(%error, "the tuner cannot read the store; trying again in the next round");
            }
            let pause = match is_mine {
                Ok(false) => self.settings.interval.min(TAKEOVER_INTERVAL),
                _ => self.settings.interval,
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = self.pause(pause) => {}
            }
        }
    }

    /// Waits for the next round, or for a request of a person. Also a request that stays does not end the pause at once.
    async fn pause(&self, pause: Duration) {
        let end = tokio::time::Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            tokio::time::sleep(left.min(MIN_PAUSE)).await;
            if tokio::time::Instant::now() >= end || !self.pending_requests().await.is_empty() {
                return;
            }
        }
    }

    /// The requests of people that were not executed yet, with their names, oldest first.
    async fn pending_requests(&self) -> Vec<(String, TunerRequest)> {
        match &self.settings.requests {
            Some(requests) => self.executed.new_ones(requests.pending().await),
            None => Vec::new(),
        }
    }

    /// One round: resumes open changes, then starts new ones.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn round(&self) -> Result<(), StoreError> {
        round::round(self).await
    }

    /// What a round would change now, and why the rest stays: the same decisions without a write.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn plan(&self) -> Result<plan::Plan, StoreError> {
        round::plan(self).await
    }
}
