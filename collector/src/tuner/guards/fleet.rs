//! Limits over all functions.

use super::{Facts, FleetState, Proposal, Refusal, refuse};
use crate::tuner::limits::OpenChanges;

/// The code of refusals for the number of open changes.
const OPEN_CHANGES: &str = "open-changes";

/// The code of refusals for the cost of open changes.
const OPEN_SPEND: &str = "open-spend";

pub(super) fn frozen(facts: &Facts<'_>) -> Result<(), Refusal> {
    match &facts.fleet.frozen {
        Some(reason) => Err(refuse("frozen", format!("the tuner is frozen: {reason}"))),
        None => Ok(()),
    }
}

/// Whether one more change may be open beside `open` others, with this number of tuned functions.
pub(in crate::tuner) fn open_changes(
    open: usize,
    tuned: usize,
    limits: &OpenChanges,
    is_repair: bool,
) -> Result<(), Refusal> {
    let reserve = if is_repair { limits.repairs } else { 0 };
    let most = limits.limit(tuned).saturating_add(reserve);
    if open < most {
        return Ok(());
    }
    Err(refuse(OPEN_CHANGES, format!("{open} changes are open, at most {most} may be open")))
}

/// Whether only limits of the fleet keep a function from its change, by the codes of its refusals.
pub(in crate::tuner) fn waits_for_others<'a>(mut codes: impl ExactSizeIterator<Item = &'a str>) -> bool {
    codes.len() > 0 && codes.all(|code| [OPEN_CHANGES, OPEN_SPEND].contains(&code))
}

pub(super) fn blast_radius(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let (fleet, limits) = (facts.fleet, facts.limits);
    open_changes(fleet.open, fleet.tuned, &limits.open_changes, proposal.after_out_of_memory)?;
    if proposal.for_memory || fleet.open == 0 {
        return Ok(());
    }
    open_spend_within_limit(fleet, share_of_fleet_cost(facts), limits.max_open_spend)
}

/// Whether a function with this share of the fleet's cost may be changed beside the open changes.
fn open_spend_within_limit(fleet: &FleetState, own: f64, limit: f64) -> Result<(), Refusal> {
    // One such function at a time, and beside the others: it would otherwise wait until no change is open, which may be never
    // in a large fleet.
    if own > limit {
        if !fleet.is_large_open {
            return Ok(());
        }
        let reason = format!(
            "another function with more than {:.0} % of the fleet's cost is being changed",
            100.0 * limit
        );
        return Err(refuse(OPEN_SPEND, reason));
    }
    if let Some(other) = &fleet.waiting {
        return Err(refuse(
            OPEN_SPEND,
            format!("`{other}` is before it in the queue and waits for the end of open changes"),
        ));
    }
    let share = fleet.open_spend + own;
    if share > limit {
        let reason = format!("open changes would concern {:.1} % of the fleet's cost", 100.0 * share);
        return Err(refuse(OPEN_SPEND, reason));
    }
    Ok(())
}

/// Whether only the cost of open changes keeps a function from its change. The functions after it in the queue then wait for
/// it, because each new change of them would delay it again.
pub(in crate::tuner) fn waits_for_spend(facts: &Facts<'_>, refusals: &[Refusal]) -> bool {
    // A change that waits for an approval must not delay others.
    let is_next =
        share_of_fleet_cost(facts) <= facts.limits.max_open_spend && !facts.permission.needs_approval;
    is_next && !refusals.is_empty() && refusals.iter().all(|refusal| refusal.code == OPEN_SPEND)
}

/// The share of the function in the fleet's cost.
fn share_of_fleet_cost(facts: &Facts<'_>) -> f64 {
    let spend_usd = facts.fleet.spend_usd;
    if spend_usd > 0.0 { facts.evidence.cost_usd / spend_usd } else { 0.0 }
}

pub(super) fn rollbacks(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let count = facts.fleet.rollbacks;
    if proposal.for_memory || count < facts.limits.max_rollbacks {
        return Ok(());
    }
    Err(refuse("rollbacks", format!("{count} changes of the fleet were rolled back in 24 hours")))
}
