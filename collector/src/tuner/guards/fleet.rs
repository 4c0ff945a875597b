//! Limits over all functions.

use super::{Facts, Proposal, Refusal, refuse};

pub(super) fn frozen(facts: &Facts<'_>) -> Result<(), Refusal> {
    match &facts.fleet.frozen {
        Some(reason) => Err(refuse("frozen", format!("the tuner is frozen: {reason}"))),
        None => Ok(()),
    }
}

pub(super) fn blast_radius(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let (fleet, limits) = (facts.fleet, facts.limits);
    if fleet.open >= limits.max_open_changes {
        return Err(refuse("open-changes", format!("{} changes are open", fleet.open)));
    }
    if proposal.for_memory || fleet.open == 0 || fleet.spend_usd <= 0.0 {
        return Ok(());
    }
    let share = fleet.open_spend + facts.evidence.cost_usd / fleet.spend_usd;
    if share > limits.max_open_spend {
        let reason = format!("open changes would concern {:.1} % of the fleet's cost", 100.0 * share);
        return Err(refuse("open-spend", reason));
    }
    Ok(())
}

pub(super) fn rollbacks(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let count = facts.fleet.rollbacks;
    if proposal.for_memory || count < facts.limits.max_rollbacks {
        return Ok(());
    }
    Err(refuse("rollbacks", format!("{count} changes of the fleet were rolled back in 24 hours")))
}
