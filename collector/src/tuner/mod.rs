//! The tuner: changes memory sizes of functions. It needs two permissions: `--tuner apply` and the function's tag.
//!
//! Before each write, the intent is stored on disk, so that an interrupted change is resumed after a crash.
//! Each write names the revision on which it was decided, so that a change by someone else is never
//! overwritten. After a change, the measurements are compared with the prediction, and the change is rolled
//! back if the function got worse. The tuner does not support aliases or published versions and does not
//! change functions that use them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Megabytes;

use crate::clock::Clock;
use crate::store::{Lease, Store, StoreError, Tenant};

pub mod aws;
pub mod policy;
mod round;

use aws::Lambda;

/// Time between two attempts to take over from another collector.
const TAKEOVER_INTERVAL: Duration = Duration::from_secs(5);

/// Settings of the tuner. The defaults are those of the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant whose functions are tuned: the credentials are for one account, so only one tenant may change it.
    pub tenant: Tenant,
    /// Time between two rounds.
    pub interval: Duration,
    /// Minimum number of warm invocations measured at the current size before a change.
    pub min_evidence_invocations: u64,
    /// Minimum number of warm invocations measured at the new size before it is compared.
    pub min_comparison_invocations: u64,
    /// Largest memory size that the tuner may set.
    pub ceiling: Megabytes,
    /// Minimum time between two changes of one function.
    pub cooldown: Duration,
    /// Maximum number of open changes over all functions.
    pub max_open_changes: usize,
    /// Length of the window of measurements, hours.
    pub hours: u64,
    /// The optimization goal.
    pub strategy: Strategy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: Tenant::default(),
            interval: Duration::from_secs(300),
            min_evidence_invocations: 500,
            min_comparison_invocations: 200,
            ceiling: Megabytes(3_008),
            cooldown: Duration::from_secs(24 * 3_600),
            max_open_changes: 3,
            hours: 7 * 24,
            strategy: Strategy::default(),
        }
    }
}

/// Checks all functions at intervals and changes memory sizes where that is permitted and recommended.
pub struct Tuner {
    store: Arc<dyn Store>,
    lambda: Arc<dyn Lambda>,
    prices: PriceTable,
    settings: Settings,
    clock: Clock,
}

impl Tuner {
    /// A tuner that reads from `store` and calls `lambda`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        lambda: Arc<dyn Lambda>,
        prices: PriceTable,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        Self { store, lambda, prices, settings, clock }
    }

    /// Runs rounds until `shutdown` resolves. A round that has started is finished first.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let is_mine = self.store.hold(Lease::Tuner).await;
            let result = match &is_mine {
                Ok(true) => self.round().await,
                // Another collector tunes.
                Ok(false) => Ok(()),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the tuner cannot read the store; trying again in the next round");
            }
            let pause = match is_mine {
                Ok(false) => self.settings.interval.min(TAKEOVER_INTERVAL),
                _ => self.settings.interval,
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round: resumes open changes, then starts new ones.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn round(&self) -> Result<(), StoreError> {
        round::round(self).await
    }
}
