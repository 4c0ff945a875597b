//! How often one function is changed, and what keeps it from being changed again.

use tailor_collector::changes::{Change, State};
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_sizing::units::Megabytes;

use super::case::{Case, NONE};
use crate::common::control_plane::Foreign;
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;
use crate::{FAILING, IDLE, KILLED};

/// A reduction that was kept.
fn settled() -> Change {
    Tuned::new(IDLE, true).until(&[State::Settled], GOOD)
}

/// A change to this size that was rolled back so many days ago, with a quarantine of 30 days.
fn rolled_back(case: &Case, sizes_mb: [u32; 2], days: f64) -> Change {
    let [from, to] = sizes_mb.map(Megabytes);
    let mut change = Change { state: State::Quarantined, from, to, ..case.past(&settled(), days) };
    change.intent.for_memory = to > from;
    change.quarantined_until_us = Some(change.moved_at_us + 30 * DAY_US);
    change
}

#[test]
fn an_increase_that_was_rolled_back_is_repeated_only_after_new_kills() {
    let mut case = Case::new();
    case.needs_memory(700);
    case.history = vec![rolled_back(&case, [512, 700], 3.0)];
    assert_eq!(case.codes(), ["quarantine"]);
    case.served.out_of_memory = 9;
    assert_eq!(case.codes(), ["quarantine"], "the kills were before the rollback");
    case.recent_kills = 2;
    assert_eq!(case.codes(), NONE);
    // The time between two attempts doubles.
    case.history = vec![rolled_back(&case, [512, 700], 20.0), rolled_back(&case, [512, 700], 1.5)];
    assert_eq!(case.codes(), ["cool-down"]);
    case.history = vec![rolled_back(&case, [512, 700], 20.0), rolled_back(&case, [512, 700], 2.5)];
    assert_eq!(case.codes(), NONE);
    // A reduction that was rolled back shows nothing about an increase.
    (case.served.out_of_memory, case.recent_kills) = (0, 0);
    case.history = vec![rolled_back(&case, [512, 400], 8.0)];
    assert_eq!(case.codes(), NONE);
    let mut case = Case::new();
    case.history = vec![rolled_back(&case, [2_048, 1_536], 8.0)];
    assert_eq!(case.codes(), ["quarantine"]);
}

#[test]
fn a_function_is_changed_twice_in_30_days_and_repaired_at_any_time() {
    let settled = settled();
    let mut case = Case::new();
    case.set_slowdown(0.0);
    let mut codes_after = |change: &Change, days: [f64; 2]| {
        case.history = days.map(|days| case.past(change, days)).to_vec();
        case.codes()
    };
    assert_eq!(codes_after(&settled, [29.0, 10.0]), ["monthly-changes"]);
    assert_eq!(codes_after(&settled, [31.0, 10.0]), NONE);
    let mut repair = settled.clone();
    (repair.intent.for_memory, repair.intent.before.out_of_memory) = (true, 5);
    assert_eq!(codes_after(&repair, [29.0, 10.0]), NONE, "repairs do not count");
    let mut case = Case::new();
    case.needs_memory(700);
    case.history = [29.0, 10.0].map(|days| case.past(&settled, days)).to_vec();
    assert_eq!(case.codes(), ["monthly-changes"]);
    (case.served.out_of_memory, case.recent_kills) = (3, 3);
    assert_eq!(case.codes(), NONE);
}

#[test]
fn memory_that_grows_again_in_a_month_gets_more_than_it_uses() {
    let mut case = Case::new();
    case.needs_memory(530);
    let mut increase = case.past(&settled(), 10.0);
    (increase.from, increase.to, increase.intent.for_memory) = (Megabytes(480), Megabytes(512), true);
    case.history = vec![increase];
    assert_eq!(case.codes(), NONE);
    assert_eq!(case.proposal().to, Megabytes(615), "1.2 times the size, or 100 MB more");
}

/// Passes time until a change of a function with kills is rolled back, and measures the previous size again.
fn roll_back_repair(tuned: &Tuned) {
    tuned.until(&[State::Quarantined], FAILING);
    tuned.traffic(2_000, GOOD);
}

#[test]
fn a_repair_that_is_worse_is_attempted_again_later_each_time() {
    let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, false);
    let kill = || tuned.workload.invoke(NAME, "$LATEST", 512, 300, KILLED);
    let count = || tuned.plane.changes().len();
    kill();
    roll_back_repair(&tuned);
    tuned.pass(2 * DAY_US);
    tuned.rounds(3);
    assert_eq!(count(), 1, "no invocation ran out of memory since then");
    kill();
    tuned.rounds(3);
    assert_eq!(count(), 2, "{}", tuned.plan());
    roll_back_repair(&tuned);
    kill();
    tuned.pass(DAY_US + HOUR_US);
    tuned.rounds(3);
    assert_eq!(count(), 2, "two days after the second rollback");
    assert!(tuned.plan().contains("cool-down"), "{}", tuned.plan());
    tuned.pass(DAY_US);
    tuned.rounds(3);
    assert_eq!(count(), 3, "{}", tuned.plan());
    tuned.assert_no_violations();
}

#[test]
fn a_refused_repair_is_not_attempted_in_each_round() {
    let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, false);
    tuned.workload.invoke(NAME, "$LATEST", 512, 300, KILLED);
    tuned.plane.lock().refuse_all = true;
    tuned.rounds(8);
    let states = || tuned.plane.changes().into_iter().map(|change| change.state).collect::<Vec<_>>();
    assert_eq!(states(), [State::Blocked]);
    assert!(tuned.plan().contains("cool-down"), "{}", tuned.plan());
    tuned.plane.lock().refuse_all = false;
    tuned.pass(HOUR_US);
    tuned.rounds(3);
    assert_eq!(states(), [State::Blocked, State::Soaking]);
    tuned.assert_no_violations();
}

#[test]
fn a_deployment_during_a_canary_is_no_disagreement_about_the_size() {
    for (write, is_refused) in [
        (Foreign::Release, false),
        (Foreign::Code, false),
        (Foreign::NoWeights, true),
        (Foreign::Memory(777), true),
    ] {
        let mut tuned = Tuned::new(IDLE, true);
        tuned.settings.limits.max_external_changes = 1;
        tuned.until(&[State::Canary], GOOD);
        tuned.plane.foreign(NAME, write);
        tuned.until(&[State::ExternalChange], GOOD);
        tuned.traffic(2_000, GOOD);
        let plan = tuned.plan();
        assert_eq!(plan.contains("managed-elsewhere"), is_refused, "{write:?}: {plan}");
        assert!(plan.contains("cool-down"), "{plan}");
        // The size is as it was: the next attempt is a day later.
        tuned.pass(DAY_US + HOUR_US);
        tuned.traffic(2_000, GOOD);
        assert!(!tuned.plan().contains("cool-down"), "{}", tuned.plan());
    }
}

#[test]
fn a_deployment_that_keeps_the_size_is_no_external_change() {
    for (write, is_refused) in [(Foreign::Release, false), (Foreign::Memory(IDLE.memory), true)] {
        let mut tuned = Tuned::new(IDLE, false);
        tuned.settings.limits.max_external_changes = 1;
        tuned.until(&[State::Soaking], GOOD);
        tuned.plane.foreign(NAME, write);
        tuned.until(&[State::ExternalChange], GOOD);
        tuned.traffic(2_000, GOOD);
        tuned.pass(15 * DAY_US);
        tuned.traffic(600_000, GOOD);
        let plan = tuned.plan();
        assert_eq!(plan.contains("managed-elsewhere"), is_refused, "{write:?}: {plan}");
    }
}
