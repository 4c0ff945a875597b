//! Whether the function is of a kind, and in a state, that can be changed safely.

use super::versions::InvokedVersions;
use super::{Facts, Refusal, refuse};
use crate::changes::{AliasPlan, Route};
use crate::lambda_functions::LATEST;
use crate::tuner::lambda::{Alias, Live, Update};
use crate::tuner::machine::is_marked;

/// The tag of functions that CloudFormation manages: the next deployment of the stack would reset the size.
pub const STACK_TAG: &str = "aws:cloudformation:stack-name";

pub(super) fn update(facts: &Facts<'_>) -> Result<(), Refusal> {
    match facts.live.update {
        Update::Successful if facts.live.latest.active => Ok(()),
        Update::Successful => Err(refuse("not-active", "the function is not active")),
        Update::InProgress => Err(refuse("updating", "an update is in progress")),
        Update::Failed => Err(refuse("update-failed", "its last update failed")),
    }
}

pub(super) fn kind(facts: &Facts<'_>) -> Result<(), Refusal> {
    let live = facts.live;
    if live.snap_start {
        return Err(refuse("snap-start", "it uses SnapStart"));
    }
    if live.managed_instances {
        return Err(refuse("managed-instances", "it runs on managed instances"));
    }
    // Replicas of Lambda@Edge are named `us-east-1.NAME`.
    if facts.evaluation.key.name.contains('.') {
        return Err(refuse("lambda-edge", "it is a replica of Lambda@Edge"));
    }
    Ok(())
}

pub(super) fn size(facts: &Facts<'_>) -> Result<(), Refusal> {
    let (now, measured) = (facts.live.latest.memory, facts.evaluation.memory);
    if now == measured {
        return Ok(());
    }
    let reason =
        format!("its size is {now}, but the latest measurements are at {measured}: waiting for invocations");
    Err(refuse("size-differs", reason))
}

/// What the invocations go through: an alias, or `$LATEST`.
///
/// # Errors
/// Why neither can be changed.
pub fn route(facts: &Facts<'_>) -> Result<Route, Refusal> {
    let live = facts.live;
    let versions = InvokedVersions::of(facts);
    if versions.published.is_empty() {
        return if live.provisioned.is_empty() {
            Ok(Route::Latest)
        } else {
            Err(refuse("provisioned", "it has provisioned concurrency"))
        };
    }
    if versions.latest {
        let reason = format!(
            "`$LATEST` is invoked, and published versions ({}) are invoked or have an alias, so a change would act on one of \
             them only",
            versions.published.join(", ")
        );
        return Err(refuse("several-versions", reason));
    }
    let mut invoked: Vec<(&String, &Alias)> =
        live.aliases.iter().filter(|(_, alias)| alias.version != LATEST).collect();
    invoked.sort_unstable_by_key(|(name, _)| name.as_str());
    let [(name, alias)] = invoked[..] else {
        let count = invoked.len();
        let reason = format!("{count} aliases point to published versions; exactly one can be changed");
        return Err(refuse("several-aliases", reason));
    };
    check_alias(live, name, alias)?;
    let plan = AliasPlan {
        name: name.clone(),
        stable: alias.version.clone(),
        description: alias.description.clone(),
    };
    Ok(Route::Alias(plan))
}

fn check_alias(live: &Live, name: &str, alias: &Alias) -> Result<(), Refusal> {
    if alias.additional.is_some() {
        let reason = format!("alias `{name}` has weights: a deployment is in progress");
        return Err(refuse("weighted-alias", reason));
    }
    if is_marked(&alias.description) {
        let reason = format!(
            "the description of alias `{name}` has the mark of an unfinished change: finish it first"
        );
        return Err(refuse("unfinished-change", reason));
    }
    if live.provisioned.iter().any(|qualifier| qualifier == name || *qualifier == alias.version) {
        return Err(refuse("provisioned", format!("alias `{name}` has provisioned concurrency")));
    }
    let Some(version) = live.versions.get(&alias.version) else {
        return Err(refuse(
            "no-version",
            format!("version {} of alias `{name}` is not listed", alias.version),
        ));
    };
    let latest = &live.latest;
    if version.code_sha256 != latest.code_sha256 || version.digest != latest.digest {
        let reason = format!(
            "`$LATEST` is not what alias `{name}` serves: a new version would publish code or settings that are not released"
        );
        return Err(refuse("latest-differs", reason));
    }
    if version.memory != latest.memory {
        let reason = format!("`$LATEST` has {}, alias `{name}` serves {}", latest.memory, version.memory);
        return Err(refuse("latest-differs", reason));
    }
    Ok(())
}

/// Old and new environments exist at the same time while an alias is weighted.
pub(super) fn concurrency(facts: &Facts<'_>, route: &Route) -> Result<(), Refusal> {
    let (Some(reserved), Route::Alias(_)) = (facts.live.reserved_concurrency, route) else { return Ok(()) };
    let hours = facts.evidence.last_at_us.saturating_sub(facts.evidence.first_at_us) as f64 / 3_600e6;
    let mean_ms = facts
        .evaluation
        .advice
        .as_ref()
        .ok()
        .and_then(|advice| advice.curve.iter().find(|point| point.memory == facts.evaluation.memory))
        .map_or(0.0, |point| point.mean.mean_ms);
    let used = facts.evidence.invocations as f64 * mean_ms / (hours.max(1.0) * 3_600e3);
    let share = used / f64::from(reserved.max(1));
    if share <= facts.limits.max_concurrency_share {
        return Ok(());
    }
    let reason = format!("it uses {:.0} % of its reserved concurrency of {reserved}", 100.0 * share);
    Err(refuse("concurrency", reason))
}
