//! Measurements of code that is not served any more.

use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::tuner::limits::Limits;

use super::case::{Case, NONE};
use crate::common::control_plane::Foreign;
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;
use crate::{IDLE, KILLED};

#[test]
fn the_code_that_is_served_must_be_measured() {
    let mut case = Case::new();
    let needed = case.limits.evidence_of_code();
    assert_eq!(needed, 100, "a tenth of the number for all code");
    case.served.warm = needed - 1;
    assert_eq!(case.codes(), ["new-code"]);
    case.served.warm = needed;
    assert_eq!(case.codes(), NONE);
    case.limits = Limits { evidence_code_divisor: 0, ..case.limits };
    case.served.warm = 0;
    assert_eq!(case.codes(), NONE, "zero is no limit");

    for with_alias in [false, true] {
        let tuned = Tuned::new(IDLE, with_alias);
        let planned = if with_alias { "2048 MB to 1536 MB" } else { "2048 MB to 1741 MB" };
        assert!(tuned.plan().contains(planned), "{}", tuned.plan());
        tuned.pass(HOUR_US);
        tuned.plane.foreign(NAME, Foreign::Release);
        tuned.pass(2 * HOUR_US);
        tuned.traffic(90, GOOD);
        tuned.rounds(2);
        assert!(tuned.change().is_none() && tuned.plan().contains("new-code"), "{}", tuned.plan());
        tuned.traffic(200, GOOD);
        assert!(tuned.plan().contains(planned), "{}", tuned.plan());
    }
}

#[test]
fn a_function_that_is_deployed_daily_is_changed() {
    for with_alias in [false, true] {
        let tuned = Tuned::new(IDLE, with_alias);
        for _ in 0..16 {
            tuned.plane.foreign(NAME, Foreign::Release);
            tuned.pass(2 * HOUR_US);
            tuned.traffic(40_000, GOOD);
            tuned.pass(DAY_US - 2 * HOUR_US);
        }
        tuned.plane.foreign(NAME, Foreign::Release);
        tuned.pass(2 * HOUR_US);
        tuned.traffic(3_000, GOOD);
        tuned.rounds(2);
        assert!(tuned.change().is_some(), "{}", tuned.plan());
    }
}

#[test]
fn kills_of_code_that_is_not_served_start_no_increase() {
    for with_alias in [false, true] {
        let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, with_alias);
        let kill = |version: &str| tuned.workload.invoke(NAME, version, 512, 300, KILLED);
        kill(if with_alias { "1" } else { "$LATEST" });
        tuned.pass(HOUR_US);
        tuned.plane.foreign(NAME, Foreign::Release);
        tuned.pass(2 * HOUR_US);
        tuned.traffic(20_000, GOOD);
        tuned.rounds(3);
        assert!(tuned.change().is_none() && tuned.plan().contains("old-code"), "{}", tuned.plan());
        kill(if with_alias { "2" } else { "$LATEST" });
        tuned.rounds(2);
        let change = tuned.change().unwrap_or_else(|| panic!("{}", tuned.plan()));
        assert!(change.intent.for_memory && change.to > change.from, "{change:?}");
        tuned.assert_no_violations();
    }
}

#[test]
fn an_increase_that_the_code_needs_is_made_in_spite_of_earlier_kills() {
    let mut case = Case::new();
    case.needs_memory(700);
    case.advice().floor.out_of_memory = 5;
    let margin = case.advice().floor.margin;
    case.served.peak_mb = 512.0 / (1.0 + margin) - 1.0;
    assert_eq!(case.refusal().0, "old-code");
    case.served.peak_mb += 2.0;
    assert_eq!(case.codes(), NONE, "its own memory use asks for it");
    case.served.peak_mb = 0.0;
    (case.served.out_of_memory, case.recent_kills) = (1, 1);
    assert_eq!(case.codes(), NONE);
}
