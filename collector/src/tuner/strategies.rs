//! The optimization goals of single functions, from their tags and the policy file.
//!
//! A function with a goal of its own may need a change that the goal of the collector does not advise. Its tags are known
//! after it was read from Lambda, so a few functions that were not read for a day are read in each round.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tailor_sizing::advice::strategy::Strategy;

use super::Tuner;
use super::limits::DAY_US;
use super::round::permission;
use crate::report::Evaluation;
use crate::store::{FunctionKey, StoreError};

/// Functions that are read in one round for their goal only.
const READS_PER_ROUND: usize = 10;

/// What is known of the goals of functions, with the time of the read, microseconds since the Unix epoch.
#[derive(Default)]
pub(super) struct Strategies(Mutex<HashMap<FunctionKey, (u64, Strategy)>>);

impl Strategies {
    /// Keeps the goal of a function that was read.
    pub(super) fn keep(&self, function: &FunctionKey, strategy: Strategy, now_us: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(function.clone(), (now_us, strategy));
    }

    fn get(&self, function: &FunctionKey, now_us: u64) -> Option<Strategy> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at_us, strategy) = known.get(function)?;
        (now_us.saturating_sub(*at_us) < DAY_US).then_some(*strategy)
    }
}

/// The evaluations of the functions for which only their own goal can advise a change. `reads` counts the reads of this
/// round.
pub(super) async fn by_own_goal(
    tuner: &Tuner,
    evaluation: &Evaluation,
    reads: &mut usize,
) -> Result<Option<Evaluation>, StoreError> {
    let (key, now_us) = (&evaluation.key, tuner.clock.now_us());
    let strategy = match tuner.strategies.get(key, now_us) {
        Some(strategy) => strategy,
        None if *reads < READS_PER_ROUND => {
            *reads += 1;
            let strategy = match tuner.lambda.read(key).await {
                Ok(live) => {
                    tuner.keep_tags(key, &live);
                    permission(tuner, key, &live).strategy
                }
                // A deleted function, or one of another account: it is read again after a day.
                Err(_) => tuner.settings.strategy,
            };
            tuner.strategies.keep(key, strategy, now_us);
            strategy
        }
        None => return Ok(None),
    };
    if strategy == tuner.settings.strategy {
        return Ok(None);
    }
    Ok(tuner.telemetry.evaluations(Some(key), strategy).await?.into_iter().next())
}
