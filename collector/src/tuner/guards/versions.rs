//! Which versions the invocations get, by the measurements, the aliases and the list of versions.
//!
//! A version that was deleted, or is not invoked any more, does not keep a function from its change. A version that an alias
//! serves always counts.

use super::Facts;
use crate::lambda_functions::LATEST;
use crate::report::{Evaluation, MeasuredVersion};
use crate::tuner::lambda::{Alias, ListedVersions, Live};

/// Whether the versions must be listed before [`InvokedVersions::of`]: the function was read without them, and measurements of
/// published versions may be of deleted ones.
pub(in crate::tuner) fn needs_list(evaluation: &Evaluation, live: &Live) -> bool {
    live.listed_versions == ListedVersions::None
        && evaluation.versions.iter().any(|version| version.name != LATEST)
}

/// The versions that the invocations get.
pub(super) struct InvokedVersions<'a> {
    /// Whether `$LATEST` is invoked.
    pub(super) latest: bool,
    /// The published versions that are invoked, or that an alias serves.
    pub(super) published: Vec<&'a str>,
}

impl<'a> InvokedVersions<'a> {
    pub(super) fn of(facts: &Facts<'a>) -> Self {
        let invoked = || facts.evaluation.versions.iter().filter(|version| is_invoked(facts, version));
        let measured = invoked().map(|version| version.name.as_str());
        let served = facts.live.aliases.values().flat_map(served_by);
        let mut published: Vec<&str> = measured.chain(served).filter(|version| *version != LATEST).collect();
        published.sort_unstable();
        published.dedup();
        Self { latest: invoked().any(|version| version.name == LATEST), published }
    }
}

/// The versions that an alias serves.
fn served_by(alias: &Alias) -> impl Iterator<Item = &str> {
    let additional = alias.additional.iter().map(|(version, _)| version.as_str());
    additional.chain([alias.version.as_str()])
}

/// Whether a measured version is still invoked.
fn is_invoked(facts: &Facts<'_>, version: &MeasuredVersion) -> bool {
    let (live, name) = (facts.live, version.name.as_str());
    if live.aliases.values().flat_map(served_by).any(|served| served == name) {
        return true;
    }
    let is_deleted =
        name != LATEST && live.listed_versions == ListedVersions::All && !live.versions.contains_key(name);
    // Against the latest invocation: while nothing is invoked, all versions count.
    let latest_us = facts.evaluation.versions.iter().map(|version| version.last_at_us).max().unwrap_or(0);
    let unused_us = latest_us.saturating_sub(version.last_at_us);
    !is_deleted && unused_us <= facts.limits.unused_version_us
}
