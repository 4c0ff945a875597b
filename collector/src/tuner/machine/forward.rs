//! The way of a change to its end: update, publish, canary, promote, soak.

use super::expected::{Effect, alias_description, drift, effect, identical_newest, version_marker};
use super::{Decision, Observation, Verdict, is_for_window, overdue, rollback};
use crate::changes::comparison::Measurements;
use crate::changes::{AliasPlan, Cause, Change, Confirmed, Route, State, StepDetail, Write};
use crate::clock::HOUR_US;
use crate::tuner::lambda::{LambdaError, Live, Update};
use crate::tuner::limits::Limits;

/// The next step of a change that is not being rolled back.
pub(super) fn next(change: &Change, live: &Live, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let confirmed = match &change.pending {
        None => None,
        Some(write) => match effect(change, write, live, seen.omitted) {
            Effect::Done(confirmed) => Some(confirmed),
            Effect::Foreign(reason) => return rollback::start(change, live, Cause::External, reason, seen),
            Effect::NotDone => return retry(change, write, live, seen, limits),
            Effect::Moved => return moved(change, write, live, seen, limits),
        },
    };
    if live.update == Update::Failed && change.pending.is_some() {
        let reason = "Lambda could not update the function".to_owned();
        return rollback::start(change, live, Cause::Refused, reason, seen);
    }
    // After a confirmed write, the event that follows sets the state that this write leads to.
    let foreign = if confirmed.is_none() { drift(change, live, seen.omitted) } else { None };
    if let Some(reason) = foreign {
        return rollback::start(change, live, Cause::External, reason, seen);
    }
    advance(change, live, confirmed, seen, limits)
}

/// The write did not take effect: make it again, unless Lambda refused it.
fn retry(change: &Change, write: &Write, live: &Live, seen: &Observation<'_>, limits: &Limits) -> Decision {
    match seen.write_error {
        Some(LambdaError::Refused(reason)) => {
            rollback::start(change, live, Cause::Refused, reason.clone(), seen)
        }
        // The publication returned an existing version: it is not ours.
        Some(_) | None => match (write, identical_newest(change, live)) {
            (Write::Publish { .. }, Some(version)) => {
                let confirmed = Confirmed { version: Some(version), version_is_ours: false };
                advance(change, live, Some(confirmed), seen, limits)
            }
            _ => abandoned_outside_window(change, write, live, seen)
                .or_else(|| overdue(change, seen, limits))
                .unwrap_or_else(|| Decision::Retry(write.clone())),
        },
    }
}

/// The function has another revision. Its content decides whether it was changed outside the tuner.
fn moved(change: &Change, write: &Write, live: &Live, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let external = |reason: String| rollback::start(change, live, Cause::External, reason, seen);
    if let (Write::SetAlias { .. }, Route::Alias(plan)) = (write, &change.intent.route) {
        let Some(alias) = live.aliases.get(&plan.name) else {
            return external(format!("alias `{}` was deleted", plan.name));
        };
        return external(format!("alias `{}` was changed: it has version {}", plan.name, alias.version));
    }
    if let (Write::Publish { .. }, Some(_)) = (write, identical_newest(change, live)) {
        return retry(change, write, live, seen, limits);
    }
    if let Some(ended) =
        abandoned_outside_window(change, write, live, seen).or_else(|| overdue(change, seen, limits))
    {
        return ended;
    }
    // The content is the same: the write is bound to the new revision, and logged again.
    let mut write = write.clone();
    match &mut write {
        Write::SetMemory { revision_id, .. } | Write::Publish { revision_id, .. } => {
            revision_id.clone_from(&live.revision_id);
        }
        Write::SetAlias { .. } | Write::DeleteVersion { .. } => {}
    }
    let reason = "the revision changed and the content did not".to_owned();
    Decision::log_with(change.state, StepDetail { reason, write: Some(write), ..StepDetail::default() })
}

/// Outside of the window, a write that did not take effect and gives invocations the new size is not made again. The
/// change then waits at the weight that the alias has.
fn abandoned_outside_window(
    change: &Change,
    write: &Write,
    live: &Live,
    seen: &Observation<'_>,
) -> Option<Decision> {
    let closed = seen.closed?;
    let is_for_invocations = match write {
        Write::SetMemory { .. } => change.state == State::Updating,
        Write::SetAlias { .. } => matches!(change.state, State::Canary | State::Promoting),
        Write::Publish { .. } | Write::DeleteVersion { .. } => false,
    };
    if !is_for_invocations {
        return None;
    }
    let weight = match &change.intent.route {
        Route::Alias(plan) => live.aliases.get(&plan.name).and_then(|alias| alias.additional.as_ref()),
        Route::Latest => None,
    };
    match weight.filter(|(version, _)| change.version.as_ref() == Some(version)) {
        Some((_, weight)) => {
            let reason = closed.to_owned();
            let detail = StepDetail { reason, weight: Some(*weight), ..StepDetail::default() };
            Some(Decision::log_with(State::Canary, detail))
        }
        None => Some(rollback::start(change, live, Cause::Permission, closed.to_owned(), seen)),
    }
}

fn advance(
    change: &Change,
    live: &Live,
    confirmed: Option<Confirmed>,
    seen: &Observation<'_>,
    limits: &Limits,
) -> Decision {
    let is_confirmed = confirmed.is_some();
    let detail = |reason: String, write: Option<Write>| StepDetail {
        reason,
        write,
        confirmed: confirmed.clone(),
        revision_id: Some(live.revision_id.clone()),
        ..StepDetail::default()
    };
    let set = |memory_mb: u32| Write::SetMemory { memory_mb, revision_id: live.revision_id.clone() };
    let (from, to) = (change.from, change.to);
    let plan = match &change.intent.route {
        Route::Latest => None,
        Route::Alias(plan) => Some(plan),
    };
    match (change.state, plan) {
        (State::Planned, _) if seen.closed.is_some() => wait_for_window(change, seen, limits),
        (State::Planned, _) => Decision::log_with(
            State::Updating,
            detail(format!("setting the size of `$LATEST` to {to}"), Some(set(to.0))),
        ),
        (State::Updating, None) => {
            Decision::log_with(State::Soaking, detail(format!("the function has {to}"), None))
        }
        (State::Updating, Some(_)) => {
            let write = Write::Publish {
                revision_id: live.revision_id.clone(),
                code_sha256: change.intent.code_sha256.clone(),
                description: version_marker(change),
            };
            Decision::log_with(
                State::Published,
                detail(format!("publishing a version with {to}"), Some(write)),
            )
        }
        (State::Published, Some(plan)) => published(change, plan, live, &confirmed, seen, limits),
        (State::Canary | State::Hold, Some(plan)) => {
            if is_confirmed {
                let weight = f64::from(change.weight) / 100.0;
                return Decision::log_with(
                    State::Canary,
                    detail(format!("{weight} % of the invocations use {to}"), None),
                );
            }
            canary(change, plan, live, seen, limits)
        }
        (State::Promoting, Some(_)) if live.latest.memory == to => {
            Decision::log_with(State::Soaking, detail(format!("all invocations use {to}"), None))
        }
        (State::Promoting, Some(_)) if live.latest.memory == from => Decision::log_with(
            State::Promoting,
            detail(format!("setting the size of `$LATEST` to {to}, for later versions"), Some(set(to.0))),
        ),
        (State::Promoting, _) => rollback::start(
            change,
            live,
            Cause::External,
            format!("the size of `$LATEST` is {} now", live.latest.memory),
            seen,
        ),
        (State::Soaking, _) => soak(change, plan, live, is_confirmed, seen, limits),
        (state, _) => Decision::Wait(format!("nothing to do in state {}", state.code())),
    }
}

/// After the publication: `$LATEST` gets its previous size, then the canary starts.
fn published(
    change: &Change,
    plan: &AliasPlan,
    live: &Live,
    confirmed: &Option<Confirmed>,
    seen: &Observation<'_>,
    limits: &Limits,
) -> Decision {
    let from_confirmed = confirmed.as_ref().and_then(|confirmed| confirmed.version.clone());
    let Some(version) = from_confirmed.or_else(|| change.version.clone()) else {
        return Decision::Wait("waiting for the published version".to_owned());
    };
    let served = live.versions.get(&version);
    let is_right = served
        .is_some_and(|served| served.memory == change.to && served.code_sha256 == change.intent.code_sha256);
    if !is_right && seen.omitted != super::Omitted::Code {
        let reason = format!("version {version} is not the planned code and size");
        return rollback::start(change, live, Cause::External, reason, seen);
    }
    let mut detail = StepDetail { confirmed: confirmed.clone(), ..StepDetail::default() };
    if live.latest.memory == change.to {
        detail.reason = format!("version {version} has {}; restoring the size of `$LATEST`", change.to);
        detail.write =
            Some(Write::SetMemory { memory_mb: change.from.0, revision_id: live.revision_id.clone() });
        return Decision::log_with(State::Published, detail);
    }
    if live.latest.memory != change.from {
        let reason = format!("the size of `$LATEST` is {} now", live.latest.memory);
        return rollback::start(change, live, Cause::External, reason, seen);
    }
    if !served.is_some_and(|served| served.active) {
        return overdue(change, seen, limits)
            .unwrap_or_else(|| Decision::Wait(format!("version {version} is not active yet")));
    }
    let Some(first) = limits.canary_steps.first() else {
        return Decision::Wait("there are no canary weights".to_owned());
    };
    if seen.closed.is_some() {
        return wait_for_window(change, seen, limits);
    }
    set_weight(change, plan, &version, first.weight, live, detail, seen)
}

/// Waits until more invocations may get the new size.
fn wait_for_window(change: &Change, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let reason = seen.closed.unwrap_or_default();
    overdue(change, seen, limits).unwrap_or_else(|| Decision::Wait(reason.to_owned()))
}

/// Sets a weight of the canary.
fn set_weight(
    change: &Change,
    plan: &AliasPlan,
    version: &str,
    weight: u32,
    live: &Live,
    mut detail: StepDetail,
    seen: &Observation<'_>,
) -> Decision {
    let Some(alias) = live.aliases.get(&plan.name) else {
        return rollback::start(
            change,
            live,
            Cause::External,
            format!("alias `{}` was deleted", plan.name),
            seen,
        );
    };
    // The first weight is set on the alias as it was planned.
    if change.weight == 0 {
        let is_as_planned = alias.version == plan.stable
            && alias.additional.is_none()
            && alias.description == plan.description;
        if !is_as_planned {
            let reason = format!("alias `{}` was changed", plan.name);
            return rollback::start(change, live, Cause::External, reason, seen);
        }
    }
    let share = f64::from(weight) / 100.0;
    let text = format!("sending {share} % of the invocations to version {version}");
    detail.reason = if detail.reason.is_empty() { text } else { format!("{}; {text}", detail.reason) };
    detail.weight = Some(weight);
    detail.write = Some(Write::SetAlias {
        alias: plan.name.clone(),
        version: plan.stable.clone(),
        additional: Some((version.to_owned(), weight)),
        description: alias_description(plan, &change.id, version),
        revision_id: alias.revision_id.clone(),
    });
    Decision::log_with(State::Canary, detail)
}

fn canary(
    change: &Change,
    plan: &AliasPlan,
    live: &Live,
    seen: &Observation<'_>,
    limits: &Limits,
) -> Decision {
    let version = change.version.clone().unwrap_or_default();
    let detail = |reason: &str, after, baseline| StepDetail {
        reason: reason.to_owned(),
        after,
        baseline,
        ..StepDetail::default()
    };
    match seen.verdict {
        Verdict::Fail { cause, reason, after, baseline } => {
            failed(change, live, (*cause, reason), (*after, *baseline), seen)
        }
        Verdict::Pass { reason, after, baseline } => {
            if let Some(closed) = seen.closed {
                return if change.state == State::Hold && is_for_window(&change.reason) {
                    Decision::Wait(closed.to_owned())
                } else {
                    Decision::log_with(State::Hold, detail(closed, Some(*after), *baseline))
                };
            }
            let detail = detail(reason, Some(*after), *baseline);
            let next = limits.canary_steps.iter().find(|step| step.weight > change.weight);
            match next {
                Some(next) => set_weight(change, plan, &version, next.weight, live, detail, seen),
                None => promote(change, plan, &version, live, detail),
            }
        }
        Verdict::NoData(reason) => match overdue(change, seen, limits) {
            Some(late) => late,
            None if change.state == State::Hold && !is_for_window(&change.reason) => match seen.closed {
                Some(_) => unmeasured(change, live, reason, seen, limits),
                None => Decision::Wait(reason.clone()),
            },
            None => Decision::log_with(State::Hold, detail(reason, None, None)),
        },
        Verdict::Continue(reason) => match overdue(change, seen, limits) {
            Some(late) => late,
            // A canary that waits for its window waits for the next one as well.
            None if change.state == State::Canary => Decision::Wait(reason.clone()),
            None if seen.closed.is_some() && is_for_window(&change.reason) => Decision::Wait(reason.clone()),
            None => Decision::log_with(State::Canary, detail(reason, None, None)),
        },
    }
}

/// Outside of the window, a canary that is not measured ends after the longest time at one weight, as it does in the window.
fn unmeasured(
    change: &Change,
    live: &Live,
    reason: &str,
    seen: &Observation<'_>,
    limits: &Limits,
) -> Decision {
    let since_us = seen.now_us.saturating_sub(change.moved_at_us);
    if since_us <= limits.canary_stall_us {
        return Decision::Wait(reason.to_owned());
    }
    let hours = since_us as f64 / HOUR_US as f64;
    let reason = format!("the canary was not measured for {hours:.1} hours: {reason}");
    rollback::start(change, live, Cause::Deadline, reason, seen)
}

/// Starts the way back after a verdict, with its measurements.
fn failed(
    change: &Change,
    live: &Live,
    (cause, reason): (Cause, &str),
    (after, baseline): (Measurements, Option<Measurements>),
    seen: &Observation<'_>,
) -> Decision {
    let mut decision = rollback::start(change, live, cause, reason.to_owned(), seen);
    if let Decision::Log(_, detail) = &mut decision {
        (detail.after, detail.baseline) = (Some(after), baseline);
    }
    decision
}

fn promote(
    change: &Change,
    plan: &AliasPlan,
    version: &str,
    live: &Live,
    mut detail: StepDetail,
) -> Decision {
    let revision_id = live.aliases.get(&plan.name).map(|alias| alias.revision_id.clone()).unwrap_or_default();
    detail.reason = format!("{}; sending all invocations to version {version}", detail.reason);
    detail.weight = Some(0);
    detail.write = Some(Write::SetAlias {
        alias: plan.name.clone(),
        version: version.to_owned(),
        additional: None,
        description: alias_description(plan, &change.id, version),
        revision_id,
    });
    Decision::log_with(State::Promoting, detail)
}

fn soak(
    change: &Change,
    plan: Option<&AliasPlan>,
    live: &Live,
    is_confirmed: bool,
    seen: &Observation<'_>,
    limits: &Limits,
) -> Decision {
    // The only write of a soak removes that description, after the verdict.
    if is_confirmed {
        return Decision::log(State::Settled, change.reason.clone());
    }
    match seen.verdict {
        Verdict::Fail { cause, reason, after, baseline } => {
            failed(change, live, (*cause, reason), (*after, *baseline), seen)
        }
        Verdict::Pass { reason, after, baseline } => {
            let mut detail = StepDetail {
                reason: reason.clone(),
                after: Some(*after),
                baseline: *baseline,
                ..StepDetail::default()
            };
            let alias = plan.and_then(|plan| Some((plan, live.aliases.get(&plan.name)?)));
            let Some((plan, alias)) = alias else { return Decision::log_with(State::Settled, detail) };
            detail.write = Some(Write::SetAlias {
                alias: plan.name.clone(),
                version: alias.version.clone(),
                additional: None,
                description: plan.description.clone(),
                revision_id: alias.revision_id.clone(),
            });
            Decision::log_with(State::Soaking, detail)
        }
        Verdict::NoData(reason) | Verdict::Continue(reason) => {
            overdue(change, seen, limits).unwrap_or_else(|| Decision::Wait(reason.clone()))
        }
    }
}
