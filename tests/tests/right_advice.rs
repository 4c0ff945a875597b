//! Functions whose sizes are wrong in a known way are told so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example};
use tailor_test_kit::process::is_root;
use tailor_test_kit::skip;
use tailor_test_kit::workspace;

const INVOCATIONS: u32 = 25;

fn example(workload: &str) -> Example {
    EXAMPLES.iter().find(|example| example.workload == workload).unwrap().clone()
}

/// A deployment with the layer attached to `examples`.
fn deploy(folder: &Path, examples: &[Example]) -> Deployment {
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    Deployment::start(&Plan::new(programs, &project, folder, examples)).unwrap()
}

/// Runs one example by itself, so that the machine's cores are its own, and returns its line of the summary.
fn learn(example: &Example) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut deployment = deploy(folder.path(), std::slice::from_ref(example));
    for _ in 0..INVOCATIONS {
        assert_eq!(deployment.lambda.invoke(example.name, example.event).unwrap().function_error, None);
    }
    deployment.stop_sandbox().unwrap();
    let function = deployment.summary().unwrap()["functions"][0].clone();
    assert_eq!(function["name"], example.name);
    assert_eq!(function["invocations"], INVOCATIONS);
    assert_eq!(function["errors"], 0);
    function
}

fn has_reason(function: &Value, code: &str) -> bool {
    let reasons = function["advice"]["reasons"].as_array().unwrap();
    reasons.iter().any(|reason| reason.as_str().unwrap().starts_with(code))
}

/// CPU quotas and memory limits need root; without them there is nothing to be starved of.
fn limits_are_on() -> bool {
    let root = is_root();
    if !root {
        skip("needs CPU quotas, which need root");
    }
    root
}

#[test]
fn a_cpu_bound_function_has_its_starved_time_named() {
    if !limits_are_on() {
        return;
    }
    let function = learn(&example("cpu"));
    assert!(has_reason(&function, "cpu-starved"), "{}", function["advice"]["reasons"]);
    assert!(function["starved_ms"].as_u64() > function["busy_ms"].as_u64(), "{function}");
    assert!(function["advice"]["memory_mb"].as_u64() > function["memory_mb"].as_u64());
}

#[test]
fn an_io_bound_function_is_told_to_go_down() {
    if !limits_are_on() {
        return;
    }
    let function = learn(&example("io"));
    assert!(function["advice"]["memory_mb"].as_u64() < function["memory_mb"].as_u64(), "{function}");
    assert!(function["advice"]["cost_change_percent"].as_f64().unwrap() < -50.0);
    assert!(function["idle_ms"].as_u64() > function["busy_ms"].as_u64());
}

#[test]
fn a_memory_hungry_function_keeps_or_raises_its_memory() {
    if !limits_are_on() {
        return;
    }
    let function = learn(&example("memory"));
    assert!(function["advice"]["memory_mb"].as_u64() >= function["memory_mb"].as_u64(), "{function}");
    // It fills 440 MB; the rest is its runtime.
    assert!((440..=460).contains(&function["peak_memory_mb"].as_u64().unwrap()), "{function}");
}
