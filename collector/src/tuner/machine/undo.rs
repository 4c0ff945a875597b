//! The way back: from any point of a change to one version and the previous size.
//!
//! The next write is always computed from what Lambda returns now, so the order of faults does not matter. Only what the
//! change itself wrote is undone: what others wrote stays.

use super::expected::{alias_description, same_code, version_marker};
use super::{Decision, Observation, Omitted};
use crate::changes::{AliasPlan, Cause, Change, Route, State, StepDetail, Write};
use crate::tuner::lambda::{Alias, LambdaError, Live, Update};
use crate::tuner::limits::Limits;

/// Starts the way back, or ends the change when nothing needs to be undone.
pub(super) fn start(
    change: &Change,
    live: &Live,
    cause: Cause,
    reason: String,
    seen: &Observation<'_>,
) -> Decision {
    let write = next_write(change, live, cause, seen.omitted);
    let may_write = seen.may_write || seen.omitted == Omitted::Tag;
    let detail = StepDetail { reason, cause: Some(cause), weight: Some(0), ..StepDetail::default() };
    match write {
        None => end(change, cause, detail, seen),
        Some(_) if !may_write && !needs_alias(change, live) => {
            let reason = format!("{}; not undone without permission; the size stays", detail.reason);
            Decision::log_with(State::ExternalChange, StepDetail { reason, ..detail })
        }
        // The alias is weighted: the change stays open, and the write follows when it is permitted.
        Some(_) if !may_write || live.update == Update::InProgress => {
            Decision::log_with(State::RollingBack, detail)
        }
        Some(write) => Decision::log_with(State::RollingBack, StepDetail { write: Some(write), ..detail }),
    }
}

/// The next step of a change that is being rolled back, or was.
pub(super) fn next(change: &Change, live: &Live, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let cause = change.cause.unwrap_or(Cause::Worse);
    if live.update == Update::InProgress {
        return Decision::Wait("an update is in progress".to_owned());
    }
    let detail = StepDetail { reason: change.reason.clone(), ..StepDetail::default() };
    let Some(write) = next_write(change, live, cause, seen.omitted) else {
        return end(change, cause, detail, seen);
    };
    if !seen.may_write && seen.omitted != Omitted::Tag {
        // However long it takes: a change that ends here leaves its weight in the alias.
        if needs_alias(change, live) {
            return Decision::Wait("not undone without permission".to_owned());
        }
        let reason = format!("{}; not undone without permission", change.reason);
        return Decision::log_with(State::ExternalChange, StepDetail { reason, ..detail });
    }
    match (&change.pending, seen.write_error) {
        (Some(pending), Some(LambdaError::Refused(error))) if *pending == write => {
            if change.refusals.len() >= limits.max_rollback_refusals {
                return Decision::Wait(format!("Lambda refuses the rollback: {error}"));
            }
            let refusal = Some(error.clone());
            Decision::log_with(State::RollingBack, StepDetail { write: Some(write), refusal, ..detail })
        }
        (Some(pending), _) if *pending == write => Decision::Retry(write),
        _ => Decision::log_with(State::RollingBack, StepDetail { write: Some(write), ..detail }),
    }
}

/// The last event of the change.
fn end(change: &Change, cause: Cause, detail: StepDetail, seen: &Observation<'_>) -> Decision {
    let was_in_force = change.weight > 0 || change.promoted || change.canary_at_us.is_some();
    let state = match cause {
        Cause::External | Cause::Permission => State::ExternalChange,
        Cause::Frozen => State::Frozen,
        // No invocation used the new size.
        Cause::Refused | Cause::Deadline | Cause::Operator if !was_in_force => State::Blocked,
        _ => State::RolledBack,
    };
    let until_us = match (state, cause) {
        (State::RolledBack, Cause::Worse | Cause::NoSaving | Cause::Deadline) => {
            Some(seen.quarantine_until_us)
        }
        _ => None,
    };
    Decision::log_with(state, StepDetail { until_us, ..detail })
}

/// Whether the alias has a part of the change.
fn needs_alias(change: &Change, live: &Live) -> bool {
    let Route::Alias(plan) = &change.intent.route else { return false };
    let Some(version) = &change.version else { return false };
    let alias = live.aliases.get(&plan.name);
    alias.is_some_and(|alias| alias.additional.as_ref().is_some_and(|(additional, _)| additional == version))
}

/// The next write that undoes a part of the change.
fn next_write(change: &Change, live: &Live, cause: Cause, omitted: Omitted) -> Option<Write> {
    // A change outside the tuner after the promotion is adopted together with the new size.
    let keeps_size = matches!(cause, Cause::External | Cause::Permission) && change.promoted;
    let alias = match &change.intent.route {
        Route::Alias(plan) => alias_write(change, plan, live, keeps_size, omitted),
        Route::Latest => None,
    };
    if alias.is_some() {
        return alias;
    }
    let is_ours = match &change.intent.route {
        // Set for the publication, and at the promotion.
        Route::Alias(_) => true,
        Route::Latest => change.state != State::Planned,
    };
    if is_ours && !keeps_size && live.latest.memory == change.to && latest_is_ours(change, live, omitted) {
        return Some(Write::SetMemory { memory_mb: change.from.0, revision_id: live.revision_id.clone() });
    }
    version_write(change, live, omitted)
}

/// Whether the size of `$LATEST` was set by this change, and nothing else was changed since.
fn latest_is_ours(change: &Change, live: &Live, omitted: Omitted) -> bool {
    let was_written = change.steps.iter().any(|step| step.state == State::Updating);
    was_written && same_code(change, live, omitted)
}

fn alias_write(
    change: &Change,
    plan: &AliasPlan,
    live: &Live,
    keeps_size: bool,
    omitted: Omitted,
) -> Option<Write> {
    let alias = live.aliases.get(&plan.name)?;
    let version = change.version.as_ref()?;
    let mark = alias_description(plan, &change.id, version);
    let is_ours = |weight: &(String, u32)| weight.0 == *version && is_step(change, weight.1);
    let weighted = alias.additional.as_ref().is_some_and(is_ours) && omitted != Omitted::Weight;
    let promoted =
        alias.version == *version && alias.additional.is_none() && !keeps_size && was_promoted(change);
    let has_mark = alias.description == mark;
    if !weighted && !promoted && !has_mark {
        return None;
    }
    let description = if has_mark { plan.description.clone() } else { alias.description.clone() };
    let additional = if weighted { None } else { alias.additional.clone() };
    let serving =
        if promoted && live.versions.contains_key(&plan.stable) { &plan.stable } else { &alias.version };
    let is_same =
        *serving == alias.version && additional == alias.additional && description == alias.description;
    (!is_same).then(|| write_of(alias, plan, serving, additional, description))
}

fn write_of(
    alias: &Alias,
    plan: &AliasPlan,
    version: &str,
    additional: Option<(String, u32)>,
    description: String,
) -> Write {
    Write::SetAlias {
        alias: plan.name.clone(),
        version: version.to_owned(),
        additional,
        description,
        revision_id: alias.revision_id.clone(),
    }
}

/// Whether the change set this weight at some time. A weight that others set stays.
fn is_step(change: &Change, weight: u32) -> bool {
    change.weights.contains(&weight)
}

fn was_promoted(change: &Change) -> bool {
    change.steps.iter().any(|step| matches!(step.state, State::Promoting | State::Soaking))
}

fn version_write(change: &Change, live: &Live, omitted: Omitted) -> Option<Write> {
    let marker = version_marker(change);
    // A crash after the publication leaves a version that is in the log as an intent only: its description names it.
    let is_ours = |(version, it): &(&String, &crate::tuner::lambda::Configuration)| {
        it.description == marker
            || (omitted == Omitted::Ownership && change.version.as_ref() == Some(version))
    };
    let (version, _) = live.versions.iter().find(is_ours)?;
    let is_used = live.aliases.values().any(|alias| {
        alias.version == *version || alias.additional.as_ref().is_some_and(|(other, _)| other == version)
    });
    (!is_used).then(|| Write::DeleteVersion { version: version.clone() })
}
