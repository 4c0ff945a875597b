//! Windows and dates without changes, for changes that are open when they begin.

use tailor_collector::changes::{Cause, Change, State};
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::tuner::dates::Dates;

use crate::common::control_plane::Fault;
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::{GOOD, Quality};
use crate::{FAILING, IDLE, KILLED};

/// The test's clock is on a Sunday.
const CLOSED: &str = "Tue 00:00-24:00";
const OPEN: &str = "Mon-Sun 00:00-24:00";

/// The first Tuesday after the start of a [`Tuned`]: 2026-12-15.
const TUESDAY_US: u64 = 1_797_292_800_000_000;

fn set_window(tuned: &Tuned, window: &str) {
    tuned.plane.set_tag(NAME, "tailor:window", window);
}

/// Passes hours with rounds and traffic.
fn pass_hours(tuned: &Tuned, hours: u64, quality: Quality) -> Change {
    for _ in 0..4 * hours {
        tuned.rounds(2);
        tuned.pass(HOUR_US / 4);
        tuned.traffic(6_000, quality);
    }
    tuned.change().unwrap()
}

#[test]
fn a_canary_waits_for_its_window_and_for_dates_without_changes() {
    let mut tuned = Tuned::new(IDLE, true);
    let begun = tuned.until(&[State::Canary], GOOD);
    set_window(&tuned, CLOSED);
    let waiting = pass_hours(&tuned, 10, GOOD);
    assert_eq!((waiting.state, waiting.weight), (State::Hold, begun.weight), "{}", waiting.reason);
    assert!(waiting.reason.starts_with("outside-window"), "{}", waiting.reason);
    set_window(&tuned, OPEN);
    tuned.settings.policy.freeze_dates = vec![Dates::parse("2026-12-01..2026-12-31").unwrap()];
    let frozen = pass_hours(&tuned, 30, GOOD);
    assert_eq!((frozen.state, frozen.weight), (State::Hold, begun.weight), "no deadline: {}", frozen.reason);
    assert!(frozen.steps.len() <= waiting.steps.len() + 2, "the log does not grow: {:#?}", frozen.steps);
    tuned.settings.policy.freeze_dates.clear();
    let settled = tuned.until(&[State::Settled, State::Quarantined], GOOD);
    assert_eq!(settled.state, State::Settled, "{}", settled.reason);
    tuned.assert_no_violations();
}

#[test]
fn a_rollback_does_not_wait_for_a_window() {
    for state in [State::Canary, State::Soaking] {
        let tuned = Tuned::new(IDLE, true);
        tuned.until(&[state], GOOD);
        let weights = tuned.change().unwrap().weights;
        set_window(&tuned, CLOSED);
        let change = tuned.until(&[State::Quarantined, State::Settled], FAILING);
        assert_eq!(
            (change.state, change.cause),
            (State::Quarantined, Some(Cause::Worse)),
            "{}",
            change.reason
        );
        let highest = |weights: &[u32]| weights.iter().copied().max();
        assert_eq!(highest(&change.weights), highest(&weights));
        tuned.assert_no_violations();
    }
    // Without measurements, as in the window.
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Canary], GOOD);
    set_window(&tuned, CLOSED);
    tuned.pass(HOUR_US);
    tuned.rounds(3);
    assert_eq!(tuned.state(), State::Hold);
    tuned.pass(7 * HOUR_US);
    tuned.rounds(6);
    let change = tuned.change().unwrap();
    assert_eq!(
        (change.state, change.cause),
        (State::Quarantined, Some(Cause::Deadline)),
        "{}",
        change.reason
    );
    tuned.assert_no_violations();
}

#[test]
fn a_repair_does_not_wait_for_a_window() {
    for with_alias in [true, false] {
        let tuned = Tuned::new(Kind { memory: 512, ..IDLE }, with_alias);
        set_window(&tuned, CLOSED);
        let version = if with_alias { "1" } else { "$LATEST" };
        tuned.workload.invoke(NAME, version, 512, 300, KILLED);
        let change = tuned.until(&[State::Settled, State::Quarantined], GOOD);
        assert_eq!(change.state, State::Settled, "{}", change.reason);
        assert!(tuned.plane.lock().now_us < TUESDAY_US, "it did not wait");
        tuned.assert_no_violations();
    }
}

/// A write that was planned in the window and did not take effect is not made outside of it.
#[test]
fn a_write_that_failed_in_the_window_is_not_repeated_outside_of_it() {
    let mut given_up = 0;
    for at in 0..8 {
        let tuned = Tuned::new(IDLE, true);
        while tuned.change().is_none_or(|change| change.weight < 5_000) {
            tuned.rounds(1);
            assert!(!tuned.change().unwrap().promoted, "the last weight was missed");
            tuned.pass(HOUR_US / 4);
            tuned.traffic(6_000, GOOD);
        }
        tuned.traffic(20_000, GOOD);
        tuned.pass(HOUR_US / 4);
        tuned.plane.lock().fault = Some((at, Fault::CrashBefore));
        tuned.round();
        tuned.plane.lock().fault = None;
        if tuned.state() != State::Promoting || tuned.plane.record(NAME).aliases["live"].additional.is_none()
        {
            continue;
        }
        given_up += 1;
        set_window(&tuned, CLOSED);
        let waiting = pass_hours(&tuned, 2, GOOD);
        assert_eq!(waiting.state, State::Hold, "{}", waiting.reason);
        let additional = tuned.plane.record(NAME).aliases["live"].additional.clone();
        assert_eq!(additional, Some(("2".to_owned(), 0.5)));
        set_window(&tuned, OPEN);
        assert_eq!(tuned.until(&[State::Settled, State::Quarantined], GOOD).state, State::Settled);
        tuned.assert_no_violations();
    }
    assert!(given_up > 0);
    // The same for a function without an alias, which would be changed at once.
    let mut given_up = 0;
    for at in 0..6 {
        let tuned = Tuned::new(IDLE, false);
        tuned.plane.lock().fault = Some((at, Fault::CrashBefore));
        tuned.round();
        tuned.plane.lock().fault = None;
        if tuned.change().is_none() || tuned.plane.record(NAME).latest.config.memory_mb != IDLE.memory {
            continue;
        }
        given_up += 1;
        set_window(&tuned, CLOSED);
        tuned.rounds(2);
        tuned.pass(2 * HOUR_US);
        tuned.rounds(4);
        let change = tuned.change().unwrap();
        assert!(!change.state.is_open(), "{:?}: {}", change.state, change.reason);
        assert_eq!(tuned.plane.record(NAME).latest.config.memory_mb, IDLE.memory, "{}", change.reason);
        assert!(tuned.plane.lock().writes.is_empty());
        tuned.pass(DAY_US);
        tuned.assert_no_violations();
    }
    assert!(given_up > 1);
}
