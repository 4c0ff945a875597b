//! What the tags of single functions and the policy file set, as last read from Lambda.
//!
//! A function with a goal of its own may need a change that the goal of the collector does not advise, and the number of
//! changes that may be open depends on the number of tuned functions. The tags of a function are known after it was read, so
//! a few functions that were not read for a day are read in each round.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tailor_sizing::advice::strategy::Strategy;

use super::Tuner;
use super::permission::Permission;
use super::round::permission;
use crate::clock::DAY_US;
use crate::report::Evaluation;
use crate::store::{FunctionKey, StoreError};

/// Functions that are read in one round for their tags only.
const READS_PER_ROUND: usize = 10;

/// Time after which a function that was not read again is forgotten, microseconds. In this time, 20,000 functions are read at
/// the default interval.
const FORGET_US: u64 = 7 * DAY_US;

/// What is known of one function.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When it was read, microseconds since the Unix epoch.
    at_us: u64,
    /// Its goal.
    strategy: Strategy,
    /// Whether it may be changed.
    is_tuned: bool,
}

/// What is known of all functions that were read.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<FunctionKey, Entry>>);

impl Known {
    /// Sets what is permitted for a function that was read.
    pub(super) fn set_permission(&self, function: &FunctionKey, permission: &Permission, now_us: u64) {
        let Permission { strategy, mode, .. } = permission;
        self.insert(function, Entry { at_us: now_us, strategy: *strategy, is_tuned: mode.may_write() });
    }

    fn insert(&self, function: &FunctionKey, entry: Entry) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(function.clone(), entry);
    }

    fn strategy(&self, function: &FunctionKey, now_us: u64) -> Option<Strategy> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get(function)?;
        (now_us.saturating_sub(entry.at_us) < DAY_US).then_some(entry.strategy)
    }

    /// The number of tuned functions that were read in the last days.
    pub(super) fn tuned(&self, now_us: u64) -> usize {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, entry| now_us.saturating_sub(entry.at_us) < FORGET_US);
        known.values().filter(|entry| entry.is_tuned).count()
    }
}

/// The goal of a function. It is read from Lambda if it was not read for a day, unless `reads` functions were read in this
/// round; then it may be unknown.
pub(super) async fn learn(tuner: &Tuner, key: &FunctionKey, reads: &mut usize) -> Option<Strategy> {
    let now_us = tuner.clock.now_us();
    if let Some(strategy) = tuner.known.strategy(key, now_us) {
        return Some(strategy);
    }
    if *reads >= READS_PER_ROUND {
        return None;
    }
    *reads += 1;
    Some(read(tuner, key, now_us).await)
}

/// Reads the goals of all these functions that were not read for a day.
pub(super) async fn learn_all(tuner: &Tuner, keys: impl Iterator<Item = &FunctionKey>) {
    for key in keys {
        learn(tuner, key, &mut 0).await;
    }
}

async fn read(tuner: &Tuner, key: &FunctionKey, now_us: u64) -> Strategy {
    match tuner.lambda.read(key).await {
        Ok(live) => {
            tuner.keep_tags(key, &live);
            let permission = permission(tuner, key, &live);
            tuner.known.set_permission(key, &permission, now_us);
            permission.strategy
        }
        // A deleted function, or one of another account: it is read again after a day.
        Err(_) => {
            let strategy = tuner.settings.strategy;
            tuner.known.insert(key, Entry { at_us: now_us, strategy, is_tuned: false });
            strategy
        }
    }
}

/// The evaluations of the functions for which only their own goal can advise a change. `reads` counts the reads of this
/// round.
pub(super) async fn by_own_goal(
    tuner: &Tuner,
    evaluation: &Evaluation,
    reads: &mut usize,
) -> Result<Option<Evaluation>, StoreError> {
    let key = &evaluation.key;
    match learn(tuner, key, reads).await {
        Some(strategy) if strategy != tuner.settings.strategy => {
            Ok(tuner.telemetry.evaluations(Some(key), strategy).await?.into_iter().next())
        }
        _ => Ok(None),
    }
}
