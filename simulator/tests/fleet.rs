//! A small fleet for some weeks: the rules of the tuner, on kinds of functions for which it was not tuned.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tailor_collector::clock::DAY_US;
use tailor_simulator::kind::Kind;
use tailor_simulator::{Simulation, run};

#[test]
fn a_small_fleet_saves_without_harm() {
    let mut simulation = Simulation::new(18, 50, 7);
    simulation.detail.evaluation_us = 3 * DAY_US;
    simulation.detail.samples = 12;
    simulation.round_minutes = [60, 360];
    let report = run(&simulation).unwrap();
    println!("{}", report.text());
    assert_eq!(report.kinds.len(), Kind::ALL.len(), "every kind is simulated");
    assert_eq!(report.tuner.out_of_memory_by_reductions, 0);
    assert!(report.max_changes_in_30_days <= 2 && report.tuner.saved_usd > 0.0);
    assert_eq!(report.left_to_templates, 0, "no function has a template that sets its size");
    assert!(report.states.get("settled").is_some_and(|count| *count > 0), "{:?}", report.states);
    assert!(report.tuner.saved_usd <= report.oracle_any_speed.saved_usd);
    assert_eq!(report.tuner.slower_functions, 0);
}
