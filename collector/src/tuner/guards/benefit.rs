//! Whether a change is worth its risk: the dead band in size, money and probability.

use tailor_sizing::advice::ConfidenceLevel;
use tailor_sizing::advice::strategy::Strategy;

use super::{Facts, Proposal, Refusal, refuse, sizes};

/// Standard deviations from the mean to the ends of an 80 % interval.
const Z_80: f64 = 1.281_55;

/// Standard deviations below the mean with 95 % of the probability above.
const Z_95: f64 = 1.644_85;

pub(super) fn outside_dead_band(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    if proposal.for_memory {
        return Ok(());
    }
    let limits = facts.limits;
    let (from, to) = (f64::from(proposal.from.0), f64::from(proposal.to.0));
    if (to - from).abs() / from < limits.min_size_change {
        let reason = format!(
            "{} is a change of less than {:.0} %",
            sizes(proposal.from, proposal.to),
            100.0 * limits.min_size_change
        );
        return Err(refuse("small-step", reason));
    }
    let Ok(advice) = &facts.evaluation.advice else {
        return Err(refuse("no-advice", "there is no advice for it"));
    };
    let is_faster = proposal.duration_change_percent <= -100.0 * limits.min_duration_change;
    let saves = proposal.saving_per_million.0 > 0;
    // A strategy with a weight of speed may pay for it; the strategy has weighed both.
    if is_faster && !matches!(facts.permission.strategy, Strategy::Cost { .. }) {
        return match advice.confidence.level {
            ConfidenceLevel::Low => Err(refuse("unsure-saving", "the prediction has a low confidence")),
            _ => Ok(()),
        };
    }
    let dollars = |at: usize| advice.saving.per_million_interval_80[at].to_dollars();
    let mean = advice.saving.per_million.to_dollars();
    let deviation = (mean - dollars(0)).max(dollars(1) - mean) / Z_80;
    if !saves || mean - Z_95 * deviation <= 0.0 {
        let reason = format!(
            "{} saves with a probability of less than 95 %: a million invocations at {} save ${mean:.3}, the 80 % interval is \
             ${:.3} to ${:.3}",
            sizes(proposal.from, proposal.to),
            advice.memory,
            dollars(0),
            dollars(1)
        );
        return Err(refuse("unsure-saving", reason));
    }
    saving_above_threshold(proposal, limits.min_saving_usd_month, limits.min_saving_of_one_change)
}

/// Whether the changes to the last size save enough together, and this one its part of it. A single change must save all of it.
fn saving_above_threshold(proposal: &Proposal, least_usd: f64, part: f64) -> Result<(), Refusal> {
    if least_usd <= 0.0 {
        return Ok(());
    }
    let all_usd = proposal.saving_at_end_usd_month.unwrap_or(0.0);
    if all_usd < least_usd {
        let reason = format!("it saves ${all_usd:.2} a month, at least ${least_usd:.2} are needed");
        return Err(refuse("small-saving", reason));
    }
    let (one_usd, least_usd) = (proposal.saving_usd_month.unwrap_or(0.0), least_usd * part);
    if one_usd < least_usd {
        let reason = format!(
            "{} saves ${one_usd:.2} a month, at least ${least_usd:.2} are needed for one of several changes",
            sizes(proposal.from, proposal.to)
        );
        return Err(refuse("small-saving", reason));
    }
    Ok(())
}
