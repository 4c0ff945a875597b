//! Rounds that take long, and requests of people that stay.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailor_collector::changes::State;
use tailor_collector::changes::fleet;
use tailor_collector::clock::DAY_US;
use tailor_collector::tuner::requests::FOLDER;

use super::fleet::add_other;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;
use crate::{tailor_changes, with_requests};

/// Functions that the tuner may not change. Each round reads them.
const OTHERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn add_others(tuned: &Tuned) {
    for name in OTHERS {
        add_other(tuned, name, 1_000);
        tuned.plane.tag(name, "observe");
    }
}

/// Keeps the names of the functions that are read. At the read with a number, a person requests a freeze.
fn reads_of(tuned: &Tuned, freeze: Option<(usize, &Path)>) -> Arc<Mutex<Vec<String>>> {
    let reads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&reads);
    let freeze = freeze.map(|(at, data)| (at, data.join(FOLDER)));
    tuned.plane.lock().at_read = Some(Box::new(move |name| {
        let mut reads = kept.lock().unwrap();
        reads.push(name.to_owned());
        if let Some((_, folder)) = freeze.as_ref().filter(|(at, _)| *at == reads.len()) {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("1.json"), r#"{"request":"freeze","reason":"an incident"}"#).unwrap();
        }
    }));
    reads
}

fn frozen(tuned: &Tuned) -> Option<String> {
    fleet::frozen(&tuned.plane.lock().log).map(|(_, reason)| reason)
}

#[test]
fn a_request_does_not_wait_for_the_end_of_a_long_round() {
    let data = tempfile::tempdir().unwrap();
    let tuned = with_requests(data.path(), true);
    tuned.until(&[State::Canary], GOOD);
    add_others(&tuned);
    let tuner = tuned.tuner();
    tuned.round_of(&tuner);
    let planned = |count: usize| assert_eq!(tuner.latest_round().functions.len(), count);
    planned(OTHERS.len() + 1);
    let reads = reads_of(&tuned, Some((4, data.path())));
    tuned.round_of(&tuner);
    assert!(reads.lock().unwrap().len() <= 5, "{reads:?}");
    planned(OTHERS.len() + 1);
    tuned.round_of(&tuner);
    assert_eq!(frozen(&tuned).as_deref(), Some("an incident"));
    tuned.plane.lock().at_read = None;
    tuned.rounds(4);
    assert_eq!(tuned.state(), State::Frozen);
    tuned.assert_no_violations();
}

#[test]
fn open_changes_are_continued_during_a_long_round() {
    let data = tempfile::tempdir().unwrap();
    let tuned = with_requests(data.path(), true);
    tuned.until(&[State::Canary], GOOD);
    add_others(&tuned);
    let reads = reads_of(&tuned, None);
    tuned.plane.lock().read_us = 10_000_000;
    tuned.round();
    let reads = reads.lock().unwrap().clone();
    let others = reads.iter().filter(|name| *name != NAME).count();
    assert_eq!(others, OTHERS.len(), "{reads:?}");
    let gaps = reads.split(|name| name == NAME).map(<[String]>::len);
    assert!(gaps.max().unwrap() <= 4, "{reads:?}");
}

/// A function with a settled change and an open one whose way back Lambda refuses.
fn stuck(data: &Path) -> Tuned {
    let tuned = with_requests(data, true);
    tuned.until(&[State::Settled], GOOD);
    tuned.traffic(2_000, GOOD);
    tuned.pass(15 * DAY_US);
    tuned.traffic(600_000, GOOD);
    tuned.rounds(4);
    tuned.until(&[State::Canary], GOOD);
    tuned.plane.lock().refuse_all = true;
    tailor_changes(data, &["revert-all", "--reason", "a test"]);
    tuned
}

#[test]
fn a_revert_that_cannot_finish_does_not_prevent_an_unfreeze() {
    let data = tempfile::tempdir().unwrap();
    let tuned = stuck(data.path());
    tuned.rounds(4);
    assert_eq!(tuned.state(), State::RollingBack);
    assert_eq!(tuned.requests().len(), 1, "the settled change waits for the open one");
    assert!(frozen(&tuned).is_some());
    tailor_changes(data.path(), &["unfreeze"]);
    tuned.rounds(3);
    assert!(tuned.requests().is_empty());
    assert_eq!(frozen(&tuned), None);
    assert_eq!(tuned.plane.changes()[0].state, State::Settled, "the rest stays");
}

#[test]
fn a_revert_is_done_when_every_change_is_on_its_way_back() {
    let data = tempfile::tempdir().unwrap();
    let tuned = with_requests(data.path(), true);
    tuned.until(&[State::Canary], GOOD);
    tuned.plane.lock().refuse_all = true;
    tailor_changes(data.path(), &["revert-all", "--reason", "a test"]);
    tuned.rounds(1);
    assert_eq!((tuned.state(), tuned.requests().len()), (State::RollingBack, 0));
    // Lambda refuses it until the tuner would be frozen for that reason.
    tuned.rounds(3);
    tailor_changes(data.path(), &["unfreeze"]);
    tuned.rounds(2);
    assert_eq!(frozen(&tuned), None);
    tuned.plane.lock().refuse_all = false;
    tuned.rounds(4);
    assert_eq!(tuned.state(), State::RolledBack);
    tuned.assert_no_violations();
}

#[test]
fn a_request_that_stays_does_not_remove_the_pause_between_rounds() {
    let data = tempfile::tempdir().unwrap();
    let tuned = stuck(data.path());
    tuned.rounds(4);
    let reads = reads_of(&tuned, None);
    tuned.run_for(Duration::from_millis(2_500));
    assert_eq!(tuned.requests().len(), 1);
    let reads = reads.lock().unwrap().len();
    assert!(reads > 0 && reads <= 3 * 24, "three rounds: {reads} reads");
}
