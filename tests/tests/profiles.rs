//! Profiles of functions in four languages go to a real S3 server and come back, as their tools read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::process::as_seen_by_functions;
use tailor_test_kit::s3::S3Server;
use tailor_test_kit::{build, skip, workspace};

const INVOCATIONS: usize = 2;

/// Programs for the files `profile.FORMAT` in the current folder, and a text that each prints of the examples.
const READERS: [(Language, &str, &[&str], &str); 4] = [
    (
        Language::Python,
        "cprofile",
        &["python3", "-c", "import pstats; pstats.Stats('profile.cprofile').print_stats()"],
        "function calls",
    ),
    (
        Language::Node,
        "cpuprofile",
        &[
            "node",
            "-e",
            "const p = require('./profile.json'); console.log(p.samples.length, p.nodes.map((n) => n.callFrame.functionName).join())",
        ],
        // The compiler may inline the function of the workload into its callers.
        "profiled",
    ),
    (Language::Go, "pprof", &["go", "tool", "pprof", "-top", "profile.pprof"], "Type: cpu"),
    (Language::Java, "jfr", &["jfr", "summary", "profile.jfr"], "jdk.ExecutionSample"),
];

fn example(language: Language) -> Example {
    let (name, event) = match language {
        Language::Python => ("profile-python", r#"{"rounds":1000000}"#),
        Language::Node => ("profile-node", r#"{"rounds":20000000}"#),
        Language::Go => ("profile-go", "{}"),
        _ => ("profile-java", "{}"),
    };
    Example { name, language, memory_mb: 1_769, workload: "profile", event, invocations: 0, tunable: false }
}

/// Reads a profile with its own program and returns what that prints.
fn read(program: &[&str], format: &str, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let name = if format == "cpuprofile" { "profile.json".to_owned() } else { format!("profile.{format}") };
    fs::write(folder.path().join(name), content).unwrap();
    let mut command = Command::new(program[0]);
    let output = command.args(&program[1..]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(deployment: &Deployment, path: &str) -> String {
    let url = format!("{}{path}", deployment.collector_url());
    ureq::get(url).call().unwrap().into_body().read_to_string().unwrap()
}

/// Downloads a profile with the redirect of the collector.
fn download(deployment: &Deployment, profile: &Value) -> Vec<u8> {
    let url = format!("{}{}", deployment.collector_url(), profile["download"].as_str().unwrap());
    let mut content = vec![];
    ureq::get(url).call().unwrap().into_body().into_reader().read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, profile["bytes"].as_u64().unwrap());
    content
}

#[test]
fn profiles_of_four_languages_are_uploaded_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = match S3Server::start(&folder.path().join("s3")) {
        Ok(server) => server,
        Err(error) => return skip(&format!("needs an S3 server: {error:#}")),
    };
    server.create_bucket("profiles").unwrap();
    let readers: Vec<_> = READERS
        .into_iter()
        .filter(|(language, ..)| match language.missing_command() {
            Some(command) => {
                skip(&format!("profiles of {} need {command}", language.name()));
                false
            }
            None => true,
        })
        .collect();
    let examples: Vec<_> = readers.iter().map(|(language, ..)| example(*language)).collect();
    let mut deployment = start(&server, folder.path(), &examples);
    for example in &examples {
        for _ in 0..INVOCATIONS {
            let answer = deployment.lambda.invoke(example.name, example.event).unwrap();
            assert_eq!(answer.function_error, None, "{}", answer.payload);
        }
    }
    // The profile of the last invocation is uploaded at SHUTDOWN.
    deployment.stop_sandbox().unwrap();
    let log = fs::read_to_string(folder.path().join("sandbox.log")).unwrap();
    assert!(!log.contains("profile not uploaded"), "{log}");

    for ((_, format, program, expected), example) in readers.iter().zip(&examples) {
        let name = example.name;
        let invocations = get(&deployment, &format!("/v1/functions/{name}/invocations"));
        let invocations: Value = serde_json::from_str(&invocations).unwrap();
        let requests: BTreeSet<_> = invocations["invocations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|invocation| invocation["request_id"].as_str().unwrap().to_owned())
            .collect();
        let output = deployment.tailor(&["function", name, "--format", "json"]).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let profiles = report["profiles"].as_array().unwrap();
        let of: BTreeSet<_> =
            profiles.iter().map(|profile| profile["request_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((requests.len(), &of), (INVOCATIONS, &requests), "{name}: {profiles:?}\n{log}");
        for profile in profiles {
            assert_eq!((&profile["format"], &profile["memory_mb"]), (&Value::from(*format), &1_769.into()));
            let text = read(program, format, &download(&deployment, profile));
            assert!(text.contains(expected), "{text}");
        }
        let newest = profiles[0]["name"].as_str().unwrap();
        let text = String::from_utf8(deployment.tailor(&["function", name]).unwrap().stdout).unwrap();
        assert!(text.contains(newest), "{text}");
        let page = get(&deployment, &format!("/functions/{name}"));
        let link = profiles[0]["download"].as_str().unwrap().replace('&', "&amp;");
        assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    }
}

fn start(server: &S3Server, folder: &Path, examples: &[Example]) -> Deployment {
    let url = server.url();
    let upload_url = as_seen_by_functions(&url);
    let (programs, project) = (build::programs().unwrap(), workspace::project().unwrap());
    Deployment::start(&Plan {
        collector_arguments: &[
            "--profiles",
            "s3://profiles/tailor",
            "--s3-endpoint",
            &url,
            "--s3-path-style",
            "--profiles-upload-endpoint",
            &upload_url,
        ],
        function_environment: &[("TAILOR_PROFILES", "1"), ("TAILOR_LOG_LEVEL", "info")],
        ..Plan::new(programs, &project, folder, examples)
    })
    .unwrap()
}
