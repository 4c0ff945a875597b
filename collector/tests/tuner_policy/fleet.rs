//! How many functions are changed at the same time, and in which order.

use tailor_collector::clock::DAY_US;
use tailor_collector::tuner::guards::FleetState;
use tailor_collector::tuner::limits::OpenChanges;

use super::case::{Case, NONE};
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;
use crate::{IDLE, KILLED};

#[test]
fn the_number_of_open_changes_grows_with_the_tuned_functions() {
    for (tuned, most) in [(0, 5), (250, 5), (300, 6), (1_000, 20), (10_000, 50)] {
        assert_eq!(OpenChanges::DEFAULT.limit(tuned), most, "{tuned} tuned functions");
    }
    let mut case = Case::new();
    let fleet = |open: usize, tuned: usize| FleetState { open, tuned, ..FleetState::default() };
    case.fleet = fleet(5, 299);
    assert_eq!(case.codes(), ["open-changes"]);
    case.fleet = fleet(5, 300);
    assert_eq!(case.codes(), NONE);
    case.limits.open_changes = OpenChanges::fixed(5);
    assert_eq!(case.codes(), ["open-changes"], "a number that is set does not grow");
}

#[test]
fn a_repair_does_not_wait_for_the_end_of_other_changes() {
    let mut case = Case::new();
    case.needs_memory(700);
    let fleet = |open: usize| FleetState { open, ..FleetState::default() };
    case.fleet = fleet(5);
    assert_eq!(case.codes(), ["open-changes"], "no invocation ran out of memory");
    (case.served.out_of_memory, case.recent_kills) = (3, 3);
    case.fleet = fleet(9);
    assert_eq!(case.codes(), NONE);
    case.fleet = fleet(10);
    assert_eq!(case.codes(), ["open-changes"]);
}

#[test]
fn only_tuned_functions_count_for_the_number_of_open_changes() {
    let mut tuned = Tuned::new(IDLE, true);
    let limits = &mut tuned.settings.limits;
    (limits.evidence_environments, limits.max_open_spend) = (1, 1.0);
    limits.open_changes = OpenChanges { min: 1, percent: 50, max: 9, repairs: 0 };
    for (name, count) in [("a", 14_000), ("b", 9_000), ("c", 6_000), ("d", 4_000), ("e", 3_000)] {
        add_other(&tuned, name, count);
    }
    for name in ["d", "e"] {
        tuned.plane.tag(name, "observe");
    }
    let tuner = tuned.tuner();
    tuned.round_of(&tuner);
    assert_eq!(open(&tuned), [NAME], "no tags are known");
    for _ in 0..3 {
        tuned.pass(3_000_000);
        tuned.round_of(&tuner);
    }
    assert_eq!(open(&tuned), ["a", NAME], "half of four");
    // A command knows no tags either.
    assert!(tuned.plan().contains("2 changes are open, at most 2 may be open"), "{}", tuned.plan());
    tuned.assert_no_violations();
}

#[test]
fn functions_that_run_out_of_memory_are_changed_before_larger_savings() {
    let mut tuned = Tuned::new(IDLE, true);
    tuned.settings.limits.open_changes = OpenChanges::fixed(1);
    add_other(&tuned, "small", 4_000);
    tuned.workload.invoke("small", "$LATEST", IDLE.memory, 300, KILLED);
    tuned.round();
    assert_eq!(open(&tuned), ["small"], "{}", tuned.plan());
}

#[test]
fn the_cost_of_open_changes_is_limited_and_every_function_gets_its_turn() {
    let mut case = Case::new();
    let mut codes = |share: f64, fleet: &FleetState| {
        case.fleet = FleetState { spend_usd: case.evidence.cost_usd / share, ..fleet.clone() };
        case.codes()
    };
    let others = FleetState { open: 3, open_spend: 0.04, ..FleetState::default() };
    assert_eq!(codes(0.005, &others), NONE);
    assert_eq!(codes(0.02, &others), ["open-spend"]);
    assert_eq!(codes(0.20, &others), NONE, "it would wait for a time without open changes");
    let large = FleetState { is_large_open: true, ..others.clone() };
    assert_eq!(codes(0.005, &large), NONE);
    assert_eq!(codes(0.20, &large), ["open-spend"], "one at a time");
    let waiting = FleetState { waiting: Some("orders".to_owned()), ..others };
    assert_eq!(codes(0.005, &waiting), ["open-spend"], "the function before it in the queue comes first");
    assert_eq!(codes(0.20, &waiting), NONE);
}

/// A function beside that of a [`Tuned`], with two times `count` invocations of `$LATEST` in 15 days.
pub(super) fn add_other(tuned: &Tuned, name: &'static str, count: u64) {
    let kind = Kind { name, ..IDLE };
    tuned.plane.add(name, kind.memory, false);
    tuned.workload.add(kind);
    for back_us in [15 * DAY_US, 0] {
        tuned.plane.lock().now_us -= back_us;
        tuned.workload.invoke(name, "$LATEST", kind.memory, count, GOOD);
        tuned.pass(back_us);
    }
}

/// The functions with an open change.
fn open(tuned: &Tuned) -> Vec<String> {
    let changes = tuned.plane.changes().into_iter().filter(|change| change.state.is_open());
    let mut names: Vec<String> = changes.map(|change| change.function.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_function_with_most_of_the_cost_is_changed_beside_others() {
    let tuned = Tuned::new(IDLE, true);
    add_other(&tuned, "small", 4_000);
    tuned.plane.tag(NAME, "observe");
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["small"]);
    tuned.plane.tag(NAME, "apply");
    tuned.rounds(2);
    assert_eq!(open(&tuned), [NAME, "small"], "{}", tuned.plan());
    tuned.assert_no_violations();
}

#[test]
fn smaller_savings_wait_for_a_function_that_waits_for_the_cost_of_open_changes() {
    let mut tuned = Tuned::new(IDLE, true);
    tuned.settings.limits.evidence_environments = 1;
    tuned.plane.tag(NAME, "observe");
    // 4.4, 1.2 and 0.3 % of the cost.
    for (name, count) in [("a-medium", 14_000), ("b-small", 4_000), ("c-tiny", 1_000)] {
        add_other(&tuned, name, count);
        tuned.plane.tag(name, if name == "b-small" { "apply" } else { "observe" });
    }
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["b-small"]);
    for name in ["a-medium", "c-tiny"] {
        tuned.plane.tag(name, "apply");
    }
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["b-small"], "{}", tuned.plan());
    assert!(tuned.plan().contains("`a-medium` is before it in the queue"), "{}", tuned.plan());
    tuned.pass(DAY_US);
    tuned.workload.traffic("b-small", 8_000, None, GOOD);
    tuned.rounds(3);
    assert_eq!(open(&tuned), ["a-medium", "c-tiny"], "{}", tuned.plan());
    tuned.assert_no_violations();
}
