//! The order in which functions are changed.
//!
//! Functions that run out of memory are first, then those that need more memory, then the largest predicted saving. The saving of
//! a function that waits for changes of other functions counts double after each week, so that every function gets its turn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tailor_sizing::advice::Verdict;
use tailor_sizing::pricing::money::PicoDollars;

use super::candidates::Candidate;
use super::guards;
use super::plan::PlannedFunction;
use crate::clock::DAY_US;
use crate::store::FunctionKey;

/// Time in which the priority of a function that waits doubles, microseconds.
const DOUBLING_US: u64 = 7 * DAY_US;

/// The saving in a month that a change without a saving counts as, dollars.
const LEAST_USD_MONTH: f64 = 0.01;

/// Since when functions wait for changes of others, microseconds since the Unix epoch. It is not stored: after a start of the
/// collector, the time of all functions begins again.
#[derive(Default)]
pub(super) struct Queue(Mutex<HashMap<FunctionKey, u64>>);

impl Queue {
    /// Sorts functions: the next one to change is the first.
    pub(super) fn sort(&self, candidates: &mut [Candidate], now_us: u64) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |candidate: &Candidate| {
            let advice = candidate.evaluation.advice.as_ref();
            let for_memory = advice.is_ok_and(|advice| advice.verdict == Verdict::RaiseForMemory);
            let saving = advice.map_or(PicoDollars::ZERO, |advice| advice.saving.per_million);
            let saving_usd_month = candidate.evidence.monthly_usd(saving).unwrap_or(0.0);
            let since_us = waiting.get(&candidate.evaluation.key).copied().unwrap_or(now_us);
            let priority = priority(saving_usd_month, now_us.saturating_sub(since_us));
            (candidate.evidence.out_of_memory, for_memory, priority)
        };
        candidates.sort_by(|a, b| {
            let (a, b) = (place(a), place(b));
            (b.0, b.1).cmp(&(a.0, a.1)).then(b.2.total_cmp(&a.2))
        });
    }

    /// Sets which functions wait for others, by the decisions of a round.
    pub(super) fn set_waiting(&self, decisions: &[PlannedFunction], now_us: u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let codes = |planned: &&PlannedFunction| {
            guards::waits_for_others(planned.refusals.iter().map(|(code, _)| code.as_str()))
        };
        let entry = |planned: &PlannedFunction| {
            let since_us = waiting.get(&planned.function).copied().unwrap_or(now_us);
            (planned.function.clone(), since_us)
        };
        let current: HashMap<FunctionKey, u64> = decisions.iter().filter(codes).map(entry).collect();
        *waiting = current;
    }
}

/// The priority of a saving after a time of waiting, microseconds: a saving in dollars a month.
fn priority(saving_usd_month: f64, waited_us: u64) -> f64 {
    saving_usd_month.max(LEAST_USD_MONTH) * (waited_us as f64 / DOUBLING_US as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(name: &str, codes: &[&str]) -> PlannedFunction {
        let function = FunctionKey {
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            name: name.to_owned(),
        };
        let refusals = codes.iter().map(|code| ((*code).to_owned(), String::new())).collect();
        PlannedFunction { function, intent: None, refusals }
    }

    #[test]
    fn a_small_saving_gets_its_turn() {
        let queue = Queue::default();
        let since = || {
            let waiting = queue.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut since: Vec<(String, u64)> =
                waiting.iter().map(|(key, since_us)| (key.name.clone(), *since_us)).collect();
            since.sort_unstable();
            since
        };
        let waits = |name: &str| decision(name, &["open-changes"]);
        let others = [decision("other-reason", &["open-spend", "cool-down"]), decision("changed", &[])];
        queue.set_waiting(
            &[vec![waits("small"), decision("large", &["open-spend"])], others.to_vec()].concat(),
            5,
        );
        assert_eq!(since(), [("large".to_owned(), 5), ("small".to_owned(), 5)]);
        queue.set_waiting(&[waits("small"), waits("changed")], 9);
        assert_eq!(since(), [("changed".to_owned(), 9), ("small".to_owned(), 5)]);
        // After ten weeks, it is before a saving that is 1,000 times as large.
        assert!(priority(1.0, 10 * DOUBLING_US) > priority(1_000.0, 0));
        assert!(priority(1.0, 9 * DOUBLING_US) < priority(1_000.0, 0));
        assert!(priority(-3.0, DOUBLING_US) > priority(-3.0, 0), "also a change without a saving");
    }
}
