//! What the guard-rails read of all functions.

use tailor_sizing::pricing::money::PicoDollars;

use super::Tuner;
use super::candidates::Candidate;
use super::guards::{self, FleetState, Refusal};
use super::limits::Limits;
use super::round::Log;
use crate::changes::{Cause, Change};
use crate::clock::DAY_US;

/// The state of the fleet when `candidate` is checked.
pub(super) fn fleet_state(log: &Log, candidate: &Candidate, limits: &Limits, now_us: u64) -> FleetState {
    let since_us = now_us.saturating_sub(DAY_US);
    let changes = || log.histories.values().flatten();
    let bad = |change: &&Change| {
        let is_rolled_back = change.state.is_rolled_back() || change.is_not_rolled_back();
        is_rolled_back && change.moved_at_us >= since_us && change.cause == Some(Cause::Worse)
    };
    let spend_usd = candidate.spend_usd;
    let share = |change: &Change| if spend_usd > 0.0 { cost_usd(change) / spend_usd } else { 0.0 };
    let open: Vec<f64> = changes().filter(|change| change.state.is_open()).map(share).collect();
    let (large, others): (Vec<f64>, Vec<f64>) =
        open.iter().partition(|share| **share > limits.max_open_spend);
    FleetState {
        frozen: log.frozen.clone(),
        open: open.len(),
        tuned: log.tuned,
        open_spend: others.iter().sum(),
        is_large_open: !large.is_empty(),
        waiting: log.waiting.clone(),
        spend_usd,
        rollbacks: changes().filter(bad).count(),
    }
}

/// The cost of the function in the window before its change, dollars.
fn cost_usd(change: &Change) -> f64 {
    let before = &change.intent.before;
    before.cost_per_million_pico_usd.map_or(0.0, PicoDollars::to_dollars) / 1e6 * before.invocations as f64
}

/// How many changes are open.
pub(super) fn open_changes(log: &Log) -> usize {
    log.histories.values().flatten().filter(|change| change.state.is_open()).count()
}

/// Why no change of this function may start because of the number of open changes.
pub(super) fn full(tuner: &Tuner, log: &Log, candidate: &Candidate) -> Option<Refusal> {
    let limits = &tuner.settings.limits.open_changes;
    let is_killed = candidate.evidence.out_of_memory > 0;
    guards::open_changes(open_changes(log), log.tuned, limits, is_killed).err()
}
