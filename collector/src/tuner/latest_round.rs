//! What the latest round decided for each function: for pages.

use std::sync::{Arc, Mutex, PoisonError};

use super::mode::Mode;
use super::plan::PlannedFunction;

/// The decisions of one round.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoundResult {
    /// When the round ended, microseconds since the Unix epoch; zero before the first one.
    pub at_us: u64,
    /// The mode of the collector.
    pub mode: Mode,
    /// Why the tuner is frozen, if it is.
    pub frozen: Option<String>,
    /// The functions for which a change is advised, in the order of the queue.
    pub functions: Vec<PlannedFunction>,
}

/// The latest_round that the tuner replaces after each round.
#[derive(Debug, Default)]
pub struct LatestRound(Mutex<Arc<RoundResult>>);

impl LatestRound {
    /// The present one.
    #[must_use]
    pub fn get(&self) -> Arc<RoundResult> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the present one.
    pub fn set(&self, latest_round: RoundResult) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(latest_round);
    }
}
