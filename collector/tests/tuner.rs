//! The tuner on the sandbox's control plane in this process: one scenario each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common {
    pub(crate) mod control_plane;
    pub(crate) mod faults;
    #[allow(dead_code, reason = "not every function of the fleet is used")]
    pub(crate) mod fleet;
    pub(crate) mod tuned;
    pub(crate) mod workload;
}
mod tuner_policy {
    mod case;
    mod code;
    mod fleet;
    mod increase;
    mod latest;
    mod long_rounds;
    mod pace;
    mod rollback;
    mod rules;
    mod times;
    mod versions;
}

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use common::control_plane::{Fault, Foreign};
use common::fleet::{KINDS, Kind};
use common::tuned::{NAME, Tuned};
use common::workload::{GOOD, Quality};
use tailor_collector::changes::fleet::{self, FleetAction};
use tailor_collector::changes::{Cause, State, Write, audit, ledger};
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::tuner::mode::Mode;
use tailor_collector::tuner::requests::RequestStore;
use tailor_sizing::units::Megabytes;

/// A function that waits most of the time and has far too much memory.
const IDLE: Kind = Kind { cpu_us: 400, ..KINDS[2] };

const SLOW: Quality = Quality { slower: 3, ..GOOD };
const FAILING: Quality = Quality { failing_one_of: 20, ..GOOD };
const KILLED: Quality = Quality { killed_one_of: 100, ..GOOD };

#[test]
fn a_change_through_an_alias_goes_in_weights_and_is_kept() {
    let tuned = Tuned::new(IDLE, true);
    let settled = tuned.until(&[State::Settled, State::Quarantined], GOOD);
    assert_eq!(settled.state, State::Settled, "{}", settled.reason);
    let record = tuned.plane.record(NAME);
    let alias = &record.aliases["live"];
    assert_eq!(
        (alias.version.as_str(), &alias.additional, alias.description.as_str()),
        ("2", &None, "production")
    );
    assert_eq!(record.versions[&2].config.memory_mb, settled.to.0);
    assert_eq!(record.latest.config.memory_mb, settled.to.0, "later versions have the new size as well");
    assert_eq!(settled.to, Megabytes(1_536), "at most a quarter less in one change");
    let weights: Vec<u32> = tuned
        .plane
        .lock()
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::SetAlias { additional, .. } => additional.as_ref().map(|(_, weight)| *weight),
            _ => None,
        })
        .collect();
    assert_eq!(weights, [100, 500, 2_500, 5_000]);
    let entry = &ledger::entries(&tuned.plane.changes())[0];
    let realised = entry.realised_per_million.unwrap().to_dollars();
    let predicted = entry.predicted_per_million.to_dollars();
    assert!(realised > 0.8 * predicted && realised < 1.2 * predicted, "{realised} {predicted}");
    tuned.assert_no_violations();
}

#[test]
fn a_function_without_an_alias_is_changed_at_once_and_observed() {
    let tuned = Tuned::new(IDLE, false);
    tuned.rounds(4);
    assert_eq!(tuned.state(), State::Soaking);
    assert_eq!(tuned.change().unwrap().to, Megabytes(1_741), "at most 15 % less for all invocations at once");
    let settled = tuned.until(&[State::Settled, State::Quarantined], GOOD);
    assert_eq!(settled.state, State::Settled, "{}", settled.reason);
    assert_eq!(tuned.plane.record(NAME).latest.config.memory_mb, settled.to.0);
    let writes = tuned.plane.lock().writes.len();
    tuned.pass(6 * DAY_US);
    tuned.traffic(10_000, GOOD);
    tuned.rounds(3);
    assert_eq!(tuned.plane.lock().writes.len(), writes, "the cool-down delays the next change");
    tuned.assert_no_violations();
}

#[test]
fn a_worse_change_is_rolled_back() {
    for with_alias in [true, false] {
        for quality in [SLOW, FAILING, KILLED] {
            let tuned = Tuned::new(IDLE, with_alias);
            let change = tuned.until(&[State::Settled, State::Quarantined], quality);
            assert_eq!(change.state, State::Quarantined, "{quality:?}: {}", change.reason);
            assert_eq!(change.cause, Some(Cause::Worse), "{quality:?}: {}", change.reason);
            let record = tuned.plane.record(NAME);
            assert_eq!(record.latest.config.memory_mb, IDLE.memory);
            if let Some(alias) = record.aliases.get("live") {
                assert_eq!((alias.version.as_str(), &alias.additional), ("1", &None));
                assert_eq!(alias.description, "production");
                assert_eq!(record.versions.len(), 1, "the published version is deleted");
                assert!(change.weights.iter().all(|weight| *weight <= 2_500), "found at a small weight");
            }
            assert!(change.after.is_some(), "the measurements are in the log");
            let until = change.quarantined_until_us.unwrap() - tuned.plane.lock().now_us;
            assert!(until > 29 * DAY_US, "{until}");
            tuned.assert_no_violations();
        }
    }
}

/// Invocations that take twice as long at both sizes have another reason than the size.
#[test]
fn a_workload_that_becomes_slower_does_not_roll_the_new_size_back() {
    let tuned = Tuned::new(IDLE, true);
    tuned.rounds(4);
    while tuned.state().is_open() {
        tuned.workload.traffic_by_size(NAME, 6_000, |_| Quality { slower: 2, ..GOOD });
        tuned.rounds(4);
        tuned.pass(HOUR_US);
    }
    let change = tuned.change().unwrap();
    assert_eq!(change.state, State::Settled, "{}", change.reason);
    tuned.assert_no_violations();
}

#[test]
fn no_write_without_recommendation_and_permission() {
    type Modification = fn(&mut Tuned);
    let modifications: [(&str, Modification); 13] = [
        ("not tagged", |tuned| tuned.plane.tag(NAME, "observe")),
        ("mode", |tuned| tuned.settings.mode = Mode::Patch),
        ("only up", |tuned| tuned.settings.mode = Mode::ApplyUp),
        ("account", |tuned| tuned.settings.policy.accounts = vec!["999999999999".to_owned()]),
        ("region", |tuned| tuned.settings.policy.regions = vec!["us-east-1".to_owned()]),
        ("another size", |tuned| tuned.plane.foreign(NAME, Foreign::Memory(1_024))),
        ("code that is not released", |tuned| {
            tuned.plane.foreign(NAME, Foreign::Code);
            tuned.pass(2 * HOUR_US);
        }),
        ("evidence", |tuned| tuned.settings.limits.evidence_invocations = 1_000_000),
        ("time", |tuned| tuned.settings.limits.evidence_us = 60 * DAY_US),
        ("traffic", |tuned| tuned.settings.limits.canary_stall_us = HOUR_US / 100),
        ("telemetry", |tuned| tuned.workload.health.lock().unwrap().lost = 0.02),
        ("prices", |tuned| tuned.workload.health.lock().unwrap().price_age_days = Some(61)),
        ("date of the prices", |tuned| tuned.workload.health.lock().unwrap().price_age_days = None),
    ];
    for (case, modify) in modifications {
        let mut tuned = Tuned::new(IDLE, true);
        modify(&mut tuned);
        tuned.rounds(3);
        assert!(tuned.plane.lock().writes.is_empty() && tuned.change().is_none(), "{case}");
    }
}

#[test]
fn imported_functions_are_not_changed() {
    let tuned = Tuned::new(IDLE, true);
    tuned.workload.is_imported.store(true, Ordering::Relaxed);
    assert!(tuned.plan().contains("imported"), "{}", tuned.plan());
    tuned.rounds(3);
    assert!(tuned.plane.lock().writes.is_empty() && tuned.change().is_none());
    // From the first batch of the layer on, there is a measurement.
    tuned.workload.is_imported.store(false, Ordering::Relaxed);
    tuned.rounds(1);
    assert!(tuned.change().is_some());
}

#[test]
fn a_change_outside_the_tuner_is_kept() {
    for write in
        [Foreign::Memory(777), Foreign::Code, Foreign::Release, Foreign::Description, Foreign::NoWeights]
    {
        let tuned = Tuned::new(IDLE, true);
        tuned.until(&[State::Canary], GOOD);
        tuned.plane.foreign(NAME, write);
        let changed = tuned.plane.record(NAME);
        tuned.pass(3_000_000);
        tuned.rounds(6);
        let change = tuned.change().unwrap();
        assert_eq!(change.state, State::ExternalChange, "{write:?}: {}", change.reason);
        let record = tuned.plane.record(NAME);
        let (alias, before) = (&record.aliases["live"], &changed.aliases["live"]);
        assert_eq!(record.latest.revision_id, changed.latest.revision_id, "{write:?}");
        assert_eq!(alias.version, before.version, "{write:?}");
        assert_eq!(alias.additional, None, "our weight is removed, {write:?}");
        tuned.assert_no_violations();
    }
}

#[test]
fn a_freeze_ends_open_changes_and_allows_none() {
    for state in [State::Canary, State::Soaking] {
        let tuned = Tuned::new(IDLE, true);
        tuned.until(&[state], GOOD);
        // Lambda does not answer: the freeze is in force, and the way back waits.
        tuned.freeze(FleetAction::Freeze);
        tuned.plane.lock().fault = Some((0, Fault::CrashBefore));
        tuned.round();
        tuned.rounds(6);
        assert_eq!(tuned.state(), State::Frozen);
        let record = tuned.plane.record(NAME);
        assert_eq!(
            (record.aliases["live"].version.as_str(), record.latest.config.memory_mb),
            ("1", IDLE.memory)
        );
        tuned.pass(40 * DAY_US);
        tuned.traffic(600_000, GOOD);
        tuned.rounds(3);
        assert_eq!(tuned.plane.changes().len(), 1);
        tuned.freeze(FleetAction::Unfreeze);
        tuned.rounds(3);
        assert_eq!(tuned.plane.changes().len(), 2);
        tuned.assert_no_violations();
    }
}

#[test]
fn removing_the_tag_ends_the_change_without_a_write() {
    let tuned = Tuned::new(IDLE, false);
    tuned.until(&[State::Soaking], GOOD);
    let writes = tuned.plane.lock().writes.len();
    tuned.plane.tag(NAME, "recommend");
    tuned.rounds(3);
    assert_eq!(tuned.state(), State::ExternalChange);
    assert_eq!(tuned.plane.lock().writes.len(), writes);
    // A weighted alias waits for the tag.
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Canary], GOOD);
    tuned.plane.tag(NAME, "recommend");
    tuned.rounds(3);
    assert_eq!(tuned.state(), State::RollingBack);
    tuned.pass(3 * DAY_US);
    tuned.rounds(3);
    assert_eq!(tuned.state(), State::RollingBack);
    tuned.plane.tag(NAME, "apply");
    tuned.rounds(4);
    assert_eq!(tuned.plane.record(NAME).aliases["live"].additional, None);
    tuned.assert_no_violations();
}

#[test]
fn without_measurements_the_canary_holds_and_ends_at_its_deadline() {
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Canary], GOOD);
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
fn a_function_with_a_goal_of_its_own_is_changed_when_only_that_advises_it() {
    let tuned = Tuned::new(Kind { memory: 1_769, ..KINDS[0] }, false);
    tuned.rounds(2);
    assert!(tuned.change().is_none_or(|change| change.to < change.from), "{:?}", tuned.change());
    let tuned = Tuned::new(Kind { memory: 512, ..KINDS[0] }, false);
    tuned.plane.set_tag(NAME, "tailor:strategy", "speed");
    tuned.rounds(2);
    let change = tuned.change().unwrap_or_else(|| panic!("{}", tuned.plan()));
    assert!(change.to > change.from, "{change:?}");
}

#[test]
fn a_crash_at_every_operation_loses_nothing() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::AnswerLost, Fault::Throttled] {
        for at in (0..70).step_by(3) {
            let tuned = Tuned::new(IDLE, true);
            tuned.plane.lock().fault = Some((at, fault));
            let settled = tuned.until(&[State::Settled, State::Quarantined, State::Blocked], GOOD);
            assert_eq!(settled.state, State::Settled, "{fault:?} at {at}: {}", settled.reason);
            assert_eq!(tuned.plane.record(NAME).versions.len(), 2, "{fault:?} at {at}");
            tuned.assert_no_violations();
        }
    }
}

#[test]
fn a_refused_rollback_freezes_the_fleet() {
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Canary], GOOD);
    tuned.plane.lock().refuse_all = true;
    let change = tuned.until(&[State::RollingBack], FAILING);
    let cause = change.reason.clone();
    tuned.rounds(6);
    let frozen = || fleet::frozen(&tuned.plane.lock().log).map(|(_, reason)| reason);
    let reason = frozen().unwrap();
    assert!(
        reason.contains(NAME) && reason.contains("3 times") && reason.contains("AccessDenied"),
        "{reason}"
    );
    // The attempts go on, and the log does not grow with them.
    let events = tuned.plane.lock().log.len();
    tuned.rounds(6);
    assert_eq!((tuned.state(), tuned.plane.lock().log.len()), (State::RollingBack, events));
    // A person who continues in spite of it is not overruled.
    tuned.pass(3_000_000);
    tuned.freeze(FleetAction::Unfreeze);
    tuned.rounds(3);
    assert_eq!(frozen(), None);
    tuned.plane.lock().refuse_all = false;
    tuned.rounds(6);
    let change = tuned.change().unwrap();
    assert!(matches!(change.state, State::Quarantined | State::Blocked | State::RolledBack), "{change:?}");
    assert_eq!(change.reason, cause, "the reason is that of the rollback");
    assert_eq!(tuned.plane.record(NAME).aliases["live"].additional, None);
    assert_eq!(frozen(), None);
    tuned.assert_no_violations();
}

/// Runs `tailor changes` with these arguments for this data folder.
fn tailor_changes(data: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.arg("changes").args(arguments).arg("--data").arg(data).env_clear();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A function whose tuner reads requests from this data folder.
fn with_requests(data: &Path, with_alias: bool) -> Tuned {
    let mut tuned = Tuned::new(IDLE, with_alias);
    tuned.settings.requests = Some(RequestStore::in_data_folder(data));
    tuned
}

/// The function is as it was before its first change.
fn assert_is_original(tuned: &Tuned, case: &str) {
    let record = tuned.plane.record(NAME);
    assert_eq!(record.latest.config.memory_mb, IDLE.memory, "{case}");
    if let Some(alias) = record.aliases.get("live") {
        assert_eq!((alias.version.as_str(), &alias.additional), ("1", &None), "{case}");
        assert_eq!(alias.description, "production", "{case}");
        assert_eq!(record.versions.len(), 1, "{case}");
    }
    tuned.assert_no_violations();
}

#[test]
fn a_requested_rollback_restores_the_previous_size() {
    let cases = [
        (true, State::Canary),
        (true, State::Soaking),
        (true, State::Settled),
        (false, State::Soaking),
        (false, State::Settled),
    ];
    for (with_alias, state) in cases {
        let case = format!("{state:?}, alias {with_alias}");
        let data = tempfile::tempdir().unwrap();
        let tuned = with_requests(data.path(), with_alias);
        tuned.until(&[state], GOOD);
        // Another change than the latest one, and another function.
        tailor_changes(data.path(), &["rollback", NAME, "--change", "000009"]);
        tailor_changes(data.path(), &["rollback", "another"]);
        tuned.round();
        assert_eq!(tuned.state(), state, "{case}");
        tailor_changes(data.path(), &["rollback", NAME, "--change", "000001"]);
        tuned.rounds(6);
        let change = tuned.change().unwrap();
        assert_eq!((change.state, change.cause), (State::RolledBack, Some(Cause::Operator)), "{case}");
        assert!(tuned.requests().is_empty(), "{case}");
        assert_is_original(&tuned, &case);
        assert_eq!(tuned.plane.changes().len(), 1, "{case}: not changed again at once");
    }
}

#[test]
fn a_revert_of_all_freezes_and_rolls_every_change_in_force_back() {
    for with_alias in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let tuned = with_requests(data.path(), with_alias);
        tuned.until(&[State::Settled], GOOD);
        tuned.traffic(2_000, GOOD);
        tuned.pass(15 * DAY_US);
        tuned.traffic(600_000, GOOD);
        tuned.rounds(4);
        assert_eq!(tuned.plane.changes().len(), 2, "{}", tuned.plan());
        tuned.until(&[State::Soaking], GOOD);
        tailor_changes(data.path(), &["revert-all", "--reason", "a test"]);
        // Lambda does not answer at first: the request stays.
        tuned.plane.lock().fault = Some((3, Fault::CrashBefore));
        tuned.rounds(12);
        let states: Vec<State> = tuned.plane.changes().iter().map(|change| change.state).collect();
        assert_eq!(states, [State::RolledBack, State::RolledBack], "alias {with_alias}");
        assert_is_original(&tuned, &format!("alias {with_alias}"));
        assert!(tuned.requests().is_empty());
        let frozen = || fleet::frozen(&tuned.plane.lock().log).map(|(_, reason)| reason);
        assert_eq!(frozen().as_deref(), Some("a test"));
        tailor_changes(data.path(), &["unfreeze"]);
        tuned.rounds(1);
        assert_eq!(frozen(), None);
    }
}

#[test]
fn an_altered_log_is_found() {
    let tuned = Tuned::new(IDLE, true);
    tuned.until(&[State::Settled], GOOD);
    let log = tuned.plane.lock().log.clone();
    assert_eq!(audit::verify(&log).correct, log.len() as u64);
    for index in 0..log.len() {
        let mut altered = log.clone();
        altered[index].at_us += 1;
        assert!(!audit::verify(&altered).faults.is_empty(), "altered {index}");
        if index + 1 < log.len() {
            let mut removed = log.clone();
            removed.remove(index);
            assert!(!audit::verify(&removed).faults.is_empty(), "removed {index}");
        }
    }
}

#[test]
fn the_iam_policies_permit_what_the_tuner_calls_and_nothing_else() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/iam");
    let policy = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/{name}")).unwrap()).unwrap()
    };
    let (read, write) = (policy("tuner-read.json"), policy("tuner-write.json"));
    let actions = |policy: &serde_json::Value| -> Vec<String> {
        let actions = policy["Statement"][0]["Action"].as_array().unwrap().iter();
        actions.map(|action| action.as_str().unwrap().to_owned()).collect()
    };
    // The calls are methods of the SDK's client: `client.list_aliases()` needs `lambda:ListAliases`.
    let source = include_str!("../src/tuner/aws.rs");
    let mut called: Vec<String> = source
        .split("client.")
        .skip(1)
        .filter_map(|rest| rest.split_once("()"))
        .filter(|(method, _)| {
            method.chars().all(|character| character.is_ascii_lowercase() || character == '_')
        })
        .map(|(method, _)| {
            let words = method.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            format!("lambda:{}", words.collect::<String>())
        })
        .collect();
    called.retain(|action| action != "lambda:Clone");
    // Lambda returns the tags only with this permission.
    called.push("lambda:ListTags".to_owned());
    called.sort_unstable();
    called.dedup();
    let mut permitted = [actions(&read), actions(&write)].concat();
    permitted.sort_unstable();
    assert_eq!(called, permitted);
    for action in actions(&read) {
        assert!(action.contains(":Get") || action.contains(":List"), "{action}");
    }
    let tag = &write["Statement"][0]["Condition"]["StringEquals"]["aws:ResourceTag/tailor:tune"];
    assert_eq!(*tag, serde_json::json!(["apply", "apply-up"]));
}

#[test]
fn the_iam_policies_permit_the_collector_to_assume_roles_with_the_external_id() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/iam");
    let statement = |name: &str| -> serde_json::Value {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let policy: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1, "{name}");
        policy["Statement"][0].clone()
    };
    let (assume, trust) = (statement("tuner-assume-role.json"), statement("tuner-trust.json"));
    for statement in [&assume, &trust] {
        assert_eq!((&statement["Effect"], &statement["Action"]), (&"Allow".into(), &"sts:AssumeRole".into()));
    }
    // The SDK's provider makes this call, with the external id, for the role that the policy names.
    let source = include_str!("../src/tuner/aws.rs");
    assert!(source.contains("AssumeRoleProvider::builder(") && source.contains(".external_id(external_id)"));
    assert_eq!(assume["Resource"], "arn:aws:iam::ACCOUNT:role/NAME");
    assert_eq!(trust["Principal"]["AWS"], "arn:aws:iam::COLLECTOR_ACCOUNT:role/COLLECTOR_ROLE");
    assert_eq!(trust["Condition"]["StringEquals"]["sts:ExternalId"], "EXTERNAL_ID");
    // Each policy is described.
    let described = std::fs::read_to_string(format!("{folder}/README.md")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || described.contains(&format!("[{name}]({name})")), "{name}");
    }
}
