//! The advice for functions with a known unsuitable memory size is correct.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

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

/// Runs one example alone, so that no other function competes for the CPU. Returns its entry of the summary.
fn measure(example: &Example) -> Value {
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

fn has_hint(function: &Value, code: &str) -> bool {
    let hints = function["advice"]["full"]["hints"].as_array().unwrap();
    hints.iter().any(|hint| hint["code"] == code)
}

/// Whether CPU quotas and memory limits are available. Otherwise the test is skipped.
fn has_limits() -> bool {
    let has_limits = is_root();
    if !has_limits {
        skip("needs CPU quotas, which need root");
    }
    has_limits
}

#[test]
fn advice_for_a_cpu_bound_function_is_more_memory() {
    if !has_limits() {
        return;
    }
    let function = measure(&example("cpu"));
    assert!(has_hint(&function, "cpu-starved"), "{}", function["advice"]);
    assert!(function["starved_ms"].as_u64() > function["busy_ms"].as_u64(), "{function}");
    assert!(function["advice"]["memory_mb"].as_u64() > function["memory_mb"].as_u64());
}

#[test]
fn advice_for_an_io_bound_function_is_less_memory() {
    if !has_limits() {
        return;
    }
    let function = measure(&example("io"));
    assert!(function["advice"]["memory_mb"].as_u64() < function["memory_mb"].as_u64(), "{function}");
    assert!(function["advice"]["cost_change_percent"].as_f64().unwrap() < -50.0);
    assert!(function["idle_ms"].as_u64() > function["busy_ms"].as_u64());
}

#[test]
fn advice_for_a_memory_bound_function_is_not_less_memory() {
    if !has_limits() {
        return;
    }
    let function = measure(&example("memory"));
    assert!(function["advice"]["memory_mb"].as_u64() >= function["memory_mb"].as_u64(), "{function}");
    // The handler fills 440 MB. The runtime uses the rest.
    assert!((440..=460).contains(&function["peak_memory_mb"].as_u64().unwrap()), "{function}");
}
