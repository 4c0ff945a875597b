//! Who permits the change: mode, tags, accounts, regions, templates and times.

use super::{Facts, Proposal, Refusal, preflight::STACK_TAG, refuse, sizes};
use crate::changes::{Cause, Route, State};
use crate::clock::DAY_US;
use crate::tuner::mode::Mode;
use crate::tuner::permission::TAG;

pub(super) fn may_write(facts: &Facts<'_>) -> Result<(), Refusal> {
    let permission = facts.permission;
    if let Some(fault) = &permission.fault {
        return Err(refuse("invalid-tag", format!("a tag cannot be read: {fault}")));
    }
    if permission.mode.may_write() {
        return Ok(());
    }
    if !permission.tagged {
        return Err(refuse("not-tagged", format!("it is not tagged `{TAG} = apply` or `{TAG} = apply-up`")));
    }
    Err(refuse("mode", format!("its mode is `{}`", permission.mode)))
}

pub(super) fn account(facts: &Facts<'_>) -> Result<(), Refusal> {
    let measured = &facts.evaluation.key.account;
    let live = &facts.live.account;
    if !measured.is_empty() && measured != live {
        let reason =
            format!("the measurements are of account {measured}, the credentials are for account {live}");
        return Err(refuse("other-account", reason));
    }
    let accounts = &facts.permission.accounts;
    if accounts.is_empty() || accounts.contains(live) {
        return Ok(());
    }
    Err(refuse("account-not-listed", format!("account {live} is not in the list of accounts")))
}

pub(super) fn region(facts: &Facts<'_>) -> Result<(), Refusal> {
    let (regions, region) = (&facts.permission.regions, &facts.evaluation.key.region);
    if regions.is_empty() || regions.contains(region) {
        return Ok(());
    }
    Err(refuse("region-not-listed", format!("region {region} is not in the list of regions")))
}

pub(super) fn stack(facts: &Facts<'_>) -> Result<(), Refusal> {
    match facts.live.tags.get(STACK_TAG) {
        Some(stack) => Err(refuse(
            "managed-by-stack",
            format!("the CloudFormation stack `{stack}` manages it: change its template"),
        )),
        None => Ok(()),
    }
}

pub(super) fn external(facts: &Facts<'_>) -> Result<(), Refusal> {
    let since_us = facts.now_us.saturating_sub(30 * DAY_US);
    let history = facts.history;
    // A deployment of other code that leaves the size as it was is no disagreement about the size: the new one when all
    // invocations used it, the previous one before that.
    let latest = &facts.live.latest;
    let is_deployment = |index: usize| {
        let change = &history[index];
        let next = history.get(index + 1);
        let size = next.map_or(latest.memory, |next| next.from);
        let code = next.map_or(latest.code_sha256.as_str(), |next| next.intent.code_sha256.as_str());
        if change.promoted {
            size == change.to
        } else {
            size == change.from && code != change.intent.code_sha256
        }
    };
    let external = (0..history.len()).filter(|index| {
        let change = &history[*index];
        let is_external =
            change.state == State::ExternalChange && matches!(change.cause, None | Some(Cause::External));
        is_external && change.moved_at_us >= since_us && !is_deployment(*index)
    });
    let (count, most) = (external.count(), facts.limits.max_external_changes);
    if count < most {
        return Ok(());
    }
    let reason = format!(
        "its size was changed outside the tuner during {count} changes in 30 days: change its template"
    );
    Err(refuse("managed-elsewhere", reason))
}

pub(super) fn direction(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    if facts.permission.mode == Mode::ApplyUp && proposal.to < proposal.from {
        let reason = format!("the mode `apply-up` does not permit {}", sizes(proposal.from, proposal.to));
        return Err(refuse("only-up", reason));
    }
    Ok(())
}

/// Without an alias, a reduction concerns all invocations at once: there is no canary that finds a wrong prediction.
pub(super) fn direct_reduction(facts: &Facts<'_>, proposal: &Proposal, route: &Route) -> Result<(), Refusal> {
    if *route != Route::Latest || proposal.to >= proposal.from || facts.permission.latest_down {
        return Ok(());
    }
    let reason = "without an alias, all invocations would get the smaller size at once: invoke it through an alias, or permit \
                  it with the tag `tailor:latest-down = allow`";
    Err(refuse("latest-down", reason))
}

pub(super) fn window(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    if proposal.for_memory {
        return Ok(());
    }
    match facts.permission.closed(facts.now_us) {
        Some((code, reason)) => Err(refuse(code, reason)),
        None => Ok(()),
    }
}
