//! Whether enough was measured.

use super::{Evidence, Facts, Proposal, Refusal, refuse};
use crate::changes::{Route, State};
use crate::clock::{DAY_US, HOUR_US};
use crate::tuner::limits::Limits;

pub(super) fn minimum_evidence(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    // An out-of-memory kill is evidence by itself.
    if proposal.after_out_of_memory {
        return Ok(());
    }
    let (evidence, limits) = (facts.evidence, facts.limits);
    let memory = facts.evaluation.memory;
    if evidence.warm < limits.evidence_invocations {
        let reason = format!(
            "{} warm invocations were measured at {memory}, {} are needed",
            evidence.warm, limits.evidence_invocations
        );
        return Err(refuse("few-invocations", reason));
    }
    let span_us = span_us(facts);
    let needed_us = if is_settled(facts) {
        limits.evidence_us.min(limits.evidence_after_change_us)
    } else if half_time_suffices(evidence, limits) {
        limits.evidence_us / 2
    } else {
        limits.evidence_us
    };
    if span_us < needed_us {
        let days = |us: u64| us as f64 / DAY_US as f64;
        let reason =
            format!("{memory} was measured for {:.1} days, {:.1} are needed", days(span_us), days(needed_us));
        return Err(refuse("short-time", reason));
    }
    if evidence.environments < limits.evidence_environments {
        let reason = format!(
            "{} environments were measured at {memory}, {} are needed",
            evidence.environments, limits.evidence_environments
        );
        return Err(refuse("few-environments", reason));
    }
    Ok(())
}

/// Whether the code that is served was measured. What other code needs shows little about it.
pub(super) fn minimum_evidence_of_served_code(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let (warm, needed) = (facts.served.warm, facts.limits.evidence_of_code());
    if proposal.after_out_of_memory || warm >= needed {
        return Ok(());
    }
    let memory = facts.evaluation.memory;
    let reason = format!(
        "{warm} warm invocations of the code that is served were measured at {memory}, {needed} are needed"
    );
    Err(refuse("new-code", reason))
}

/// Since when the present size is measured, microseconds.
fn span_us(facts: &Facts<'_>) -> u64 {
    facts.now_us.saturating_sub(facts.evidence.first_at_us)
}

/// Whether the present size is that of a change that was kept, so that the size before it was measured as well.
fn is_settled(facts: &Facts<'_>) -> bool {
    // A deployment may end the observation of a size that all invocations use.
    facts.written().next_back().is_some_and(|last| {
        let is_adopted = last.state == State::ExternalChange
            && !last.is_not_rolled_back()
            && last.promoted
            && last.to == facts.evaluation.memory;
        last.state == State::Settled || is_adopted
    })
}

/// Whether the function was measured for a shorter time than functions with less traffic need.
pub(super) fn is_before_evidence_time(facts: &Facts<'_>) -> bool {
    !is_settled(facts) && span_us(facts) < facts.limits.evidence_us
}

/// Whether so much was measured that half of the time suffices: by default a week, which has all its days.
fn half_time_suffices(evidence: &Evidence, limits: &Limits) -> bool {
    let is_reached = |measured: u64, least: u64| measured >= least.saturating_mul(limits.half_time_factor);
    is_reached(evidence.warm, limits.evidence_invocations)
        && is_reached(evidence.environments, limits.evidence_environments)
}

pub(super) fn traffic_for_canary(facts: &Facts<'_>, route: &Route) -> Result<(), Refusal> {
    if *route == Route::Latest {
        return Ok(());
    }
    let (needed, measured) = (needed_per_hour(facts.limits), per_hour(facts.evidence));
    if measured >= needed {
        return Ok(());
    }
    let reason = format!(
        "a canary needs {needed:.0} invocations an hour to end before its deadline, {measured:.0} were measured"
    );
    Err(refuse("little-traffic", reason))
}

fn per_hour(evidence: &Evidence) -> f64 {
    let hours = evidence.last_at_us.saturating_sub(evidence.first_at_us) as f64 / HOUR_US as f64;
    evidence.invocations as f64 / hours.max(1.0)
}

/// Invocations an hour with which each weight gets its invocations before its deadline.
fn needed_per_hour(limits: &Limits) -> f64 {
    let stall_hours = (limits.canary_stall_us as f64 / HOUR_US as f64).max(1e-9);
    let mut before = 0;
    let rates = limits.canary_steps.iter().map(|step| {
        let invocations = step.invocations.saturating_sub(before);
        before = step.invocations;
        invocations as f64 * 10_000.0 / f64::from(step.weight.max(1)) / stall_hours
    });
    rates.fold(0.0, f64::max)
}
