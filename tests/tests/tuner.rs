//! The tuner with real functions behind aliases: the sandbox runs them, the real extension measures them, and the real
//! collector changes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

#[path = "tuner/recorder.rs"]
mod recorder;
#[path = "tuner/stage.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod stage;

use std::collections::BTreeMap;

use stage::{Function, Stage};
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::process::is_root;
use tailor_test_kit::skip;

/// Waits 50 ms, at any size.
const WAIT: &str = "import time; time.sleep(0.05)";

/// Waits 500 ms, at any size. The tuner rolls a change back when durations are 10 % above the prediction: a busy machine delays
/// an invocation by more than 5 ms at times, and by more than 50 ms rarely.
const LONG_WAIT: &str = "import time; time.sleep(0.5)";

/// Waits 50 ms at the present size, and 150 ms at each smaller one, which no measurement predicts.
const SLOWER_WHEN_SMALL: &str = "import os, time\n\
    time.sleep(0.05 if int(os.environ['AWS_LAMBDA_FUNCTION_MEMORY_SIZE']) >= 1024 else 0.15)";

/// Uses 40 ms of CPU time, which takes seven times as long at 256 MB, and waits 40 ms.
const BUSY: &str =
    "import time\nend = time.process_time() + 0.04\nwhile time.process_time() < end: pass\ntime.sleep(0.04)";

/// Keeps 4 MB more with each invocation of an environment, up to 208 MB.
const GROW: &str = "import time\nkept = globals().setdefault('kept', [])\n\
    if len(kept) < 52: kept.append(b'x' * (4 << 20))\ntime.sleep(0.05)";

/// Uses 120 MB for a moment.
const PEAK: &str = "import time\nsome = b'x' * (120 << 20)\ndel some\ntime.sleep(0.02)";

/// Whether the sandbox has memory limits and CPU quotas. Otherwise the test is skipped.
fn has_limits() -> bool {
    let has_limits = is_root();
    if !has_limits {
        skip("needs memory limits and CPU quotas, which need root");
    }
    has_limits
}

/// A function with a size that it does not need. Its senders together invoke it twelve times a second.
const fn waiting(name: &'static str) -> Function {
    Function { name, memory_mb: 1_024, strategy: "cost", events: &[LONG_WAIT], senders: 6 }
}

#[test]
fn functions_are_moved_through_a_canary_and_a_wrong_prediction_is_rolled_back() {
    if !has_limits() {
        return;
    }
    let functions = [
        waiting("over-provisioned"),
        // Twice the size takes half the time, for which `balanced` pays a little. Whether more memory saves is never certain enough
        // from one size: of a short burst, it depends on the kernel of the machine.
        Function { name: "starved", memory_mb: 256, strategy: "balanced", events: &[BUSY], senders: 1 },
        // One sender: its environment has grown before there are enough invocations for a decision.
        Function { name: "growing", memory_mb: 256, strategy: "cost", events: &[GROW], senders: 1 },
        Function {
            name: "killed",
            memory_mb: 128,
            strategy: "cost",
            events: &[WAIT, WAIT, WAIT, PEAK],
            senders: 3,
        },
        Function {
            name: "mispredicted",
            memory_mb: 1_024,
            strategy: "cost",
            events: &[SLOWER_WHEN_SMALL],
            senders: 3,
        },
    ];
    let mut stage = Stage::start(&functions);
    stage.start_collector("first", &[]);
    let traffic: BTreeMap<_, _> =
        functions.iter().map(|function| (function.name, stage.send(function))).collect();

    // The collector is killed while a version has a weight. Another process continues with its folder.
    stage.wait_for("over-provisioned", &["canary", "hold"]);
    stage.kill_collector(0);
    stage.start_collector("first", &[]);

    let kept = ["killed", "growing", "starved", "over-provisioned"];
    let mut ends: BTreeMap<_, &[&str]> = kept.map(|name| (name, &["settled"][..])).into();
    ends.insert("mispredicted", &["rolled-back", "quarantined"]);
    let changes = stage.wait_for_all(&ends, traffic);

    for name in kept {
        let change = &changes[name];
        let steps = &change.states;
        assert!(steps.iter().any(|state| state == "canary"), "{name}: {steps:?}");
        assert!(steps.iter().any(|state| state == "soaking"), "{name}: {steps:?}");
        assert!(change.measured >= 60 && change.measured_before > 0, "{name}: {change:?}");
        assert_eq!(change.id, "000001", "{name}: one change");
        let alias = stage.serving(name);
        assert_eq!(
            (alias.version.as_str(), alias.weights, alias.description.as_str(), alias.memory_mb),
            ("2", 0, "", change.to_mb),
            "{name}"
        );
        assert_eq!(stage.versions(name), ["$LATEST", "1", "2"], "{name}");
    }
    let [killed, growing, starved, less] = kept.map(|name| &changes[name]);
    assert!(killed.to_mb >= 228, "1.2 times the size, or 100 MB more: {killed:?}");
    assert!(growing.to_mb > 256, "{growing:?}");
    assert!(starved.to_mb > 256 && starved.to_mb <= 512, "{starved:?}");
    assert_eq!((less.from_mb, less.to_mb), (1_024, 768), "{less:?}");

    let worse = &changes["mispredicted"];
    assert!(worse.reason.contains('%') || worse.reason.contains("ms"), "{worse:?}");
    assert!(!worse.states.iter().any(|state| state == "promoting"), "{worse:?}");
    let alias = stage.serving("mispredicted");
    assert_eq!((alias.version.as_str(), alias.weights, alias.memory_mb), ("1", 0, 1_024));
    assert_eq!(stage.versions("mispredicted"), ["$LATEST", "1"], "its version is removed");
    stage.assert_log_is_intact();
    stage.assert_requests_are_those_of_botocore();
}

#[test]
fn a_deployment_and_a_freeze_end_a_canary_and_another_collector_takes_over() {
    if !has_limits() {
        return;
    }
    if !PostgresServer::is_installed() {
        return skip("PostgreSQL is not installed");
    }
    let server = PostgresServer::shared().unwrap();
    let database = server.new_database().unwrap();
    let [deployed, taken_over, frozen] = [waiting("deployed"), waiting("taken-over"), waiting("frozen")];
    let mut stage = Stage::start(&[deployed, taken_over, frozen]);
    stage.start_collector("first", &["--database", &database]);
    let traffic = (stage.send(&deployed), stage.send(&taken_over));

    // A deployment while the alias has a weight: their version stays, and the tuner's is removed.
    stage.wait_for("deployed", &["canary", "hold"]);
    let theirs = stage.deploy("deployed");
    let adopted = stage.wait_for("deployed", &["external-change"]);
    assert_eq!(adopted.id, "000001");
    let alias = stage.serving("deployed");
    assert_eq!((alias.version, alias.weights, alias.memory_mb), (theirs.clone(), 0, 1_024));
    assert_eq!(stage.versions("deployed"), ["$LATEST".to_owned(), "1".to_owned(), theirs]);
    drop(traffic.0);

    // The collector is killed during a canary. The second one gets its lease and has the same telemetry.
    stage.start_collector("second", &["--database", &database]);
    stage.wait_for("taken-over", &["canary", "hold"]);
    stage.kill_collector(0);
    stage.use_last_collector();
    let frozen_traffic = stage.send(&frozen);
    let settled = stage.wait_for("taken-over", &["settled"]);
    assert_eq!((settled.id.as_str(), settled.to_mb), ("000001", 768), "{settled:?}");
    drop(traffic.1);

    stage.wait_for("frozen", &["canary", "hold"]);
    stage.tailor(&["changes", "freeze", "--reason", "an incident"]);
    let ended = stage.wait_for("frozen", &["frozen"]);
    assert_eq!(ended.id, "000001");
    let alias = stage.serving("frozen");
    assert_eq!((alias.version.as_str(), alias.weights), ("1", 0));
    assert_eq!(stage.versions("frozen"), ["$LATEST", "1"]);
    drop(frozen_traffic);
    stage.assert_log_is_intact();
}
