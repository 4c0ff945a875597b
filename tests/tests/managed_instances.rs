//! A function on managed instances: one environment runs several invocations at once, and the real extension measures the
//! environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::thread;
use std::time::Duration;

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::workspace;

const NAME: &str = "concurrent";

/// CPU time of an invocation. Four that run at once do not use more than one CPU, because Python runs one thread at a time.
const BUSY_MS: f64 = 100.0;

/// Invocations that are sent at the same time, and how often.
const CALLERS: u64 = 4;
const ROUNDS: u64 = 12;

fn run() -> (tempfile::TempDir, Deployment) {
    let folder = tempfile::tempdir().unwrap();
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    let example = Example {
        name: NAME,
        language: Language::ConcurrentPython,
        memory_mb: 2_048,
        workload: "",
        event: r#"{"busy_ms":100,"wait_ms":300,"mb":20}"#,
        invocations: 0,
        tunable: false,
    };
    let examples = [example.clone()];
    let mut deployment = Deployment::start(&Plan::new(programs, &project, folder.path(), &examples)).unwrap();
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let answer = deployment.lambda.invoke(NAME, example.event).unwrap();
                    assert_eq!(answer.payload, 20 << 20, "{answer:?}");
                }
            });
        }
    });
    // The last batch without SHUTDOWN: an environment of managed instances is not frozen, and sends it while it waits.
    thread::sleep(Duration::from_secs(7));
    deployment.stop_sandbox().unwrap();
    (folder, deployment)
}

fn json(deployment: &Deployment, arguments: &[&str]) -> Value {
    serde_json::from_slice(&deployment.tailor(arguments).unwrap().stdout).unwrap()
}

#[test]
fn the_environment_is_measured_while_invocations_run_at_once() {
    let (_folder, deployment) = run();
    let report = json(&deployment, &["function", NAME, "--format", "json"]);
    let invocations = CALLERS * ROUNDS;
    assert_eq!(report["invocations"], invocations, "{report}");
    assert_eq!((&report["errors"], &report["environments"]), (&0.into(), &1.into()));
    // Each waits for 300 ms and needs 100 ms of CPU time.
    assert!(report["duration_ms"]["p50"].as_f64().unwrap() >= 390.0, "{}", report["duration_ms"]);
    let used = &report["utilization"];
    let number = |field: &str| used[field].as_f64().unwrap();
    // An invocation ends with the platform's record, which is a moment after its caller has the answer and calls again.
    let most = number("max_concurrency");
    assert!((CALLERS as f64..=CALLERS as f64 + 1.0).contains(&most), "{used}");
    let cpu_ms = number("mean_vcpus") * number("measured_ms");
    let expected_ms = BUSY_MS * invocations as f64;
    assert!((0.9..1.6).contains(&(cpu_ms / expected_ms)), "{cpu_ms} ms of {expected_ms} ms: {used}");
    assert!(number("p99_vcpus") >= number("mean_vcpus"), "{used}");
    // An invocation needs 20 MB, the allocator may keep them for each of 16 threads, and Python needs about 20 MB.
    assert!((40.0..450.0).contains(&number("peak_memory_mb")), "{used}");
    assert_eq!(report["extension"]["not_measured"], Value::Null);

    let series = json(&deployment, &["series", NAME, "--format", "json"]);
    let points = series["points"].as_array().unwrap();
    let of_points = points.iter().filter_map(|point| point["utilization"]["max_concurrency"].as_u64()).max();
    assert_eq!(of_points.map(|of_points| of_points as f64), Some(most), "{series}");
    let text = deployment.tailor(&["where", NAME]).unwrap().stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(&format!("and at most {most}; an invocation uses 0.")), "{text}");
    assert!(text.contains("PerExecutionEnvironmentMaxConcurrency") || text.contains("no settings"), "{text}");
}
