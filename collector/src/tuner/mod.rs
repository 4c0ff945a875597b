//! Moves functions to better sizes, where it is told to twice: by `--tuner apply` and by the function's tag.
//!
//! Every write follows a durable intent and names the revision it was decided on, so that a crash at any
//! point resumes and a change by somebody else is never overwritten. What a change did is compared with
//! its prediction, and it is taken back when the function got worse. Canaries, aliases, step limits and
//! windows are not here yet; what they are needed for is refused.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Megabytes;

use crate::clock::Clock;
use crate::store::{Store, StoreError, Tenant};

pub mod aws;
pub mod policy;
mod round;

use aws::Lambda;

/// How the tuner behaves. The defaults are those of the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose functions: the credentials are for one account, so one tenant may move things in it.
    pub tenant: Tenant,
    /// Time between two rounds.
    pub interval: Duration,
    /// Warm invocations that must have been measured at the present size.
    pub least_evidence: u64,
    /// Warm invocations at the new size before it is judged.
    pub least_comparison: u64,
    /// Largest size it may choose.
    pub ceiling: Megabytes,
    /// Time between two changes of one function.
    pub cooldown: Duration,
    /// Changes open at once over all functions.
    pub most_open: usize,
    /// Hours of measurements that count.
    pub hours: u64,
    /// What a size should be good for.
    pub strategy: Strategy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: Tenant::default(),
            interval: Duration::from_secs(300),
            least_evidence: 500,
            least_comparison: 200,
            ceiling: Megabytes(3_008),
            cooldown: Duration::from_secs(24 * 3_600),
            most_open: 3,
            hours: 7 * 24,
            strategy: Strategy::default(),
        }
    }
}

/// Looks at every function now and then and moves those that may be moved.
pub struct Tuner {
    store: Arc<dyn Store>,
    lambda: Arc<dyn Lambda>,
    prices: PriceTable,
    settings: Settings,
    clock: Clock,
}

impl Tuner {
    /// A tuner over a store and an account.
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

    /// Goes round until `shutdown` resolves; a round that was begun is finished first.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "the tuner could not read its store; trying again next round");
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(self.settings.interval) => {}
            }
        }
    }

    /// One look at every function: open changes are carried on, then new ones begun.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read; nothing was written to Lambda then.
    pub async fn round(&self) -> Result<(), StoreError> {
        round::round(self).await
    }
}
