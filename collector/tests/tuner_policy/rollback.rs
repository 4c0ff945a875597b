//! The end of a change that cannot be rolled back, or not by the tuner: its state is never that of a rollback.

use std::fs;

use tailor_collector::changes::unfinished::Unfinished;
use tailor_collector::changes::{Cause, Change, State};
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{Store, Tenant};
use tailor_collector::tuner::mode::Mode;
use tailor_collector::tuner::unfinished::unfinished;
use tokio::runtime::Builder;

use crate::common::control_plane::{Fault, Foreign};
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;
use crate::{FAILING, IDLE, tailor_changes, with_requests};

#[test]
fn a_rollback_after_a_deployment_restores_the_size_or_says_what_is_left() {
    for with_alias in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let tuned = with_requests(data.path(), with_alias);
        tuned.until(&[State::Settled], GOOD);
        tuned.plane.foreign(NAME, Foreign::Release);
        tuned.pass(3_000_000);
        tailor_changes(data.path(), &["revert-all", "--reason", "a test"]);
        tuned.rounds(6);
        let (change, record) = (tuned.change().unwrap(), tuned.plane.record(NAME));
        assert_eq!(record.latest.config.memory_mb, IDLE.memory, "alias {with_alias}");
        assert_eq!(change.cause, Some(Cause::Operator));
        if with_alias {
            assert_eq!(change.state, State::ExternalChange, "{}", change.reason);
            assert!(change.is_not_rolled_back());
            let left = "alias `live` serves 1536 MB with version 3, which the change did not publish: publish `$LATEST`";
            assert!(change.reason.contains(left), "{}", change.reason);
            assert_eq!(record.aliases["live"].version, "3", "what others released stays");
        } else {
            assert_eq!(change.state, State::RolledBack, "{}", change.reason);
        }
        assert!(tuned.requests().is_empty());
        tuned.assert_no_violations();
    }
}

#[test]
fn without_the_previous_version_a_change_is_not_rolled_back() {
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Soaking], GOOD);
    tuned.plane.foreign(NAME, Foreign::Prune);
    let change = tuned.until(&[State::ExternalChange, State::Quarantined, State::Settled], FAILING);
    assert_eq!(
        (change.state, change.cause),
        (State::ExternalChange, Some(Cause::Worse)),
        "{}",
        change.reason
    );
    assert!(change.is_not_rolled_back());
    assert!(change.reason.contains("with version 2, because version 1 was deleted"), "{}", change.reason);
    assert!(change.quarantined_until_us.is_some(), "it is not reduced again");
    let record = tuned.plane.record(NAME);
    assert_eq!(record.latest.config.memory_mb, IDLE.memory, "the next publication has the previous size");
    let alias = &record.aliases["live"];
    assert_eq!((alias.version.as_str(), alias.description.as_str()), ("2", "production"));
    // The rollback counts for the fleet.
    assert!(tuned.plan().contains("quarantine"), "{}", tuned.plan());
    tuned.assert_no_violations();
}

/// Code that is deployed while `$LATEST` has the size of the trial: the next publication of its owner must not have that size.
#[test]
fn no_deployment_leaves_the_size_of_a_trial_in_latest() {
    let (mut interrupted, mut released) = (0, 0);
    for write in [Foreign::Code, Foreign::Release] {
        for at in 0..16 {
            let tuned = Tuned::new(IDLE, true);
            tuned.rounds(1);
            tuned.plane.lock().fault = Some((at, Fault::Foreign(write)));
            let ends = [State::Settled, State::Quarantined, State::Blocked, State::ExternalChange];
            let change = tuned.until(&ends, GOOD);
            let (case, record) = (format!("{write:?} at {at}: {}", change.reason), tuned.plane.record(NAME));
            let expected = if change.promoted { change.to.0 } else { IDLE.memory };
            assert_eq!(record.latest.config.memory_mb, expected, "{case}");
            let alias = &record.aliases["live"];
            let served = record.version(&alias.version).unwrap().config.memory_mb;
            if !change.promoted && served == change.to.0 {
                assert!(change.reason.contains("which the change did not publish"), "{case}");
                released += 1;
            }
            interrupted += u32::from(!change.promoted);
            tuned.assert_no_violations();
        }
    }
    assert!(interrupted > 4 && released > 0, "{interrupted} {released}");
}

/// What is said of the alias of a canary.
fn instruction(change: &Change) -> String {
    let weight = change.weights.iter().rev().find(|weight| **weight > 0).unwrap();
    let percent = f64::from(*weight) / 100.0;
    format!("alias `live` of `orders-webhook` sends {percent} % of the invocations to version 2 with 1536 MB")
}

#[test]
fn a_change_that_waits_for_permission_says_what_a_person_can_do() {
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Canary], GOOD);
    tuned.plane.lock().refuse_all = true;
    let cause = tuned.until(&[State::RollingBack], FAILING).reason;
    tuned.plane.tag(NAME, "recommend");
    tuned.rounds(3);
    let change = tuned.change().unwrap();
    assert!(change.reason.starts_with(&cause), "{}", change.reason);
    assert!(change.reason.contains(&instruction(&change)), "{}", change.reason);
    assert!(change.reason.contains("or set the alias to version 1 without weights"), "{}", change.reason);
    tuned.rounds(3);
    assert_eq!(tuned.change().unwrap().steps.len(), change.steps.len(), "it is logged once");
    let open = Unfinished::of(&change).unwrap();
    assert_eq!((open.alias.as_deref(), open.version.as_deref()), (Some("live"), Some("2")));

    // A collector that starts in another mode finds it.
    let data = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(data.path()).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let events = tuned.plane.lock().log.clone();
    let found = runtime.block_on(async {
        for event in events {
            store.log_change(&Tenant::default(), &event).await.unwrap();
        }
        let of = async |mode| unfinished(&store, &Tenant::default(), mode).await.unwrap();
        [of(Mode::Off).await, of(Mode::Apply).await]
    });
    assert_eq!(found, [vec![open], vec![]]);

    tuned.plane.lock().refuse_all = false;
    tuned.plane.tag(NAME, "apply");
    tuned.rounds(6);
    let change = tuned.change().unwrap();
    assert_eq!(
        (change.state, change.reason),
        (State::Quarantined, cause),
        "the reason is that of the rollback"
    );
    assert_eq!(Unfinished::of(&tuned.change().unwrap()), None);
    tuned.assert_no_violations();
}

/// The error at the start of a collector whose mode may not end a change.
#[test]
fn a_collector_that_may_not_end_a_change_says_so_at_its_start() {
    let tuned = Tuned::new(IDLE, true);
    let change = tuned.until(&[State::Canary], GOOD);
    let data = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(data.path()).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let events = tuned.plane.lock().log.clone();
    runtime.block_on(async {
        for event in events {
            store.log_change(&Tenant::default(), &event).await.unwrap();
        }
    });
    drop(store);
    let log = fs::File::create(data.path().join("log")).unwrap();
    let mut collector = std::process::Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["serve", "--listen", "127.0.0.1:0", "--tuner", "off", "--data"])
        .arg(data.path())
        .stderr(log.try_clone().unwrap())
        .stdout(log)
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(data.path().join("log")).unwrap();
    for _ in 0..600 {
        if text().contains("does not permit to end it") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    collector.kill().unwrap();
    collector.wait().unwrap();
    let text = text();
    assert!(text.contains("ERROR") && text.contains(&instruction(&change)), "{text}");
}
