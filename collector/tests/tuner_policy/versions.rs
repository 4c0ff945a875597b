//! Which versions count for the route of a change.

use tailor_collector::changes::State;
use tailor_collector::clock::DAY_US;
use tailor_collector::report::MeasuredVersion;
use tailor_collector::tuner::lambda::ListedVersions;
use tailor_sizing::units::Megabytes;

use super::case::{Case, NONE};
use crate::IDLE;
use crate::common::control_plane::Foreign;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;

#[test]
fn deleted_versions_do_not_keep_a_function_from_its_change() {
    let tuned = Tuned::new(IDLE, false);
    // `tailor tune` measures versions and deletes them.
    for (version, memory_mb) in [("1", 128), ("2", 1_024), ("3", IDLE.memory)] {
        tuned.workload.invoke(NAME, version, memory_mb, 20, GOOD);
    }
    tuned.traffic(1_000, GOOD);
    let change = tuned.until(&[State::Settled, State::Quarantined], GOOD);
    assert_eq!(change.state, State::Settled, "{}", change.reason);
    tuned.assert_no_violations();
}

#[test]
fn a_version_without_an_alias_counts_for_a_week_after_its_last_invocation() {
    let tuned = Tuned::new(IDLE, false);
    tuned.plane.foreign(NAME, Foreign::Publish);
    tuned.workload.invoke(NAME, "1", IDLE.memory, 20, GOOD);
    for days in [0, 7, 8] {
        let is_refused = days <= 7;
        tuned.traffic(1_000, GOOD);
        let plan = tuned.plan();
        let reason = "several-versions: `$LATEST` is invoked, and published versions (1) are";
        assert_eq!(plan.contains(reason), is_refused, "after {days} days: {plan}");
        tuned.pass(if days == 0 { 7 * DAY_US } else { DAY_US });
    }
    let change = tuned.until(&[State::Settled, State::Quarantined], GOOD);
    assert_eq!((change.state, change.to), (State::Settled, Megabytes(1_741)), "{}", change.reason);
}

#[test]
fn a_version_that_an_alias_serves_always_counts() {
    let mut case = Case::new();
    let measured = |name: &str, days_ago: u64| MeasuredVersion {
        name: name.to_owned(),
        last_at_us: case.now_us - days_ago * DAY_US,
    };
    let [latest, old_latest] = [0, 8].map(|days| measured("$LATEST", days));
    let [served, old_served, deleted, other, old_other] =
        [("1", 0), ("1", 14), ("7", 0), ("2", 0), ("2", 8)].map(|(name, days)| measured(name, days));
    // Version 2 exists, and no alias serves it.
    let configuration = case.live.versions["1"].clone();
    case.live.versions.insert("2".to_owned(), configuration);
    let mut codes = |versions: &[&MeasuredVersion], listed: ListedVersions| {
        case.evaluation.versions = versions.iter().map(|version| (*version).clone()).collect();
        case.live.listed_versions = listed;
        case.codes()
    };
    let all = ListedVersions::All;
    assert_eq!(codes(&[&served], all), NONE);
    assert_eq!(codes(&[&latest, &served], all), ["several-versions"]);
    assert_eq!(codes(&[&latest, &old_served], all), ["several-versions"]);
    assert_eq!(codes(&[&latest], all), ["several-versions"], "the version can be invoked at any time");
    assert_eq!(codes(&[&old_latest, &served], all), NONE, "`$LATEST` is not invoked any more");

    case.live.aliases.clear();
    let mut codes = |versions: &[&MeasuredVersion], listed: ListedVersions| {
        case.evaluation.versions = versions.iter().map(|version| (*version).clone()).collect();
        case.live.listed_versions = listed;
        case.codes()
    };
    assert_eq!(codes(&[&latest, &other], all), ["several-versions"]);
    assert_eq!(codes(&[&latest, &old_other], all), NONE);
    assert_eq!(codes(&[&latest, &deleted], all), NONE);
    assert_eq!(codes(&[&latest, &deleted], ListedVersions::Part), ["several-versions"]);
    assert_eq!(codes(&[&old_latest, &deleted], all), NONE, "only `$LATEST` can be invoked");
}
