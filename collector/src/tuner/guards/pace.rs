//! How often one function is changed.

use super::{Facts, Proposal, Refusal, refuse};
use crate::changes::frequency::{self, DAYS, SPAN_US};
use crate::changes::{Change, State};
use crate::clock::{DAY_US, HOUR_US};

/// Largest number of times that the time after a rollback is doubled.
const MAX_DOUBLINGS: u32 = 6;

pub(super) fn open_change(facts: &Facts<'_>) -> Result<(), Refusal> {
    match facts.history.iter().find(|change| change.state.is_open()) {
        Some(change) => Err(refuse("open-change", format!("its change {} is open", change.id))),
        None => Ok(()),
    }
}

pub(super) fn deployment(facts: &Facts<'_>) -> Result<(), Refusal> {
    // Our own writes change the time as well.
    let ours_us = facts.history.iter().map(|change| change.moved_at_us).max().unwrap_or(0);
    let modified_us = facts.live.modified_at_us;
    let since_us = facts.now_us.saturating_sub(modified_us);
    if modified_us <= ours_us || since_us >= facts.limits.after_deployment_us {
        return Ok(());
    }
    Err(refuse("deployment", format!("it was deployed {} minutes ago", since_us / 60_000_000)))
}

/// Whether the change is a repair: an increase because invocations ran out of memory. Kills before the rollback of an
/// increase are no reason for another one, because that increase was the answer to them.
fn is_repair(facts: &Facts<'_>, proposal: &Proposal) -> bool {
    proposal.after_out_of_memory && facts.recent_kills > 0
}

pub(super) fn cooldown(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let blocked = facts.history.iter().rev().take_while(|change| change.state == State::Blocked).count();
    if let Some(last) = facts.history.last().filter(|_| blocked > 0) {
        // Refused writes are tried again after an hour, then two, and at most after the cool-down.
        let doublings = u32::try_from(blocked - 1).unwrap_or(u32::MAX).min(8);
        let wait_us = HOUR_US.saturating_mul(1 << doublings).min(facts.limits.cooldown_down_us);
        if facts.now_us.saturating_sub(last.moved_at_us) < wait_us {
            return Err(refuse("cool-down", format!("its last change did not start: {}", last.reason)));
        }
    }
    if is_repair(facts, proposal) {
        return after_rolled_back_increases(facts);
    }
    let Some(last) = facts.written().next_back() else { return Ok(()) };
    // A deployment ended it before all invocations used the new size: the function is as it was.
    let is_interrupted = last.state == State::ExternalChange && !last.promoted && !last.is_not_rolled_back();
    let wait_us = if last.to < last.from && !is_interrupted {
        facts.limits.cooldown_down_us
    } else {
        facts.limits.cooldown_up_us
    };
    // A reduction that was kept serves all invocations since its promotion: its soak is a part of the cool-down.
    let from_us = match last.state {
        State::Settled if last.to < last.from => last.applied_at_us.unwrap_or(last.moved_at_us),
        _ => last.moved_at_us,
    };
    let since_us = facts.now_us.saturating_sub(from_us);
    if since_us >= wait_us {
        return Ok(());
    }
    let days = (wait_us - since_us) as f64 / DAY_US as f64;
    Err(refuse("cool-down", format!("it was changed recently; {days:.1} days are left")))
}

/// A repair is attempted again a day after the rollback of an increase, then two days, then four.
fn after_rolled_back_increases(facts: &Facts<'_>) -> Result<(), Refusal> {
    let rolled_back: Vec<&Change> =
        facts.written().rev().take_while(|change| change.is_rolled_back_increase()).collect();
    let Some(last) = rolled_back.first() else { return Ok(()) };
    let doublings = u32::try_from(rolled_back.len() - 1).unwrap_or(u32::MAX).min(MAX_DOUBLINGS);
    let wait_us = facts.limits.cooldown_up_us.saturating_mul(1 << doublings);
    let since_us = facts.now_us.saturating_sub(last.moved_at_us);
    if since_us >= wait_us {
        return Ok(());
    }
    let hours = (wait_us - since_us) as f64 / HOUR_US as f64;
    let count = rolled_back.len();
    Err(refuse(
        "cool-down",
        format!(
            "its last increases ({count}) were rolled back; {hours:.0} hours are left until the next one"
        ),
    ))
}

/// At most some changes of a function in a month, of whatever result. A repair does not wait for the next month.
pub(super) fn monthly_changes(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let since_us = facts.now_us.saturating_sub(SPAN_US);
    let counts = |change: &&Change| change.planned_at_us > since_us && frequency::counts(change);
    let count = facts.history.iter().filter(counts).count();
    if is_repair(facts, proposal) || count < facts.limits.max_changes_per_month {
        return Ok(());
    }
    Err(refuse("monthly-changes", format!("it was changed {count} times in {DAYS} days")))
}

pub(super) fn quarantine(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    if is_repair(facts, proposal) {
        return Ok(());
    }
    // The rollback of a reduction does not keep a function from the memory that it needs.
    let concerns = |change: &&Change| !proposal.for_memory || change.to > change.from;
    let ends_us = facts.history.iter().filter(concerns).filter_map(|change| change.quarantined_until_us);
    let until_us = ends_us.max().unwrap_or(0);
    if facts.now_us >= until_us {
        return Ok(());
    }
    let days = (until_us - facts.now_us) as f64 / DAY_US as f64;
    Err(refuse("quarantine", format!("a change was rolled back; {days:.1} days are left")))
}

/// The end of the quarantine after a rollback at `now_us`: it doubles with each rollback of the function.
pub(in crate::tuner) fn quarantine_until_us(history: &[Change], quarantine_us: u64, now_us: u64) -> u64 {
    let earlier = history.iter().filter(|change| change.quarantined_until_us.is_some()).count();
    let doublings = u32::try_from(earlier).unwrap_or(u32::MAX).min(MAX_DOUBLINGS);
    now_us.saturating_add(quarantine_us.saturating_mul(1 << doublings))
}

pub(super) fn out_of_memory(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let since_us = facts.now_us.saturating_sub(DAY_US);
    let recent = |change: &&Change| change.intent.for_memory && change.planned_at_us >= since_us;
    let count = facts.written().filter(recent).count();
    if !proposal.for_memory || count < facts.limits.max_out_of_memory_steps {
        return Ok(());
    }
    let reason =
        format!("it got more memory {count} times in 24 hours and still needs more: check its memory use");
    Err(refuse("out-of-memory-again", reason))
}
