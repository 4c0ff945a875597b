//! Whether a smaller size is fast enough.

use tailor_sizing::advice::Advice;
use tailor_sizing::units::Megabytes;

use super::bounds::prediction_at;
use super::{Facts, Proposal, Refusal, refuse};
use crate::changes::{Change, State};
use crate::clock::DAY_US;

/// Distance of the sizes of which the smallest fast one is chosen, MB.
const SIZE_STEP_MB: usize = 16;

/// The smallest size from `lowest` on at which the 95th percentile is permitted. It is `lowest` when no size is fast enough that
/// is smaller than the present one by the smallest change; [`duration_within_limits`] refuses the reduction then.
pub(super) fn smallest_within_p95_limit(facts: &Facts<'_>, advice: &Advice, lowest: Megabytes) -> Megabytes {
    let from = facts.evaluation.memory;
    let Some(now) = prediction_at(advice, from) else { return lowest };
    let limit_ms = p95_limit_ms(facts, now.p95.mean_ms);
    let highest = f64::from(from.0) * (1.0 - facts.limits.min_size_change);
    let sizes = (lowest.0..from.0).step_by(SIZE_STEP_MB).take_while(|size| f64::from(*size) <= highest);
    let is_fast =
        |size: &Megabytes| prediction_at(advice, *size).is_some_and(|point| point.p95.mean_ms <= limit_ms);
    sizes.map(Megabytes).find(is_fast).unwrap_or(lowest)
}

/// The highest permitted 95th percentile of duration at a smaller size, ms, when `now_ms` is predicted for the present size.
/// Without a target, all reductions of the last months together may increase it as much as one of them may.
pub(super) fn p95_limit_ms(facts: &Facts<'_>, now_ms: f64) -> f64 {
    if let Some(target_ms) = facts.permission.p95_slo_ms {
        return target_ms;
    }
    let most = 1.0 + facts.limits.max_p95_increase;
    let measured_us = facts.evaluation.present.warm_duration_us.quantile(0.95).unwrap_or(0.0);
    match p95_before_reductions_ms(facts) {
        Some(before_ms) if measured_us > 0.0 => {
            now_ms * (most * before_ms * 1_000.0 / measured_us).min(most).max(1.0)
        }
        _ => now_ms * most,
    }
}

/// The measured 95th percentile before the first reduction that was kept in the last months, ms.
fn p95_before_reductions_ms(facts: &Facts<'_>) -> Option<f64> {
    let since_us = facts.now_us.saturating_sub(facts.limits.p95_increase_us);
    // A deployment may end the observation of a reduction and keep its size.
    let is_kept = |change: &Change| match change.state {
        State::Settled => true,
        State::ExternalChange => change.promoted,
        _ => false,
    };
    let mut kept = facts.history.iter().filter(|change| change.to < change.from && is_kept(change));
    let first = kept.find(|change| change.planned_at_us >= since_us)?;
    Some(first.intent.before.p95_ms).filter(|ms| *ms > 0.0)
}

pub(super) fn duration_within_limits(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let limits = facts.limits;
    let timeout_ms = facts.live.timeout_ms as f64;
    if timeout_ms > 0.0
        && proposal.p99_ms > limits.max_timeout_share * timeout_ms
        && proposal.to < proposal.from
    {
        let reason = format!(
            "the 99th percentile would be {:.0} ms, more than {:.0} % of the timeout of {timeout_ms:.0} ms",
            proposal.p99_ms,
            100.0 * limits.max_timeout_share
        );
        return Err(refuse("near-timeout", reason));
    }
    if proposal.for_memory || proposal.to > proposal.from {
        return Ok(());
    }
    let [now_ms, then_ms] = proposal.p95_ms;
    let limit_ms = p95_limit_ms(facts, now_ms);
    if then_ms <= limit_ms {
        return Ok(());
    }
    let mut reason = format!("the 95th percentile would be {then_ms:.1} ms, the limit is {limit_ms:.1} ms");
    if facts.permission.p95_slo_ms.is_none() && p95_before_reductions_ms(facts).is_some() {
        let days = limits.p95_increase_us / DAY_US;
        reason.push_str(&format!(" after the reductions of the last {days} days"));
    }
    Err(refuse("slower", reason))
}
