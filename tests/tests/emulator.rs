//! Compares the sandbox with AWS's runtime interface emulator. The same probe extension and the same runtime run on both.
//!
//! The emulator (`aws-lambda-rie`, from the Python package `aws-sam-cli`) contains code that runs in real execution
//! environments, so each difference needs a reason. `emulator/differences.json` lists every difference with its reason.
//! The test fails when a difference is not listed, and when a listed difference no longer exists. After a change,
//! `UPDATE_DIFFERENCES=1 cargo test -p tailor-e2e --test emulator` writes the list again and keeps the reasons.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

mod emulator {
    pub(crate) mod observed;
    pub(crate) mod rie;
}

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use emulator::observed::Observed;
use emulator::rie::{Emulator, find_emulator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tailor_test_kit::build::sandbox;
use tailor_test_kit::lambda::LambdaClient;
use tailor_test_kit::process::{Server, free_address};
use tailor_test_kit::release::build_for_host;
use tailor_test_kit::workspace::project;

/// Initialization types of the compared environments.
const MODES: [&str; 2] = ["on-demand", "lambda-managed-instances"];

/// Number of invocations that `emulator/runtime.py` expects.
const INVOCATIONS: usize = 4;

/// Pause between invocations. The emulator of managed instances rejects an invocation while the runtime does not wait
/// for one.
const PAUSE: Duration = Duration::from_millis(300);

/// One fact that differs between the emulator and the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Difference {
    mode: String,
    what: String,
    emulator: Value,
    sandbox: Value,
    why: String,
}

#[test]
fn every_difference_from_the_emulator_is_listed() {
    let Some(emulator) = find_emulator() else { return };
    let mut found = Vec::new();
    for mode in MODES {
        let emulator_run = observe_emulator(&emulator, mode);
        let sandbox_run = observe_sandbox(mode);
        found.extend(compare(mode, &emulator_run, &sandbox_run));
    }
    let path = project().unwrap().join("tests/emulator/differences.json");
    let known: Vec<Difference> =
        fs::read(&path).map_or_else(|_| Vec::new(), |text| serde_json::from_slice(&text).unwrap());
    for difference in &mut found {
        let same =
            known.iter().find(|known| (&known.mode, &known.what) == (&difference.mode, &difference.what));
        difference.why = same.map_or_else(String::new, |same| same.why.clone());
    }
    if std::env::var_os("UPDATE_DIFFERENCES").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    } else {
        assert_eq!(found, known, "right: the differences listed in {}", path.display());
    }
    let unexplained: Vec<_> = found.iter().filter(|difference| difference.why.is_empty()).collect();
    assert!(unexplained.is_empty(), "differences without a reason: {unexplained:#?}");
}

fn compare(mode: &str, emulator_run: &Observed, sandbox_run: &Observed) -> Vec<Difference> {
    // The emulator delivers no telemetry for on-demand functions.
    let applies = |name: &String| mode != "on-demand" || !name.starts_with("telemetry");
    let (emulator_facts, sandbox_facts) = (emulator_run.facts(), sandbox_run.facts());
    let names: std::collections::BTreeSet<_> =
        emulator_facts.keys().chain(sandbox_facts.keys()).filter(|name| applies(name)).collect();
    let fact = |facts: &BTreeMap<String, Value>, name: &str| facts.get(name).cloned().unwrap_or(Value::Null);
    names
        .into_iter()
        .map(|name| (name, fact(&emulator_facts, name), fact(&sandbox_facts, name)))
        .filter(|(_, emulator, sandbox)| emulator != sandbox)
        .map(|(name, emulator, sandbox)| Difference {
            mode: mode.into(),
            what: name.clone(),
            emulator,
            sandbox,
            why: String::new(),
        })
        .collect()
}

/// A folder that the test shares with environments that run as another user. It is not in `/tmp`, because each
/// environment has its own `/tmp`.
fn shared_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let record = folder.path().join("record");
    fs::create_dir(&record).unwrap();
    fs::set_permissions(record, fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// Copies the probe to `opt/extensions` and the runtime to the function's folder. Returns both folders.
fn install_programs(folder: &Path) -> (PathBuf, PathBuf) {
    let sources = project().unwrap().join("tests/emulator");
    let (opt, function) = (folder.join("opt"), folder.join("functions/fn"));
    fs::create_dir_all(opt.join("extensions")).unwrap();
    fs::create_dir_all(&function).unwrap();
    fs::copy(sources.join("probe.py"), opt.join("extensions/probe")).unwrap();
    fs::copy(sources.join("runtime.py"), function.join("bootstrap")).unwrap();
    (opt, function)
}

fn invoke_all(invoke: impl Fn() -> Value) -> Vec<Value> {
    let answers = (0..INVOCATIONS).map(|_| {
        std::thread::sleep(PAUSE);
        invoke()
    });
    answers.collect()
}

/// Environment variables that start the emulator with the initialization type `mode`.
fn environment<'a>(record: &'a Path, mode: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut environment = vec![
        ("PROBE_RECORD", record.to_str().unwrap()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", mode),
        ("AWS_REGION", "us-east-1"),
    ];
    if mode != "on-demand" {
        // This variable selects the emulator's mode for managed instances.
        environment.push(("AWS_LAMBDA_MAX_CONCURRENCY", "2"));
    }
    environment
}

fn observe_emulator(emulator: &Emulator, mode: &str) -> Observed {
    let folder = shared_folder();
    let record = folder.path().join("record");
    let (opt, function) = install_programs(folder.path());
    let mut running =
        emulator.start(&opt, &function, &environment(&record, mode), &folder.path().join("log"));
    let answers = invoke_all(|| running.invoke("{}"));
    // The last events are delivered after the last response.
    std::thread::sleep(Duration::from_millis(500));
    running.stop();
    Observed::read(&record, answers)
}

fn observe_sandbox(mode: &str) -> Observed {
    let folder = shared_folder();
    let record = folder.path().join("record");
    let (opt, function) = install_programs(folder.path());
    // Managed instances support only the log format JSON.
    let log_format = if mode == "on-demand" { "Text" } else { "JSON" };
    fs::write(
        function.join("function.toml"),
        format!(
            "runtime = 'provided.al2023'\nname = 'test_function'\nmemory_mb = 3008\ntimeout_s = 60\n\
             initialization_type = '{mode}'\nlog_format = '{log_format}'\nenvironment.PROBE_RECORD = '{}'\n",
            record.display()
        ),
    )
    .unwrap();
    let address = free_address().unwrap().to_string();
    let mut command = Command::new(sandbox().unwrap());
    command.args(["serve", "--listen", &address, "--account", "123456789012"]);
    command.arg("--data").arg(folder.path().join("data"));
    command.arg("--share").arg(folder.path().join("record"));
    command.arg("--functions").arg(folder.path().join("functions")).arg("--layer").arg(opt);
    let ready = || std::net::TcpStream::connect(&address).is_ok();
    let mut sandbox = Server::start(&mut command, &folder.path().join("log"), ready).unwrap();
    let lambda = LambdaClient::new(&address);
    let answers = invoke_all(|| lambda.invoke("test_function", "{}").unwrap().payload);
    std::thread::sleep(Duration::from_millis(500));
    sandbox.stop(Duration::from_secs(20)).unwrap();
    Observed::read(&record, answers)
}

/// Runs the release build of the extension on AWS's emulator: no invocation fails, the extension does not exit early, and
/// its summary counts every invocation.
#[test]
fn the_extension_runs_on_the_emulator() {
    let Some(emulator) = find_emulator() else { return };
    let extension = build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension");
    for mode in MODES {
        let folder = shared_folder();
        let (opt, function) = install_programs(folder.path());
        fs::remove_file(opt.join("extensions/probe")).unwrap();
        fs::copy(&extension, opt.join("extensions/tailor-extension")).unwrap();
        let record = folder.path().join("record");
        let mut running =
            emulator.start(&opt, &function, &environment(&record, mode), &folder.path().join("log"));
        let answers = invoke_all(|| running.invoke("{}"));
        assert_eq!(answers[0], serde_json::json!({"answer": 1}), "{mode}");
        std::thread::sleep(Duration::from_millis(500));
        let log = running.stop();
        assert!(!log.contains("Extension.Crash"), "{mode}: {log}");
        let summary = log.lines().find(|line| line.contains("tailor.summary")).unwrap_or_default();
        let summary: Value = serde_json::from_str(summary).unwrap_or_else(|_| panic!("{mode}: {log}"));
        assert_eq!(summary["invocations"], INVOCATIONS, "{mode}: {summary}");
    }
}
