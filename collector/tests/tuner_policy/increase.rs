//! Increases under the default strategy `cost`, from the plan to the kept size.

use tailor_collector::changes::{Cause, State, ledger};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::units::Megabytes;

use crate::common::fleet::{KINDS, Kind};
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::{GOOD, Quality};
use crate::{IDLE, KILLED, SLOW};

/// A function that needs four times the CPU time at 512 MB that it needs at 1,024 MB, for example to collect garbage: the larger
/// size is faster and cheaper.
const CRAMPED: Kind = Kind { memory: 512, ..KINDS[0] };
const CPU_FACTORS: [(u32, u64); 2] = [(512, 4), (1_024, 1)];

fn assert_serves(tuned: &Tuned, memory_mb: u32, with_alias: bool) {
    let record = tuned.plane.record(NAME);
    assert_eq!(record.latest.config.memory_mb, memory_mb);
    assert_eq!(record.aliases.contains_key("live"), with_alias);
    if let Some(alias) = record.aliases.get("live") {
        let served = &record.versions[&alias.version.parse().unwrap()];
        assert_eq!((served.config.memory_mb, &alias.additional), (memory_mb, &None));
        assert_eq!(alias.description, "production");
    }
    tuned.assert_no_violations();
}

#[test]
fn a_larger_size_that_is_cheaper_and_faster_is_set_and_kept() {
    for with_alias in [true, false] {
        let tuned = Tuned::with_sizes(CRAMPED, with_alias, &CPU_FACTORS);
        assert!(matches!(tuned.settings.strategy, Strategy::Cost { .. }));
        let settled = tuned.until(&[State::Settled, State::Quarantined], GOOD);
        assert_eq!(settled.state, State::Settled, "{}", settled.reason);
        assert_eq!((settled.from, settled.to), (Megabytes(512), Megabytes(1_024)), "{settled:?}");
        let intent = &settled.intent;
        assert!(!intent.for_memory && !settled.is_repair(), "{intent:?}");
        assert!(intent.cost_change_percent < -50.0 && intent.duration_change_percent < -75.0, "{intent:?}");
        assert_eq!(settled.canary_at_us.is_some(), with_alias, "{settled:?}");
        let entry = &ledger::entries(&tuned.plane.changes())[0];
        let realised = entry.realised_per_million.unwrap().to_dollars();
        let predicted = entry.predicted_per_million.to_dollars();
        assert!(realised > 0.8 * predicted && realised < 1.2 * predicted, "{realised} {predicted}");
        assert_serves(&tuned, 1_024, with_alias);
    }
}

#[test]
fn a_larger_size_that_is_not_faster_costs_more_and_is_rolled_back() {
    for with_alias in [true, false] {
        let tuned = Tuned::with_sizes(CRAMPED, with_alias, &CPU_FACTORS);
        // As slow as the size before, at twice the price.
        let change = tuned.until(&[State::Settled, State::Quarantined], Quality { slower: 8, ..GOOD });
        assert_eq!(change.to, Megabytes(1_024), "{change:?}");
        assert_eq!(
            (change.state, change.cause),
            (State::Quarantined, Some(Cause::Worse)),
            "{}",
            change.reason
        );
        assert_serves(&tuned, 512, with_alias);
    }
}

#[test]
fn an_out_of_memory_is_repaired_without_waiting_for_evidence() {
    for with_alias in [true, false] {
        let mut tuned = Tuned::new(Kind { memory: 512, ..IDLE }, with_alias);
        assert!(matches!(tuned.settings.strategy, Strategy::Cost { .. }));
        // Any other change needs more than there will be.
        tuned.settings.limits.evidence_invocations = u64::MAX;
        tuned.rounds(2);
        assert!(tuned.change().is_none(), "{:?}", tuned.change());
        tuned.workload.invoke(NAME, if with_alias { "1" } else { "$LATEST" }, 512, 300, KILLED);
        let killed_us = tuned.plane.lock().now_us;
        tuned.round();
        let change = tuned.change().unwrap_or_else(|| panic!("{}", tuned.plan()));
        assert!(change.planned_at_us == killed_us && change.is_repair(), "{change:?}");
        let settled = tuned.until(&[State::Settled, State::Quarantined], GOOD);
        assert_eq!(settled.state, State::Settled, "{}", settled.reason);
        assert!(settled.to >= Megabytes(615) && settled.to <= Megabytes(1_024), "{settled:?}");
        assert_eq!(settled.after.map(|after| after.out_of_memory), Some(0), "{settled:?}");
        assert_serves(&tuned, settled.to.0, with_alias);
    }
}

#[test]
fn an_out_of_memory_is_repaired_in_one_round() {
    let kind = Kind { memory: 512, ..IDLE };
    let tuned = Tuned::new(kind, false);
    tuned.workload.invoke(NAME, "$LATEST", 512, 300, KILLED);
    tuned.rounds(2);
    let change = tuned.change().unwrap();
    assert!(
        change.intent.for_memory && change.to > Megabytes(512) && change.to <= Megabytes(1_024),
        "{change:?}"
    );
    assert_eq!(tuned.plane.record(NAME).latest.config.memory_mb, change.to.0);
    tuned.assert_no_violations();
}

#[test]
fn a_repair_is_kept_when_the_invocations_that_were_killed_take_longer() {
    for with_alias in [true, false] {
        let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, with_alias);
        let version = if with_alias { "1" } else { "$LATEST" };
        tuned.workload.invoke(NAME, version, 512, 300, KILLED);
        let change = tuned.until(&[State::Settled, State::Quarantined], SLOW);
        assert_eq!(change.state, State::Settled, "{}", change.reason);
        tuned.assert_no_violations();
    }
}
