//! The way back: from any point of a change to one version and the previous size.
//!
//! The next write is always computed from what Lambda returns now, so the order of faults does not matter. Only what the
//! change itself wrote is taken back: what others wrote stays. A change is only rolled back when the function has its previous
//! size: otherwise its end says what is different, and what to do.

use tailor_sizing::units::Megabytes;

use super::expected::{alias_description, version_marker};
use super::{Decision, Observation, Omitted};
use crate::changes::unfinished::instruction;
use crate::changes::{AliasPlan, Cause, Change, Route, State, StepDetail, Write};
use crate::lambda_functions::LATEST;
use crate::tuner::lambda::{Alias, LambdaError, Live, Update};
use crate::tuner::limits::Limits;

/// What follows a reason while the way back waits for permission.
const NOT_PERMITTED: &str = "; not rolled back without permission";

/// Starts the way back, or ends the change when nothing is left of it.
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
        None => end(change, live, cause, detail, seen),
        Some(_) if !may_write && !needs_alias(change, live) => end_without_permission(change, live, detail),
        // The alias is weighted: the change stays open, and the write follows when it is permitted.
        Some(_) if !may_write => {
            let reason = waiting_reason(change, &detail.reason);
            Decision::log_with(State::RollingBack, StepDetail { reason, ..detail })
        }
        Some(_) if live.update == Update::InProgress => Decision::log_with(State::RollingBack, detail),
        Some(write) => Decision::log_with(State::RollingBack, StepDetail { write: Some(write), ..detail }),
    }
}

/// The next step of a change that is being rolled back, or was.
pub(super) fn next(change: &Change, live: &Live, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let cause = change.cause.unwrap_or(Cause::Worse);
    if live.update == Update::InProgress {
        return Decision::Wait("an update is in progress".to_owned());
    }
    let reason = change.reason.split(NOT_PERMITTED).next().unwrap_or_default().to_owned();
    let detail = StepDetail { reason, ..StepDetail::default() };
    let Some(write) = next_write(change, live, cause, seen.omitted) else {
        return end(change, live, cause, detail, seen);
    };
    if !seen.may_write && seen.omitted != Omitted::Tag {
        // However long it takes: a change that ends here leaves its weight in the alias.
        if needs_alias(change, live) {
            if change.reason.contains(NOT_PERMITTED) {
                return Decision::Wait(change.reason.clone());
            }
            let reason = waiting_reason(change, &detail.reason);
            return Decision::log_with(State::RollingBack, StepDetail { reason, ..detail });
        }
        return end_without_permission(change, live, detail);
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

/// The reason of a change that waits for permission, with what a person can do.
fn waiting_reason(change: &Change, reason: &str) -> String {
    format!("{reason}{NOT_PERMITTED}: {}", instruction(change))
}

/// The last event of a change that may not be rolled back and has no part of the invocations of an alias.
fn end_without_permission(change: &Change, live: &Live, detail: StepDetail) -> Decision {
    let is_trial = matches!(change.intent.route, Route::Alias(_)) && !change.promoted;
    let left = if is_trial && was_written(change) && live.latest.memory == change.to {
        format!(
            "`$LATEST` has {} for the trial: set its size to {} before it is published",
            change.to, change.from
        )
    } else {
        "the size stays".to_owned()
    };
    let reason = format!("{}{NOT_PERMITTED}; {left}", detail.reason);
    Decision::log_with(State::ExternalChange, StepDetail { reason, ..detail })
}

/// The last event of the change.
fn end(change: &Change, live: &Live, cause: Cause, detail: StepDetail, seen: &Observation<'_>) -> Decision {
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
    match left(change, live).filter(|left| is_told(change, cause, left)) {
        Some(Left { text, .. }) => {
            let reason = format!("{}; not rolled back: {text}", detail.reason);
            Decision::log_with(State::ExternalChange, StepDetail { reason, until_us, ..detail })
        }
        None => Decision::log_with(state, StepDetail { until_us, ..detail }),
    }
}

/// A size that is not the one before the change.
struct Left {
    /// Whether it is the size of the change.
    is_new_size: bool,
    /// What there is, and what to do, as a part of a sentence.
    text: String,
}

/// Whether the end of a change tells what is left. When others changed the function, their own size needs no explanation.
fn is_told(change: &Change, cause: Cause, left: &Left) -> bool {
    match cause {
        Cause::External | Cause::Permission => left.is_new_size && !keeps_size(change, cause),
        _ => true,
    }
}

/// What the invocations get in place of the previous size; `None` when they get that size.
fn left(change: &Change, live: &Live) -> Option<Left> {
    let (from, to, latest) = (change.from, change.to, live.latest.memory);
    let Route::Alias(plan) = &change.intent.route else {
        let text = format!("its size is {latest} now, set outside the tuner: set {from} if that is wanted");
        return (latest != from).then_some(Left { is_new_size: latest == to, text });
    };
    let name = &plan.name;
    let Some(alias) = live.aliases.get(name) else {
        return Some(Left { is_new_size: false, text: format!("alias `{name}` was deleted") });
    };
    let size_of = |version: &String| match version.as_str() {
        LATEST => Some(latest),
        _ if *version == plan.stable => Some(from),
        _ => live.versions.get(version).map(|it| it.memory),
    };
    if let Some((version, weight)) =
        alias.additional.as_ref().filter(|(version, _)| size_of(version) == Some(to))
    {
        let percent = f64::from(*weight) / 100.0;
        let text = format!(
            "alias `{name}` sends {percent} % of the invocations to version {version} with {to}, a weight that others set: \
             remove it"
        );
        return Some(Left { is_new_size: true, text });
    }
    let version = &alias.version;
    match size_of(version) {
        Some(size) if size == from => None,
        Some(size) => {
            let text = served_text(change, plan, version, size, latest);
            Some(Left { is_new_size: size == to, text })
        }
        None => {
            let text = format!("alias `{name}` has version {version}, which is not listed: check its size");
            Some(Left { is_new_size: false, text })
        }
    }
}

/// What an alias serves in place of the previous size, why, and what to do.
fn served_text(
    change: &Change,
    plan: &AliasPlan,
    version: &str,
    size: Megabytes,
    latest: Megabytes,
) -> String {
    let (name, from) = (&plan.name, change.from);
    let why = if change.version.as_deref() == Some(version) {
        format!("because version {} was deleted", plan.stable)
    } else {
        "which the change did not publish".to_owned()
    };
    let publish = if latest == from {
        format!("publish `$LATEST`, which has {from}")
    } else {
        format!("set the size of `$LATEST` to {from}, publish it")
    };
    format!(
        "alias `{name}` serves {size} with version {version}, {why}: {publish}, and set the alias to the new version"
    )
}

/// Whether the alias has a part of the change.
fn needs_alias(change: &Change, live: &Live) -> bool {
    let Route::Alias(plan) = &change.intent.route else { return false };
    let Some(version) = &change.version else { return false };
    let alias = live.aliases.get(&plan.name);
    alias.is_some_and(|alias| alias.additional.as_ref().is_some_and(|(additional, _)| additional == version))
}

/// Whether the new size stays: a change outside the tuner after the promotion is adopted together with it.
fn keeps_size(change: &Change, cause: Cause) -> bool {
    matches!(cause, Cause::External | Cause::Permission) && change.promoted
}

/// The next write of the way back.
fn next_write(change: &Change, live: &Live, cause: Cause, omitted: Omitted) -> Option<Write> {
    let keeps_size = keeps_size(change, cause);
    let alias = match &change.intent.route {
        Route::Alias(plan) => alias_write(change, plan, live, keeps_size, omitted),
        Route::Latest => None,
    };
    if alias.is_some() {
        return alias;
    }
    // Whatever the code is now: the write sets the size only, and names the present revision.
    if !keeps_size && was_written(change) && live.latest.memory == change.to {
        return Some(Write::SetMemory { memory_mb: change.from.0, revision_id: live.revision_id.clone() });
    }
    version_write(change, live, omitted)
}

/// Whether the change set the size of `$LATEST`: at once, or for the publication and at the promotion.
fn was_written(change: &Change) -> bool {
    change.steps.iter().any(|step| step.state == State::Updating)
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
