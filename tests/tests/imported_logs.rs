//! The logs of functions give the same totals as the extension's telemetry of the same invocations.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example, Language};
use tailor_test_kit::workspace;

/// Invocations of each function.
const INVOCATIONS: u32 = 6;

/// Functions whose handler returns errors: one with JSON logs and one with text logs.
const FAILING: [&str; 2] = ["failing-json", "failing-text"];

/// Switches the function to JSON logs.
fn use_json_logs(deployment: &Deployment, function: &str) {
    let url = format!("{}/2015-03-31/functions/{function}/configuration", deployment.sandbox_url());
    let body = r#"{"LoggingConfig":{"LogFormat":"JSON"}}"#;
    let response = ureq::put(url).header("Content-Type", "application/json").send(body).unwrap();
    assert!(response.status().is_success());
    let has_ended = || deployment.lambda.configuration(function).unwrap()["LastUpdateStatus"] == "Successful";
    while !has_ended() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(deployment.lambda.configuration(function).unwrap()["LoggingConfig"]["LogFormat"], "JSON");
}

/// Whether every log in the folder has JSON reports, or every one text reports.
fn is_json(folder: &Path) -> bool {
    let mut is_json = vec![];
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let [json, plain] = ["platform.report", "REPORT RequestId"].map(|report| text.contains(report));
        assert_ne!(json, plain, "{text}");
        is_json.push(json);
    }
    assert!(is_json.iter().all(|one| *one == is_json[0]));
    is_json[0]
}

#[test]
fn imported_logs_equal_the_telemetry() {
    let folder = tempfile::tempdir().unwrap();
    let rust = EXAMPLES.iter().filter(|example| example.language == Language::Rust);
    let mut examples: Vec<Example> = rust.clone().cloned().collect();
    let failing = rust.take(1).cloned();
    examples.extend(failing.flat_map(|example| {
        FAILING.map(|name| Example { name, workload: "fail", event: "{}", ..example.clone() })
    }));
    let is_failing = |name: &str| FAILING.contains(&name);
    let with_json_logs = [examples[0].name, FAILING[0]];
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    let collector = programs.collector.clone();
    let mut deployment = Deployment::start(&Plan::new(programs, &project, folder.path(), &examples)).unwrap();
    for name in with_json_logs {
        use_json_logs(&deployment, name);
    }
    for _ in 0..INVOCATIONS {
        for example in &examples {
            let response = deployment.lambda.invoke(example.name, example.event).unwrap();
            assert_eq!(response.function_error.is_some(), is_failing(example.name), "{response:?}");
        }
    }
    deployment.stop_sandbox().unwrap();
    let summary = deployment.summary().unwrap();
    let measured = summary["functions"].as_array().unwrap();
    assert_eq!(measured.len(), examples.len());
    for function in measured {
        let name = function["name"].as_str().unwrap();
        let logs = folder.path().join("sandbox/logs").join(name);
        let output = Command::new(&collector)
            .args(["import", "logs", "--format", "json", "--function", name, "--region"])
            .arg(function["region"].as_str().unwrap())
            .args(["--architecture", function["architecture"].as_str().unwrap(), "--data"])
            .arg(folder.path().join("imported").join(name))
            .arg(&logs)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let imported: Value = serde_json::from_slice(&output.stdout).unwrap();
        let imported = &imported["functions"][0];
        for field in ["invocations", "billed_ms", "cost_pico_usd", "cold_starts", "memory_mb", "versions"] {
            assert_eq!(imported[field], function[field], "{field} of {name}: {output:?}");
        }
        let errors = if is_failing(name) { INVOCATIONS } else { 0 };
        assert_eq!((&function["invocations"], &function["errors"]), (&INVOCATIONS.into(), &errors.into()));
        // The `REPORT` line of an invocation whose handler returned an error has no status.
        assert_eq!(is_json(&logs), with_json_logs.contains(&name));
        assert_eq!(imported["errors"], if is_json(&logs) { errors } else { 0 }, "{name}");
    }
}
