//! What the extension records of invocations that fail, and of the Init that they waited for. The functions run under the
//! sandbox; the extension writes one log line for each invocation.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tailor_test_kit::build;
use tailor_test_kit::process::is_root;
use tailor_test_kit::skip;
use tailor_test_kit::workspace;

/// Functions that use all of their memory run one after the other: without `/dev/fuse` the kernel's count of kills is that of
/// the machine.
static MEMORY: Mutex<()> = Mutex::new(());

/// Uses more memory than any size, in steps of 1 MB.
const GROW: &str = "x = []\nwhile True: x.append(b'x' * 1048576)";

/// A function with 128 MB that executes Python code.
struct Function<'a> {
    timeout_s: u32,
    /// More lines of `function.toml`.
    settings: &'a str,
    /// Code that runs during Init.
    init: &'a str,
    /// Code of each invocation.
    handler: &'a str,
    /// A program to run as a second extension.
    extension: Option<&'a str>,
}

impl Default for Function<'_> {
    fn default() -> Self {
        Self { timeout_s: 20, settings: "", init: "", handler: "", extension: None }
    }
}

/// Adds the files of a function to `folder`, and of a second extension to a copy of `layer`.
fn write_function(function: &Function<'_>, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let source = workspace::project().unwrap().join("tests/functions/exec/bootstrap.py");
    fs::copy(source, folder.join("bootstrap.py")).unwrap();
    write_program(&folder.join("bootstrap"), "#!/bin/sh\nexec python3 \"$LAMBDA_TASK_ROOT/bootstrap.py\"\n");
    let (timeout_s, settings) = (function.timeout_s, function.settings);
    let init = Value::from(function.init);
    let text = format!(
        "runtime = 'provided.al2023'\nmemory_mb = 128\ntimeout_s = {timeout_s}\n{settings}\n\
         [environment]\nTAILOR_LOG_INVOCATIONS = '600'\nINIT_EXEC = {init}\n"
    );
    fs::write(folder.join("function.toml"), text).unwrap();
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Invokes the function and returns the log lines of the extension of this type.
fn log_lines(function: &Function<'_>, invocations: u32, kind: &str) -> Vec<Value> {
    let programs = build::programs().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("measured");
    write_function(function, &folder);
    let layer = temporary.path().join("layer");
    fs::create_dir_all(layer.join("extensions")).unwrap();
    fs::copy(programs.layer.join("extensions/tailor-extension"), layer.join("extensions/tailor-extension"))
        .unwrap();
    if let Some(program) = function.extension {
        write_program(&layer.join("extensions/other"), program);
    }
    let data = temporary.path().join("data");
    let output = Command::new(&programs.sandbox)
        .arg("invoke")
        .arg(&folder)
        .arg(json!({ "exec": function.handler }).to_string())
        .args(["--count", &invocations.to_string()])
        .arg("--layer")
        .arg(&layer)
        .arg("--data")
        .arg(&data)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(data.join("logs").is_dir(), "{messages}");
    let log = read_all(&data.join("logs"));
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["type"] == kind)
        .collect();
    assert!(!lines.is_empty(), "{messages}\n{log}");
    lines
}

/// All files below `folder` together, each in the order of its lines.
fn read_all(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { read_all(&path) } else { fs::read_to_string(&path).unwrap() };
    }
    text
}

/// The invocations as the extension recorded them, in their order.
fn invoke(function: &Function<'_>, invocations: u32) -> Vec<Value> {
    let lines = log_lines(function, invocations, "tailor.invocation");
    assert_eq!(lines.len(), invocations as usize, "{lines:?}");
    lines
}

/// The values of `key`.
fn all<'a>(lines: &'a [Value], key: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[key].as_str().unwrap()).collect()
}

/// Invokes a function that uses all of its memory and returns the outcomes.
fn outcomes(handler: &str, init: &str, invocations: u32) -> Vec<String> {
    let _one_at_a_time = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = invoke(&Function { init, handler, ..Function::default() }, invocations);
    all(&lines, "outcome").into_iter().map(ToOwned::to_owned).collect()
}

/// Whether memory limits are available. Otherwise the test is skipped.
fn has_limits() -> bool {
    let has_limits = is_root();
    if !has_limits {
        skip("needs memory limits, which need root");
    }
    has_limits
}

/// Code for a handler: `first` in the first invocation of the environment, `later` in those that follow.
fn first_then(first: &str, later: &str) -> String {
    format!(
        "import os\nif not os.path.exists('/tmp/first'):\n    open('/tmp/first', 'w').close()\n    {first}\nelse:\n    {later}"
    )
}

/// Fills the page cache, which the memory limit counts.
const FILL: &str = "f = open('/tmp/big', 'wb'); [f.write(b'x' * 1048576) for i in range(200)]; f.close()";

#[test]
fn errors_after_the_memory_was_full_are_errors() {
    if !has_limits() {
        return;
    }
    let raise = first_then(FILL, "raise ValueError('bad input')");
    assert_eq!(outcomes(&raise, "", 4), ["success", "error", "error", "error"]);
    let exit = first_then(FILL, "os._exit(1)");
    assert_eq!(outcomes(&exit, "", 3), ["success", "error", "error"]);
}

#[test]
fn kills_are_recognized_each_time() {
    if !has_limits() {
        return;
    }
    assert_eq!(outcomes(GROW, "", 3), ["out_of_memory"; 3], "the runtime is killed");
    assert_eq!(outcomes("", GROW, 2), ["out_of_memory"; 2], "the runtime is killed in Init");
    let child = format!(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', {}], check=True)",
        Value::from(GROW)
    );
    assert_eq!(outcomes(&child, "", 3), ["out_of_memory"; 3], "a child is killed, and the runtime continues");
}

#[test]
fn an_init_that_runs_into_the_timeout_is_a_cold_start() {
    let handler = first_then("import time; time.sleep(10)", "pass");
    let init = "import os, time\nif os.path.exists('/tmp/first'): time.sleep(8)";
    let lines = invoke(&Function { timeout_s: 2, init, handler: &handler, ..Function::default() }, 3);
    assert_eq!(all(&lines, "outcome"), ["timeout"; 3]);
    assert_eq!(all(&lines, "initialization"), ["on-demand", "inside-invocation", "inside-invocation"]);
    assert!(
        lines.iter().all(|line| line["cold_start"] == true && line["duration_ms"] == 2_000.0),
        "{lines:?}"
    );
    for line in &lines[1..] {
        assert_eq!((line["init_ms"].as_f64(), line["billed_ms"].as_u64()), (Some(2_000.0), Some(2_000)));
    }
    // A timeout is billed with the Init before it.
    let init_ms = lines[0]["init_ms"].as_f64().unwrap();
    assert!(
        (lines[0]["billed_ms"].as_f64().unwrap() - (2_000.0 + init_ms).ceil()).abs() <= 1.0,
        "{}",
        lines[0]
    );
}

/// The Init before the invocation takes longer than Lambda allows, and runs again inside it.
#[test]
fn a_slow_init_inside_an_invocation_is_part_of_its_duration() {
    let init = "import time; time.sleep(11)";
    let lines = invoke(&Function { init, ..Function::default() }, 2);
    assert_eq!(all(&lines, "initialization"), ["inside-invocation", "warm"]);
    let [duration_ms, init_ms] = ["duration_ms", "init_ms"].map(|key| lines[0][key].as_f64().unwrap());
    assert!(duration_ms > init_ms && init_ms > 11_000.0, "{}", lines[0]);
    assert!(
        lines[1]["duration_ms"].as_f64().unwrap() < 1_000.0 && lines[1]["init_ms"].is_null(),
        "{}",
        lines[1]
    );
}

#[test]
fn the_class_is_that_of_the_environment() {
    let classes = |settings| {
        let lines = invoke(&Function { settings, ..Function::default() }, 3);
        let mut classes = BTreeMap::new();
        for line in &lines {
            let class = line["initialization"].as_str().unwrap().to_owned();
            let cold_start = line["cold_start"].as_bool().unwrap();
            *classes.entry((class, cold_start)).or_insert(0) += 1;
        }
        classes
    };
    let expected = |class: &str, cold_start| {
        BTreeMap::from([((class.to_owned(), cold_start), 1), (("warm".to_owned(), false), 2)])
    };
    assert_eq!(classes(""), expected("on-demand", true));
    assert_eq!(classes("initialization_type = 'snap-start'"), expected("snap-start", true));
}

/// An extension that requests the next event late, as one that sends its data before it does.
const SLOW_EXTENSION: &str = r#"#!/usr/bin/env python3
import http.client, json, os, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
body, name = json.dumps({"events": ["INVOKE"]}), {"Lambda-Extension-Name": "other"}
connection.request("POST", "/2020-01-01/extension/register", body, name)
response = connection.getresponse()
response.read()
identifier = {"Lambda-Extension-Identifier": response.headers["Lambda-Extension-Identifier"]}
while True:
    connection.request("GET", "/2020-01-01/extension/event/next", headers=identifier)
    connection.getresponse().read()
    time.sleep(4)
"#;

#[test]
fn an_invocation_that_waits_for_another_extension_has_the_reason() {
    let function = Function { timeout_s: 3, extension: Some(SLOW_EXTENSION), ..Function::default() };
    let lines = log_lines(&function, 1, "tailor.invocation");
    assert_eq!(all(&lines, "outcome"), ["timeout"]);
    assert!(lines[0]["post_runtime_ms"].as_f64().unwrap() > 2_000.0, "{}", lines[0]);
    let summaries = log_lines(&function, 1, "tailor.summary");
    let hints = summaries[0]["hints"].as_array().unwrap();
    let hint = hints.iter().find(|hint| hint["code"] == "extension-overhead").unwrap();
    assert!(hint["evidence"].as_str().unwrap().contains("1 of 1 invocations"), "{hint}");
}
