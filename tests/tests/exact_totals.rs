//! The collector's totals equal the platform's billed totals exactly, in milliseconds and pico-dollars, also when the
//! collector is killed during the run.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example, Language};
use tailor_test_kit::workspace;

/// Price of a GB-second in us-east-1, x86_64, first tier (0.0000166667 USD), in pico-dollars.
const GB_SECOND_PICO_USD: u128 = 16_666_700;
/// Price of a request (0.0000002 USD), in pico-dollars.
const REQUEST_PICO_USD: u128 = 200_000;

/// Totals of the platform's reports for one function.
#[derive(Debug, Default, PartialEq)]
struct Billed {
    invocations: u64,
    errors: u64,
    billed_ms: u64,
}

/// Sums the `platform.report` events of the sandbox's trace by memory size. Each example has a different memory size.
fn billed_by_memory(trace: &[Value]) -> BTreeMap<u64, Billed> {
    let mut billed = BTreeMap::<u64, Billed>::new();
    for line in trace.iter().filter(|line| line["type"] == "platform.report") {
        let (record, metrics) = (&line["record"], &line["record"]["metrics"]);
        let sum = billed.entry(metrics["memorySizeMB"].as_u64().unwrap()).or_default();
        sum.invocations += 1;
        sum.errors += u64::from(record["status"] != "success");
        sum.billed_ms += metrics["billedDurationMs"].as_u64().unwrap();
    }
    billed
}

fn rust_examples() -> Vec<Example> {
    EXAMPLES.iter().filter(|example| example.language == Language::Rust).cloned().collect()
}

/// Checks each function's totals against the platform's, and its cost against the price list.
fn assert_exact(summary: &Value, expected: &BTreeMap<u64, Billed>) {
    for function in summary["functions"].as_array().unwrap() {
        let memory_mb = function["memory_mb"].as_u64().unwrap();
        let shown = Billed {
            invocations: function["invocations"].as_u64().unwrap(),
            errors: function["errors"].as_u64().unwrap(),
            billed_ms: function["billed_ms"].as_u64().unwrap(),
        };
        assert_eq!(shown, expected[&memory_mb], "{}", function["name"]);
        // MB-milliseconds divided by 1,024 MB and 1,000 ms, rounded half up once, plus the requests.
        let mb_ms = u128::from(memory_mb) * u128::from(shown.billed_ms);
        let expected_cost = (mb_ms * GB_SECOND_PICO_USD + 512_000) / 1_024_000
            + u128::from(shown.invocations) * REQUEST_PICO_USD;
        assert_eq!(
            u128::from(function["cost_pico_usd"].as_u64().unwrap()),
            expected_cost,
            "{}",
            function["name"]
        );
    }
}

/// A deployment with the layer attached to `examples`.
fn deploy(folder: &Path, examples: &[Example]) -> Deployment {
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    Deployment::start(&Plan::new(programs, &project, folder, examples)).unwrap()
}

#[test]
fn totals_are_exact_when_the_collector_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let examples = rust_examples();
    let mut deployment = deploy(folder.path(), &examples);
    for round in 0..6 {
        match round {
            2 => deployment.kill_collector().unwrap(),
            4 => deployment.start_collector().unwrap(),
            _ => {}
        }
        for example in &examples {
            let answer = deployment.lambda.invoke(example.name, example.event).unwrap();
            assert_eq!(answer.function_error, None, "{}: {}", example.name, answer.payload);
        }
    }
    deployment.stop_sandbox().unwrap();

    let expected = billed_by_memory(&deployment.trace().unwrap());
    let summary = deployment.summary().unwrap();
    assert_eq!(summary["functions"].as_array().unwrap().len(), examples.len());
    assert_exact(&summary, &expected);
    assert!(expected.values().all(|billed| billed.invocations == 6));
}

/// A handler that takes less than a millisecond is invoked many times before the platform delivers its first report.
#[test]
fn totals_are_exact_for_a_function_invoked_back_to_back() {
    let folder = tempfile::tempdir().unwrap();
    let example = Example { name: "empty", workload: "empty", event: "{}", ..rust_examples()[0].clone() };
    let mut deployment = deploy(folder.path(), std::slice::from_ref(&example));
    for _ in 0..300 {
        assert_eq!(deployment.lambda.invoke(example.name, example.event).unwrap().function_error, None);
    }
    deployment.stop_sandbox().unwrap();
    let expected = billed_by_memory(&deployment.trace().unwrap());
    let summary = deployment.summary().unwrap();
    assert_exact(&summary, &expected);
    assert_eq!(summary["functions"][0]["invocations"], 300);
    assert_eq!(summary["functions"][0]["caveats"], serde_json::json!([]), "no total is an estimate");
}
