//! `tailor tune` with real functions that the real extension measures. It is a file of its own, because cargo runs files one
//! after the other: durations are compared.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

#[path = "tuner/recorder.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod recorder;
#[path = "tuner/stage.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod stage;

use stage::{Function, Stage};
use tailor_test_kit::process::is_root;
use tailor_test_kit::skip;

/// Waits 50 ms, at any size.
const WAIT: &str = "import time; time.sleep(0.05)";

/// Uses 20 ms of CPU time.
const COMPUTE: &str = "import time\nend = time.process_time() + 0.02\nwhile time.process_time() < end: pass";

/// Waits 30 ms and uses 10 ms of CPU time.
const BOTH: &str = "import time\ntime.sleep(0.03)\n\
    end = time.process_time() + 0.01\nwhile time.process_time() < end: pass";

/// Attempts with one function. Other load on the machine can disturb a measurement.
const ATTEMPTS: usize = 3;

#[test]
fn an_experiment_with_telemetry_needs_a_third_of_the_invocations_and_its_result_is_kept() {
    const SIZES: &str = "128,256,512,1024,1536,3008";
    if !is_root() {
        return skip("needs memory limits and CPU quotas, which need root");
    }
    let function = |name, events| Function { name, memory_mb: 1_024, strategy: "cost", events, senders: 1 };
    let examples = [
        (function("waiting", &[WAIT]), "cost", SIZES),
        (function("computing", &[COMPUTE]), "speed", "192,256,384,512,1024"),
        (function("mixed", &[BOTH]), "balanced", "192,512,1769,2560,3008"),
    ];
    let mut stage = Stage::start(&examples.map(|(function, ..)| function));
    stage.start_collector("first", &["--tuner=off"]);
    for (function, strategy, sizes) in examples {
        // One after the other, because durations are compared.
        let traffic = stage.send(&function);
        stage.wait_for_invocations(function.name, 100);
        drop(traffic);
        let tune = |more: &[&str]| {
            let usual = ["--strategy", strategy, "--power-values", sizes];
            stage.tune(function.name, function.events[0], &[&usual, more].concat())
        };
        let count = |outcome: &serde_json::Value| outcome["invocations"].as_u64().unwrap();
        let is_right = |few: &serde_json::Value, all: &serde_json::Value| {
            few["power"] == all["power"] && 3 * count(few) <= count(all)
        };
        let both = || {
            // The telemetry of the exhaustive experiment must not help the other one.
            let few = tune(&["--data", stage.data()]);
            (few, tune(&["--exhaustive"]))
        };
        let (mut few, mut all) = both();
        for _ in 1..ATTEMPTS {
            if !is_right(&few, &all) {
                println!("{}: another attempt: {few} {all}", function.name);
                (few, all) = both();
            }
        }
        assert!(is_right(&few, &all), "{}: {few} {all}", function.name);
        // The result is beside the advice, and what the layer measured at each size is in the curve.
        let report = stage.report(function.name);
        let kept = &report["other_recommendations"][0];
        assert_eq!(kept["memory_mb"], few["power"], "{report}");
        assert_eq!(kept["sizes"].as_array().unwrap().len(), few["stats"].as_array().unwrap().len(), "{kept}");
        assert!(stage.page(function.name).contains("class=\"experiment\""), "{}", function.name);
        let observed: Vec<u64> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
        stage.wait_for_sizes(function.name, &observed);
    }
}
