//! The expected state of a function at each point of a change, and whether a write took effect.

use tailor_sizing::units::Megabytes;

use super::Omitted;
use crate::changes::{AliasPlan, Change, Confirmed, Route, State, Write};
use crate::tuner::lambda::Live;

/// Longest description of an alias, characters.
const MAX_DESCRIPTION: usize = 256;

/// The text before the part of a description that the tuner adds.
const MARK: &str = "[tailor ";

/// The description of an alias during a change: a person can finish the change from it.
#[must_use]
pub fn alias_description(plan: &AliasPlan, change_id: &str, version: &str) -> String {
    let mark = format!("{MARK}change={change_id} stable={} canary={version}]", plan.stable);
    let with_mark =
        if plan.description.is_empty() { mark.clone() } else { format!("{} {mark}", plan.description) };
    // The original is in the log.
    if with_mark.chars().count() <= MAX_DESCRIPTION { with_mark } else { mark }
}

/// The description of a version that a change publishes.
#[must_use]
pub fn version_marker(change: &Change) -> String {
    format!("tailor change {} {}: {} to {}", change.id, change.planned_at_us, change.from, change.to)
}

/// The result of a write, as read back.
pub(super) enum Effect {
    /// It took effect.
    Done(Confirmed),
    /// It did not, and may be made again as it is.
    NotDone,
    /// It did not, and the function has another revision with the same content.
    Moved,
    /// The function was changed outside the tuner.
    Foreign(String),
}

/// The memory size that `$LATEST` has before the pending write.
fn latest_before(change: &Change) -> Megabytes {
    match (&change.intent.route, change.state) {
        (Route::Latest, State::Soaking) => change.to,
        // The size is in force for the publication, and then restored until the promotion.
        (Route::Alias(_), State::Published) => change.to,
        _ => change.from,
    }
}

/// Whether `$LATEST` has the code and the configuration of the plan, whatever its size.
fn same_code(change: &Change, live: &Live, omitted: Omitted) -> bool {
    omitted == Omitted::Code || change.intent.is_of_code(&live.latest.code_sha256, &live.latest.digest)
}

/// Whether a write took effect.
pub(super) fn effect(change: &Change, write: &Write, live: &Live, omitted: Omitted) -> Effect {
    match write {
        Write::SetMemory { memory_mb, revision_id } => {
            if !same_code(change, live, omitted) {
                return Effect::Foreign("code or configuration of `$LATEST` was changed".to_owned());
            }
            let memory = live.latest.memory;
            if memory.0 == *memory_mb {
                return Effect::Done(Confirmed::default());
            }
            if memory != change.from && memory != change.to {
                return Effect::Foreign(format!("its size is {memory} now, set outside the tuner"));
            }
            if live.revision_id == *revision_id { Effect::NotDone } else { Effect::Moved }
        }
        Write::Publish { revision_id, description, .. } => {
            publication(change, live, revision_id, description, omitted)
        }
        Write::SetAlias { alias, version, additional, description, revision_id } => {
            let Some(now) = live.aliases.get(alias) else {
                return Effect::Foreign(format!("alias `{alias}` was deleted"));
            };
            let is_done =
                now.version == *version && now.additional == *additional && now.description == *description;
            if is_done {
                return Effect::Done(Confirmed::default());
            }
            if now.revision_id == *revision_id { Effect::NotDone } else { Effect::Moved }
        }
        Write::DeleteVersion { version } if live.versions.contains_key(version) => Effect::NotDone,
        Write::DeleteVersion { .. } => Effect::Done(Confirmed::default()),
    }
}

/// The version that a publication made. Lambda makes none when the newest version is the same as `$LATEST`.
fn publication(
    change: &Change,
    live: &Live,
    revision_id: &str,
    description: &str,
    omitted: Omitted,
) -> Effect {
    let number = |version: &&String| version.parse::<u64>().unwrap_or(0);
    if let Some(version) = live
        .versions
        .iter()
        .filter(|(_, it)| it.description == *description && it.memory == change.to)
        .map(|(version, _)| version)
        .max_by_key(number)
    {
        return Effect::Done(Confirmed { version: Some(version.clone()), version_is_ours: true });
    }
    if !same_code(change, live, omitted) || live.latest.memory != change.to {
        return Effect::Foreign("`$LATEST` was changed before it was published".to_owned());
    }
    if live.revision_id == revision_id { Effect::NotDone } else { Effect::Moved }
}

/// The newest version, if it is what a publication of `$LATEST` would return without making one.
pub(super) fn identical_newest(change: &Change, live: &Live) -> Option<String> {
    let (version, newest) =
        live.versions.iter().max_by_key(|(version, _)| version.parse::<u64>().unwrap_or(0))?;
    let same = newest.code_sha256 == live.latest.code_sha256
        && newest.digest == live.latest.digest
        && newest.memory == change.to;
    same.then(|| version.clone())
}

/// What was changed outside the tuner since the last confirmed write; `None` when everything is as expected.
pub(super) fn drift(change: &Change, live: &Live, omitted: Omitted) -> Option<String> {
    if omitted == Omitted::Drift {
        return None;
    }
    if !same_code(change, live, omitted) {
        return Some("new code or another configuration was deployed".to_owned());
    }
    match &change.intent.route {
        Route::Latest => {
            let expected = if change.state == State::Soaking { change.to } else { change.from };
            (live.latest.memory != expected).then(|| format!("its size is {} now", live.latest.memory))
        }
        Route::Alias(plan) => alias_drift(change, plan, live),
    }
}

fn alias_drift(change: &Change, plan: &AliasPlan, live: &Live) -> Option<String> {
    let Some(alias) = live.aliases.get(&plan.name) else {
        return Some(format!("alias `{}` was deleted", plan.name));
    };
    let canary = change.version.clone().unwrap_or_default();
    let (version, additional, description) = match change.state {
        State::Canary | State::Hold => (
            &plan.stable,
            Some((canary.clone(), change.weight)),
            alias_description(plan, &change.id, &canary),
        ),
        State::Promoting | State::Soaking => (&canary, None, alias_description(plan, &change.id, &canary)),
        _ => (&plan.stable, None, plan.description.clone()),
    };
    if alias.version != *version {
        return Some(format!("alias `{}` has version {} now", plan.name, alias.version));
    }
    if alias.additional != additional {
        return Some(format!("the weights of alias `{}` were changed", plan.name));
    }
    if alias.description != description {
        return Some(format!("the description of alias `{}` was changed", plan.name));
    }
    if !canary.is_empty() && !live.versions.contains_key(&canary) {
        return Some(format!("version {canary} was deleted"));
    }
    // The size of `$LATEST` is the previous one until the promotion.
    let memory = live.latest.memory;
    let expected = match change.state {
        State::Soaking => change.to,
        State::Published | State::Updating | State::Promoting => return None,
        _ => latest_before(change),
    };
    (memory != expected).then(|| format!("the size of `$LATEST` is {memory} now"))
}

/// Whether a description has the mark of a change.
#[must_use]
pub fn is_marked(description: &str) -> bool {
    description.contains(MARK)
}
