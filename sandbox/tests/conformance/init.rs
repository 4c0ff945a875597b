//! Init: its order, its failures, and its repetition inside the first invocation.

use serde_json::json;

use crate::fakes::{FakeExtension, FakeRuntime, TestEnvironment, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT};

/// Every file of /opt/extensions is started in parallel; the runtime only when all have registered.
#[test]
fn the_runtime_waits_for_registrations() {
    let environment = TestEnvironment::start(&["a", "b"], "");
    let spawned = environment.sandbox.events("extension.spawn");
    assert_eq!(spawned.len(), 2, "both run before either has registered");
    FakeExtension::register(&environment.api, "a", &["INVOKE"]);
    assert!(environment.sandbox.events("runtime.spawn").is_empty());
    FakeExtension::register(&environment.api, "b", &[]);
    environment.sandbox.await_event("runtime.spawn", 1);
    let trace = environment.sandbox.trace();
    let position = |event: &str| trace.iter().rposition(|line| line["event"] == event).unwrap();
    assert!(position("extension.register") < position("runtime.spawn"));
}

/// Init ends when the runtime and every extension, whatever it registered for, have requested their next event.
#[test]
fn init_waits_for_everyone() {
    let environment = TestEnvironment::start(&["a", "b"], "");
    let a = FakeExtension::register(&environment.api, "a", &["INVOKE"]);
    let b = FakeExtension::register(&environment.api, "b", &[]);
    let invocation = environment.runtime.next_later();
    let _a = a.next_later();
    environment.sandbox.await_event("extension.next", 1);
    environment.sandbox.await_event("runtime.ready", 1);
    assert!(environment.sandbox.telemetry("platform.initReport").is_empty());
    let _b = b.next_later();
    environment.sandbox.await_telemetry("platform.initReport", 1);
    assert_eq!(invocation.join().unwrap().unwrap().json(), json!({"n": 1}));
}

/// The events of Init, in order: initStart first, and initRuntimeDone only after the wait for extensions.
#[test]
fn events_of_init() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let _next = extension.next_later();
    let _invocation = environment.runtime.next();
    let lines = environment.sandbox.events("telemetry");
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    let expected = [
        "platform.initStart",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
    ];
    assert_eq!(kinds, expected);
    let start = &lines[0]["record"];
    assert_eq!(start["initializationType"], "on-demand");
    assert_eq!(start["phase"], "init");
    assert_eq!(start["functionName"], "fn");
    assert_eq!(start["functionVersion"], "$LATEST");
    assert!(start["runtimeVersion"].is_string() && start["runtimeVersionArn"].is_string());
    let extension = json!({"name": "a", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]});
    assert_eq!(lines[2]["record"], extension);
    let report = &lines[3]["record"];
    assert_eq!((&report["status"], &report["phase"]), (&json!("success"), &json!("init")));
    assert!(report["metrics"]["durationMs"].is_f64());
}

/// A runtime that exits fails Init; Init is repeated inside the invocation, as phase `invoke`, and the caller
/// gets the second failure.
#[test]
fn a_failed_init_is_repeated_in_the_invocation() {
    let sandbox = Builder::new().function("fn", "", "#!/bin/sh\nexit 7\n").start();
    let response = sandbox.invoke("fn", "{}");
    assert_eq!(response.header("x-amz-function-error"), Some("Unhandled"));
    let body = response.json();
    assert_eq!(body["errorType"], "Runtime.ExitError");
    assert!(
        body["errorMessage"].as_str().unwrap().ends_with("Error: Runtime exited with error: exit status 7")
    );
    let reports = sandbox.telemetry("platform.initReport");
    let phases: Vec<_> = reports.iter().map(|report| report["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["init", "invoke"]);
    assert!(reports.iter().all(|report| report["status"] == "error"));
    let report = sandbox.await_telemetry("platform.report", 1);
    assert!(report["metrics"].get("initDurationMs").is_none(), "a suppressed Init is part of the duration");
}

/// A suppressed Init that succeeds serves the invocation.
#[test]
fn a_suppressed_init_serves_the_invocation() {
    let script = "#!/bin/sh\nif [ ! -e /tmp/again ]; then touch /tmp/again; exit 1; fi\nexec sleep 1000\n";
    let sandbox = Builder::new().function("fn", "timeout_s = 20", script).start();
    if !crate::sandbox::is_root("a_suppressed_init_serves_the_invocation") {
        return;
    }
    let caller = sandbox.invoke_later("fn", "{}");
    sandbox.await_event("runtime.spawn", 2);
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let invocation = runtime.next();
    runtime.respond(&request_id(&invocation), r#""ok""#);
    assert_eq!(caller.join().unwrap().json(), json!("ok"));
}

/// The caller gets the error that the runtime posts to init/error.
#[test]
fn reported_runtime_init_error() {
    let environment = TestEnvironment::start(&[], "");
    for attempt in 1..=2 {
        environment.sandbox.await_event("runtime.spawn", attempt);
        let body = r#"{"errorType":"Function.NoModule","errorMessage":"no module"}"#;
        let headers = [("Lambda-Runtime-Function-Error-Type", "Runtime.ImportModuleError")];
        let path = "/2018-06-01/runtime/init/error";
        let response = crate::http::request(&environment.api, "POST", path, &headers, body.as_bytes());
        assert_eq!((response.status, response.json()), (202, json!({"status": "OK"})));
    }
    let response = environment.caller.join().unwrap();
    assert_eq!(response.json()["errorMessage"], "no module");
    let report = environment.sandbox.await_telemetry("platform.initReport", 1);
    assert_eq!(report["errorType"], "Runtime.ImportModuleError");
}

/// Init is limited to ten seconds; then it starts again in the invocation with fresh extension processes.
#[test]
fn init_times_out_after_ten_seconds() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 30");
    drop(extension);
    let report = environment.sandbox.await_telemetry("platform.initReport", 1);
    assert_eq!(report["status"], "timeout");
    let took = report["metrics"]["durationMs"].as_f64().unwrap();
    assert!((10_000.0..12_000.0).contains(&took), "{took} ms");
    environment.sandbox.await_event("extension.spawn", 2);
    let again = FakeExtension::register(&environment.api, "a", &["INVOKE"]);
    let _next = again.next_later();
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "2");
    assert_eq!(environment.caller.join().unwrap().json(), json!(2));
    let starts = environment.sandbox.telemetry("platform.initStart");
    assert_eq!(starts[1]["phase"], "invoke");
}

/// A file that cannot be executed is a LaunchError of its extension and makes the function unusable.
#[test]
fn launch_errors() {
    let sandbox =
        Builder::new().function("fn", "", IDLE_SCRIPT).extension("bad", "#!/no/such/interpreter\n").start();
    let response = sandbox.invoke("fn", "{}").json();
    assert_eq!(response["errorType"], "Extension.LaunchError");
    let message = response["errorMessage"].as_str().unwrap();
    assert!(message.contains("fork/exec /opt/extensions/bad: No such file or directory"), "{message}");

    let builder = Builder::new().function("fn", "", IDLE_SCRIPT).extension("denied", "");
    let denied = builder.path().join("layer/extensions/denied");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(denied, mode).unwrap();
    let sandbox = builder.start();
    let response = sandbox.invoke("fn", "{}");
    assert_eq!(response.error_type(), "Extension.LaunchError");
    let extensions = sandbox.telemetry("platform.extension");
    let find = |name: &str| extensions.iter().find(|record| record["name"] == name).unwrap();
    assert_eq!(find("denied")["state"], "LaunchError");
    assert_eq!(find("denied")["errorType"], "PermissionDenied");
    assert_eq!(find("denied")["events"], json!([]));
}

/// An extension that exits during Init, even with 0, is a crash.
#[test]
fn an_extension_may_not_exit_during_init() {
    let sandbox =
        Builder::new().function("fn", "", IDLE_SCRIPT).extension("a", "#!/bin/sh\nexit 0\n").start();
    let response = sandbox.invoke("fn", "{}");
    assert_eq!(response.error_type(), "Extension.Crash");
}

/// More than ten extension files fail Init.
#[test]
fn too_many_extension_files() {
    let mut builder = Builder::new().function("fn", "", IDLE_SCRIPT);
    for number in 0..11 {
        builder = builder.extension(&format!("e{number}"), IDLE_SCRIPT);
    }
    let sandbox = builder.start();
    assert_eq!(sandbox.invoke("fn", "{}").error_type(), "Extension.TooManyExtensions");
}

/// A missing bootstrap is an invalid entry point.
#[test]
fn missing_entry_point() {
    let sandbox = Builder::new().function("fn", "command = ['/no/such/program']", IDLE_SCRIPT).start();
    assert_eq!(sandbox.invoke("fn", "{}").error_type(), "Runtime.InvalidEntrypoint");
}
